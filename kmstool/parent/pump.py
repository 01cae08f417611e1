"""The bytes of one connection, carried both ways and never looked at.

Rules. (1) A direction is read only when all it has read is handed on: that is the back-pressure,
and what one direction holds is one buffer and one pipe at most. (2) The end of a direction is
passed on as the end of that direction (RFC 9293, section 3.6, half-closed); the other one goes on.
(3) What the system has received is handed on before an error is. (4) An error is passed on as an
error where the other side's socket has a form for it: TCP's reset. A Unix socket or a vsock has
none, and is closed; TLS notices (RFC 8446, section 6.1).
"""

import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Final

from kmstool import limits
from kmstool.parent.loop import BROKEN, ERROR, IN, OUT, Loop
from kmstool.parent.metrics import Counter
from kmstool.parent.splicing import UNFIT, Pipe, Pipes

CLIENT: Final = "client"
TARGET: Final = "target"

_TCP: Final = (socket.AF_INET, socket.AF_INET6)
_RESET: Final = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds (socket(7), SO_LINGER)


class Pump:
    """Carries until both directions have ended, or the connection broke; then closes both sockets.

    Args:
        buffer: shared by all pumps of the loop: it is empty between two events.
        pipes: shared in turn.
        to_target, to_client: count bytes as they are handed to the system.
        ended: called once, when both sockets are closed, with how it ended.

    Attributes:
        active: `loop.now` of the last byte that moved.
    """

    __slots__ = (
        "_broken",
        "_client",
        "_done",
        "_ended",
        "_loop",
        "_target",
        "active",
        "buffer",
        "client_went_away",
        "pipes",
    )

    def __init__(
        self,
        loop: Loop,
        client: socket.socket,
        target: socket.socket,
        *,
        buffer: memoryview,
        pipes: Pipes,
        to_target: Counter,
        to_client: Counter,
        ended: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self.buffer = buffer
        self.pipes = pipes
        self.active = loop.now
        self._ended = ended
        self._broken: str | None = None
        self._done = False
        self.client_went_away = False
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
        if lane.sink is self._client:
            # A target whose answer was not taken hears of it. A client whose request was not gets
            # a plain end: it may still have to read the answer, which a reset would discard.
            self.client_went_away = True
            reset_on_close(self._target.socket)
        lane.drop(self)
        self.lane_ended()

    def _finish(self, *, reset: bool = False) -> None:
        if self._done:
            return
        self._done = True
        for end in (self._client, self._target):
            end.out.drop(self)
            if reset:
                reset_on_close(end.socket)
            self._loop.close(end.socket)
        self._ended(self._broken or "closed")


class _End:
    """One of the two sockets, and the events that are waited for on it."""

    __slots__ = ("_loop", "_mask", "_pump", "descriptor", "into", "name", "out", "socket")

    into: "_Lane"  # writes to this socket
    out: "_Lane"  # reads from it

    def __init__(self, name: str, sock: socket.socket, pump: Pump, loop: Loop) -> None:
        self.name = name
        self.socket = sock
        self.descriptor = sock.fileno()
        self._pump = pump
        self._loop = loop
        self._mask = -1  # not registered

    def start(self) -> None:
        self._mask = IN
        self._loop.register(self.descriptor, IN, self.on_events)

    def on_events(self, events: int) -> None:
        if events & OUT:
            self.into.flush(self._pump)
        if events & ~OUT:
            if self.out.reading:
                self.out.move(self._pump)
            elif events & BROKEN:
                self._stuck(events)

    def update(self) -> None:
        """Waits for what can be done something about, and nothing else."""
        mask = (IN if self.out.reading else 0) | (OUT if self.into.blocked else 0)
        if mask == self._mask:
            return
        if self._mask == -1:
            self._loop.register(self.descriptor, mask, self.on_events)
        else:
            self._loop.modify(self.descriptor, mask)
        self._mask = mask

    def _stuck(self, events: int) -> None:
        """It broke while nothing is read from it."""
        if self.out.ended and events & ERROR:
            self._pump.source_failed(self)
        else:
            # The other side has still to take bytes, or this one closed both directions (which is
            # no error until something is sent to it). The system would tell this without end;
            # `update` registers it again when bytes have moved.
            self._loop.unregister(self.descriptor)
            self._mask = -1


class _Lane:
    """One direction: copied through the shared buffer or, while it carries bulk, through a pipe."""

    __slots__ = (
        "_counter",
        "_left",
        "_pipe",
        "_recv_into",
        "_send",
        "_spliced",
        "blocked",
        "count",
        "ended",
        "reading",
        "sink",
        "source",
    )

    def __init__(self, source: _End, sink: _End, counter: Counter) -> None:
        self.source, self.sink = source, sink
        source.out = sink.into = self
        self._recv_into = source.socket.recv_into
        self._send = sink.socket.send
        self._counter = counter
        self._left: memoryview | None = None  # read, and not yet taken by the sink
        self._pipe: Pipe | None = None
        self._spliced = source.socket.family in _TCP
        self.count = 0
        self.reading = True
        self.blocked = False  # what was read waits for the sink
        self.ended = False

    def move(self, pump: Pump) -> None:
        """Reads once, and hands on what came."""
        if self._pipe is not None:
            self._move_bulk(pump, self._pipe)
            return
        buffer = pump.buffer
        try:
            count = self._recv_into(buffer)
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
        self._handed_on(pump, sent)
        if self._spliced and count >= limits.FORWARD_BULK_BEGINS:
            self._begin_bulk(pump)
        if sent < count:
            self._left = memoryview(bytes(buffer[sent:count]))
            self._block()

    def flush(self, pump: Pump) -> None:
        """Hands on what is left, as far as it is taken now."""
        if not self.blocked:
            return
        if self._left is None:
            self._drain(pump)
            return
        try:
            sent = self._send(self._left)
        except BlockingIOError:
            return
        except OSError:
            pump.sink_failed(self)
            return
        self._handed_on(pump, sent)
        if sent < len(self._left):
            self._left = self._left[sent:]
        else:
            self._left = None
            self._unblock()

    def drop(self, pump: Pump) -> None:
        """Nothing goes this way any more."""
        self._left = None
        self.blocked = self.reading = False
        self.ended = True
        self._end_bulk(pump)

    def _handed_on(self, pump: Pump, sent: int) -> None:
        self.count += sent
        self._counter.value += sent
        pump.moved()

    def _block(self) -> None:
        self.blocked = True
        self.reading = False
        self.source.update()
        self.sink.update()

    def _unblock(self) -> None:
        self.blocked = False
        self.reading = True
        self.sink.update()
        self.source.update()

    def _begin_bulk(self, pump: Pump) -> None:
        self._pipe = pump.pipes.take()
        if self._pipe is not None and self.sink.socket.family == socket.AF_UNIX:
            # With the default of 208 KiB reader and writer wait for each other in turn.
            self.sink.socket.setsockopt(
                socket.SOL_SOCKET, socket.SO_SNDBUF, limits.FORWARD_UNIX_BUFFER
            )

    def _end_bulk(self, pump: Pump) -> None:
        if self._pipe is not None:
            pump.pipes.give_back(self._pipe)
            self._pipe = None

    def _move_bulk(self, pump: Pump, pipe: Pipe) -> None:
        try:
            count = pipe.fill(self.source.descriptor)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno in UNFIT:
                self._spliced = False
                self._end_bulk(pump)  # the socket is still readable: it is copied next
            else:
                pump.source_failed(self.source)
            return
        if not count:
            self._end(pump)
            return
        self._drain(pump)
        if count < limits.FORWARD_BULK_ENDS and not self.blocked:
            self._end_bulk(pump)

    def _drain(self, pump: Pump) -> None:
        pipe = self._pipe
        assert pipe is not None  # noqa: S101 - blocked, and nothing left outside of it
        try:
            while pipe.held:
                self._handed_on(pump, pipe.drain(self.sink.descriptor))
        except BlockingIOError:
            if not self.blocked:
                self._block()
            return
        except OSError as error:
            if error.errno not in UNFIT:
                pump.sink_failed(self)
                return
            self._spliced = False
            self._left = memoryview(pipe.take_out())
            self._end_bulk(pump)
            if not self.blocked:
                self._block()
            return
        if self.blocked:
            self._unblock()

    def _end(self, pump: Pump) -> None:
        self.drop(pump)  # nothing is left: it was read
        if pump.client_went_away:
            pump.lane_ended()  # a reset follows: an end of its own would look like a half-close
            return
        try:
            self.sink.socket.shutdown(socket.SHUT_WR)
        except OSError:  # ENOTCONN: reset meanwhile
            pump.sink_failed(self)
            return
        pump.lane_ended()


def reset_on_close(sock: socket.socket) -> None:
    """Makes `close` an error for the peer, where the socket has a form for it (TCP)."""
    if sock.family in _TCP:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
