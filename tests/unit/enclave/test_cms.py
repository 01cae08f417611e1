"""cms.py: every form of the one meaning opens, damage is refused, secrets fail in one way.

`openssl cms` and asn1crypto say what a form means. What has another meaning is in
test_cms_refusals.py.
"""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from asn1crypto import core  # type: ignore[import-untyped]
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import cms_messages as at
from support.ber_tree import Node, make_indefinite, make_pieces
from support.cms_messages import empty_label, message, message_for, pkcs7, rsa_key

from kmstool.enclave import cms
from kmstool.enclave.cms import (
    UNDECRYPTABLE,
    EnvelopedData,
    check_recipient,
    key_identifier,
    parse_enveloped_data,
    unwrap,
)
from kmstool.errors import CmsError
from kmstool.limits import CMS_PLAINTEXT_MAX

PLAINTEXT = b"the secret of one enclave image alone"
VALID = parse_enveloped_data(message().encode())


# --- form ---------------------------------------------------------------------------------------
@st.composite
def reforms(draw: st.DrawFn, *, for_asn1crypto: bool = False) -> Callable[[Node], None]:
    """A change of form at random places: lengths, pieces, and what may be left out or written.

    asn1crypto 1.5.1 reads constructed strings of indefinite length only, and no indefinite length
    where its model has a CHOICE, as at RecipientInfo and its rid.
    """

    def cut(octets: bytes, depth: int) -> list[bytes | Node]:
        places = sorted(draw(st.lists(st.integers(0, len(octets)), max_size=5)))
        parts: list[bytes | Node] = []
        for start, end in zip([0, *places], [*places, len(octets)], strict=True):
            part = Node(0x04, octets[start:end])
            if depth and draw(st.booleans()):
                make_pieces(part, *cut(octets[start:end], depth - 1))
            parts.append(part)
        return parts

    def reform(tree: Node) -> None:
        choices = [tree.at(*at.RECIPIENT), tree.at(*at.RID)] if for_asn1crypto else []
        for path in at.OCTET_STRINGS:
            node = tree.at(*path)
            if draw(st.booleans()) and node not in choices:
                assert isinstance(node.value, bytes)
                make_pieces(node, *cut(node.value, 1))
        if draw(st.booleans()):
            tree.at(*at.OAEP).children.append(empty_label())
        for algorithm in (tree.at(*at.HASH), tree.at(*at.MASK_HASH)):
            if draw(st.booleans()):
                algorithm.children.pop()
        for node in tree.walk():
            string = for_asn1crypto and node.identifier & 0x1F in {0x00, 0x04}
            if node.identifier & 0x20 and node not in choices and (string or draw(st.booleans())):
                make_indefinite(node)

    return reform


def test_the_tests_message_means_to_asn1crypto_what_it_means_to_us() -> None:
    assert at.fields_by_asn1crypto(message().encode()) == fields(VALID)


@given(st.data())
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_every_form_means_the_same(data: st.DataObject) -> None:
    tree = message()
    data.draw(reforms())(tree)
    assert parse_enveloped_data(tree.encode()) == VALID


@given(st.data())
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=40)
def test_every_form_means_the_same_to_asn1crypto(data: st.DataObject) -> None:
    tree = message()
    data.draw(reforms(for_asn1crypto=True))(tree)
    assert at.fields_by_asn1crypto(tree.encode()) == fields(VALID)


@given(data=st.data())
@settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    deadline=None,
    max_examples=15,
)
def test_every_form_opens_for_us_and_for_openssl(tmp_path: Path, data: st.DataObject) -> None:
    tree = message_for(rsa_key(), pkcs7(PLAINTEXT))
    data.draw(reforms())(tree)
    assert unwrap(tree.encode(), rsa_key()) == PLAINTEXT
    assert openssl_decrypt(tree.encode(), tmp_path) == PLAINTEXT


