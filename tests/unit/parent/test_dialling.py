"""The race between a target's addresses (RFC 8305)."""

import errno
import socket
import threading
import time
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.forwarding import PATIENCE, TestTarget

from kmstool.parent import dialling
from kmstool.parent.dialling import Dial, SocketAddress, interleave
from kmstool.parent.loop import Loop

SIX: SocketAddress = (socket.AF_INET6, ("::1", 443, 0, 0))
FOUR: SocketAddress = (socket.AF_INET, ("127.0.0.1", 443))


@given(st.lists(st.tuples(st.sampled_from([socket.AF_INET, socket.AF_INET6]), st.integers())))
def test_families_take_turns_and_keep_their_order(pairs: list[tuple[int, int]]) -> None:
    addresses: list[SocketAddress] = [(family, (number,)) for family, number in pairs]  # type: ignore[misc]
    mixed = interleave(addresses)
    assert sorted(mixed, key=repr) == sorted(addresses, key=repr)
    for family in (socket.AF_INET, socket.AF_INET6):
        assert [one for one in mixed if one[0] == family] == [
            one for one in addresses if one[0] == family
        ]
    fewer = min(sum(one[0] == family for one in mixed) for family in set(dict(pairs)) or {0})
    for number in range(2 * fewer - 1):
        if len(set(dict(pairs))) == 2:
            assert mixed[number][0] != mixed[number + 1][0]
    assert mixed[:1] == tuple(addresses[:1])


@pytest.fixture
def loop() -> Iterator[Loop]:
    failures: list[Exception] = []
    one = Loop(failed=failures.append)
    thread = threading.Thread(target=one.run)
    thread.start()
    yield one
    one.stop()
    thread.join(10)
    assert failures == []


class Silent:
    """An address where a connection is neither accepted nor refused."""

    def __init__(self) -> None:
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(0)
        self.address: SocketAddress = (socket.AF_INET, self._listener.getsockname())
        self._waiting = [socket.socket() for _ in range(3)]
        for sock in self._waiting:
            sock.setblocking(False)
            sock.connect_ex(self.address[1])

    def __enter__(self) -> SocketAddress:
        return self.address

    def __exit__(self, *_arguments: object) -> None:
        for sock in (*self._waiting, self._listener):
            sock.close()


def refusing() -> SocketAddress:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return socket.AF_INET, server.getsockname()


def dialled(
    loop: Loop, addresses: Sequence[SocketAddress]
) -> tuple[socket.socket | OSError, float]:
    answers: list[socket.socket | OSError] = []
    done = threading.Event()

    def take(answer: socket.socket | OSError) -> None:
        answers.append(answer)
        done.set()

    def start() -> None:
        Dial(loop, addresses, take)

    started = time.monotonic()
    loop.call_from_thread(start)
    assert done.wait(PATIENCE)
    return answers[0], time.monotonic() - started


def test_an_address_that_refuses_gives_way_at_once(loop: Loop) -> None:
    with TestTarget() as target:
        good = (socket.AF_INET, ("127.0.0.1", target.port))
        answer, took = dialled(loop, [refusing(), refusing(), good])
        assert isinstance(answer, socket.socket)
        assert took < 0.2
        assert answer.getpeername() == good[1]
        assert answer.getblocking() is False
        assert answer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        answer.close()


def test_a_silent_address_gets_a_quarter_of_a_second(loop: Loop) -> None:
    with TestTarget() as target, Silent() as silent:
        answer, took = dialled(loop, [silent, (socket.AF_INET, ("127.0.0.1", target.port))])
        assert isinstance(answer, socket.socket)
        assert 0.24 < took < 2
        answer.close()
    wait_for_handlers(loop, 1)


def test_ipv6_is_raced_against_ipv4(loop: Loop) -> None:
    """Where ::1 exists; a family that is missing fails at once and gives way too."""
    with TestTarget() as target:
        four: SocketAddress = (socket.AF_INET, ("127.0.0.1", target.port))
        answer, took = dialled(loop, [(socket.AF_INET6, ("::1", target.port, 0, 0)), four])
        assert isinstance(answer, socket.socket)
        assert answer.family == socket.AF_INET
        assert took < 0.2
        answer.close()


def test_when_all_fail_the_last_failure_is_told(loop: Loop) -> None:
    answer, _took = dialled(loop, [refusing(), refusing()])
    assert isinstance(answer, OSError)
    assert answer.errno == errno.ECONNREFUSED
    wait_for_handlers(loop, 1)


def test_no_address_is_a_failure_too(loop: Loop) -> None:
    answer, _took = dialled(loop, [])
    assert isinstance(answer, OSError)


def test_no_socket_to_be_had_is_a_failure(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_arguments: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(dialling, "_connecting", none_left)
    answer, _took = dialled(loop, [FOUR, SIX])
    assert isinstance(answer, OSError)
    assert answer.errno == errno.EMFILE


def test_a_cancelled_race_leaves_no_socket(loop: Loop) -> None:
    with Silent() as silent:
        made: list[Dial] = []
        loop.call_from_thread(lambda: made.append(Dial(loop, [silent], lambda _answer: None)))
        wait_for_handlers(loop, 2)
        loop.call_from_thread(made[0].cancel)
        wait_for_handlers(loop, 1)
        loop.call_from_thread(made[0].cancel)


def wait_for_handlers(loop: Loop, count: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(loop._handlers) != count:
        assert time.monotonic() < deadline
        time.sleep(0.005)
