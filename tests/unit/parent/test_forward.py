"""The forwarder's limits, each on its own; its names, log, end and change of settings."""

import contextlib
import errno
import json
import os
import resource
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.forwarding import (
    PATIENCE,
    Forwarding,
    TestTarget,
    ends,
    pair,
    take,
    wait_until,
)

from kmstool import limits
from kmstool.endpoint import TcpAddress, UnixAddress
from kmstool.errors import SettingError, TransportError
from kmstool.parent import accepting, descriptors
from kmstool.parent.carrying import Peer
from kmstool.parent.dialling import SocketAddress
from kmstool.parent.forward import Forwarder
from kmstool.parent.settings import ForwardLimits, Route, Target


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def descriptors_open() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_client_beyond_the_limit_is_closed_at_once(tmp_path: Path) -> None:
    with (
        TestTarget() as target,
        Forwarding(target.target, tmp_path, limits={"connections": 2}) as forwarding,
        pair(forwarding, target),
    ):
        with pair(forwarding, target):
            started = time.monotonic()
            with forwarding.connect() as third:
                assert ends(third) == "closed"
            assert time.monotonic() - started < 1
            line = forwarding.line()
            assert line.fields["refused"] == "too-many-connections"
            assert line == f"unix to {target.target}: refused: too-many-connections"
            assert forwarding.refused("too-many-connections") == 1
        forwarding.line()
        with pair(forwarding, target) as (client, far):  # there is room again
            client.sendall(b"x")
            assert take(far, 1) == b"x"


def test_a_client_of_tcp_beyond_the_limit_gets_an_error(tmp_path: Path) -> None:
    listen = TcpAddress("127.0.0.1", 0)
    with (
        TestTarget() as target,
        Forwarding(target.target, tmp_path, listen=listen, limits={"connections": 1}) as forwarding,
        pair(forwarding, target),
        forwarding.connect() as second,
    ):
        assert ends(second) == "reset"


