"""What the parent's services count, and its text for Prometheus. Serving it: `metrics_server.py`.

Counts and names of routes only: no address of a client, nothing of what is carried. Each series is
made when its service starts, or for one of a few fixed words, so a client cannot add series.
Source: Prometheus' text exposition format, version 0.0.4.
"""

import bisect
import itertools
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

# Seconds. A target in the same region answers in 1 ms, one that needs a second attempt in 0.25.
CONNECT_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class Counter:
    """A number; whoever counts adds to `value`, on one thread."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class Histogram:
    """How many observations were at most as large as each bound, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = CONNECT_BUCKETS) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)  # the last one: above every bound
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Counts one value."""
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value


T = TypeVar("T", Counter, Histogram)


class Metrics:
    """Every series of one process. `render` may be called from another thread than counts."""

    def __init__(self) -> None:
        self._families: dict[str, tuple[str, str, dict[str, Counter | Histogram]]] = {}

    def counter(self, name: str, explanation: str, **labels: str) -> Counter:
        """The counter of these labels, the same one each time. Its name ends with `_total`."""
        return self._series("counter", name, explanation, labels, Counter)

    def gauge(self, name: str, explanation: str, **labels: str) -> Counter:
        """The same for a number that also falls."""
        return self._series("gauge", name, explanation, labels, Counter)

    def histogram(self, name: str, explanation: str, **labels: str) -> Histogram:
        """The same for a distribution of seconds."""
        return self._series("histogram", name, explanation, labels, Histogram)

    def render(self) -> str:
        """All of it, as Prometheus reads it."""
        lines: list[str] = []
        for name, (kind, explanation, series) in list(self._families.items()):
            lines += (f"# HELP {name} {explanation}", f"# TYPE {name} {kind}")
            for labels, one in list(series.items()):
                if isinstance(one, Counter):
                    lines.append(f"{name}{_braces(labels)} {one.value}")
                else:
                    lines += _histogram_lines(name, labels, one)
        return "".join(line + "\n" for line in lines)

    def _series(
        self, kind: str, name: str, explanation: str, labels: Mapping[str, str], make: type[T]
    ) -> T:
        found = self._families.setdefault(name, (kind, explanation, {}))
        series = found[2].setdefault(_labels(labels), make())
        assert found[0] == kind and isinstance(series, make)  # noqa: S101, PT018 - names are ours
        return series


def _histogram_lines(name: str, labels: str, histogram: Histogram) -> list[str]:
    counts = tuple(itertools.accumulate(list(histogram.counts)))
    bounds = [*(f"{bound:g}" for bound in histogram.bounds), "+Inf"]
    separator = "," if labels else ""
    lines = [
        f'{name}_bucket{{{labels}{separator}le="{bound}"}} {count}'
        for bound, count in zip(bounds, counts, strict=True)
    ]
    lines.append(f"{name}_sum{_braces(labels)} {histogram.total:.6f}")
    lines.append(f"{name}_count{_braces(labels)} {counts[-1]}")
    return lines


def _braces(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
