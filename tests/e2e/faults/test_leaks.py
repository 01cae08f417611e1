"""Nothing is left of 20,000 connections that end in every way there is."""

import contextlib
import socket
import threading

import pytest
from support.fault_target import request
from support.faults import MIB, Exchange, ForwardProcess, Target, Way, until
from support.forwarding import ends, read_all, take
from support.streams import digest, stream

from kmstool import limits

CONNECTIONS = 20_000
CLIENTS = 4
TOTAL = "too-many-connections"
# 79 bytes a connection. What one has takes 1.6 KiB (measured by keeping them), so one in twenty
# that is kept is more; measured are 6 to 10 bytes, and the rest is room for the allocator.
GROWTH_MAX = 3 * MIB // 2


def one(way: Way, number: int) -> None:
    """A connection that ends in one of six ways."""
    with way.connect() as sock:
        match number % 6:
            case 0:  # as it should
                sock.sendall(request("X", back=500, seed=3))
                assert read_all(sock) == stream(3, 0, 500) + digest(3, 0)
            case 1:  # the client half-closes first
                sock.sendall(request("X", back=100, seed=3))
                sock.shutdown(socket.SHUT_WR)
                assert read_all(sock) == stream(3, 0, 100) + digest(3, 0)
            case 2:  # nothing is said
                pass
            case 3:  # in the middle of a request
                sock.sendall(request("X")[:10])
            case 4:  # the target resets
                sock.sendall(request("R", back=1_000, seed=3))
                assert ends(sock) in ("closed", "reset")
            case 5:  # the client goes while bulk is on its way
                sock.sendall(request("F", seed=3))
                assert take(sock, 1) == stream(3, 0, 1)


def storm(way: Way, count: int) -> None:
    """So many connections, from several threads."""
    errors: list[BaseException] = []

    def run(first: int) -> None:
        try:
            for number in range(first, count, CLIENTS):
                one(way, number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(240)
        assert not thread.is_alive(), "it hangs"
    assert not errors, errors


def at_rest(forward: ForwardProcess, came: int) -> tuple[list[str], int]:
    """Its descriptors and threads, when all that came have gone and nothing changes any more."""

    def seen() -> float:
        return forward.metric("kmstool_forward_connections_total") + forward.refused(TOTAL)

    until(lambda: seen() == came, say="some were never accepted")
    until(lambda: forward.open == 0)
    return forward.settled()


@pytest.mark.long
@pytest.mark.timeout(300)
def test_20_000_connections_leave_nothing(way: Way, target: Target) -> None:
    with ForwardProcess(way, target.address) as forward:
        storm(way, 2_000)  # what is kept on purpose: pipes, arenas of the allocator
        before, memory = at_rest(forward, 2_000), forward.memory()
        storm(way, CONNECTIONS)
        assert at_rest(forward, 2_000 + CONNECTIONS) == before
        assert forward.pipes() <= 1 + 2 * limits.FORWARD_PIPES_KEPT  # one is its log
        grown = forward.memory() - memory
        print(f"descriptors {len(before[0])}, threads {before[1]}, memory {memory} + {grown}")
        assert grown <= GROWTH_MAX, grown
        assert forward.refused(TOTAL) == 0
        Exchange(way, there=MIB, back=MIB).result()


def test_refused_connections_leave_nothing(way: Way) -> None:
    """Beyond the limit, and to a target that is not there."""
    with Target() as gone:
        to = gone.address
    with ForwardProcess(way, to, "--connections", "5") as forward:
        refused(way, 2_000)
        before, memory = at_rest(forward, 2_000), forward.memory()
        refused(way, 6_000)
        assert at_rest(forward, 8_000) == before
        grown = forward.memory() - memory
        print(f"memory {memory} + {grown}")
        assert grown <= 2 * GROWTH_MAX, grown  # they come in waves of the queue's length


def refused(way: Way, count: int) -> None:
    for _ in range(count):
        with contextlib.suppress(ConnectionError), way.connect():
            pass
