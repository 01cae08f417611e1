"""Connects to the first of several addresses that answers, IPv6 and IPv4 in turn (RFC 8305).

Attempts start 250 ms apart, or at once when the last one has failed; the first that is connected is
taken and the others are closed. Names are resolved elsewhere (`resolving.py`).
"""

import errno
import os
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from kmstool import limits
from kmstool.parent.loop import OUT, Loop, Timer

SocketAddress = tuple[socket.AddressFamily, tuple[str | int, ...]]

_UNDER_WAY: Final = frozenset({0, errno.EINPROGRESS, errno.EINTR, errno.EAGAIN})


class Dial:
    """One race for a connection.

    Args:
        addresses: in the order in which they are tried; `interleave` makes it.
        done: called once, never from here: with a connected socket that does not block, or with
            the error of the last attempt to fail. Not called after `cancel`.
    """

    def __init__(
        self,
        loop: Loop,
        addresses: Sequence[SocketAddress],
        done: Callable[[socket.socket | OSError], None],
    ) -> None:
        self._loop = loop
        self._waiting = list(reversed(addresses))
        self._done = done
        self._attempts: set[socket.socket] = set()
        self._last = OSError(errno.EADDRNOTAVAIL, "no address")
        self._timer = loop.call_at(loop.now, self._next)

    def cancel(self) -> None:
        """Closes every attempt."""
        self._timer.cancel()
        for sock in self._attempts:
            self._loop.close(sock)
        self._attempts.clear()

    def _next(self) -> None:
        """Starts the next attempt; those that fail at once give way to the one after."""
        self._timer.cancel()
        while self._waiting:
            family, target = self._waiting.pop()
            try:
                sock = _connecting(family, target)
            except OSError as error:
                self._last = error
                continue
            self._attempts.add(sock)
            self._loop.register(sock.fileno(), OUT, partial(self._answered, sock))
            if self._waiting:
                self._timer = self._after(limits.FORWARD_ATTEMPT_DELAY)
            return
        if not self._attempts:
            self._done(self._last)

    def _after(self, seconds: float) -> Timer:
        return self._loop.call_at(self._loop.now + seconds, self._next)

    def _answered(self, sock: socket.socket, _events: int) -> None:
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._attempts.discard(sock)
        if number:
            self._last = OSError(number, os.strerror(number))
            self._loop.close(sock)
            self._next()
            return
        self._loop.unregister(sock.fileno())
        self.cancel()
        self._done(sock)


def interleave(addresses: Sequence[SocketAddress]) -> tuple[SocketAddress, ...]:
    """The families in turn, each in its own order, the first one first (RFC 8305, section 4)."""
    if not addresses:
        return ()
    first = [one for one in addresses if one[0] == addresses[0][0]]
    rest = [one for one in addresses if one[0] != addresses[0][0]]
    mixed: list[SocketAddress] = []
    while first or rest:
        mixed += first[:1] + rest[:1]
        first, rest = first[1:], rest[1:]
    return tuple(mixed)


def _connecting(family: socket.AddressFamily, target: tuple[str | int, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # What is handed on at once leaves at once: requests and answers are small.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number = sock.connect_ex(target)
    except BaseException:
        sock.close()
        raise
    if number not in _UNDER_WAY:
        sock.close()
        raise OSError(number, os.strerror(number))
    return sock
