"""HTTP/1.1 over TLS 1.3 on a loopback port: a thread for each connection, h11 for the parsing.

Why h11 and threads: docs/decisions/0008-emulator-http-server.md. The head and the body of an answer
leave in one write (AWS' C client needs it), connections are kept alive, and a client that stalls in
the handshake or between requests holds one thread for a bounded time and nobody else up.
"""

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import h11

from kmstool.emulator.authentication import HttpRequest
from kmstool.endpoint import TcpAddress
from kmstool.errors import TransportError

BODY_MAX = 1_048_576  # bytes; the largest request KMS takes (a document and a policy) is below half
HEADERS_MAX = 32_768  # bytes of one request's head, plus at most what one read brings
HANDSHAKE_TIMEOUT = 10.0  # seconds
IDLE_TIMEOUT = 300.0  # seconds that a kept-alive connection may say nothing
CONNECTIONS_MAX = 128  # at once; more wait in the listen queue
_RECEIVE = 65_536  # bytes of one read


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A status, its own headers (Date, Content-Length and Connection are added), and a body."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes = field(repr=False)


Handler = Callable[[HttpRequest], HttpAnswer]


class Server:
    """Listens from the moment it is made; `close` ends every connection and thread of it.

    Args:
        handler: called in many threads at once; must not raise.
        report: one line about a connection that failed before a request was read.
        port: 0 for any free one.

    Raises:
        TransportError: the port cannot be had.
    """

    def __init__(
        self,
        handler: Handler,
        context: ssl.SSLContext,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        report: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._handler = handler
        self._context = context
        self._report = report
        try:
            self._listener = socket.create_server((host, port), backlog=256)
        except OSError as error:
            raise TransportError(
                f"cannot listen on {host} port {port}: {os.strerror(error.errno or 0)}",
                hint="another program may use it; port 0 takes a free one",
            ) from None
        self.address = TcpAddress(host, self._listener.getsockname()[1])
        self._slots = threading.BoundedSemaphore(CONNECTIONS_MAX)
        self._open: dict[threading.Thread, socket.socket] = {}
        self._lock = threading.Lock()
        self._closing = False
        self._acceptor = threading.Thread(target=self._accept, name="kms-accept", daemon=True)
        self._acceptor.start()

    def close(self) -> None:
        """Stops listening, ends the connections, and waits for their threads."""
        with self._lock:
            self._closing = True
            for connection in self._open.values():
                _shutdown(connection)
            threads = list(self._open)
        _shutdown(self._listener)
        for thread in (self._acceptor, *threads):
            thread.join(timeout=5)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            self._slots.acquire()
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            thread = threading.Thread(
                target=self._serve, args=(connection,), name="kms-connection", daemon=True
            )
            with self._lock:
                if self._closing:
                    connection.close()
                    return
                self._open[thread] = connection
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(HANDSHAKE_TIMEOUT)
            tls = self._context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        except OSError as error:  # the peer left
            self._report(f"connection failed: {error}")
            connection.close()
        else:
            with tls:
                self._converse(tls)
        finally:
            with self._lock:
                self._open.pop(threading.current_thread(), None)
            self._slots.release()

    def _converse(self, tls: ssl.SSLSocket) -> None:
        with self._lock:
            if self._closing:
                return
            self._open[threading.current_thread()] = tls
        try:
            tls.do_handshake()
        except OSError as error:  # ssl.SSLError is one: wrong CA, TLS 1.2, or it left
            self._report(f"TLS handshake failed: {error}")
            return
        tls.settimeout(IDLE_TIMEOUT)
        protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADERS_MAX)
        with contextlib.suppress(OSError):  # the peer left, or `close` was called
            while self._answer_one(tls, protocol):
                protocol.start_next_cycle()

    def _answer_one(self, tls: ssl.SSLSocket, protocol: h11.Connection) -> bool:
        """Reads one request and answers it; False when the connection has to end."""
        try:
            request = _read_request(tls, protocol)
        except h11.RemoteProtocolError as error:
            self._report(f"not HTTP/1.1: {error}")
            if protocol.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                tls.sendall(_write(protocol, HttpAnswer(error.error_status_hint, [], b""), True))
            return False
        if request is None:
            return False
        too_long = len(request.body) > BODY_MAX
        answer = HttpAnswer(413, [], b"") if too_long else self._handler(request)
        tls.sendall(_write(protocol, answer, too_long))
        return protocol.our_state is h11.DONE and protocol.their_state is h11.DONE


def _read_request(tls: ssl.SSLSocket, protocol: h11.Connection) -> HttpRequest | None:
    """One request; None at the end of the stream. A body that is too long is cut, not read on."""
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = protocol.next_event()
        if event is h11.NEED_DATA:
            if protocol.they_are_waiting_for_100_continue:
                tls.sendall(
                    protocol.send(h11.InformationalResponse(status_code=100, headers=[])) or b""
                )
            protocol.receive_data(tls.recv(_RECEIVE))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        if head is not None and (isinstance(event, h11.EndOfMessage) or len(body) > BODY_MAX):
            return _request(head, bytes(body))
        if isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            return None


def _request(head: h11.Request, body: bytes) -> HttpRequest:
    headers: dict[str, str] = {}
    for raw_name, raw_value in head.headers:  # names are lower case already
        name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return HttpRequest(head.method.decode("ascii"), head.target.decode("ascii"), headers, body)


def _write(protocol: h11.Connection, answer: HttpAnswer, close: bool) -> bytes:
    headers = [*answer.headers, ("content-length", str(len(answer.body)))]
    if close:
        headers.append(("connection", "close"))
    head = h11.Response(status_code=answer.status, headers=headers)
    parts = (head, h11.Data(data=answer.body), h11.EndOfMessage())
    return b"".join(protocol.send(part) or b"" for part in parts)


def _shutdown(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # On the raw descriptor: SSLSocket.shutdown would also drop its TLS state under the reader.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
