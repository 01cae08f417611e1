"""What goes in comes out: both ways, in any order, with every way to end a direction."""

import errno
import hashlib
import random
import socket
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.forwarding import (
    Forwarding,
    Sender,
    TestTarget,
    ends,
    fill,
    pair,
    read_all,
    reset,
    take,
    wait_until,
)

from kmstool import limits
from kmstool.endpoint import TcpAddress, UnixAddress
from kmstool.parent import pump, splicing

SIZES = st.sampled_from([1, 100, 1_024, 65_536, 262_144, 262_145, 700_000])
STEP = st.one_of(
    st.tuples(st.sampled_from(["client", "far"]), SIZES),
    st.tuples(st.sampled_from(["client ends", "far ends"]), st.just(0)),
)


@pytest.fixture(params=["unix", "tcp"])
def listen(request: pytest.FixtureRequest, tmp_path: Path) -> UnixAddress | TcpAddress:
    if request.param == "unix":
        return UnixAddress(str(tmp_path / "f.sock"))
    return TcpAddress("127.0.0.1", 0)


class Reader(threading.Thread):
    """Reads to the end, sometimes slowly."""

    def __init__(self, sock: socket.socket, seed: int) -> None:
        super().__init__()
        self._sock = sock
        self._random = random.Random(seed)
        self.digest = hashlib.sha256()
        self.count = 0
        self.start()

    def run(self) -> None:
        while piece := self._sock.recv(self._random.choice([100, 4_096, 65_536, 1_000_000])):
            self.digest.update(piece)
            self.count += len(piece)
            if self._random.random() < 0.02:
                time.sleep(0.002)


@given(steps=st.lists(STEP, max_size=14), seed=st.integers(0, 2**32))
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_interleaving_of_writes_and_half_closes(
    listen: UnixAddress | TcpAddress, steps: list[tuple[str, int]], seed: int
) -> None:
    source = random.Random(seed)
    with (
        TestTarget() as target,
        Forwarding(target.target, Path(), listen=listen) as forwarding,
        pair(forwarding, target) as (client, far),
    ):
        ends_of = {"client": client, "far": far}
        sent = {name: hashlib.sha256() for name in ends_of}
        counts = dict.fromkeys(ends_of, 0)
        open_ones = set(ends_of)
        readers = {"client": Reader(far, seed), "far": Reader(client, seed + 1)}
        for what, size in [*steps, ("client ends", 0), ("far ends", 0)]:
            name = what.partition(" ")[0]
            if name not in open_ones:
                continue
            if what.endswith("ends"):
                ends_of[name].shutdown(socket.SHUT_WR)
                open_ones.discard(name)
                continue
            data = source.randbytes(size)
            ends_of[name].sendall(data)
            sent[name].update(data)
            counts[name] += size
        for name, reader in readers.items():
            reader.join(30)
            assert not reader.is_alive()
            assert reader.count == counts[name]
            assert reader.digest.digest() == sent[name].digest()
        line = forwarding.line()
        assert line.fields["ended"] == "closed"
        assert line.fields["bytes_to_target"] == counts["client"]
        assert line.fields["bytes_to_client"] == counts["far"]


@pytest.mark.parametrize("seed", range(3))
def test_bulk_in_both_directions_at_once(listen: UnixAddress | TcpAddress, seed: int) -> None:
    there, back = (
        random.Random(seed).randbytes(6_000_000),
        random.Random(-seed).randbytes(7_654_321),
    )
    with (
        TestTarget() as target,
        Forwarding(target.target, Path(), listen=listen) as forwarding,
        pair(forwarding, target) as (client, far),
    ):
        readers = [Reader(client, seed), Reader(far, seed)]
        threads = [Sender(client, there), Sender(far, back)]
        for thread, sock in zip(threads, (client, far), strict=True):
            thread.join(30)
            sock.shutdown(socket.SHUT_WR)
        for reader, data in zip(readers, (back, there), strict=True):
            reader.join(30)
            assert reader.count == len(data)
            assert reader.digest.digest() == hashlib.sha256(data).digest()


