"""The findings of `kmstool doctor` as lines, written as they come.

On a terminal: colours, lines broken at its width, and the check that is under way. Elsewhere one
line for each text, so that programs can read it. Where the encoding has no ✓, marks are ASCII.
"""

import contextlib
import os
import shutil
import textwrap
from collections.abc import Iterable
from typing import Final, TextIO

from kmstool.cli import console
from kmstool.findings import Finding, Verdict

_MARKS: Final = {
    Verdict.FINE: ("✓", "ok", "32"),
    Verdict.CAUTION: ("!", "!", "33"),
    Verdict.WRONG: ("✗", "x", "31"),
    Verdict.NOT_TRIED: ("–", "-", "2"),
}
_WIDTH_MIN: Final = 40  # columns; below that lines are not broken


class Paper:
    """Where findings are written.

    Args:
        stream: stdout.
        names: of the checks, whose longest makes the column.
    """

    def __init__(self, stream: TextIO, names: Iterable[str]) -> None:
        self._column = max(map(len, names))
        self._stream = stream
        self._terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._colours = self._terminal and not os.environ.get("NO_COLOR")
        self._encoding = stream.encoding or "ascii"
        self._ascii = not _can_encode("✓✗–…", self._encoding)
        width = shutil.get_terminal_size().columns if self._terminal else 0
        self._width = width if width >= _WIDTH_MIN else 0

    def begin(self, name: str) -> None:
        """Shows on a terminal that a check is under way."""
        if self._terminal:
            self._stream.write(f"  {name} {'...' if self._ascii else '…'}\r")
            self._stream.flush()

    def show(self, finding: Finding) -> None:
        """Writes one finding."""
        outcome = finding.outcome
        unicode_mark, ascii_mark, colour = _MARKS[outcome.verdict]
        mark = f"{ascii_mark:<2}" if self._ascii else unicode_mark
        text = outcome.text
        if outcome.verdict is Verdict.NOT_TRIED:
            text = f"not tried: {text}"
        head = f"{mark} {finding.check:<{self._column}} "
        lines = self._broken(text, head)
        # Whole: what somebody compares (a PCR) must come out of the terminal as it went in.
        lines += [" " * len(head) + self._shown(line) for line in outcome.lines]
        if outcome.advice is not None:
            lines += self._broken(f"do: {outcome.advice}", " " * len(head))
        if self._colours:
            lines[0] = f"\x1b[{colour}m{mark}\x1b[0m{lines[0][len(mark) :]}"
        if self._terminal:
            lines[0] = f"\r\x1b[K{lines[0]}"
        for line in lines:
            self._stream.write(f"{line}\n")
        self._stream.flush()

    def _broken(self, text: str, head: str) -> list[str]:
        plain = self._shown(text)
        if not self._width:
            return [head + plain]
        return textwrap.wrap(
            plain,
            self._width,
            initial_indent=head,
            subsequent_indent=" " * len(head),
            break_on_hyphens=False,
            break_long_words=False,
        )

    def _shown(self, text: str) -> str:
        shown = console.printable(text).encode(self._encoding, "backslashreplace")
        return shown.decode(self._encoding)


def _can_encode(text: str, encoding: str) -> bool:
    with contextlib.suppress(UnicodeEncodeError, LookupError):
        text.encode(encoding)
        return True
    return False
