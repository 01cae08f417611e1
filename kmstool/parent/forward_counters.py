"""What the forwarder counts for each of its routes; the names of its metrics are here."""

from typing import Final

from kmstool.parent.admission import REASONS
from kmstool.parent.metrics import Counter, Metrics

# Why a client that was admitted is turned away before its target is connected.
NO_NAME: Final = "target-name-does-not-resolve"
NO_TARGET: Final = "target-does-not-answer"
REFUSED_BY_TARGET: Final = "target-refuses"
NO_DESCRIPTORS: Final = "out-of-descriptors"
CONNECT_REASONS: Final = (NO_NAME, NO_TARGET, REFUSED_BY_TARGET, NO_DESCRIPTORS)


class RouteCounters:
    """The series of one listener; a route that is changed keeps them."""

    def __init__(self, metrics: Metrics, listen: str) -> None:
        def counter(name: str, explanation: str, **labels: str) -> Counter:
            name = f"kmstool_forward_{name}_total"
            return metrics.counter(name, explanation, listen=listen, **labels)

        self.open = metrics.gauge(
            "kmstool_forward_connections_open", "Connections admitted and not ended.", listen=listen
        )
        self.admitted = counter("connections", "Connections admitted.")
        moved = "Bytes handed on."
        self.to_target = counter("bytes", moved, direction="to_target")
        self.to_client = counter("bytes", moved, direction="to_client")
        self.refused = {
            reason: counter("refusals", "Connections refused.", reason=reason)
            for reason in (*REASONS, *CONNECT_REASONS)
        }
        self.pauses = counter("accept_pauses", "Times that descriptors or memory ran out.")
        self.connect_seconds = metrics.histogram(
            "kmstool_forward_connect_seconds",
            "From the client's connection to the target's.",
            listen=listen,
        )
