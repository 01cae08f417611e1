"""What stands behind PCR conditions that did not hold: sentences for a person.

What each register measures: AWS Nitro Enclaves User Guide, "Where to get an enclave's
measurements". An enclave in debug mode attests PCR0, PCR1 and PCR2 as zeros.
"""

from collections.abc import Sequence
from typing import Final

from kmstool.policy.actions import takes_recipient
from kmstool.policy.explain_values import defects, is_spoiled, is_zero
from kmstool.policy.keys import ATTESTATION_PREFIX, register_index
from kmstool.policy.operators import parse_operator
from kmstool.policy.request import Request
from kmstool.policy.results import ConditionResult
from kmstool.policy.wording import short_hex

_IMAGE: Final = (0, 1, 2)


def attestation_causes(failed: Sequence[ConditionResult], request: Request) -> list[str]:
    """Why these conditions on attestation keys did not hold (or, of a Deny, fired)."""
    if not failed:
        return []
    if not request.attested and all(one.request_values is None for one in failed):
        return [*defects(failed, request), _unattested(request)]
    found = defects(failed, request)
    rest = [one for one in failed if not is_spoiled(one, request)]
    missing = [one for one in rest if one.request_values is None]
    found += [_missing_register(one) for one in missing]
    differing = {register_index(one.key): one for one in rest if one.request_values}
    return found + _differences(differing, request)


def _unattested(request: Request) -> str:
    if not takes_recipient(request.action):
        return (
            f"{request.action} takes no attestation document, so that no condition on"
            " kms:RecipientAttestation holds for it: only Decrypt, DeriveSharedSecret,"
            " GenerateDataKey, GenerateDataKeyPair and GenerateRandom take one"
        )
    return (
        "the call had no attestation document: it came from outside an enclave, or from a client"
        " that sends no Recipient"
    )


def _missing_register(one: ConditionResult) -> str:
    name = one.key[len(ATTESTATION_PREFIX) :]
    if name.lower().startswith("nitrotpm"):
        number = name[len("NitroTPMPCR") :]
        return (
            f"{name} is for instances with NitroTPM, and an enclave's document never has it: the"
            f" enclave's own register is kms:RecipientAttestation:PCR{number}"
        )
    return (
        f"the attestation document has no {name}: it holds the registers that are locked, and the"
        " enclave has to lock this one before it asks"
    )


# --- Registers that differ ---------------------------------------------------------------------


def _differences(differing: dict[int | None, ConditionResult], request: Request) -> list[str]:
    image = [index for index in _IMAGE if index in differing]
    found = []
    if image and _is_debug(request):
        found.append(
            "the enclave runs in debug mode, in which it attests PCR0, PCR1 and PCR2 as zeros:"
            " start it without --debug-mode"
        )
    elif image:
        found.append(_image_sentence(image, differing))
    for index, one in sorted((i, o) for i, o in differing.items() if i is not None):
        if index not in _IMAGE:
            found.append(_compared(index, one) + ": " + _other_register(index, one))
    return found


def _is_debug(request: Request) -> bool:
    values = [request.context.get(f"{ATTESTATION_PREFIX}pcr{index}", ()) for index in _IMAGE]
    return all(is_zero(one) for one in values)


def _image_sentence(image: Sequence[int], differing: dict[int | None, ConditionResult]) -> str:
    compared = "; ".join(_compared(index, differing[index]) for index in image)
    if any(is_zero(differing[index].policy_values) for index in image):
        return (
            f"{compared}: zeros are what an enclave in debug mode attests, so the policy was"
            " written from a debug enclave and would let in any of them"
        )
    if 1 in image and 2 in image:
        means = "it is another image, or it was built again with other tools"
    elif 1 in image:
        means = "its kernel or boot ramdisk is another: it was built with another version of the"
        means += " tools"
    elif 2 in image:
        means = "the application in the image is another, on the same kernel: it was built again"
    else:
        means = "it is another image, or it was built again"
    return f"{compared}: {means}"


def _compared(index: int, one: ConditionResult) -> str:
    has = " and ".join(short_hex(one.request_values or (), one.policy_values))
    wants = " or ".join(short_hex(one.policy_values, one.request_values or ()))
    verb = "refuses all but" if parse_operator(one.operator).negated else "wants"
    return f"PCR{index} is {has}, the policy {verb} {wants}"


def _other_register(index: int, one: ConditionResult) -> str:
    none = is_zero(one.request_values or ())
    match index:
        case 3:
            if none:
                return "zeros, so the parent instance has no IAM role"
            return "the parent instance has another IAM role, or one of the same name made again"
        case 4:
            return "the enclave runs on another parent instance"
        case 8:
            if none:
                return "zeros, so the image is not signed"
            return "the image is signed with another certificate"
        case _:
            return "the application in the enclave extended this register with something else"
