"""The HTTP server by raw bytes over TLS: one write, keep-alive, and what is not HTTP/1.1."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kmstool.emulator import server as module
from kmstool.emulator.authentication import HttpRequest
from kmstool.emulator.certificates import Authority
from kmstool.emulator.server import HttpAnswer, Server
from kmstool.errors import TransportError

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\n"


class Site:
    """A server that answers with the request's body, and a client's connections to it."""

    def __init__(self, folder: Path) -> None:
        self.requests: list[HttpRequest] = []
        self.reports: list[str] = []
        authority = Authority()
        (folder / "ca.pem").write_text(authority.certificate_pem)
        self.trust = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        self.server = Server(self.answer, authority.server_context(), report=self.reports.append)

    def answer(self, request: HttpRequest) -> HttpAnswer:
        self.requests.append(request)
        return HttpAnswer(200, [("x-test", "1")], b"<" + request.body + b">")

    def plain(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.server.address.port))
        connection.settimeout(5)
        return connection

    @contextlib.contextmanager
    def connect(self) -> Iterator[ssl.SSLSocket]:
        with (
            self.plain() as plain,
            self.trust.wrap_socket(
                plain, server_hostname="localhost", suppress_ragged_eofs=True
            ) as tls,
        ):
            yield tls


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.server.close()


def post(body: bytes, extra: bytes = b"") -> bytes:
    return HEAD + extra + b"Content-Length: %d\r\n\r\n" % len(body) + body


def test_head_and_body_come_in_one_record(site: Site) -> None:
    with site.connect() as tls:
        tls.sendall(post(b"hello"))
        answer = tls.recv(65536)  # one TLS record, hence one write
    assert answer.startswith(b"HTTP/1.1 200 \r\n")
    assert answer.endswith(b"\r\n\r\n<hello>")
    assert b"\r\nx-test: 1\r\n" in answer
    assert b"\r\ncontent-length: 7\r\n" in answer


def test_many_requests_on_one_connection(site: Site) -> None:
    with site.connect() as tls:
        for number in range(20):
            tls.sendall(post(b"%d" % number))
            assert tls.recv(65536).endswith(b"<%d>" % number)
        tls.sendall(post(b"a") + post(b"b"))  # pipelined
        received = b""
        while b"<b>" not in received:
            received += tls.recv(65536)
        assert received.index(b"<a>") < received.index(b"<b>")


def test_a_request_in_single_bytes_and_in_chunks(site: Site) -> None:
    with site.connect() as tls:
        for byte in post(b"slow"):
            tls.sendall(bytes([byte]))
        assert tls.recv(65536).endswith(b"<slow>")
        tls.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")
        assert tls.recv(65536).endswith(b"<abc>")


def test_close_and_expect(site: Site) -> None:
    with site.connect() as tls:
        tls.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\n")
        assert tls.recv(65536).startswith(b"HTTP/1.1 100 ")
        tls.sendall(b"x")
        assert tls.recv(65536).endswith(b"<x>")
        tls.sendall(post(b"last", b"Connection: close\r\n"))
        assert tls.recv(65536).endswith(b"<last>")
        assert tls.recv(1) == b""


def test_headers_as_the_handler_sees_them(site: Site) -> None:
    with site.connect() as tls:
        tls.sendall(post(b"", b"X-Twice: a\r\nx-twice:  b \r\n"))
        tls.recv(65536)
    (request,) = site.requests
    assert request.headers["x-twice"] == "a,b"
    assert request.headers["host"] == "localhost"
    assert (request.method, request.target) == ("POST", "/")


def test_a_body_that_is_too_long(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BODY_MAX", 10)
    with site.connect() as tls:
        tls.sendall(post(b"x" * 11))
        assert tls.recv(65536).startswith(b"HTTP/1.1 413 ")
        assert tls.recv(1) == b""
    assert site.requests == []


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"POST / HTTP/1.1\r\n\r\n",  # no Host
        HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        HEAD + b"X: " + b"x" * 2_000,  # and no end of it
    ],
)
def test_what_is_not_http(site: Site, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEADERS_MAX", 1000)
    with site.connect() as tls:
        tls.sendall(data)
        assert tls.recv(65536)[:10] == b"HTTP/1.1 4"
        assert tls.recv(1) == b""
    assert site.requests == []
    assert any("not HTTP/1.1" in line for line in site.reports)


def test_a_client_that_leaves(site: Site) -> None:
    with site.connect() as tls:
        tls.sendall(HEAD + b"Content-Length: 100\r\n\r\nabc")
    with site.plain():
        pass
    with site.connect() as tls:
        tls.sendall(post(b"next"))
        assert tls.recv(65536).endswith(b"<next>")


def test_tls_1_3_alone_and_no_alpn(site: Site) -> None:
    site.trust.maximum_version = ssl.TLSVersion.TLSv1_2
    with site.plain() as plain, pytest.raises(ssl.SSLError):
        site.trust.wrap_socket(plain, server_hostname="localhost")
    site.trust.maximum_version = ssl.TLSVersion.MAXIMUM_SUPPORTED
    site.trust.set_alpn_protocols(["h2", "http/1.1"])
    with site.connect() as tls:
        assert tls.version() == "TLSv1.3"
        assert tls.selected_alpn_protocol() is None
        tls.sendall(post(b"x"))
        assert tls.recv(65536).endswith(b"<x>")
    assert any("TLS handshake failed" in line for line in site.reports)


def test_a_stalled_handshake_holds_nobody_up(site: Site) -> None:
    with site.plain(), site.connect() as tls:
        tls.sendall(post(b"x"))
        assert tls.recv(65536).endswith(b"<x>")


def test_close_ends_everything(tmp_path: Path) -> None:
    before = threading.active_count()
    site = Site(tmp_path)
    with site.plain() as stalled, site.connect() as tls:
        tls.sendall(post(b"x"))
        tls.recv(65536)
        site.server.close()
        assert tls.recv(1) == b""
        assert stalled.recv(1) == b""
    assert threading.active_count() == before
    with pytest.raises(ConnectionRefusedError):
        site.plain()
    site.server.close()


def test_a_port_that_is_taken(site: Site) -> None:
    context = Authority().server_context()
    with pytest.raises(TransportError, match=r"cannot listen on .*: Address already in use$"):
        Server(site.answer, context, port=site.server.address.port)
