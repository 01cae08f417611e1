"""A client that stops reading, half-closes, resets, drips, or comes in thousands."""

import contextlib
import resource
import select
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from support.fault_target import exactly, request
from support.faults import MIB, Exchange, ForwardProcess, Target, Way, crowd, until
from support.forwarding import TestTarget, ends, read_all, reset, take
from support.streams import digest, pieces, stream

from kmstool import limits

STUCK = 8


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """This process' own, for thousands of clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8_192
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"`ulimit -Hn` is below {wanted}")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def still(what: ForwardProcess, series: str) -> float:
    """Waits until a metric has not moved for half a second."""
    before = -1.0
    deadline = time.monotonic() + 20
    while (now := what.metric(series)) != before:
        assert time.monotonic() < deadline, f"{series} never rests"
        before = now
        time.sleep(0.5)
    return now


def assert_sleeps(what: ForwardProcess) -> None:
    """In a second it takes some milliseconds; a busy loop gets more on any machine."""
    spent = what.cpu_seconds()
    time.sleep(1)
    assert what.cpu_seconds() - spent < 0.1, "a busy loop"


def test_clients_that_stop_reading_take_a_bounded_memory(way: Way, target: Target) -> None:
    """The target would send without end: what waits is one buffer and one pipe for each client.

    Where it was not bounded, each of them would have taken all that the target has sent in half a
    second, which is hundreds of MiB. And nothing is lost when a client reads again.
    """
    with ForwardProcess(way, target.address) as forward:
        Exchange(way, there=4 * MIB, back=4 * MIB).result()  # what the first one allocates
        before = forward.memory()
        with crowd(way, STUCK) as stuck:
            for n, sock in enumerate(stuck):
                sock.sendall(request("F", seed=n))
            still(forward, "kmstool_forward_bytes_total")
            grown = forward.memory() - before
            assert grown <= STUCK * limits.FORWARD_BUFFER + 4 * MIB, grown
            assert_sleeps(forward)
            Exchange(way, there=MIB, back=MIB).result()  # the others do not wait for them
            for n, sock in enumerate(stuck):
                offset = 0
                while offset < 8 * MIB:
                    piece = sock.recv(65_536)
                    assert piece == stream(n, offset, len(piece)), f"wrong after {offset}"
                    offset += len(piece)
        until(lambda: forward.open == 0)


def test_targets_that_stop_reading_take_a_bounded_memory(way: Way, target: Target) -> None:
    """The same the other way round."""
    with ForwardProcess(way, target.address) as forward:
        Exchange(way, there=4 * MIB, back=4 * MIB).result()
        before = forward.memory()
        with crowd(way, STUCK) as stuck:
            offered = 0
            for sock in stuck:
                sock.sendall(request("Q"))
                sock.settimeout(0.25)
                with contextlib.suppress(TimeoutError):
                    for piece in pieces(1, 256 * MIB):
                        sock.sendall(piece)
                        offered += len(piece)
            assert offered < STUCK * 64 * MIB, "no back-pressure"
            grown = forward.memory() - before
            assert grown <= STUCK * limits.FORWARD_BUFFER + 4 * MIB, grown
            Exchange(way, there=MIB, back=MIB).result()
        # They have gone; what they had sent still waits for the target, within the idle limit.
        assert forward.open == STUCK
        target.kill()
        until(lambda: forward.open == 0)


def test_half_close_by_the_client(way: Way) -> None:
    """It has asked; the answer comes in full, however long it takes."""
    with TestTarget() as target, ForwardProcess(way, f"127.0.0.1:{target.port}") as forward:
        with way.connect() as client, target.accept() as far:
            client.sendall(b"a question")
            client.shutdown(socket.SHUT_WR)
            assert read_all(far) == b"a question"
            time.sleep(0.3)
            count = 3 * MIB
            answer = b"".join(pieces(2, count))
            sender = threading.Thread(target=far.sendall, args=(answer,))
            sender.start()
            assert take(client, count) == answer
            sender.join(20)
            far.shutdown(socket.SHUT_WR)
            assert read_all(client) == b""
        assert forward.said(f"10 bytes there, {count} back").endswith(": closed\n")


def test_a_reset_of_the_client_is_an_error_for_the_target(tcp: Way) -> None:
    with TestTarget() as target, ForwardProcess(tcp, f"127.0.0.1:{target.port}") as forward:
        with target_pair(tcp, target) as (client, far):
            client.sendall(b"half of a quest")
            assert take(far, 15) == b"half of a quest"
            reset(client)
            assert ends(far) == "reset"
        forward.said("reset by the client")


def test_a_client_that_leaves_its_answer_unread_is_an_error_for_the_target(way: Way) -> None:
    """As when its process is killed: its system resets, or closes both directions."""
    with TestTarget() as target, ForwardProcess(way, f"127.0.0.1:{target.port}") as forward:
        with target_pair(way, target) as (client, far):
            far.sendall(b"an answer")
            client.recv(1)
            client.close()
            with pytest.raises(ConnectionError):  # the first bytes may be sent before it is known
                far.sendall(bytes(64 * MIB))
        until(lambda: forward.open == 0)


def test_forty_bulk_transfers_at_once(way: Way, target: Target) -> None:
    """More than there are pipes: they are lent, given back, and missed, and no byte is."""
    with ForwardProcess(way, target.address) as forward:
        transfers = [Exchange(way, there=MIB, back=3 * MIB, seed=n) for n in range(40)]
        for exchange in transfers:
            exchange.result()
        until(lambda: forward.open == 0)


@contextlib.contextmanager
def target_pair(way: Way, target: TestTarget) -> Iterator[tuple[socket.socket, socket.socket]]:
    with way.connect() as client, target.accept() as far:
        yield client, far


def test_clients_that_vanish_in_the_middle_of_everything(way: Way, target: Target) -> None:
    """Before, during and after their request; transfers beside them are whole."""
    with ForwardProcess(way, target.address) as forward:
        steady = [Exchange(way, there=8 * MIB, back=8 * MIB, seed=n) for n in range(3)]
        for n in range(300):
            with way.connect() as client:
                if n % 3 == 1:
                    client.sendall(request("F", seed=n)[: n % 25])
                elif n % 3 == 2:
                    client.sendall(request("F", seed=n))
                    client.recv(1)
        for exchange in steady:
            exchange.result()
        until(lambda: forward.open == 0)


@pytest.mark.long
def test_five_thousand_connections_against_a_limit_of_500(
    way: Way, target: Target, many_descriptors: None
) -> None:
    """4,500 are refused long before any time limit; the 500 work, and then there is room again."""
    options = ("--connections", "500", "--connections-per-cid", "500")
    with ForwardProcess(way, target.address, *options) as forward:
        at_rest, _threads = forward.settled()
        with crowd(way, 5_000) as clients:
            ended = gone(clients, len(clients) - 500)
            for sock in ended:
                assert ends(sock) in ("closed", "reset")
            admitted = [sock for sock in clients if sock not in ended]
            assert forward.open == len(admitted) == 500
            until(lambda: forward.refused("too-many-connections") == len(ended))
            for n, sock in enumerate(admitted):  # each of them, while all of them are there
                sock.sendall(request("X", there=0, back=2_000, seed=n))
            for n, sock in enumerate(admitted):
                assert exactly(sock, 2_000) == stream(n, 0, 2_000)
                assert exactly(sock, 32) == digest(n, 0)
        until(lambda: forward.open == 0)
        Exchange(way).result()
        until(lambda: forward.descriptors() == at_rest, say="descriptors leak")
        assert forward.pipes() <= 1 + 2 * limits.FORWARD_PIPES_KEPT  # one is its log


def gone(clients: list[socket.socket], count: int) -> set[socket.socket]:
    """Waits until so many connections are over."""
    by_number = {sock.fileno(): sock for sock in clients}
    ended: set[socket.socket] = set()
    with select.epoll() as epoll:
        for number in by_number:
            epoll.register(number, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT)
        deadline = time.monotonic() + 20
        while len(ended) < count:
            assert time.monotonic() < deadline, f"{len(ended)} are over"
            ended |= {by_number[number] for number, _events in epoll.poll(1)}
    return ended


# A vsock over which CIDs could be told apart is on no machine of ours, so a statement in the
# forwarder's process says whose the next connection is: 300 times 16's, then 17's.
TWO_ENCLAVES = (
    "import itertools; from kmstool.parent import accepting;"
    " from kmstool.parent.carrying import Peer; number = itertools.count();"
    " accepting.peer_of = lambda *_: (lambda cid: Peer(f'vsock CID {cid}', cid))("
    "16 if next(number) < 300 else 17)"
)


def test_a_flood_from_one_cid_leaves_room_for_the_others(way: Way, target: Target) -> None:
    options = ("--connections", "100", "--connections-per-cid", "40")
    with ForwardProcess(way, target.address, *options, before=TWO_ENCLAVES) as forward:
        with crowd(way, 300) as flood:
            assert len(gone(flood, 260)) == 260
            until(lambda: forward.refused("too-many-connections-of-this-cid") == 260)
            others = [Exchange(way, seed=n) for n in range(20)]
            for exchange in others:
                exchange.result()
        until(lambda: forward.open == 0)


def test_a_flood_of_short_connections_delays_transfers_and_breaks_none(
    way: Way, target: Target
) -> None:
    with ForwardProcess(way, target.address, "--connections", "30") as forward:
        steady = [Exchange(way, there=16 * MIB, back=16 * MIB, seed=n) for n in range(2)]
        until(lambda: forward.open == 2 or not any(one.is_alive() for one in steady))
        number = 0
        while any(one.is_alive() for one in steady) and number < 20_000:
            number += 1
            with contextlib.suppress(ConnectionError), way.connect() as sock:  # refused
                if number % 2:
                    sock.sendall(b"?")
        assert number > 20
        for exchange in steady:
            exchange.result()
        until(lambda: forward.open == 0)


@pytest.mark.long
def test_idle_and_life_time_each_end_what_they_are_for(way: Way) -> None:
    options = ("--idle-seconds", "2", "--lifetime-seconds", "4")
    with (
        TestTarget() as target,
        ForwardProcess(way, f"127.0.0.1:{target.port}", *options) as forward,
    ):
        began = time.monotonic()
        with (
            target_pair(way, target) as (idle, idle_far),
            target_pair(way, target) as (busy, busy_far),
        ):
            busy.settimeout(0.2)
            offset = 0
            with contextlib.suppress(ConnectionError):
                while time.monotonic() - began < 20:
                    busy_far.sendall(stream(9, offset, 10))
                    with contextlib.suppress(TimeoutError):
                        piece = busy.recv(100)
                        if not piece:
                            break
                        assert piece == stream(9, offset, 10)
                        offset += 10
                    time.sleep(0.1)
            assert time.monotonic() - began >= 4
            assert offset > 0
            assert ends(idle) in ("closed", "reset")
            assert ends(idle_far) == "reset"
        assert forward.said("idle for 2 seconds")
        assert forward.said("its life of 4 seconds was over")
        assert forward.open == 0


@pytest.mark.parametrize("spare", [40, 41])
def test_descriptors_that_run_out_come_back(way: Way, target: Target, spare: int) -> None:
    """Who is there goes on; who comes waits or is refused; then all is well.

    A connection needs two. With an even number the next client cannot even be accepted, and waits;
    with an odd one it is, and is refused. Then 200 come at once.
    """
    options = ("--connections", "500", "--connections-per-cid", "500")
    with ForwardProcess(way, target.address, *options) as forward:
        Exchange(way).result()
        until(lambda: forward.open == 0)
        at_rest, _threads = forward.settled()
        number = len(at_rest) + forward.pipes() + spare
        resource.prlimit(forward.pid, resource.RLIMIT_NOFILE, (number, number))
        with contextlib.ExitStack() as stack:
            there = []
            for _ in range(spare // 2):
                sock = stack.enter_context(way.connect())
                sock.sendall(request("X", there=2, back=1))
                assert take(sock, 1) == stream(0, 0, 1)
                there.append(sock)
            late = stack.enter_context(way.connect())
            if spare % 2:
                assert ends(late) in ("closed", "reset")
            else:
                forward.said("pauses: Too many open files")
            assert_sleeps(forward)
            if not spare % 2:
                finish(there.pop())
                late.sendall(request("X", back=1))
                assert take(late, 1) == stream(0, 0, 1)
            with crowd(way, 200) as burst:
                forward.said("Too many open files")
                for sock in there:
                    finish(sock)
        # Those of the burst who wait are accepted after they have gone.
        came = 1 + spare // 2 + 1 + len(burst)
        until(lambda: forward.metric("kmstool_forward_connections_total") == came)
        until(lambda: forward.open == 0)
        for n in range(10):
            Exchange(way, seed=n).result()
        until(lambda: forward.descriptors() == at_rest, say="descriptors leak")
        assert forward.pipes() <= 1 + 2 * limits.FORWARD_PIPES_KEPT  # one is its log


def finish(sock: socket.socket) -> None:
    """Ends an exchange that was to be of two bytes."""
    sock.sendall(stream(1, 0, 2))
    assert exactly(sock, 32) == digest(1, 2)
    sock.close()