def test_the_limit_of_one_cid_and_the_list_of_cids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As over a vsock, which no machine of ours has: CIDs come from a list."""
    cids = iter([16, 17, 17, 99])

    def from_list(_address: object, _peer: object) -> Peer:
        cid = next(cids)
        return Peer(f"vsock CID {cid}", cid)

    monkeypatch.setattr(accepting, "peer_of", from_list)
    with (
        TestTarget() as target,
        Forwarding(
            target.target, tmp_path, limits={"connections_per_cid": 1}, allowed_cids=[16, 17]
        ) as forwarding,
        pair(forwarding, target),
        pair(forwarding, target),
    ):
        with forwarding.connect() as second_of_17:
            assert ends(second_of_17) == "closed"
        assert forwarding.line().fields["refused"] == "too-many-connections-of-this-cid"
        with forwarding.connect() as stranger:
            assert ends(stranger) == "closed"
        line = forwarding.line()
        assert (line.fields["refused"], line.fields["cid"]) == ("cid-not-allowed", 99)
        assert forwarding.refused("cid-not-allowed") == 1


def test_a_target_that_refuses(tmp_path: Path) -> None:
    to = Target("127.0.0.1", unused_port())
    with Forwarding(to, tmp_path) as forwarding, forwarding.connect() as client:
        assert ends(client) == "closed"
        assert "Connection refused" in forwarding.line()
        assert forwarding.refused("target-refuses") == 1
        assert forwarding.forwarder.alive


def test_a_target_that_does_not_answer_is_given_up_in_time(tmp_path: Path) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        to = Target("127.0.0.1", full.getsockname()[1])
        waiting = [socket.socket() for _ in range(3)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex((to.host, to.port))
        with (
            Forwarding(to, tmp_path, limits={"connect_seconds": 0.3}) as forwarding,
            forwarding.connect() as client,
        ):
            started = time.monotonic()
            assert ends(client) == "closed"
            assert 0.2 < time.monotonic() - started < 2
            assert "not connected in 0.3 seconds" in forwarding.line()
            assert forwarding.refused("target-does-not-answer") == 1
        for sock in waiting:
            sock.close()


def test_an_idle_connection_is_ended_and_a_busy_one_is_not(tmp_path: Path) -> None:
    listen = TcpAddress("127.0.0.1", 0)
    with (
        TestTarget() as target,
        Forwarding(
            target.target, tmp_path, listen=listen, limits={"idle_seconds": 0.4}
        ) as forwarding,
        pair(forwarding, target) as (idle, idle_far),
        pair(forwarding, target) as (busy, busy_far),
    ):
        for _ in range(8):
            busy.sendall(b"x")
            assert take(busy_far, 1) == b"x"
            time.sleep(0.1)
        assert ends(idle) == "reset"
        assert ends(idle_far) == "reset"
        assert forwarding.line().fields["ended"] == "idle for 0.4 seconds"
        busy_far.sendall(b"y")
        assert take(busy, 1) == b"y"


def test_a_connection_has_a_life_time_however_busy(tmp_path: Path) -> None:
    listen = TcpAddress("127.0.0.1", 0)
    with (
        TestTarget() as target,
        Forwarding(
            target.target, tmp_path, listen=listen, limits={"lifetime_seconds": 0.4}
        ) as forwarding,
        pair(forwarding, target) as (client, _far),
    ):
        with contextlib.suppress(ConnectionError):
            while True:
                client.sendall(b"x")
                time.sleep(0.01)
        assert forwarding.line().fields["ended"] == "its life of 0.4 seconds was over"


def test_the_wall_clock_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        TestTarget() as target,
        Forwarding(target.target, tmp_path, limits={"idle_seconds": 30}) as forwarding,
        pair(forwarding, target) as (client, far),
    ):
        monkeypatch.setattr(time, "time", lambda: 4e9)
        for _ in range(3):
            client.sendall(b"x")
            assert take(far, 1) == b"x"


class Names:
    """A name server that does what the test says."""

    def __init__(self, *addresses: SocketAddress) -> None:
        self.addresses: Sequence[SocketAddress] | OSError = addresses
        self.asked = 0
        self.go = threading.Event()
        self.go.set()

    def __call__(self, _host: str, _port: int) -> Sequence[SocketAddress]:
        self.asked += 1
        self.go.wait(PATIENCE)
        if isinstance(self.addresses, OSError):
            raise self.addresses
        return self.addresses


def at(target: TestTarget) -> SocketAddress:
    return socket.AF_INET, ("127.0.0.1", target.port)


NO_NAME = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


def test_a_name_that_stops_resolving_is_used_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FORWARD_RESOLVE_SECONDS", 0.0)
    monkeypatch.setattr(limits, "FORWARD_RESOLVE_RETRY", 0.0)
    with TestTarget() as target:
        names = Names(at(target))
        with Forwarding(Target("kms.test", 443), tmp_path, look_up=names) as forwarding:
            with pair(forwarding, target):
                pass
            forwarding.line()
            names.addresses = NO_NAME
            for _ in range(2):
                with pair(forwarding, target) as (client, far):
                    client.sendall(b"x")
                    assert take(far, 1) == b"x"
            lines = [forwarding.line() for _ in range(3)]
            told = [line for line in lines if "does not resolve" in line]
            assert len(told) == 1
            assert told[0] == (
                "the name kms.test does not resolve (Temporary failure in name resolution); its"
                " last addresses are used on: 127.0.0.1"
            )
            assert forwarding.metric("kmstool_forward_name_failures_total") == 2
            names.addresses = [at(target)]
            with pair(forwarding, target):
                assert forwarding.line() == "the name kms.test resolves again"


def test_a_name_that_never_resolved_refuses_and_goes_on(tmp_path: Path) -> None:
    names = Names()
    names.addresses = NO_NAME
    with (
        TestTarget() as target,
        Forwarding(Target("kms.test", 443), tmp_path, look_up=names) as forwarding,
    ):
        with forwarding.connect() as client:
            assert ends(client) == "closed"
        assert "its connections are refused until it does" in forwarding.line()
        assert forwarding.line().fields["ended"] == "the target's name does not resolve"
        with forwarding.connect() as client:
            assert ends(client) == "closed"
        assert names.asked == 1, "asked again within a second"
        assert forwarding.refused("target-name-does-not-resolve") == 2
        names.addresses = [at(target)]
        time.sleep(limits.FORWARD_RESOLVE_RETRY)
        with pair(forwarding, target):
            pass


@pytest.mark.parametrize("address", ["169.254.169.254", "fd00:ec2::254", "::ffff:169.254.169.254"])
def test_a_name_does_not_lead_to_the_metadata_service(address: str, tmp_path: Path) -> None:
    """Whoever answers for the name would otherwise give an enclave the instance's credentials."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    names = Names((family, (address, 80)))
    with (
        TestTarget() as target,
        Forwarding(Target("kms.test", 80), tmp_path, look_up=names) as forwarding,
    ):
        with forwarding.connect() as client:
            assert ends(client) == "closed"
        assert "(it leads to the credentials of this instance)" in forwarding.line()
        assert forwarding.refused("target-name-does-not-resolve") == 1
        names.addresses = [(family, (address, 80)), at(target)]
        time.sleep(limits.FORWARD_RESOLVE_RETRY)
        with pair(forwarding, target):
            pass


