"""Bytes that are known on both sides of a wire: a seed and an offset say which.

The period is prime, so that a lost, doubled or displaced piece of any usual size changes the hash.
"""

import functools
import hashlib
import random
from collections.abc import Iterator

PERIOD = 1_000_003
PIECE = 65_536


@functools.lru_cache(maxsize=256)
def _block(seed: int) -> bytes:
    block = random.Random(seed).randbytes(PERIOD)
    return block + block[:PIECE]


def stream(seed: int, offset: int, count: int) -> bytes:
    """`count` bytes (at most `PIECE`) of a seed's endless stream."""
    start = offset % PERIOD
    return _block(seed)[start : start + count]


def pieces(seed: int, count: int) -> Iterator[bytes]:
    """The first `count` bytes of the stream."""
    for offset in range(0, count, PIECE):
        yield stream(seed, offset, min(PIECE, count - offset))


@functools.lru_cache(maxsize=1_024)
def digest(seed: int, count: int) -> bytes:
    """SHA-256 of the first `count` bytes of the stream."""
    found = hashlib.sha256()
    for piece in pieces(seed, count):
        found.update(piece)
    return found.digest()
