"""A log that nobody reads: stderr is a full pipe, as under a supervisor that hangs."""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.faults import Exchange, ForwardProcess, Target, Way, crowd, until
from support.forwarding import PATIENCE, ends
from support.processes import SECRET_ACCESS_KEY

from kmstool import limits

TERMINATED = 143
SOME = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY}
KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"


class FullPipe:
    """A pipe to write to that takes nothing until it is read."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def fill(self) -> None:
        os.set_blocking(self.writer, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self.writer, b"x")
        os.set_blocking(self.writer, True)  # one flag for all who have it

    def read(self) -> bytes:
        """What is in it now."""
        os.set_blocking(self.reader, False)
        pieces = []
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self.reader, 65_536):
                pieces.append(piece)
        return b"".join(pieces)


@contextlib.contextmanager
def stuck(
    way: Way, to: str, arguments: tuple[str, ...] | None = None
) -> Iterator[tuple[ForwardProcess, FullPipe]]:
    pipe = FullPipe()
    process = ForwardProcess(way, to, arguments=arguments, stderr=pipe.writer, env=SOME)
    try:
        until(lambda: connects(way))
        pipe.fill()
        yield process, pipe
    finally:
        process.close()
        os.close(pipe.reader)
        os.close(pipe.writer)


def connects(way: Way) -> bool:
    with way.unconnected() as sock:
        return sock.connect_ex(way.target) == 0


def test_it_stops_neither_transfers_nor_the_end(way: Way, target: Target) -> None:
    with stuck(way, target.address) as (forward, _pipe):
        for n in range(100):
            Exchange(way, seed=n % 7, there=1_000, back=1_000).result()
        assert forward.end() == TERMINATED


def test_its_lines_wait_for_a_reader_that_comes_late(way: Way, target: Target) -> None:
    with stuck(way, target.address) as (_forward, pipe):
        for n in range(100):
            Exchange(way, seed=n % 7, there=1_000, back=1_000).result()
        threading.Event().wait(2.5 * limits.FORWARD_LOG_SECONDS)
        found = b""

        def complete() -> bool:
            nonlocal found
            found += pipe.read()
            return found.count(b"1025 bytes there, 1032 back") == 100

        until(complete)


@pytest.mark.long
def test_it_keeps_the_relay_from_nothing_either(way: Way, target: Target, tmp_path: Path) -> None:
    """Its threads wait for the reader a second each, then answer on; and it ends."""
    arguments = ("parent", "relay", "--listen", way.listen, "--allow-key", KEY)
    with stuck(way, target.address, arguments) as (relay, _pipe):
        with crowd(way, limits.PARENT_CONNECTIONS_MAX + 3):
            until(lambda: relay.threads() > limits.PARENT_CONNECTIONS_MAX)
        with way.connect() as sock:
            sock.settimeout(PATIENCE)
            sock.shutdown(socket.SHUT_WR)
            assert ends(sock) in ("closed", "reset")
        assert relay.end() == TERMINATED
