"""Sentences about conditions, for a person who wants to know why KMS said no.

Pure text: what the policy wanted, what the request had. Values of policies and requests are no
secrets (PCRs, names, encryption contexts stand in CloudTrail), but they come from outside, so they
are quoted and made printable.
"""

from collections.abc import Sequence

from kmstool.errors import printable
from kmstool.policy.keys import ATTESTATION_PREFIX, CONTEXT_PREFIX, register_index
from kmstool.policy.operators import Quantifier
from kmstool.policy.parse import Condition
from kmstool.policy.printable import shown

_HEX_LONG = 32  # characters from which a hex value is shortened
_HEX_SHOWN = 8


def condition_sentence(
    condition: Condition,
    request_values: Sequence[str],
    *,
    denies: bool = False,
    attested: bool = True,
) -> str:
    """What the request has and what the statement asks, to follow "but" or to stand in a list.

    Args:
        denies: the statement is a Deny, so that what it asks is what it denies.
        attested: the request carries any attestation at all.
    """
    key, verb = condition.key, "the statement denies" if denies else "the policy wants"
    if condition.operator.base == "Null":
        had = f"{_name(key)} is " + ("there" if request_values else "missing")
        missing = "true" in map(str.lower, condition.values)
        return f"{had}, and {verb} it " + ("to be missing" if missing else "to be there")
    wanted = _wish(condition, request_values)
    if not request_values:
        return f"{_missing(key, attested=attested)}, and {verb} {wanted}"
    if _is_debug_pcr(key, request_values):
        return f"{_name(key)} is all zeros (debug mode), and {verb} {wanted}"
    had = " and ".join(short_hex(request_values, condition.values))
    return f"{_name(key)} is {had}, and {verb} {wanted}"


def unknown_sentence(key: str, why: str) -> str:
    """`why` is `Request.why_unknown`, and follows the key's name."""
    return f"{_name(key)} {why}"


def undefined_sentence(condition: Condition, request_values: Sequence[str]) -> str:
    had = " and ".join(short_hex(request_values, ()))
    return f"IAM does not define {condition.operator} for {_name(condition.key)} when it is {had}"


def _name(key: str) -> str:
    lower = key.lower()
    if lower.startswith(CONTEXT_PREFIX):
        return f"{shown(key[len(CONTEXT_PREFIX) :])} of the encryption context"
    return printable(key)


def _missing(key: str, *, attested: bool) -> str:
    lower = key.lower()
    if lower.startswith(ATTESTATION_PREFIX):
        name = key[len(ATTESTATION_PREFIX) :]
        if attested:
            return f"the request's attestation has no {name}"
        return f"the request carries no attestation document (Recipient) with {name}"
    if lower.startswith(CONTEXT_PREFIX):
        return f"the encryption context has no {shown(key[len(CONTEXT_PREFIX) :])}"
    if lower == "kms:encryptioncontextkeys":
        return "the request has no encryption context"
    return f"{_name(key)} is missing"


def _is_debug_pcr(key: str, request_values: Sequence[str]) -> bool:
    """PCR0 to 2 measure the image; an enclave in debug mode attests them as zeros."""
    return register_index(key) in (0, 1, 2) and all(
        value and not value.strip("0") for value in request_values
    )


_RELATIONS = {
    "NumericLessThan": "less than ",
    "NumericLessThanEquals": "at most ",
    "NumericGreaterThan": "more than ",
    "NumericGreaterThanEquals": "at least ",
    "DateLessThan": "before ",
    "DateLessThanEquals": "not after ",
    "DateGreaterThan": "after ",
    "DateGreaterThanEquals": "not before ",
    "StringLike": "what is like ",
}


def _wish(condition: Condition, request_values: Sequence[str]) -> str:
    values = " or ".join(short_hex(condition.values, request_values))
    operator = condition.operator
    relation = "anything but " if operator.negated else _RELATIONS.get(operator.base, "")
    if not operator.quantifier:
        return relation + values
    which = "each value" if operator.quantifier is Quantifier.ALL else "some value"
    return f"{which} to be {relation}{values}"


def short_hex(values: Sequence[str], others: Sequence[str]) -> list[str]:
    """Each value printable; long hex cut, but never so short that it looks like one of `others`."""
    return [_hex(value, others) if _is_long_hex(value) else shown(value) for value in values]


def _is_long_hex(value: str) -> bool:
    return len(value) >= _HEX_LONG and all(c in "0123456789abcdefABCDEF" for c in value)


def _hex(value: str, others: Sequence[str]) -> str:
    length = _HEX_SHOWN
    for other in others:
        common = 0
        for mine, theirs in zip(value.lower(), other.lower(), strict=False):
            if mine != theirs:
                break
            common += 1
        if common < len(value):
            length = max(length, common + 4)
    return value if length >= len(value) else value[:length] + "…"
