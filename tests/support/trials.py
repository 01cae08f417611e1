"""One attack on two programs: the plain client of tests/attacks, and kmstool as a whole process.

Used by tests/attacks and by `scripts/demo attacks`.
"""

import base64
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from attacks import plain_files
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from support.emulator import RunningEmulator, running_emulator
from support.kms_calls import locked_policy

from kmstool.emulator.hostile import CHOSEN, HostileParent
from kmstool.emulator.hostile_files import FileAttack, Layout
from kmstool.emulator.hostile_oracle import Enclave
from kmstool.emulator.pcrs import label_pcrs

TESTS = Path(__file__).resolve().parents[1]
ATTACKS_FOLDER = TESTS / "attacks"
PLAIN_CLIENT = str(ATTACKS_FOLDER / "plain_client.py")
RELAY_PROGRAM = str(ATTACKS_FOLDER / "relay_program.py")
PATIENCE = 5.0  # seconds after which a client that has no deadline counts as held up
DEADLINE = 3.0  # seconds that kmstool is given
CONTEXT = ("app", "trial")
# Of a sealed file: as it is, an older one, and another. More than three chunks of either format.
CONTENTS = tuple(text * 20_000 for text in (b"content-0002", b"content-0001", b"another file"))
FIRST, SECOND = b"the first secret of the trial---", b"the second secret of the trial--"


class End(StrEnum):
    """What became of a client."""

    RIGHT = "opens the right secret"
    REFUSES = "refuses"
    FOOLED = "fooled"
    HELD_UP = "held up"


@dataclass(frozen=True)
class Outcome:
    """How a client ended.

    Attributes:
        text: one line for a person.
        code: its exit code, or None where it was ended for it.
    """

    end: End
    text: str
    code: int | None
    stdout: bytes = b""
    stderr: str = ""


