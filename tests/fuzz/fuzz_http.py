"""Fuzzes the reader of HTTP answers: the first byte says how many bytes each `recv` gives.

What it accepts, h11 must accept and read the same: its grammar is wider than ours.
"""

import io

import h11

from kmstool.enclave.http import HttpAnswer, read_answer
from kmstool.errors import TransportError
from kmstool.limits import HTTP_BODY_MAX, HTTP_HEADER_COUNT_MAX

KMS_ANSWER = (
    b"HTTP/1.1 200 OK\r\nx-amzn-RequestId: 0a1b-2c3d\r\nDate: Tue, 24 Nov 2026 08:00:00 GMT\r\n"
    b'Content-Type: application/x-amz-json-1.1\r\nContent-Length: 15\r\n\r\n{"KeyId":"a:b"}'
)
SEEDS: list[bytes] = [
    b"\xff" + KMS_ANSWER,
    b"\x03" + KMS_ANSWER,
    b"\xffHTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    b"\xffHTTP/1.1 100 C\r\n\r\nHTTP/1.1 500 \r\nA:\tb \r\nA: c\r\nContent-Length: 0\r\n\r\n",
    b"\xffHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    b"\xffHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\n",
]


def target(data: bytes) -> None:
    step, stream = (data[0] or 1, data[1:]) if data else (1, b"")
    answer = read(stream, step)
    if answer is None:
        return
    assert read(stream, 1) == answer, "how the bytes arrive must not matter"
    assert 200 <= answer.status <= 599
    assert len(answer.body) <= HTTP_BODY_MAX
    assert len(answer.headers) <= HTTP_HEADER_COUNT_MAX
    for name, value in answer.headers.items():
        assert name == name.lower()
        assert (name + value).isascii()
        assert not set(name + value) & set("\r\n\0\x1b\x7f")
    compare(answer, stream)


def read(stream: bytes, step: int) -> HttpAnswer | None:
    source = io.BytesIO(stream)
    try:
        return read_answer(lambda count: source.read(min(count, step)))
    except TransportError as error:
        assert str(error).isprintable()  # noqa: PT017 - the message is what is fuzzed
        return None


def compare(answer: HttpAnswer, stream: bytes) -> None:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=100_000)
    connection.send(h11.Request(method="POST", target="/", headers=[("Host", "h")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(stream)
    status, body = 0, b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        if isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
    assert (answer.status, answer.body) == (status, body)
