"""The forwarder: carries an enclave's connections to their targets, bytes untouched.

It sees ciphertext: TLS ends in the enclave and at KMS (docs/explanation/two-setups.md), and
nobody trusts it. So what is asked of it is to be steady: every connection, every wait and all
memory has a bound (`ForwardLimits`, `limits.FORWARD_*`), a name that stops resolving or a lack of
descriptors ends nothing, and its settings change without an interruption.
"""

import os
import threading
from collections.abc import Callable, Collection, Sequence
from socket import socket as Socket  # noqa: N812 - a class
from types import TracebackType
from typing import Any, Self, TypeVar

from kmstool import limits as bounds
from kmstool.endpoint import Address
from kmstool.errors import SettingError
from kmstool.parent.accepting import Listener
from kmstool.parent.admission import Admission
from kmstool.parent.carrying import Connection, Peer, Surroundings
from kmstool.parent.forward_counters import RouteCounters
from kmstool.parent.journal import Journal, LogLine
from kmstool.parent.loop import Loop
from kmstool.parent.metrics import Metrics
from kmstool.parent.pump import reset_on_close
from kmstool.parent.resolving import LookUp, Resolver
from kmstool.parent.settings import ForwardLimits, Route, Target
from kmstool.parent.splicing import Pipes

T = TypeVar("T")


