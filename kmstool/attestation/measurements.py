"""What an image file measures to, as its build wrote it down, and a release key's word for it.

`nitro-cli build-enclave` and `describe-eif` print JSON with `{"Measurements": {"PCR0": "HEX", …}}`:
the values to expect of an enclave that runs the image, from whoever built it.

`verify_release` reads the same file under a detached Ed25519 signature (RFC 8032) over its bytes,
as `openssl pkeyutl -sign -rawin` makes it: a program that has the release key built in, and so
measured, can know the images that were released after it. Such a signature never says "the newest".

Never: decides which image is good, or computes measurements from an image.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from kmstool import limits
from kmstool.errors import DocumentError, InputError, SettingError
from kmstool.strict_json import read_object

_PCR: Final = re.compile(r"PCR(0|[1-9][0-9]?)")
_HEX: Final = re.compile(rf"[0-9A-Fa-f]{{{2 * limits.NSM_PCR_LENGTH}}}")


def parse_measurements(data: bytes) -> Mapping[int, bytes]:
    """The PCRs of a build's JSON, index to 48 bytes; PCR0, PCR1 and PCR2 are always among them.

    Raises:
        InputError: it is not such a file.
    """
    members, problem = read_object(data, limits.MEASUREMENTS_MAX)
    if members is None:
        raise InputError(f"the file of measurements {problem}", hint=_HINT)
    inner = members.get("Measurements")
    if not isinstance(inner, dict):
        raise InputError("the file of measurements has no Measurements", hint=_HINT)
    pcrs: dict[int, bytes] = {}
    for name, value in inner.items():
        match = _PCR.fullmatch(name)
        if match is None:
            continue  # HashAlgorithm, and whatever else a build says of itself
        if not isinstance(value, str) or not _HEX.fullmatch(value):
            raise InputError(
                f"{name} in the file of measurements is not"
                f" {2 * limits.NSM_PCR_LENGTH} hexadecimal digits",
                hint=_HINT,
            )
        pcrs[int(match[1])] = bytes.fromhex(value)
    if missing := [index for index in (0, 1, 2) if index not in pcrs]:
        raise InputError(f"the file of measurements has no PCR{missing[0]}", hint=_HINT)
    return MappingProxyType(dict(sorted(pcrs.items())))


def verify_release(data: bytes, signature: bytes, release_key: bytes) -> Mapping[int, bytes]:
    """The PCRs of a build's JSON that the release key signed.

    Args:
        data: the file, as `parse_measurements` takes it.
        signature: 64 bytes, Ed25519 over exactly these bytes.
        release_key: the public key, SubjectPublicKeyInfo DER.

    Raises:
        SettingError: the release key is not an Ed25519 key.
        DocumentError: step `release`: the signature is not that key's over this file.
        InputError: it is not a file of measurements.
    """
    try:
        key = load_der_public_key(release_key)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise SettingError(
            "the release key is not an Ed25519 key", hint="openssl genpkey -algorithm ed25519"
        )
    try:
        key.verify(signature, data)
    except InvalidSignature:
        raise DocumentError(
            "the release key did not sign this file of measurements",
            step="release",
            hint="the file must be the very one that was signed, byte for byte",
        ) from None
    return parse_measurements(data)


_HINT: Final = "give what `nitro-cli build-enclave` or `nitro-cli describe-eif` printed"
