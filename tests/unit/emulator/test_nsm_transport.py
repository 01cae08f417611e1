"""nsm_server.py and nsm_transport.py: the socket between them, and emulator.json."""

import json
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kmstool import limits
from kmstool.emulator import nsm_server
from kmstool.emulator.nsm import SimulatedNsm
from kmstool.emulator.nsm_server import NsmServer
from kmstool.emulator.nsm_transport import (
    EmulatorDirectory,
    SimulatedNsmTransport,
    read_emulator_directory,
)
from kmstool.emulator.signer import SigningChain
from kmstool.enclave.nsm import Nsm
from kmstool.errors import LocalFileError, NsmError, SettingError


def echo(request: bytes) -> bytes:
    return b"<" + request + b">"


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "nsm.sock")


@pytest.fixture
def server(path: str) -> Iterator[NsmServer]:
    with NsmServer(echo, path) as running:
        yield running


def connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    connection.connect(path)
    return connection


# --- Both ends together ------------------------------------------------------------------------


def test_the_whole_way_from_client_to_module(path: str) -> None:
    chain = SigningChain.generate()
    module = SimulatedNsm({0: b"\1" * 48}, chain)
    with NsmServer(module.handle, path), Nsm(SimulatedNsmTransport(path)) as nsm:
        assert nsm.describe_nsm().max_pcrs == 32
        assert len(nsm.get_random()) == 256
        assert nsm.describe_pcr(0).data == b"\1" * 48
        assert len(nsm.extend_pcr(16, b"x")) == 48
        nsm.lock_pcr(16)
        nsm.lock_pcrs(20)
        assert nsm.attestation(nonce=b"n" * 16)
        with pytest.raises(NsmError, match="ReadOnlyIndex") as caught:
            nsm.extend_pcr(16, b"x")
        assert caught.value.code == "ReadOnlyIndex"


@pytest.mark.parametrize("length", [1, 4096])
def test_requests_of_every_size_of_the_abi(server: NsmServer, path: str, length: int) -> None:
    assert SimulatedNsmTransport(path).exchange(b"x" * length) == echo(b"x" * length)


@pytest.mark.parametrize("length", [0, 4097])
def test_requests_beyond_the_abi_are_not_sent(server: NsmServer, path: str, length: int) -> None:
    with pytest.raises(NsmError, match=f"a request of {length} bytes") as caught:
        SimulatedNsmTransport(path).exchange(b"x" * length)
    assert caught.value.hint


def test_threads(server: NsmServer, path: str) -> None:
    answers: list[bytes] = []

    def work(number: int) -> None:
        for _ in range(20):
            answers.append(SimulatedNsmTransport(path).exchange(b"%d" % number))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == sorted(echo(b"%d" % n) for n in range(4) for _ in range(20))


# --- The server --------------------------------------------------------------------------------


def test_the_socket_is_for_the_owner_alone(server: NsmServer, path: str) -> None:
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600


def test_several_requests_on_a_connection_in_pieces(server: NsmServer, path: str) -> None:
    with connect(path) as connection:
        for byte in b"\0\0\0\2ab" + b"\0\0\0\1c":
            connection.sendall(bytes([byte]))
        received = b""
        while len(received) < 8 + 7:
            received += connection.recv(100)
        assert received == b"\0\0\0\4<ab>" + b"\0\0\0\3<c>"


@pytest.mark.parametrize("head", [b"\0\0\0\0", b"\0\0\x10\x01", b"\xff\xff\xff\xff", b"GET "])
def test_what_is_no_frame_ends_the_connection(server: NsmServer, path: str, head: bytes) -> None:
    with connect(path) as connection:
        connection.sendall(head)
        assert connection.recv(1) == b""
    assert SimulatedNsmTransport(path).exchange(b"x") == b"<x>"


@pytest.mark.parametrize("part", [b"", b"\0\0", b"\0\0\0\5", b"\0\0\0\5abc"])
def test_a_half_frame_ends_quietly(server: NsmServer, path: str, part: bytes) -> None:
    with connect(path) as connection:
        connection.sendall(part)
    assert SimulatedNsmTransport(path).exchange(b"x") == b"<x>"


def test_silence_ends_the_connection(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nsm_server, "_IDLE", 0.05)
    with NsmServer(echo, path), connect(path) as connection:
        assert connection.recv(1) == b""


def test_connections_are_bounded(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nsm_server, "_CONNECTIONS_MAX", 2)
    with NsmServer(echo, path):
        first, second = connect(path), connect(path)
        for connection in (first, second):
            connection.sendall(b"\0\0\0\1x")
            assert connection.recv(100) == b"\0\0\0\3<x>"
        with connect(path) as third:
            assert third.recv(1) == b""
        first.close()
        second.close()


def test_close_ends_everything_and_may_be_called_twice(path: str) -> None:
    before = threading.active_count()
    server = NsmServer(echo, path)
    with connect(path) as connection:
        connection.sendall(b"\0\0\0\1x")
        assert connection.recv(100) == b"\0\0\0\3<x>"
        started = time.monotonic()
        server.close()
        server.close()
        assert connection.recv(1) == b""
    assert time.monotonic() - started < 2
    assert not Path(path).exists()
    assert threading.active_count() == before


