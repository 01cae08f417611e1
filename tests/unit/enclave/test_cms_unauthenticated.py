"""cms.unwrap_unauthenticated: public damage is reported, and nothing else is ever told."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st
from support import cms_messages as at
from support.ber_tree import Node
from support.cms_messages import message, message_for, pkcs7, rsa_key, spki

from kmstool.emulator.cms_writer import Shape, write_enveloped_data
from kmstool.enclave import cms
from kmstool.enclave.cms import key_identifier, unwrap_unauthenticated
from kmstool.errors import CmsError

KEY = bytes(range(100, 132))
LENGTHS = (16, 24, 32, 48, 66)
RSA = rsa_key()
TREE = message_for(RSA, pkcs7(KEY))
VALID = TREE.encode()


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("shape", Shape)
def test_the_plaintext_comes_out(length: int, shape: Shape) -> None:
    plaintext = os.urandom(length)
    data = write_enveloped_data(plaintext, spki(RSA), shape=shape)
    assert unwrap_unauthenticated(data, RSA, length) == plaintext


@given(st.binary(min_size=1, max_size=200))
def test_any_plaintext_of_the_stated_length_comes_out(plaintext: bytes) -> None:
    data = message_for(RSA, pkcs7(plaintext)).encode()
    assert unwrap_unauthenticated(data, RSA, len(plaintext)) == plaintext


def test_openssl_agrees(tmp_path: Path) -> None:
    """What another author's reader makes of the same message."""
    path = tmp_path / "key.pem"
    path.write_bytes(
        RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
    done = subprocess.run(
        ["openssl", "cms", "-decrypt", "-inform", "DER", "-inkey", str(path)],
        input=VALID, capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout == unwrap_unauthenticated(VALID, RSA, 32) == KEY


# --- What depends on a secret: random bytes ------------------------------------------------------


def oaep_of(content_key: bytes, padded: bytes = pkcs7(KEY)) -> bytes:
    """A content key of any size under OAEP; what is under it is under that key cut or filled up."""
    tree = message_for(RSA, padded, content_key=content_key[:32].ljust(32, b"\0"))
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    tree.at(*at.ENCRYPTED_KEY).value = RSA.public_key().encrypt(content_key, oaep)
    return tree.encode()


def with_field(path: tuple[int, ...], value: bytes) -> bytes:
    tree = message_for(RSA, pkcs7(KEY))
    tree.at(*path).value = value
    return tree.encode()


def secret_failures() -> dict[str, Callable[[], bytes]]:
    """Each reason for which nothing may be raised; the ciphertext always has three blocks."""
    wrong_hash = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
    reasons: dict[str, Callable[[], bytes]] = {
        "OAEP: random": lambda: with_field(at.ENCRYPTED_KEY, b"\0" + os.urandom(255)),
        "OAEP: zero": lambda: with_field(at.ENCRYPTED_KEY, bytes(256)),
        "OAEP: beyond the modulus": lambda: with_field(at.ENCRYPTED_KEY, b"\xff" * 256),
        "OAEP: with SHA-1": lambda: message_for(RSA, pkcs7(KEY), key_padding=wrong_hash).encode(),
        "OAEP: PKCS #1 v1.5": lambda: message_for(
            RSA, pkcs7(KEY), key_padding=padding.PKCS1v15()
        ).encode(),
        "padding: 0": lambda: oaep_of(os.urandom(32), KEY + bytes(16)),
        "padding: 17": lambda: oaep_of(os.urandom(32), KEY + b"\x11" * 16),
        "padding: one byte wrong": lambda: oaep_of(
            os.urandom(32), KEY + b"\x10" * 7 + b"\x11" + b"\x10" * 8
        ),
        "padding: last byte alone": lambda: oaep_of(os.urandom(32), KEY + bytes(15) + b"\x10"),
        "all random": lambda: oaep_of(os.urandom(32), os.urandom(47) + b"\xff"),
    }
    for size in (0, 1, 16, 24, 31, 33, 64, 190):
        reasons[f"content key: {size} bytes"] = lambda size=size: oaep_of(os.urandom(size))  # type: ignore[misc]
    for size in (33, 40, 47):
        reasons[f"plaintext: {size} bytes"] = lambda size=size: oaep_of(  # type: ignore[misc]
            os.urandom(32), pkcs7(b"k" * size)
        )
    return reasons


@pytest.mark.parametrize("reason", secret_failures())
def test_no_reason_that_is_secret_raises(reason: str) -> None:
    data = secret_failures()[reason]()
    first, second = (unwrap_unauthenticated(data, RSA, 32) for _ in range(2))
    assert len(first) == len(second) == 32
    assert first != second, "the bytes that stand for a failure are not fresh"
    assert b"k" * 8 not in first
    assert KEY not in (first, second)


def bits(path: tuple[int, ...]) -> list[bytes]:
    octets = TREE.at(*path).value
    assert isinstance(octets, bytes)
    start = VALID.index(octets)
    flipped = []
    for bit in range(8 * len(octets)):
        data = bytearray(VALID)
        data[start + bit // 8] ^= 0x80 >> bit % 8
        flipped.append(bytes(data))
    return flipped


@pytest.mark.parametrize("path", [at.ENCRYPTED_KEY, at.IV, at.CIPHERTEXT])
def test_every_bit_of_what_is_secret_flipped(path: tuple[int, ...]) -> None:
    results = [unwrap_unauthenticated(data, RSA, 32) for data in bits(path)]
    assert {len(result) for result in results} == {32}
    assert KEY not in results
    assert len(set(results)) == len(results)


def test_every_bit_of_what_is_public_flipped_is_an_error() -> None:
    secret = [TREE.at(*path).value for path in (at.ENCRYPTED_KEY, at.IV, at.CIPHERTEXT)]
    places = set(range(len(VALID)))
    for octets in secret:
        assert isinstance(octets, bytes)
        start = VALID.index(octets)
        places -= set(range(start, start + len(octets)))
    for place in sorted(places):
        for bit in range(8):
            data = bytearray(VALID)
            data[place] ^= 1 << bit
            with pytest.raises(CmsError):
                unwrap_unauthenticated(bytes(data), RSA, 32)


@given(st.data())
def test_whatever_is_done_to_a_message_there_is_a_key_or_a_cms_error(data: st.DataObject) -> None:
    mutated = bytearray(VALID)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(mutated) - 1))
        mutated[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        key = unwrap_unauthenticated(bytes(mutated), RSA, 32)
    except CmsError:
        return
    assert len(key) == 32


# --- What is public: an error ---------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 15, 16, 31, 48, 49, 64, 66])
def test_a_ciphertext_that_cannot_hold_the_length_is_an_error(length: int) -> None:
    said = f"48 bytes, and a plaintext of {length} takes {(length // 16 + 1) * 16}"
    with pytest.raises(CmsError, match=said):
        unwrap_unauthenticated(VALID, RSA, length)


@pytest.mark.parametrize("length", [32, 33, 40, 47])
def test_a_ciphertext_that_can_hold_the_length_is_none(length: int) -> None:
    assert len(unwrap_unauthenticated(VALID, RSA, length)) == length


def test_a_message_for_another_key_is_an_error() -> None:
    with pytest.raises(CmsError, match="for another recipient key"):
        unwrap_unauthenticated(VALID, rsa_key(which=1), 32)


def test_an_encrypted_key_of_another_length_is_an_error() -> None:
    tree = message(identifier=key_identifier(spki(RSA)), encrypted_key=bytes(255))
    with pytest.raises(CmsError, match="the encrypted key has 255 bytes"):
        unwrap_unauthenticated(tree.encode(), RSA, 32)


def test_no_message_at_all_is_an_error() -> None:
    for data in (b"", b"\x30", Node(0x30, b"").encode(), VALID + b"\0", VALID[:-1]):
        with pytest.raises(CmsError):
            unwrap_unauthenticated(data, RSA, 32)


# --- One path -------------------------------------------------------------------------------------


class Steps:
    """Counts what the unwrap calls, so that a test sees whether a reason takes a shorter way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[str] = []
        for name in ("compare_digest", "_oaep_decrypt", "Cipher"):
            real = getattr(cms, name)

            def counted(*args: object, name: str = name, real: object = real) -> object:
                self.seen.append(name)
                return real(*args)  # type: ignore[operator]

            monkeypatch.setattr(cms, name, counted)


def test_every_reason_takes_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = {"no failure": VALID} | {name: make() for name, make in secret_failures().items()}
    steps = Steps(monkeypatch)
    taken = {}
    for name, data in messages.items():
        steps.seen.clear()
        unwrap_unauthenticated(data, RSA, 32)
        taken[name] = tuple(steps.seen)
    assert set(taken.values()) == {("_oaep_decrypt", "compare_digest", "Cipher", "compare_digest")}
