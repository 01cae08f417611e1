"""`decrypt --policy`: an enclave that KMS refused says which condition failed; whole processes."""

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.emulator import RunningEmulator, running_emulator

from kmstool.emulator.pcrs import label_pcrs
from kmstool.emulator.principals import ADMIN_ARN, ENCLAVE_ARN

PREFIX = "kms:RecipientAttestation:PCR"


def policy(**pcrs: str) -> str:
    """Lets in the emulator's own enclave; `pcr1="…"` asks for another value."""
    wanted = {f"{PREFIX}{index}": value.hex() for index, value in label_pcrs().items()}
    wanted |= {f"{PREFIX}{name.removeprefix('pcr')}": value for name, value in pcrs.items()}
    enclave = {
        "Sid": "Enclave",
        "Effect": "Allow",
        "Principal": {"AWS": ENCLAVE_ARN},
        "Action": "kms:Decrypt",
        "Resource": "*",
        "Condition": {"StringEqualsIgnoreCase": wanted},
    }
    admin = {
        "Sid": "Admin",
        "Effect": "Allow",
        "Principal": {"AWS": ADMIN_ARN},
        "Action": ["kms:Encrypt", "kms:PutKeyPolicy", "kms:GetKeyPolicy"],
        "Resource": "*",
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [admin, enclave]})


class World:
    def __init__(self, emulator: RunningEmulator, folder: Path) -> None:
        self.emulator = emulator
        self.folder = folder
        self.kms: Any = emulator.admin_client()

    def key(self, text: str) -> str:
        """A key with this policy, which is also written to policy.json; secret.enc is of it."""
        arn: str = self.kms.create_key(Policy=text)["KeyMetadata"]["Arn"]
        blob = self.kms.encrypt(KeyId=arn, Plaintext=b"x")["CiphertextBlob"]
        (self.folder / "secret.enc").write_bytes(base64.b64encode(blob))
        (self.folder / "policy.json").write_text(text)
        return arn

    def decrypt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "kmstool", "decrypt", *arguments, "secret.enc"],
            env={"PATH": "/usr/bin:/bin", **self.emulator.kmstool_environ()},
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )

    def hint(self, *arguments: str) -> str:
        done = self.decrypt(*arguments)
        assert done.returncode == 7, done.stderr
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("kmstool: hint: ")]
        return line.removeprefix("kmstool: hint: ")


@pytest.fixture(scope="module")
def emulator() -> Iterator[RunningEmulator]:
    with running_emulator() as running:
        yield running


@pytest.fixture
def world(emulator: RunningEmulator, tmp_path: Path) -> World:
    return World(emulator, tmp_path)


def test_the_condition_that_failed_is_named(world: World) -> None:
    arn = world.key(policy(pcr1="b1" * 48))
    has = label_pcrs()[1].hex()
    hint = world.hint("--key-id", arn, "--policy", "policy.json")
    assert hint == (
        f"by the policy in policy.json, PCR1 is {has[:8]}…, the policy wants b1b1b1b1…: its kernel"
        " or boot ramdisk is another: it was built with another version of the tools"
    )
    # Without it there is the hint of what the enclave alone knows.
    assert world.hint("--key-id", arn).startswith("this enclave attests PCR0 ")


def test_the_emulator_names_the_statement_too(world: World) -> None:
    done = world.decrypt("--key-id", world.key(policy(pcr2="b2" * 48)))
    assert done.returncode == 7
    assert 'because statement "Enclave" would allow it, but kms:RecipientAttestation:PCR2' in (
        done.stderr
    )


def test_another_role(world: World) -> None:
    arn = world.key(policy().replace("role/enclave", "role/other"))
    hint = world.hint("--key-id", arn, "--policy", "policy.json")
    assert "the caller is role enclave of account 111122223333, the policy names role other" in hint


def test_a_policy_that_is_not_the_key_s(world: World) -> None:
    arn = world.key(policy(pcr1="b1" * 48))
    (world.folder / "policy.json").write_text(json.dumps({"Policy": policy()}))
    hint = world.hint("--key-id", arn, "--policy", "policy.json")
    assert "this call is allowed: the key has another policy" in hint


def test_where_kms_does_it_the_policy_changes_nothing(world: World) -> None:
    done = world.decrypt("--key-id", world.key(policy()), "--policy", "policy.json")
    assert (done.returncode, done.stdout) == (0, "x"), done.stderr
    (world.folder / "policy.json").write_text(policy(pcr1="b1" * 48))
    done = world.decrypt("--key-id", world.key(policy()), "--policy", "policy.json")
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--policy", "missing.json"), 11, "missing.json could not be read"),
        (("--policy", "secret.enc"), 3, "the policy is not JSON"),
    ],
)
def test_a_wrong_policy_is_refused_before_anything_is_sent(
    world: World, arguments: tuple[str, ...], code: int, says: str
) -> None:
    arn = world.key(policy())
    before = len(world.emulator.log)
    done = world.decrypt("--key-id", arn, *arguments)
    assert done.returncode == code
    assert says in done.stderr
    assert len(world.emulator.log) == before


def test_any_key_has_no_policy(world: World) -> None:
    world.key(policy())
    done = world.decrypt("--any-key", "--policy", "policy.json")
    assert done.returncode == 2
    assert "--any-key names none" in done.stderr


def test_a_debug_enclave_is_told_so(tmp_path: Path) -> None:
    with running_emulator(pcrs=dict.fromkeys(range(3), bytes(48))) as emulator:
        world = World(emulator, tmp_path)
        hint = world.hint("--key-id", world.key(policy()), "--policy", "policy.json")
    assert "the enclave runs in debug mode" in hint
