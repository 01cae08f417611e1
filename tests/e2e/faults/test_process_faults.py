"""The forwarder's process: killed and started again, signals under load, a clock that is set."""

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest
from support.fault_target import request
from support.faults import (
    MIB,
    Exchange,
    ForwardProcess,
    Target,
    Way,
    crowd,
    until,
    verified_until_end,
)
from support.forwarding import TestTarget, ends, take
from support.streams import stream

TERMINATED = 143


def test_the_forwarder_is_killed_and_started_again(way: Way, target: Target) -> None:
    """Both sides hear of its death, and its successor needs no tidying up."""
    with (
        TestTarget() as watched,
        ForwardProcess(way, f"127.0.0.1:{watched.port}") as forward,
        way.connect() as client,
        watched.accept() as far,
    ):
        client.sendall(b"x")
        assert take(far, 1) == b"x"
        forward.process.kill()
        assert ends(client) in ("closed", "reset")
        assert ends(far) in ("closed", "reset")
    for _ in range(3):
        with ForwardProcess(way, target.address) as forward, crowd(way, 3) as readers:
            for n, sock in enumerate(readers):
                sock.sendall(request("F", seed=n))
                assert take(sock, 1) == stream(n, 0, 1)
            Exchange(way, there=MIB, back=MIB).result()
            forward.process.kill()
            for n, sock in enumerate(readers):
                verified_until_end(sock, n, 1)


def test_sigterm_under_load_lets_every_transfer_end(way: Way, target: Target) -> None:
    """Those that flow and those that wait; nobody new gets in; then the process ends."""
    with ForwardProcess(way, target.address) as forward:
        go = threading.Event()
        waiting = [Exchange(way, there=2 * MIB, back=MIB, seed=n, gate=go) for n in range(6)]
        for exchange in waiting:
            assert exchange.halfway.wait(20)
        flowing = [Exchange(way, there=8 * MIB, back=8 * MIB, seed=50 + n) for n in range(3)]
        until(lambda: forward.open == 9 or not any(one.is_alive() for one in flowing))
        forward.process.send_signal(signal.SIGTERM)
        forward.said("ending on SIGTERM")
        until(lambda: not connects(way), say="it still accepts")
        go.set()
        for exchange in (*waiting, *flowing):
            exchange.result()
        assert forward.process.wait(20) == TERMINATED


def connects(way: Way) -> bool:
    """Whether anybody listens there."""
    with way.unconnected() as sock:
        return sock.connect_ex(way.target) == 0


def test_draining_under_load_has_an_end(way: Way, target: Target) -> None:
    """Streams without an end, two of them stuck: what arrived is right, and all hear of it."""
    with (
        ForwardProcess(way, target.address, "--drain-seconds", "1") as forward,
        crowd(way, 5) as readers,
    ):
        for n, sock in enumerate(readers):
            sock.sendall(request("F", seed=n))
            assert take(sock, 1) == stream(n, 0, 1)
        began = time.monotonic()
        forward.process.send_signal(signal.SIGTERM)
        found = [Reader(sock, n) for n, sock in enumerate(readers[:3])]
        assert forward.process.wait(20) == TERMINATED
        assert time.monotonic() - began >= 1
        found += [Reader(sock, n) for n, sock in enumerate(readers[3:], 3)]
        for reader in found:
            reader.join(20)
            assert reader.count > 1, reader.error


class Reader(threading.Thread):
    """Reads a stream, of which a byte was read, to its end."""

    def __init__(self, sock: object, seed: int) -> None:
        super().__init__(daemon=True)
        self._sock, self._seed = sock, seed
        self.count = 0
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.count, _how = verified_until_end(self._sock, self._seed, 1)  # type: ignore[arg-type]
        except BaseException as error:
            self.error = error


