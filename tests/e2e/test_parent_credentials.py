"""`kmstool parent credentials` as a process: its sources, their outages, and no secrets.

Every source is on loopback, and the process cannot connect to anything else: see the support file.
"""

import hashlib
import json
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.credential_sources import (
    DEBUG,
    ELSEWHERE,
    SSO_TOKEN,
    CredentialsProcess,
    FakeMetadata,
    credentials_process,
)
from support.processes import Finished, run_kmstool

WORKER_ARN = "arn:aws:iam::111122223333:role/worker"
SECRET = "l0ng/t3rm+s3cret-Qw81"
TOKEN = "env/t0k3n+Zp55"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "ASIAENVIRONMENT00000",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_SESSION_TOKEN": TOKEN,
}
# So that minutes become seconds.
FAST = (
    "import kmstool.limits as l; l.CREDENTIALS_LEFT_MIN = 1.0; l.CREDENTIALS_RETRY_CAP = 0.5;"
    " l.CREDENTIALS_RETRY_BASE = 0.2"
)
NO_PAUSE = "import botocore.utils as u; u.ContainerMetadataFetcher.SLEEP_TIME = 0"


@pytest.fixture
def imds() -> Iterator[FakeMetadata]:
    with FakeMetadata() as fake:
        yield fake
        assert not any(request.startswith("GET /latest/api") for request in fake.requests)


def assert_no_secret(parent: CredentialsProcess, *sources: FakeMetadata) -> None:
    for source in sources:
        for one in source.given:
            assert one.secret not in parent.output
            assert one.token not in parent.output
    for secret in (SECRET, TOKEN, "ecs-auth-t0ken", "imds-session-t0ken", SSO_TOKEN):
        assert secret not in parent.output
    assert "Traceback" not in parent.output


def test_the_instance_s_role(imds: FakeMetadata) -> None:
    with credentials_process(imds.environ(), before=DEBUG) as parent:
        given = imds.given[-1]
        assert parent.ask() == {
            "Version": 1,
            "AccessKeyId": given.access_key_id,
            "SecretAccessKey": given.secret,
            "SessionToken": given.token,
            "Expiration": given.until,
        }
        assert parent.said(f"unix: credentials handed out, valid until {given.until}")
    assert f"credentials from iam-role, valid until {given.until}" in parent.output
    assert imds.requests[0] == "PUT /latest/api/token"
    assert_no_secret(parent, imds)


def test_version_1_of_the_metadata_service_is_not_asked(imds: FakeMetadata) -> None:
    """Without a token there is nothing: whoever can make the instance send a GET gets no role."""
    imds.down = True
    with credentials_process(imds.environ()) as parent:
        assert parent.ask()["Error"]["Code"] == "NotAvailable"
    assert {request.partition(" ")[0] for request in imds.requests} == {"PUT"}


def test_the_expiry_stays_what_the_source_said(imds: FakeMetadata) -> None:
    """botocore moves it to some 20 minutes from now; an enclave would use expired credentials."""
    given = imds.give(240)
    with credentials_process(imds.environ()) as parent:
        assert parent.ask()["Expiration"] == given.until


def test_renewed_ahead_of_the_end_and_an_outage_survived(imds: FakeMetadata) -> None:
    first = imds.give(6)
    with credentials_process(imds.environ(), before=FAST) as parent:
        assert parent.ask()["AccessKeyId"] == first.access_key_id
        second = imds.give(7)
        assert parent.said(f"valid until {second.until}")
        assert datetime.now(UTC) < first.expiration - timedelta(seconds=1), "renewed late"
        assert parent.ask()["AccessKeyId"] == second.access_key_id

        imds.down = True
        parent.said("no new credentials: no source has credentials, and the instance's metadata")
        answers = []
        while "Error" not in (answer := parent.ask()):
            assert answer["AccessKeyId"] == second.access_key_id
            assert datetime.now(UTC) < second.expiration, "expired ones were handed out"
            answers.append(answer)
            time.sleep(0.2)
        assert answers
        assert answer["Error"]["Code"] == "NotAvailable"
        said = f"those at hand ended at {second.until}, and no others came: no source has"
        assert said in answer["Error"]["Message"]

        third = imds.give(3600)
        imds.down = False
        for _ in range(100):
            answer = parent.ask()
            if "Error" not in answer:
                break
        assert answer["AccessKeyId"] == third.access_key_id
        assert parent.said(f"credentials from iam-role, valid until {third.until}")
    assert_no_secret(parent, imds)