class Stage:
    """An emulator with a key, its alias, and two secrets encrypted under it."""

    def __init__(self, emulator: RunningEmulator) -> None:
        self.emulator = emulator
        admin = self.admin = emulator.admin_client()
        self.arn: str = admin.create_key()["KeyMetadata"]["Arn"]
        admin.create_alias(AliasName="alias/app", TargetKeyId=self.arn)
        admin.put_key_policy(
            KeyId=self.arn,
            PolicyName="default",
            Policy=locked_policy(label_pcrs()),
            BypassPolicyLockoutSafetyCheck=True,
        )

        def encrypt(secret: bytes, **context: str) -> str:
            answer = admin.encrypt(KeyId=self.arn, Plaintext=secret, EncryptionContext=context)
            return base64.b64encode(answer["CiphertextBlob"]).decode()

        self.plain = [encrypt(FIRST), encrypt(SECOND)]
        self.bound = [encrypt(secret, **dict([CONTEXT])) for secret in (FIRST, SECOND)]

    @contextlib.contextmanager
    def under(self, attack: str) -> Iterator[HostileParent]:
        """A hostile parent."""
        with (
            tempfile.TemporaryDirectory(prefix="kmstool-") as folder,
            HostileParent(self.emulator.emulator, Path(folder), attack) as parent,
        ):
            yield parent

    def plain_client(self, environment: dict[str, str], *flags: str) -> Outcome:
        """One process opens both secrets."""
        command = [sys.executable, PLAIN_CLIENT, *flags, *self.plain]
        try:
            done = _run(command, environment, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            return Outcome(End.HELD_UP, f"still waits after {PATIENCE:.0f} s", None)
        opened = [base64.b64decode(line) for line in done.stdout.split()]
        last = (done.stderr.decode().strip().splitlines() or [""])[-1]
        for got, wanted in zip(opened, (FIRST, SECOND), strict=False):
            if got != wanted:
                text = f"takes {_kind(got)} for the secret"
                return Outcome(End.FOOLED, text, done.returncode, done.stdout)
        if done.returncode == 0:
            return Outcome(End.RIGHT, End.RIGHT, 0, done.stdout)
        return Outcome(End.REFUSES, last, done.returncode, done.stdout)

    def kmstool(self, environment: dict[str, str]) -> Outcome:
        """A process for each secret, until one is refused."""
        for ciphertext, wanted in zip(self.bound, (FIRST, SECOND), strict=True):
            done = self.decrypt(environment, ciphertext)
            if done.end is not End.RIGHT or done.stdout != wanted:
                return done
        return done

    def decrypt(self, environment: dict[str, str], ciphertext: str) -> Outcome:
        """`kmstool decrypt`, the safe way: full ARN and an encryption context."""
        arguments = ["--key-id", self.arn, "--encryption-context", "=".join(CONTEXT)]
        done = _run(
            [*KMSTOOL, "decrypt", *arguments, "--timeout", str(DEADLINE)],
            environment,
            timeout=60,
            stdin=ciphertext,
        )
        return judged(done, (FIRST, SECOND))

    def relayed(self, environment: dict[str, str]) -> Outcome:
        """A program with kmstool's library, over the relay: a process for each message."""
        environment = {**environment, "TRIAL_KEY": self.arn}
        for secret, ciphertext in zip((FIRST, SECOND), self.bound, strict=True):
            text = b"what was sealed under " + secret[:10]
            message = base64.b64encode(sealed(secret, text)).decode()
            command = [sys.executable, RELAY_PROGRAM, message, ciphertext]
            done = judged(_run(command, environment, timeout=60), (text,))
            if done.end is not End.RIGHT:
                return done
        return done

    def relayed_command(self, environment: dict[str, str]) -> Outcome:
        """`kmstool decrypt --via relay`, without the option that accepts what it would print."""
        arguments = ["--key-id", self.arn, "--encryption-context", "=".join(CONTEXT)]
        command = [*KMSTOOL, "decrypt", *arguments, "--via", "relay", "--length", "32"]
        return judged(_run(command, environment, timeout=60, stdin=self.bound[1]), ())

    def plain_file(self, attack: FileAttack, folder: Path) -> Outcome:
        """Envelope encryption in chunks, as public examples do it."""

        def sealed_as(content: bytes) -> bytes:
            key = os.urandom(32)
            answer = self.admin.encrypt(KeyId=self.arn, Plaintext=key)
            return plain_files.seal(content, key, answer["CiphertextBlob"])

        current, older, other = map(sealed_as, CONTENTS)
        head = 2 + int.from_bytes(current[:2], "big")
        layout = Layout(head, plain_files.SEALED_CHUNK)
        file = folder / "plain.sealed"
        file.write_bytes(attack.bend(current, older=older, other=other, layout=layout))
        environment = self.emulator.emulator.environment | {"PYTHONPATH": str(TESTS)}
        command = [sys.executable, "-m", "attacks.plain_files", str(file)]
        done = _run(command, environment, timeout=60)
        if done.returncode == 0 and done.stdout != CONTENTS[0]:
            what = "another file" if done.stdout in CONTENTS else "an altered file"
            return Outcome(End.FOOLED, f"opens {what} without a word", 0)
        if done.returncode == 0:
            return Outcome(End.RIGHT, End.RIGHT, 0)
        last = done.stderr.decode().strip().splitlines()[-1]
        return Outcome(End.REFUSES, last, done.returncode)

    def kmstool_file(self, attack: FileAttack, folder: Path) -> Outcome:
        """`kmstool seal` and `kmstool open -o`, with a label and a counter."""
        key = self.admin.create_key(
            KeySpec="ECC_NIST_P256",
            KeyUsage="KEY_AGREEMENT",
            Policy=locked_policy(label_pcrs()),
            BypassPolicyLockoutSafetyCheck=True,
        )["KeyMetadata"]["Arn"]
        public_key = folder / "key.der"
        public_key.write_bytes(self.admin.get_public_key(KeyId=key)["PublicKey"])
        environment = self.emulator.emulator.environment

        def sealed_as(content: bytes, label: str, counter: int) -> bytes:
            plain, file = folder / "content", folder / "file.sealed"
            plain.write_bytes(content)
            options = ["--to", str(public_key), "--key-id", key, "--label", label]
            options += ["--counter", str(counter), "-o", str(file), str(plain)]
            done = _run([*KMSTOOL, "seal", *options], environment, timeout=60)
            assert done.returncode == 0, done.stderr
            return file.read_bytes()

        current = sealed_as(CONTENTS[0], "config", 2)
        older = sealed_as(CONTENTS[1], "config", 1)
        other = sealed_as(CONTENTS[2], "other", 2)
        (folder / "given.sealed").write_bytes(attack.bend(current, older=older, other=other))
        opened = folder / "opened"
        options = ["--key-id", key, "--expect-label", "config", "--min-counter", "2"]
        command = [*KMSTOOL, "open", *options, "-o", str(opened), str(folder / "given.sealed")]
        done = _run(command, environment, timeout=60)
        outcome = judged(done, (b"",))
        if outcome.end is End.RIGHT and opened.read_bytes() != CONTENTS[0]:
            return replace(outcome, end=End.FOOLED, text=End.FOOLED)
        assert opened.exists() == (outcome.end is End.RIGHT)
        return outcome

    @contextlib.contextmanager
    def service(
        self, program: str, environment: dict[str, str], ciphertext: str
    ) -> Iterator[Enclave]:
        """An enclave that opens the message under the first secret whenever it is asked to."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(sealed(FIRST, b"a message"))
            file.flush()
            flags = ["--relay"] if program == PLAIN_CLIENT else []
            process = subprocess.Popen(
                [sys.executable, program, *flags, "--serve", file.name],
                env={**os.environ, **environment, "TRIAL_KEY": self.arn},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            with process:
                assert process.stdin is not None
                assert process.stdout is not None
                stdin, stdout = process.stdin, process.stdout

                def ask() -> str:
                    print(ciphertext, file=stdin, flush=True)
                    return stdout.readline()

                yield ask
                stdin.close()


def sealed(key: bytes, text: bytes) -> bytes:
    """A nonce, and an AES-GCM message."""
    nonce = os.urandom(12)
    return nonce + AESGCM(key).encrypt(nonce, text, b"")


def _kind(got: bytes) -> str:
    if got == CHOSEN:
        return "the parent's bytes"
    if got in (FIRST, SECOND):
        return "an old secret"
    return (
        "changed bytes" if got[16:] in (FIRST[16:], SECOND[16:]) else "a key that the parent knows"
    )


KMSTOOL = [sys.executable, "-c", "from kmstool.cli.main import run; run()"]


def judged(done: subprocess.CompletedProcess[bytes], right: tuple[bytes, ...]) -> Outcome:
    """What a run of kmstool came to."""
    stderr = done.stderr.decode()
    error = [line for line in stderr.splitlines() if line.startswith("kmstool: error: ")]
    if done.returncode == 0:
        end = End.RIGHT if done.stdout in right else End.FOOLED
        return Outcome(end, end, 0, done.stdout, stderr)
    text = error[0].removeprefix("kmstool: error: ") if error else stderr
    return Outcome(End.REFUSES, text, done.returncode, done.stdout, stderr)


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """A stage of one's own."""
    with running_emulator() as emulator:
        yield Stage(emulator)


def _run(
    command: list[str], environment: dict[str, str], *, timeout: float, stdin: str = ""
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command,
        input=stdin.encode(),
        env={**os.environ, **environment},
        capture_output=True,
        timeout=timeout,
        check=False,
    )
