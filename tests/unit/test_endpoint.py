"""Addresses, the deadline, and connecting; a vsock is played by a socket that only fails."""

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

import pytest

from kmstool.endpoint import (
    Address,
    Deadline,
    TcpAddress,
    UnixAddress,
    VsockAddress,
    connect,
    forwarder_hint,
    parse_address,
)
from kmstool.errors import SettingError, TransportError
from kmstool.limits import DEADLINE_MAX

# --- addresses ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("vsock://3:8000", VsockAddress(3, 8000)),
        ("vsock://0:0", VsockAddress(0, 0)),
        ("vsock://4294967294:4294967294", VsockAddress(4294967294, 4294967294)),
        ("tcp://127.0.0.1:443", TcpAddress("127.0.0.1", 443)),
        ("tcp://kms.us-east-1.example:65535", TcpAddress("kms.us-east-1.example", 65535)),
        ("tcp://some_container:1", TcpAddress("some_container", 1)),
        ("tcp://[::1]:8000", TcpAddress("::1", 8000)),
        ("tcp://[fe80::1:2]:8000", TcpAddress("fe80::1:2", 8000)),
        ("unix:/run/kms.sock", UnixAddress("/run/kms.sock")),
        ("unix:relative path", UnixAddress("relative path")),
        ("unix:/" + "a" * 106, UnixAddress("/" + "a" * 106)),
    ],
)
def test_address_comes_back_as_it_was(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "starts with none of"),
        ("3:8000", "starts with none of"),
        ("http://localhost:8000", "starts with none of"),
        ("VSOCK://3:8000", "starts with none of"),
        (" tcp://localhost:1", "starts with none of"),
        ("vsock://3", "the port is missing"),
        ("vsock://:8000", "the CID is not a number"),
        ("vsock://3:", "the port is not a number"),
        ("vsock://3:8000/", "the port is not a number"),
        ("vsock://-1:8000", "the CID is not a number"),
        ("vsock://+3:8000", "the CID is not a number"),
        ("vsock://3:80_00", "the port is not a number"),
        ("vsock://0x3:8000", "the CID is not a number"),
        ("vsock://3: 8000", "the port is not a number"),
        ("vsock://3:8000\n", "the port is not a number"),
        ("vsock://٣:8000", "the CID is not a number"),
        ("vsock://4294967295:8000", "from 0 to 4294967294"),
        ("vsock://3:4294967295", "from 0 to 4294967294"),
        ("vsock://3:4294967296", "the port is not a number"),
        ("vsock://3:" + "9" * 5000, "the port is not a number"),
        ("tcp://localhost", "the port is missing"),
        ("tcp://localhost:0", "from 1 to 65535"),
        ("tcp://localhost:65536", "from 1 to 65535"),
        ("tcp://localhost:65979", "from 1 to 65535"),
        ("tcp://:443", "the host is not a name"),
        ("tcp://a b:443", "the host is not a name"),
        ("tcp://a/b:443", "the host is not a name"),
        ("tcp://user@host:443", "the host is not a name"),
        ("tcp://höst:443", "the host is not a name"),
        ("tcp://host\0:443", "the host is not a name"),
        ("tcp://...:443", "the host is not a name"),
        ("tcp://" + "a" * 254 + ":443", "the host is not a name"),
        ("tcp://::1:443", "goes in brackets"),
        ("tcp://[::1]", "no IPv6 address in its brackets, or no port"),
        ("tcp://[localhost]:443", "no IPv6 address in its brackets"),
        ("tcp://[::1:443", "no IPv6 address in its brackets"),
        ("tcp://[::1\0]:443", "no IPv6 address in its brackets"),
        ("unix:", "the path is empty"),
        ("unix:/a\0b", "has a NUL in it"),
        ("unix:/" + "a" * 107, "more than 107 bytes"),
        ("unix:/" + "é" * 54, "more than 107 bytes"),
    ],
)
def test_no_address(text: str, reason: str) -> None:
    with pytest.raises(SettingError) as caught:
        parse_address(text)
    assert reason in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400
    assert "vsock://3:8000" in (caught.value.hint or "")


# --- deadline ----------------------------------------------------------------------------------


def test_deadline_runs_down() -> None:
    deadline = Deadline(0.05)
    assert 0 < deadline.remaining() <= 0.05
    assert not deadline.expired
    time.sleep(0.06)
    assert deadline.expired
    with pytest.raises(TransportError, match=r"0\.05 seconds was used up during lunch") as caught:
        deadline.remaining("lunch")
    assert not caught.value.retryable
    assert "--timeout" in (caught.value.hint or "")


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), DEADLINE_MAX + 1])
def test_deadline_that_makes_no_sense(seconds: float) -> None:
    with pytest.raises(SettingError, match="makes no sense"):
        Deadline(seconds)


