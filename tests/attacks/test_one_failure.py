"""`kmstool open --via relay`, whole processes: why an answer is wrong shows in nothing.

Exit code, both outputs, how often the relay is asked, and what stands in the folder afterwards. The
parent makes the answers, with the recipient's public key, so it knows the reason; it must not
learn from the enclave what it would need to know of a genuine one.
"""

import os
import pty
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import load_der_public_key
from support.trials import CONTEXT, KMSTOOL, Stage, stage

from kmstool.emulator.hostile import HostileParent, NoAttack
from kmstool.emulator.hostile_attack import Ground
from kmstool.emulator.hostile_relay import BentRelay, Relayed, fields_of, with_fields
from kmstool.errors import NOT_OPENED

KEY = bytes(range(32))
GOOD = bytes([16] * 16)
Fields = dict[str, bytes]


def oaep(call: Relayed, content_key: bytes) -> bytes:
    public_key = load_der_public_key(call.public_key)
    assert isinstance(public_key, rsa.RSAPublicKey)
    scheme = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    return public_key.encrypt(content_key, scheme)


def made(call: Relayed, padded: bytes, content_key: bytes = KEY) -> Fields:
    """An answer of the parent's own: any content, under any content key."""
    iv = bytes(16)
    encryptor = Cipher(algorithms.AES256(KEY), modes.CBC(iv)).encryptor()
    ciphertext = encryptor.update(padded) + encryptor.finalize()
    return {"encrypted_key": oaep(call, content_key), "iv": iv, "ciphertext": ciphertext}


REASONS: dict[str, Callable[[Relayed, Fields], Fields]] = {
    "OAEP": lambda _call, genuine: {"encrypted_key": genuine["encrypted_key"][::-1]},
    "content key's length": lambda call, _genuine: made(call, KEY + GOOD, KEY[:16]),
    "padding": lambda call, _genuine: made(call, KEY + bytes(16)),
    "one byte of the padding": lambda call, _genuine: made(call, KEY + GOOD[1:] + b"\x11"),
    "plaintext's length": lambda call, _genuine: made(call, KEY + b"k" * 8 + bytes([8] * 8)),
    "another key": lambda call, _genuine: made(call, KEY + GOOD),
    "a flipped bit of the genuine key": lambda _call, genuine: {
        "iv": bytes([genuine["iv"][0] ^ 1]) + genuine["iv"][1:]
    },
    "a flipped bit of the genuine padding": lambda _call, genuine: {
        "ciphertext": genuine["ciphertext"][:31]
        + bytes([genuine["ciphertext"][31] ^ 1])
        + genuine["ciphertext"][32:]
    },
}


class OneReason(BentRelay):
    name = "one-reason"
    sentence = "answers with something that is wrong for one reason"

    def __init__(self, reason: str) -> None:
        self.asked = 0
        self._change = REASONS[reason]

    def answer(self, ground: Ground, call: Relayed) -> dict[str, Any]:
        self.asked += 1
        genuine = super().answer(ground, call)
        fields = fields_of(genuine)
        return with_fields(genuine, {**fields, **self._change(call, fields)})


@pytest.fixture(scope="module")
def ground() -> Iterator[Stage]:
    with stage() as one:
        yield one


def seen(ground: Stage, reason: str, folder: Path, *options: str) -> tuple[object, ...]:
    """All that whoever started the enclave sees of it."""
    attack = OneReason(reason)
    (folder / "file").write_bytes(ground.sealed[0])
    command = [*KMSTOOL, "open", "--key-id", ground.arn, "--via", "relay", *options, "file"]
    with (
        tempfile.TemporaryDirectory(prefix="kmstool-") as place,
        HostileParent(ground.emulator.emulator, Path(place), attack) as parent,
    ):
        environment = {**os.environ, **parent.environment}
        done = subprocess.run(
            command, env=environment, cwd=folder, capture_output=True, check=False, timeout=60
        )
    left = sorted(path.name for path in folder.iterdir())
    return done.returncode, done.stdout, done.stderr, attack.asked, left


@pytest.mark.parametrize("options", [(), ("-o", "opened")], ids=["to stdout", "to a file"])
def test_the_reason_shows_in_nothing(
    ground: Stage, tmp_path: Path, options: tuple[str, ...]
) -> None:
    outcomes = {reason: seen(ground, reason, tmp_path, *options) for reason in REASONS}
    code, stdout, stderr, asked, left = outcomes["padding"]
    assert set(map(repr, outcomes.values())) == {repr(outcomes["padding"])}, outcomes
    assert (code, stdout, asked, left) == (8, b"", 1, ["file"])
    assert NOT_OPENED in str(stderr)


def on_a_terminal(ground: Stage, attack: BentRelay, *options: str) -> tuple[object, ...]:
    """What `decrypt` of a secret that is text does with a terminal as stdout."""
    command = [*KMSTOOL, "decrypt", "--key-id", ground.arn, "--via", "relay", "--length", "32"]
    command += ["--accept-unauthenticated", "--encryption-context", "=".join(CONTEXT), *options]
    ours, theirs = pty.openpty()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="kmstool-") as place,
            HostileParent(ground.emulator.emulator, Path(place), attack) as parent,
        ):
            done = subprocess.run(
                command,
                input=ground.bound[0].encode(),
                env={**os.environ, **parent.environment},
                stdout=theirs,
                stderr=subprocess.PIPE,
                check=False,
                timeout=60,
            )
    finally:
        os.close(ours)
        os.close(theirs)
    return done.returncode, done.stderr


def test_whether_a_bare_secret_is_text_shows_in_nothing(ground: Stage) -> None:
    """Random bytes, which stand for a failure, are no text: a terminal would tell them apart."""
    genuine, wrong = (on_a_terminal(ground, one) for one in (NoAttack(), OneReason("padding")))
    assert genuine == wrong
    assert genuine[0] == 11
    assert "stdout is a terminal" in str(genuine[1])
    for options in (["--format", "base64"], ["-o", "-"]):
        assert on_a_terminal(ground, NoAttack(), *options)[0] == 0
