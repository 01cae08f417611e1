"""One connection of the forwarder from its admission to its line in the log.

Addresses, connecting, carrying; each within its limit. The client is not read before its target is
there, so nothing is taken from it that could not be handed on.
"""

import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from kmstool.parent import forward_counters as reasons
from kmstool.parent.dialling import Dial
from kmstool.parent.forward_counters import RouteCounters
from kmstool.parent.journal import LogLine
from kmstool.parent.loop import Loop, Timer
from kmstool.parent.pump import Pump, reset_on_close
from kmstool.parent.resolving import Answer, Question, Resolver
from kmstool.parent.settings import ForwardLimits, Target
from kmstool.parent.splicing import Pipes

_NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})


@dataclass(frozen=True, slots=True)
class Peer:
    """Who connected: a name for the log, and the CID where there is one."""

    name: str
    cid: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What every connection of one forwarder shares."""

    loop: Loop
    resolver: Resolver
    buffer: memoryview
    pipes: Pipes
    report: Callable[[str], None]


class Connection:
    """Begins when it is made; keeps the limits it began with.

    Args:
        left: called once, when both sockets are closed.
    """

    __slots__ = (
        "_again",
        "_client",
        "_counters",
        "_dial",
        "_left",
        "_limits",
        "_listen",
        "_pump",
        "_question",
        "_shared",
        "_started",
        "_target",
        "_timer",
        "_took",
        "peer",
    )

    def __init__(
        self,
        client: socket.socket,
        peer: Peer,
        *,
        listen: str,
        target: Target,
        limits: ForwardLimits,
        counters: RouteCounters,
        shared: Surroundings,
        left: Callable[["Connection"], None],
    ) -> None:
        self.peer = peer
        self._client = client
        self._listen = listen
        self._target = target
        self._limits = limits
        self._counters = counters
        self._shared = shared
        self._left = left
        self._started = shared.loop.now
        self._took: float | None = None
        self._again = False
        self._dial: Dial | None = None
        self._pump: Pump | None = None
        counters.admitted.value += 1
        counters.open.value += 1
        self._timer: Timer = shared.loop.call_at(
            self._started + limits.connect_seconds, self._connect_took_too_long
        )
        self._question: Question | None = shared.resolver.ask(target, self._resolved)

    def end(self, how: str) -> None:
        """Ends it now, as an error for both sides."""
        if self._pump is not None:
            self._pump.abort(how)
        else:
            self._refuse(None, how)

    def _resolved(self, addresses: Answer) -> None:
        self._question = None
        if not addresses:
            self._refuse(reasons.NO_NAME, "the target's name does not resolve")
            return
        began = self._shared.loop.now
        self._dial = Dial(self._shared.loop, addresses, lambda result: self._dialled(result, began))

    def _dialled(self, result: socket.socket | OSError, began: float) -> None:
        self._dial = None
        if isinstance(result, OSError):
            self._not_connected(result, began)
            return
        shared, counters = self._shared, self._counters
        self._took = shared.loop.now - self._started
        counters.connect_seconds.observe(self._took)
        self._pump = Pump(
            shared.loop,
            self._client,
            result,
            buffer=shared.buffer,
            pipes=shared.pipes,
            to_target=counters.to_target,
            to_client=counters.to_client,
            ended=self._ended,
        )
        self._timer.cancel()
        self._watch()

    def _not_connected(self, error: OSError, began: float) -> None:
        words = f"the target could not be connected ({error.strerror or error})"
        if error.errno in _NO_DESCRIPTORS:
            self._refuse(reasons.NO_DESCRIPTORS, words)
        elif not self._again and self._shared.resolver.doubt(self._target, began):
            # Its addresses may have changed: once more, with what the name server says now.
            self._again = True
            self._question = self._shared.resolver.ask(self._target, self._resolved)
        elif error.errno == errno.ECONNREFUSED:
            self._refuse(reasons.REFUSED_BY_TARGET, words)
        else:
            self._refuse(reasons.NO_TARGET, words)

    def _connect_took_too_long(self) -> None:
        words = f"the target was not connected in {self._limits.connect_seconds:g} seconds"
        self._refuse(reasons.NO_NAME if self._question else reasons.NO_TARGET, words)

    def _refuse(self, reason: str | None, words: str) -> None:
        """Closes the client's side of a connection that has no other."""
        if self._question is not None:
            self._question.cancel()
        if self._dial is not None:
            self._dial.cancel()
        if reason is not None:
            self._counters.refused[reason].value += 1
        reset_on_close(self._client)
        self._shared.loop.close(self._client)
        self._ended(words)

    def _watch(self) -> None:
        """Ends it when it was idle, or has lived, for too long; else looks again when it may."""
        pump, loop, limits = self._pump, self._shared.loop, self._limits
        assert pump is not None  # noqa: S101 - set before the first call
        idle_at = pump.active + limits.idle_seconds
        end_at = self._started + limits.lifetime_seconds
        if loop.now >= end_at:
            pump.abort(f"its life of {limits.lifetime_seconds:g} seconds was over")
        elif loop.now >= idle_at:
            pump.abort(f"idle for {limits.idle_seconds:g} seconds")
        else:
            self._timer = loop.call_at(min(idle_at, end_at), self._watch)

    def _ended(self, how: str) -> None:
        self._timer.cancel()
        self._counters.open.value -= 1
        self._shared.report(self._line(how))
        self._left(self)

    def _line(self, how: str) -> LogLine:
        to_target, to_client = self._pump.counts if self._pump is not None else (0, 0)
        seconds = self._shared.loop.now - self._started
        text = (
            f"{self.peer.name} to {self._target}: {to_target} bytes there,"
            f" {to_client} back, {seconds:.3f} s: {how}"
        )
        return LogLine(
            text,
            {
                "peer": self.peer.name,
                "cid": self.peer.cid,
                "listen": self._listen,
                "target": str(self._target),
                "bytes_to_target": to_target,
                "bytes_to_client": to_client,
                "connect_seconds": None if self._took is None else round(self._took, 6),
                "seconds": round(seconds, 6),
                "ended": how,
            },
        )
