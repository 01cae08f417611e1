"""The HTTP client: each answer is fed whole, byte by byte and with trailing data.

Oracles are `h11` and `http.client`: where we accept, they must read the same.
"""

import http.client
import io
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import astuple
from pathlib import Path
from typing import Any

import h11
import pytest
from support.certificates import Authority
from support.loopback import over_tls, serving

from kmstool.enclave.http import HttpAnswer, HttpConnection, read_answer
from kmstool.enclave.tls import open_tls
from kmstool.endpoint import Deadline
from kmstool.errors import TransportError
from kmstool.limits import (
    HTTP_BODY_MAX,
    HTTP_HEADER_COUNT_MAX,
    HTTP_HEADERS_MAX,
    HTTP_INTERIM_MAX,
    HTTP_STATUS_LINE_MAX,
)


def feed(data: bytes, step: int) -> Callable[[int], bytes]:
    source = io.BytesIO(data)
    return lambda count: source.read(min(count, step))


STEPS = (1, 2, 7, 1_000_000)

REAL = (
    b"HTTP/1.1 200 OK\r\nx-amzn-RequestId: 0a1b2c3d-0000-1111-2222-333344445555\r\n"
    b"Cache-Control: no-cache, no-store, must-revalidate, private\r\nExpires: 0\r\n"
    b"Pragma: no-cache\r\nDate: Tue, 24 Nov 2026 08:00:00 GMT\r\n"
    b'Content-Type: application/x-amz-json-1.1\r\nContent-Length: 16\r\n\r\n{"KeyId":"a:b"}\n'
)
VALID: dict[str, tuple[bytes, int, bytes, bool]] = {
    "as KMS sends it": (REAL, 200, b'{"KeyId":"a:b"}\n', True),
    "empty body": (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", 400, b"", True),
    "empty reason": (b"HTTP/1.1 500 \r\ncontent-length: 2\r\n\r\nno", 500, b"no", True),
    "closes": (
        b"HTTP/1.1 200 OK\r\nContent-Length:1\r\nConnection: close\r\n\r\nx", 200, b"x", False,
    ),
    "closes, in a list and capitals": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: foo , CLOSE\r\n\r\nx",
        200, b"x", False,
    ),
    "closes, in a second field": (
        b"HTTP/1.1 200 OK\r\nConnection: foo\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
        200, b"x", False,
    ),
    "does not close": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\nX-A: close\r\n\r\nx",
        200, b"x", True,
    ),
    "white space around a value": (
        b"HTTP/1.1 200 OK\r\nContent-Length: \t 1 \t\r\nX: \t\r\n\r\nx", 200, b"x", True,
    ),
    "leading zeros": (b"HTTP/1.1 200 OK\r\nContent-Length: 0003\r\n\r\nabc", 200, b"abc", True),
    "every token character in a name": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n!#$%&'*+-.^_`|~09azAZ: v\r\n\r\n", 200, b"", True,
    ),
    "line ends in the body": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n\r\n\r\n\n\n\0\xff", 200,
        b"\r\n\r\n\n\n\0\xff", True,
    ),
    "interim answer first": (
        b"HTTP/1.1 100 Continue\r\n\r\n"
        + b"HTTP/1.1 103 Early\r\nA: b\r\n\r\n" * 2
        + b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", 200, b"x", True,
    ),
    "as many interim answers as are allowed": (
        b"HTTP/1.1 102 Wait\r\n\r\n" * HTTP_INTERIM_MAX
        + b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", 200, b"x", True,
    ),
    "as many fields as are allowed": (
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * (HTTP_HEADER_COUNT_MAX - 1)
        + b"Content-Length: 1\r\n\r\nx", 200, b"x", True,
    ),
    "headers as long as allowed": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nA: " + b"b" * (HTTP_HEADERS_MAX - 3 - 17)
        + b"\r\n\r\nx", 200, b"x", True,
    ),
    "status line as long as allowed": (
        b"HTTP/1.1 200 " + b"x" * (HTTP_STATUS_LINE_MAX - 13)
        + b"\r\nContent-Length: 1\r\n\r\nx", 200, b"x", True,
    ),
    "body as long as allowed": (
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % HTTP_BODY_MAX + b"x" * HTTP_BODY_MAX,
        200, b"x" * HTTP_BODY_MAX, True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", VALID.values(), ids=VALID)
@pytest.mark.parametrize("step", STEPS)
def test_valid(case: tuple[bytes, int, bytes, bool], step: int) -> None:
    data, status, body, keep_alive = case
    answer = read_answer(feed(data, step))
    assert (answer.status, answer.body, answer.keep_alive) == (status, body, keep_alive)


@pytest.mark.parametrize("case", VALID.values(), ids=VALID)
def test_valid_with_trailing_data(case: tuple[bytes, int, bytes, bool]) -> None:
    """A second answer right behind the first is what response smuggling looks like."""
    for trailing in (b"x", b"\r\n", REAL):
        with pytest.raises(TransportError, match="bytes came after the end") as caught:
            read_answer(feed(case[0] + trailing, 10_000_000))
        assert not caught.value.retryable
        source = feed(case[0] + trailing, 1)
        assert read_answer(source).body == case[2]
        assert source(1) == trailing[:1], "a byte beyond the answer was taken"


@pytest.mark.parametrize("case", VALID.values(), ids=VALID)
def test_valid_as_h11_reads_it(case: tuple[bytes, int, bytes, bool]) -> None:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=100_000)
    connection.send(h11.Request(method="POST", target="/", headers=[("Host", "h")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(case[0])
    headers: list[tuple[bytes, bytes]] = []
    body, status = b"", 0
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        if isinstance(event, h11.Response):
            status, headers = event.status_code, list(event.headers)
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
    answer = read_answer(feed(case[0], 1_000_000))
    assert (answer.status, answer.body) == (status, body)
    joined: dict[str, str] = {}
    for name, value in headers:
        key = name.decode()
        joined[key] = f"{joined[key]}, {value.decode()}" if key in joined else value.decode()
    assert answer.headers == joined
    assert answer.keep_alive == (connection.their_state is h11.DONE)


@pytest.mark.parametrize("name", [name for name in VALID if "interim" not in name])
def test_valid_as_http_client_reads_it(name: str) -> None:
    class FakeSocket:
        def makefile(self, _mode: str) -> Any:
            return io.BytesIO(VALID[name][0])

    answer = read_answer(feed(VALID[name][0], 1_000_000))
    response = http.client.HTTPResponse(FakeSocket(), method="POST")  # type: ignore[arg-type]
    response.begin()
    with closing(response):
        assert (response.status, response.read()) == (answer.status, answer.body)
        found: dict[str, str] = {}
        for key in response.headers:
            values = response.headers.get_all(key) or []
            found[key.lower()] = ", ".join(value.strip() for value in values)
        assert found == answer.headers


HEAD = b"HTTP/1.1 200 OK\r\n"
MALFORMED: dict[str, tuple[bytes, str]] = {
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", "not of HTTP/1.1"),
    "HTTP/2": (b"HTTP/2 200\r\nContent-Length: 1\r\n\r\nx", "not of HTTP/1.1"),
    "no HTTP": (b"SSH-2.0-x\r\n\r\n", "status line is malformed"),
    "lower case": (b"http/1.1 200 OK\r\n\r\n", "status line is malformed"),
    "empty line first": (b"\r\n" + REAL, "status line is malformed"),
    "no space after the status": (b"HTTP/1.1 200\r\n\r\n", "status line is malformed"),
    "two spaces": (b"HTTP/1.1  200 OK\r\n\r\n", "status line is malformed"),
    "status of two digits": (b"HTTP/1.1 20 OK\r\n\r\n", "status line is malformed"),
    "status of four digits": (b"HTTP/1.1 2000 OK\r\n\r\n", "status line is malformed"),
    "status 099": (b"HTTP/1.1 099 OK\r\n\r\n", "status line is malformed"),
    "status 600": (b"HTTP/1.1 600 OK\r\n\r\n", "status line is malformed"),
    "status with a sign": (b"HTTP/1.1 +20 OK\r\n\r\n", "status line is malformed"),
    "control character in the reason": (b"HTTP/1.1 200 \x1b[2J\r\n\r\n", "status line is mal"),
    "C1 control in the reason": (b"HTTP/1.1 200 \x9b2J\r\n\r\n", "status line is mal"),
    "NUL in the reason": (b"HTTP/1.1 200 \0\r\n\r\n", "status line is malformed"),
    "bare LF after the status line": (b"HTTP/1.1 200 OK\nContent-Length: 1\r\n\r\nx", "not CRLF"),
    "bare LF after a field": (HEAD + b"A: b\nContent-Length: 1\r\n\r\nx", "not CRLF"),
    "bare LF at the end": (HEAD + b"Content-Length: 1\r\n\nx", "not CRLF"),
    "bare CR in a field": (HEAD + b"A: b\rContent-Length: 9\r\n\r\nx", "not CRLF"),
    "CR before CRLF": (HEAD + b"Content-Length: 1\r\r\n\r\nx", "not CRLF"),
    "folded line": (HEAD + b"A: b\r\n c\r\nContent-Length: 1\r\n\r\nx", "folded"),
    "folded line with a tab": (HEAD + b"A: b\r\n\tc: d\r\nContent-Length: 1\r\n\r\nx", "folded"),
    "space before the first field": (HEAD + b" Content-Length: 1\r\n\r\nx", "folded"),
    "space before the colon": (HEAD + b"Content-Length : 1\r\n\r\nx", "malformed header"),
    "no colon": (HEAD + b"Content-Length\r\n\r\nx", "malformed header"),
    "no name": (HEAD + b": 1\r\n\r\nx", "malformed header"),
    "space in a name": (HEAD + b"Content Length: 1\r\n\r\nx", "malformed header"),
    "non-ASCII in a name": (HEAD + b"Cont\xe9nt: 1\r\n\r\nx", "malformed header"),
    "NUL in a value": (HEAD + b"A: \0\r\n\r\nx", "malformed header"),
    "DEL in a value": (HEAD + b"A: \x7f\r\n\r\nx", "malformed header"),
    "escape in a value": (HEAD + b"A: \x1b[2J\r\n\r\nx", "malformed header"),
    "obs-text in a value": (HEAD + b"A: \x9b2J\r\n\r\nx", "malformed header"),
    "no Content-Length": (HEAD + b"A: b\r\n\r\nx", "no Content-Length"),
    "no header at all": (HEAD + b"\r\n", "no Content-Length"),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", "status 204, which KMS does not use"),
    "304 with a length": (b"HTTP/1.1 304 X\r\nContent-Length: 1\r\n\r\nx", "status 304, which"),
    "interim answer with a length": (
        b"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n" + REAL, "announces a body",
    ),
    "interim answer with a transfer coding": (
        b"HTTP/1.1 100 Continue\r\nTransfer-Encoding: x\r\n\r\n" + REAL, "announces a body",
    ),
    "two equal lengths": (
        HEAD + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", "more than one Content-Length",
    ),
    "two different lengths": (
        HEAD + b"content-length: 1\r\nContent-Length: 2\r\n\r\nx", "more than one Content-Length",
    ),
    "list of lengths": (HEAD + b"Content-Length: 1, 1\r\n\r\nx", "Content-Length is malformed"),
    "negative length": (HEAD + b"Content-Length: -1\r\n\r\nx", "Content-Length is malformed"),
    "signed length": (HEAD + b"Content-Length: +1\r\n\r\nx", "Content-Length is malformed"),
    "hexadecimal length": (HEAD + b"Content-Length: 0x1\r\n\r\nx", "Content-Length is malformed"),
    "length with a separator": (HEAD + b"Content-Length: 1_0\r\n\r\nx", "Length is malformed"),
    "empty length": (HEAD + b"Content-Length:\r\n\r\nx", "Content-Length is malformed"),
    "endless length": (HEAD + b"Content-Length: " + b"0" * 5000 + b"1\r\n\r\nx", "is malformed"),
    "too long a body": (
        HEAD + b"Content-Length: %d\r\n\r\nx" % (HTTP_BODY_MAX + 1), f"more than {HTTP_BODY_MAX}",
    ),
    "chunked": (
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", "coding 'chunked'",
    ),
    "chunked and a length": (
        HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        "transfer coding",
    ),
    "transfer coding identity": (
        HEAD + b"Content-Length: 1\r\ntransfer-encoding: identity\r\n\r\nx", "transfer coding",
    ),
    "gzip": (HEAD + b"Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx", "coding 'gzip'"),
    "101": (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", "switched to a protocol"),
    "too many interim answers": (
        b"HTTP/1.1 100 Continue\r\n\r\n" * (HTTP_INTERIM_MAX + 1) + REAL, "interim answers",
    ),
    "status line too long": (
        b"HTTP/1.1 200 " + b"x" * (HTTP_STATUS_LINE_MAX - 12) + b"\r\n\r\n", "line is longer",
    ),
    "endless status line": (b"H" * 100_000, "status line is longer"),
    "headers too long": (
        HEAD + b"Content-Length: 1\r\nA: " + b"b" * (HTTP_HEADERS_MAX - 3 - 16) + b"\r\n\r\nx",
        "header is longer",
    ),
    "headers too long together": (
        HEAD + (b"A: " + b"b" * 997 + b"\r\n") * 17 + b"Content-Length: 1\r\n\r\nx",
        "header is longer",
    ),
    "interim headers count too": (
        (b"HTTP/1.1 100 C\r\n" + b"A: " + b"b" * 6000 + b"\r\n\r\n") * 3 + REAL, "header is longer",
    ),
    "endless header line": (HEAD + b"A: " + b"b" * 100_000, "header is longer"),
    "too many fields": (
        HEAD + b"A: b\r\n" * HTTP_HEADER_COUNT_MAX + b"Content-Length: 1\r\n\r\nx",
        "more than 64 header fields",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED.values(), ids=MALFORMED)
def test_malformed(case: tuple[bytes, str]) -> None:
    for step in STEPS:
        for trailing in (b"", REAL):
            with pytest.raises(TransportError, match=case[1]) as caught:
                read_answer(feed(case[0] + trailing, step))
            assert not caught.value.retryable
            assert str(caught.value).isprintable()


def test_cut_at_every_byte_is_worth_a_retry() -> None:
    for cut in range(len(REAL)):
        for step in (1, 1_000_000):
            with pytest.raises(TransportError) as caught:
                read_answer(feed(REAL[:cut], step))
            assert caught.value.retryable
            expected = f"cut off after {cut} bytes" if cut else "closed without an answer"
            assert expected in str(caught.value)


def test_no_more_is_read_than_the_bounds_allow() -> None:
    """An endless stream ends in an error, not in an endless buffer."""
    given = 0

    def endless(count: int) -> bytes:
        nonlocal given
        given += count
        return b"A: b\r\n" * (count // 6)

    with pytest.raises(TransportError):
        read_answer(endless)
    assert given < 3 * HTTP_HEADERS_MAX


def test_repr_does_not_show_the_body() -> None:
    assert "KeyId" not in repr(read_answer(feed(REAL, 100)))


# --- connections -------------------------------------------------------------------------------


@pytest.fixture
def pair() -> Iterator[tuple[HttpConnection, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    connection = HttpConnection(ours, "kms.example")
    yield connection, theirs
    connection.close()
    theirs.close()


Pair = tuple[HttpConnection, socket.socket]
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def post(connection: HttpConnection, answer: bytes, theirs: socket.socket) -> HttpAnswer:
    """Answers before the request is sent would be seen, so it is done from a thread."""

    def serve() -> None:
        theirs.recv(65_536)
        theirs.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        return connection.post({}, b"{}", Deadline(5))
    finally:
        thread.join()


def test_request_on_the_wire(pair: Pair) -> None:
    connection, theirs = pair
    seen: list[bytes] = []

    def serve() -> None:
        seen.append(theirs.recv(65_536))
        theirs.sendall(ANSWER)

    thread = threading.Thread(target=serve)
    thread.start()
    headers = {"Content-Type": "application/x-amz-json-1.1", "Host": "kms.example", "X-A": "b c"}
    answer = connection.post(headers, b'{"a":1}', Deadline(5))
    thread.join()
    assert answer == HttpAnswer(200, {"content-length": "2"}, b"{}", keep_alive=True)
    (request,) = seen
    assert request == (
        b"POST / HTTP/1.1\r\nContent-Type: application/x-amz-json-1.1\r\nHost: kms.example\r\n"
        b'X-A: b c\r\nContent-Length: 7\r\n\r\n{"a":1}'
    )
    server = h11.Connection(h11.SERVER)
    server.receive_data(request)
    assert isinstance(server.next_event(), h11.Request)
    data = server.next_event()
    assert isinstance(data, h11.Data)
    assert bytes(data.data) == b'{"a":1}'


def test_request_is_one_write(monkeypatch: pytest.MonkeyPatch, pair: Pair) -> None:
    connection, theirs = pair
    writes: list[bytes] = []
    real = socket.socket.sendall

    def count(self: socket.socket, data: bytes) -> None:
        if self is not theirs:
            writes.append(data)
        real(self, data)

    monkeypatch.setattr(socket.socket, "sendall", count)
    post(connection, ANSWER, theirs)
    assert len(writes) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "other.example"},
        {"host": "other.example"},
        {"Content-Length": "3"},
        {"X": "a\r\nY: b"},
        {"X": "a\n"},
        {"X": "\0"},
        {"X": "é"},
        {"X": "\u212a"},
        {"X: a\r\nY": "b"},
        {"": "b"},
        {"É": "b"},
    ],
)
def test_headers_that_cannot_be_sent(headers: dict[str, str], pair: Pair) -> None:
    connection, theirs = pair
    with pytest.raises(TransportError) as caught:
        connection.post(headers, b"{}", Deadline(1))
    assert not caught.value.retryable
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(1)


def test_several_requests_over_one_connection(pair: Pair) -> None:
    connection, theirs = pair
    for number in range(3):
        assert connection.reusable
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number
        assert post(connection, answer, theirs).body == b"%d" % number


def test_announced_close_is_honoured(pair: Pair) -> None:
    connection, theirs = pair
    closing_answer = ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert post(connection, closing_answer, theirs).body == b"{}"
    assert not connection.reusable
    assert theirs.recv(1) == b""
    with pytest.raises(TransportError, match="closed between two requests") as caught:
        connection.post({}, b"", Deadline(1))
    assert caught.value.retryable


def test_server_that_closed_an_idle_connection(pair: Pair) -> None:
    connection, theirs = pair
    post(connection, ANSWER, theirs)
    theirs.shutdown(socket.SHUT_RDWR)
    assert not connection.reusable


def test_server_that_reset_an_idle_connection(pair: Pair) -> None:
    connection, theirs = pair
    post(connection, ANSWER, theirs)
    connection._sock.sendall(b"never read")
    theirs.close()  # with unread bytes, so that the other end gets ECONNRESET
    assert not connection.reusable


def test_bytes_without_a_request_end_the_connection(pair: Pair) -> None:
    """An answer that waits for the next request would be taken for its answer."""
    connection, theirs = pair
    post(connection, ANSWER, theirs)
    theirs.sendall(ANSWER)
    with pytest.raises(TransportError, match="closed between two requests") as caught:
        connection.post({}, b"", Deadline(1))
    assert caught.value.retryable
    assert not connection.reusable


def test_bytes_right_behind_the_answer_are_an_error(pair: Pair) -> None:
    connection, theirs = pair
    with pytest.raises(TransportError, match="bytes came after the end"):
        post(connection, ANSWER + ANSWER, theirs)
    assert not connection.reusable


def test_malformed_answer_closes_the_connection(pair: Pair) -> None:
    connection, theirs = pair
    with pytest.raises(TransportError, match="malformed"):
        post(connection, b"nonsense\r\n", theirs)
    assert not connection.reusable
    assert theirs.recv(1) == b""


def test_server_that_closes_without_an_answer(pair: Pair) -> None:
    connection, theirs = pair

    def serve() -> None:
        theirs.recv(65_536)
        theirs.shutdown(socket.SHUT_RDWR)

    thread = threading.Thread(target=serve)
    thread.start()
    with pytest.raises(TransportError, match="closed without an answer") as caught:
        connection.post({}, b"", Deadline(5))
    thread.join()
    assert caught.value.retryable
    assert not connection.reusable


def test_reset_is_worth_a_retry(monkeypatch: pytest.MonkeyPatch, pair: Pair) -> None:
    connection, _theirs = pair

    def reset(self: socket.socket, data: bytes) -> None:
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr(socket.socket, "sendall", reset)
    with pytest.raises(TransportError, match="broke: Connection reset by peer") as caught:
        connection.post({}, b"", Deadline(5))
    assert caught.value.retryable
    assert not connection.reusable


def test_silent_server_meets_the_deadline(pair: Pair) -> None:
    connection, _theirs = pair
    with pytest.raises(TransportError, match=r"0\.2 seconds was used up") as caught:
        connection.post({}, b"", Deadline(0.2))
    assert not caught.value.retryable
    assert not connection.reusable


def test_server_that_does_not_read_meets_the_deadline(pair: Pair) -> None:
    connection, _theirs = pair
    with pytest.raises(TransportError, match="was used up"):
        connection.post({}, b"x" * 10_000_000, Deadline(0.3))


def test_dribbling_server_meets_the_deadline(pair: Pair) -> None:
    connection, theirs = pair
    stop = threading.Event()

    def dribble() -> None:
        theirs.recv(65_536)
        for byte in REAL:
            if stop.wait(0.1):
                return
            try:
                theirs.sendall(bytes([byte]))
            except OSError:
                return

    thread = threading.Thread(target=dribble)
    thread.start()
    with pytest.raises(TransportError, match="1 seconds was used up during waiting"):
        connection.post({}, b"", Deadline(1))
    stop.set()
    thread.join()


def test_interruption_closes_the_connection(monkeypatch: pytest.MonkeyPatch, pair: Pair) -> None:
    connection, theirs = pair

    def interrupt(self: socket.socket, data: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(socket.socket, "sendall", interrupt)
    with pytest.raises(KeyboardInterrupt):
        connection.post({}, b"", Deadline(5))
    assert theirs.recv(1) == b""


def test_over_tls(tmp_path: Path) -> None:
    """Session tickets make the socket readable between requests: they are no data."""
    root = Authority.make()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(root.issue(tmp_path))

    def handler(connection: socket.socket) -> None:
        for _ in range(2):
            if connection.recv(65_536):
                connection.sendall(ANSWER)
        # The third request gets a record that no TLS key protects.
        connection.recv(65_536)
        raw = socket.socket(fileno=connection.detach())
        raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        raw.close()

    with serving(over_tls(context, handler)) as port:
        sock = socket.create_connection(("127.0.0.1", port), timeout=5)
        tls = open_tls(sock, host="localhost", roots_pem=root.pem, deadline=Deadline(5))
        with closing(HttpConnection(tls, "localhost")) as connection:
            for _ in range(2):
                answer = connection.post({}, b"{}", Deadline(5))
                assert astuple(answer)[0] == 200
                assert connection.reusable
            with pytest.raises(TransportError, match=r"broke: .*(BAD_RECORD|DECRYPTION)") as caught:
                connection.post({}, b"{}", Deadline(5))
            assert caught.value.retryable
