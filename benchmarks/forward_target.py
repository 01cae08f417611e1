"""The target of `scripts/bench forward`, a process of its own: takes, gives, echoes or greets.

The first byte of a connection says what: `S` and a length takes so many bytes and answers with one;
`G` and a length gives so many; `E` echoes until the end; `H` answers with one byte. A length has
eight bytes, the highest first; after `S`, `G` and `H` the next order may follow.
"""

import contextlib
import socket
import struct
import sys
import threading

MIB = 1 << 20


def serve(connection: socket.socket) -> None:
    buffer = memoryview(bytearray(MIB))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection, contextlib.suppress(OSError):
        while order := connection.recv(1):
            if order == b"H":
                connection.sendall(b"h")
            elif order == b"E":
                while count := connection.recv_into(buffer):
                    connection.sendall(buffer[:count])
            else:
                (left,) = struct.unpack("!Q", connection.recv(8, socket.MSG_WAITALL))
                if order == b"S":
                    while left:
                        left -= connection.recv_into(buffer, min(left, MIB))
                    connection.sendall(b"s")
                else:
                    while left:
                        left -= connection.send(buffer[: min(left, MIB)])


def greet(connection: socket.socket) -> None:
    """For the rate of connections: no thread, one byte, and the end."""
    with connection, contextlib.suppress(OSError):
        connection.sendall(b"h")


def main() -> None:
    with (
        socket.create_server(("127.0.0.1", 0), backlog=4096) as listener,
        socket.create_server(("127.0.0.1", 0), backlog=4096) as greeter,
    ):

        def greet_all() -> None:
            while True:
                greet(greeter.accept()[0])

        threading.Thread(target=greet_all, daemon=True).start()
        print(listener.getsockname()[1], greeter.getsockname()[1], flush=True)
        threading.Thread(target=sys.stdin.read, daemon=True).start()
        while True:
            connection, _peer = listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
