"""Writes `CiphertextForRecipient` as KMS does, for the emulator: RFC 5652 EnvelopedData.

The second author of the format: it shares no line with `kmstool.enclave.ber` and `cms`, which read
what it writes. asn1crypto encodes what KMS sends in DER; the layers around that, where KMS uses
indefinite lengths, are put together here octet by octet. With the field values of the real answers
it gives the real answers, byte for byte (tests/vectors). Never part of an enclave image.
"""

from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from os import urandom
from typing import Final

from asn1crypto import cms, core, parser  # type: ignore[import-untyped]
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

PIECE_MAX: Final = 1000
"""Bytes in one OCTET STRING of `KMS_EXPLICIT`. The real ones seen needed one piece each; longer
contents are cut at a size that is no multiple of a cipher block, so that readers meet that too."""

_BLOCK = 16  # bytes

_Tag = tuple[int, int, int]  # as asn1crypto's emit takes it: class, constructed or not, number
_OCTET_STRING: _Tag = (0, 0, 4)
_SEQUENCE: _Tag = (0, 1, 16)
_SET: _Tag = (0, 1, 17)
_CONTEXT_0: _Tag = (2, 0, 0)
_EXPLICIT_0: _Tag = (2, 1, 0)
_VERSION_2 = b"\x02\x01\x02"


class Shape(StrEnum):
    """How the message is encoded; what it means is the same."""

    KMS_EXPLICIT = "explicit"
    """Seen from KMS: indefinite outer layers, [0] of indefinite length around OCTET STRINGs."""
    KMS_PRIMITIVE = "primitive"
    """Seen from KMS: indefinite outer layers, primitive [0]."""
    DER = "der"
    """Not seen from KMS, but from other KMS implementations."""


def write_enveloped_data(plaintext: bytes, recipient_spki_der: bytes, *, shape: Shape) -> bytes:
    """Encrypts `plaintext` to a recipient, under a fresh content key and IV.

    Args:
        plaintext: what the recipient shall get; any length.
        recipient_spki_der: SubjectPublicKeyInfo of an RSA key, as in the attestation document.
        shape: the encoding of the result.

    Raises:
        ValueError: `recipient_spki_der` is no RSA key.
    """
    recipient = load_der_public_key(recipient_spki_der)
    if not isinstance(recipient, rsa.RSAPublicKey):
        raise ValueError("the recipient key is no RSA key")  # noqa: TRY004 - it is the value
    content_key, iv = urandom(32), urandom(_BLOCK)
    oaep = padding.OAEP(mgf=padding.MGF1(SHA256()), algorithm=SHA256(), label=None)
    fill = _BLOCK - len(plaintext) % _BLOCK
    encryptor = Cipher(algorithms.AES256(content_key), modes.CBC(iv)).encryptor()
    return build_enveloped_data(
        recipient_key_identifier=sha256(recipient_spki_der).digest(),
        encrypted_key=recipient.encrypt(content_key, oaep),
        iv=iv,
        ciphertext=encryptor.update(plaintext + bytes([fill]) * fill) + encryptor.finalize(),
        shape=shape,
    )


def build_enveloped_data(
    *,
    recipient_key_identifier: bytes,
    encrypted_key: bytes,
    iv: bytes,
    ciphertext: bytes,
    shape: Shape,
) -> bytes:
    """Puts the four fields that vary into the structure that does not; checks none of them."""
    recipient = _der(
        _SEQUENCE,
        _VERSION_2,
        _der(_CONTEXT_0, recipient_key_identifier),
        _oaep_sha256(),
        _der(_OCTET_STRING, encrypted_key),
    )
    layer = _der if shape is Shape.DER else _indefinite
    if shape is Shape.KMS_EXPLICIT:
        pieces = (ciphertext[i : i + PIECE_MAX] for i in range(0, len(ciphertext), PIECE_MAX))
        content = _indefinite(_CONTEXT_0, *(_der(_OCTET_STRING, piece) for piece in pieces))
    else:
        content = _der(_CONTEXT_0, ciphertext)
    encrypted_content_info = layer(
        _SEQUENCE,
        _oid("1.2.840.113549.1.7.1"),  # data
        _der(_SEQUENCE, _oid("2.16.840.1.101.3.4.1.42"), _der(_OCTET_STRING, iv)),  # AES-256-CBC
        content,
    )
    enveloped_data = layer(_SEQUENCE, _VERSION_2, _der(_SET, recipient), encrypted_content_info)
    return layer(
        _SEQUENCE,
        _oid("1.2.840.113549.1.7.3"),  # envelopedData
        layer(_EXPLICIT_0, enveloped_data),
    )


def _der(tag: _Tag, *parts: bytes) -> bytes:
    return bytes(parser.emit(*tag, b"".join(parts)))


def _indefinite(tag: _Tag, *parts: bytes) -> bytes:
    class_, _, number = tag
    return bytes([class_ << 6 | 0x20 | number, 0x80]) + b"".join(parts) + b"\x00\x00"


@lru_cache
def _oid(dotted: str) -> bytes:
    return bytes(core.ObjectIdentifier(dotted).dump())


@lru_cache(maxsize=1)
def _oaep_sha256() -> bytes:
    """The AlgorithmIdentifier as asn1crypto's own model of it encodes it; constant, and slow."""
    sha256_null = {"algorithm": "sha256", "parameters": core.Null()}
    parameters = {
        "hash_algorithm": sha256_null,
        "mask_gen_algorithm": {"algorithm": "mgf1", "parameters": sha256_null},
    }
    algorithm = cms.KeyEncryptionAlgorithm({"algorithm": "rsaes_oaep", "parameters": parameters})
    return bytes(algorithm.dump())