def test_a_path_that_is_taken(server: NsmServer, path: str) -> None:
    with pytest.raises(LocalFileError, match=r"cannot listen on .*: Address already in use"):
        NsmServer(echo, path)
    assert SimulatedNsmTransport(path).exchange(b"x") == b"<x>"


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(LocalFileError, match=r"cannot listen on .*: AF_UNIX path too") as caught:
        NsmServer(echo, tmp_path / ("x" * 200))
    assert caught.value.hint is not None
    assert "107" in caught.value.hint


# --- The client --------------------------------------------------------------------------------


def test_no_emulator(path: str) -> None:
    with pytest.raises(NsmError, match="does not answer: No such file") as caught:
        SimulatedNsmTransport(path).exchange(b"x")
    assert caught.value.hint is not None
    assert "kmstool emulator run" in caught.value.hint


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "ended within a frame"),
        (b"\0\0", "ended within a frame"),
        (b"\0\0\0\5ab", "ended within a frame"),
        (b"\0\0\0\0", "an answer of 0 bytes"),
        (b"\0\0\x30\x01", "an answer of 12289 bytes"),
        (b"\xff\xff\xff\xff", "an answer of 4294967295 bytes"),
    ],
)
def test_what_is_no_answer(path: str, answer: bytes, message: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(NsmError, match=message):
            SimulatedNsmTransport(path).exchange(b"x")
        thread.join()


@pytest.mark.parametrize("length", [1, limits.NSM_RESPONSE_MAX])
def test_answers_of_every_size_of_the_abi(path: str, length: int) -> None:
    with NsmServer(lambda _: bytes(length), path):
        assert SimulatedNsmTransport(path).exchange(b"x") == bytes(length)


def test_it_stands_beside_an_image_alone() -> None:
    """Only the standard library and pure modules: nothing else of the emulator, no dependency."""
    program = (
        "import sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import kmstool.emulator.nsm_transport\n"
        "names = {n.partition('.')[0] for n in sys.modules} - set(sys.stdlib_module_names)\n"
        "ours = sorted(n for n in sys.modules if n.startswith('kmstool'))\n"
        "print(sorted(n for n in names if not n.startswith('_')), ours)\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(Path(__file__).parents[3])],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout.strip() == (
        "['kmstool'] ['kmstool', 'kmstool.emulator', 'kmstool.emulator.nsm_transport',"
        " 'kmstool.errors', 'kmstool.limits', 'kmstool.strict_json']"
    )


# --- emulator.json -----------------------------------------------------------------------------

RIGHT = {
    "version": 1,
    "nsm": "nsm.sock",
    "ca": "ca.pem",
    "kms": "tcp://127.0.0.1:4433",
    "credentials": "enclave-credentials.json",
}


def write(directory: Path, content: object) -> str:
    text = content if isinstance(content, str) else json.dumps(content)
    (directory / "emulator.json").write_text(text)
    return str(directory)


def test_the_directory(tmp_path: Path) -> None:
    directory = write(tmp_path, RIGHT)
    assert read_emulator_directory(directory) == EmulatorDirectory(
        nsm_socket=f"{directory}/nsm.sock",
        ca_file=f"{directory}/ca.pem",
        kms_address="tcp://127.0.0.1:4433",
        credentials_file=f"{directory}/enclave-credentials.json",
    )


@pytest.mark.parametrize("content", [{**RIGHT, "credentials": None}, RIGHT | {"more": 1}])
def test_credentials_are_optional_and_more_is_passed_over(
    tmp_path: Path, content: dict[str, object]
) -> None:
    read = read_emulator_directory(write(tmp_path, content))
    assert (read.credentials_file is None) == (content["credentials"] is None)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", "not json", '{"version": 2}', '{"version": "1"}', "[" * 8000, "1" * 20000],
)
def test_what_is_no_emulator_json(tmp_path: Path, content: str) -> None:
    with pytest.raises(SettingError, match="not of a version that this kmstool knows") as caught:
        read_emulator_directory(write(tmp_path, content))
    assert caught.value.hint
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("key", ["nsm", "ca", "credentials"])
@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../x", "a/../../x", "..", "x\0y", 1, [], {}, False]
)
def test_names_do_not_lead_out_of_the_directory(tmp_path: Path, key: str, name: object) -> None:
    with pytest.raises(SettingError, match=f"no usable '{key}'"):
        read_emulator_directory(write(tmp_path, {**RIGHT, key: name}))


@pytest.mark.parametrize("address", [None, 1, "", "vsock://3:8000", "tcp://" + "x" * 300])
def test_an_address_that_is_none(tmp_path: Path, address: object) -> None:
    with pytest.raises(SettingError, match="no usable 'kms'"):
        read_emulator_directory(write(tmp_path, {**RIGHT, "kms": address}))


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"cannot read emulator\.json: No such file") as caught:
        read_emulator_directory(str(tmp_path))
    assert caught.value.hint is not None
    assert "unset the variable" in caught.value.hint
