"""The simulated security module on a Unix socket, in threads.

A frame is a 4-byte big-endian length and that many bytes of CBOR: a request of 1..4096 bytes in, an
answer of 1..12288 out, any number of them on a connection. The socket is 0600 before it listens:
whoever can talk to a real /dev/nsm is root in the enclave. A connection that sends anything else,
or nothing for ten seconds, is closed; it never delays the others.
"""

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

from kmstool import limits
from kmstool.emulator.nsm_transport import read_exactly, read_length
from kmstool.errors import LocalFileError

_IDLE = 10.0  # seconds
_CONNECTIONS_MAX = 64


class NsmServer:
    """Serves `handle` on the Unix socket `path` until `close`; a context manager.

    Args:
        handle: request bytes to answer bytes, as `SimulatedNsm.handle`; called from threads.
        path: must not exist; removed by `close`.

    Raises:
        LocalFileError: the socket cannot be made.
    """

    def __init__(self, handle: Callable[[bytes], bytes], path: str | Path) -> None:
        self._handle = handle
        self._path = Path(path)
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._lock = threading.Lock()
        self._closing = False
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listener.bind(str(self._path))
            self._path.chmod(0o600)
            self._listener.listen(_CONNECTIONS_MAX)
        except OSError as error:
            self._listener.close()
            raise LocalFileError(
                f"cannot listen on {self._path}: {error.strerror or error}",
                hint="the path of a Unix socket has at most 107 bytes, and must not exist yet",
            ) from None
        self._thread = threading.Thread(target=self._accept, name="nsm", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops accepting, ends every connection, waits for the threads, removes the socket."""
        with self._lock:
            self._closing = True
            connections = dict(self._connections)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._thread.join()
        self._listener.close()
        for connection, thread in connections.items():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()
        with contextlib.suppress(OSError):
            os.unlink(self._path)  # noqa: PTH108 - the same call, without a second lookup

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._closing or len(self._connections) >= _CONNECTIONS_MAX:
                    connection.close()
                    continue
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                self._connections[connection] = thread
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.settimeout(_IDLE)
            while 1 <= (length := read_length(connection)) <= limits.NSM_REQUEST_MAX:
                answer = self._handle(read_exactly(connection, length))
                connection.sendall(len(answer).to_bytes(4, "big") + answer)
        except OSError:  # the client left, or was silent too long
            pass
        finally:
            with self._lock:
                self._connections.pop(connection, None)
            connection.close()
