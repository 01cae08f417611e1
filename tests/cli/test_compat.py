"""The drop-in: the C tool's options, stdout and exit codes."""

import base64
from pathlib import Path
from typing import Any

import pytest
from support.bent_kms import KEY_ARN
from support.ground import CIPHERTEXT, Ground
from support.processes import (
    PLAINTEXT,
    SECRET_ACCESS_KEY,
    SESSION_TOKEN,
    Finished,
    InProcess,
    run_kmstool,
)

CREDENTIALS = (
    *("--aws-access-key-id", "AKIDEXAMPLE", "--aws-secret-access-key", SECRET_ACCESS_KEY),
    *("--aws-session-token", SESSION_TOKEN),
)
BLOB = CIPHERTEXT.decode()
PRINTED = b"PLAINTEXT: " + base64.b64encode(PLAINTEXT.encode()) + b"\n"
REGION = ("--region", "eu-west-1")


@pytest.fixture
def run(ground: Ground, in_process: InProcess, quick_key: None, one_attempt: None) -> Any:
    def call(*arguments: str) -> Finished:
        return in_process.compat(*arguments, env=ground.env)

    return call


def test_the_c_tool_s_own_example(run: Any, ground: Ground) -> None:
    done = run("decrypt", *REGION, "--proxy-port", "8000", *CREDENTIALS, "--ciphertext", BLOB)
    assert (done.code, done.stdout) == (0, PRINTED), done.stderr
    assert "warning[credentials-on-command-line]" in done.stderr
    assert "warning[unpinned-key]" in done.stderr
    assert ground.kms.headers[0]["X-Amz-Target"] == "TrentService.Decrypt"


def test_short_options_and_their_values_together(run: Any) -> None:
    done = run(
        *("decrypt", "-reu-west-1", "-x", "8000", "-k", "AKIDEXAMPLE", "-s", SECRET_ACCESS_KEY),
        *("-t", SESSION_TOKEN, "-c", BLOB, "-K", KEY_ARN, "-a", "SYMMETRIC_DEFAULT"),
    )
    assert (done.code, done.stdout) == (0, PRINTED), done.stderr
    assert "unpinned-key" not in done.stderr


def test_the_session_token_may_be_absent(run: Any) -> None:
    done = run("decrypt", *REGION, *CREDENTIALS[:4], "-c", BLOB)
    assert done.code == 0, done.stderr


def test_the_region_comes_from_an_arn(run: Any) -> None:
    assert run("decrypt", *CREDENTIALS, "-c", BLOB, "-K", KEY_ARN).code == 0


def test_without_one_it_is_us_east_1(run: Any) -> None:
    done = run("decrypt", *CREDENTIALS, "-c", BLOB)
    assert done.code == 255
    assert "kms.us-east-1.amazonaws.com" in done.error


def test_credentials_may_come_from_elsewhere(run: Any) -> None:
    done = run("decrypt", *REGION, "-c", BLOB)
    assert done.code == 0, done.stderr
    assert "credentials-on-command-line" not in done.stderr


@pytest.mark.parametrize("key", ["alias/database", "1234abcd-12ab-34cd-56ef-1234567890ab"])
def test_aliases_and_ids_are_unpinned(run: Any, ground: Ground, key: str) -> None:
    done = run("decrypt", *REGION, "-c", BLOB, "--key-id", key)
    assert done.code == 0, done.stderr
    assert "warning[unpinned-key]" in done.stderr
    assert ground.kms.requests[0]["KeyId"] == key


def test_genkey(run: Any, ground: Ground) -> None:
    ground.kms.plaintext = bytes(16)
    done = run("genkey", *REGION, *CREDENTIALS, "-K", KEY_ARN, "--key-spec", "AES-128")
    plaintext = base64.b64encode(bytes(16))
    assert done.stdout == b"CIPHERTEXT: YmxvYg==\nPLAINTEXT: " + plaintext + b"\n", done.stderr
    assert ground.kms.requests[0]["KeySpec"] == "AES_128"


def test_genrandom(run: Any, ground: Ground) -> None:
    ground.kms.plaintext = b"0123456789"
    done = run("genrandom", *REGION, *CREDENTIALS, "--length", "10")
    assert (done.code, done.stdout) == (0, b"PLAINTEXT: MDEyMzQ1Njc4OQ==\n"), done.stderr
    assert "warning[kms-random]" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--help",),
        ("decrypt", "--help"),
        ("encrypt",),
        ("decrypt",),
        ("decrypt", "-c", BLOB, "--no-such"),
        ("decrypt", "-c", BLOB, "-a", "SYMMETRIC_DEFAULT"),
        ("decrypt", "-c", BLOB, "-a", "ROT13", "-K", KEY_ARN),
        ("decrypt", "-c", BLOB, "-x", "port"),
        ("decrypt", "-c", BLOB, "-k", "AKIDEXAMPLE"),
        ("decrypt", "-c", BLOB, "-t", SESSION_TOKEN),
        ("decrypt", "-c", BLOB, SECRET_ACCESS_KEY),
        ("genkey", "-K", KEY_ARN),
        ("genkey", "-K", KEY_ARN, "-p", "AES_256"),
        ("genrandom", "-l", "1025"),
        ("genrandom", "-l", "0"),
    ],
)
def test_usage_is_1_on_stderr(run: Any, ground: Ground, arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert (done.code, done.stdout) == (1, b""), done.stderr
    assert done.stderr
    assert ground.server.connections == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("decrypt", *REGION, "-c", "not base64!"),
        ("decrypt", *REGION, "-c", "é"),
        ("decrypt", *REGION, "-c", ""),
        ("decrypt", "-r", "mars-north-1", "-c", BLOB),
        ("decrypt", "-r", "us-east-1", "-c", BLOB, "-K", KEY_ARN),
        ("decrypt", *REGION, "-k", "AKID EXAMPLE", "-s", "x", "-c", BLOB),
    ],
)
def test_failures_are_255(run: Any, arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert (done.code, done.stdout) == (255, b""), done.stderr
    assert done.error


def test_refused_by_kms(run: Any, ground: Ground) -> None:
    ground.kms.script = [(400, {"__type": "AccessDeniedException", "message": "no"})]
    done = run("decrypt", *REGION, *CREDENTIALS, "-c", BLOB)
    assert done.code == 255
    assert "AccessDeniedException" in done.error


def test_the_parent_s_port(monkeypatch: pytest.MonkeyPatch, in_process: InProcess) -> None:
    seen: list[Any] = []

    def open_direct(options: Any, **_others: Any) -> None:
        seen.append(options.via)
        raise InterruptedError

    monkeypatch.setattr("kmstool.session.open_direct", open_direct)
    for arguments in ((), ("-x", "9000")):
        assert in_process.compat("decrypt", "-c", BLOB, *arguments).code == 255
    assert seen == [("direct=vsock://3:8000",), ("direct=vsock://3:9000",)]


def test_whole_process(ground: Ground) -> None:
    done = run_kmstool(
        *("decrypt", *REGION, *CREDENTIALS, "--ciphertext", BLOB),
        program="kmstool_enclave_cli",
        directory=ground.work,
        env=ground.env,
    )
    assert (done.code, done.stdout) == (0, PRINTED), done.stderr
    done = run_kmstool(program="kmstool_enclave_cli", directory=Path(ground.work))
    assert (done.code, done.stdout) == (1, b"")
