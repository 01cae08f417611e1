"""The forwarder's engine: timers, threads, descriptors whose numbers are used again."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from kmstool.parent import loop as module
from kmstool.parent.loop import IN, Loop


class Running:
    def __init__(self) -> None:
        self.failures: list[Exception] = []
        self.loop = Loop(failed=self.failures.append)
        self.thread = threading.Thread(target=self.loop.run)

    def on_loop(self, call: object) -> None:
        done = threading.Event()

        def run() -> None:
            call()  # type: ignore[operator]
            done.set()

        self.loop.call_from_thread(run)
        assert done.wait(10)


@pytest.fixture
def running() -> Iterator[Running]:
    one = Running()
    one.thread.start()
    yield one
    one.loop.stop()
    one.thread.join(10)
    assert not one.thread.is_alive()


def test_timers_ring_in_their_order_and_not_when_cancelled(running: Running) -> None:
    rung: list[str] = []
    done = threading.Event()
    loop = running.loop

    def arm() -> None:
        loop.call_at(loop.now + 0.06, lambda: rung.append("third"))
        loop.call_at(loop.now + 0.08, done.set)
        loop.call_at(loop.now + 0.02, lambda: rung.append("first"))
        loop.call_at(loop.now + 0.04, lambda: rung.append("second"))
        cancelled = loop.call_at(loop.now + 0.03, lambda: rung.append("never"))
        cancelled.cancel()
        cancelled.cancel()

    running.on_loop(arm)
    assert done.wait(10)
    assert rung == ["first", "second", "third"]


def test_timers_that_ring_at_once_ring_in_the_order_they_were_made(running: Running) -> None:
    rung: list[int] = []
    running.on_loop(
        lambda: [running.loop.call_at(0.0, lambda n=n: rung.append(n)) for n in range(20)]  # type: ignore[misc]
    )
    running.on_loop(lambda: None)
    running.on_loop(lambda: None)
    assert rung == list(range(20))


def test_cancelled_timers_do_not_fill_the_memory(running: Running) -> None:
    """Each short connection leaves the timer of its idle limit behind."""
    loop = running.loop

    def many() -> None:
        kept = loop.call_at(loop.now + 1_000, lambda: None)
        for _ in range(10_000):
            loop.call_at(loop.now + 350, lambda: None).cancel()
        assert len(loop._timers) <= 2 * module._CANCELLED_MIN + 2
        assert kept.call is not None

    running.on_loop(many)
    assert running.failures == []


def test_it_sleeps_while_there_is_nothing_to_do(running: Running) -> None:
    running.on_loop(lambda: running.loop.call_at(running.loop.now + 60, lambda: None))
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.05


def test_a_number_that_is_used_again_gets_no_events_of_its_predecessor(running: Running) -> None:
    """Two sockets are readable in one round; handling the first closes the second."""
    loop = running.loop
    near, far = socket.socketpair()
    other_near, other_far = socket.socketpair()
    told: list[str] = []
    newcomers: list[socket.socket] = []

    def first(_events: int) -> None:
        told.append("one")
        for sock in (near, other_near):
            loop.close(sock)
        newcomers.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        number = newcomers[0].fileno()
        assert number not in (near.fileno(), other_near.fileno()), "closed within the round"

    def arm() -> None:
        far.send(b"x")
        other_far.send(b"x")
        loop.register(near.fileno(), IN, first)
        loop.register(other_near.fileno(), IN, first)

    running.on_loop(arm)
    running.on_loop(lambda: None)
    assert told == ["one"]
    assert near.fileno() == -1
    assert running.failures == []
    for sock in (far, other_far, *newcomers):
        sock.close()


def test_a_handler_that_fails_is_told_once_and_the_others_go_on(running: Running) -> None:
    near, far = socket.socketpair()

    def broken(_events: int) -> None:
        raise ZeroDivisionError

    with near, far:
        running.on_loop(lambda: running.loop.register(near.fileno(), IN, broken))
        far.send(b"x")
        for _ in range(3):
            running.on_loop(lambda: None)
        assert [type(error) for error in running.failures] == [ZeroDivisionError]

        def also_broken() -> None:
            raise KeyError

        running.loop.call_from_thread(also_broken)
        running.on_loop(lambda: running.loop.call_at(0.0, also_broken))
        running.on_loop(lambda: None)
        running.on_loop(lambda: None)
        assert [type(error) for error in running.failures[1:]] == [KeyError, KeyError]


def test_a_call_after_its_end_touches_no_descriptor_of_somebody_else() -> None:
    one = Running()
    one.thread.start()
    number = one.loop._wake
    one.loop.stop()
    one.thread.join(10)
    reused = os.eventfd(0, os.EFD_NONBLOCK)
    with contextlib.suppress(OSError):
        os.dup2(reused, number)
    one.loop.call_from_thread(lambda: None)
    with pytest.raises(BlockingIOError):
        os.eventfd_read(reused)
    os.close(reused)
    os.close(number)
