"""A target of the forwarder as a process of its own, which can be killed.

`python -m support.fault_target HOST PORT` writes its port to stdout. A connection says first what
it wants:

    X  read `there` bytes of the client while `back` bytes of the seed's stream are sent; then the
       SHA-256 of what was read, and close
    F  send the seed's stream without end
    Q  be quiet: read nothing, send nothing, until the connection is closed
    R  send `back` bytes, then a reset
"""

import contextlib
import hashlib
import os
import socket
import struct
import sys
import threading

from support.streams import PIECE, pieces, stream

REQUEST = struct.Struct("!cQQQ")  # what, there, back, seed
RESET = struct.pack("ii", 1, 0)


def request(what: str, *, there: int = 0, back: int = 0, seed: int = 0) -> bytes:
    """What a connection begins with."""
    return REQUEST.pack(what.encode(), there, back, seed)


def exactly(sock: socket.socket, count: int) -> bytes:
    """So many bytes.

    Raises:
        EOFError: the connection ended before.
    """
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def absorb(sock: socket.socket, count: int) -> bytes:
    """Reads so many bytes and gives their SHA-256; raises as `exactly` does."""
    found = hashlib.sha256()
    while count:
        piece = sock.recv(min(count, PIECE))
        if not piece:
            raise EOFError
        found.update(piece)
        count -= len(piece)
    return found.digest()


def _send(sock: socket.socket, seed: int, count: int) -> None:
    with contextlib.suppress(OSError):  # the reader notices
        for piece in pieces(seed, count):
            sock.sendall(piece)


def _serve(sock: socket.socket) -> None:
    what, there, back, seed = REQUEST.unpack(exactly(sock, REQUEST.size))
    match what:
        case b"X":
            sender = threading.Thread(target=_send, args=(sock, seed, back), daemon=True)
            if back > PIECE:
                sender.start()
            else:
                _send(sock, seed, back)
            found = absorb(sock, there)
            if back > PIECE:
                sender.join()
            sock.sendall(found)
        case b"F":
            offset = 0
            while True:
                sock.sendall(stream(seed, offset, PIECE))
                offset += PIECE
        case b"Q":
            # Nothing is read, so only the other side's reset, or its end, is noticed.
            poll_for_end(sock)
        case b"R":
            _send(sock, seed, back)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def poll_for_end(sock: socket.socket) -> None:
    """Waits until the other side has closed, whatever it has sent before."""
    import select  # noqa: PLC0415 - only here

    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    poll.poll()


def _handle(sock: socket.socket) -> None:
    with sock, contextlib.suppress(OSError, EOFError):
        _serve(sock)


def main(host: str, port: int) -> None:
    """Serves until it is killed, or whoever started it is gone."""
    with socket.create_server((host, port), backlog=4_096) as listener:
        print(listener.getsockname()[1], flush=True)
        parent = os.getppid()
        listener.settimeout(1)
        while os.getppid() == parent:
            try:
                sock, _peer = listener.accept()
            except TimeoutError:
                continue
            sock.settimeout(None)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_handle, args=(sock,), daemon=True).start()


if __name__ == "__main__":
    threading.stack_size(262_144)
    main(sys.argv[1], int(sys.argv[2]))
