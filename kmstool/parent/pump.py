"""The bytes of one connection, carried both ways and never looked at.

Rules. (1) A direction is read only when all it has read is handed on: that is the back-pressure,
and what one direction holds is one buffer at most. (2) The end of a direction is passed on as the
end of that direction (RFC 9293, section 3.6, half-closed); the other one goes on. (3) What the
system has received is handed on before an error is. (4) An error is passed on as an error where
the other side's socket has a form for it: TCP's reset. A Unix socket or a vsock has none, and is
closed; TLS notices (RFC 8446, section 6.1).
"""

import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Final

from kmstool.parent.loop import BROKEN, IN, OUT, Loop
from kmstool.parent.metrics import Counter

CLIENT: Final = "client"
TARGET: Final = "target"

_RESET: Final = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds (socket(7), SO_LINGER)


class Pump:
    """Carries until both directions have ended, or the connection broke; then closes both sockets.

    Args:
        buffer: shared by all pumps of the loop: it is empty between two events.
        to_target, to_client: count bytes as they are handed to the system.
        ended: called once, when both sockets are closed, with how it ended.

    Attributes:
        active: `loop.now` of the last byte that moved.
    """

    __slots__ = ("_broken", "_client", "_done", "_ended", "_loop", "_target", "active", "buffer")

    def __init__(
        self,
        loop: Loop,
        client: socket.socket,
        target: socket.socket,
        *,
        buffer: memoryview,
        to_target: Counter,
        to_client: Counter,
        ended: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self.buffer = buffer
        self.active = loop.now
        self._ended = ended
        self._broken: str | None = None
        self._done = False
        self._client = _End(CLIENT, client, self, loop)
        self._target = _End(TARGET, target, self, loop)
        _Lane(self._client, self._target, to_target)
        _Lane(self._target, self._client, to_client)
        self._client.start()
        self._target.start()

    @property
    def counts(self) -> tuple[int, int]:
        """Bytes that were handed to the target, and to the client."""
        return self._client.out.count, self._target.out.count

    def abort(self, how: str) -> None:
        """Ends it now, as an error for both sides."""
        self._broken = self._broken or how
        self._finish(reset=True)

    def moved(self) -> None:
        """Bytes have moved."""
        self.active = self._loop.now

    def lane_ended(self) -> None:
        """One direction is over; when both are, so is the connection."""
        if self._client.out.ended and self._target.out.ended:
            self._finish()
        else:
            self._client.update()
            self._target.update()

    def source_failed(self, end: "_End") -> None:
        """`end` sent a reset, and all that it had sent before is handed on."""
        self.abort(f"reset by the {end.name}")

    def sink_failed(self, lane: "_Lane") -> None:
        """The sink takes no more bytes. What it has sent itself is still handed on (rule 3)."""
        self._broken = self._broken or f"the {lane.sink.name} went away"
        lane.drop()
        self.lane_ended()

    def _finish(self, *, reset: bool = False) -> None:
        if self._done:
            return
        self._done = True
        for end in (self._client, self._target):
            end.out.drop()
            if reset:
                reset_on_close(end.socket)
            self._loop.close(end.socket)
        self._ended(self._broken or "closed")


class _End:
    """One of the two sockets, and the events that are waited for on it."""

    __slots__ = ("_loop", "_mask", "_pump", "into", "name", "out", "socket")

    into: "_Lane"  # writes to this socket
    out: "_Lane"  # reads from it

    def __init__(self, name: str, sock: socket.socket, pump: Pump, loop: Loop) -> None:
        self.name = name
        self.socket = sock
        self._pump = pump
        self._loop = loop
        self._mask = -1  # not registered

    def start(self) -> None:
        self._mask = IN
        self._loop.register(self.socket.fileno(), IN, self.on_events)

    def on_events(self, events: int) -> None:
        if events & OUT:
            self.into.flush(self._pump)
        if events & ~OUT:
            if self.out.reading:
                self.out.move(self._pump)
            elif events & BROKEN:
                self._stuck()

    def update(self) -> None:
        """Waits for what can be done something about, and nothing else."""
        mask = (IN if self.out.reading else 0) | (OUT if self.into.left is not None else 0)
        if mask == self._mask:
            return
        if self._mask == -1:
            self._loop.register(self.socket.fileno(), mask, self.on_events)
        else:
            self._loop.modify(self.socket.fileno(), mask)
        self._mask = mask

    def _stuck(self) -> None:
        """It broke while nothing is read from it."""
        if self.out.ended:
            self._pump.abort(f"the {self.name} went away")
        else:
            # The other side has still to take bytes, and the system would tell this without end.
            # `update` registers it again when they are taken.
            self._loop.unregister(self.socket.fileno())
            self._mask = -1


class _Lane:
    """One direction."""

    __slots__ = ("_counter", "_send", "count", "ended", "left", "reading", "sink", "source")

    def __init__(self, source: _End, sink: _End, counter: Counter) -> None:
        self.source, self.sink = source, sink
        source.out = sink.into = self
        self._counter = counter
        self._send = sink.socket.send
        self.count = 0
        self.left: memoryview | None = None  # read, and not yet taken by the sink
        self.reading = True
        self.ended = False

    def move(self, pump: Pump) -> None:
        """Reads once, and hands on what came."""
        buffer = pump.buffer
        try:
            count = self.source.socket.recv_into(buffer)
        except BlockingIOError:
            return
        except OSError:
            pump.source_failed(self.source)
            return
        if not count:
            self._end(pump)
            return
        try:
            sent = self._send(buffer[:count])
        except BlockingIOError:
            sent = 0
        except OSError:
            pump.sink_failed(self)
            return
        self.count += sent
        self._counter.value += sent
        pump.moved()
        if sent < count:
            self.left = memoryview(bytes(buffer[sent:count]))
            self.reading = False
            self.source.update()
            self.sink.update()

    def flush(self, pump: Pump) -> None:
        """Hands on what is left, as far as it is taken now."""
        if self.left is None:
            return
        try:
            sent = self._send(self.left)
        except BlockingIOError:
            return
        except OSError:
            pump.sink_failed(self)
            return
        self.count += sent
        self._counter.value += sent
        pump.moved()
        if sent < len(self.left):
            self.left = self.left[sent:]
            return
        self.left = None
        self.reading = not self.ended
        self.sink.update()
        self.source.update()

    def drop(self) -> None:
        """Nothing goes this way any more."""
        self.left = None
        self.reading = False
        self.ended = True

    def _end(self, pump: Pump) -> None:
        self.drop()  # nothing is left: it was read
        try:
            self.sink.socket.shutdown(socket.SHUT_WR)
        except OSError:  # ENOTCONN: reset meanwhile
            pump.sink_failed(self)
            return
        pump.lane_ended()


def reset_on_close(sock: socket.socket) -> None:
    """Makes `close` an error for the peer, where the socket has a form for it (TCP)."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