def test_expired_credentials_of_the_source_are_not_handed_out(imds: FakeMetadata) -> None:
    imds.give(-5)
    with credentials_process(imds.environ()) as parent:
        answer = parent.ask()
    assert answer["Error"] == {
        "Code": "NotAvailable",
        "Message": "the source gave credentials that have expired",
    }


def test_asked_anew_on_sighup(imds: FakeMetadata) -> None:
    with credentials_process(imds.environ()) as parent:
        second = imds.give(7200)
        parent.process.send_signal(signal.SIGHUP)
        assert parent.said(f"valid until {second.until}")
        assert parent.ask()["AccessKeyId"] == second.access_key_id


def test_a_container_s_endpoint(imds: FakeMetadata) -> None:
    given = imds.given[-1]
    with credentials_process(imds.container_environ(), before=DEBUG) as parent:
        assert parent.ask()["SecretAccessKey"] == given.secret
        assert parent.said(f"credentials from container-role, valid until {given.until}")
    assert_no_secret(parent, imds)


def test_what_a_source_says_when_it_fails_is_not_repeated(imds: FakeMetadata) -> None:
    secret = imds.given[-1].secret
    imds.body = f'{{"SecretAccessKey": "{secret}", "Token'.encode()
    with credentials_process(imds.container_environ(), before=f"{DEBUG}; {NO_PAUSE}") as parent:
        answer = parent.ask()
        assert answer["Error"]["Code"] == "NotAvailable"
        assert "CredentialRetrievalError" in answer["Error"]["Message"]
        assert secret not in json.dumps(answer)
    assert_no_secret(parent, imds)


@pytest.mark.parametrize("seconds", [None, 3600])
def test_the_environment(seconds: int | None) -> None:
    environ = dict(ENVIRONMENT)
    if seconds:
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        environ["AWS_CREDENTIAL_EXPIRATION"] = until.isoformat()
    with credentials_process(environ, before=DEBUG) as parent:
        answer = parent.ask()
        assert (answer["SecretAccessKey"], answer["SessionToken"]) == (SECRET, TOKEN)
        assert ("Expiration" in answer) is (seconds is not None)
    assert "credentials from env, valid until" in parent.output
    assert_no_secret(parent)


def profile(folder: Path, text: str) -> dict[str, str]:
    (folder / "credentials").write_text(text)
    return {
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "credentials"),
        "AWS_CONFIG_FILE": str(folder / "config"),
        "AWS_PROFILE": "work",
    }


def test_a_profile_whose_file_is_rotated(tmp_path: Path) -> None:
    text = "[work]\naws_access_key_id=ASIA{0}\naws_secret_access_key=s{0}\naws_session_token=t{0}\n"
    environ = profile(tmp_path, text.format("FIRST00000000"))
    fast = f"{FAST}; l.CREDENTIALS_REREAD_SECONDS = 0.3"
    with credentials_process(environ, before=fast) as parent:
        assert parent.ask()["AccessKeyId"] == "ASIAFIRST00000000"
        profile(tmp_path, text.format("OTHER00000000"))
        for _ in range(100):
            answer = parent.ask()
            if answer["AccessKeyId"] != "ASIAFIRST00000000":
                break
            time.sleep(0.05)
        assert answer["AccessKeyId"] == "ASIAOTHER00000000"
    assert "sFIRST" not in parent.output


def test_a_profile_with_a_process(imds: FakeMetadata, tmp_path: Path) -> None:
    given = imds.given[-1]
    (tmp_path / "given").write_text(
        json.dumps(
            {
                "Version": 1,
                "AccessKeyId": given.access_key_id,
                "SecretAccessKey": given.secret,
                "SessionToken": given.token,
                "Expiration": given.until,
            }
        )
    )
    environ = profile(tmp_path, "")
    (tmp_path / "config").write_text(f"[profile work]\ncredential_process = cat {tmp_path}/given\n")
    with credentials_process(environ, before=DEBUG) as parent:
        assert parent.ask()["SessionToken"] == given.token
        assert parent.said(f"credentials from custom-process, valid until {given.until}")
    assert_no_secret(parent, imds)


