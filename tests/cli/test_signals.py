"""Ctrl-C and SIGTERM in each phase: exit 130 or 143, nothing on stdout, nothing left behind."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.ground import CIPHERTEXT, Ground
from support.processes import Finished, checked, command, environment

PATIENCE = 20.0
# Python's own traceback, of a signal between this statement and the first of `run`, is not meant.
STARTED = (
    "import sys; from kmstool.cli.main import die_quietly_on_ctrl_c; die_quietly_on_ctrl_c();"
    " sys.stderr.write('started\\n'); sys.stderr.flush()"
)


class Running:
    """A whole process that a test will interrupt."""

    def __init__(self, ground: Ground, *arguments: str, stdin: bytes | None = CIPHERTEXT) -> None:
        self._ground = ground
        self._process = subprocess.Popen(
            command("decrypt", "--verbose", *arguments, before=STARTED),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ground.work,
            # An interrupted import leaves its file to the garbage collector, which is no finding.
            env=environment({**ground.env, "PYTHONWARNINGS": "ignore"}),
            # As a shell in the foreground starts it, whatever started the tests.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
        )
        assert self._process.stdin is not None
        if stdin is not None:
            self._process.stdin.write(stdin)
            self._process.stdin.close()
            self._process.stdin = None

    def stop(self, number: signal.Signals) -> Finished:
        """Sends the signal and waits."""
        self._process.send_signal(number)
        out, err = self._process.communicate(timeout=PATIENCE)
        return checked(Finished(self._process.returncode, out, err.decode()), self._ground.work)

    def wait_for_line(self, text: str) -> None:
        """Reads stderr up to a line that has `text` in it."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if text in line.decode():
                return
        raise AssertionError(f"no line with {text!r}")


def wait_until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextmanager
def in_the_input(ground: Ground) -> Iterator[Running]:
    fifo = ground.work / "fifo"
    os.mkfifo(fifo)
    running = Running(ground, "fifo")
    writing: list[int] = []

    def reader_is_there() -> bool:
        try:
            writing.append(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:  # ENXIO: nobody reads yet
            return False
        return True

    wait_until(reader_is_there)
    yield running
    os.close(writing[0])


@contextmanager
def in_the_connect(ground: Ground) -> Iterator[Running]:
    """A listener whose queue is full: the kernel drops further SYNs."""
    with socket.socket() as listener, socket.socket() as first:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        first.connect(listener.getsockname())
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        running = Running(ground, "--via", f"direct={address}")
        running.wait_for_line("connecting to")
        time.sleep(0.1)
        yield running


@contextmanager
def in_the_handshake(ground: Ground) -> Iterator[Running]:
    ground.server.context = None
    running = Running(ground)
    assert ground.server.accepted.wait(PATIENCE)
    time.sleep(0.05)
    yield running


@contextmanager
def in_the_answer(ground: Ground) -> Iterator[Running]:
    ground.server.hang = True
    running = Running(ground)
    assert ground.server.asked.wait(PATIENCE)
    time.sleep(0.05)
    yield running


@contextmanager
def in_the_pause_before_a_retry(ground: Ground) -> Iterator[Running]:
    ground.kms.script = [(500, {"__type": "KMSInternalException"})] * 9
    running = Running(ground, "-o", "out")
    running.wait_for_line("attempt 3 of 5 failed")
    yield running


@contextmanager
def in_the_output(ground: Ground) -> Iterator[Running]:
    """A FIFO that nobody reads: opening it for writing waits."""
    os.mkfifo(ground.work / "fifo")
    running = Running(ground, "-o", "fifo")
    running.wait_for_line("status 200")
    time.sleep(0.2)
    yield running


PHASES = (
    in_the_input,
    in_the_connect,
    in_the_handshake,
    in_the_answer,
    in_the_pause_before_a_retry,
    in_the_output,
)


@pytest.mark.parametrize("phase", PHASES)
def test_ctrl_c(ground: Ground, phase: Callable[[Ground], Iterator[Running]]) -> None:
    with phase(ground) as running:  # type: ignore[attr-defined] # contextmanager's own type
        done = running.stop(signal.SIGINT)
    assert done.code == 130, done.stderr
    assert done.error == "interrupted"
    assert not Path(ground.work, "out").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_terminated(ground: Ground, number: signal.Signals) -> None:
    with in_the_answer(ground) as running:
        done = running.stop(number)
    assert done.code == 143, done.stderr
    assert done.error == "terminated"


def test_ctrl_c_at_any_moment(ground: Ground) -> None:
    """Imports, the key's thread, the end: no traceback, no abort (134) in Rust, one clean code.

    Python's own shutdown would kill the key's thread inside Rust.
    """
    codes = set()
    for step in range(12):
        running = Running(ground, "-o", "out")
        running.wait_for_line("started")  # what comes before is Python's own start
        time.sleep(0.005 + 0.025 * step)
        done = running.stop(signal.SIGINT)
        codes.add(done.code)
        assert done.code != 1, done.stderr
        assert (done.code == 0) == Path(ground.work, "out").exists(), (done.code, done.stderr)
        Path(ground.work, "out").unlink(missing_ok=True)
    # The signal itself: before kmstool is there to catch it.
    assert codes <= {0, 130, -signal.SIGINT}, codes
