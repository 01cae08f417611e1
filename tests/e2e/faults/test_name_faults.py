"""A target's name in the real resolver: it stops resolving, moves, or its server says nothing.

The forwarder runs in a mount namespace of its own with its own /etc/hosts, resolv.conf and
nsswitch.conf, so nothing is asked outside of this machine.
"""

import os
import shlex
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from support.faults import MIB, Exchange, ForwardProcess, Target, Way, until
from support.forwarding import ends

NAME = "kms.test"
SILENT = "127.9.8.7"  # a name server on loopback that reads no question
AGES_QUICKLY = (
    "from kmstool import limits;"
    " limits.FORWARD_RESOLVE_SECONDS = limits.FORWARD_RESOLVE_RETRY = 0.2"
)


class Resolving:
    """The files of the namespace, and how a command is started in it."""

    def __init__(self, folder: Path, unshare: Sequence[str]) -> None:
        self._hosts = folder / "hosts"
        files = {"hosts": "", "resolv.conf": f"nameserver {SILENT}\n", "nsswitch.conf": ""}
        for name, text in files.items():
            (folder / name).write_text(text)
        self._nsswitch = folder / "nsswitch.conf"
        self.asks("files")
        mounts = [f"mount --bind {shlex.quote(str(folder / name))} /etc/{name}" for name in files]
        self.wrapper = (*unshare, "sh", "-c", " && ".join([*mounts, 'exec "$@"']), "sh")

    def asks(self, where: str) -> None:
        self._nsswitch.write_text(f"hosts: {where}\n")

    def says(self, *addresses: str) -> None:
        """From now on the name has these addresses. One write: the file is never half of it."""
        text = "".join(f"{address} {NAME}\n" for address in addresses)
        self._hosts.write_text(text)


@pytest.fixture
def names(tmp_path: Path) -> Resolving:
    for unshare in (["unshare", "-m"], ["unshare", "-r", "-m"]):
        one = Resolving(tmp_path, unshare)
        one.says("127.0.0.1")
        done = subprocess.run(
            [*one.wrapper, "getent", "hosts", NAME], capture_output=True, timeout=20, check=False
        )
        if NAME.encode() in done.stdout:
            return one
    if os.environ.get("CI"):
        pytest.fail("no mount namespace can be made, and CI must be able to")
    pytest.skip("no mount namespace can be made here, not even in a user namespace")


def through(forward: ForwardProcess, way: Way, done: Callable[[], bool]) -> None:
    """One transfer after another, each whole, until something has come about."""

    def once() -> bool:
        Exchange(way).result()
        return done()

    until(once)


def test_a_name_that_stops_resolving(way: Way, target: Target, names: Resolving) -> None:
    """Its last address is used on, which is said once; and it is noticed when it resolves again."""
    to = f"{NAME}:{target.port}"
    with ForwardProcess(way, to, before=AGES_QUICKLY, wrapper=names.wrapper) as forward:
        Exchange(way).result()
        names.says()
        told = "the name kms.test does not resolve"
        through(forward, way, lambda: any(told in line for line in forward.lines))
        failures = "kmstool_forward_name_failures_total"
        through(forward, way, lambda: forward.metric(failures) >= 3)
        said = [line for line in forward.lines if told in line]
        assert len(said) == 1
        assert "its last addresses are used on: 127.0.0.1" in said[0]
        names.says("127.0.0.1")
        again = "the name kms.test resolves again"
        through(forward, way, lambda: any(again in line for line in forward.lines))
        assert forward.refused("target-name-does-not-resolve") == 0


def test_a_name_that_moves(way: Way, target: Target, names: Resolving) -> None:
    """A target that dies while its name moves: the next connection finds the new one by itself."""
    to = f"{NAME}:{target.port}"
    with (
        Target("127.0.0.2", target.port),
        ForwardProcess(way, to, wrapper=names.wrapper) as forward,  # an answer is good for 30 s
    ):
        Exchange(way).result()
        names.says("127.0.0.2")
        target.kill()
        Exchange(way, there=MIB, back=MIB).result()
        forward.said("kms.test is now at 127.0.0.2")
        assert forward.refused("target-refuses") == 0


def test_a_name_of_two_addresses_of_which_one_is_dead(
    way: Way, target: Target, names: Resolving
) -> None:
    names.says("::1", "127.0.0.1")
    to = f"{NAME}:{target.port}"
    with ForwardProcess(way, to, wrapper=names.wrapper) as forward:
        for n in range(5):
            Exchange(way, seed=n).result()
        assert forward.refused("target-refuses") == 0


def test_a_name_that_did_not_resolve_when_it_started(
    way: Way, target: Target, names: Resolving
) -> None:
    """Clients are refused, the process lives, and it works as soon as the name does."""
    names.says()
    to = f"{NAME}:{target.port}"
    with ForwardProcess(way, to, before=AGES_QUICKLY, wrapper=names.wrapper) as forward:
        for _ in range(3):
            with way.connect() as client:
                assert ends(client) in ("closed", "reset")
        until(lambda: forward.refused("target-name-does-not-resolve") == 3)
        forward.said("its connections are refused until it does")
        names.says("127.0.0.1")

        def works() -> bool:
            try:
                Exchange(way).result()
            except (OSError, EOFError, AssertionError):
                return False
            return True

        until(works)


@pytest.fixture
def silent_server() -> Iterator[None]:
    """Takes questions and answers none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # another run of this suite
        try:
            server.bind((SILENT, 53))
        except PermissionError:
            pytest.skip("port 53 of loopback needs root")
        yield


def test_a_name_server_that_says_nothing(
    way: Way, target: Target, names: Resolving, silent_server: None
) -> None:
    """The connect limit holds, and a look-up that hangs does not keep the process from ending."""
    names.asks("dns")
    to = f"{NAME}:{target.port}"
    options = ("--connect-seconds", "0.5")
    with ForwardProcess(way, to, *options, wrapper=names.wrapper) as forward:
        threads = 0
        for _ in range(4):
            with way.connect() as client:
                assert ends(client) in ("closed", "reset")
            threads = max(threads, forward.threads())
        assert threads <= 5, "a look-up for each connection"
        until(lambda: forward.refused("target-name-does-not-resolve") == 4)
        assert forward.end() == 143
