"""Values in a policy that no enclave's register can have, or that stand under the wrong name.

KMS compares PCRs as 96 hexadecimal digits (AWS KMS Developer Guide, "Condition keys for attested
platforms"); what CloudTrail shows of the same registers is base64.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Final

from kmstool.limits import NSM_PCR_COUNT_MAX, NSM_PCR_LENGTH
from kmstool.policy.keys import ATTESTATION_PREFIX, register_index
from kmstool.policy.operators import parse_operator
from kmstool.policy.printable import shown
from kmstool.policy.request import Request
from kmstool.policy.results import ConditionResult

_DIGITS: Final = 2 * NSM_PCR_LENGTH
_HEX = re.compile(r"[0-9a-fA-F]*")


def is_zero(values: Sequence[str]) -> bool:
    """Whether there are values, and each is all zeros."""
    return bool(values) and not any(value.strip("0") for value in values)


def is_spoiled(one: ConditionResult, request: Request) -> bool:
    """Whether `defects` says all there is to say: no value of it can be right where it stands."""
    if _swapped(one, request):
        return True
    return all(_defect(one, value) is not None for value in one.policy_values)


def defects(failed: Sequence[ConditionResult], request: Request) -> list[str]:
    """One sentence for each value that cannot be right where it stands."""
    found = [_defect(one, value) for one in failed for value in one.policy_values]
    found += [_swapped(one, request) for one in failed]
    return [one for one in found if one]


def _defect(one: ConditionResult, value: str) -> str | None:
    operator = parse_operator(one.operator)
    wild = operator.has_wildcards and ("*" in value or "?" in value)
    if register_index(one.key) is None or not operator.base.startswith("String"):
        return None
    if wild or "${" in value:
        return None
    name = one.key[len(ATTESTATION_PREFIX) :]
    if _HEX.fullmatch(value):
        return _hex_defect(one, value, name)
    if (raw := _from_base64(value)) is not None:
        right = raw.hex() in (one.request_values or ())
        return (
            f"the policy's value for {name} is base64, as CloudTrail writes it, and key policies"
            " take hexadecimal digits" + (": the register itself is the right one" if right else "")
        )
    return f"the policy's value for {name} is not hexadecimal ({shown(value)}): no enclave has it"


def _hex_defect(one: ConditionResult, value: str, name: str) -> str | None:
    if len(value) != _DIGITS:
        return (
            f"the policy's value for {name} has {len(value)} hexadecimal digits, and a PCR has"
            f" {_DIGITS}: no enclave has it"
        )
    base = parse_operator(one.operator).base
    right = value.lower() in (one.request_values or ())
    if right and value != value.lower() and "IgnoreCase" not in base:
        return (
            f"the policy's value for {name} is right but for capital letters, and {base} compares"
            " case: use StringEqualsIgnoreCase"
        )
    return None


def _from_base64(value: str) -> bytes | None:
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) == NSM_PCR_LENGTH else None


def _swapped(one: ConditionResult, request: Request) -> str | None:
    """The right value under the wrong name."""
    mine = register_index(one.key)
    if mine is None or parse_operator(one.operator).negated:
        return None
    wanted = {value.lower() for value in one.policy_values} - {"0" * _DIGITS}
    for index in range(NSM_PCR_COUNT_MAX):
        values = request.context.get(f"{ATTESTATION_PREFIX}pcr{index}", ())
        if index != mine and wanted.intersection(values):
            return (
                f"what the policy wants as PCR{mine} is this enclave's PCR{index}: the values stand"
                " under the wrong names"
            )
    return None
