"""A server on loopback that handles one connection after another in a thread."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

Handler = Callable[[socket.socket], None]


@contextlib.contextmanager
def serving(handler: Handler) -> Iterator[int]:
    """The port where `handler` gets each connection, which is closed when it returns."""
    stopping = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                connection, _peer = listener.accept()
                with connection:
                    if stopping.is_set():
                        return
                    connection.settimeout(20)
                    with contextlib.suppress(OSError):  # what the client did to us is its affair
                        handler(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        try:
            yield port
        finally:
            stopping.set()
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            thread.join(30)
            assert not thread.is_alive()


def over_tls(context: ssl.SSLContext, handler: Handler) -> Handler:
    """A handler that does the server's handshake first."""

    def handle(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as tls:
            handler(tls)

    return handle


def wait_for_close(connection: socket.socket) -> None:
    """Reads until the client closes."""
    while connection.recv(65_536):
        pass
