"""A forwarder in this process, and targets of which a test holds both ends."""

import contextlib
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from kmstool.endpoint import Address, TcpAddress, UnixAddress
from kmstool.parent.forward import Forwarder
from kmstool.parent.metrics import Metrics
from kmstool.parent.settings import ForwardLimits, Route, Target

PATIENCE = 20.0  # seconds that a test waits for what must come


class TestTarget:
    """Listens on loopback; hands out the connections that arrive."""

    __test__ = False

    def __init__(self, family: socket.AddressFamily = socket.AF_INET, port: int = 0) -> None:
        host = "127.0.0.1" if family == socket.AF_INET else "::1"
        self._listener = socket.create_server((host, port), family=family, backlog=512)
        self._listener.settimeout(PATIENCE)
        self.port: int = self._listener.getsockname()[1]
        self.target = Target(host, self.port)

    def accept(self) -> socket.socket:
        sock, _peer = self._listener.accept()
        sock.settimeout(PATIENCE)
        return sock

    def close(self) -> None:
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_arguments: object) -> None:
        self.close()


class Forwarding:
    """A running forwarder with one route, from a Unix socket unless told otherwise."""

    def __init__(
        self,
        to: Target,
        directory: Path,
        *,
        listen: Address | None = None,
        report: Callable[[str], None] | None = None,
        **options: Any,
    ) -> None:
        self.listen = listen or UnixAddress(str(directory / "forward.sock"))
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.metrics = Metrics()
        limits = options.pop("limits", {})
        self.forwarder = Forwarder(
            [Route(self.listen, to)],
            limits=ForwardLimits(**limits),
            report=report or self.lines.put,
            metrics=self.metrics,
            **options,
        )
        self.forwarder.start()

    def connect(self) -> socket.socket:
        address = self.forwarder.bound_to(self.listen)
        family = socket.AF_INET if isinstance(self.listen, TcpAddress) else socket.AF_UNIX
        sock = socket.socket(family)
        sock.settimeout(PATIENCE)
        sock.connect(address)
        return sock

    def line(self) -> Any:
        """The next line of the log."""
        return self.lines.get(timeout=PATIENCE)

    def metric(self, start: str) -> float:
        found = [line for line in self.metrics.render().splitlines() if line.startswith(start)]
        assert len(found) == 1, found
        return float(found[0].rpartition(" ")[2])

    def moved(self, direction: str) -> float:
        labels = f'{{listen="{self.listen}",direction="{direction}"}}'
        return self.metric(f"kmstool_forward_bytes_total{labels}")

    def refused(self, reason: str) -> float:
        listen = f'listen="{self.listen}"'
        return self.metric(f'kmstool_forward_refusals_total{{{listen},reason="{reason}"')

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_arguments: object) -> None:
        if self.forwarder.alive:
            self.forwarder.stop(drain_seconds=0)


@contextlib.contextmanager
def pair(
    forwarding: Forwarding, target: TestTarget
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both outer ends of a connection that is being carried."""
    with forwarding.connect() as client, target.accept() as far:
        yield client, far


def read_all(sock: socket.socket) -> bytes:
    pieces = []
    while piece := sock.recv(65_536):
        pieces.append(piece)
    return b"".join(pieces)


def take(sock: socket.socket, count: int) -> bytes:
    """Exactly so many bytes."""
    data = bytearray()
    while len(data) < count:
        piece = sock.recv(count - len(data))
        assert piece, "it ended early"
        data += piece
    return bytes(data)


def fill(sock: socket.socket, seconds: float = 0.5) -> int:
    """Writes until nobody has taken anything for so long, and says how much went."""
    sock.settimeout(seconds)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while True:
            sent += sock.send(bytes(262_144))
    sock.settimeout(PATIENCE)
    return sent


def ends(sock: socket.socket) -> str:
    """How a connection ends for its reader: `closed` or `reset`."""
    try:
        read_all(sock)
    except ConnectionResetError:
        return "reset"
    return "closed"


def reset(sock: socket.socket) -> None:
    """Closes it with an error."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class Sender(threading.Thread):
    """Sends in a thread.

    Attributes:
        error: what it failed with, if it did.
    """

    def __init__(self, sock: socket.socket, data: bytes) -> None:
        super().__init__()
        self._sock = sock
        self._data = data
        self.error: OSError | None = None
        self.start()

    def run(self) -> None:
        try:
            self._sock.sendall(self._data)
        except OSError as error:
            self.error = error


def wait_until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.005)
