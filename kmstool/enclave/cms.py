"""The one EnvelopedData that KMS makes for a recipient's key, in any BER form, and its unwrap.

RFC 5652: ContentInfo (section 3), EnvelopedData (6.1), KeyTransRecipientInfo (6.2.1); RFC 4055,
section 4.1, and RFC 8017, appendix A.2.1, for RSAES-OAEP-params; RFC 3565 for AES-256-CBC. What is
accepted and what is refused stands as a table in docs/formats/kms-cms.md.

Form says nothing about trust, meaning does: how lengths and strings are encoded is `ber`'s matter
and free; every algorithm, parameter, version and count is fixed here, each element is named, and
nothing is skipped. `parse_enveloped_data` and `check_recipient` look at public bytes only and say
what is wrong. `decrypt_enveloped_data` depends on secrets and fails in one way only.
`unwrap_unauthenticated` depends on them too and does not fail at all: it gives random bytes.

This CMS has no signature and no MAC: who can write to the channel that it came through can forge
it, and can change it bit by bit. In the direct setup TLS protects it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from hashlib import sha256
from hmac import compare_digest
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kmstool.enclave.ber import (
    CONTEXT_0,
    CONTEXT_1,
    CONTEXT_2,
    INTEGER,
    NULL,
    OBJECT_IDENTIFIER,
    OCTET_STRING,
    SEQUENCE,
    SET,
    Tlv,
    elements,
    octets,
    parse_ber,
    primitive,
)
from kmstool.errors import CmsError
from kmstool.limits import CMS_PLAINTEXT_MAX

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

UNDECRYPTABLE: Final = "the content could not be decrypted"

_BLOCK = 16  # bytes; AES
_IDENTIFIER = 32  # bytes; SHA-256
_CONTENT_KEY = 32  # bytes; AES-256

# Object identifiers as encoded; a test holds each against its dotted form.
_DATA = bytes.fromhex("2a864886f70d010701")  # 1.2.840.113549.1.7.1, id-data
_ENVELOPED_DATA = bytes.fromhex("2a864886f70d010703")  # 1.2.840.113549.1.7.3, id-envelopedData
_RSAES_OAEP = bytes.fromhex("2a864886f70d010107")  # 1.2.840.113549.1.1.7, id-RSAES-OAEP
_MGF1 = bytes.fromhex("2a864886f70d010108")  # 1.2.840.113549.1.1.8, id-mgf1
_P_SPECIFIED = bytes.fromhex("2a864886f70d010109")  # 1.2.840.113549.1.1.9, id-pSpecified
_SHA256 = bytes.fromhex("608648016503040201")  # 2.16.840.1.101.3.4.2.1, id-sha256
_AES256_CBC = bytes.fromhex("60864801650304012a")  # 2.16.840.1.101.3.4.1.42, id-aes256-CBC


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvelopedData:
    """What one message holds; everything else in it was constant and has been checked.

    Attributes:
        recipient_key_identifier: 32 bytes, which `key_identifier` of the recipient's key must give.
        encrypted_key: RSAES-OAEP-SHA-256 of the content key; as long as the recipient's modulus.
        iv: 16 bytes.
        ciphertext: AES-256-CBC, a positive multiple of 16 bytes.
    """

    recipient_key_identifier: bytes
    encrypted_key: bytes = field(repr=False)
    iv: bytes = field(repr=False)
    ciphertext: bytes = field(repr=False)


def key_identifier(spki_der: bytes) -> bytes:
    """The 32 bytes by which KMS names a recipient's key: SHA-256 of its SubjectPublicKeyInfo."""
    return sha256(spki_der).digest()


def unwrap(data: bytes, private_key: RSAPrivateKey) -> bytes:
    """Opens a message made for `private_key`; for answers whose channel is authenticated.

    Args:
        data: `CiphertextForRecipient`, base64 removed; at most `CMS_MAX` bytes.
        private_key: the recipient key whose public half stood in the attestation document.

    Raises:
        CmsError: not such a message, one for another key, or one that does not open.
    """
    envelope = parse_enveloped_data(data)
    check_recipient(envelope, private_key.public_key())
    return decrypt_enveloped_data(envelope, private_key)


