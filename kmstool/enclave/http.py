"""One HTTP/1.1 request shape, `POST /` with a body, and the reader of its answers (RFC 9112).

The reader follows five rules.
1. It is pure over `recv`: no socket, no clock. What `recv` raises passes through.
2. Everything is bounded by `limits.py` before it is stored.
3. A grammar is quoted where it is departed from, and only ever departed from to the strict side:
   an answer that two readers could cut in two ways is refused, not repaired.
4. Only a connection that was lost is worth another attempt: `retryable` is True for that alone.
5. A connection on which anything went wrong is closed.

It never follows a redirect, decodes a content coding, or sends a second request before the answer.
"""

import re
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from kmstool.endpoint import Deadline
from kmstool.errors import TransportError
from kmstool.limits import (
    HTTP_BODY_MAX,
    HTTP_HEADER_COUNT_MAX,
    HTTP_HEADERS_MAX,
    HTTP_INTERIM_MAX,
    HTTP_STATUS_LINE_MAX,
)

_RECV: Final = 16_384  # bytes asked for at once: one TLS record


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """One final answer, complete.

    Attributes:
        status: 200 to 599.
        headers: names in lower case; values printable ASCII; repeated fields joined by ", ".
        body: as long as Content-Length said.
        keep_alive: the server did not announce to close the connection.
    """

    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)
    keep_alive: bool


class HttpConnection:
    """Sends requests one after another over a connected socket, which it owns.

    Args:
        sock: a TLS socket whose peer has proved to be `host` (in tests also a plain one).
        host: goes into the Host field.
    """

    def __init__(self, sock: ssl.SSLSocket | socket.socket, host: str) -> None:
        self._sock = sock
        self._host = host
        self._open = True

    @property
    def reusable(self) -> bool:
        """True while the connection is open and silent, which it must be between two answers.

        Bytes that came without a request would be taken for the answer to the next one, so they
        end the connection, as its closing by the server does.
        """
        if self._open and not self._is_silent():
            self.close()
        return self._open

    def post(self, headers: Mapping[str, str], body: bytes, deadline: Deadline) -> HttpAnswer:
        """Sends `POST /` in one piece and reads its answer.

        Args:
            headers: to be sent as they are; Host and Content-Length are added when missing.

        Raises:
            TransportError: retryable when the connection was lost, not when the answer is malformed
                or too large, nor when the deadline passed.
        """
        request = self._build(headers, body)
        if not self.reusable:
            raise TransportError(
                f"the connection to {self._host} was closed between two requests", retryable=True
            )

        phase = f"sending the request to {self._host}"

        def recv(count: int) -> bytes:
            self._sock.settimeout(deadline.remaining(phase))
            return self._sock.recv(count)

        try:
            self._sock.settimeout(deadline.remaining(phase))
            self._sock.sendall(request)
            phase = f"waiting for the answer of {self._host}"
            answer = read_answer(recv)
        except TimeoutError:
            self.close()
            raise deadline.exceeded(phase) from None
        except OSError as error:
            self.close()
            reason = getattr(error, "reason", None) or error.strerror or type(error).__name__
            raise TransportError(
                f"the connection to {self._host} broke: {reason}", retryable=True
            ) from None
        except BaseException:
            self.close()
            raise
        if not answer.keep_alive:
            self.close()
        return answer

    def close(self) -> None:
        """Closes the socket; may be called again."""
        self._open = False
        self._sock.close()

    def _is_silent(self) -> bool:
        # A read is the only sure test: under TLS 1.3 the socket also becomes readable for session
        # tickets, which are no data.
        try:
            self._sock.settimeout(0)
            self._sock.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        return False

    def _build(self, headers: Mapping[str, str], body: bytes) -> bytes:
        fields = {name.lower(): (name, value) for name, value in headers.items()}
        for name, value in (("Host", self._host), ("Content-Length", str(len(body)))):
            if fields.setdefault(name.lower(), (name, value))[1] != value:
                raise TransportError(f"the request's {name} field contradicts the request")
        lines = ["POST / HTTP/1.1"]
        for name, value in fields.values():
            if not (
                _TOKEN.fullmatch(name.encode("ascii", "replace"))
                and _VALUE.fullmatch(value.encode("ascii", "backslashreplace"))
                and value.isascii()
            ):
                raise TransportError(f"the request's field {name!a} cannot stand in a header")
            lines.append(f"{name}: {value}")
        return "\r\n".join([*lines, "", ""]).encode("ascii") + body


# token = 1*tchar (RFC 9110, section 5.6.2).
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# field-value = *field-content; field-vchar = VCHAR / obs-text (RFC 9110, section 5.5). Departure:
# no obs-text (%x80-FF). KMS sends none, and its C1 controls would reach a terminal in messages.
_VALUE: Final = re.compile(rb"[\t\x20-\x7e]*")
# status-line = HTTP-version SP status-code SP [ reason-phrase ] (RFC 9112, section 4). Departures:
# version 1.1 alone (1.0 has other rules for reuse), and no obs-text in the reason, as above.
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) [\t\x20-\x7e]*")
# These end after their header whatever it announces (RFC 9112, section 6.3), so a Content-Length
# among it would be read in two ways. Departure: refused.
_BODILESS: Final = frozenset({204, 304})
_DIGITS: Final = re.compile(r"[0-9]{1,10}")


