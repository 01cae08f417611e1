"""A file that may be an enclave image (EIF): then it is measured as a stream, whatever its length.

Everything else that a command reads whole is short, and comes back as bytes, not more than
`INPUT_MAX` and one. The first four bytes tell, so the source is opened once and may be a pipe.
"""

from kmstool import limits
from kmstool.attestation.eif import MAGIC, EifMeasurements, read_eif
from kmstool.cli.input import InputStream


def read_image_or_bytes(source: str, *, what: str) -> EifMeasurements | bytes:
    """What an image measures to, or what stands in another file or stdin (`-`).

    Raises:
        LocalFileError: it cannot be read.
        InputError: it begins as an image and is none.
    """
    with InputStream(source, what=what) as stream:
        reader = _Reader(stream)
        start = reader.read_all(len(MAGIC))
        if start == MAGIC:
            return read_eif(_Again(start, reader))
        return start + reader.read_all(limits.INPUT_MAX + 1 - len(start))


class _Reader:
    def __init__(self, stream: InputStream) -> None:
        self._stream = stream

    def read(self, size: int, /) -> bytes:
        buffer = bytearray(size)
        filled = self._stream.readinto(memoryview(buffer))
        return bytes(memoryview(buffer)[:filled])

    def read_all(self, size: int) -> bytes:
        """`size` bytes, or fewer where the source ends."""
        pieces = []
        while size and (piece := self.read(min(size, 65_536))):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)


class _Again:
    """A reader whose first bytes were read already."""

    def __init__(self, start: bytes, reader: _Reader) -> None:
        self._start, self._reader = start, reader

    def read(self, size: int, /) -> bytes:
        if self._start:
            piece, self._start = self._start[:size], self._start[size:]
            return piece
        return self._reader.read(size)
