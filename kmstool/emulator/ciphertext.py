"""The emulator's own ciphertext blobs, for keys of the spec SYMMETRIC_DEFAULT.

    1 byte   version, 0x81
    16 bytes key id (the UUID's bytes)
    12 bytes IV, random
    n bytes  AES-256-GCM ciphertext, then its tag of 16 bytes

The additional data is the blob's first 17 bytes and the encryption context: its pairs sorted by
the UTF-8 bytes of their names, each text preceded by its length in four bytes, so that no two
contexts have the same form. The real format is not published; clients treat blobs as opaque.
"""

import secrets
import uuid
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kmstool.emulator.refusal import Refusal

_VERSION = b"\x81"
_HEADER = 1 + 16  # bytes: version, key id
_IV = 12  # bytes
_TAG = 16  # bytes


def seal_blob(
    secret_key: bytes, key_id: str, plaintext: bytes, context: Mapping[str, str]
) -> bytes:
    """Encrypts under a key of 32 bytes."""
    header = _VERSION + uuid.UUID(key_id).bytes
    iv = secrets.token_bytes(_IV)
    return header + iv + AESGCM(secret_key).encrypt(iv, plaintext, header + _canonical(context))


def parse_blob_key_id(blob: bytes) -> str | None:
    """The id of the key that a blob names, or None where it is not a blob of this form."""
    if len(blob) < _HEADER + _IV + _TAG or not blob.startswith(_VERSION):
        return None
    return str(uuid.UUID(bytes=blob[1:_HEADER]))


def open_blob(secret_key: bytes, blob: bytes, context: Mapping[str, str]) -> bytes:
    """Decrypts a blob whose key id `parse_blob_key_id` gave.

    Raises:
        Refusal: `InvalidCiphertextException`; as in KMS it does not say whether the blob, the key
            or the encryption context is wrong.
    """
    header, iv, body = blob[:_HEADER], blob[_HEADER : _HEADER + _IV], blob[_HEADER + _IV :]
    try:
        return AESGCM(secret_key).decrypt(iv, body, header + _canonical(context))
    except InvalidTag:
        raise invalid_ciphertext() from None


def invalid_ciphertext() -> Refusal:
    """The one answer to every ciphertext that does not open."""
    return Refusal(
        "InvalidCiphertextException",
        "The ciphertext is not one of this KMS, was changed, or its encryption context differs",
    )


def _canonical(context: Mapping[str, str]) -> bytes:
    pairs = sorted((name.encode(), value.encode()) for name, value in context.items())
    return b"".join(len(text).to_bytes(4, "big") + text for pair in pairs for text in pair)
