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
from functools import cached_property
from pathlib import Path

from attacks import plain_files, plain_verifier
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from support.emulator import RunningEmulator, running_emulator
from support.kms_calls import locked_policy

from kmstool.cli.exit_codes import exit_code_of
from kmstool.emulator.hostile import CHOSEN, Attack, HostileParent, Setup
from kmstool.emulator.hostile_files import FileAttack, FileForged, Layout
from kmstool.emulator.hostile_oracle import Enclave, FreshKeysOracle
from kmstool.emulator.pcrs import label_pcrs
from kmstool.errors import NOT_OPENED, NotOpenedError

TESTS = Path(__file__).resolve().parents[1]
ATTACKS_FOLDER = TESTS / "attacks"
PLAIN_CLIENT = str(ATTACKS_FOLDER / "plain_client.py")
RELAY_PROGRAM = str(ATTACKS_FOLDER / "relay_program.py")
STALLING = {"half-open", "slow-drip", "endless-answer", "relay-half-open", "relay-slow-drip"}
PATIENCE = 3.0  # seconds after which a client counts as held up, under an attack that stalls
DEADLINE = 1.5  # seconds that kmstool is given there
LONG = 60.0  # seconds for everything else, on a machine that is busy
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

    def plain_client(
        self, environment: dict[str, str], *flags: str, patience: float = LONG
    ) -> Outcome:
        """One process opens both secrets."""
        command = [sys.executable, PLAIN_CLIENT, *flags, *self.plain]
        try:
            done = _run(command, environment, timeout=patience)
        except subprocess.TimeoutExpired:
            return Outcome(End.HELD_UP, f"still waits after {patience:.0f} s", None)
        opened = [base64.b64decode(line) for line in done.stdout.split()]
        last = (done.stderr.decode().strip().splitlines() or [""])[-1]
        for got, wanted in zip(opened, (FIRST, SECOND), strict=False):
            if got != wanted:
                text = f"takes {_kind(got)} for the secret"
                return Outcome(End.FOOLED, text, done.returncode, done.stdout)
        if done.returncode == 0:
            return Outcome(End.RIGHT, End.RIGHT, 0, done.stdout)
        return Outcome(End.REFUSES, last, done.returncode, done.stdout)

    def kmstool(
        self,
        environment: dict[str, str],
        *,
        deadline: float = LONG,
        options: tuple[str, ...] = (),
    ) -> Outcome:
        """`kmstool decrypt` with full ARN and encryption context, until a secret is refused."""
        for ciphertext, secret in zip(self.bound, (FIRST, SECOND), strict=True):
            arguments = ["--key-id", self.arn, "--encryption-context", "=".join(CONTEXT)]
            command = [*KMSTOOL, "decrypt", *arguments, "--timeout", str(deadline), *options]
            done = judged(_run(command, environment, stdin=ciphertext), secret)
            if done.end is not End.RIGHT:
                return done
        return done

    def relayed(self, environment: dict[str, str], *, deadline: float = LONG) -> Outcome:
        """`kmstool open --via relay`, until a file is refused."""
        with tempfile.TemporaryDirectory() as folder:
            for number, file in enumerate(self.sealed):
                given, opened = Path(folder, "given"), Path(folder, f"opened-{number}")
                given.write_bytes(file)
                options = ["--via", "relay", "--timeout", str(deadline), "-o", str(opened)]
                command = [*KMSTOOL, "open", "--key-id", self.arn, *options, str(given)]
                done = judged(_run(command, environment), b"")
                assert opened.exists() == (done.code == 0)
                if done.end is not End.RIGHT:
                    return done
                if opened.read_bytes() != CONTENTS[number]:
                    return replace(done, end=End.FOOLED, text=End.FOOLED)
        return done

    @cached_property
    def sealed(self) -> list[bytes]:
        """Two files under data keys of the key, sealed inside over TLS."""
        files = []
        for content in CONTENTS[:2]:
            options = ["--data-key", "--key-id", self.arn]
            environment = self.emulator.emulator.environment
            done = _run([*KMSTOOL, "seal", *options], environment, stdin=content.decode())
            assert done.returncode == 0, done.stderr
            files.append(done.stdout)
        return files

    def relayed_command(self, environment: dict[str, str]) -> Outcome:
        """`kmstool decrypt --via relay`, without the option that accepts what it would print."""
        arguments = ["--key-id", self.arn, "--encryption-context", "=".join(CONTEXT)]
        command = [*KMSTOOL, "decrypt", *arguments, "--via", "relay", "--length", "32"]
        return judged(_run(command, environment, stdin=self.bound[1]), b"")

    def trial(self, attack: type[Attack]) -> tuple[Outcome, Outcome]:
        """The plain client and kmstool under one attack, each with a parent of its own."""
        if attack.setup is Setup.ATTESTATION:
            return self.documents(attack.name)
        if issubclass(attack, FileAttack):
            with tempfile.TemporaryDirectory() as folder:
                given = (attack(), Path(folder))
                return self.plain_file(*given), self.kmstool_file(*given)
        if issubclass(attack, FreshKeysOracle):
            return self.oracle(attack.name)
        relay, stalls = attack.setup is Setup.RELAY, attack.name in STALLING
        with self.under(attack.name) as parent:
            patience = PATIENCE if stalls else LONG
            flags = ["--relay"] * relay
            plain = self.plain_client(parent.environment, *flags, patience=patience)
        with self.under(attack.name) as parent:
            run = self.relayed if relay else self.kmstool
            return plain, run(parent.environment, deadline=DEADLINE if stalls else LONG)

    def oracle(self, attack: str) -> tuple[Outcome, Outcome]:
        """What a parent learns of a secret; of kmstool's it tries to confirm what it guessed."""
        end = FIRST[:16][-3:]
        said: list[str] = []
        learned = []
        for program, ciphertext, guesses in (
            (PLAIN_CLIENT, self.plain[0], bytes(range(256))),
            (RELAY_PROGRAM, self.bound[0], b"abc" + end[-1:]),
        ):
            with (
                self.under(attack) as parent,
                self.service(program, parent.environment, ciphertext) as enclave,
            ):
                assert isinstance(parent.attack, FreshKeysOracle)

                def ask(enclave: Enclave = enclave) -> str:
                    said.append(enclave())
                    return said[-1]

                learned.append(parent.attack.recover(ask, len(end), candidates=guesses))
                requests = parent.attack.requests
            if program == PLAIN_CLIENT:
                text = f"gives {learned[0]!r} of its secret away in {requests} requests"
                plain = Outcome(End.FOOLED if learned[0] == end else End.REFUSES, text, None)
                said.clear()
        if learned[1] or len(set(said)) != 1 or "NotOpenedError" not in said[0]:
            return plain, Outcome(End.FOOLED, f"says {sorted(set(said))}", None)
        return plain, Outcome(End.REFUSES, NOT_OPENED, int(exit_code_of(NotOpenedError(""))))

    def documents(self, attack: str | None) -> tuple[Outcome, Outcome]:
        """A document from under an attack: what the plain verifier and `kmstool verify` say."""
        nonce, pcrs = os.urandom(32), label_pcrs()
        command = [*KMSTOOL, "attest", "--nonce", f"hex:{nonce.hex()}"]
        with contextlib.ExitStack() as stack:
            environment = self.emulator.emulator.environment
            if attack is not None:
                environment = stack.enter_context(self.under(attack)).environment
            document = _run(command, environment).stdout
        root = self.emulator.emulator.chain.root_der
        plain = Outcome(End.FOOLED, "takes it for the enclave's document of now", 0)
        try:
            plain_verifier.verify(document, root_der=root, pcr0=pcrs[0])
        except (AssertionError, ValueError, InvalidSignature) as error:
            plain = Outcome(End.REFUSES, str(error) or type(error).__name__, 1)
        expected = [f"--pcr={index}={value.hex()}" for index, value in pcrs.items()]
        expected += ["--nonce", f"hex:{nonce.hex()}", "--max-age", "300", "--input", "raw"]
        with tempfile.NamedTemporaryFile() as file:
            file.write(document)
            file.flush()
            command = [*KMSTOOL, "verify", *expected, file.name]
            done = _run(command, self.emulator.emulator.environment)
        return plain, judged(done, done.stdout)

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
        # Whoever may call Encrypt with the key can forge; here it is the administrator.
        bent = attack.bend(current, older=older, other=other, layout=layout, forge=sealed_as)
        file.write_bytes(bent)
        environment = self.emulator.emulator.environment | {"PYTHONPATH": str(TESTS)}
        command = [sys.executable, "-m", "attacks.plain_files", str(file)]
        done = _run(command, environment)
        if done.returncode == 0 and done.stdout != CONTENTS[0]:
            whole = (*CONTENTS, FileForged.content)
            what = "another file" if done.stdout in whole else "an altered file"
            return Outcome(End.FOOLED, f"opens {what} without a word", 0)
        if done.returncode == 0:
            return Outcome(End.RIGHT, End.RIGHT, 0)
        last = done.stderr.decode().strip().splitlines()[-1]
        return Outcome(End.REFUSES, last, done.returncode)

    def kmstool_file(
        self, attack: FileAttack, folder: Path, *, expect_signer: bool | None = None
    ) -> Outcome:
        """`kmstool seal` and `kmstool open -o`, with label, counter, and a signer if it matters."""
        key = self.admin.create_key(
            KeySpec="ECC_NIST_P256",
            KeyUsage="KEY_AGREEMENT",
            Policy=locked_policy(label_pcrs()),
            BypassPolicyLockoutSafetyCheck=True,
        )["KeyMetadata"]["Arn"]
        public_key = folder / "key.der"
        public_key.write_bytes(self.admin.get_public_key(KeyId=key)["PublicKey"])
        environment = self.emulator.emulator.environment
        signed = isinstance(attack, FileForged) if expect_signer is None else expect_signer
        signs, expects = _signer(folder) if signed else ([], [])

        def sealed_as(content: bytes, label: str, counter: int) -> bytes:
            plain, file = folder / "content", folder / "file.sealed"
            plain.write_bytes(content)
            options = ["--to", str(public_key), "--key-id", key, "--label", label]
            options += ["--counter", str(counter), *signs, "-o", str(file), str(plain)]
            done = _run([*KMSTOOL, "seal", *options], environment)
            assert done.returncode == 0, done.stderr
            return file.read_bytes()

        current = sealed_as(CONTENTS[0], "config", 2)
        older = sealed_as(CONTENTS[1], "config", 1)
        other = sealed_as(CONTENTS[2], "other", 2)
        (folder / "given.sealed").write_bytes(attack.bend(current, older=older, other=other))
        opened = folder / "opened"
        options = ["--key-id", key, "--expect-label", "config", "--min-counter", "2"]
        command = [
            *KMSTOOL,
            "open",
            *options,
            *expects,
            "-o",
            str(opened),
            str(folder / "given.sealed"),
        ]
        done = _run(command, environment)
        outcome = judged(done, b"")
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


def _signer(folder: Path) -> tuple[list[str], list[str]]:
    """Options with which to sign, and to open what this signer signed."""
    private, public = folder / "signing-key.pem", folder / "signer.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    return ["--sign-with", str(private)], ["--expect-signer", str(public)]


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


def judged(done: subprocess.CompletedProcess[bytes], right: bytes) -> Outcome:
    """What a run of kmstool came to."""
    stderr = done.stderr.decode()
    error = [line for line in stderr.splitlines() if line.startswith("kmstool: error: ")]
    if done.returncode == 0:
        end = End.RIGHT if done.stdout == right else End.FOOLED
        return Outcome(end, end, 0, done.stdout, stderr)
    text = error[0].removeprefix("kmstool: error: ") if error else stderr
    return Outcome(End.REFUSES, text, done.returncode, done.stdout, stderr)


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """A stage of one's own."""
    with running_emulator() as emulator:
        yield Stage(emulator)


def _run(
    command: list[str], environment: dict[str, str], *, timeout: float = LONG, stdin: str = ""
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command,
        input=stdin.encode(),
        env={**os.environ, **environment},
        capture_output=True,
        timeout=timeout,
        check=False,
    )