def test_a_name_with_a_thousand_addresses_costs_no_more_than_a_few(tmp_path: Path) -> None:
    """Each attempt takes a descriptor, and a line of the log has them all."""
    wrong = [
        (socket.AF_INET, (f"127.0.1.{last}", 1)) for last in range(limits.FORWARD_ADDRESSES_MAX)
    ]
    with TestTarget() as target:
        names = Names(*wrong, at(target))
        with Forwarding(Target("kms.test", 443), tmp_path, look_up=names) as forwarding:
            with forwarding.connect() as client:
                assert ends(client) == "closed"
            assert forwarding.refused("target-refuses") == 1
            names.addresses = [*wrong[1:], at(target)]
            with pair(forwarding, target):
                pass


def test_a_target_that_moved_is_found_within_the_same_connection(tmp_path: Path) -> None:
    with TestTarget() as old, TestTarget() as new:
        names = Names(at(old))
        with Forwarding(Target("kms.test", 443), tmp_path, look_up=names) as forwarding:
            with pair(forwarding, old):
                pass
            forwarding.line()
            old.close()
            names.addresses = [at(new)]
            with pair(forwarding, new) as (client, far):
                client.sendall(b"x")
                assert take(far, 1) == b"x"
            assert names.asked == 2
            assert forwarding.refused("target-refuses") == 0


def test_a_slow_name_server_delays_nobody_who_has_an_older_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FORWARD_RESOLVE_SECONDS", 0.0)
    monkeypatch.setattr(limits, "FORWARD_RESOLVE_PATIENCE", 0.2)
    with TestTarget() as target:
        names = Names(at(target))
        with Forwarding(Target("kms.test", 443), tmp_path, look_up=names) as forwarding:
            with pair(forwarding, target):
                pass
            names.go.clear()
            started = time.monotonic()
            with pair(forwarding, target), pair(forwarding, target):
                assert 0.15 < time.monotonic() - started < 2
            started = time.monotonic()
            with pair(forwarding, target):  # known to be slow by now
                assert time.monotonic() - started < 0.15
            assert names.asked == 2, "one look-up at a time"
            names.go.set()


def test_a_name_server_that_never_answers_is_bounded_by_the_connect_limit(tmp_path: Path) -> None:
    names = Names()
    names.go.clear()
    with (
        Forwarding(
            Target("kms.test", 443), tmp_path, look_up=names, limits={"connect_seconds": 0.3}
        ) as forwarding,
        forwarding.connect() as client,
    ):
        assert ends(client) == "closed"
        assert forwarding.refused("target-name-does-not-resolve") == 1
        names.go.set()


