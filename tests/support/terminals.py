"""Runs a command on a terminal of a given width, and reads what would stand on its screen."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_SEQUENCE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Shown(NamedTuple):
    """What came through the terminal: as it was sent, and as it stands there in the end."""

    code: int
    raw: str
    screen: str


def on_a_terminal(
    arguments: Sequence[str], environ: Mapping[str, str], *, columns: int = 100
) -> Shown:
    """Runs it with stdin, stdout and stderr on a terminal, to its end."""
    ours, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        with subprocess.Popen(
            arguments,
            env={"TERM": "xterm-256color"}
            # pytest-xdist sets them; here the terminal has a size of its own.
            | {name: environ[name] for name in environ if name not in ("COLUMNS", "LINES")},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        ) as process:
            os.close(theirs)
            theirs = -1
            data = bytearray()
            with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
                while piece := os.read(ours, 65_536):
                    data += piece
            code = process.wait(timeout=60)
    finally:
        os.close(ours)
        if theirs >= 0:
            os.close(theirs)
    raw = data.decode()
    return Shown(code, raw, _screen(raw))


def _screen(raw: str) -> str:
    """Lines as they stand in the end: what was written over (`\\r`, then erased) is gone."""
    lines = []
    for line in raw.replace("\r\n", "\n").split("\n"):
        written = line.rsplit("\r\x1b[K", 1)[-1]
        lines.append(_SEQUENCE.sub("", written).rstrip())
    return "\n".join(lines)
