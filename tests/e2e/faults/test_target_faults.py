"""A target that dies, is silent, refuses, resets or half-closes."""

import socket
import threading
import time

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
from support.forwarding import TestTarget, ends, read_all, reset, take
from support.streams import stream


def test_the_target_is_killed_in_mid_transfer(way: Way) -> None:
    """Every client hears of it, what came before is right, and the target's successor is found."""
    with Target() as first:
        port = first.port
        with ForwardProcess(way, first.address) as forward:
            never = threading.Event()
            sending = [Exchange(way, there=8 * MIB, seed=n, gate=never) for n in range(4)]
            for exchange in sending:
                assert exchange.halfway.wait(20)
            reading = [way.connect() for _ in range(4)]
            for n, sock in enumerate(reading):
                sock.sendall(request("F", seed=n))
                assert take(sock, 1) == stream(n, 0, 1)
            first.kill()
            for n, sock in enumerate(reading):
                rest, _how = verified_until_end(sock, n, 1)
                assert rest > 1
                sock.close()
            never.set()
            for exchange in sending:
                exchange.failed()
            until(lambda: forward.open == 0)
            with way.connect() as sock:  # nobody there
                assert ends(sock) in ("closed", "reset")
            until(lambda: forward.refused("target-refuses") == 1)
            with Target(port=port):
                Exchange(way, there=MIB, back=MIB).result()


def test_a_target_that_accepts_and_says_nothing(way: Way) -> None:
    """Ends at the idle limit, for both, and not before; the others are served meanwhile."""
    with (
        TestTarget() as silent,
        ForwardProcess(way, f"127.0.0.1:{silent.port}", "--idle-seconds", "1") as forward,
    ):
        began = time.monotonic()
        with way.connect() as client:
            client.sendall(b"hello?")
            with silent.accept() as far:
                assert ends(client) in ("closed", "reset")
                assert time.monotonic() - began >= 1
                assert ends(far) == "reset"
        forward.said("idle for 1 seconds")
        assert forward.open == 0


def test_a_target_whose_queue_is_full(way: Way) -> None:
    """It takes no connection and refuses none: the connect limit ends it."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        to = full.getsockname()
        waiting = [socket.socket() for _ in range(3)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(to)
        options = ("--connect-seconds", "1")
        with ForwardProcess(way, f"127.0.0.1:{to[1]}", *options) as forward:
            began = time.monotonic()
            with crowd(way, 20) as clients:
                for client in clients:
                    assert ends(client) in ("closed", "reset")
            assert time.monotonic() - began >= 1
            until(lambda: forward.refused("target-does-not-answer") == 20)
            assert forward.open == 0
        for sock in waiting:
            sock.close()


def test_a_reset_of_the_target_after_its_last_byte(way: Way) -> None:
    """All that arrived before it is handed on, whole and right."""
    with TestTarget() as target, ForwardProcess(way, f"127.0.0.1:{target.port}") as forward:
        with way.connect() as client, target.accept() as far:
            sent = stream(3, 0, 50_000)
            far.sendall(sent)
            assert take(client, len(sent)) == sent
            reset(far)
            assert ends(client) in ("closed", "reset")
        forward.said("reset by the target")


def test_a_reset_of_the_target_is_an_error_where_there_is_a_form_for_it(tcp: Way) -> None:
    with (
        TestTarget() as target,
        ForwardProcess(tcp, f"127.0.0.1:{target.port}"),
        tcp.connect() as client,
        target.accept() as far,
    ):
        reset(far)
        assert ends(client) == "reset"


def test_resets_in_the_middle_of_bulk(way: Way, target: Target) -> None:
    """A right beginning, then the end; never a wrong byte."""
    with ForwardProcess(way, target.address) as forward:
        for n in range(10):
            with way.connect() as client:
                client.sendall(request("R", back=2 * MIB, seed=n))
                count, _how = verified_until_end(client, n)
                assert count <= 2 * MIB
        until(lambda: forward.open == 0)
        Exchange(way).result()


def test_half_close_by_the_target(way: Way) -> None:
    """It has said all; the way there stays open, for as long as the client likes."""
    with TestTarget() as target, ForwardProcess(way, f"127.0.0.1:{target.port}") as forward:
        with way.connect() as client, target.accept() as far:
            far.sendall(b"all of the answer")
            far.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"all of the answer"
            data = b"".join(stream(7, n * 65_536, 65_536) for n in range(48))
            sender = threading.Thread(target=client.sendall, args=(data,))
            sender.start()
            assert take(far, len(data)) == data
            sender.join(20)
            client.shutdown(socket.SHUT_WR)
            assert read_all(far) == b""
        assert forward.said(f"{len(data)} bytes there, 17 back").endswith(": closed\n")


@pytest.mark.long
@pytest.mark.parametrize("direction", ["there", "back"])
def test_a_slow_drip_outlives_the_idle_limit(way: Way, direction: str) -> None:
    """A byte in either direction keeps the connection; when it stops, the limit counts from it."""
    with (
        TestTarget() as target,
        ForwardProcess(way, f"127.0.0.1:{target.port}", "--idle-seconds", "2") as forward,
        way.connect() as client,
        target.accept() as far,
    ):
        source, sink = (client, far) if direction == "there" else (far, client)
        for n in range(12):
            source.sendall(stream(5, n, 1))
            assert take(sink, 1) == stream(5, n, 1)
            time.sleep(0.25)
        last = time.monotonic()
        assert ends(sink) in ("closed", "reset")
        assert time.monotonic() - last >= 1.5  # a quarter of a second has gone before
        forward.said("idle for 2 seconds")
