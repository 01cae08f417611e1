"""The services on the parent: is their file in order, does each listen, and what do they count?

Whether somebody listens on a vsock is seen by binding to its port and letting go at once: a parent
cannot connect to itself. A Unix or TCP socket is connected to and closed. No request is made but
of the metrics.
"""

import errno
import os
import re
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from kmstool.endpoint import Address, Deadline, VsockAddress, connect
from kmstool.errors import TransportError
from kmstool.findings import Check, Outcome, fine, not_tried, wrong
from kmstool.parent.configuration import Configuration, Reading, describe

_SECONDS: Final = 5.0
_METRICS_MAX: Final = 1_048_576  # bytes; 64 routes have 250 KiB
_SERIES: Final = re.compile(r"(kmstool_forward_\w+?)(?:\{([^}]*)\})? ([0-9]{1,20})")
_SAID: Final = {
    "kmstool_forward_connections_total": "connections",
    "kmstool_forward_connections_open": "open",
    "kmstool_forward_refusals_total": "refused",
    "kmstool_forward_name_failures_total": "look-ups that failed",
}


class Services:
    """The checks of the file and of what it starts.

    Args:
        read: reads the file of `parent up`; None where there is none.
        forwarders: the addresses to look at where no file names any.

    Attributes:
        configuration: what the file says, once it was read.
    """

    def __init__(self, read: Callable[[], Reading] | None, forwarders: tuple[Address, ...]) -> None:
        self.configuration = Configuration()
        self._read = read
        self._forwarders = forwarders

    def checks(self) -> tuple[Check, ...]:
        """In their order."""
        return (
            Check("configuration", _SECONDS, self._check_file),
            Check("forwarder", _SECONDS, lambda deadline: self._listens(self._routes(), deadline)),
            Check("services", _SECONDS, self._others),
            Check("metrics", _SECONDS, self._metrics, mend="see who listens there: ss -lptnx"),
        )

    def _check_file(self, _deadline: Deadline) -> Outcome:
        if self._read is None:
            return not_tried(
                "there is no file of `kmstool parent up` here", "name it with --config FILE"
            )
        reading = self._read()
        self.configuration = reading.configuration  # of a file with mistakes, what is right in it
        if reading.mistakes:
            first, count = reading.mistakes[0], len(reading.mistakes)
            words = str(first) if count == 1 else f"{count} mistakes, the first: {first}"
            return wrong(words, "see them all: kmstool parent up --check --config FILE")
        return fine("no mistake in it", lines=tuple(describe(reading.configuration)))

    def _routes(self) -> tuple[Address, ...]:
        return tuple(route.listen for route in self.configuration.routes) or self._forwarders

    def _others(self, deadline: Deadline) -> Outcome:
        both = (self.configuration.credentials, self.configuration.relay)
        addresses = tuple(one.listen for one in both if one is not None)
        if not addresses:
            return not_tried("no file says that credentials or a relay are served here")
        return self._listens(addresses, deadline)

    def _listens(self, addresses: tuple[Address, ...], deadline: Deadline) -> Outcome:
        silent = [str(one) for one in addresses if not is_listened_on(one, deadline)]
        if silent:
            return wrong(
                f"nobody listens on {', '.join(silent)}",
                "start `kmstool parent up` (systemctl start kmstool-parent), and read its log:"
                " journalctl -u kmstool-parent",
            )
        return fine(f"somebody listens on {', '.join(map(str, addresses))}")

    def _metrics(self, deadline: Deadline) -> Outcome:
        address = self.configuration.metrics
        if address is None:
            return not_tried("no file says that they are served")
        counts = parse_counts(_get(address, deadline))
        words = ", ".join(f"{counts.get(name, 0)} {word}" for name, word in _SAID.items())
        return fine(words, facts=dict(counts))


def is_listened_on(address: Address, deadline: Deadline) -> bool:
    """Whether somebody holds the address. Raises `TransportError` where that cannot be told."""
    if isinstance(address, VsockAddress):
        return _is_taken(address)
    try:
        connect(address, deadline).close()
    except TransportError:
        return False
    return True


def parse_counts(text: str) -> Mapping[str, int]:
    """The sum of each counter of the forwarder, over its labels."""
    counts: Counter[str] = Counter()
    for line in text.splitlines():
        match = _SERIES.fullmatch(line)
        if match is not None and match[1] in _SAID:
            counts[match[1]] += int(match[3])
    return counts


def _is_taken(address: VsockAddress) -> bool:
    try:
        with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as probe:
            probe.bind((address.cid, address.port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return True
        raise TransportError(
            f"whether somebody listens on {address} cannot be told:"
            f" {os.strerror(error.errno or 0).lower()}",
            hint="run this as root, on the parent instance",
        ) from None
    return False


def _get(address: Address, deadline: Deadline) -> str:
    what = f"reading the metrics at {address}"
    received = bytearray()
    try:
        with connect(address, deadline, hint="start `kmstool parent up`") as sock:
            sock.settimeout(deadline.remaining(what))
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: kmstool\r\n\r\n")
            while len(received) <= _METRICS_MAX and (piece := sock.recv(65_536)):
                received += piece
                sock.settimeout(deadline.remaining(what))
    except TimeoutError:
        raise deadline.exceeded(what) from None
    except OSError as error:
        raise TransportError(f"{what} failed: {error.strerror}") from None
    head, _, body = bytes(received).partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise TransportError(f"what answers at {address} does not serve metrics")
    return body.decode("utf-8", "replace")
