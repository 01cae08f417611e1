"""What the fault suite is made of: ways to the forwarder, its process, its target, and transfers.

with Target() as target, ForwardProcess(way, target.address, "--idle-seconds", "1") as forward:
    Exchange(way, there=MIB, back=MIB).result()       # both hashes were right, or it raises
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from support.fault_target import absorb, exactly, request
from support.forwarding import PATIENCE
from support.processes import command, environment
from support.streams import PIECE, digest, stream

TESTS = Path(__file__).resolve().parents[1]
MIB = 1 << 20


@dataclass(frozen=True)
class Way:
    """An address of the forwarder, and how to get there."""

    kind: str  # unix, tcp, vsock
    listen: str
    family: socket.AddressFamily
    target: Any

    def unconnected(self) -> socket.socket:
        sock = socket.socket(self.family, socket.SOCK_STREAM)
        sock.settimeout(PATIENCE)
        return sock

    def connect(self) -> socket.socket:
        sock = self.unconnected()
        deadline = time.monotonic() + PATIENCE
        try:
            while True:
                try:
                    sock.connect(self.target)
                except BlockingIOError:  # a Unix socket's queue is full, which the system tells
                    assert time.monotonic() < deadline, "nobody accepts"
                    time.sleep(0.001)
                else:
                    return sock
        except BaseException:
            sock.close()
            raise


def unix_way(folder: Path) -> Way:
    path = folder / "forward.sock"
    return Way("unix", f"unix:{path}", socket.AF_UNIX, str(path))


def tcp_way() -> Way:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return Way("tcp", f"tcp://127.0.0.1:{port}", socket.AF_INET, ("127.0.0.1", port))


def vsock_way() -> Way:
    """Over the module vsock_loopback: CID 1 is this machine itself."""
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as sock:
        sock.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
        port = sock.getsockname()[1]
    return Way("vsock", f"vsock://:{port}", socket.AF_VSOCK, (1, port))


class Target:
    """support/fault_target.py as a process."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host = host
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.fault_target", host, str(port)],
            env={**environment(), "PYTHONPATH": str(TESTS)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.address = f"{host}:{self.port}"

    def kill(self) -> None:
        """As the system does it: nothing is flushed, every connection breaks."""
        self._process.kill()
        self._process.wait(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_arguments: object) -> None:
        self.kill()
        assert self._process.stdout is not None
        self._process.stdout.close()


class ForwardProcess:
    """A running `kmstool parent forward` with one route, and what it says of itself.

    Args:
        before: a statement that runs in the process first.
        wrapper: what the command is started with.
        arguments: in the place of `forward --listen … --to …`.
        stderr: where its log goes; then it is not read here, nor its start waited for.
    """

    def __init__(
        self,
        way: Way,
        to: str,
        *options: str,
        before: str = "",
        env: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
        arguments: Sequence[str] | None = None,
        stderr: int = subprocess.PIPE,
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="kmstool-"))
        metrics = self._folder / "metrics.sock"
        self._metrics = metrics
        asked = arguments or (
            *("parent", "forward", "--listen", way.listen, "--to", to),
            *("--metrics", f"unix:{metrics}", *options),
        )
        self.process = subprocess.Popen(
            [*wrapper, *command(*asked, before=before)],
            env=environment(env),
            stderr=stderr,
            text=True,
        )
        self.pid = self.process.pid
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if stderr != subprocess.PIPE:
            return
        try:
            self.said("forwarding" if arguments is None else "note: ready")
        except BaseException:
            self.close()
            raise

    def _read(self) -> None:
        self.lines.extend(self.process.stderr or ())

    def said(self, text: str, *, after: int = 0) -> str:
        """The first line with `text`, waited for."""
        deadline = time.monotonic() + PATIENCE
        while True:
            for line in self.lines[after:]:
                if text in line:
                    return line
            assert time.monotonic() < deadline, "".join(self.lines[-50:])
            time.sleep(0.01)

    def metric(self, start: str) -> float:
        """The sum of the series that begin so."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(str(self._metrics))
            sock.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            text = b"".join(iter(lambda: sock.recv(65_536), b"")).decode()
        found = [line for line in text.splitlines() if line.startswith(start)]
        assert found, text
        return sum(float(line.rpartition(" ")[2]) for line in found)

    def refused(self, reason: str) -> float:
        lines = f'kmstool_forward_refusals_total{{listen="{self._listen}",reason="{reason}"}}'
        return self.metric(lines)

    @property
    def _listen(self) -> str:
        return self.lines[0].split("forwarding ", 1)[1].split(" to ")[0]

    @property
    def open(self) -> float:
        return self.metric("kmstool_forward_connections_open")

    def descriptors(self) -> list[str]:
        """What is open, without numbers; pipes for bulk are kept, and are not among it."""
        found = []
        for entry in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found.append(str(entry.readlink()).partition(":")[0])
        return sorted(kind for kind in found if kind != "pipe")

    def settled(self) -> tuple[list[str], int]:
        """Its descriptors and threads, when nothing changes any more."""
        found: list[tuple[list[str], int]] = []

        def steady() -> bool:
            found.append((self.descriptors(), self.threads()))
            return len(found) > 3 and found[-1] == found[-2] == found[-3]

        until(steady)
        return found[-1]

    def pipes(self) -> int:
        """How many descriptors of pipes are open."""
        links = (entry.readlink() for entry in Path(f"/proc/{self.pid}/fd").iterdir())
        return sum(str(link).startswith("pipe:") for link in links)

    def memory(self) -> int:
        """Resident bytes."""
        return self._status("VmRSS") * 1_024

    def threads(self) -> int:
        return self._status("Threads")

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _status(self, name: str) -> int:
        text = Path(f"/proc/{self.pid}/status").read_text()
        (line,) = [line for line in text.splitlines() if line.startswith(f"{name}:")]
        return int(line.split()[1])

    def end(self, number: int = signal.SIGTERM, *, within: float = PATIENCE) -> int:
        """Sends a signal and returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(within)

    def close(self) -> None:
        """Ends it, however it is."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        if self.process.stderr is not None:
            self.process.stderr.close()
        shutil.rmtree(self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_arguments: object) -> None:
        self.close()
        for line in self.lines:
            assert "a bug of the forwarder" not in line, line
            assert "Traceback" not in line, "".join(self.lines)


class Exchange(threading.Thread):
    """A transfer in both directions at once; each side hashes what it got.

    Args:
        gate: half-way there it waits for this.

    Attributes:
        halfway: set when it waits at the gate.
    """

    def __init__(
        self,
        way: Way,
        *,
        there: int = 100_000,
        back: int = 100_000,
        seed: int = 1,
        gate: threading.Event | None = None,
        sock: socket.socket | None = None,
    ) -> None:
        super().__init__(daemon=True)
        self._way, self._there, self._back, self._seed = way, there, back, seed
        self._gate = gate
        self._sock = sock
        self.halfway = threading.Event()
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            with self._sock or self._way.connect() as sock:
                self._carry(sock)
        except BaseException as error:
            self._error = error
        self.halfway.set()

    def _carry(self, sock: socket.socket) -> None:
        begin = request("X", there=self._there, back=self._back, seed=self._seed)
        sock.sendall(begin)
        if self._gate is None and self._there <= PIECE:
            self._send(sock)
            self._receive(sock)
            return
        sender = threading.Thread(target=self._send, args=(sock,), daemon=True)
        sender.start()
        self._receive(sock)
        sender.join(PATIENCE)

    def _receive(self, sock: socket.socket) -> None:
        assert absorb(sock, self._back) == digest(self._seed, self._back), "bytes back are wrong"
        expected = digest(self._seed + 1, self._there)
        assert exactly(sock, 32) == expected, "bytes there are wrong"
        assert sock.recv(1) == b"", "bytes after the end"

    def _send(self, sock: socket.socket) -> None:
        offset = 0
        try:
            while offset < self._there:
                if self._gate is not None and offset >= self._there // 2:
                    self.halfway.set()
                    if not self._gate.wait(PATIENCE):
                        return
                count = min(PIECE, self._there - offset)
                sock.sendall(stream(self._seed + 1, offset, count))
                offset += count
        except OSError as error:
            self._error = error

    def result(self, within: float = 60.0) -> None:
        """Waits for it; raises what went wrong."""
        self.join(within)
        assert not self.is_alive(), "it hangs"
        if self._error is not None:
            raise self._error

    def failed(self, within: float = PATIENCE) -> BaseException:
        """Waits for it, and gives what went wrong."""
        self.join(within)
        assert not self.is_alive(), "it hangs"
        assert self._error is not None, "it did not fail"
        return self._error


def verified_until_end(sock: socket.socket, seed: int, offset: int = 0) -> tuple[int, str]:
    """Reads a seed's stream until it ends: where it ended, each byte right, and how.

    Args:
        offset: how much of it was read before.
    """
    try:
        while piece := sock.recv(PIECE):
            assert piece == stream(seed, offset, len(piece)), f"wrong bytes after {offset}"
            offset += len(piece)
    except ConnectionResetError:
        return offset, "reset"
    return offset, "closed"


def until(what: Callable[[], bool], *, within: float = PATIENCE, say: str = "") -> None:
    """Waits for something."""
    deadline = time.monotonic() + within
    while not what():
        assert time.monotonic() < deadline, say or "it did not come about"
        time.sleep(0.02)


@contextlib.contextmanager
def crowd(way: Way, count: int) -> Iterator[list[socket.socket]]:
    """So many clients, closed at the end; fewer where a vsock's queue was full."""
    socks: list[socket.socket] = []
    try:
        for _ in range(count):
            with contextlib.suppress(ConnectionResetError):
                socks.append(way.connect())
        yield socks
    finally:
        for sock in socks:
            sock.close()
