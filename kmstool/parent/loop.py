"""The forwarder's engine: one thread that waits in epoll for sockets, timers and other threads.

It knows descriptors and callbacks, no protocol. It never blocks elsewhere than in epoll, never
polls, and has no clock but the monotonic one, so that setting the time neither ends nor keeps a
connection. Why not asyncio: docs/decisions/0023-forwarder-engine.md. Source: epoll(7).
"""

import heapq
import itertools
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

IN: Final = select.EPOLLIN
OUT: Final = select.EPOLLOUT
ERROR: Final = select.EPOLLERR
BROKEN: Final = ERROR | select.EPOLLHUP  # told whether they are asked for or not

_CANCELLED_MIN: Final = 256  # timers; below it clearing them away costs more than they do


class Timer:
    """One call in the future; `cancel` may be called at any time, and more than once."""

    __slots__ = ("_loop", "call")

    def __init__(self, loop: "Loop", call: Callable[[], None]) -> None:
        self._loop = loop
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Makes it never happen, and lets go of what it would have called."""
        if self.call is not None:
            self.call = None
            self._loop.timer_cancelled()


class Loop:
    """Runs callbacks one at a time on the thread that called `run`.

    Everything but `call_from_thread` and `stop` belongs to that thread.

    Args:
        failed: told what a callback raised, which is a bug. The loop goes on without it: one
            connection must not end the others.

    Attributes:
        now: monotonic seconds when the present round of events began.
    """

    def __init__(self, *, failed: Callable[[Exception], None]) -> None:
        self._failed = failed
        self.now = time.monotonic()
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._cancelled = 0
        self._order = itertools.count()
        self._calls: deque[Callable[[], None]] = deque()
        self._closing: list[socket.socket] = []
        self._running = True
        self._waking = threading.Lock()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.register(self._wake, IN, self._called)

    def register(self, descriptor: int, events: int, handler: Callable[[int], None]) -> None:
        """Calls `handler` with the events of a descriptor as long as they last (level-triggered).

        `BROKEN` comes even if `events` is 0: a handler that does nothing about it unregisters.
        """
        self._epoll.register(descriptor, events)
        self._handlers[descriptor] = handler

    def modify(self, descriptor: int, events: int) -> None:
        """Changes what is waited for."""
        self._epoll.modify(descriptor, events)

    def unregister(self, descriptor: int) -> None:
        """Forgets a descriptor, this round's events of it included."""
        if self._handlers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def close(self, sock: socket.socket) -> None:
        """Forgets a socket and closes it at the end of the round.

        Not at once: its number would be given to the next socket, which would then get the events
        of this one that are still to be handled.
        """
        self.unregister(sock.fileno())
        self._closing.append(sock)

    def call_at(self, when: float, call: Callable[[], None]) -> Timer:
        """Calls once `now` has reached `when`, in monotonic seconds."""
        timer = Timer(self, call)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def timer_cancelled(self) -> None:
        """Counts, so that cancelled timers do not fill the memory until their time has come."""
        self._cancelled += 1
        if self._cancelled > _CANCELLED_MIN and self._cancelled * 2 > len(self._timers):
            self._timers = [entry for entry in self._timers if entry[2].call is not None]
            heapq.heapify(self._timers)
            self._cancelled = 0

    def call_from_thread(self, call: Callable[[], None]) -> None:
        """Calls soon, on the loop's thread. From any thread; ignored once the loop has ended."""
        self._calls.append(call)
        with self._waking:  # or the number could be another file's by now
            if self._wake != -1:
                os.eventfd_write(self._wake, 1)

    def guarded(self, call: Callable[[], None]) -> None:
        """Calls now, and tells `failed` what it raises."""
        try:
            call()
        except Exception as error:  # noqa: BLE001 - see `failed`
            self._failed(error)

    def discard(self) -> None:
        """Closes a loop that was never run; on any thread."""
        self.stop()
        self.run()

    def stop(self) -> None:
        """Ends `run` after the present round. From any thread."""
        self.call_from_thread(self._stop)

    def run(self) -> None:
        """Until `stop`; then closes what the loop itself has open, and the sockets given to it."""
        try:
            while self._running:
                self._round()
        finally:
            self._close_sockets()
            with self._waking:
                wake, self._wake = self._wake, -1
            os.close(wake)
            self._epoll.close()

    def _round(self) -> None:
        events = self._epoll.poll(self._timeout())  # EINTR: repeated by Python (PEP 475)
        self.now = time.monotonic()
        handlers = self._handlers
        for descriptor, mask in events:
            handler = handlers.get(descriptor)
            if handler is not None:
                try:
                    handler(mask)
                except Exception as error:  # noqa: BLE001 - see `failed`
                    self.unregister(descriptor)  # or it would be told again at once
                    self._failed(error)
        if self._timers and self._timers[0][0] <= self.now:
            self._ring()
        if self._closing:
            self._close_sockets()

    def _timeout(self) -> float:
        while self._timers and self._timers[0][2].call is None:
            heapq.heappop(self._timers)
            self._cancelled -= 1
        if not self._timers:
            return -1.0
        return max(0.0, self._timers[0][0] - self.now)

    def _ring(self) -> None:
        while self._timers and self._timers[0][0] <= self.now:
            timer = heapq.heappop(self._timers)[2]
            call, timer.call = timer.call, None
            if call is None:
                self._cancelled -= 1
            else:
                self.guarded(call)

    def _called(self, _events: int) -> None:
        os.eventfd_read(self._wake)
        for _ in range(len(self._calls)):  # what these add wakes the next round
            self.guarded(self._calls.popleft())

    def _stop(self) -> None:
        self._running = False

    def _close_sockets(self) -> None:
        closing, self._closing = self._closing, []
        for sock in closing:
            sock.close()
