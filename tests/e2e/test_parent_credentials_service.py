"""`kmstool parent credentials` as a service: garbage, slow and many peers, signals, its memory."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.credential_sources import CredentialsProcess, credentials_process

from kmstool.framing import build_frame

SECRET = "l0ng/t3rm+s3cret-Qw81"
TOKEN = "env/t0k3n+Zp55"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "ASIAENVIRONMENT00000",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_SESSION_TOKEN": TOKEN,
}


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "BadRequest"),
        (build_frame({"Version": 2, "Request": "Credentials"}), "BadRequest"),
        (build_frame({"Version": 1, "Request": "Kms"}), "BadRequest"),
        (build_frame({"Version": 1, "Request": "Credentials", "More": 1}), "BadRequest"),
        (b"\0\0\0\2{]", "BadRequest"),
    ],
)
def test_garbage(shared_service: CredentialsProcess, data: bytes, code: str) -> None:
    answer = shared_service.send(data)
    assert answer["Error"]["Code"] == code
    assert TOKEN not in json.dumps(answer)
    assert shared_service.ask()["SessionToken"] == TOKEN


@pytest.fixture(scope="module")
def shared_service() -> Iterator[CredentialsProcess]:
    with credentials_process(ENVIRONMENT) as parent:
        yield parent
    for secret in (SECRET, TOKEN):
        assert secret not in parent.output


def test_many_at_once_beside_slow_ones(shared_service: CredentialsProcess) -> None:
    slow = [socket.socket(socket.AF_UNIX) for _ in range(20)]
    answers: list[dict[str, Any]] = []
    try:
        for sock in slow:
            sock.connect(shared_service.path)
            sock.sendall(b"\0\0\0")
        threads = [
            threading.Thread(target=lambda: answers.append(shared_service.ask())) for _ in range(30)
        ]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - started < 5
    finally:
        for sock in slow:
            sock.close()
    assert [answer["SessionToken"] for answer in answers] == [TOKEN] * 30


def test_a_request_does_not_wait_for_a_source_that_hangs(tmp_path: Path) -> None:
    """The service listens all the same, and says what it waits for."""
    (tmp_path / "config").write_text("[profile work]\ncredential_process = sleep 30\n")
    environ = {"AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_PROFILE": "work"}
    before = (
        "from kmstool.parent.keeping import Keeper; Keeper.start.__defaults__ = (0.5,);"
        " Keeper.current.__defaults__ = (0.5,)"
    )
    with credentials_process(environ, before=before) as parent:
        assert parent.ask()["Error"] == {
            "Code": "NotAvailable",
            "Message": "their source has not answered yet",
        }
        started = time.monotonic()
        assert parent.end() == 128 + signal.SIGTERM
        assert time.monotonic() - started < 5


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it(number: int, code: int) -> None:
    with credentials_process(ENVIRONMENT) as parent:
        assert parent.end(number) == code
        assert not Path(parent.path).exists()
    assert f"ending on {signal.Signals(number).name}" in parent.output


def test_its_memory_cannot_be_read_by_the_same_user() -> None:
    with credentials_process(ENVIRONMENT) as parent:
        folder = Path("/proc") / str(parent.process.pid)
        # PR_SET_DUMPABLE 0 gives the files of the process to root.
        assert (folder / "environ").stat().st_uid == 0
        limits = (folder / "limits").read_text() if os.geteuid() == 0 else ""
        assert not limits or "Max core file size        0                    0" in limits