def test_the_second_address_is_tried_when_the_first_is_silent(tmp_path: Path) -> None:
    with TestTarget() as target, socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        silent = full.getsockname()
        waiting = [socket.socket() for _ in range(3)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(silent)
        names = Names((socket.AF_INET, silent), at(target))
        with Forwarding(Target("kms.test", 443), tmp_path, look_up=names) as forwarding:
            started = time.monotonic()
            with pair(forwarding, target):
                assert 0.2 < time.monotonic() - started < 2
            assert 0.2 < forwarding.line().fields["connect_seconds"] < 2
        for sock in waiting:
            sock.close()


def test_descriptors_that_run_out_end_nothing(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with (
        TestTarget() as target,
        Forwarding(target.target, tmp_path) as forwarding,
        pair(forwarding, target) as (client, far),
        socket.socket(socket.AF_UNIX) as late,
    ):
        late.settimeout(PATIENCE)
        hoard: list[int] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
        with contextlib.suppress(OSError):
            while True:
                hoard.append(os.dup(client.fileno()))
        try:
            late.connect(forwarding.forwarder.bound_to(forwarding.listen))
            assert "pauses: Too many open files" in forwarding.line()
            before = time.process_time()
            time.sleep(0.5)
            assert time.process_time() - before < 0.1, "a busy loop"
            client.sendall(b"x")  # who is there goes on
            assert take(far, 1) == b"x"
            assert forwarding.metric("kmstool_forward_accept_pauses_total") == 1, "said once"
        finally:
            for descriptor in hoard:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        with target.accept() as far_of_late:
            far_of_late.sendall(b"at last")
            assert take(late, 7) == b"at last"


def test_no_descriptor_for_the_target_refuses_that_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_arguments: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("kmstool.parent.dialling._connecting", none_left)
    with (
        TestTarget() as target,
        Forwarding(target.target, tmp_path) as forwarding,
        forwarding.connect() as client,
    ):
        assert ends(client) == "closed"
        assert forwarding.refused("out-of-descriptors") == 1


def test_a_slow_reader_of_the_log_stops_no_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FORWARD_LOG_LINES", 10)
    stuck = threading.Event()
    lines: list[str] = []

    def report(line: str) -> None:
        stuck.wait(PATIENCE)
        lines.append(line)

    with TestTarget() as target, Forwarding(target.target, tmp_path, report=report) as forwarding:
        for _ in range(30):
            with pair(forwarding, target) as (client, far):
                client.sendall(b"x")
                assert take(far, 1) == b"x"
        wait_until(lambda: forwarding.metric("kmstool_forward_log_lines_lost_total") >= 15)
        stuck.set()
        wait_until(lambda: any("lines of the log were lost" in line for line in lines))


def test_the_log_has_a_line_for_each_connection(tmp_path: Path) -> None:
    with TestTarget() as target, Forwarding(target.target, tmp_path) as forwarding:
        with pair(forwarding, target) as (client, far):
            client.sendall(b"12345")
            take(far, 5)
            far.sendall(b"123")
            take(client, 3)
        line = forwarding.line()
        assert line.startswith(f"unix to {target.target}: 5 bytes there, 3 back, ")
        assert line.endswith(" s: closed")
        fields = json.loads(json.dumps(line.fields))
        assert set(fields) == {
            *("peer", "cid", "listen", "target", "bytes_to_target", "bytes_to_client"),
            *("connect_seconds", "seconds", "ended"),
        }
        assert fields["seconds"] >= fields["connect_seconds"] > 0


def test_the_end_waits_for_open_connections(tmp_path: Path) -> None:
    with TestTarget() as target, Forwarding(target.target, tmp_path) as forwarding:
        with pair(forwarding, target) as (client, far):
            stopping = threading.Thread(target=forwarding.forwarder.stop, args=(PATIENCE,))
            stopping.start()
            wait_until(lambda: not (tmp_path / "forward.sock").exists())
            client.sendall(b"still")
            assert take(far, 5) == b"still"
        stopping.join(5)
        assert not stopping.is_alive()
        assert forwarding.line().fields["ended"] == "closed"
        assert not forwarding.forwarder.alive


def test_the_end_ends_what_is_left(tmp_path: Path) -> None:
    listen = TcpAddress("127.0.0.1", 0)
    with (
        TestTarget() as target,
        Forwarding(target.target, tmp_path, listen=listen) as forwarding,
        pair(forwarding, target) as (client, far),
    ):
        started = time.monotonic()
        forwarding.forwarder.stop(drain_seconds=0.2)
        assert 0.15 < time.monotonic() - started < 2
        assert ends(client) == "reset"
        assert ends(far) == "reset"
        assert forwarding.line().fields["ended"] == "the forwarder ended"


def test_the_end_ends_what_was_still_connecting(tmp_path: Path) -> None:
    names = Names()
    names.go.clear()
    with (
        Forwarding(Target("kms.test", 443), tmp_path, look_up=names) as forwarding,
        forwarding.connect() as client,
    ):
        wait_until(lambda: names.asked == 1)
        forwarding.forwarder.stop(drain_seconds=0)
        assert ends(client) == "closed"
        assert forwarding.line().fields["ended"] == "the forwarder ended"
        names.go.set()


def test_settings_change_without_dropping_a_connection(tmp_path: Path) -> None:
    other = UnixAddress(str(tmp_path / "other.sock"))
    with (
        TestTarget() as first,
        TestTarget() as second,
        Forwarding(first.target, tmp_path) as forwarding,
        pair(forwarding, first) as (client, far),
    ):
        forwarder = forwarding.forwarder
        forwarder.reconfigure(
            [Route(forwarding.listen, second.target), Route(other, first.target)],
            limits=ForwardLimits(connections=2),
            allowed_cids=[],
        )
        client.sendall(b"still")
        assert take(far, 5) == b"still"
        with pair(forwarding, second):
            with forwarding.connect() as third:
                assert ends(third) == "closed"
            assert forwarding.line().fields["refused"] == "too-many-connections"
        forwarding.line()
        forwarder.reconfigure([Route(other, first.target)], limits=ForwardLimits(), allowed_cids=[])
        assert not Path(str(tmp_path / "forward.sock")).exists()
        client.sendall(b"still")
        assert take(far, 5) == b"still"
        with socket.socket(socket.AF_UNIX) as at_other:
            at_other.connect(other.path)
            first.accept().close()


def test_a_change_that_cannot_be_made_changes_nothing(tmp_path: Path) -> None:
    taken = UnixAddress(str(tmp_path / "nowhere" / "x.sock"))
    fresh = UnixAddress(str(tmp_path / "fresh.sock"))
    with TestTarget() as target, Forwarding(target.target, tmp_path) as forwarding:
        with pytest.raises(TransportError):
            forwarding.forwarder.reconfigure(
                [Route(fresh, target.target), Route(taken, target.target)],
                limits=ForwardLimits(connections=1),
                allowed_cids=[],
            )
        assert not Path(fresh.path).exists()
        with pair(forwarding, target), pair(forwarding, target):
            pass


def test_two_routes_cannot_have_one_address(tmp_path: Path) -> None:
    listen, to = UnixAddress(str(tmp_path / "x")), Target("kms.test", 443)
    with pytest.raises(SettingError, match="two routes listen on"):
        Forwarder([Route(listen, to), Route(listen, to)])


def test_it_starts_on_every_route_or_on_none(tmp_path: Path) -> None:
    good = UnixAddress(str(tmp_path / "good.sock"))
    bad = UnixAddress(str(tmp_path / "nowhere" / "bad.sock"))
    to = Target("kms.test", 443)
    before = descriptors_open()
    forwarder = Forwarder([Route(good, to), Route(bad, to)])
    for _ in range(2):
        with pytest.raises(TransportError):
            forwarder.start()
    assert not Path(good.path).exists()
    assert not forwarder.alive
    assert descriptors_open() == before


def test_another_one_s_socket_file_is_left_alone(tmp_path: Path) -> None:
    with TestTarget() as target:
        with Forwarding(target.target, tmp_path) as forwarding:
            path = Path(str(tmp_path / "forward.sock"))
            path.unlink()
            path.write_text("somebody else's")
            del forwarding
        assert path.exists()


def test_a_bug_ends_one_connection_and_not_the_forwarder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_loop: object, _client: object, far: socket.socket, **_options: object) -> None:
        far.close()
        raise ZeroDivisionError("with a secret in it")

    with (
        TestTarget() as target,
        Forwarding(target.target, tmp_path, limits={"connect_seconds": 0.3}) as forwarding,
    ):
        with monkeypatch.context() as patch:
            patch.setattr("kmstool.parent.carrying.Pump", broken)
            with pair(forwarding, target):
                line = forwarding.line()
        assert line.startswith("a bug of the forwarder: ZeroDivisionError in broken")
        assert "secret" not in line
        assert "not connected" in forwarding.line()
        with pair(forwarding, target) as (client, far):
            client.sendall(b"x")
            assert take(far, 1) == b"x"


def test_a_bug_over_one_client_does_not_make_the_listener_deaf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object, **_options: object) -> None:
        raise ZeroDivisionError

    with (
        TestTarget() as target,
        Forwarding(target.target, tmp_path, limits={"connections": 1}) as forwarding,
    ):
        with monkeypatch.context() as patch:
            patch.setattr("kmstool.parent.forward.Connection", broken)
            with forwarding.connect() as client:
                assert ends(client) == "closed"
        assert forwarding.line().startswith("a bug of the forwarder: ZeroDivisionError")
        with pair(forwarding, target) as (client, far):  # and its place is free again
            client.sendall(b"x")
            assert take(far, 1) == b"x"


