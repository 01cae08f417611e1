"""Whole files: ours opened with pyhpke's HPKE, and one whose key pyhpke wrapped opened by us.

Chunks, MAC and CBOR of the other side come from tests/support/sealed_files.py and cbor2, so nothing
of kmstool/sealing is used on that side.
"""

import hmac
import io

import cbor2
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from pyhpke import AEADId, CipherSuite, KDFId, KEMId, KEMKey
from support.key_holders import hpke_pair
from support.sealed_files import KEMS, Hpke, SealedFile, arn, hkdf, private_key

from kmstool.sealing.files import open_sealed, seal

SUITES = {
    "P-256": (KEMId.DHKEM_P256_HKDF_SHA256, KDFId.HKDF_SHA256),
    "P-384": (KEMId.DHKEM_P384_HKDF_SHA384, KDFId.HKDF_SHA384),
    "P-521": (KEMId.DHKEM_P521_HKDF_SHA512, KDFId.HKDF_SHA512),
}
NAME = b"kmstool-sealed-file/1 "
PLAINTEXT = b"attack at dawn"


@pytest.mark.parametrize("curve", SUITES)
def test_a_file_of_ours_opens_with_pyhpke(curve: str) -> None:
    recipient, _ = hpke_pair("alice", curve)
    target = io.BytesIO()
    seal(io.BytesIO(PLAINTEXT), target, [recipient])
    data = target.getvalue()

    end = 20 + int.from_bytes(data[16:20], "big")
    header, mac, chunk = cbor2.loads(data[20:end]), data[end : end + 32], data[end + 32 :]
    entry = header[3][0]
    pem = private_key("alice", KEMS[curve]).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    context = CipherSuite.new(*SUITES[curve], AEADId.AES256_GCM).create_recipient_context(
        entry[6], KEMKey.from_pem(pem), NAME + b"hpke\0" + entry[2].encode()
    )
    file_key = context.open(entry[3])
    header_key = hkdf(file_key, header[2], NAME + b"header")
    assert hmac.digest(header_key, data[:end], "sha256") == mac
    body_key = hkdf(file_key, header[2], NAME + b"body\0" + mac)
    assert AESGCM(body_key).decrypt(bytes(11) + b"\1", chunk, None) == PLAINTEXT


@pytest.mark.parametrize("curve", SUITES)
def test_a_file_whose_key_pyhpke_wrapped_opens_with_ours(curve: str) -> None:
    file = SealedFile("by pyhpke", plaintext=PLAINTEXT)
    pem = (
        private_key("alice", KEMS[curve])
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    enc, context = CipherSuite.new(*SUITES[curve], AEADId.AES256_GCM).create_sender_context(
        KEMKey.from_pem(pem), NAME + b"hpke\0" + arn("alice").encode()
    )
    wrapped = Hpke("alice", curve, bent={3: context.seal(file.file_key), 6: enc})
    data = SealedFile(file.name, plaintext=PLAINTEXT, recipients=[wrapped]).build()
    recipient, holder = hpke_pair("alice", curve)
    target = io.BytesIO()
    open_sealed(io.BytesIO(data), lambda: target, holder, key=recipient.key)
    assert target.getvalue() == PLAINTEXT
