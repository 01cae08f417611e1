"""A service of the parent instance: one frame in, one frame out, on a bounded number of threads.

Enclaves are clients that may be faulty or taken over, so everything about a connection is bounded:
its number (in all, and of one enclave), its request, its time; one that sends nothing delays
nobody. Which CIDs may ask is a limit and no authentication: a CID is a number that the next enclave
gets again, and every process in an enclave has the same. Sees frames only; what they mean is the
handler's matter.
"""

import contextlib
import errno
import os
import select
import socket
import stat
import threading
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kmstool import limits
from kmstool.endpoint import Address, Deadline, TcpAddress, UnixAddress, VsockAddress
from kmstool.errors import InputError, KmstoolError, SettingError, TransportError
from kmstool.framing import (
    BAD_REQUEST,
    INTERNAL_ERROR,
    NOT_AVAILABLE,
    REFUSED,
    build_error_answer,
    read_frame,
)

# Takes a message and gives the frame of its answer, and a few words for the log.
Handler = Callable[[dict[str, object]], tuple[bytes, str]]


class Service:
    """Answers connections on `address` until `close`; a context manager.

    Args:
        handler: called from threads; what it raises is answered with `InternalError`.
        allowed_cids: of vsock peers; empty lets every CID ask that an enclave can have.
        report: gets one line for each connection; never a secret. Called from threads.

    Raises:
        SettingError: CIDs were given for an address that has none.
        TransportError: the address cannot be listened on.
    """

    def __init__(
        self,
        address: Address,
        handler: Handler,
        *,
        allowed_cids: Collection[int] = (),
        report: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._allowed_cids = check_cids(allowed_cids, address)
        self._address = address
        self._handler = handler
        self._report = report
        self._listener = listen(address)
        self._file = SocketFile(address)
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._lock = threading.Lock()
        self._woken, self._waker = os.pipe()
        self._thread = threading.Thread(target=self._accept, name="accept", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether connections are being accepted."""
        return self._thread.is_alive()

    def change(
        self, handler: Handler | None = None, *, allowed_cids: Collection[int] | None = None
    ) -> None:
        """Answers and admits so from now on. Nothing that is open is disturbed.

        Raises:
            SettingError: as for a new one.
        """
        if allowed_cids is not None:
            self._allowed_cids = check_cids(allowed_cids, self._address)
        if handler is not None:
            self._handler = handler

    def close(self, grace: float = limits.PARENT_GRACE) -> None:
        """Stops listening, gives open connections `grace` seconds to end, then ends them."""
        os.close(self._waker)
        self._thread.join()
        os.close(self._woken)
        self._file.remove()
        self._listener.close()
        deadline = Deadline(grace)
        with self._lock:
            connections = dict(self._connections)
        _shut_down(connections, socket.SHUT_RD)  # whoever has not asked by now is not waited for
        for thread in connections.values():
            if not deadline.expired:
                thread.join(deadline.remaining())
        _shut_down(connections, socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _accept(self) -> None:
        poll = select.poll()  # not select(): descriptors beyond 1,023 exist
        poll.register(self._listener, select.POLLIN)
        poll.register(self._woken, select.POLLHUP)
        while True:
            ready = [descriptor for descriptor, _ in poll.poll()]
            if self._woken in ready:
                return
            try:
                connection, peer = self._listener.accept()
            except OSError as error:
                # Out of descriptors, or the peer has gone again: neither ends the service.
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                    self._report(f"cannot accept a connection: {os.strerror(error.errno)}")
                    poll.unregister(self._listener)
                    poll.poll(limits.PARENT_ACCEPT_PAUSE * 1000)  # or until `close`
                    poll.register(self._listener, select.POLLIN)
                continue
            self._admit(connection, peer)

    def _admit(self, connection: socket.socket, peer: Any) -> None:
        name = self._name(peer)
        if refused := self._refusal(peer):
            self._turn_away(connection, name, REFUSED, refused)
        elif full := self._start(connection, name):
            self._turn_away(connection, name, NOT_AVAILABLE, full)

    def _refusal(self, peer: Any) -> str | None:
        if not isinstance(self._address, VsockAddress):
            return None
        if self._allowed_cids:
            return None if peer[0] in self._allowed_cids else "this CID may not ask"
        # Others are programs of this machine's own, of any user (vsock_loopback).
        return None if peer[0] >= limits.ENCLAVE_CID_MIN else "no enclave has this CID"

    def _start(self, connection: socket.socket, name: str) -> str | None:
        """Serves a connection in a thread, or says why there is none for it."""
        thread = threading.Thread(
            target=self._serve, args=(connection, name), name=name, daemon=True
        )
        with self._lock:
            if len(self._connections) >= limits.PARENT_CONNECTIONS_MAX:
                return "too many connections at once"
            if isinstance(self._address, VsockAddress):
                same = sum(other.name == name for other in self._connections.values())
                if same >= limits.PARENT_CONNECTIONS_PER_CID_MAX:
                    return "too many connections of this CID at once"
            try:
                thread.start()
            except RuntimeError:  # a limit of the process or of the machine, which may pass
                return "the parent has no thread left"
            self._connections[connection] = thread
        return None

    def _turn_away(self, connection: socket.socket, name: str, code: str, reason: str) -> None:
        """Says why at once, without a thread: whoever waits in silence learns nothing."""
        with connection, contextlib.suppress(OSError):
            connection.setblocking(False)  # a new socket's buffer takes this much
            connection.send(build_error_answer(code, reason))
            connection.recv(limits.FRAME_MAX)  # see `_send`; what is not here yet is not awaited
        self._report(f"{name}: refused: {reason}")

    def _serve(self, connection: socket.socket, name: str) -> None:
        try:
            with connection:
                frame, words = self._answer(connection)
                if frame:
                    words += _send(connection, frame)
            self._report(f"{name}: {words}")
        finally:
            with self._lock:
                self._connections.pop(connection, None)

    def _answer(self, connection: socket.socket) -> tuple[bytes, str]:
        deadline = Deadline(limits.PARENT_REQUEST_SECONDS)

        def recv(count: int) -> bytes:
            connection.settimeout(deadline.remaining("waiting for the request"))
            return connection.recv(count)

        try:
            message = read_frame(recv)
        except InputError as error:
            return build_error_answer(BAD_REQUEST, str(error)), f"refused: {error}"
        except (TimeoutError, TransportError):
            reason = f"no request came in {limits.PARENT_REQUEST_SECONDS:g} seconds"
            return build_error_answer(BAD_REQUEST, reason), f"refused: {reason}"
        except OSError as error:
            return b"", f"the connection broke: {error.strerror or error}"
        try:
            return self._handler(message)
        except KmstoolError as error:
            return build_error_answer(BAD_REQUEST, str(error)), f"refused: {error}"
        except Exception as error:  # noqa: BLE001 - one request must not end the service
            # Its text may hold anything; the type is what can be shown.
            kind = type(error).__name__
            return build_error_answer(INTERNAL_ERROR, "see the parent's output"), f"failed: {kind}"

    def _name(self, peer: Any) -> str:
        match self._address:
            case VsockAddress():
                return f"vsock CID {peer[0]}"
            case TcpAddress():
                return f"tcp {peer[0]} {peer[1]}"
            case UnixAddress():
                return "unix"


def check_cids(allowed_cids: Collection[int], address: Address) -> frozenset[int]:
    """The same CIDs. Raises `SettingError` where the address has none that could be allowed."""
    if allowed_cids and not isinstance(address, VsockAddress):
        raise SettingError(
            f"{address} has no CIDs that could be allowed",
            hint="--allow-cid is for vsock://; a Unix socket has the mode 0600 in its place",
        )
    return frozenset(allowed_cids)


def _shut_down(connections: Iterable[socket.socket], how: int) -> None:
    for connection in connections:
        with contextlib.suppress(OSError):  # it may have ended meanwhile
            connection.shutdown(how)


def listen(address: Address, *, backlog: int = limits.PARENT_CONNECTIONS_MAX) -> socket.socket:
    """A listening stream socket. A Unix one has the mode 0600, and replaces one that nobody serves.

    Args:
        backlog: connections that may wait to be accepted.

    Raises:
        TransportError: it is taken, or this machine has no such address.
    """
    target: Any
    match address:
        case VsockAddress():
            family, target = socket.AF_VSOCK, (address.cid, address.port)
        case UnixAddress():
            family, target = socket.AF_UNIX, address.path
            _remove_stale(address.path)
        case TcpAddress():
            family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
            target = (address.host, address.port)
    try:
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:  # no vsock in this kernel, no descriptor left
        raise _cannot(address, error) from None
    try:
        if isinstance(address, TcpAddress):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if isinstance(address, UnixAddress):
            os.fchmod(listener.fileno(), 0o600)  # bind takes the mode over, so it is never wider
        listener.bind(target)
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        raise _cannot(address, error) from None
    return listener


class SocketFile:
    """The file of an address that was just listened on, if it has one."""

    def __init__(self, address: Address) -> None:
        self._path = address.path if isinstance(address, UnixAddress) else None
        self._which = self._look()

    def remove(self) -> None:
        """Takes it away, and no other one's: somebody may listen at the same path by now."""
        if self._path is not None and self._which == self._look():
            Path(self._path).unlink(missing_ok=True)

    def _look(self) -> tuple[int, int] | None:
        if self._path is None:
            return None
        try:
            status = os.lstat(self._path)
        except OSError:
            return None
        return status.st_dev, status.st_ino


def _cannot(address: Address, error: OSError) -> TransportError:
    hints = {
        errno.EAFNOSUPPORT: "this kernel has no such sockets: on a parent instance, load the module"
        " vsock",
        errno.EACCES: "ports below 1024 and other users' folders need rights that this process has"
        " not",
        errno.ENOENT: "make the folder that the socket is to be in",
        errno.EMFILE: "raise the limit of descriptors: ulimit -n, or LimitNOFILE of systemd",
    }
    return TransportError(
        f"cannot listen on {address}: {error.strerror or error}",
        hint=hints.get(
            error.errno or 0,
            "see what else listens there; an address to listen on looks like vsock://:8001,"
            " tcp://127.0.0.1:8001 or unix:/run/relay.sock",
        ),
    )


def _remove_stale(path: str) -> None:
    with contextlib.suppress(OSError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):  # noqa: PTH116 - one system call
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            if probe.connect_ex(path) == errno.ECONNREFUSED:
                Path(path).unlink()


def _send(connection: socket.socket, frame: bytes) -> str:
    """Sends the answer, and closes so that a peer which is still writing can read it."""
    try:
        connection.settimeout(limits.PARENT_ANSWER_SECONDS)
        connection.sendall(frame)
        connection.shutdown(socket.SHUT_WR)
        # Closing with unread bytes resets the connection, and the answer would be lost.
        deadline = Deadline(limits.PARENT_LINGER_SECONDS)
        for _ in range(limits.PARENT_LINGER_READS):
            connection.settimeout(deadline.remaining())
            if not connection.recv(limits.FRAME_MAX):
                break
    except TransportError:
        pass  # it keeps the connection open; we do not
    except TimeoutError:
        return ""
    except OSError as error:
        return f"; the answer was not taken: {error.strerror or error}"
    return ""
