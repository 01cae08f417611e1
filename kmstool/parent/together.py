"""Forwarder, credentials and relay of one `Configuration` in one process; changed while they run.

All of it starts or none: what had been started is ended before the failure is raised. A change
begins with everything that can fail (addresses, credentials), and only then lets go of what was.
Connections that are open stay open, except those of a service whose address is given up: these get
the grace that they would have had at the end. An address that one service gives up can be another's
with the next change, not with the same.
"""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from kmstool.endpoint import Address, VsockAddress
from kmstool.parent import credentials as handing_out
from kmstool.parent import descriptors
from kmstool.parent.credentials import CredentialsService
from kmstool.parent.forward import Forwarder
from kmstool.parent.journal import LogLine
from kmstool.parent.listening import Service
from kmstool.parent.metrics import Metrics
from kmstool.parent.metrics_server import MetricsServer
from kmstool.parent.relay import Relay, kms_clients
from kmstool.parent.settings import Configuration

Report = Callable[[str], None]
# What a change has prepared and cannot fail any more.
Steps = list[Callable[[], None]]


class Together:
    """The services of a configuration, from the moment it is made until `close`.

    Args:
        report: gets the lines of all of them; never a secret. Called from threads.

    Attributes:
        configuration: what they run by.

    Raises:
        KmstoolError: one of them cannot start; none runs then.
    """

    def __init__(self, configuration: Configuration, *, report: Report) -> None:
        self._report = report
        self._metrics = Metrics()
        self._metrics_server: MetricsServer | None = None
        self._forwarder: Forwarder | None = None
        self._credentials: CredentialsService | None = None
        self._relay: Service | None = None
        self._endings: list[threading.Thread] = []
        self.configuration = Configuration()
        self.change(configuration)

    @property
    def alive(self) -> bool:
        """Whether every part still does its work."""
        parts = (self._forwarder, self._metrics_server, self._credentials, self._relay)
        return all(part.alive for part in parts if part is not None)

    def change(self, new: Configuration) -> None:
        """Goes on with another configuration.

        Raises:
            KmstoolError: it cannot be had; everything is as it was.
        """
        steps: Steps = []
        with ExitStack() as undo:
            self._change_credentials(new, undo, steps)
            self._change_relay(new, undo, steps)
            self._change_metrics(new, undo, steps)
            self._change_forwarder(new)  # the last: it takes effect at once, or fails
            undo.pop_all()
        for step in steps:
            step()
        self.configuration = new

    def close(self) -> None:
        """Ends all of them at the same time, each with its own grace for what is under way."""
        if self._forwarder is not None:
            self._end(self._forwarder.stop)
        for service in (self._credentials, self._relay, self._metrics_server):
            if service is not None:
                self._end(service.close)
        for ending in self._endings:
            ending.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _change_forwarder(self, new: Configuration) -> None:
        """Once there is one it stays, if need be without a route: its connections go on."""
        report = self._lines_of("forward")
        possible = descriptors.raise_limit(new.limits.connections) if new.routes else 0
        if new.routes and possible < new.limits.connections:
            report(f"there are descriptors for {possible} connections only; see LimitNOFILE")
        if self._forwarder is not None:
            self._forwarder.reconfigure(
                new.routes, limits=new.limits, allowed_cids=new.allowed_cids
            )
        elif new.routes:
            forwarder = Forwarder(
                new.routes,
                limits=new.limits,
                allowed_cids=new.allowed_cids,
                report=report,
                metrics=self._metrics,
            )
            forwarder.start()
            self._forwarder = forwarder

    def _change_metrics(self, new: Configuration, undo: ExitStack, steps: Steps) -> None:
        if new.metrics == self.configuration.metrics:
            return
        started = None
        if new.metrics is not None:
            started = MetricsServer(new.metrics, self._metrics)
            undo.callback(started.close)
        steps.append(lambda: self._take_metrics(started))

    def _take_metrics(self, started: MetricsServer | None) -> None:
        before, self._metrics_server = self._metrics_server, started
        if before is not None:
            self._end(before.close)

    def _change_credentials(self, new: Configuration, undo: ExitStack, steps: Steps) -> None:
        before, after = self.configuration.credentials, new.credentials
        service = self._credentials
        if service is None or before is None or after is None or before.listen != after.listen:
            started = None
            if after is not None:
                started = handing_out.serve(
                    after,
                    allowed_cids=_cids(new, after.listen),
                    report=self._lines_of("credentials"),
                )
                undo.callback(started.close)
            steps.append(lambda: self._take_credentials(started))
            return
        if after == before:
            steps.append(service.renew)
        else:
            keeper = handing_out.keeper_of(after, report=self._lines_of("credentials"))
            undo.callback(keeper.stop)
            steps.append(lambda: service.take(keeper))
        steps.append(lambda: service.change(allowed_cids=_cids(new, after.listen)))

    def _take_credentials(self, started: CredentialsService | None) -> None:
        before, self._credentials = self._credentials, started
        if before is not None:
            self._end(before.close)

    def _change_relay(self, new: Configuration, undo: ExitStack, steps: Steps) -> None:
        before, after = self.configuration.relay, new.relay
        service = self._relay
        if after is None:
            steps.append(lambda: self._take_relay(None))
            return
        cids = _cids(new, after.listen)
        handler = None
        if after != before:
            handler = Relay(after.allow_keys, kms_clients(after.endpoint_url))
        if service is None or before is None or before.listen != after.listen:
            assert handler is not None  # noqa: S101 - the settings differ, or there were none
            started = Service(
                after.listen, handler, allowed_cids=cids, report=self._lines_of("relay")
            )
            undo.callback(started.close)
            steps.append(lambda: self._take_relay(started))
        else:
            steps.append(lambda: service.change(handler, allowed_cids=cids))

    def _take_relay(self, started: Service | None) -> None:
        before, self._relay = self._relay, started
        if before is not None:
            self._end(before.close)

    def _end(self, close: Callable[[], None]) -> None:
        """Calls `close` in a thread, since it waits for what is under way."""
        self._endings = [ending for ending in self._endings if ending.is_alive()]
        thread = threading.Thread(target=close, name="ending")
        self._endings.append(thread)
        thread.start()

    def _lines_of(self, name: str) -> Report:
        def report(line: str) -> None:
            text = f"{name}: {line}"
            if isinstance(line, LogLine):
                text = LogLine(text, {"service": name, **line.fields})
            self._report(text)

        return report


def _cids(configuration: Configuration, address: Address) -> frozenset[int]:
    """Those that may connect there; a Unix socket has its mode instead."""
    return configuration.allowed_cids if isinstance(address, VsockAddress) else frozenset()