def test_longest_deadline_fits_a_socket() -> None:
    with socket.socket() as sock:
        sock.settimeout(Deadline(DEADLINE_MAX).remaining())


def test_the_wall_clock_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    deadline = Deadline(5)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert deadline.remaining() > 4


# --- connecting --------------------------------------------------------------------------------


def test_connects_to_tcp() -> None:
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            listener = socket.create_server((host, 0), family=family)
        except OSError:  # a machine without IPv6
            continue
        with listener:
            address = TcpAddress(host, listener.getsockname()[1])
            with connect(address, Deadline(5)) as sock:
                assert sock.getpeername()[:2] == (host, address.port)


def test_connects_to_a_name_of_which_only_one_address_answers() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        connect(TcpAddress("localhost", listener.getsockname()[1]), Deadline(5)) as sock,
    ):
        assert sock.getpeername()[0] == "127.0.0.1"


def test_connects_to_unix(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with connect(UnixAddress(path), Deadline(5)) as sock:
            assert sock.getpeername() == path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_refused() -> None:
    with pytest.raises(TransportError, match=r"127\.0\.0\.1:\d+: connection refused") as caught:
        connect(TcpAddress("127.0.0.1", free_port()), Deadline(5))
    assert caught.value.retryable
    assert "kmstool parent forward --listen vsock://:8000" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("address", "listen"),
    [
        ("vsock://3:9000", "vsock://:9000"),
        ("tcp://127.0.0.1:9000", "tcp://127.0.0.1:9000"),
        ("unix:/run/kms", "unix:/run/kms"),
    ],
)
def test_hint_for_an_address(address: str, listen: str) -> None:
    hint = forwarder_hint(parse_address(address), "kms.eu-west-1.amazonaws.com")
    command = f"`kmstool parent forward --listen {listen} --to kms.eu-west-1.amazonaws.com:443`"
    assert command in hint


def test_hint_of_the_caller() -> None:
    with pytest.raises(TransportError) as caught:
        connect(TcpAddress("127.0.0.1", free_port()), Deadline(5), hint="start the other thing")
    assert caught.value.hint == "start the other thing"


def test_unix_socket_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="no such socket") as caught:
        connect(UnixAddress(str(tmp_path / "nobody")), Deadline(5))
    assert not caught.value.retryable


def test_unix_socket_whose_server_is_gone(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
    with pytest.raises(TransportError, match="connection refused"):
        connect(UnixAddress(path), Deadline(5))


def test_unix_socket_whose_queue_is_full(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)
        with pytest.raises(TransportError, match="too many connections") as caught:
            connect(UnixAddress(path), Deadline(5), timeout=0.2)
    assert caught.value.retryable


def test_name_that_is_not_found() -> None:
    with pytest.raises(TransportError, match=r"the name 'nowhere\.invalid' was not found"):
        connect(TcpAddress("nowhere.invalid", 443), Deadline(20))


def test_a_silent_resolver_does_not_outlast_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    # libc waits as long as resolv.conf says, 10 s or more: that was beyond the deadline.
    answer = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer.wait(20) and [])
    began = time.monotonic()
    with pytest.raises(TransportError, match="during looking up the name 'kms"):
        connect(TcpAddress("kms.internal", 443), Deadline(0.2))
    assert time.monotonic() - began < 5
    answer.set()


def test_deadline_that_is_over_before() -> None:
    with pytest.raises(TransportError, match="used up during connecting to tcp://"):
        connect(TcpAddress("127.0.0.1", free_port()), Deadline(0))


class Vsock:
    """In the place of `socket.socket`: fails to connect in the way asked for."""

    failure: ClassVar[OSError]
    creation: ClassVar[OSError | None] = None
    made: ClassVar[list["Vsock"]] = []

    def __init__(self, family: int, kind: int) -> None:
        assert (family, kind) == (socket.AF_VSOCK, socket.SOCK_STREAM)
        if self.creation:
            raise self.creation
        self.closed = False
        self.made.append(self)

    def settimeout(self, seconds: float) -> None:
        self.seconds = seconds

    def connect(self, target: object) -> None:
        assert target == (3, 8000)
        raise self.failure

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def vsock(monkeypatch: pytest.MonkeyPatch) -> type[Vsock]:
    monkeypatch.setattr(socket, "socket", Vsock)
    monkeypatch.setattr(Vsock, "made", [])
    return Vsock


