"""`kmstool emulator run`, `serve` and `enclave` as whole processes."""

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.kms_calls import locked_policy

from kmstool.emulator.pcrs import label_pcrs

KMSTOOL = str(Path(sys.executable).with_name("kmstool"))
MAKE_SECRET = """
import sys
import botocore.session
kms = botocore.session.Session().create_client("kms")
policy = open("policy.json").read()
arn = kms.create_key(Policy=policy)["KeyMetadata"]["Arn"]
open("arn", "w").write(arn)
open("secret.enc", "wb").write(kms.encrypt(KeyId=arn, Plaintext=b"opened")["CiphertextBlob"])
"""
DECRYPT = 'kmstool decrypt --key-id "$(cat arn)" --input raw secret.enc'


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a policy, a TMPDIR of its own, and kmstool on the PATH."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.json").write_text(locked_policy(label_pcrs()))
    (tmp_path / "make_secret.py").write_text(MAKE_SECRET)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    # Not under tmp_path: the path of a Unix socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="t") as short:
        monkeypatch.setenv("TMPDIR", short)
        yield tmp_path
        assert list(Path(short).iterdir()) == []  # nothing is left behind


def emulator(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [KMSTOOL, "emulator", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_the_secret_opens_for_the_right_image_alone(place: Path) -> None:
    script = (
        f"{sys.executable} make_secret.py && {DECRYPT} && echo &&"
        f" kmstool emulator enclave --debug-mode -- {DECRYPT}"
    )
    (place / "script.sh").write_text(script)
    done = emulator("run", "--log", "log", "--", "sh", "script.sh")
    assert done.stdout == "opened\n"
    assert done.returncode == 7
    assert "AccessDeniedException" in done.stderr
    assert "debug" in done.stderr
    log = (place / "log").read_text().splitlines()
    assert [line.split()[2] for line in log] == ["CreateKey", "Encrypt", "Decrypt", "Decrypt"]
    assert log[-1].split()[4] == "AccessDeniedException"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -TERM $$"], 143),
        (["sh", "-c", "kill -KILL $$"], 137),
        (["sh", "-c", "kill -PIPE $$"], 141),
        (["no-such-command-anywhere"], 127),
        (["/"], 126),
        (["printenv", "--", "KMSTOOL_EMULATOR"], 0),
    ],
)
def test_exit_codes(place: Path, command: list[str], code: int) -> None:
    done = emulator("run", "--", *command)
    assert done.returncode == code
    if code in (126, 127):
        assert "kmstool: error: cannot run" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--region", "nowhere", "--", "true"],
        ["run", "--pcr", "0=00", "--", "true"],
        ["run", "--principals", "none.toml", "--", "true"],
        ["run", "--store", "/", "--", "true"],
        ["run", "--log", "/", "--", "true"],
        ["enclave", "--", "true"],
    ],
)
def test_failures_of_the_emulator_itself_are_125(place: Path, arguments: list[str]) -> None:
    done = emulator(*arguments)
    assert done.returncode == 125
    assert done.stderr.startswith("kmstool: error: ")
    assert done.stdout == ""


def test_options_of_the_command_are_its_own(place: Path) -> None:
    done = emulator("run", "sh", "-c", "echo $0 $1", "--verbose", "--help")
    assert done.stdout == "--verbose --help\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_reach_the_command(place: Path, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    script = f"trap 'echo caught; exit 9' {name}; echo ready; while :; do sleep 0.05; done"
    process = subprocess.Popen(
        [KMSTOOL, "emulator", "run", "--", "sh", "-c", script], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == "caught\n"
    assert process.wait(20) == 9


def blocks(pid: int, number: signal.Signals) -> bool:
    """proc_pid_status(5): SigBlk is the mask of the main thread."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = next(line for line in status.splitlines() if line.startswith("SigBlk:"))
    return bool(int(mask.split()[1], 16) >> (number - 1) & 1)


def test_a_signal_before_the_command_starts_is_not_lost(place: Path) -> None:
    process = subprocess.Popen([KMSTOOL, "emulator", "run", "--", "sleep", "30"])
    while not blocks(process.pid, signal.SIGTERM):  # the first moment at which it is held
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    process = subprocess.Popen(
        [KMSTOOL, "emulator", "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    environ: dict[str, str] = {}
    try:
        while "AWS_DEFAULT_REGION" not in environ:
            line = process.stdout.readline()
            assert line.startswith("export "), process.stderr.read()
            name, _, value = line.removeprefix("export ").rstrip("\n").partition("=")
            environ[name] = value
        yield process, environ
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()
        process.stderr.close()


def test_serve(place: Path) -> None:
    with serving("--store", "store.sqlite") as (process, environ):
        around = {**os.environ, **environ}
        subprocess.run([sys.executable, "make_secret.py"], env=around, check=True)
        done = subprocess.run(
            ["sh", "-c", DECRYPT], env=around, capture_output=True, text=True, check=True
        )
        assert done.stdout == "opened"
        folder = Path(environ["KMSTOOL_EMULATOR"])
        assert folder.stat().st_mode & 0o777 == 0o700
        process.terminate()
        assert process.wait(20) == 143
        assert not folder.exists()
        assert process.stderr is not None
        log = process.stderr.read()
        assert [line.split()[2] for line in log.splitlines()] == ["CreateKey", "Encrypt", "Decrypt"]
        assert environ["AWS_SECRET_ACCESS_KEY"] not in log
        assert "opened" not in log
    with serving("--store", "store.sqlite") as (_, environ):
        around = {**os.environ, **environ}
        done = subprocess.run(
            ["sh", "-c", DECRYPT], env=around, capture_output=True, text=True, check=True
        )
        assert done.stdout == "opened"


def test_serve_where_no_directory_can_be(place: Path) -> None:
    done = emulator("serve", "--dir", "policy.json")
    assert done.returncode == 11
    assert done.stderr == (
        "kmstool: error: policy.json is not a directory\nkmstool: hint: --dir names one\n"
    )


def test_serve_in_a_directory_and_at_a_port(place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with serving("--dir", "here", "--port", str(port)) as (process, environ):
        assert environ["KMSTOOL_EMULATOR"] == str(place / "here")
        assert environ["AWS_ENDPOINT_URL_KMS"] == f"https://localhost:{port}"
        assert environ["AWS_ENDPOINT_URL_STS"] == f"https://localhost:{port}"
        trust = ssl.create_default_context(cafile=str(place / "here" / "ca.pem"))
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            trust.wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            assert tls.version() == "TLSv1.3"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    assert list((place / "here").iterdir()) == []