def openssl_decrypt(data: bytes, folder: Path) -> bytes:
    key_file = folder / "key.pem"
    key_file.write_bytes(
        rsa_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
    return subprocess.run(
        ["openssl", "cms", "-decrypt", "-inform", "DER", "-inkey", str(key_file)],
        input=data,
        capture_output=True,
        check=True,
    ).stdout


def fields(envelope: EnvelopedData) -> tuple[bytes, bytes, bytes, bytes]:
    return (
        envelope.recipient_key_identifier,
        envelope.encrypted_key,
        envelope.iv,
        envelope.ciphertext,
    )


def test_definite_lengths_open(tmp_path: Path) -> None:
    """The C tool crashes on these."""
    data = message_for(rsa_key(), pkcs7(PLAINTEXT)).encode()
    assert unwrap(data, rsa_key()) == openssl_decrypt(data, tmp_path) == PLAINTEXT


# --- damage -------------------------------------------------------------------------------------
def variants() -> dict[str, tuple[bytes, frozenset[int]]]:
    """Encodings of one message, with the offsets of the octets that hold field values."""
    der, indefinite, split = message(), message(), message()
    for node in indefinite.walk():
        if node.identifier & 0x20:
            make_indefinite(node)
    make_pieces(split.at(*at.CIPHERTEXT), VALID.ciphertext)
    make_indefinite(split.at(*at.CIPHERTEXT))
    found = {}
    for name, tree in (("der", der), ("indefinite", indefinite), ("pieces", split)):
        data = tree.encode()
        offsets: set[int] = set()
        for octets in fields(VALID):
            assert data.count(octets) == 1
            offsets.update(range(data.index(octets), data.index(octets) + len(octets)))
        found[name] = data, frozenset(offsets)
    return found


def is_refused(data: bytes) -> bool:
    try:
        parse_enveloped_data(data)
    except CmsError:
        return True
    return False


@pytest.mark.parametrize("name", ["der", "indefinite", "pieces"])
def test_any_other_octet_of_the_structure_is_refused(name: str) -> None:
    data, values = variants()[name]
    for offset in set(range(len(data))) - values:
        for octet in set(range(256)) - {data[offset]}:
            damaged = data[:offset] + bytes([octet]) + data[offset + 1 :]
            assert is_refused(damaged), f"byte {offset} may be 0x{octet:02x}"


@pytest.mark.parametrize("name", ["der", "indefinite", "pieces"])
def test_a_flipped_bit_of_a_value_changes_that_value_alone(name: str) -> None:
    data, values = variants()[name]
    for offset in values:
        for bit in range(8):
            damaged = bytearray(data)
            damaged[offset] ^= 1 << bit
            read = parse_enveloped_data(bytes(damaged))
            pairs = zip(fields(read), fields(VALID), strict=True)
            assert sum(ours != theirs for ours, theirs in pairs) == 1


@pytest.mark.parametrize("name", ["der", "indefinite", "pieces"])
def test_truncation_anywhere_is_refused(name: str) -> None:
    data, _values = variants()[name]
    for end in range(len(data)):
        with pytest.raises(CmsError):
            parse_enveloped_data(data[:end])


# --- recipient ----------------------------------------------------------------------------------
def test_key_identifier_is_sha256_of_the_spki() -> None:
    assert key_identifier(b"abc").hex().startswith("ba7816bf8f01cfea414140de5dae2223")


def test_a_message_for_another_key_is_refused() -> None:
    """The C tool takes any recipient identifier."""
    other = rsa_key(which=1)
    data = message_for(rsa_key(), pkcs7(PLAINTEXT)).encode()
    with pytest.raises(CmsError) as caught:
        unwrap(data, other)
    ours, theirs = key_identifier(at.spki(other)), key_identifier(at.spki(rsa_key()))
    assert str(caught.value) == (
        f"the CMS is for another recipient key: {theirs.hex()} instead of {ours.hex()}"
    )


def test_a_changed_identifier_is_refused_though_the_key_would_fit() -> None:
    tree = message_for(rsa_key(), pkcs7(PLAINTEXT))
    tree.at(*at.RID).value = bytes(32)
    with pytest.raises(CmsError, match="for another recipient key"):
        unwrap(tree.encode(), rsa_key())


@pytest.mark.parametrize("size", [0, 128, 255, 257, 384])
def test_an_encrypted_key_of_another_length_is_refused(size: int) -> None:
    envelope = parse_enveloped_data(
        message(identifier=key_identifier(at.spki(rsa_key())), encrypted_key=bytes(size)).encode()
    )
    with pytest.raises(CmsError, match=f"the encrypted key has {size} bytes instead of 256"):
        check_recipient(envelope, rsa_key().public_key())


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_every_size_of_recipient_key_opens(bits: int) -> None:
    data = message_for(rsa_key(bits), pkcs7(PLAINTEXT)).encode()
    assert unwrap(data, rsa_key(bits)) == PLAINTEXT


# --- content ------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 32, 2400, CMS_PLAINTEXT_MAX])
def test_every_length_of_content_opens(size: int) -> None:
    plaintext = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert unwrap(message_for(rsa_key(), pkcs7(plaintext)).encode(), rsa_key()) == plaintext


SHA1_OAEP = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
SHA256_MGF1_SHA1 = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA256(), None)
LABELLED = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), b"label")


