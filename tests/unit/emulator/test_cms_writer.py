"""cms_writer.py: `openssl cms` opens what it writes, and it is another author than the reader."""

import ast
import inspect
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cms_messages import rsa_key, spki

from kmstool.emulator import cms_writer
from kmstool.emulator.cms_writer import (
    PIECE_MAX,
    Shape,
    build_enveloped_data,
    write_enveloped_data,
)
from kmstool.enclave.cms import unwrap

PLAINTEXT = b"the secret of one enclave image alone"
SHAPES = list(Shape)


def openssl(*arguments: str, data: bytes) -> bytes:
    return subprocess.run(
        ["openssl", *arguments], input=data, capture_output=True, check=True
    ).stdout


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
@pytest.mark.parametrize("shape", SHAPES)
def test_openssl_opens_it(tmp_path: Path, shape: Shape, bits: int) -> None:
    key = rsa_key(bits)
    key_file = tmp_path / "key.pem"
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    data = write_enveloped_data(PLAINTEXT, spki(key), shape=shape)
    assert (
        openssl("cms", "-decrypt", "-inform", "DER", "-inkey", str(key_file), data=data)
        == PLAINTEXT
    )


def test_openssl_finds_the_recipient_by_its_identifier(tmp_path: Path) -> None:
    """With a certificate, `openssl cms` compares SubjectKeyIdentifier before it tries the key."""
    key_file, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    key_file.write_bytes(
        rsa_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
    data = write_enveloped_data(PLAINTEXT, spki(rsa_key()), shape=Shape.KMS_EXPLICIT)
    right = openssl("dgst", "-sha256", "-binary", data=spki(rsa_key())).hex()
    arguments = ("cms", "-decrypt", "-inform", "DER", "-inkey", str(key_file))
    for identifier, opens in ((right, True), ("00" * 32, False)):
        extension = f"subjectKeyIdentifier={identifier}"
        openssl(
            *("req", "-x509", "-key", str(key_file), "-subj", "/CN=x", "-days", "1"),
            *("-addext", extension, "-out", str(certificate)),
            data=b"",
        )
        if opens:
            assert openssl(*arguments, "-recip", str(certificate), data=data) == PLAINTEXT
        else:
            with pytest.raises(subprocess.CalledProcessError):
                openssl(*arguments, "-recip", str(certificate), data=data)


@given(plaintext=st.binary(max_size=3 * PIECE_MAX), shape=st.sampled_from(SHAPES))
@settings(deadline=None, max_examples=60)
def test_our_reader_opens_it(plaintext: bytes, shape: Shape) -> None:
    data = write_enveloped_data(plaintext, spki(rsa_key()), shape=shape)
    assert unwrap(data, rsa_key()) == plaintext


def build(shape: Shape, ciphertext: bytes) -> str:
    return build_enveloped_data(
        recipient_key_identifier=b"\x1d" * 32,
        encrypted_key=b"\xee" * 256,
        iv=b"\x14" * 16,
        ciphertext=ciphertext,
        shape=shape,
    ).hex(" ")


def squeezed(text: str) -> str:
    return " ".join(text.split())


IDENTIFIER, KEY, IV, BODY = "1d " * 32, "ee " * 256, "14 " * 16, "cc " * 16
RECIPIENT = f"""
    30 82 01 67
      02 01 02
      80 20 {IDENTIFIER}
      30 3c 06 09 2a 86 48 86 f7 0d 01 01 07
        30 2f
          a0 0f 30 0d 06 09 60 86 48 01 65 03 04 02 01 05 00
          a1 1c 30 1a 06 09 2a 86 48 86 f7 0d 01 01 08
                30 0d 06 09 60 86 48 01 65 03 04 02 01 05 00
      04 82 01 00 {KEY}"""
OUTER_TYPE = "06 09 2a 86 48 86 f7 0d 01 07 03"
INNER_TYPE = "06 09 2a 86 48 86 f7 0d 01 07 01"
CIPHER = f"30 1d 06 09 60 86 48 01 65 03 04 01 2a 04 10 {IV}"


def kms(content: str) -> str:
    return squeezed(
        f"""30 80 {OUTER_TYPE} a0 80 30 80 02 01 02 31 82 01 6b {RECIPIENT}
            30 80 {INNER_TYPE} {CIPHER} {content} 00 00 00 00 00 00 00 00"""
    )


def test_the_layout_that_kms_has_been_seen_to_send() -> None:
    """The real answers themselves are compared in tests/vectors/test_kms_cms.py."""
    body = b"\xcc" * 16
    assert build(Shape.KMS_PRIMITIVE, body) == kms(f"80 10 {BODY}")
    assert build(Shape.KMS_EXPLICIT, body) == kms(f"a0 80 04 10 {BODY} 00 00")


def test_the_layout_in_der() -> None:
    expected = squeezed(
        f"""30 82 01 c3 {OUTER_TYPE} a0 82 01 b4 30 82 01 b0 02 01 02 31 82 01 6b {RECIPIENT}
            30 3c {INNER_TYPE} {CIPHER} 80 10 {BODY}"""
    )
    assert build(Shape.DER, b"\xcc" * 16) == expected


def test_long_content_comes_in_several_octet_strings() -> None:
    length = 2 * PIECE_MAX + 32
    assert length % 16 == 0
    pieces = "04 82 03 e8 " + "cc " * PIECE_MAX
    last = "04 20 " + "cc " * 32
    expected = kms(f"a0 80 {pieces} {pieces} {last} 00 00")
    assert build(Shape.KMS_EXPLICIT, b"\xcc" * length) == expected


def test_the_sizes_of_the_real_answers() -> None:
    """FACTS: 457 and 493 bytes for bodies of 16 and 48 bytes."""
    assert len(write_enveloped_data(b"", spki(rsa_key()), shape=Shape.KMS_PRIMITIVE)) == 457
    assert len(write_enveloped_data(bytes(32), spki(rsa_key()), shape=Shape.KMS_EXPLICIT)) == 493


def test_every_message_has_its_own_key_and_iv() -> None:
    messages = [write_enveloped_data(b"x", spki(rsa_key()), shape=Shape.DER) for _ in range(2)]
    assert messages[0] != messages[1]
    assert messages[0][-34:-18] != messages[1][-34:-18]  # the IV


def test_a_recipient_that_is_no_rsa_key_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    encoded = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(ValueError, match="is no RSA key"):
        write_enveloped_data(b"x", encoded, shape=Shape.DER)


def test_it_shares_no_code_with_the_reader() -> None:
    imported = {
        name
        for node in ast.walk(ast.parse(inspect.getsource(cms_writer)))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None), *(alias.name for alias in node.names)]
        if name
    }
    assert not [name for name in imported if name.startswith("kmstool")]