def test_sighup_under_load_drops_nothing(way: Way, target: Target, tmp_path: Path) -> None:
    """Thirty times another file, with another route and other limits, while transfers flow."""
    file = tmp_path / "parent.toml"
    route = f'[[forward]]\nlisten = "{way.listen}"\nto = "{target.address}"\n'
    with tempfile.TemporaryDirectory(prefix="kmstool-") as folder:
        other = f'[[forward]]\nlisten = "unix:{folder}/other"\nto = "{target.address}"\n'
        file.write_text(route)
        up = ("parent", "up", "--config", str(file))
        with ForwardProcess(way, target.address, arguments=up) as forward:
            long_ones = [Exchange(way, there=16 * MIB, back=16 * MIB, seed=n) for n in range(2)]
            stop = threading.Event()
            short_ones = [Repeated(way, stop, n) for n in range(2)]
            for n in range(30):
                text = route + (other if n % 2 else f"[limits]\nconnections = {100 + n}\n")
                file.write_text(text)
                after = len(forward.lines)
                forward.process.send_signal(signal.SIGHUP)
                line = forward.said("settings", after=after)
                assert "kept" not in line, line
            stop.set()
            for exchange in long_ones:
                exchange.result()
            for repeated in short_ones:
                repeated.join(20)
                assert repeated.error is None
                assert repeated.done
            assert forward.end() == TERMINATED


class Repeated(threading.Thread):
    """One transfer after another."""

    def __init__(self, way: Way, stop: threading.Event, seed: int) -> None:
        super().__init__(daemon=True)
        self._way, self._stop_it, self._seed = way, stop, seed
        self.done = 0
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            while not self._stop_it.is_set():
                Exchange(self._way, seed=self._seed).result()
                self.done += 1
        except BaseException as error:
            self.error = error


# Handled signals interrupt system calls (EINTR); ignored ones, as these two are by default, do not.
HANDLED = (
    "import signal; signal.signal(signal.SIGWINCH, lambda *_: None);"
    " signal.signal(signal.SIGCHLD, lambda *_: None)"
)


def test_a_storm_of_signals_breaks_nothing(way: Way, target: Target) -> None:
    """Handled ones, and a process that is stopped and continued."""
    numbers = (signal.SIGWINCH, signal.SIGCHLD, signal.SIGSTOP, signal.SIGCONT)
    with ForwardProcess(way, target.address, before=HANDLED) as forward:
        transfers = [Exchange(way, there=8 * MIB, back=8 * MIB, seed=n) for n in range(3)]
        sent = 0
        while sent < 2_000 or any(one.is_alive() for one in transfers):
            assert sent < 100_000, "it hangs"
            forward.process.send_signal(numbers[sent % 4])
            sent += 1
            if sent % 100 == 0 and sent < 2_000:
                transfers.append(Exchange(way, seed=sent))
            time.sleep(0.0005)
        forward.process.send_signal(signal.SIGCONT)
        for exchange in transfers:
            exchange.result()
        Exchange(way).result()
        assert forward.end() == TERMINATED


@pytest.fixture
def settable_clock(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A file that says what time it is, and the variables of a process that believes it.

    The monotonic clock stays, as it does when an administrator or NTP sets the time.
    """
    program = shutil.which("faketime")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("faketime is missing, and CI must have it")
        pytest.skip("faketime is not on this machine; apt-get install faketime")
    library = subprocess.run(
        [program, "-m", "-f", "+0", "printenv", "LD_PRELOAD"],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    ).stdout.strip()
    file = tmp_path / "clock"
    file.write_text("+0")
    variables = {
        "LD_PRELOAD": library,
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    return file, variables


@pytest.mark.long
@pytest.mark.parametrize("step", ["+3650d", "-3650d"])
def test_the_clock_is_set(
    way: Way, target: Target, settable_clock: tuple[Path, dict[str, str]], step: str
) -> None:
    """By ten years: no connection ends of it, none lives longer, and the log has the new time."""
    clock, variables = settable_clock
    options = ("--idle-seconds", "3", "--log-format", "json")
    with ForwardProcess(way, target.address, *options, env=variables) as forward:
        with crowd(way, 1) as (idle,):
            go = threading.Event()
            transfer = Exchange(way, there=MIB, back=MIB, gate=go)
            assert transfer.halfway.wait(20)
            began = time.monotonic()
            clock.write_text(step)
            Exchange(way).result()
            year = time.gmtime().tm_year + (10 if step.startswith("+") else -10)
            line = forward.said("100025 bytes there")
            assert abs(int(line.split('"time": "')[1][:4]) - year) <= 1, line
            go.set()
            transfer.result()
            assert ends(idle) in ("closed", "reset")
            assert time.monotonic() - began >= 1
            forward.said("idle for 3 seconds")
        assert forward.end() == TERMINATED