def test_bulk_from_tcp_goes_through_a_pipe_which_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled = []
    real = splicing.Pipe.fill

    def noting(pipe: splicing.Pipe, sock: int) -> int:
        filled.append(sock)
        return real(pipe, sock)

    monkeypatch.setattr(splicing.Pipe, "fill", noting)
    with TestTarget() as target, Forwarding(target.target, tmp_path) as forwarding:
        pipes = forwarding.forwarder._shared.pipes
        for _ in range(3):
            with pair(forwarding, target) as (client, far):
                thread = Sender(far, bytes(8_000_000))
                assert take(client, 8_000_000) == bytes(8_000_000)
                thread.join()
                far.sendall(b"small")
                assert take(client, 5) == b"small"
            forwarding.line()
        assert filled
        assert pipes._lent == 0
        assert len(pipes._free) == 1


@pytest.mark.parametrize("direction", ["fill", "drain"])
def test_where_splice_is_not_possible_it_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direction: str
) -> None:
    def unfit(_self: object, _sock: int) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(splicing.Pipe, direction, unfit)
    data = random.Random(7).randbytes(5_000_000)
    with (
        TestTarget() as target,
        Forwarding(target.target, tmp_path) as forwarding,
        pair(forwarding, target) as (client, far),
    ):
        thread = Sender(far, data)
        assert take(client, len(data)) == data
        thread.join()
    assert forwarding.forwarder._shared.pipes._lent == 0


def test_without_a_pipe_to_be_had_it_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FORWARD_PIPES_MAX", 0)
    with (
        TestTarget() as target,
        Forwarding(target.target, tmp_path) as forwarding,
        pair(forwarding, target) as (client, far),
    ):
        thread = Sender(far, bytes(5_000_000))
        assert take(client, 5_000_000) == bytes(5_000_000)
        thread.join()


def test_a_pipe_that_holds_something_is_never_lent_again() -> None:
    pipes = splicing.Pipes()
    pipe = pipes.take()
    assert pipe is not None
    near, far = socket.socketpair()
    with near, far:
        near.sendall(b"another one's")
        assert pipe.fill(far.fileno()) == 13
    pipes.give_back(pipe)
    other = pipes.take()
    assert other is not None
    assert other is not pipe
    pipes.give_back(other)
    pipes.close()


def test_half_close_of_the_client_leaves_the_way_back_open(tmp_path: Path) -> None:
    with (
        TestTarget() as target,
        Forwarding(target.target, tmp_path) as forwarding,
        pair(forwarding, target) as (client, far),
    ):
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert read_all(far) == b"question"
        time.sleep(0.05)  # vsock-proxy drops the rest here
        far.sendall(b"answer")
        far.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"answer"
        assert forwarding.line().fields["ended"] == "closed"


def test_half_close_of_the_target_leaves_the_way_there_open(tmp_path: Path) -> None:
    with (
        TestTarget() as target,
        Forwarding(target.target, tmp_path) as forwarding,
        pair(forwarding, target) as (client, far),
    ):
        far.sendall(b"greeting")
        far.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"greeting"
        time.sleep(0.05)
        client.sendall(b"more")
        client.shutdown(socket.SHUT_WR)
        assert read_all(far) == b"more"
        assert forwarding.line().fields["ended"] == "closed"


def test_a_client_that_asks_and_is_gone_before_the_target_is_there(tmp_path: Path) -> None:
    with TestTarget() as target, Forwarding(target.target, tmp_path) as forwarding:
        with forwarding.connect() as client:
            client.sendall(b"one way")
        with target.accept() as far:
            assert read_all(far) == b"one way"


def test_a_reset_of_the_target_is_an_error_for_a_tcp_client(tmp_path: Path) -> None:
    listen = TcpAddress("127.0.0.1", 0)
    with (
        TestTarget() as target,
        Forwarding(target.target, tmp_path, listen=listen) as forwarding,
        pair(forwarding, target) as (client, far),
    ):
        far.sendall(b"before")
        assert client.recv(6) == b"before"
        reset(far)
        assert ends(client) == "reset"
        assert forwarding.line().fields["ended"] == "reset by the target"


def test_a_reset_of_the_target_ends_a_unix_client_after_what_came(tmp_path: Path) -> None:
    with (
        TestTarget() as target,
        Forwarding(target.target, tmp_path) as forwarding,
        pair(forwarding, target) as (client, far),
    ):
        far.sendall(b"before")
        wait_until(lambda: forwarding.moved("to_client") == 6)
        reset(far)
        assert read_all(client) == b"before"
        assert forwarding.line().fields["ended"] == "reset by the target"


