"""pytest fixtures that attack a program of yours: an emulator, an enclave, and a hostile parent.

Installed with kmstool; pytest finds it by itself. Nothing of the emulator is imported before a
fixture is used. How to use it: docs/howto/attack-your-own-program.md. For tests only.

    kms_emulator     a KMS, its keys, and ciphertexts for your program
    enclave          runs your program as the enclave, beside an honest parent
    hostile_parent   a function from the name of an attack to the same under that attack
"""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from kmstool.emulator.hostile import Attack
    from kmstool.emulator.running import Emulator

TIMEOUT = 60.0  # seconds after which a program counts as held up


def attack_names(*setups: str) -> list[str]:
    """Names of attacks for `pytest.mark.parametrize`: of these setups, or all that need a parent.

    Args:
        setups: `direct`, `relay`, `attestation`; docs/reference/attacks.md says what they are.
    """
    from kmstool.emulator.hostile import ATTACKS  # noqa: PLC0415

    wanted = setups or ("direct", "relay", "attestation")
    return [name for name, attack in ATTACKS.items() if attack.setup in wanted]


@dataclass(frozen=True)
class Run:
    """How a program ended.

    Attributes:
        code: its exit code, negative for a signal; None where it had to be killed at its timeout.
    """

    code: int | None
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True)
class Enclave:
    """Where a program runs: everything that it can reach is in its environment.

    Attributes:
        environment: KMSTOOL_EMULATOR, KMSTOOL_REGION and KMSTOOL_RELAY for kmstool, AWS_* for an
            AWS SDK, which acts as the enclave's role.
        attack: the attack with what it has seen, or None beside an honest parent.
    """

    environment: Mapping[str, str] = field(repr=False)
    attack: "Attack | None" = None

    def run(
        self,
        *command: str | Path,
        input: bytes = b"",  # noqa: A002 - as subprocess.run names it
        env: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,
    ) -> Run:
        """Runs a command for `timeout` seconds at most; `env` is added to its environment.

        It is ended at its timeout with everything that it started.
        """
        from kmstool.emulator.directory import environment_around  # noqa: PLC0415

        variables = environment_around(os.environ, {**self.environment, **(env or {})})
        try:
            with subprocess.Popen(  # noqa: S603 - it is the tester's own program
                [str(part) for part in command],
                env=variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            ) as process:
                try:
                    stdout, stderr = process.communicate(input, timeout)
                except BaseException:  # its time is up, or the test's
                    # With all that it started: a shell's children would go on without it.
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    raise
        except subprocess.TimeoutExpired as late:
            return Run(None, late.stdout or b"", late.stderr or b"")
        return Run(process.returncode, stdout, stderr)


@dataclass(frozen=True)
class KmsEmulator:
    """A KMS of your own, seen by its administrator.

    Attributes:
        emulator: `kmstool.emulator.running.Emulator`.
        kms: a botocore client that acts as the administrator.
    """

    emulator: "Emulator"
    kms: Any

    def make_key(self, alias: str | None = None) -> str:
        """The ARN of a new key that only the emulator's enclave image may decrypt with."""
        from kmstool.emulator.pcrs import label_pcrs  # noqa: PLC0415

        arn: str = self.kms.create_key()["KeyMetadata"]["Arn"]
        if alias is not None:
            self.kms.create_alias(AliasName=alias, TargetKeyId=arn)
        pcrs = {f"kms:RecipientAttestation:PCR{n}": v.hex() for n, v in label_pcrs().items()}
        statements = [
            {
                "Effect": "Allow",
                "Principal": {"AWS": self.emulator.admin.arn},
                "Action": ["kms:DescribeKey", "kms:Encrypt", "kms:GetKeyPolicy"],
                "Resource": "*",
            },
            {
                "Effect": "Allow",
                "Principal": {"AWS": self.emulator.enclave and self.emulator.enclave.arn},
                "Action": ["kms:Decrypt", "kms:GenerateDataKey", "kms:GenerateDataKeyPair"],
                "Resource": "*",
                "Condition": {"StringEqualsIgnoreCase": pcrs},
            },
        ]
        self.kms.put_key_policy(
            KeyId=arn,
            PolicyName="default",
            Policy=json.dumps({"Version": "2012-10-17", "Statement": statements}),
            BypassPolicyLockoutSafetyCheck=True,
        )
        return arn

    def encrypt(self, key: str, secret: bytes, context: Mapping[str, str] | None = None) -> bytes:
        """A ciphertext for the enclave, as the administrator makes it."""
        answer = self.kms.encrypt(
            KeyId=key, Plaintext=secret, EncryptionContext=dict(context or {})
        )
        blob: bytes = answer["CiphertextBlob"]
        return blob


@pytest.fixture
def kms_emulator() -> Iterator[KmsEmulator]:
    """A KMS of this test's own."""
    import botocore.session  # noqa: PLC0415

    from kmstool.emulator.running import Emulator  # noqa: PLC0415

    with _folder() as folder, Emulator(folder) as emulator:
        kms = botocore.session.Session().create_client(
            "kms",
            region_name=emulator.region,
            endpoint_url=f"https://localhost:{emulator.address.port}",
            verify=str(emulator.ca_file),
            aws_access_key_id=emulator.admin.access_key_id,
            aws_secret_access_key=emulator.admin.secret_access_key,
        )
        with contextlib.closing(kms):
            yield KmsEmulator(emulator, kms)


@pytest.fixture
def enclave(kms_emulator: KmsEmulator) -> Iterator[Enclave]:
    """Your program's place beside an honest parent, who forwards TLS and has a relay."""
    from kmstool.emulator.hostile import honest_parent  # noqa: PLC0415

    with _folder() as folder, honest_parent(kms_emulator.emulator, folder) as parent:
        yield Enclave(parent.enclave_environment)


@pytest.fixture
def hostile_parent(kms_emulator: KmsEmulator) -> Iterator[Callable[[str], Enclave]]:
    """From the name of an attack to your program's place under it."""
    from kmstool.emulator.hostile import HostileParent  # noqa: PLC0415

    with contextlib.ExitStack() as stack:

        def under(attack: str) -> Enclave:
            folder = stack.enter_context(_folder())
            parent = HostileParent(kms_emulator.emulator, folder, attack)
            stack.enter_context(parent)
            return Enclave(parent.enclave_environment, parent.attack)

        yield under


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    # Not tmp_path: the path of a Unix socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="kmstool-") as name:
        yield Path(name)
