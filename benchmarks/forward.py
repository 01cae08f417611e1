"""kmstool parent forward beside a direct connection and socat, Unix socket to TCP on loopback.

Whole processes, in turn within each round: client and target are the same for all. Figures
are medians of the rounds; echo times are those of the round with the least median, since whoever
else works on the machine only ever adds to them. The Decrypts go to an emulator, from clients whose
recipient key is made beforehand, each over a new connection, while 50 others sit idle.
"""

import contextlib
import os
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from emulator import CONTEXT, SECRET, make_secret, served
from report import Row, at_least, at_most, figure, main

from kmstool.arn import parse_key_arn
from kmstool.enclave.results import Decrypted
from kmstool.session import SessionOptions, open_direct

KMSTOOL = str(Path(sys.executable).with_name("kmstool"))
MIB = 1 << 20
ROUNDS = 9
BULK = 128 * MIB  # of all connections together
ECHOES = 1_500
CONNECTIONS = 1_500
BATCH = 50
IDLE = 2_000
DECRYPTS_AT_ONCE = 30
IDLE_BESIDES = 50

Connect = Callable[[], socket.socket]


class Way:
    """One way to the target: a process between, or none."""

    def __init__(self, name: str, connects: list[Connect], pid: int | None = None) -> None:
        self.name, self.pid = name, pid
        self.connect, self.greet = connects
        self.speeds: dict[tuple[str, int], list[float]] = defaultdict(list)
        self.cpu: dict[str, list[float]] = defaultdict(list)
        self.echoes: list[float] = []
        self.rates: list[float] = []

    def measure(self) -> None:
        for direction in ("there", "back"):
            for connections in (1, 16):
                speed, cpu = bulk(self, direction, connections)
                self.speeds[direction, connections].append(speed)
                self.cpu[direction].append(cpu)
        echoes = echo(self.connect)
        if not self.echoes or statistics.median(echoes) < statistics.median(self.echoes):
            self.echoes = echoes
        self.rates.append(connections_a_second(self.greet))

    def speed(self, direction: str, connections: int) -> float:
        return statistics.median(self.speeds[direction, connections])

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)


def rows() -> list[Row]:
    for name in [name for name in os.environ if name.startswith(("AWS_", "KMSTOOL_"))]:
        del os.environ[name]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports = stack.enter_context(target())
        ways = [
            Way("direct", [tcp(port) for port in ports]),
            stack.enter_context(forwarder(folder, ports)),
            stack.enter_context(socat(folder, "socat", ports, [])),
            stack.enter_context(socat(folder, "socat -b 262144", ports, ["-b", "262144"])),
        ]
        for _ in range(ROUNDS):
            for way in ways:
                way.measure()
        found = compared(*ways)
        found += idle_memory(ways[1])
    found += decrypts()
    return found


def compared(direct: Way, ours: Way, socat: Way, tuned: Way) -> list[Row]:
    found = []
    for direction in ("there", "back"):
        for number in (1, 16):
            speeds = {
                way.name: way.speed(direction, number) for way in (direct, ours, socat, tuned)
            }
            carried = speeds[ours.name]
            what = f"{number} connection{'s' if number > 1 else ''}, {direction}"
            found += [
                at_least(f"{what}: against direct", carried / speeds["direct"], "x", 0.8),
                at_least(f"{what}: against socat", carried / speeds["socat"], "x", 1.0),
                *(figure(f"{what}: {name}", speed, "GiB/s") for name, speed in speeds.items()),
            ]
    for direction in ("there", "back"):
        cpu = {way.name: statistics.median(way.cpu[direction]) for way in (ours, socat, tuned)}
        found += [
            at_most(f"CPU {direction}: against socat", cpu[ours.name] / cpu["socat"], "x", 1.0),
            *(figure(f"CPU {direction}: {name}", spent, "s/GiB") for name, spent in cpu.items()),
        ]
    half, most = percentile(direct.echoes, 50), percentile(direct.echoes, 99)
    added = (percentile(ours.echoes, 50) - half) * 1e6
    return [
        *found,
        at_most("echo of 1 KiB: added at the median", added, "us", 40),
        figure("echo of 1 KiB: added at p99", (percentile(ours.echoes, 99) - most) * 1e6, "us"),
        figure("echo of 1 KiB: direct, median", half * 1e6, "us"),
        figure("echo of 1 KiB: direct, p99", most * 1e6, "us"),
        figure("echo of 1 KiB: socat, median", percentile(socat.echoes, 50) * 1e6, "us"),
        at_least("new connections", ours.rate, "/s", 2_000),
        figure("new connections: direct", direct.rate, "/s"),
        figure("new connections: socat", socat.rate, "/s"),
    ]