@pytest.mark.parametrize(
    ("number", "reason", "retryable"),
    [
        (errno.ECONNRESET, "connection refused", True),
        (errno.ECONNREFUSED, "connection refused", True),
        (errno.ETIMEDOUT, "nobody answered in time", True),
        (errno.EHOSTUNREACH, "no route there", False),
        (errno.EACCES, "Permission denied", False),
    ],
)
def test_vsock_where_nobody_listens(
    number: int,
    reason: str,
    retryable: bool,
    vsock: type[Vsock],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vsock, "failure", OSError(number, os.strerror(number)), raising=False)
    with pytest.raises(TransportError, match=f"vsock://3:8000: {reason}") as caught:
        connect(VsockAddress(3, 8000), Deadline(5))
    assert caught.value.retryable is retryable
    assert "kmstool parent forward --listen vsock://:8000" in (caught.value.hint or "")
    assert [sock.closed for sock in vsock.made] == [True]


def test_vsock_that_does_not_answer(vsock: type[Vsock], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vsock, "failure", TimeoutError("timed out"), raising=False)
    with pytest.raises(TransportError, match="nobody answered in time") as caught:
        connect(VsockAddress(3, 8000), Deadline(100))
    assert caught.value.retryable
    assert vsock.made[0].seconds == 5.0, "one connect is bounded by CONNECT_TIMEOUT"


def test_deadline_that_passes_during_a_connect(
    vsock: type[Vsock], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(self: Vsock, target: object) -> None:
        time.sleep(self.seconds)
        raise TimeoutError

    monkeypatch.setattr(vsock, "connect", wait)
    with pytest.raises(TransportError, match="used up during connecting to vsock") as caught:
        connect(VsockAddress(3, 8000), Deadline(0.05))
    assert not caught.value.retryable
    assert vsock.made[0].seconds <= 0.05


@pytest.mark.parametrize("number", [errno.ENODEV, errno.EAFNOSUPPORT])
@pytest.mark.parametrize("where", ["failure", "creation"])
def test_machine_without_vsock(
    number: int, where: str, vsock: type[Vsock], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vsock, where, OSError(number, os.strerror(number)), raising=False)
    with pytest.raises(TransportError, match="this machine has no vsock") as caught:
        connect(VsockAddress(3, 8000), Deadline(5))
    assert not caught.value.retryable
    assert "tcp:// or unix:" in (caught.value.hint or "")


def test_interruption_closes_the_socket(
    vsock: type[Vsock], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Vsock, target: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(vsock, "connect", interrupt)
    with pytest.raises(KeyboardInterrupt):
        connect(VsockAddress(3, 8000), Deadline(5))
    assert vsock.made[0].closed


def test_signals_do_not_end_a_connect() -> None:
    """A full queue drops the first SYN, so the connect waits a second; alarms come meanwhile."""
    alarms: list[int] = []
    with socket.socket() as listener, socket.socket() as first:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        first.connect(("127.0.0.1", port))

        def make_room() -> None:
            time.sleep(0.5)
            listener.accept()[0].close()

        thread = threading.Thread(target=make_room)
        thread.start()
        previous = signal.signal(signal.SIGALRM, lambda number, _frame: alarms.append(number))
        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
        try:
            connect(TcpAddress("127.0.0.1", port), Deadline(10)).close()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
            thread.join()
    assert len(alarms) >= 3


def test_connecting_loads_no_idna_codec() -> None:
    script = (
        "import sys\n"
        "from kmstool.endpoint import Deadline, TcpAddress, connect\n"
        "connect(TcpAddress('localhost', int(sys.argv[1])), Deadline(5)).close()\n"
        "print([m for m in ('encodings.idna', 'urllib', 'pathlib', 'ssl') if m in sys.modules])\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = subprocess.run(
            [sys.executable, "-S", "-c", script, str(listener.getsockname()[1])],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).resolve().parents[2],
            env={"PYTHONPATH": "."},
        )
    assert done.stdout == "[]\n"


# --- Addresses to listen on ---------------------------------------------------------------------


def test_a_vsock_is_listened_on_for_every_cid() -> None:
    address = parse_address("vsock://:8001", listening=True)
    assert address == VsockAddress(0xFFFF_FFFF, 8001)
    assert str(address) == "vsock://:8001"
    assert parse_address("vsock://3:8001", listening=True) == VsockAddress(3, 8001)
    for text in ("unix:/run/x", "tcp://127.0.0.1:1"):
        assert parse_address(text, listening=True) == parse_address(text)


@pytest.mark.parametrize("text", ["vsock://:", "vsock://", "vsock://4294967295:1", "vsock://:x"])
def test_what_cannot_be_listened_on(text: str) -> None:
    with pytest.raises(SettingError):
        parse_address(text, listening=True)


def test_nobody_connects_to_every_cid() -> None:
    with pytest.raises(SettingError, match="the CID is not a number"):
        parse_address("vsock://:8001")
