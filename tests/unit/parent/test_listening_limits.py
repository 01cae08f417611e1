"""The service's limits on what one enclave takes of it, and on what the machine gives it."""

import contextlib
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from kmstool import limits
from kmstool.endpoint import UnixAddress, parse_address
from kmstool.framing import build_frame, read_frame
from kmstool.parent import listening
from kmstool.parent.listening import Service, listen


def echo(message: dict[str, object]) -> tuple[bytes, str]:
    return build_frame({"echo": message}), "echoed"


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s") / "service.sock"


def connected(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.connect(str(path))
    return sock


class VsockListener:
    """A Unix listener whose peers come with the addresses of vsock peers, one CID after another."""

    def __init__(self, real: socket.socket, cids: list[int]) -> None:
        self._real, self._cids = real, cids

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def accept(self) -> tuple[socket.socket, tuple[int, int]]:
        connection, _ = self._real.accept()
        return connection, (self._cids.pop(0), 1024)


def test_one_enclave_does_not_keep_the_others_out(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = listen(UnixAddress(str(path)))
    listener = VsockListener(real, [16, 16, 16, 17])
    monkeypatch.setattr(limits, "PARENT_CONNECTIONS_PER_CID_MAX", 2)
    monkeypatch.setattr(listening, "listen", lambda _address: listener)
    address = parse_address("vsock://:8001", listening=True)
    with Service(address, echo), contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(connected(path))
        with connected(path) as third:
            answer: Any = read_frame(third.recv)
        assert answer["Error"] == {
            "Code": "NotAvailable",
            "Message": "too many connections of this CID at once",
        }
        with connected(path) as other:
            other.sendall(build_frame({"n": 1}))
            assert read_frame(other.recv) == {"echo": {"n": 1}}


def test_running_out_of_threads_ends_no_service(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(threading.Thread):
        failures = 1

        def start(self) -> None:
            if Failing.failures and self.name == "unix":
                Failing.failures -= 1
                raise RuntimeError("can't start new thread")
            super().start()

    monkeypatch.setattr(threading, "Thread", Failing)
    lines: list[str] = []
    with Service(UnixAddress(str(path)), echo, report=lines.append):
        with connected(path) as sock:
            answer: Any = read_frame(sock.recv)
        assert answer["Error"] == {
            "Code": "NotAvailable",
            "Message": "the parent has no thread left",
        }
        with connected(path) as sock:
            sock.sendall(build_frame({"n": 1}))
            assert read_frame(sock.recv) == {"echo": {"n": 1}}
        end = time.monotonic() + 5
        while len(lines) < 2:
            assert time.monotonic() < end
            time.sleep(0.01)
    assert lines == ["unix: refused: the parent has no thread left", "unix: echoed"]
