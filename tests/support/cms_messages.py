"""A valid message as a tree, the names of its places, and keys, for tests of the CMS reader."""

from __future__ import annotations

import os
from functools import lru_cache
from hashlib import sha256

from asn1crypto import cms  # type: ignore[import-untyped]
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support.ber_tree import Node

ROOT = ()
CONTENT_TYPE = (0,)
CONTENT = (1,)
ENVELOPED = (1, 0)
VERSION = (1, 0, 0)
RECIPIENTS = (1, 0, 1)
RECIPIENT = (1, 0, 1, 0)
RECIPIENT_VERSION = (1, 0, 1, 0, 0)
RID = (1, 0, 1, 0, 1)
KEY_ALGORITHM = (1, 0, 1, 0, 2)
OAEP = (1, 0, 1, 0, 2, 1)
HASH = (*OAEP, 0, 0)
MASK = (*OAEP, 1, 0)
MASK_HASH = (*OAEP, 1, 0, 1)
ENCRYPTED_KEY = (1, 0, 1, 0, 3)
CONTENT_INFO = (1, 0, 2)
INNER_TYPE = (1, 0, 2, 0)
CONTENT_ALGORITHM = (1, 0, 2, 1)
IV = (1, 0, 2, 1, 1)
CIPHERTEXT = (1, 0, 2, 2)
OCTET_STRINGS = (RID, ENCRYPTED_KEY, IV, CIPHERTEXT)

ENVELOPED_DATA_OID = "2a864886f70d010703"
DATA_OID = "2a864886f70d010701"
RSAES_OAEP_OID = "2a864886f70d010107"
MGF1_OID = "2a864886f70d010108"
P_SPECIFIED_OID = "2a864886f70d010109"
SHA256_OID = "608648016503040201"
AES256_CBC_OID = "60864801650304012a"


def oid(octets: str) -> Node:
    return Node(0x06, bytes.fromhex(octets))


def sequence(*children: Node) -> Node:
    return Node(0x30, list(children))


def algorithm_sha256() -> Node:
    return sequence(oid(SHA256_OID), Node(0x05, b""))


def empty_label() -> Node:
    """pSourceAlgorithm [2] with its default written out."""
    return Node(0xA2, [sequence(oid(P_SPECIFIED_OID), Node(0x04, b""))])


def message(
    *,
    identifier: bytes = bytes(range(32)),
    encrypted_key: bytes = bytes(255) + b"\x01",
    iv: bytes = bytes(range(100, 116)),
    ciphertext: bytes = bytes(range(200, 248)),
) -> Node:
    """The tree of a message as KMS means it, in DER."""
    version = b"\x02"
    oaep = sequence(
        Node(0xA0, [algorithm_sha256()]),
        Node(0xA1, [sequence(oid(MGF1_OID), algorithm_sha256())]),
    )
    recipient = sequence(
        Node(0x02, version),
        Node(0x80, identifier),
        sequence(oid(RSAES_OAEP_OID), oaep),
        Node(0x04, encrypted_key),
    )
    content_info = sequence(
        oid(DATA_OID),
        sequence(oid(AES256_CBC_OID), Node(0x04, iv)),
        Node(0x80, ciphertext),
    )
    enveloped = sequence(Node(0x02, version), Node(0x31, [recipient]), content_info)
    return sequence(oid(ENVELOPED_DATA_OID), Node(0xA0, [enveloped]))


@lru_cache
def rsa_key(bits: int = 2048, which: int = 0) -> rsa.RSAPrivateKey:
    """A key of this process; `which` tells several of one size apart."""
    assert which >= 0
    return rsa.generate_private_key(65537, bits)


def spki(key: rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def message_for(
    key: rsa.RSAPrivateKey,
    padded: bytes,
    *,
    content_key: bytes | None = None,
    key_padding: padding.AsymmetricPadding | None = None,
) -> Node:
    """A message that `key` opens, when `padded` ends in PKCS #7 padding and the rest is left."""
    content_key = os.urandom(32) if content_key is None else content_key
    iv = os.urandom(16)
    encryptor = Cipher(algorithms.AES(content_key.ljust(32, b"\0")), modes.CBC(iv)).encryptor()
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    return message(
        identifier=sha256(spki(key)).digest(),
        encrypted_key=key.public_key().encrypt(content_key, key_padding or oaep),
        iv=iv,
        ciphertext=encryptor.update(padded) + encryptor.finalize(),
    )


def pkcs7(plaintext: bytes) -> bytes:
    fill = 16 - len(plaintext) % 16
    return plaintext + bytes([fill]) * fill


def fields_by_asn1crypto(data: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """Identifier, encrypted key, IV and ciphertext, as another author's reader finds them."""
    enveloped = cms.ContentInfo.load(data, strict=True)["content"]
    (recipient,) = enveloped["recipient_infos"]
    content = enveloped["encrypted_content_info"]
    return (
        recipient.chosen["rid"].chosen.native,
        recipient.chosen["encrypted_key"].native,
        content["content_encryption_algorithm"]["parameters"].native,
        content["encrypted_content"].native,
    )
