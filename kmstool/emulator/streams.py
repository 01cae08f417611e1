"""A listener on loopback whose connections go to a function, each in a thread: for bad servers.

It knows no protocol. `close` ends every connection, whatever its function is waiting for.
"""

import contextlib
import socket
import threading
from collections.abc import Callable

from kmstool.endpoint import TcpAddress

_IDLE = 60.0  # seconds that a connection may stay silent


class StreamServer:
    """Listens from the moment it is made, until `close`.

    Args:
        serve: gets a connected socket, which is closed when it returns. OSError ends it quietly.
    """

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = TcpAddress("127.0.0.1", self._listener.getsockname()[1])
        self._open: dict[threading.Thread, socket.socket] = {}
        self._lock = threading.Lock()
        self._closing = False
        self._acceptor = threading.Thread(target=self._accept, name="streams", daemon=True)
        self._acceptor.start()

    def close(self) -> None:
        """Ends every connection and waits for the threads."""
        with self._lock:
            self._closing = True
            connections = dict(self._open)
        for listening in (self._listener, *connections.values()):
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
        for thread in (self._acceptor, *connections):
            thread.join(timeout=5)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            connection.settimeout(_IDLE)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # A second descriptor: TLS takes the first one over, and `close` must reach it still.
            handle = connection.dup()
            thread = threading.Thread(target=self._run, args=(connection, handle), daemon=True)
            with self._lock:
                if self._closing:
                    connection.close()
                    handle.close()
                    return
                self._open[thread] = handle
            thread.start()

    def _run(self, connection: socket.socket, handle: socket.socket) -> None:
        try:
            with connection, contextlib.suppress(OSError):
                self._serve(connection)
        finally:
            with self._lock:
                self._open.pop(threading.current_thread(), None)
            handle.close()
