"""The ways that the fault suite takes to the forwarder: a Unix socket, and a real vsock on request.

KMSTOOL_TEST_VSOCK_LOOPBACK=1 asks for the second, which needs the kernel's module vsock_loopback
(CONTRIBUTING.md). CID 1 is then this machine itself, and the only one that a test connects to.
"""

import _socket
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.faults import Target, Way, tcp_way, unix_way, vsock_way

VARIABLE = "KMSTOOL_TEST_VSOCK_LOOPBACK"
LOCAL = 1  # VMADDR_CID_LOCAL of vsock(7)


def why_no_vsock() -> str | None:
    """The reason why the suite does not run over a vsock here."""
    if os.environ.get(VARIABLE) != "1":
        return f"not over vsock: {VARIABLE} is not 1"
    if not Path("/sys/module/vsock_loopback").is_dir():
        return "not over vsock: the module vsock_loopback is not loaded"
    return None


def _allow_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of tests/conftest.py's guard: this machine's own CID and no other."""

    def connect(self: socket.socket, address: Any) -> None:
        assert self.family != socket.AF_VSOCK or address[0] == LOCAL
        _socket.socket.connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


def _vsock(monkeypatch: pytest.MonkeyPatch) -> Way:
    reason = why_no_vsock()
    if reason is not None:
        pytest.skip(reason)
    _allow_loopback(monkeypatch)
    return vsock_way()


@pytest.fixture
def vsock(monkeypatch: pytest.MonkeyPatch, no_real_vsock: None) -> Way:
    """The one way whose peers have CIDs."""
    return _vsock(monkeypatch)


@pytest.fixture(params=["unix", "vsock"])
def way(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, no_real_vsock: None
) -> Iterator[Way]:
    """How clients get to the forwarder."""
    if request.param == "vsock":
        yield _vsock(monkeypatch)
        return
    folder = Path(tempfile.mkdtemp(prefix="kmstool-"))  # pytest's own may be too long for a socket
    yield unix_way(folder)
    shutil.rmtree(folder)


@pytest.fixture
def tcp() -> Way:
    """The one way whose sockets have a reset."""
    return tcp_way()


@pytest.fixture
def target() -> Iterator[Target]:
    """A target in a process of its own."""
    with Target() as one:
        yield one