def test_a_profile_with_sso(imds: FakeMetadata, tmp_path: Path) -> None:
    start = "https://sso.example/start"
    cache = tmp_path / ".aws" / "sso" / "cache"
    cache.mkdir(parents=True)
    token = cache / f"{hashlib.sha1(start.encode()).hexdigest()}.json"
    (tmp_path / "config").write_text(
        f"[profile work]\nsso_start_url={start}\nsso_region=eu-west-1\n"
        "sso_account_id=111122223333\nsso_role_name=worker\n"
    )
    environ = {
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_PROFILE": "work",
        "AWS_ENDPOINT_URL_SSO": imds.url,
        "HOME": str(tmp_path),
    }
    with credentials_process(environ, before=DEBUG) as parent:
        error = parent.ask()["Error"]
        assert "botocore could not get credentials (SSOTokenLoadError)" in error["Message"]
        assert parent.said("(hint: run `aws sso login` on this machine)")
        # What `aws sso login` leaves behind.
        token.write_text(
            json.dumps({"accessToken": SSO_TOKEN, "expiresAt": "2100-01-01T00:00:00Z"})
        )
        parent.process.send_signal(signal.SIGHUP)
        assert parent.said(f"credentials from sso, valid until {imds.given[-1].until}")
        assert parent.ask()["SecretAccessKey"] == imds.given[-1].secret
    assert_no_secret(parent, imds)


def test_another_source_does_not_take_its_place(imds: FakeMetadata, tmp_path: Path) -> None:
    """A file that is being rewritten must not turn into the instance's own role."""
    keys = "aws_access_key_id=ASIAFIRST00000000\naws_secret_access_key=s\naws_session_token=t\n"
    environ = profile(tmp_path, f"[default]\n{keys}") | imds.environ()
    del environ["AWS_PROFILE"]
    fast = f"{FAST}; l.CREDENTIALS_REREAD_SECONDS = 0.2"
    with credentials_process(environ, before=fast) as parent:
        (tmp_path / "credentials").write_text("")
        parent.said("finds credentials of iam-role in the place of shared-credentials-file")
        assert parent.ask()["AccessKeyId"] == "ASIAFIRST00000000"


@pytest.mark.parametrize("source", ["environment", "profile"])
def test_long_term_keys_are_refused(source: str, tmp_path: Path) -> None:
    environ = {name: value for name, value in ENVIRONMENT.items() if "TOKEN" not in name}
    if source == "profile":
        environ = profile(
            tmp_path, f"[work]\naws_access_key_id=AKIA0000000000\naws_secret_access_key={SECRET}\n"
        )
    done = start_only(environ, tmp_path)
    assert (done.code, done.stdout) == (5, b"")
    assert "long-term keys, which are not handed out" in done.error
    assert "--assume-role" in done.hint
    assert SECRET not in done.stderr


def start_only(environ: dict[str, str], directory: Path, *options: str) -> Finished:
    closed = {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(directory)}
    return run_kmstool(
        "parent", "credentials", "--listen", "unix:x", *options,
        directory=directory, env=closed | environ,
    )  # fmt: skip


ROLE = ["--assume-role", WORKER_ARN]
KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--only-kms", KEY], 2, "no role whose rights could be lessened"),
        (["--session-policy", "policy"], 2, "no role whose rights could be lessened"),
        ([*ROLE, "--only-kms", "alias/x"], 2, "alias"),
        ([*ROLE, "--only-kms", KEY, "--session-policy", "policy"], 2, "exclude each other"),
        ([*ROLE, "--session-policy", "key-policy"], 2, "names a Principal"),
        ([*ROLE, "--session-policy", "nothing"], 11, "could not be read"),
        ([*ROLE, "--session-policy", "not-json"], 2, "is not JSON"),
        ([*ROLE, "--duration", "60"], 2, "900<=x<=43200"),
        ([*ROLE, "--role-session-name", "a b"], 2, "is not the name of a session"),
        (["--assume-role", "worker"], 2, "is not the ARN of a role"),
        (["--allow-cid", "16"], 2, "no CIDs"),
    ],
)
def test_settings_that_do_not_fit(tmp_path: Path, options: list[str], code: int, said: str) -> None:
    statement = {"Effect": "Allow", "Action": "kms:*", "Resource": "*"}
    for name, one in (("policy", statement), ("key-policy", {**statement, "Principal": "*"})):
        (tmp_path / name).write_text(json.dumps({"Version": "2012-10-17", "Statement": one}))
    (tmp_path / "not-json").write_text("{")
    done = start_only(ENVIRONMENT, tmp_path, *options)
    assert (said in done.error, done.code) == (True, code), done.stderr


def test_the_guard_of_these_tests_holds() -> None:
    elsewhere = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://192.0.2.1"}
    with pytest.raises(AssertionError, match=ELSEWHERE), credentials_process(elsewhere):
        pass