def bulk(way: Way, direction: str, connections: int) -> tuple[float, float]:
    """GiB a second over so many connections at once, and the CPU seconds of one GiB."""
    sockets = [way.connect() for _ in range(connections)]
    each = BULK // connections
    data = memoryview(bytearray(MIB))

    def there(sock: socket.socket) -> None:
        sock.sendall(b"S" + struct.pack("!Q", each))
        left = each
        while left:
            left -= sock.send(data[: min(left, MIB)])
        assert sock.recv(1) == b"s"

    def back(sock: socket.socket) -> None:
        buffer = memoryview(bytearray(MIB))
        sock.sendall(b"G" + struct.pack("!Q", each))
        left = each
        while left:
            count = sock.recv_into(buffer, min(left, MIB))
            assert count
            left -= count

    carry = there if direction == "there" else back
    threads = [threading.Thread(target=carry, args=(sock,)) for sock in sockets]
    before = cpu_seconds(way.pid)
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    cpu = spent_since(before, way.pid)  # before they close: socat has a process for each
    for sock in sockets:
        sock.close()
    gib = BULK / (1 << 30)
    return gib / seconds, cpu / gib


def echo(connect: Connect) -> list[float]:
    spent = []
    message = bytes(1_024)
    with connect() as sock:
        sock.sendall(b"E")
        for number in range(ECHOES):
            started = time.perf_counter()
            sock.sendall(message)
            assert len(sock.recv(1_024, socket.MSG_WAITALL)) == 1_024
            if number >= ECHOES // 10:
                spent.append(time.perf_counter() - started)
    return spent


def connections_a_second(connect: Connect) -> float:
    started = time.perf_counter()
    for _ in range(CONNECTIONS // BATCH):
        sockets = [connect() for _ in range(BATCH)]
        for sock in sockets:
            assert sock.recv(1) == b"h"
            sock.close()
    return CONNECTIONS / (time.perf_counter() - started)


def idle_memory(way: Way) -> list[Row]:
    assert way.pid is not None
    before = resident(way.pid)
    sockets = []
    for _ in range(IDLE):
        sock = way.connect()
        sock.sendall(b"H")
        assert sock.recv(1) == b"h"
        sockets.append(sock)
    memory = resident(way.pid)
    before_idling = cpu_seconds(way.pid)
    time.sleep(2)
    cpu = spent_since(before_idling, way.pid)
    for sock in sockets:
        sock.close()
    return [
        at_most(f"memory with {IDLE} idle connections", memory, "MiB", 80),
        figure("memory before them", before, "MiB"),
        at_most(f"CPU while {IDLE} sit idle, of one core", cpu / 2, "x", 0.01),
    ]


def decrypts() -> list[Row]:
    """Each of 30 at once over a new connection of its own, with 50 idle connections besides."""
    with contextlib.ExitStack() as stack:
        environ = stack.enter_context(served())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = int(environ["AWS_ENDPOINT_URL_KMS"].rpartition(":")[2])
        way = stack.enter_context(forwarder(folder, (port, port)))
        arn, blob = make_secret(environ)
        for _ in range(IDLE_BESIDES):
            stack.enter_context(way.connect())
        through = at_once(environ, arn, blob, f"direct=unix:{folder / 'forward.0'}")
        straight = at_once(environ, arn, blob, f"direct=tcp://127.0.0.1:{port}")
    ratio = max(through) / statistics.median(through)
    return [
        at_most(f"{DECRYPTS_AT_ONCE} Decrypts at once: slowest against median", ratio, "x", 2.0),
        figure(f"{DECRYPTS_AT_ONCE} Decrypts at once: median", statistics.median(through), "s"),
        figure(f"{DECRYPTS_AT_ONCE} Decrypts at once: slowest", max(through), "s"),
        figure(
            f"{DECRYPTS_AT_ONCE} Decrypts at once, direct: median", statistics.median(straight), "s"
        ),
        figure(f"{DECRYPTS_AT_ONCE} Decrypts at once, direct: slowest", max(straight), "s"),
    ]


def at_once(environ: dict[str, str], arn: str, blob: bytes, via: str) -> list[float]:
    """The seconds of each; connection, TLS, attested call and unwrapping, but no key generation."""
    key = parse_key_arn(arn)
    spent: list[float] = []
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(open_direct(SessionOptions(via=(via,)), key=key, environ=environ))
            for _ in range(DECRYPTS_AT_ONCE)
        ]
        start = threading.Barrier(DECRYPTS_AT_ONCE)

        def ask(number: int) -> None:
            client = clients[number]
            client.decrypt(blob, key=key, encryption_context=CONTEXT)  # makes its recipient key
            client._exchange.close()
            start.wait()
            started = time.perf_counter()
            answer = client.decrypt(blob, key=key, encryption_context=CONTEXT)
            spent.append(time.perf_counter() - started)
            assert isinstance(answer, Decrypted)
            assert answer.plaintext == SECRET

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(DECRYPTS_AT_ONCE)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(spent) == DECRYPTS_AT_ONCE
    return spent


