"""What systemd is told, over real datagram sockets."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kmstool.parent.notify import Notifier


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name)
        receiver.settimeout(5)
        yield receiver, name


def test_its_states(listening: tuple[socket.socket, str]) -> None:
    receiver, name = listening
    notifier = Notifier({"NOTIFY_SOCKET": name})
    assert notifier.ready("serving")
    assert receiver.recv(999) == b"READY=1\nSTATUS=serving"
    assert notifier.reloading()
    state, when = receiver.recv(999).split(b"\n")
    assert state == b"RELOADING=1"
    assert int(when.removeprefix(b"MONOTONIC_USEC=")) > 0
    assert notifier.stopping("ending on SIGTERM")
    assert receiver.recv(999) == b"STOPPING=1\nSTATUS=ending on SIGTERM"
    assert notifier.alive()
    assert receiver.recv(999) == b"WATCHDOG=1"


def test_a_status_is_one_line(listening: tuple[socket.socket, str]) -> None:
    receiver, name = listening
    Notifier({"NOTIFY_SOCKET": name}).ready("a\nSTOPPING=1\x1b" + "x" * 9_999)
    lines = receiver.recv(99_999).decode().split("\n")
    assert lines[0] == "READY=1"
    assert lines[1].startswith("STATUS=a?STOPPING=1?xxx")
    assert len(lines) == 2
    assert len(lines[1]) < 600


def test_an_abstract_socket() -> None:
    name = f"kmstool-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + name)
        receiver.settimeout(5)
        assert Notifier({"NOTIFY_SOCKET": f"@{name}"}).ready("x")
        assert receiver.recv(99) == b"READY=1\nSTATUS=x"


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "relative"},
        {"NOTIFY_SOCKET": "vsock:2:1234"},
        {"NOTIFY_SOCKET": "/nowhere/at/all"},
        {"NOTIFY_SOCKET": "/" + "x" * 200},
        {"NOTIFY_SOCKET": "/a\0b"},
    ],
)
def test_nobody_listens_and_nothing_fails(environment: dict[str, str]) -> None:
    assert not Notifier(environment).ready("serving")


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "٣"}, None),
        ({"WATCHDOG_USEC": "9" * 99}, None),
        ({}, None),
    ],
)
def test_watchdog(environment: dict[str, str], seconds: float | None) -> None:
    assert Notifier(environment).watchdog_seconds == seconds
