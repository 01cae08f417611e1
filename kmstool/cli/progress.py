"""A progress bar for large files: on a terminal, where rich is installed, and else nothing.

rich is imported only when a bar is shown; an enclave image has none, and misses nothing.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Final

from kmstool.cli.input import InputStream
from kmstool.sealing.stream import Source

SHOWN_FROM: Final = 64 * 1024 * 1024  # bytes; less than that is done before a bar could be read


@contextlib.contextmanager
def progress(source: InputStream, verb: str) -> Iterator[Source]:
    """Gives `source`, whose reading moves a bar on stderr where that helps anyone.

    Args:
        verb: what is being done, such as `sealing`.
    """
    if source.size is None or source.size < SHOWN_FROM or not _on_terminal():
        yield source
        return
    try:
        from rich.console import Console  # noqa: PLC0415 - see the module
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
    except ModuleNotFoundError:
        yield source
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(verb, total=source.size)
        yield _Watched(source, lambda count: bar.advance(task, count))


def _on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


class _Watched:
    """A source that tells how much was read of it."""

    def __init__(self, source: Source, advance: Callable[[int], None]) -> None:
        self._source = source
        self._advance = advance

    def readinto(self, buffer: memoryview, /) -> int | None:
        count = self._source.readinto(buffer)
        self._advance(count or 0)
        return count