def unwrap_unauthenticated(data: bytes, private_key: RSAPrivateKey, length: int) -> bytes:
    """Opens a message that whoever carried it may have made or changed: `length` bytes come out.

    What can be seen without the private key (form, recipient, sizes) is checked and reported. What
    cannot (RSAES-OAEP, the content key's length, padding, the plaintext's length) never raises:
    where it is wrong, the result is `length` fresh random bytes, which nobody knows and nothing
    was encrypted with (implicit rejection, as RFC 5246, section 7.4.7.1, has it for RSA). KMS
    encrypts one plaintext anew for each recipient key, so an attacker who could tell right padding
    from wrong would read it in some thousands of calls, no matter how fresh the keys are (Vaudenay,
    "Security flaws induced by CBC padding", 2002).

    Args:
        length: of the plaintext, 1 to `CMS_PLAINTEXT_MAX` bytes, exactly.

    Raises:
        CmsError: the public part is wrong, which includes a ciphertext whose length is not that of
            `length` padded bytes.
    """
    envelope = parse_enveloped_data(data)
    check_recipient(envelope, private_key.public_key())
    padded = (length // _BLOCK + 1) * _BLOCK  # RFC 5652, section 6.3: there is always padding
    if len(envelope.ciphertext) != padded:
        raise CmsError(
            f"encryptedContent has {len(envelope.ciphertext)} bytes, and a plaintext of {length}"
            f" takes {padded}",
            hint="the length that was asked for is not that of this plaintext, or the answer is"
            " another one's",
        )
    return _decrypt_or_random(envelope, private_key, length)


def parse_enveloped_data(data: bytes) -> EnvelopedData:
    """Reads one message of at most `CMS_MAX` bytes; no key is needed.

    Raises:
        CmsError: anything but the one meaning described in docs/formats/kms-cms.md.
    """
    # RFC 5652, section 3: ContentInfo ::= SEQUENCE { contentType, content [0] EXPLICIT }
    content_type, content = elements(parse_ber(data), SEQUENCE, "ContentInfo", 2)
    _require_oid(content_type, _ENVELOPED_DATA, "ContentInfo.contentType")
    (enveloped,) = elements(content, CONTEXT_0, "ContentInfo.content", 1)

    # Section 6.1. A count of three leaves no room for originatorInfo [0] and unprotectedAttrs [1].
    version, recipients, content_info = elements(enveloped, SEQUENCE, "EnvelopedData", 3)
    _require_version_2(version, "EnvelopedData.version")
    (recipient,) = elements(recipients, SET, "RecipientInfos", 1)
    identifier, encrypted_key = _parse_recipient(recipient)
    iv, ciphertext = _parse_content(content_info)
    return EnvelopedData(
        recipient_key_identifier=identifier,
        encrypted_key=encrypted_key,
        iv=iv,
        ciphertext=ciphertext,
    )


def check_recipient(envelope: EnvelopedData, public_key: RSAPublicKey) -> None:
    """Checks that a message names `public_key` and holds an encrypted key of its size.

    Raises:
        CmsError: it is a message for another key.
    """
    spki = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ours = key_identifier(spki)
    if envelope.recipient_key_identifier != ours:
        raise CmsError(
            "the CMS is for another recipient key:"
            f" {envelope.recipient_key_identifier.hex()} instead of {ours.hex()}"
        )
    modulus = (public_key.key_size + 7) // 8
    if len(envelope.encrypted_key) != modulus:
        raise CmsError(
            f"the encrypted key has {len(envelope.encrypted_key)} bytes instead of {modulus}"
        )


def decrypt_enveloped_data(envelope: EnvelopedData, private_key: RSAPrivateKey) -> bytes:
    """Decrypts the content: RSAES-OAEP, the key's length, AES-256-CBC, PKCS #7 padding.

    Which of the four failed would be an oracle for the content, so they share one text and no
    cause. Their *times* differ: that is harmless where TLS lets nobody choose the message, and
    makes this the wrong function for a relayed answer, which must not raise at all.

    Raises:
        CmsError: with the text `UNDECRYPTABLE`, whatever the reason.
    """
    try:
        return _decrypt(envelope, private_key)
    except ValueError:
        pass  # raised below, so that the exception has no context that could tell them apart
    raise CmsError(UNDECRYPTABLE)


def _decrypt(envelope: EnvelopedData, private_key: RSAPrivateKey) -> bytes:
    content_key = private_key.decrypt(envelope.encrypted_key, _oaep())
    cipher = Cipher(algorithms.AES256(content_key), modes.CBC(envelope.iv))  # refuses other lengths
    decryptor = cipher.decryptor()
    padded = decryptor.update(envelope.ciphertext) + decryptor.finalize()
    unpadder = PKCS7(_BLOCK * 8).unpadder()
    return unpadder.update(padded) + unpadder.finalize()


def _decrypt_or_random(envelope: EnvelopedData, private_key: RSAPrivateKey, length: int) -> bytes:
    """The plaintext, or random bytes, by the same steps; the ciphertext's length fits `length`.

    Nothing here branches on a secret. Both alternatives always exist, a flag made by
    `compare_digest` (which looks at all of its bytes) picks one by index, and AES-CBC always runs.

    What that does not make equal, in the order of its size:
    - `_oaep_decrypt` catches an exception where RSAES-OAEP fails. That microseconds-long difference
      tells an attacker nothing: OpenSSL takes one time for all of OAEP's own failures (no Manger's
      attack), and OAEP is built to be safe from somebody who sees which ciphertexts are valid
      (RFC 8017, section 7.1.2; Bellare and Rogaway). Only who made a message can know that its
      OAEP is valid and its content key is of another length.
    - Padding and length, which are the oracle on a *genuine* encrypted key, are one comparison of
      bytes at a fixed place. Picking by index, `&` on bools and slicing cost CPython the same for
      either value, but Python promises nothing about time, nor about caches.
    - What the caller does with the result. benchmarks/relayed_timing.py measures all of it.
    """
    random_key = os.urandom(_CONTENT_KEY)
    random_plaintext = os.urandom(length)

    found = _oaep_decrypt(envelope.encrypted_key, private_key)
    right_size = compare_digest(len(found).to_bytes(2, "big"), _CONTENT_KEY.to_bytes(2, "big"))
    content_key = (random_key, found[:_CONTENT_KEY].ljust(_CONTENT_KEY, b"\0"))[right_size]

    decryptor = Cipher(algorithms.AES256(content_key), modes.CBC(envelope.iv)).decryptor()
    padded = decryptor.update(envelope.ciphertext) + decryptor.finalize()

    # Of this many blocks, PKCS #7 has one padding for `length` bytes: its fill, `fill` times.
    fill = len(padded) - length
    well_padded = compare_digest(padded[length:], bytes((fill,)) * fill)
    return (random_plaintext, padded[:length])[right_size & well_padded]


def _oaep_decrypt(encrypted_key: bytes, private_key: RSAPrivateKey) -> bytes:
    """What was encrypted, or b"", which is no content key's length."""
    try:
        return private_key.decrypt(encrypted_key, _oaep())
    except ValueError:
        return b""


def _oaep() -> padding.OAEP:
    return padding.OAEP(padding.MGF1(SHA256()), SHA256(), label=None)


def _parse_recipient(recipient: Tlv) -> tuple[bytes, bytes]:
    """RFC 5652, section 6.2.1: version, rid, keyEncryptionAlgorithm, encryptedKey.

    KeyTransRecipientInfo is the one alternative of RecipientInfo with a universal tag, and version
    2 the one of a recipient named by [0] SubjectKeyIdentifier.
    """
    name = "KeyTransRecipientInfo"
    version, rid, algorithm, encrypted_key = elements(recipient, SEQUENCE, name, 4)
    _require_version_2(version, f"{name}.version")
    identifier = octets(rid, CONTEXT_0, f"{name}.rid")
    if len(identifier) != _IDENTIFIER:
        raise CmsError(f"{name}.rid has {len(identifier)} bytes instead of {_IDENTIFIER}")
    _require_oaep_sha256(algorithm)
    return identifier, octets(encrypted_key, OCTET_STRING, f"{name}.encryptedKey")


def _require_oaep_sha256(algorithm: Tlv) -> None:
    """RFC 8017, appendix A.2.1: hashAlgorithm [0], maskGenAlgorithm [1], pSourceAlgorithm [2].

    The first two default to SHA-1, so they must be there. The third defaults to the empty label;
    BER lets a sender write a default out, so that too is a form and read.
    """
    name = "keyEncryptionAlgorithm"
    oid, parameters = elements(algorithm, SEQUENCE, name, 2)
    _require_oid(oid, _RSAES_OAEP, name)
    hash_field, mask_field, *source_fields = elements(
        parameters, SEQUENCE, "RSAES-OAEP-params", 2, 3
    )
    (hash_algorithm,) = elements(hash_field, CONTEXT_0, "hashAlgorithm [0]", 1)
    _require_sha256(hash_algorithm, "hashAlgorithm")

    (mask_algorithm,) = elements(mask_field, CONTEXT_1, "maskGenAlgorithm [1]", 1)
    oid, mask_hash = elements(mask_algorithm, SEQUENCE, "maskGenAlgorithm", 2)
    _require_oid(oid, _MGF1, "maskGenAlgorithm")
    _require_sha256(mask_hash, "the hash of maskGenAlgorithm")

    for source_field in source_fields:
        (source,) = elements(source_field, CONTEXT_2, "pSourceAlgorithm [2]", 1)
        oid, label = elements(source, SEQUENCE, "pSourceAlgorithm", 2)
        _require_oid(oid, _P_SPECIFIED, "pSourceAlgorithm")
        if octets(label, OCTET_STRING, "the label of pSourceAlgorithm"):
            raise CmsError("the label of pSourceAlgorithm is not empty")


def _require_sha256(algorithm: Tlv, name: str) -> None:
    """RFC 4055, section 2.1: parameters are NULL or absent, and both must be accepted."""
    oid, *parameters = elements(algorithm, SEQUENCE, name, 1, 2)
    _require_oid(oid, _SHA256, name)
    for null in parameters:
        if primitive(null, NULL, f"the parameter of {name}"):
            raise CmsError(f"the parameter of {name} is a NULL with content")


def _parse_content(content_info: Tlv) -> tuple[bytes, bytes]:
    """RFC 5652, section 6.1: EncryptedContentInfo, whose [0] content KMS always sends along."""
    name = "EncryptedContentInfo"
    content_type, algorithm, content = elements(content_info, SEQUENCE, name, 3)
    _require_oid(content_type, _DATA, f"{name}.contentType")

    # RFC 3565, section 4.1: the parameter of id-aes256-CBC is the IV.
    oid, parameter = elements(algorithm, SEQUENCE, "contentEncryptionAlgorithm", 2)
    _require_oid(oid, _AES256_CBC, "contentEncryptionAlgorithm")
    iv = octets(parameter, OCTET_STRING, "the IV")
    if len(iv) != _BLOCK:
        raise CmsError(f"the IV has {len(iv)} bytes instead of {_BLOCK}")

    ciphertext = octets(content, CONTEXT_0, "encryptedContent")
    if not ciphertext or len(ciphertext) % _BLOCK:
        raise CmsError(
            f"encryptedContent has {len(ciphertext)} bytes, not a positive multiple of {_BLOCK}"
        )
    if len(ciphertext) > CMS_PLAINTEXT_MAX + _BLOCK:
        raise CmsError(
            f"encryptedContent has {len(ciphertext)} bytes, more than {CMS_PLAINTEXT_MAX + _BLOCK}"
        )
    return iv, ciphertext


def _require_version_2(tlv: Tlv, name: str) -> None:
    version = primitive(tlv, INTEGER, name)
    if version != b"\x02":
        raise CmsError(f"{name} is 0x{version[:8].hex()} instead of 0x02")


def _require_oid(tlv: Tlv, expected: bytes, name: str) -> None:
    oid = primitive(tlv, OBJECT_IDENTIFIER, name)
    if oid != expected:
        raise CmsError(
            f"{name} is the object identifier {oid[:32].hex()} instead of {expected.hex()}"
        )
