"""Serves `Metrics` to Prometheus on a Unix socket or a loopback port, over the least HTTP.

One kind of request (GET of any path), one answer, then the connection is closed. It runs on the
loop of a thread of its own, so that no scraper delays a connection that is carried; its number of
connections, their requests and their time are bounded. Not for enclaves: `addresses.py` refuses a
vsock. Source: RFC 9112; Prometheus' text exposition format, version 0.0.4.
"""

import socket
import threading
from types import TracebackType
from typing import Final, Self

from kmstool import limits
from kmstool.endpoint import Address
from kmstool.parent.accepting import Listener
from kmstool.parent.addresses import check_metrics_address
from kmstool.parent.carrying import Peer
from kmstool.parent.loop import IN, OUT, Loop
from kmstool.parent.metrics import Metrics

_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class MetricsServer:
    """Serves from when it is made until `close`; a context manager.

    Raises:
        SettingError: enclaves or the network could connect to the address.
        TransportError: it cannot be listened on.
    """

    def __init__(self, address: Address, metrics: Metrics) -> None:
        self._metrics = metrics
        self._loop = Loop(failed=lambda _error: None)  # the connection's time ends it
        self._open: set[_Exchange] = set()
        try:
            self._listener = Listener(
                check_metrics_address(address),
                loop=self._loop,
                accepted=self._accepted,
                exhausted=lambda _error: None,  # the forwarder says so
            )
        except BaseException:
            self._loop.discard()
            raise
        self._thread = threading.Thread(target=self._loop.run, name="metrics", daemon=True)
        self._thread.start()
        self._loop.call_from_thread(self._listener.start)

    @property
    def alive(self) -> bool:
        """Whether its thread still runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Ends it, and the connections that are open."""

        def end() -> None:
            self._listener.close()
            for exchange in list(self._open):
                exchange.end()

        self._loop.call_from_thread(end)
        self._loop.stop()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _accepted(self, connection: socket.socket, _peer: Peer) -> None:
        if len(self._open) >= limits.METRICS_CONNECTIONS_MAX:
            connection.close()
            return
        self._open.add(_Exchange(connection, self._loop, self._metrics, self._open))


class _Exchange:
    """One request and its answer."""

    def __init__(
        self, sock: socket.socket, loop: Loop, metrics: Metrics, others: "set[_Exchange]"
    ) -> None:
        self._socket = sock
        self._loop = loop
        self._metrics = metrics
        self._others = others
        self._request = b""
        self._answer = memoryview(b"")
        self._timer = loop.call_at(loop.now + limits.METRICS_SECONDS, self.end)
        loop.register(sock.fileno(), IN, self._on_events)

    def end(self) -> None:
        """Closes it."""
        self._timer.cancel()
        self._others.discard(self)
        self._loop.close(self._socket)

    def _on_events(self, _events: int) -> None:
        try:
            if self._answer:
                self._write()
            else:
                self._read()
        except BlockingIOError:
            return
        except OSError:
            self.end()

    def _read(self) -> None:
        data = self._socket.recv(limits.METRICS_REQUEST_MAX)
        self._request += data
        if not data or len(self._request) > limits.METRICS_REQUEST_MAX:
            self.end()
        elif b"\r\n\r\n" in self._request or b"\n\n" in self._request:
            self._answer = memoryview(self._answer_to(self._request))
            self._loop.modify(self._socket.fileno(), OUT)

    def _write(self) -> None:
        self._answer = self._answer[self._socket.send(self._answer) :]
        if not self._answer:
            self.end()

    def _answer_to(self, request: bytes) -> bytes:
        if request.startswith(b"GET "):
            return _http("200 OK", self._metrics.render().encode())
        return _http("405 Method Not Allowed", b"GET only\n")


def _http(status: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
