"""`kmstool parent credentials --assume-role`: what an enclave may do with what it is handed.

The emulator's STS gives the sessions, its KMS refuses them; everything is on loopback.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.credential_sources import DEBUG, CredentialsProcess, credentials_process
from support.emulator import RunningEmulator, running_emulator
from support.processes import Finished, run_kmstool

from kmstool.emulator.principals import ADMIN_ARN, Principal, collect_principals

WORKER_ARN = "arn:aws:iam::111122223333:role/worker"
KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"


@pytest.fixture(scope="module")
def emulator() -> Iterator[RunningEmulator]:
    """Without the role `enclave`: then kmstool has no credentials but what the parent gives it."""
    admin, worker = (
        Principal(
            access_key_id=f"AKIA{name.upper():0<16}",
            secret_access_key=f"{name}-secret-of-the-emulator",
            arn=arn,
            iam_allows=("kms:*",) if name == "admin" else (),
            trusts=(ADMIN_ARN, WORKER_ARN) if name == "worker" else (),
        )
        for name, arn in (("admin", ADMIN_ARN), ("worker", WORKER_ARN))
    )
    with running_emulator(principals=collect_principals([admin, worker])) as running:
        yield running


class Sealed:
    """A key of the emulator that the worker may use from inside an enclave, and a ciphertext."""

    def __init__(self, emulator: RunningEmulator) -> None:
        admin = emulator.admin_client()
        statements = [
            {"Effect": "Allow", "Principal": {"AWS": arn}, "Action": "kms:*", "Resource": "*"}
            for arn in (ADMIN_ARN, WORKER_ARN)
        ]
        policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
        self.arn: str = admin.create_key(Policy=policy)["KeyMetadata"]["Arn"]
        self.blob: bytes = admin.encrypt(KeyId=self.arn, Plaintext=b"sesame")["CiphertextBlob"]


@pytest.fixture(scope="module")
def named(emulator: RunningEmulator) -> Sealed:
    return Sealed(emulator)


@pytest.fixture(scope="module")
def other(emulator: RunningEmulator) -> Sealed:
    return Sealed(emulator)


def decrypt(
    emulator: RunningEmulator, parent: CredentialsProcess, sealed: Sealed, directory: Path
) -> Finished:
    return run_kmstool(
        "decrypt", "--key-id", sealed.arn, "--input", "raw",
        directory=directory, stdin=sealed.blob,
        env=emulator.kmstool_environ() | {"KMSTOOL_CREDENTIALS": parent.address},
    )  # fmt: skip


def assumed(emulator: RunningEmulator, *options: str) -> Any:
    return credentials_process(
        emulator.environment(), "--assume-role", WORKER_ARN, *options, before=DEBUG
    )


@pytest.mark.parametrize("way", ["only-kms", "session-policy"])
def test_a_role_with_less(
    emulator: RunningEmulator, named: Sealed, other: Sealed, tmp_path: Path, way: str
) -> None:
    options = ["--only-kms", named.arn]
    if way == "session-policy":
        (tmp_path / "policy.json").write_text(
            json.dumps(
                {
                    "Version": "2012-10-17",
                    "Statement": [
                        {"Effect": "Allow", "Action": "kms:Decrypt", "Resource": named.arn}
                    ],
                },
                indent=8,
            )
        )
        options = ["--session-policy", str(tmp_path / "policy.json")]
    with assumed(emulator, *options, "--role-session-name", "i-0123") as parent:
        done = decrypt(emulator, parent, named, tmp_path)
        assert (done.code, done.stdout) == (0, b"sesame"), done.stderr
        done = decrypt(emulator, parent, other, tmp_path)
        assert (done.code, done.stdout) == (7, b"")
        assert "AccessDeniedException" in done.error
        assert "no session policy allows kms:Decrypt" in done.stderr
        answer = parent.ask()
    session = "arn:aws:sts::111122223333:assumed-role/worker/i-0123"
    assert any(f" {session} Decrypt {named.arn} OK " in line for line in emulator.log)
    assert f"credentials from env, then {WORKER_ARN}, valid until" in parent.output
    for secret in (answer["SecretAccessKey"], answer["SessionToken"], "secret-of-the-emulator"):
        assert secret not in parent.output


def test_only_kms_gives_nothing_outside_of_an_enclave(
    emulator: RunningEmulator, named: Sealed
) -> None:
    """Whoever takes the credentials away gets no plaintext with them."""
    with assumed(emulator, "--only-kms", named.arn) as parent:
        answer = parent.ask()
    stolen = Principal(
        access_key_id=answer["AccessKeyId"],
        secret_access_key=answer["SecretAccessKey"],
        session_token=answer["SessionToken"],
        arn=WORKER_ARN,
    )
    kms = emulator.client(stolen)
    with pytest.raises(kms.exceptions.ClientError, match="no session policy allows kms:Decrypt"):
        kms.decrypt(CiphertextBlob=named.blob, KeyId=named.arn)


def test_a_role_without_a_policy(emulator: RunningEmulator, other: Sealed, tmp_path: Path) -> None:
    with assumed(emulator, "--duration", "900") as parent:
        assert decrypt(emulator, parent, other, tmp_path).stdout == b"sesame"
        left = datetime.fromisoformat(parent.ask()["Expiration"]) - datetime.now(UTC)
        assert timedelta(seconds=800) < left <= timedelta(seconds=900)


def test_a_profile_with_a_role(emulator: RunningEmulator, other: Sealed, tmp_path: Path) -> None:
    """botocore assumes the role; long-term keys stand behind it and stay on the parent."""
    admin = emulator.emulator.admin
    (tmp_path / "config").write_text(
        f"[profile keys]\naws_access_key_id={admin.access_key_id}\n"
        f"aws_secret_access_key={admin.secret_access_key}\n"
        f"[profile work]\nrole_arn={WORKER_ARN}\nsource_profile=keys\n"
    )
    environ = emulator.environment() | {
        "AWS_ACCESS_KEY_ID": "",
        "AWS_SECRET_ACCESS_KEY": "",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_PROFILE": "work",
    }
    with credentials_process(environ, before=DEBUG) as parent:
        assert parent.ask()["AccessKeyId"].startswith("ASIA")
        assert decrypt(emulator, parent, other, tmp_path).stdout == b"sesame"
        assert parent.said("credentials from assume-role, valid until")
    assert "secret-of-the-emulator" not in parent.output


def test_a_role_that_trusts_nobody(emulator: RunningEmulator, tmp_path: Path) -> None:
    """The enclave's message says why."""
    with credentials_process(emulator.environment(), "--assume-role", ADMIN_ARN) as parent:
        done = run_kmstool(
            "decrypt", "--key-id", KEY, "--credentials", parent.address,
            directory=tmp_path, env=emulator.kmstool_environ(), stdin=b"YQ==",
        )  # fmt: skip
    assert done.code == 5
    assert "the parent gave no credentials: NotAvailable: AWS refused AssumeRole" in done.error
    assert "is not authorized to perform: sts:AssumeRole" in done.error
