"""One listening socket of the forwarder: accepts, and pauses when the system has no more to give.

What a client beyond a limit gets is a closed connection at once, never a place in a queue.
"""

import errno
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from kmstool import limits
from kmstool.endpoint import Address, TcpAddress, UnixAddress, VsockAddress
from kmstool.parent.carrying import Peer
from kmstool.parent.listening import SocketFile, listen
from kmstool.parent.loop import IN, Loop, Timer

_ACCEPTS_A_ROUND: Final = 64  # so that a flood of clients does not keep the others waiting
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# The connection has gone again (accept(2)): the next one may be there.
_GONE: Final = frozenset({errno.ECONNABORTED, errno.EPROTO, errno.EINTR, errno.EPERM})


class Listener:
    """Listens from when it is made; accepts from `start` on.

    Args:
        accepted: gets each connection, which does not block, and who it is from.
        exhausted: told the error when accepting pauses, once until it works again.

    Raises:
        TransportError: the address cannot be listened on.
    """

    def __init__(
        self,
        address: Address,
        *,
        loop: Loop,
        accepted: Callable[[socket.socket, Peer], None],
        exhausted: Callable[[OSError], None],
    ) -> None:
        self.address = address
        self._loop = loop
        self._accepted = accepted
        self._exhausted = exhausted
        self._told = False
        self._pause: Timer | None = None
        self._socket = listen(address, backlog=limits.FORWARD_BACKLOG)
        self._socket.setblocking(False)
        self._file = SocketFile(address)

    @property
    def socket_address(self) -> Any:
        """What it is bound to, as getsockname(2) has it; with the port that port 0 became."""
        return self._socket.getsockname()

    def start(self) -> None:
        """Accepts from now on; on the loop's thread."""
        self._loop.register(self._socket.fileno(), IN, lambda _events: self._accept())

    def close(self) -> None:
        """Stops; who waits to be accepted is reset by the system. On the loop's thread."""
        if self._pause is not None:
            self._pause.cancel()
        self._file.remove()
        self._loop.close(self._socket)

    def abandon(self) -> None:
        """The same for one that was never started; from any thread."""
        self._file.remove()
        self._socket.close()

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_A_ROUND):
            try:
                connection, peer = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _GONE:
                    continue
                self._wait(error)
                return
            self._told = False
            # A failure over one connection must not make the listener deaf.
            self._loop.guarded(partial(self._take, connection, peer))

    def _take(self, connection: socket.socket, peer: Any) -> None:
        connection.setblocking(False)
        if isinstance(self.address, TcpAddress):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._accepted(connection, peer_of(self.address, peer))

    def _wait(self, error: OSError) -> None:
        """Leaves who waits where they are for a moment: there is no descriptor to say no with."""
        self._loop.unregister(self._socket.fileno())
        self._pause = self._loop.call_at(self._loop.now + limits.PARENT_ACCEPT_PAUSE, self.start)
        if not self._told:
            self._told = True
            self._exhausted(error)


def peer_of(address: Address, peer: Any) -> Peer:
    """Who connected to `address`, from what accept(2) said."""
    match address:
        case VsockAddress():
            return Peer(f"vsock CID {peer[0]}", peer[0])
        case TcpAddress():
            return Peer(f"tcp {peer[0]} {peer[1]}", None)
        case UnixAddress():
            return Peer("unix", None)
