"""The padding oracle of a relayed answer: it reads a plain client's key, and nothing of ours.

Vaudenay, "Security flaws induced by CBC padding" (EUROCRYPT 2002), by the parent that carries the
answers. KMS encrypts the same key anew for each recipient key, under a fresh content key and IV;
the attack needs neither to be the same. The parent knows the sealed message (it carried that too)
and sees what the program does when it cannot open it.
"""

import os
from collections import Counter
from collections.abc import Callable
from itertools import cycle

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from support import cms_messages as at
from support.cms_messages import message_for, pkcs7, rsa_key, spki
from support.relays import BentRelay, relayed_client

from kmstool.arn import parse_key_arn
from kmstool.enclave import cms
from kmstool.errors import CmsError, KmstoolError

KEY = os.urandom(32)
NONCE = bytes(12)
SEALED = AESGCM(KEY).encrypt(NONCE, b"a sealed message", b"")
ARN = parse_key_arn("arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab")
RECIPIENTS = [rsa_key(which=number) for number in range(3)]

# What a parent sees of one call whose answer it altered: by recipient key, iv and blocks.
Observe = Callable[[Callable[[RSAPrivateKey], bytes]], object]


def altered(key: RSAPrivateKey, block: int, change: bytes) -> bytes:
    """KMS' answer, with one block of the key last in line, after its predecessor changed.

    Three blocks stay three: the sizes are public, and a client that states them would see another.
    """
    tree = message_for(key, pkcs7(KEY))
    iv, ciphertext = tree.at(*at.IV).value, tree.at(*at.CIPHERTEXT).value
    assert isinstance(iv, bytes)
    assert isinstance(ciphertext, bytes)
    blocks = [iv] + [ciphertext[i : i + 16] for i in range(0, 48, 16)]
    before = bytes(a ^ b for a, b in zip(blocks[block], change, strict=True))
    tree.at(*at.CIPHERTEXT).value = os.urandom(16) + before + blocks[block + 1]
    return tree.encode()


def guess(observe: Observe, block: int, place: int, known: bytes) -> Counter[object]:
    """What is seen for each of 256 values of one byte, when the bytes after it are known."""
    fill = 16 - place
    seen: Counter[object] = Counter()
    by_value = {}
    for value in range(256):
        wanted = bytes(place) + bytes([value]) + known
        change = bytes(
            (byte ^ fill) if index >= place else 0xA5 for index, byte in enumerate(wanted)
        )
        outcome = observe(lambda key, change=change: altered(key, block, change))  # type: ignore[misc]
        seen[outcome] += 1
        by_value[value] = outcome
    seen.by_value = by_value  # type: ignore[attr-defined]
    return seen


def read_byte(observe: Observe, block: int, place: int, known: bytes) -> int | None:
    """The value that stands out, or None when none does."""
    seen = guess(observe, block, place, known)
    rare = [outcome for outcome, count in seen.items() if count == 1]
    if len(seen) != 2 or len(rare) != 1:
        return None
    by_value: dict[int, object] = seen.by_value  # type: ignore[attr-defined]
    return next(value for value, outcome in by_value.items() if outcome == rare[0])


class PlainProgram:
    """What public examples do: unwrap, then open; each failure as it comes."""

    def __init__(self) -> None:
        self.calls = 0
        self._recipients = cycle(RECIPIENTS)

    def __call__(self, answer: Callable[[RSAPrivateKey], bytes]) -> object:
        self.calls += 1
        recipient = next(self._recipients)
        try:
            key = cms.unwrap(answer(recipient), recipient)
            AESGCM(key).decrypt(NONCE, SEALED, b"")
        except CmsError as error:
            return str(error)
        except (InvalidTag, ValueError):
            return "AES-GCM failed"
        return "opened"


class OurProgram:
    """The same program over `RelayedKms`, seen from outside: exception, text, hint, exit code."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        recipients = cycle(RECIPIENTS)

        class Made:  # a key out of three: making each anew would take half a minute here
            def result(self) -> RSAPrivateKey:
                return next(recipients)

        monkeypatch.setattr("kmstool.enclave.recipient.next_key", Made)
        self._by_spki = {spki(key): key for key in RECIPIENTS}

    def __call__(self, answer: Callable[[RSAPrivateKey], bytes]) -> object:
        relay = BentRelay(envelop=lambda recipient: answer(self._by_spki[recipient]))
        try:
            key = relayed_client(relay).decrypt(b"c", key=ARN, key_length=32)
            return key.open_aes_gcm(NONCE, SEALED, b"")
        except KmstoolError as error:
            return type(error), str(error), error.hint, error.__context__


def test_the_attack_reads_the_key_of_a_plain_program() -> None:
    program = PlainProgram()
    known = b""
    for place in (15, 14, 13):
        value = read_byte(program, 1, place, known)
        assert value is not None
        known = bytes([value]) + known
    assert known == KEY[29:]
    assert read_byte(program, 0, 15, b"") == KEY[15], "the first block as well"
    assert program.calls == 4 * 256  # so about 32 * 128 for a whole key, stopping at the first hit


def test_the_attack_sees_one_outcome_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    program = OurProgram(monkeypatch)
    assert program(lambda key: message_for(key, pkcs7(KEY)).encode()) == b"a sealed message"
    seen = guess(program, 1, 15, b"")
    assert len(seen) == 1
    ((outcome, count),) = seen.items()
    assert count == 256
    assert outcome == program(lambda key: message_for(key, os.urandom(48)).encode())
    assert read_byte(program, 1, 15, b"") is None


def test_not_even_the_right_padding_of_the_right_length_stands_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The parent may make the whole message: good padding and a key of its own, or none of it."""
    program = OurProgram(monkeypatch)
    outcomes = {
        program(lambda key, padded=padded: message_for(key, padded).encode())  # type: ignore[misc]
        for padded in (pkcs7(os.urandom(32)), os.urandom(48), pkcs7(os.urandom(40)), bytes(48))
    }
    assert len(outcomes) == 1


# --- What no client can prevent: docs/explanation/two-setups.md, "What remains" ------------------

SECRET = b'{"user":"admin","pin":"4711"}\n\n\n'  # a ciphertext of the same KMS key, and not a key


def block_asked_twice(key: RSAPrivateKey) -> tuple[bytes, bytes]:
    """KMS' answer for the secret, rearranged to depend on its second block alone.

    Returns:
        the answer, and what the bytes 16 to 31 of its plaintext are XORed with.
    """
    tree = message_for(key, pkcs7(SECRET))
    ciphertext = tree.at(*at.CIPHERTEXT).value
    assert isinstance(ciphertext, bytes)
    first, second, last = (ciphertext[i : i + 16] for i in range(0, 48, 16))
    tree.at(*at.IV).value = first
    tree.at(*at.CIPHERTEXT).value = second + second + last
    return tree.encode(), bytes(a ^ b for a, b in zip(first, second, strict=True))


def test_a_guess_of_one_block_can_be_confirmed() -> None:
    """By a message of the parent's own under the guess: it opens or not, and that is the answer."""
    recipient, opened = RECIPIENTS[0], []
    for pin in range(4705, 4715):
        answer, mask = block_asked_twice(recipient)
        block = f'"pin":"{pin}"}}\n\n\n'.encode()
        guess = block + bytes(a ^ b for a, b in zip(block, mask, strict=True))
        key = cms.unwrap_unauthenticated(answer, recipient, 32)
        try:
            AESGCM(key).decrypt(NONCE, AESGCM(guess).encrypt(NONCE, b"", b""), b"")
        except InvalidTag:
            continue
        opened.append(pin)
    assert opened == [4711]
