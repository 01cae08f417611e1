"""Pipes that carry bulk from one socket to another inside the kernel (splice(2)).

A pump uses one while a direction carries a lot, and only where the source is TCP: there the pages
move and are not copied (docs/decisions/0023-forwarder-engine.md has the figures). Pipes are shared:
there are `limits.FORWARD_PIPES_MAX` at most, and whoever gets none copies.
"""

import contextlib
import errno
import fcntl
import os
from typing import Final

from kmstool import limits

# The kernel says so where one of the two cannot be spliced: an old kernel's vsock, for one. EPERM
# is a filter of system calls'.
UNFIT: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})

_FLAGS: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class Pipe:
    """One pipe; what goes in comes out before more goes in.

    Attributes:
        held: bytes that are in it.
    """

    __slots__ = ("_in", "_out", "_size", "held")

    def __init__(self) -> None:
        """Raises OSError where descriptors have run out."""
        self._out, self._in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.held = 0
        # A user has so many pages for pipes (pipe(7)); with fewer it works, only slower.
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, limits.FORWARD_PIPE)
        self._size = fcntl.fcntl(self._in, fcntl.F_GETPIPE_SZ)

    def fill(self, source: int) -> int:
        """Takes in what the socket has, and gives its number of bytes; 0 is its end."""
        self.held = os.splice(source, self._in, self._size, flags=_FLAGS)
        return self.held

    def drain(self, sink: int) -> int:
        """Gives out what the socket takes, and says how many bytes that were."""
        sent = os.splice(self._out, sink, self.held, flags=_FLAGS)
        self.held -= sent
        return sent

    def take_out(self) -> bytes:
        """What is held, for a sink that cannot be spliced to."""
        pieces = []
        while self.held:
            pieces.append(os.read(self._out, self.held))
            self.held -= len(pieces[-1])
        return b"".join(pieces)

    def close(self) -> None:
        """Closes it, and what it holds is lost."""
        os.close(self._in)
        os.close(self._out)


class Pipes:
    """The pipes of one loop: lent, given back, and lent again."""

    def __init__(self) -> None:
        self._free: list[Pipe] = []
        self._lent = 0

    def take(self) -> Pipe | None:
        """An empty pipe, or None where there are enough or no descriptors."""
        if self._free:
            self._lent += 1
            return self._free.pop()
        if self._lent >= limits.FORWARD_PIPES_MAX:
            return None
        try:
            pipe = Pipe()
        except OSError:
            return None
        self._lent += 1
        return pipe

    def give_back(self, pipe: Pipe) -> None:
        """Keeps it for the next, or closes it where it still holds something."""
        self._lent -= 1
        if pipe.held or len(self._free) >= limits.FORWARD_PIPES_KEPT:
            pipe.close()
        else:
            self._free.append(pipe)

    def close(self) -> None:
        """Closes those that are free."""
        while self._free:
            self._free.pop().close()
