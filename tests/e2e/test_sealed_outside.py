"""`seal --data-key --outside`: docs/howto/seal-a-file.md's own lines against the emulator's KMS.

The key's policy lets anybody of the account make data keys, and only the image decrypt.
"""

import base64
import contextlib
import json
import logging
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.emulator import RunningEmulator, running_emulator
from support.hostile_server import HostileAuthority, HostileServer, http_bytes
from support.processes import (
    SECRET_ACCESS_KEY,
    SESSION_TOKEN,
    Finished,
    InProcess,
    command,
    environment,
    run_kmstool,
)

from kmstool.arn import parse_key_arn
from kmstool.caveats import UNATTESTED_DATA_KEY
from kmstool.emulator.pcrs import label_pcrs
from kmstool.enclave.http import HttpAnswer
from kmstool.errors import KmsError, UntrustedAnswerError
from kmstool.outside import outside_data_key
from kmstool.roots import amazon_roots_pem

HOWTO = Path(__file__).resolve().parents[2] / "docs" / "howto" / "seal-a-file.md"
CONTENT = b"attack at dawn"
AUTHORITY = HostileAuthority()


def policy(*, outsiders: bool) -> str:
    use = {"StringEqualsIgnoreCase": {"kms:RecipientAttestation:PCR0": label_pcrs()[0].hex()}}
    statements: list[dict[str, Any]] = [
        {"Action": "kms:Decrypt", "Condition": use},
        {"Action": ["kms:DescribeKey", "kms:ScheduleKeyDeletion", "kms:PutKeyPolicy"]},
        *([{"Action": "kms:GenerateDataKey"}] if outsiders else []),
    ]
    filled = [
        {"Effect": "Allow", "Principal": {"AWS": "*"}, "Resource": "*", **one} for one in statements
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": filled})


@dataclass(frozen=True)
class World:
    emulator: RunningEmulator
    folder: Path
    arn: str  # of a key that anybody of the account may make data keys with
    locked: str

    def outside(self, *arguments: str, **changes: str) -> Finished:
        """A machine with what an SDK needs, and nothing of an enclave."""
        return run_kmstool(*arguments, directory=self.folder, env=self.sdk | changes)

    @property
    def sdk(self) -> dict[str, str]:
        given = self.emulator.environment()
        aws = {name: value for name, value in given.items() if name.startswith("AWS_")}
        return aws | {"AWS_EC2_METADATA_DISABLED": "true"}

    def inside(self, *arguments: str) -> Finished:
        return run_kmstool(*arguments, directory=self.folder, env=self.emulator.kmstool_environ())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("outside")
    Path(folder, "state").write_bytes(CONTENT)
    Path(folder, "amazon.pem").write_text(amazon_roots_pem())
    with running_emulator() as emulator:
        kms = emulator.admin_client()
        arns = []
        for outsiders in (True, False):
            made = kms.create_key(
                Policy=policy(outsiders=outsiders),
                BypassPolicyLockoutSafetyCheck=True,
            )
            arns.append(made["KeyMetadata"]["Arn"])
        yield World(emulator, folder, *arns)


def snippet(language: str) -> str:
    """The block of the how-to that seals outside."""
    section = HOWTO.read_text().partition("### Outside, with credentials")[2]
    found = re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert found
    return found[1]


@pytest.mark.parametrize("language", ["sh", "python"])
def test_the_how_to_s_lines_seal_and_the_image_opens(world: World, language: str) -> None:
    target = Path(world.folder, "state.sealed")
    target.unlink(missing_ok=True)
    if language == "sh":
        words = snippet("sh").replace('"$SYMMETRIC_ARN"', world.arn).split()
        assert words[0] == "kmstool"
        done = world.outside(*words[1:])
        assert (done.code, done.stdout) == (0, b""), done.stderr
        assert "warning[unattested-data-key]" in done.stderr
    else:
        program = f"arn = {world.arn!r}\n{snippet('python')}"
        subprocess.run(
            [*command()[:1], "-c", program], cwd=world.folder, env=environment(world.sdk),
            check=True, timeout=60,
        )  # fmt: skip
    done = world.inside("open", "--key-id", world.arn, "state.sealed")
    assert (done.code, done.stdout) == (0, CONTENT), done.stderr
    shown = world.inside("inspect", "--json", "--input", "raw", "state.sealed")
    assert shown.json["recipients"][0]["encryption_context"] == {"app": "web"}


Seal = Callable[..., Finished]


@pytest.fixture
def seal(
    world: World, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> Seal:
    """Runs the command in this process."""
    run = InProcess(capfdbinary, monkeypatch, world.folder)

    def call(*options: str, arn: str | None = None, **changes: str) -> Finished:
        arguments = ("--data-key", "--outside", "--key-id", arn or world.arn, *options)
        return run("seal", *arguments, "state", env=world.sdk | changes)

    return call


def test_strict_refuses_before_kms_is_asked(world: World, seal: Seal) -> None:
    before = len(world.emulator.log)
    done = seal("--strict")
    assert done.code == 9, done.stderr
    assert "[unattested-data-key]" in done.error
    assert len(world.emulator.log) == before
    assert seal("--strict", "--allow-caveat", "unattested-data-key").code == 0


def test_a_key_that_is_locked_to_an_image(world: World, seal: Seal) -> None:
    done = seal(arn=world.locked)
    assert done.code == 7, done.stderr
    assert "KMS refused GenerateDataKey: AccessDeniedException" in done.error
    assert "without a condition on kms:RecipientAttestation" in done.hint


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"AWS_ACCESS_KEY_ID": ""}, 5, "botocore finds no credentials"),
        ({"AWS_PROFILE": "nobody"}, 2, "The config profile (nobody) could not be found"),
        ({"AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY}, 7, "InvalidSignatureException"),
        ({"AWS_SESSION_TOKEN": SESSION_TOKEN}, 7, "KMS refused GenerateDataKey"),
        ({"AWS_ENDPOINT_URL_KMS": "https://127.0.0.1:1"}, 6, "KMS could not be asked"),
        ({"AWS_ENDPOINT_URL_KMS": "http://127.0.0.1:1"}, 2, "is not an https URL"),
        ({"AWS_ENDPOINT_URL_KMS": "nonsense"}, 2, "Invalid endpoint: nonsense"),
        ({"AWS_CA_BUNDLE": "amazon.pem"}, 6, "KMS could not be asked (SSLError)"),
        ({"AWS_CA_BUNDLE": "/nonexistent"}, 6, "KMS could not be asked"),
    ],
)
def test_what_an_sdk_lacks(seal: Seal, changes: dict[str, str], code: int, message: str) -> None:
    done = seal(**changes)
    assert done.code == code, done.stderr
    assert message in done.error


