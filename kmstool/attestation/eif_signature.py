"""The signature section of an enclave image: a certificate and its signature over PCR0.

CBOR, as AWS' crate aws-nitro-enclaves-image-format writes it: an array of one map with
`signing_certificate` (PEM) and `signature` (a COSE_Sign1, RFC 9052, untagged) whose payload is the
map `{register_index: 0, register_value: PCR0}`. Byte strings inside are arrays of integers, except
in the COSE_Sign1 itself.

What a good signature says: whoever made the image had the certificate's private key. PCR8 is the
hash of that certificate. Nobody checks who issued it: its names and dates are what the signer says.
"""

import warnings
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from kmstool import cbor
from kmstool.errors import InputError


@dataclass(frozen=True, slots=True)
class EifSignature:
    """A signature that was verified.

    Attributes:
        certificate: DER of the signing certificate; PCR8 is its hash.
        algorithm: `ES256`, `ES384` or `ES512`.
    """

    certificate: bytes
    algorithm: str


def verify_signature(section: bytes, pcr0: bytes) -> EifSignature:
    """The one signature in a section, over exactly this PCR0 of 48 bytes.

    Raises:
        InputError: it is malformed, over something else, or not the certificate's.
    """
    entries = _decode(section, "the signature section", depth=3)
    if not isinstance(entries, list) or len(entries) != 1:
        _refuse("the signature section does not hold one signature")
    entry = _map(entries[0], {"signing_certificate", "signature"}, "the signature section")
    certificate = _certificate(_octets(entry["signing_certificate"], "the signing certificate"))
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _ALGORITHMS:
        _refuse("the signing certificate's key is not on P-256, P-384 or P-521")
    algorithm = _ALGORITHMS[key.curve.name]
    sign1 = _decode(_octets(entry["signature"], "the signature"), "the signature", depth=2)
    payload = _verify_sign1(sign1, key, algorithm)
    signed = _map(_decode(payload, "what was signed", depth=2), _SIGNED, "what was signed")
    index = signed["register_index"]
    if type(index) is not int or index != 0:
        _refuse("the signature is not over PCR0")
    if _octets(signed["register_value"], "the signed PCR0") != pcr0:
        _refuse("the signature is over another PCR0 than that of this image")
    return EifSignature(certificate.public_bytes(Encoding.DER), algorithm.name)


@dataclass(frozen=True, slots=True)
class _Algorithm:
    """RFC 9053, section 2.1; the crate goes by the key's curve, as its COSE implementation does."""

    name: str
    number: int
    digest: hashes.HashAlgorithm
    half: int  # bytes of r and of s


_ALGORITHMS: Final = {
    "secp256r1": _Algorithm("ES256", -7, hashes.SHA256(), 32),
    "secp384r1": _Algorithm("ES384", -35, hashes.SHA384(), 48),
    "secp521r1": _Algorithm("ES512", -36, hashes.SHA512(), 66),
}
_SIGNED: Final = {"register_index", "register_value"}
_BEGIN: Final = b"-----BEGIN "


def _verify_sign1(sign1: Any, key: ec.EllipticCurvePublicKey, algorithm: _Algorithm) -> bytes:
    if not isinstance(sign1, list) or len(sign1) != 4:
        _refuse("the signature is not a COSE_Sign1, an array of four")
    protected, unprotected, payload, signature = sign1
    if not all(type(part) is bytes for part in (protected, payload, signature)):
        _refuse("the signature is not a COSE_Sign1: a part is not a byte string")
    header = _decode(protected, "the signature's protected header", depth=1)
    # Compared with their types: True and 1.0 are equal to 1 in Python.
    if type(header) is not dict or [(type(k), k, type(v)) for k, v in header.items()] != [
        (int, 1, int)
    ]:
        _refuse("the signature's protected header holds anything but the algorithm")
    if header[1] != algorithm.number:
        _refuse(
            f"the signature's algorithm is {header[1]}, and the certificate's key signs with"
            f" {algorithm.number} ({algorithm.name})"
        )
    if type(unprotected) is not dict or unprotected:
        _refuse("the signature's unprotected header is not an empty map")
    half = algorithm.half
    if len(signature) != 2 * half:
        _refuse(f"the signature has {len(signature)} bytes, not {2 * half}")
    r, s = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
    covered = _sig_structure(protected, payload)
    try:
        key.verify(encode_dss_signature(r, s), covered, ec.ECDSA(algorithm.digest))
    except InvalidSignature:
        _refuse("the signature is not by the key of the signing certificate")
    return bytes(payload)


def _sig_structure(protected: bytes, payload: bytes) -> bytes:
    """RFC 9052, section 4.4: an array of context, protected header, no external data, payload."""
    return b"\x84\x6aSignature1" + _byte_string(protected) + b"\x40" + _byte_string(payload)


def _byte_string(data: bytes) -> bytes:
    """RFC 8949, section 3: the shortest head of major type 2. Lengths here have 16 bits at most."""
    if len(data) < 24:
        return bytes([0x40 | len(data)]) + data
    if len(data) < 256:
        return b"\x58" + bytes([len(data)]) + data
    return b"\x59" + len(data).to_bytes(2, "big") + data


def _certificate(pem: bytes) -> x509.Certificate:
    if pem.count(_BEGIN) != 1:
        # OpenSSL takes the first; a reader that takes another has another PCR8.
        _refuse("the signing certificate is not one PEM block")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # of what is odd in a certificate, which is the signer's
            certificate = x509.load_pem_x509_certificate(pem)
            certificate.public_key()
    except Exception:  # noqa: BLE001 - whatever fails on bytes from outside, it is not readable
        certificate = None
    if certificate is None:
        _refuse("the signing certificate cannot be read")
    return certificate


def _map(value: Any, names: set[str], what: str) -> dict[str, Any]:
    if type(value) is not dict or set(value) != names:
        _refuse(f"{what} is not a map of {' and '.join(sorted(names))}")
    return value


def _octets(value: Any, what: str) -> bytes:
    """Bytes that were written as an array of integers."""
    if type(value) is not list or not all(type(i) is int and 0 <= i <= 255 for i in value):
        _refuse(f"{what} is not an array of octets")
    return bytes(value)


def _decode(data: bytes, what: str, *, depth: int) -> Any:
    """One item, no deeper than its form: a map whose keys are arrays could be made slow."""
    try:
        return cbor.decode(data, max_depth=depth, indefinite=False)
    except cbor.CborError as error:
        _refuse(f"{what} is not one CBOR item: {error}")


def _refuse(reason: str) -> NoReturn:
    raise InputError(
        f"not an enclave image (EIF) to be measured: {reason}",
        hint="sign the image again with nitro-cli",
    ) from None