@contextlib.contextmanager
def target() -> Iterator[tuple[int, int]]:
    command = [sys.executable, str(Path(__file__).with_name("forward_target.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        first, second = map(int, process.stdout.readline().split())
        try:
            yield first, second
        finally:
            process.kill()


@contextlib.contextmanager
def forwarder(folder: Path, ports: tuple[int, int]) -> Iterator[Way]:
    paths = [folder / f"forward.{number}" for number in range(2)]
    command = [KMSTOOL, "parent", "forward", "--connections", str(IDLE + 500)]
    for path, port in zip(paths, ports, strict=True):
        command += ["--listen", f"unix:{path}", "--to", f"127.0.0.1:{port}"]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            wait_for(paths)
            yield Way("kmstool", [unix(path) for path in paths], process.pid)
        finally:
            process.send_signal(signal.SIGTERM)


@contextlib.contextmanager
def socat(folder: Path, name: str, ports: tuple[int, int], options: list[str]) -> Iterator[Way]:
    paths = [folder / f"{name.replace(' ', '')}.{number}" for number in range(2)]
    processes = [
        subprocess.Popen(
            [
                *("socat", *options, f"UNIX-LISTEN:{path},fork,backlog=1024"),
                f"TCP:127.0.0.1:{port},nodelay",
            ]
        )
        for path, port in zip(paths, ports, strict=True)
    ]
    try:
        wait_for(paths)
        yield Way(name, [unix(path) for path in paths], processes[0].pid)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def wait_for(paths: list[Path]) -> None:
    deadline = time.monotonic() + 20
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.2)  # it is bound, and listens a moment later


def unix(path: Path) -> Connect:
    def connect() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(path))
        return sock

    return connect


def tcp(port: int) -> Connect:
    def connect() -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    return connect


def cpu_seconds(pid: int | None) -> dict[str, float]:
    """Of a process and its children, each with its threads."""
    found: dict[str, float] = {}
    for process in [str(pid), *children(pid)] if pid is not None else []:
        with contextlib.suppress(OSError):  # it has just ended
            threads = list(Path("/proc", process, "task").iterdir())
            spent = [int((thread / "schedstat").read_text().split()[0]) for thread in threads]
            found[process] = sum(spent) / 1e9
    return found


def spent_since(before: dict[str, float], pid: int | None) -> float:
    return sum(spent - before.get(name, 0.0) for name, spent in cpu_seconds(pid).items())


def children(pid: int) -> list[str]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return listed.read_text().split() if listed.exists() else []


def resident(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


def percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


if __name__ == "__main__":
    sys.exit(main("the forwarder", rows))
