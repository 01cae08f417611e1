"""The hostile parent itself: what it leaves alone, what it leaves behind, and its listener."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest
from support.emulator import RunningEmulator, running_emulator

from kmstool.emulator.authentication import HttpRequest
from kmstool.emulator.hostile import ATTACKS, HostileParent, find_attack, honest_parent
from kmstool.emulator.hostile_attack import OUTSIDER_ARN, Asked, Ground
from kmstool.emulator.hostile_oracle import FreshKeysOracle
from kmstool.emulator.streams import StreamServer
from kmstool.errors import SettingError

RUNNING = [name for name, attack in ATTACKS.items() if attack.setup != "file"]


@pytest.fixture(scope="module")
def emulator() -> Iterator[RunningEmulator]:
    with running_emulator() as running:
        yield running


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("p")


def listed(kms: Any) -> int:
    return len(kms.list_keys()["Keys"])


@pytest.mark.parametrize("name", RUNNING)
def test_nothing_is_left_behind(emulator: RunningEmulator, place: Path, name: str) -> None:
    before = set(threading.enumerate())
    with HostileParent(emulator.emulator, place, name) as parent:
        settings = json.loads((place / "emulator.json").read_text())
        assert settings["kms"].startswith("tcp://127.0.0.1:")
        assert parent.environment["KMSTOOL_EMULATOR"] == str(place)
        assert parent.environment["AWS_ENDPOINT_URL_KMS"] == emulator.endpoint_url
        assert ("KMSTOOL_RELAY" in parent.environment) == (parent.attack.setup == "relay")
    assert list(place.iterdir()) == []
    assert not {thread for thread in set(threading.enumerate()) - before if thread.is_alive()}


@pytest.mark.parametrize("name", ["stripped-recipient", "another-account", "replayed-answer"])
def test_what_has_no_recipient_is_answered_as_always(
    emulator: RunningEmulator, place: Path, name: str
) -> None:
    with HostileParent(emulator.emulator, place, name) as parent:
        url = parent.enclave_environment["AWS_ENDPOINT_URL_KMS"]
        assert listed(emulator.admin_client(endpoint_url=url)) == listed(emulator.admin_client())


def test_the_outsider_is_nobody_to_the_emulator(emulator: RunningEmulator, place: Path) -> None:
    """Its credentials are good for the attack's KMS alone."""
    with HostileParent(emulator.emulator, place, "another-account") as parent:
        given = json.loads((place / "enclave-credentials.json").read_text())
        assert given["AccessKeyId"] == parent.enclave_environment["AWS_ACCESS_KEY_ID"]
        known = emulator.emulator.principals.by_access_key
        assert given["AccessKeyId"] not in known
        assert all(principal.arn != OUTSIDER_ARN for principal in known.values())


def test_an_honest_parent_attacks_nothing(emulator: RunningEmulator, place: Path) -> None:
    with honest_parent(emulator.emulator, place) as parent:
        environment = parent.enclave_environment
        assert environment["AWS_ENDPOINT_URL_KMS"] == emulator.endpoint_url
        assert "KMSTOOL_RELAY" in environment
        assert emulator.emulator.enclave is not None
        assert environment["AWS_SESSION_TOKEN"] == emulator.emulator.enclave.session_token


def test_unknown_and_file_attacks_are_refused(emulator: RunningEmulator, place: Path) -> None:
    with pytest.raises(SettingError, match="no attack named 'nope'"):
        find_attack("nope")
    with pytest.raises(SettingError, match="an attack on a file"):
        HostileParent(emulator.emulator, place, "file-cut")
    assert list(place.iterdir()) == []


def test_a_relay_says_what_it_cannot_read(emulator: RunningEmulator, place: Path) -> None:
    with HostileParent(emulator.emulator, place, "relay-forged-answer") as parent:
        host, port = parent.environment["KMSTOOL_RELAY"].removeprefix("tcp://").split(":")
        for message in (b"\0\0\0\2{}", b"\0\0\0\0", b"GET / HTTP/1.1\r\n\r\n"):
            with socket.create_connection((host, int(port)), timeout=5) as connection:
                connection.sendall(message)
                assert b'"Refused"' in connection.recv(4096)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"Recipient": 1}', b"\xff", b"[" * 100_000])
def test_what_cannot_be_read_asks_for_nothing(body: bytes) -> None:
    asked = Asked.of(HttpRequest("POST", "/", {}, body))
    assert asked.document is None
    assert asked.operation == ""


def test_a_refusal_of_kms_is_a_value_error(emulator: RunningEmulator) -> None:
    with contextlib.ExitStack() as stack:
        ground = Ground(emulator.emulator, stack, lambda _line: None)
        with pytest.raises(ValueError, match="KMS refused Decrypt: "):
            ground.call(ground.outsider, "Decrypt", CiphertextBlob="AAAA")


class TestOracle:
    """The search itself, against an enclave that is a function."""

    SECRET = b"sixteen bytes \x02\x03"

    def enclave(self, attack: FreshKeysOracle) -> str:
        plaintext = bytes(a ^ b for a, b in zip(self.SECRET, attack._change, strict=True))
        length = plaintext[-1]
        good = 1 <= length <= 16 and plaintext[-length:] == bytes([length]) * length
        return "good" if good else "bad"

    def test_it_reads_every_byte(self) -> None:
        """Guess 0 makes the end 02 02, which is a padding too: the first hit is a wrong one."""
        attack = FreshKeysOracle()
        assert attack.recover(lambda: self.enclave(attack), 16) == self.SECRET

    @pytest.mark.parametrize("order", [[3, 7, 8], [7, 3, 8], [7, 8, 3], [7, 8, 9, 3]])
    def test_the_right_guess_may_come_at_any_time(self, order: list[int]) -> None:
        attack = FreshKeysOracle()
        assert attack.recover(lambda: self.enclave(attack), 1, candidates=order) == b"\x03"

    def test_it_says_nothing_that_it_does_not_know(self) -> None:
        attack = FreshKeysOracle()
        assert attack.recover(lambda: "failed", 16) == b""


def test_a_stream_server_ends_every_connection() -> None:
    waiting = threading.Event()

    def serve(connection: socket.socket) -> None:
        waiting.set()
        connection.recv(1)

    server = StreamServer(serve)
    with socket.create_connection((server.address.host, server.address.port), timeout=5) as client:
        assert waiting.wait(5)
        server.close()
        assert client.recv(1) == b""
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((server.address.host, server.address.port), timeout=5)


def test_an_sdk_meets_the_attack(emulator: RunningEmulator, place: Path) -> None:
    with HostileParent(emulator.emulator, place, "another-ca") as parent:
        url = parent.enclave_environment["AWS_ENDPOINT_URL_KMS"]
        with pytest.raises(botocore.exceptions.SSLError):
            listed(emulator.admin_client(endpoint_url=url))