def read_answer(recv: Callable[[int], bytes]) -> HttpAnswer:
    """Reads one final answer to a POST; interim ones (1xx) before it are passed over.

    Args:
        recv: gives 1 to n bytes, or b"" at the end of the stream.

    Raises:
        TransportError: the stream ended early (retryable), or the answer is not one that has a
            single meaning within the limits (not retryable). Bytes beyond the answer in what `recv`
            gave are of the second kind.
    """
    source = _Source(recv)
    # RFC 9110, section 15.2: a client must parse 1xx answers even unasked. Departures: a handful
    # at most, and no 101, since we never ask for another protocol.
    for _ in range(HTTP_INTERIM_MAX + 1):
        status = _read_status(source)
        headers = _read_headers(source)
        if status >= 200:
            break
        if status == 101:
            raise TransportError("the server switched to a protocol that was not asked for")
        # RFC 9110, section 8.6, and RFC 9112, section 6.1, forbid these fields here.
        if "content-length" in headers or "transfer-encoding" in headers:
            raise TransportError("an interim answer announces a body")
    else:
        raise TransportError(f"more than {HTTP_INTERIM_MAX} interim answers came, and no final one")
    if status in _BODILESS:
        raise TransportError(f"the answer has status {status}, which KMS does not use")
    body = source.read_exactly(_body_length(headers))
    if source.left_over():
        # Whoever sent them hopes that they are taken for the answer to the next request.
        raise TransportError("bytes came after the end of the answer")
    options = headers.get("connection", "").lower().split(",")
    keep_alive = "close" not in [option.strip(" \t") for option in options]
    return HttpAnswer(status, headers, body, keep_alive)


def _read_status(source: "_Source") -> int:
    line = source.read_line(HTTP_STATUS_LINE_MAX, "status line")
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        if line.startswith(b"HTTP/") and not line.startswith(b"HTTP/1.1 "):
            raise TransportError("the answer is not of HTTP/1.1")
        raise TransportError("the answer's status line is malformed")
    return int(match[1])


def _read_headers(source: "_Source") -> dict[str, str]:
    headers: dict[str, str] = {}
    count = 0
    while line := source.read_header_line():
        count += 1
        if count > HTTP_HEADER_COUNT_MAX:
            raise TransportError(f"the answer has more than {HTTP_HEADER_COUNT_MAX} header fields")
        # field-line = field-name ":" OWS field-value OWS (RFC 9112, section 5). A line that starts
        # with a space (obs-fold) and a space before the colon have no token, so they fail here.
        raw_name, colon, raw_value = line.partition(b":")
        if not colon or not _TOKEN.fullmatch(raw_name) or not _VALUE.fullmatch(raw_value):
            if line[:1] in (b" ", b"\t"):
                raise TransportError("the answer has a folded header line")
            raise TransportError("the answer has a malformed header line")
        name = raw_name.decode("ascii").lower()
        value = raw_value.strip(b" \t").decode("ascii")
        if name not in headers:
            headers[name] = value
        elif name == "content-length":
            raise TransportError("the answer has more than one Content-Length")
        else:
            headers[name] += ", " + value
    return headers


def _body_length(headers: Mapping[str, str]) -> int:
    # RFC 9112, section 6.3, knows six ways to tell where a body ends. KMS uses one of them, and
    # where two are given, readers differ.
    if "transfer-encoding" in headers:
        raise TransportError(
            f"the answer's body has the transfer coding {headers['transfer-encoding']!r}, and KMS"
            " uses none"
        )
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise TransportError(
            f"the answer's body has the content coding {headers['content-encoding']!r}, which was"
            " not asked for"
        )
    text = headers.get("content-length")
    if text is None:
        raise TransportError("the answer has no Content-Length")
    # Content-Length = 1*DIGIT. Departures: no list of equal numbers ("5, 5"), no endless digits.
    if not _DIGITS.fullmatch(text):
        raise TransportError(f"the answer's Content-Length is malformed: {text[:40]!r}")
    length = int(text)
    if length > HTTP_BODY_MAX:
        raise TransportError(
            f"the answer announces a body of {length} bytes, more than {HTTP_BODY_MAX}"
        )
    return length


class _Source:
    """Lines and counted bytes out of `recv`, the header lines bounded together."""

    def __init__(self, recv: Callable[[int], bytes]) -> None:
        self._recv = recv
        self._buffer = bytearray()
        self._used = 0  # bytes of the buffer that were handed out
        self._headers_left = HTTP_HEADERS_MAX

    def read_header_line(self) -> bytes:
        line = self.read_line(self._headers_left, "header")
        self._headers_left -= len(line)
        return line

    def read_line(self, most: int, what: str) -> bytes:
        """A line without its CRLF, which has `most` bytes at the most."""
        searched = self._used
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched - self._used > most + 1:
                break
            self._more()
        if end < 0 or end - 1 - self._used > most:
            raise TransportError(f"the answer's {what} is longer than allowed")
        line = bytes(self._buffer[self._used : end])
        # RFC 9112, section 2.2, lets a recipient take a bare LF for a line's end. Departure: not
        # here, nor a bare CR within.
        if not line.endswith(b"\r") or b"\r" in line[:-1]:
            raise TransportError(f"the answer's {what} has a line end that is not CRLF")
        self._used = end + 1
        return line[:-1]

    def read_exactly(self, count: int) -> bytes:
        while len(self._buffer) - self._used < count:
            self._more()
        data = bytes(self._buffer[self._used : self._used + count])
        self._used += count
        return data

    def left_over(self) -> bool:
        return self._used < len(self._buffer)

    def _more(self) -> None:
        piece = self._recv(_RECV)
        if piece:
            self._buffer += piece
        elif self._buffer:
            raise TransportError(
                f"the answer was cut off after {len(self._buffer)} bytes", retryable=True
            )
        else:
            raise TransportError("the connection was closed without an answer", retryable=True)