def test_a_reset_of_the_client_is_an_error_for_the_target(tmp_path: Path) -> None:
    listen = TcpAddress("127.0.0.1", 0)
    with (
        TestTarget() as target,
        Forwarding(target.target, tmp_path, listen=listen) as forwarding,
        pair(forwarding, target) as (client, far),
    ):
        reset(client)
        assert ends(far) == "reset"
        assert forwarding.line().fields["ended"] == "reset by the client"


def test_a_client_that_goes_away_in_the_middle_is_an_error_for_the_target(tmp_path: Path) -> None:
    with (
        TestTarget() as target,
        Forwarding(target.target, tmp_path) as forwarding,
        pair(forwarding, target) as (client, far),
    ):
        thread = Sender(far, bytes(20_000_000))
        client.recv(1_000)
        client.close()
        thread.join(20)
        assert not thread.is_alive()
        assert isinstance(thread.error, ConnectionError) or ends(far) == "reset"
        assert forwarding.line().fields["ended"] in ("the client went away", "reset by the client")


def test_an_answer_that_nobody_took_is_an_error_for_the_target(tmp_path: Path) -> None:
    with (
        TestTarget() as target,
        Forwarding(target.target, tmp_path) as forwarding,
        pair(forwarding, target) as (client, far),
    ):
        client.close()
        assert read_all(far) == b""
        far.sendall(b"answer")
        assert forwarding.line().fields["ended"] == "the client went away"
        # It has read the client's end already: a reset then is EPIPE, and not to be read.
        wait_until(lambda: far.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EPIPE)


def test_a_client_gone_while_nothing_moves_is_noticed_at_its_half_close(tmp_path: Path) -> None:
    with (
        TestTarget() as target,
        Forwarding(target.target, tmp_path) as forwarding,
        pair(forwarding, target) as (client, far),
    ):
        client.close()
        assert read_all(far) == b""  # the end of the client's direction
        far.close()
        forwarding.line()


def test_an_answer_before_the_request_was_read_still_arrives(tmp_path: Path) -> None:
    """A server that refuses a large request answers, and closes with bytes unread: a reset."""
    with (
        TestTarget() as target,
        Forwarding(target.target, tmp_path) as forwarding,
        pair(forwarding, target) as (client, far),
    ):
        far.sendall(b"413 too large")
        assert client.recv(100) == b"413 too large"
        client.sendall(b"x" * 1_000)
        far.recv(1)
        far.close()
        forwarding.line()


def test_what_one_direction_holds_is_bounded(tmp_path: Path) -> None:
    """Nobody reads: the writer is stopped, and nothing runs in circles meanwhile."""
    with (
        TestTarget() as target,
        Forwarding(target.target, tmp_path) as forwarding,
        pair(forwarding, target) as (client, far),
    ):
        taken = fill(client)
        before = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - before < 0.1, "a busy loop"
        # Socket buffers of three sockets, which the system grows, and one buffer of ours.
        assert taken < 64_000_000
        left = forwarding.forwarder._connections.copy().pop()._pump
        assert left is not None
        lane = left._client.out
        assert lane.blocked
        assert len(lane._left or b"") <= limits.FORWARD_BUFFER
        reader = Reader(far, 1)
        client.close()
        reader.join(30)
        assert reader.count == taken


@pytest.mark.parametrize("gone", ["client", "far"])
def test_a_side_that_breaks_while_the_other_does_not_read_makes_no_busy_loop(
    tmp_path: Path, gone: str
) -> None:
    """epoll tells of a broken socket without end, whether it was asked or not."""
    with (
        TestTarget() as target,
        Forwarding(
            target.target, tmp_path, listen=TcpAddress("127.0.0.1", 0), limits={"idle_seconds": 1.5}
        ) as forwarding,
        pair(forwarding, target) as (client, far),
    ):
        writer, silent = (client, far) if gone == "client" else (far, client)
        fill(writer)
        reset(writer)
        before = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - before < 0.1
        forwarding.line()  # and the idle limit ends it
        silent.close()


def test_reset_on_close_knows_which_sockets_have_it() -> None:
    near, far = socket.socketpair()
    with near, far:
        pump.reset_on_close(near)  # a Unix socket: nothing to set, and no error
