"""Sealed files: the constants and the key schedule of docs/formats/sealed-file.md, version 1.

Pure. Nothing here reads a file, knows CBOR or asks for a key.
"""

import hmac
from enum import IntEnum
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

MAGIC: Final = b"kmstool-sealed"
VERSION: Final = 1
PREFIX_LENGTH: Final = len(MAGIC) + 2 + 4  # magic, version, length of the header
KEY_LENGTH: Final = 32  # bytes: file key, salt, data key and every derived key
MAC_LENGTH: Final = 32  # bytes; HMAC-SHA-256
TAG_LENGTH: Final = 16  # bytes; both AEADs
NONCE_LENGTH: Final = 12  # bytes; both AEADs
WRAPPED_LENGTH: Final = KEY_LENGTH + TAG_LENGTH
CHUNK: Final = 65_536  # bytes of plaintext in every chunk but the last
SEALED_CHUNK: Final = CHUNK + TAG_LENGTH
SIGNER_LENGTH: Final = 32  # bytes; an Ed25519 public key (RFC 8032, section 5.1.5)
SIGNATURE_LENGTH: Final = 64  # bytes; RFC 8032, section 5.1.6

_LABEL: Final = b"kmstool-sealed-file/1 "


class BodyCipher(IntEnum):
    """How the body is encrypted, by the number in the header."""

    AES_256_GCM = 1
    CHACHA20_POLY1305 = 2


def label(purpose: str, *rest: bytes) -> bytes:
    """The version and a purpose, and what else is bound, each after a zero byte."""
    return b"\0".join((_LABEL + purpose.encode("ascii"), *rest))


def derive(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """HKDF-SHA-256 (RFC 5869), 32 bytes."""
    return HKDF(algorithm=SHA256(), length=KEY_LENGTH, salt=salt, info=info).derive(secret)


def prefix(header_length: int) -> bytes:
    """Magic, version and the header's length."""
    return MAGIC + VERSION.to_bytes(2, "big") + header_length.to_bytes(4, "big")


def header_mac(file_key: bytes, salt: bytes, covered: bytes) -> bytes:
    """HMAC-SHA-256 over everything before it; it commits to the file key."""
    return hmac.digest(derive(file_key, salt, label("header")), covered, "sha256")


def body_key(file_key: bytes, salt: bytes, mac: bytes) -> bytes:
    """The key of the chunks: of this file key and this very header."""
    return derive(file_key, salt, label("body", mac))


def signed_message(digest: bytes) -> bytes:
    """What the signature signs; `digest` is SHA-256 of everything before the signature."""
    return label("signature", digest)
