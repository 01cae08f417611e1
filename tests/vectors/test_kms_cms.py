"""Real answers of KMS (../shared/vectors): they parse to their fields, and one opens."""

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from support.cms_messages import fields_by_asn1crypto

from kmstool.emulator.cms_writer import Shape, build_enveloped_data
from kmstool.enclave.cms import EnvelopedData, parse_enveloped_data, unwrap
from kmstool.errors import CmsError

SHAPES = {
    "sdk-c explicit octet strings": Shape.KMS_EXPLICIT,
    "sdk-c primitive [0]": Shape.KMS_PRIMITIVE,
    "edgebit cms_test": Shape.KMS_EXPLICIT,
}


def load(shared: Path, file: str) -> list[dict[str, str]]:
    entries: list[dict[str, str]] = json.loads((shared / "vectors" / file).read_text())
    assert entries
    return entries


def everything(shared: Path) -> list[dict[str, str]]:
    return load(shared, "kms-cms-2.json") + load(shared, "kms-cms-with-key.json")


def test_both_shapes_parse_to_their_fields(shared: Path) -> None:
    entries = load(shared, "kms-cms-2.json")
    assert len(entries) == 2
    for entry in entries:
        data = base64.b64decode(entry["cms"], validate=True)
        identifier, *_rest = fields_by_asn1crypto(data)
        assert parse_enveloped_data(data) == EnvelopedData(
            recipient_key_identifier=identifier,
            encrypted_key=base64.b64decode(entry["encrypted_key"]),
            iv=base64.b64decode(entry["iv"]),
            ciphertext=base64.b64decode(entry["ciphertext"]),
        )


def test_a_real_answer_opens_to_its_plaintext(shared: Path) -> None:
    (entry,) = load(shared, "kms-cms-with-key.json")
    key = load_pem_private_key(entry["recipient_private_key_pem"].encode(), None)
    assert isinstance(key, RSAPrivateKey)
    plaintext = unwrap(base64.b64decode(entry["cms"], validate=True), key)
    assert plaintext.hex() == entry["plaintext_hex"]


def test_real_answers_cut_anywhere_are_refused(shared: Path) -> None:
    for entry in everything(shared):
        data = base64.b64decode(entry["cms"])
        for end in range(len(data)):
            with pytest.raises(CmsError):
                parse_enveloped_data(data[:end])
        with pytest.raises(CmsError, match="more bytes follow"):
            parse_enveloped_data(data + b"\0")


def test_the_writer_gives_the_real_answers_byte_for_byte(shared: Path) -> None:
    for entry in everything(shared):
        data = base64.b64decode(entry["cms"])
        identifier, encrypted_key, iv, ciphertext = fields_by_asn1crypto(data)
        written = build_enveloped_data(
            recipient_key_identifier=identifier,
            encrypted_key=encrypted_key,
            iv=iv,
            ciphertext=ciphertext,
            shape=SHAPES[entry["name"]],
        )
        assert written == data
