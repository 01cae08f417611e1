"""A service of frames takes other settings while it runs."""

import socket
import threading
from pathlib import Path

import pytest

from kmstool.endpoint import UnixAddress, VsockAddress
from kmstool.errors import SettingError
from kmstool.framing import build_frame, read_frame
from kmstool.parent import listening
from kmstool.parent.listening import Handler, Service


def says(word: str) -> Handler:
    return lambda _message: (build_frame({"word": word}), word)


def ask(connection: socket.socket) -> object:
    connection.sendall(build_frame({"any": "thing"}))
    return read_frame(connection.recv)["word"]


def connected(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(10)
    sock.connect(str(path))
    return sock


def test_another_handler_answers_from_now_on(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with Service(UnixAddress(str(path)), says("one")) as service:
        assert service.alive
        with connected(path) as waiting:
            with connected(path) as first:
                assert ask(first) == "one"
            service.change(says("two"))
            # A connection that was open before, and one that is new.
            assert ask(waiting) == "two"
            with connected(path) as second:
                assert ask(second) == "two"
    assert not service.alive


def test_a_request_under_way_is_answered_by_the_one_that_took_it(tmp_path: Path) -> None:
    path = tmp_path / "s"
    asked, go_on = threading.Event(), threading.Event()

    def slow(_message: dict[str, object]) -> tuple[bytes, str]:
        asked.set()
        go_on.wait(10)
        return build_frame({"word": "slow"}), ""

    with Service(UnixAddress(str(path)), slow) as service, connected(path) as connection:
        connection.sendall(build_frame({"any": "thing"}))
        assert asked.wait(10)
        service.change(says("other"))
        go_on.set()
        assert read_frame(connection.recv)["word"] == "slow"


def test_cids_for_an_address_without_are_refused_and_nothing_changes(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with Service(UnixAddress(str(path)), says("one")) as service:
        with pytest.raises(SettingError, match="has no CIDs"):
            service.change(says("two"), allowed_cids={16})
        with connected(path) as connection:
            assert ask(connection) == "one"


def test_other_cids_may_ask_from_now_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a pair of sockets: no test listens on a vsock."""
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(listening, "listen", lambda _address: theirs)
    lines: list[str] = []
    with ours:
        service = Service(
            VsockAddress(3, 8001), says("one"), allowed_cids={16}, report=lines.append
        )
        try:
            for cids, expected in (({16}, "refused"), ({16, 17}, "one"), (set(), "one")):
                service.change(allowed_cids=cids)
                client, server = socket.socketpair()
                client.settimeout(10)
                with client:
                    client.sendall(build_frame({"any": "thing"}))
                    service._admit(server, (17, 1234))
                    answer = read_frame(client.recv)
                    assert answer.get("word", "refused") == expected
        finally:
            service.close(0)
    assert "vsock CID 17: refused: this CID may not ask" in lines