def garbled(encrypted_key: bytes) -> Node:
    tree = message_for(rsa_key(), pkcs7(b"x"))
    tree.at(*at.ENCRYPTED_KEY).value = encrypted_key
    return tree


def message_with_long_content_key() -> Node:
    tree = message_for(rsa_key(), pkcs7(b"x"))
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    tree.at(*at.ENCRYPTED_KEY).value = rsa_key().public_key().encrypt(b"k" * 33, oaep)
    return tree


UNOPENABLE: list[tuple[str, Callable[[], Node]]] = [
    ("OAEP with SHA-1", lambda: message_for(rsa_key(), pkcs7(b"x"), key_padding=SHA1_OAEP)),
    ("MGF1 with SHA-1", lambda: message_for(rsa_key(), pkcs7(b"x"), key_padding=SHA256_MGF1_SHA1)),
    ("OAEP with a label", lambda: message_for(rsa_key(), pkcs7(b"x"), key_padding=LABELLED)),
    ("PKCS #1 v1.5", lambda: message_for(rsa_key(), pkcs7(b"x"), key_padding=padding.PKCS1v15())),
    ("zero for an encrypted key", lambda: garbled(bytes(256))),
    ("above the modulus", lambda: garbled(b"\xff" * 256)),
    ("content key of 0 bytes", lambda: message_for(rsa_key(), pkcs7(b"x"), content_key=b"")),
    ("content key of 16 bytes", lambda: message_for(rsa_key(), pkcs7(b"x"), content_key=b"k" * 16)),
    ("content key of 24 bytes", lambda: message_for(rsa_key(), pkcs7(b"x"), content_key=b"k" * 24)),
    ("content key of 31 bytes", lambda: message_for(rsa_key(), pkcs7(b"x"), content_key=b"k" * 31)),
    ("content key of 33 bytes", message_with_long_content_key),
    ("padding of 0", lambda: message_for(rsa_key(), bytes(16))),
    ("padding of 17", lambda: message_for(rsa_key(), b"\x11" * 32)),
    ("padding not uniform", lambda: message_for(rsa_key(), bytes(14) + b"\x03\x03")),
]


@pytest.mark.parametrize("make", [u[1] for u in UNOPENABLE], ids=[u[0] for u in UNOPENABLE])
def test_what_depends_on_secrets_fails_in_one_way(make: Callable[[], Node]) -> None:
    with pytest.raises(CmsError) as caught:
        unwrap(make().encode(), rsa_key())
    error = caught.value
    assert type(error) is CmsError
    assert str(error) == UNDECRYPTABLE == "the content could not be decrypted"
    assert error.args == (UNDECRYPTABLE,)
    assert (error.hint, error.__cause__, error.__context__) == (None, None, None)


def test_padding_of_a_whole_block_is_padding() -> None:
    assert unwrap(message_for(rsa_key(), bytes(16) + b"\x10" * 16).encode(), rsa_key()) == bytes(16)


# --- what the reader is made of ------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "dotted"),
    [
        ("_DATA", "1.2.840.113549.1.7.1"),
        ("_ENVELOPED_DATA", "1.2.840.113549.1.7.3"),
        ("_RSAES_OAEP", "1.2.840.113549.1.1.7"),
        ("_MGF1", "1.2.840.113549.1.1.8"),
        ("_P_SPECIFIED", "1.2.840.113549.1.1.9"),
        ("_SHA256", "2.16.840.1.101.3.4.2.1"),
        ("_AES256_CBC", "2.16.840.1.101.3.4.1.42"),
    ],
)
def test_object_identifiers(name: str, dotted: str) -> None:
    assert core.ObjectIdentifier(dotted).contents == getattr(cms, name)


def test_the_repr_shows_the_public_name_alone() -> None:
    assert repr(VALID) == f"EnvelopedData(recipient_key_identifier={bytes(range(32))!r})"