def test_without_threads_for_a_look_up_the_client_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("can't start new thread")

    with Forwarding(Target("kms.test", 443), tmp_path, look_up=Names()) as forwarding:
        with monkeypatch.context() as patch:
            patch.setattr("kmstool.parent.resolving.threading.Thread", none_left)
            with forwarding.connect() as client:
                assert ends(client) == "closed"
        assert "can't start new thread" in forwarding.line()
        assert forwarding.forwarder.alive


def test_nothing_is_left_after_many_connections(tmp_path: Path) -> None:
    with TestTarget() as target, Forwarding(target.target, tmp_path) as forwarding:
        before = descriptors_open()
        for _ in range(300):
            with pair(forwarding, target) as (client, far):
                client.sendall(b"x")
                take(far, 1)
        for _ in range(300):
            forwarding.line()
        wait_until(lambda: descriptors_open() <= before)  # they are closed after the line
        loop = forwarding.forwarder._loop
        assert len(loop._handlers) == 2  # the listener, and the loop's own
        assert len(loop._timers) < 600
        assert forwarding.metric("kmstool_forward_connections_open") == 0
        assert forwarding.metric("kmstool_forward_connections_total") == 300
        assert forwarding.metric("kmstool_forward_connect_seconds_count") == 300


def test_descriptors_are_raised_as_far_as_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [(1024, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _which: now[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _which, pair: now.append(pair))
    assert descriptors.raise_limit(400) == 400
    assert len(now) == 1
    assert descriptors.raise_limit(1000) == 1000
    assert now[-1] == (2128, 4096)
    assert descriptors.raise_limit(3000) == (4096 - 128) // 2
    assert now[-1] == (4096, 4096)
