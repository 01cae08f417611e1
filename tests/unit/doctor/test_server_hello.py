"""The group of a handshake, read from real servers' bytes, and what is no ServerHello refused."""

import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.certificates import Authority
from support.loopback import over_tls, serving, wait_for_close

from kmstool.doctor.handshake import key_exchange_group
from kmstool.doctor.server_hello import GROUPS, RECEIVED_MAX, parse_group
from kmstool.endpoint import Deadline
from kmstool.errors import TransportError

ROOT = Authority.make()
RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")


def extension(kind: int, content: bytes) -> bytes:
    return kind.to_bytes(2, "big") + len(content).to_bytes(2, "big") + content


def hello(
    group: int | None, *, random: bytes = b"r" * 32, session: bytes = b"s" * 32, kind: int = 2
) -> bytes:
    """A ServerHello as RFC 8446, section 4.1.3 has it."""
    extensions = extension(43, b"\x03\x04")
    if group is not None:
        extensions += extension(51, group.to_bytes(2, "big") + (32).to_bytes(2, "big") + b"k" * 32)
    body = b"\x03\x03" + random + bytes([len(session)]) + session + b"\x13\x02\x00"
    body += len(extensions).to_bytes(2, "big") + extensions
    return bytes([kind]) + len(body).to_bytes(3, "big") + body


def record(payload: bytes, kind: int = 22) -> bytes:
    return bytes([kind]) + b"\x03\x03" + len(payload).to_bytes(2, "big") + payload


ENCRYPTED = record(b"\x99" * 64, 23)


@pytest.mark.parametrize("group", GROUPS)
def test_the_group_is_read(group: int) -> None:
    assert parse_group(record(hello(group)) + record(b"\x01", 20) + ENCRYPTED) == group


def test_a_hello_that_asks_to_try_again_does_not_count() -> None:
    retry = extension(43, b"\x03\x04") + extension(51, b"\x00\x17")
    body = b"\x03\x03" + RETRY + b"\x00\x13\x02\x00" + len(retry).to_bytes(2, "big") + retry
    message = b"\x02" + len(body).to_bytes(3, "big") + body
    stream = record(message) + record(b"\x01", 20) + record(hello(23)) + ENCRYPTED
    assert parse_group(stream) == 23


def test_a_hello_in_pieces_is_put_together() -> None:
    message = hello(4588)
    stream = b"".join(record(message[i : i + 7]) for i in range(0, len(message), 7))
    assert parse_group(stream + ENCRYPTED) == 4588


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no ServerHello"),
        (ENCRYPTED, "no ServerHello"),
        (record(hello(29, kind=1)), "no ServerHello"),
        (record(hello(29, random=RETRY)), "no ServerHello"),
        (record(hello(None)), "no key share"),
        (record(hello(29))[:-1], "malformed"),
        (record(hello(29)[:-1]), "malformed"),
        (record(hello(29))[:4], "malformed"),
        (record(hello(29)[:40]), "malformed"),
        (record(hello(29)) + ENCRYPTED + bytes(RECEIVED_MAX), "malformed"),
    ],
)
def test_anything_else_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(TransportError, match=reason):
        parse_group(data)


# --- Real servers ------------------------------------------------------------------------------


def of(port: int, **changes: object) -> int:
    with socket.create_connection(("127.0.0.1", port)) as sock:
        given = {"host": "localhost", "roots_pem": ROOT.pem, "deadline": Deadline(20)}
        return key_exchange_group(sock, **{**given, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("curve", "group"), [("X25519", "x25519"), ("prime256v1", "secp256r1"), ("secp384r1",) * 2]
)
def test_the_group_that_a_server_of_python_s_chose(tmp_path: Path, curve: str, group: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ROOT.issue(tmp_path))
    if curve != "X25519":  # what the client offers first
        context.set_ecdh_curve(curve)
    with serving(over_tls(context, wait_for_close)) as port:
        assert GROUPS[of(port)] == group


def openssl_hybrid() -> bool:
    """Whether both sides here have the hybrid: OpenSSL of 3.5 or newer."""
    listed = subprocess.run(
        ["openssl", "list", "-tls-groups"], capture_output=True, text=True, check=False
    )
    return "X25519MLKEM768" in listed.stdout and ssl.OPENSSL_VERSION_INFO >= (3, 5)


@pytest.mark.skipif(not openssl_hybrid(), reason="OpenSSL here is older than 3.5")
def test_the_hybrid_of_a_real_server(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ROOT.issue(tmp_path))
    with serving(over_tls(context, wait_for_close)) as port:
        assert GROUPS[of(port)] == "X25519MLKEM768"


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ROOT.issue(tmp_path))
    with serving(over_tls(context, wait_for_close)) as port:
        yield port


def test_the_certificate_is_checked_here_as_well(port: int) -> None:
    with pytest.raises(TransportError, match="CERTIFICATE_VERIFY_FAILED"):
        of(port, roots_pem=Authority.make("another").pem)
    with pytest.raises(TransportError, match="CERTIFICATE_VERIFY_FAILED"):
        of(port, host="elsewhere.example")


def test_a_server_that_says_nothing_is_given_up() -> None:
    with serving(wait_for_close) as port, pytest.raises(TransportError, match=r"0\.2 seconds"):
        of(port, deadline=Deadline(0.2))


def test_a_server_that_goes_away() -> None:
    def leave(connection: socket.socket) -> None:
        connection.recv(65_536)

    with serving(leave) as port, pytest.raises(TransportError, match="was closed during"):
        of(port)


def test_a_handshake_that_is_longer_than_any(tmp_path: Path) -> None:
    """OpenSSL takes chains of 100 KiB; what it takes is not what we keep."""
    path = Path(ROOT.issue(tmp_path))
    path.write_text(path.read_text() + ROOT.pem * 230)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    too_long = pytest.raises(TransportError, match=f"more than {RECEIVED_MAX} bytes")
    with serving(over_tls(context, wait_for_close)) as port, too_long:
        of(port)


def test_a_server_that_talks_nonsense() -> None:
    def flood(connection: socket.socket) -> None:
        while True:
            connection.sendall(record(b"\x16" * 16_000))

    with serving(flood) as port, pytest.raises(TransportError):
        of(port)