class Forwarder:
    """Carries from `start` to `stop`, on one thread of its own; a context manager.

    Args:
        allowed_cids: of peers on vsock routes; empty lets every CID connect. A limit, not
            authentication.
        report: gets one line for each connection and event; called from one thread, and may be
            slow. A connection's line is a `LogLine`.
        look_up: for tests: in the place of the system's resolver.

    Raises:
        SettingError: two routes have one address.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        *,
        limits: ForwardLimits | None = None,
        allowed_cids: Collection[int] = (),
        report: Callable[[str], None] = lambda _line: None,
        metrics: Metrics | None = None,
        look_up: LookUp | None = None,
    ) -> None:
        _check(routes)
        self._routes = tuple(routes)
        self._metrics = metrics or Metrics()
        self._admission = Admission(limits or ForwardLimits(), allowed_cids)
        self._report = report
        self._look_up = look_up
        self._listeners: dict[Address, Listener] = {}
        self._targets: dict[Address, Target] = {}
        self._connections: set[Connection] = set()
        self._empty = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listens on every route, or on none.

        Raises:
            TransportError: an address cannot be listened on.
        """
        self._loop = Loop(failed=self._bug)
        try:
            listeners = self._open(self._routes)
        except BaseException:
            self._loop.discard()
            raise
        lost = self._metrics.counter(
            "kmstool_forward_log_lines_lost_total", "Lines that the log's reader was too slow for."
        )
        self._journal = Journal(self._report, lost)
        resolver = Resolver(
            self._loop, report=self._journal, metrics=self._metrics, look_up=self._look_up
        )
        self._shared = Surroundings(
            loop=self._loop,
            resolver=resolver,
            buffer=memoryview(bytearray(bounds.FORWARD_BUFFER)),
            pipes=Pipes(),
            report=self._journal,
        )
        self._thread = threading.Thread(target=self._loop.run, name="forward", daemon=True)
        self._thread.start()
        self._on_loop(lambda: self._apply(self._routes, listeners))

    def reconfigure(
        self, routes: Sequence[Route], *, limits: ForwardLimits, allowed_cids: Collection[int]
    ) -> None:
        """Changes everything or, when it raises, nothing; open connections go on as they began.

        Raises:
            SettingError, TransportError: as when it is made and started.
        """
        _check(routes)
        new = self._open([route for route in routes if route.listen not in self._listeners])

        def change() -> None:
            self._admission.limits = limits
            self._admission.allowed_cids = frozenset(allowed_cids)
            self._apply(routes, new)

        self._on_loop(change)

    def drain(self, seconds: float) -> int:
        """Accepts no more, and waits for open connections to end.

        Returns:
            How many are still open.
        """

        def stop_accepting() -> None:
            self._admission.draining = True
            for listener in self._listeners.values():
                listener.close()
            self._listeners.clear()
            if not self._connections:
                self._empty.set()

        self._on_loop(stop_accepting)
        self._empty.wait(seconds)
        return len(self._connections)

    def stop(self, drain_seconds: float | None = None) -> None:
        """Drains (by default as its limits say), then ends what is left."""
        seconds = self._admission.limits.drain_seconds if drain_seconds is None else drain_seconds
        if self.drain(seconds):
            self._on_loop(self._end_all)
        self._loop.stop()
        if self._thread is not None:
            self._thread.join()
        self._shared.pipes.close()
        self._journal.close()

    @property
    def alive(self) -> bool:
        """Whether its thread still runs."""
        return self._thread is not None and self._thread.is_alive()

    def bound_to(self, listen: Address) -> Any:
        """What the listener of a route is bound to, as getsockname(2) has it."""
        return self._listeners[listen].socket_address

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _on_loop(self, call: Callable[[], None]) -> None:
        """Runs it on the loop's thread, and waits for that; raises what it raises."""
        done = threading.Event()
        raised: list[BaseException] = []

        def run() -> None:
            try:
                call()
            except BaseException as error:  # noqa: BLE001 - it is raised again, where it belongs
                raised.append(error)
            done.set()

        self._loop.call_from_thread(run)
        while not done.wait(1.0):
            if not self.alive:
                raise RuntimeError("the forwarder's thread has ended")
        if raised:
            raise raised[0]

    def _open(self, routes: Sequence[Route]) -> dict[Address, Listener]:
        opened: dict[Address, Listener] = {}
        try:
            for route in routes:
                opened[route.listen] = self._listener(route.listen)
        except BaseException:
            for listener in opened.values():
                listener.abandon()
            raise
        return opened

    def _listener(self, address: Address) -> Listener:
        counters = RouteCounters(self._metrics, str(address))
        return Listener(
            address,
            loop=self._loop,
            accepted=lambda connection, peer: self._admit(address, counters, connection, peer),
            exhausted=lambda error: self._exhausted(address, counters, error),
        )

    def _apply(self, routes: Sequence[Route], new: dict[Address, Listener]) -> None:
        self._targets = {route.listen: route.to for route in routes}
        for address in set(self._listeners) - set(self._targets):
            self._listeners.pop(address).close()
        self._listeners.update(new)
        for listener in new.values():
            listener.start()
        self._shared.resolver.keep(list(self._targets.values()))
        self._routes = tuple(routes)

    def _admit(
        self, address: Address, counters: RouteCounters, connection: Socket, peer: Peer
    ) -> None:
        target = self._targets[address]
        reason = self._admission.enter(peer.cid)
        if reason is not None:
            reset_on_close(connection)
            connection.close()
            counters.refused[reason].value += 1
            self._journal(_refusal(peer, address, target, reason))
            return
        try:
            self._connections.add(
                Connection(
                    connection,
                    peer,
                    listen=str(address),
                    target=target,
                    limits=self._admission.limits,
                    counters=counters,
                    shared=self._shared,
                    left=self._left,
                )
            )
        except BaseException:
            self._admission.leave(peer.cid)
            connection.close()
            raise

    def _left(self, connection: Connection) -> None:
        self._admission.leave(connection.peer.cid)
        self._connections.discard(connection)
        if self._admission.draining and not self._connections:
            self._empty.set()

    def _exhausted(self, address: Address, counters: RouteCounters, error: OSError) -> None:
        counters.pauses.value += 1
        reason = os.strerror(error.errno or 0)
        self._journal(f"accepting on {address} pauses: {reason}; open connections go on")

    def _bug(self, error: Exception) -> None:
        # Its text may hold anything; the type and the place are what can be shown.
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = f" in {trace.tb_frame.f_code.co_name}" if trace is not None else ""
        self._journal(f"a bug of the forwarder: {type(error).__name__}{place}; it goes on")

    def _end_all(self) -> None:
        for connection in list(self._connections):
            connection.end("the forwarder ended")


def _check(routes: Sequence[Route]) -> None:
    seen: set[Address] = set()
    for route in routes:
        if route.listen in seen:
            raise SettingError(
                f"two routes listen on {route.listen}", hint="give each an address of its own"
            )
        seen.add(route.listen)


def _refusal(peer: Peer, listen: Address, target: Target, reason: str) -> LogLine:
    return LogLine(
        f"{peer.name} to {target}: refused: {reason}",
        {
            "peer": peer.name,
            "cid": peer.cid,
            "listen": str(listen),
            "target": str(target),
            "refused": reason,
        },
    )
