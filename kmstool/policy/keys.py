"""Condition keys: which of them a request is known to have or to lack, and how to fill them.

A key that is absent from a request either is really missing, or nobody told the evaluator. The two
must never be mixed up: a `Deny` with a negated operator fires on the first and hides on the second.
So a key counts as missing only when it is one of those below, which whoever builds a `Request`
always fills in where KMS would. Every other absent key is unknown, and unknown is refused.
Source: AWS KMS Developer Guide, "AWS KMS condition keys", and "Condition keys for attested
platforms".
"""

import re
from collections.abc import Mapping
from typing import Final

ATTESTATION_PREFIX: Final = "kms:recipientattestation:"
CONTEXT_PREFIX: Final = "kms:encryptioncontext:"

_ALWAYS_TOLD: Final = frozenset(
    {
        "aws:principalaccount",
        "aws:principalarn",
        "kms:calleraccount",
        "kms:datakeypairspec",
        "kms:encryptionalgorithm",
        "kms:encryptioncontextkeys",
        "kms:keyagreementalgorithm",
        "kms:recipientattestation:imagesha384",
        "kms:requestalias",
    }
)
# An enclave's document has PCR0 to PCR31; NitroTPM's are of another platform, so truly missing.
_PCR = re.compile(r"kms:recipientattestation:(nitrotpm)?pcr([0-9]|[12][0-9]|3[01])")
_IMAGE_SHA384: Final = ATTESTATION_PREFIX + "imagesha384"


def folded(name: str) -> str:
    """A condition key's name, of which the letters A to Z have no case.

    Nothing is documented of other letters: see `same_but_for_case`.
    """
    return name.lower() if name.isascii() else name.translate(_LOWER)


def same_but_for_case(one: str, other: str) -> bool:
    """Whether two folded names differ only in what may or may not be letter case to IAM."""
    return not (one.isascii() and other.isascii()) and _any_case(one) == _any_case(other)


_LOWER: Final = {ord(letter): letter.lower() for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


def _any_case(text: str) -> str:
    return text.casefold().upper().casefold()


def is_attestation(key: str) -> bool:
    """Whether the key comes from an attestation document."""
    return folded(key).startswith(ATTESTATION_PREFIX)


def register_index(key: str) -> int | None:
    """The enclave's register that a key is about, 0..31; ImageSha384 is PCR0."""
    name = folded(key)
    if name == _IMAGE_SHA384:
        return 0
    found = _PCR.fullmatch(name)
    return int(found[2]) if found and not found[1] else None


def is_missing_when_absent(key: str) -> bool:
    """Whether a request without `key` (lower case) is known to lack it."""
    return (
        key in _ALWAYS_TOLD
        or _PCR.fullmatch(key) is not None
        or (key.startswith(CONTEXT_PREFIX) and key != CONTEXT_PREFIX)
    )


def attestation_keys(pcrs: Mapping[int, bytes]) -> dict[str, tuple[str, ...]]:
    """The keys that KMS fills from an attestation document: each PCR in hex, PCR0 once more."""
    keys: dict[str, tuple[str, ...]] = {
        f"{ATTESTATION_PREFIX}pcr{index}": (value.hex(),) for index, value in pcrs.items()
    }
    if 0 in pcrs:
        keys[f"{ATTESTATION_PREFIX}imagesha384"] = (pcrs[0].hex(),)
    return keys


def encryption_context_keys(context: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The keys that KMS fills from an encryption context.

    Names are case-insensitive in `kms:EncryptionContext:NAME` and not in
    `kms:EncryptionContextKeys`; two names that differ in case alone give one key two values.
    """
    keys: dict[str, tuple[str, ...]] = {}
    for name, value in context.items():
        key = CONTEXT_PREFIX + folded(name)
        keys[key] = (*keys.get(key, ()), value)
    if context:
        keys["kms:encryptioncontextkeys"] = tuple(context)
    return keys
