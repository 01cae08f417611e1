"""The log of a service: lines are handed over and written by a thread of their own.

Whoever reads the log may be slow or stuck (a blocked pipe); no connection waits for that. Lines
beyond `limits.FORWARD_LOG_LINES` are dropped, counted, and the count is told when it goes on.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from kmstool import limits
from kmstool.parent.metrics import Counter

THREAD: Final = "log"  # its name, by which a report knows who may wait without end


class LogLine(str):
    """A line of the log that is also available in parts.

    Attributes:
        fields: the same facts by name, for a structured log; never a secret.
    """

    __slots__ = ("fields",)

    fields: Mapping[str, str | int | float | None]

    def __new__(cls, text: str, fields: Mapping[str, str | int | float | None]) -> "LogLine":
        """The text for a person, and the fields."""
        line = super().__new__(cls, text)
        line.fields = fields
        return line


class Journal:
    """Takes lines at once, and gives them to `report` from its own thread, in order."""

    def __init__(self, report: Callable[[str], None], lost: Counter) -> None:
        self._report = report
        self._lost = lost
        self._untold = 0
        self._lines: deque[str] = deque()
        self._ready = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=THREAD, daemon=True)
        self._thread.start()

    def __call__(self, line: str) -> None:
        """Hands over one line; never waits for its reader."""
        with self._ready:
            if len(self._lines) >= limits.FORWARD_LOG_LINES:
                self._untold += 1
                self._lost.value += 1
                return
            self._lines.append(line)
            self._ready.notify()

    def close(self) -> None:
        """Writes what is left, or as much of it as `limits.FORWARD_LOG_SECONDS` allow."""
        with self._ready:
            self._closed = True
            self._ready.notify()
        self._thread.join(limits.FORWARD_LOG_SECONDS)

    def _run(self) -> None:
        while True:
            with self._ready:
                while not (self._lines or self._closed):
                    self._ready.wait()
                if not self._lines:
                    return
                lines = list(self._lines)
                self._lines.clear()
                untold, self._untold = self._untold, 0
            if untold:
                lines.append(f"{untold} lines of the log were lost: its reader is too slow")
            for line in lines:
                with contextlib.suppress(Exception):  # a log that fails stops nothing
                    self._report(line)