@pytest.mark.parametrize(
    "options",
    [
        ("--via", "direct"),
        ("--via", "relay"),
        ("--region", "eu-west-1"),
        ("--credentials", "env"),
        ("--host", "kms.eu-west-1.amazonaws.com"),
        ("--fips",),
        ("--roots", "ca.pem"),
        ("--nonce", "hex:" + "00" * 16),
        ("--user-data", "utf8:x"),
    ],
)
def test_what_is_for_an_enclave_means_nothing(seal: Seal, options: tuple[str, ...]) -> None:
    done = seal(*options)
    assert done.code == 2, done.stderr
    assert done.error == f"{options[0]} means nothing with --outside"


def test_without_botocore(world: World) -> None:
    arguments = ("seal", "--data-key", "--outside", "--key-id", world.arn, "state")
    done = subprocess.run(
        command(*arguments, before="import sys; sys.modules['botocore'] = None"),
        capture_output=True, text=True, cwd=world.folder, env=environment(world.sdk), check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "this needs botocore" in done.stderr


class Client:
    """Answers as KMS never would."""

    def __init__(self, **changes: Any) -> None:
        self.meta = type("Meta", (), {"endpoint_url": "https://kms.example"})
        self._changes = changes

    def generate_data_key(self, **request: Any) -> dict[str, Any]:
        assert request["KeySpec"] == "AES_256"
        answer = {"KeyId": request["KeyId"], "Plaintext": bytes(32), "CiphertextBlob": b"blob"}
        return answer | self._changes


ARN = parse_key_arn("arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab")


@pytest.mark.parametrize(
    "changes",
    [
        {"KeyId": str(ARN)[:-1] + "c"},
        {"Plaintext": bytes(16)},
        {"Plaintext": b""},
        {"Plaintext": None},
        {"CiphertextBlob": b""},
        {"CiphertextBlob": bytes(6145)},
        {"CiphertextBlob": None},
    ],
)
def test_an_answer_that_is_not_used(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    client = Client()
    monkeypatch.setattr("botocore.session.Session.create_client", lambda *_, **__: client)
    assert outside_data_key(ARN).caveats == (UNATTESTED_DATA_KEY,)
    client = Client(**changes)
    with pytest.raises(UntrustedAnswerError):
        outside_data_key(ARN)


def test_the_timeout_is_that_of_connecting_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def create(*_: object, config: Any, **__: object) -> Client:
        seen.append(config)
        return Client()

    monkeypatch.setattr("botocore.session.Session.create_client", create)
    outside_data_key(ARN, timeout=2)
    outside_data_key(ARN, timeout=30)
    assert [(one.connect_timeout, one.read_timeout) for one in seen] == [(2, 2), (5, 30)]


def test_what_kms_says_of_a_wrong_signature_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """AWS explains it with the canonical request, in which the session token stands."""
    client = Client()

    def refuse(**_request: Any) -> None:
        said: Any = {
            "Code": "SignatureDoesNotMatch",
            "Message": f"x-amz-security-token:{SESSION_TOKEN}",
        }
        raise ClientError({"Error": said}, "GenerateDataKey")

    client.generate_data_key = refuse  # type: ignore[assignment, method-assign]
    monkeypatch.setattr("botocore.session.Session.create_client", lambda *_, **__: client)
    with pytest.raises(KmsError) as caught:
        outside_data_key(ARN)
    assert caught.value.code == "SignatureDoesNotMatch"
    assert SESSION_TOKEN not in repr(vars(caught.value)) + str(caught.value)


@pytest.fixture
def sdk(world: World, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """This process is the machine with what an SDK needs."""
    for name, value in world.sdk.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_botocore_s_logs_hold_no_data_key(
    world: World, sdk: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At DEBUG botocore logs the whole answer, and the headers with the session token."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "botocore")  # whatever ran before in this process
    sdk.setenv("AWS_SESSION_TOKEN", SESSION_TOKEN)
    with contextlib.suppress(KmsError):
        outside_data_key(parse_key_arn(world.arn))
    sdk.setenv("AWS_SESSION_TOKEN", "")
    data_key = outside_data_key(parse_key_arn(world.arn)).data_key
    logging.getLogger("botocore.parsers").debug("of the program's own")
    assert data_key
    assert base64.b64encode(data_key).decode() not in caplog.text
    assert SESSION_TOKEN not in caplog.text
    assert "of the program's own" in caplog.text


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize(
    "body", [b"[]", b"null", b"\xff", b'{"Plaintext": "A"}', b'{"__type": 5}', b"[" * 100_000]
)
def test_an_answer_that_botocore_trips_over(
    sdk: pytest.MonkeyPatch, tmp_path: Path, body: bytes, status: int
) -> None:
    (tmp_path / "ca.pem").write_text(AUTHORITY.pem)
    sdk.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    answer = HttpAnswer(status, {}, body, keep_alive=False)
    with HostileServer(AUTHORITY.context(), lambda _headers, _body: http_bytes(answer)) as server:
        sdk.setenv("AWS_ENDPOINT_URL_KMS", server.address.replace("tcp:", "https:"))
        with pytest.raises((UntrustedAnswerError, KmsError)) as caught:
            outside_data_key(ARN)
    assert caught.value.__context__ is None  # botocore's exception quotes the answer
