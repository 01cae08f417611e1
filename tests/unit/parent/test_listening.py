"""The service: bounded in number, size and time; one peer delays no other; it ends cleanly."""

import contextlib
import errno
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from kmstool import limits
from kmstool.endpoint import TcpAddress, UnixAddress, VsockAddress, parse_address
from kmstool.errors import InputError, SettingError, TransportError
from kmstool.framing import build_frame, read_frame
from kmstool.parent import listening
from kmstool.parent.listening import Handler, Service, listen


def echo(message: dict[str, object]) -> tuple[bytes, str]:
    return build_frame({"echo": message}), "echoed"


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s") / "service.sock"


class Running:
    def __init__(self, path: Path, handler: Handler = echo, **options: Any) -> None:
        self.lines: list[str] = []
        self.path = path
        self.service = Service(UnixAddress(str(path)), handler, report=self.lines.append, **options)

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(20)
        sock.connect(str(self.path))
        return sock

    def ask(self, data: bytes) -> Any:
        with self.connect() as sock:
            with contextlib.suppress(BrokenPipeError):  # it may have been answered by now
                sock.sendall(data)
            return read_frame(sock.recv)

    def wait_for(self, count: int) -> list[str]:
        self.wait_until(lambda: len(self.lines) >= count)
        return self.lines

    def wait_until(self, happened: Callable[[], bool]) -> None:
        end = time.monotonic() + 30
        while not happened():
            assert time.monotonic() < end, self.lines
            time.sleep(0.01)

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_arguments: object) -> None:
        self.service.close(grace=1.0)


def test_a_frame_is_answered_and_reported(path: Path) -> None:
    with Running(path) as running:
        assert running.ask(build_frame({"n": 1})) == {"echo": {"n": 1}}
        assert running.wait_for(1) == ["unix: echoed"]


def test_one_request_a_connection(path: Path) -> None:
    with Running(path) as running, running.connect() as sock:
        sock.sendall(build_frame({"n": 1}) + build_frame({"n": 2}))
        assert read_frame(sock.recv) == {"echo": {"n": 1}}
        started = time.monotonic()
        assert sock.recv(1) == b""
        assert time.monotonic() - started < limits.PARENT_LINGER_SECONDS / 2, "the end came late"


def test_many_ask_at_once_and_a_silent_one_delays_nobody(path: Path) -> None:
    with Running(path) as running, running.connect(), running.connect() as half:
        half.sendall(b"\0\0\0\7{")
        threads = [
            threading.Thread(target=running.ask, args=(build_frame({"n": number}),))
            for number in range(20)
        ]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - started < limits.PARENT_REQUEST_SECONDS / 2
        assert running.wait_for(20).count("unix: echoed") == 20


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "announces 1195725856 bytes"),
        (b"\0\0\0\0", "announces 0 bytes"),
        (b"\0\1\0\1", "announces 65537 bytes"),
        (b"\0\0\0\2[]", "not a JSON object"),
        (b"\0\0\0\2{}" + bytes(100_000), "echo"),
    ],
)
def test_what_is_no_frame_is_answered(path: Path, data: bytes, said: str) -> None:
    with Running(path) as running:
        assert said in json.dumps(running.ask(data))
        running.wait_for(1)


def test_a_peer_that_goes_before_it_asks(path: Path) -> None:
    with Running(path) as running:
        running.connect().close()
        assert "refused: the stream ended" in running.wait_for(1)[0]


def test_a_drip_gets_no_more_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PARENT_REQUEST_SECONDS", 0.4)
    with Running(path) as running, running.connect() as sock:
        started = time.monotonic()
        answer: Any = None
        sock.settimeout(0.05)
        for byte in b"\0\0\1\0" + b" " * 200:
            sock.sendall(bytes([byte]))
            try:
                answer = sock.recv(4096)
            except TimeoutError:
                continue
            break
        assert answer is not None
        assert b"no request came in 0.4 seconds" in answer
        assert 0.3 < time.monotonic() - started < 3


def test_more_connections_than_allowed_are_told_so_at_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PARENT_CONNECTIONS_MAX", 2)
    with Running(path) as running, running.connect(), running.connect():
        answer = running.ask(b"")
        assert answer["Error"] == {
            "Code": "NotAvailable",
            "Message": "too many connections at once",
        }
        assert running.wait_for(1)[0] == "unix: refused: too many connections at once"
    with Running(path) as running:
        assert running.ask(build_frame({})) == {"echo": {}}


def test_a_place_is_free_again_when_a_connection_ended(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PARENT_CONNECTIONS_MAX", 1)
    with Running(path) as running:
        for number in range(5):
            assert running.ask(build_frame({"n": number})) == {"echo": {"n": number}}
            running.wait_until(lambda: not running.service._connections)


def test_what_a_handler_raises_ends_no_service(path: Path) -> None:
    def handler(message: dict[str, object]) -> tuple[bytes, str]:
        if "input" in message:
            raise InputError("this is wrong")
        raise ValueError("with a secret in it")

    with Running(path, handler) as running:
        assert running.ask(build_frame({"input": 1}))["Error"] == {
            "Code": "BadRequest",
            "Message": "this is wrong",
        }
        error = running.ask(build_frame({}))["Error"]
        assert error == {"Code": "InternalError", "Message": "see the parent's output"}
        lines = running.wait_for(2)
    # Each from its own thread, so in any order.
    assert sorted(lines) == ["unix: failed: ValueError", "unix: refused: this is wrong"]


def test_a_peer_that_does_not_take_its_answer_is_let_go(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PARENT_ANSWER_SECONDS", 0.2)

    def large(_message: dict[str, object]) -> tuple[bytes, str]:
        return bytes(10_000_000), "large"

    with Running(path, large) as running, running.connect() as sock:
        sock.sendall(build_frame({}))
        assert running.wait_for(1)[0].startswith("unix: large")


def test_closing_waits_for_what_is_under_way_and_not_for_the_silent(path: Path) -> None:
    entered, release = threading.Event(), threading.Event()

    def slow(_message: dict[str, object]) -> tuple[bytes, str]:
        entered.set()
        release.wait(20)
        return build_frame({"done": True}), "slow"

    running = Running(path, slow)
    with running.connect() as busy, running.connect():
        busy.sendall(build_frame({}))
        assert entered.wait(20)
        closing = threading.Thread(target=running.service.close, args=(20.0,))
        started = time.monotonic()
        closing.start()
        time.sleep(0.1)
        assert closing.is_alive()
        release.set()
        assert read_frame(busy.recv) == {"done": True}
        closing.join()
        assert time.monotonic() - started < limits.PARENT_REQUEST_SECONDS / 2
    assert not path.exists()


def test_closing_does_not_wait_for_ever(path: Path) -> None:
    release = threading.Event()

    def stuck(_message: dict[str, object]) -> tuple[bytes, str]:
        release.wait(20)
        return build_frame({}), "stuck"

    running = Running(path, stuck)
    with running.connect() as first, running.connect() as second:
        first.sendall(build_frame({}))
        second.sendall(build_frame({}))
        time.sleep(0.1)
        started = time.monotonic()
        running.service.close(grace=0.3)
        assert first.recv(1) == second.recv(1) == b""
        assert time.monotonic() - started < 3
    release.set()


# --- Addresses ------------------------------------------------------------------------------------


def test_a_unix_socket_is_for_its_user_alone(path: Path) -> None:
    with listen(UnixAddress(str(path))):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_socket_that_nobody_serves_is_replaced_and_another_file_is_not(path: Path) -> None:
    with listen(UnixAddress(str(path))), pytest.raises(TransportError, match="in use"):
        listen(UnixAddress(str(path)))
    assert path.exists()
    with listen(UnixAddress(str(path))):
        pass
    path.unlink()
    path.write_text("precious")
    with pytest.raises(TransportError, match="cannot listen"):
        listen(UnixAddress(str(path)))
    assert path.read_text() == "precious"


def test_the_end_of_a_service_leaves_the_socket_of_another_alone(path: Path) -> None:
    """Such as the one that was started in its place, or one that a reload gave the address to."""
    with contextlib.ExitStack() as stack:
        with Running(path):
            path.unlink()
            stack.enter_context(listen(UnixAddress(str(path))))
            there = path.stat().st_ino
        assert path.stat().st_ino == there


def test_a_folder_that_is_missing_is_named(path: Path) -> None:
    with pytest.raises(TransportError, match="No such file") as caught:
        listen(UnixAddress(str(path / "not" / "here")))
    assert caught.value.hint == "make the folder that the socket is to be in"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_tcp(host: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            pytest.skip(f"this machine has no {host}")
        port = probe.getsockname()[1]
    lines: list[str] = []
    with (
        Service(TcpAddress(host, port), echo, report=lines.append),
        socket.create_connection((host, port), timeout=20) as sock,
    ):
        sock.sendall(build_frame({}))
        assert read_frame(sock.recv) == {"echo": {}}
    assert lines[0].startswith(f"tcp {host} ")


def test_a_peer_that_still_writes_gets_its_answer() -> None:
    """Over TCP, closing with unread bytes resets the connection, and the answer is lost."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (
        Service(TcpAddress("127.0.0.1", port), echo),
        socket.create_connection(("127.0.0.1", port), timeout=20) as sock,
    ):
        sock.sendall(b"\0\0\0\0" + bytes(200_000))
        time.sleep(0.2)
        answer: Any = read_frame(sock.recv)
    assert answer["Error"]["Code"] == "BadRequest"


def test_cids_are_for_vsock(path: Path) -> None:
    with pytest.raises(SettingError, match="has no CIDs"):
        Service(UnixAddress(str(path)), echo, allowed_cids=[3])
    assert not path.exists()


class VsockListener:
    """A Unix listener whose peers come with the address that a vsock peer has."""

    def __init__(self, real: socket.socket, cid: int) -> None:
        self._real, self._cid = real, cid

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def accept(self) -> tuple[socket.socket, tuple[int, int]]:
        connection, _ = self._real.accept()
        return connection, (self._cid, 1024)


@pytest.mark.parametrize(
    ("allowed", "answer", "line"),
    [
        ([], {"echo": {}}, "vsock CID 16: echoed"),
        ([16, 17], {"echo": {}}, "vsock CID 16: echoed"),
        (
            [17],
            {"Error": {"Code": "Refused", "Message": "this CID may not ask"}},
            "vsock CID 16: refused: this CID may not ask",
        ),
    ],
)
def test_which_cids_may_ask(
    path: Path, monkeypatch: pytest.MonkeyPatch, allowed: list[int], answer: Any, line: str
) -> None:
    real = listen(UnixAddress(str(path)))
    monkeypatch.setattr(listening, "listen", lambda _address: VsockListener(real, 16))
    lines: list[str] = []
    address = parse_address("vsock://:8001", listening=True)
    with (
        Service(address, echo, allowed_cids=allowed, report=lines.append),
        socket.socket(socket.AF_UNIX) as sock,
    ):
        sock.settimeout(20)
        sock.connect(str(path))
        with contextlib.suppress(BrokenPipeError):
            sock.sendall(build_frame({}))
        assert read_frame(sock.recv) == answer
    assert lines == [line]


@pytest.mark.parametrize(
    ("cid", "allowed", "answered"),
    [(4, [], True), (3, [], False), (2, [], False), (1, [], False), (0, [], False), (1, [1], True)],
)
def test_programs_of_the_parent_itself_have_to_be_named(
    path: Path, monkeypatch: pytest.MonkeyPatch, cid: int, allowed: list[int], answered: bool
) -> None:
    """With vsock_loopback any user of the parent could ask; no enclave has such a CID."""
    real = listen(UnixAddress(str(path)))
    monkeypatch.setattr(listening, "listen", lambda _address: VsockListener(real, cid))
    address = parse_address("vsock://:8001", listening=True)
    with (
        Service(address, echo, allowed_cids=allowed),
        socket.socket(socket.AF_UNIX) as sock,
    ):
        sock.settimeout(20)
        sock.connect(str(path))
        with contextlib.suppress(BrokenPipeError):
            sock.sendall(build_frame({}))
        answer: Any = read_frame(sock.recv)
    if answered:
        assert answer == {"echo": {}}
    else:
        assert answer["Error"] == {"Code": "Refused", "Message": "no enclave has this CID"}


def test_a_vsock_can_be_listened_on_where_there_is_one() -> None:
    port = 40_000 + os.getpid() % 10_000
    try:
        probe = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    except OSError:
        pytest.skip("this machine has no AF_VSOCK")
    probe.close()
    with listen(VsockAddress(0xFFFF_FFFF, port)) as listener:
        assert listener.getsockname() == (0xFFFF_FFFF, port)


def test_running_out_of_descriptors_ends_no_service(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = listen(UnixAddress(str(path)))
    failures = [OSError(24, "too many"), OSError(103, "gone")]

    class Failing(VsockListener):
        def accept(self) -> tuple[socket.socket, Any]:
            if failures:
                raise failures.pop(0)
            return self._real.accept()

    monkeypatch.setattr(limits, "PARENT_ACCEPT_PAUSE", 0.01)
    monkeypatch.setattr(listening, "listen", lambda _address: Failing(real, 0))
    lines: list[str] = []
    with (
        Service(UnixAddress(str(path)), echo, report=lines.append),
        socket.socket(socket.AF_UNIX) as sock,
    ):
        sock.settimeout(20)
        sock.connect(str(path))
        sock.sendall(build_frame({}))
        assert read_frame(sock.recv) == {"echo": {}}
    assert lines == ["cannot accept a connection: Too many open files", "unix: echoed"]


def test_a_kernel_without_vsock_is_said_and_not_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_arguments: object) -> NoReturn:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.setattr(socket, "socket", none)
    with pytest.raises(TransportError, match="vsock://3:1: Address family not") as error:
        listen(VsockAddress(3, 1))
    assert "load the module" in (error.value.hint or "")
