"""Writes an enclave image file (EIF, version 4) from a kernel, a command line and ramdisks.

The same parts give the same bytes: no time, no name and no path of the machine gets in, and
metadata is written as canonical JSON. It stands on the standard library alone and shares nothing
with the reader in `eif.py`, so that a mistake in one shows against the other; both are held to
AWS' crate by tests/differential/test_eif.py.

Never: makes a kernel or ramdisk, looks into one, or signs (`nitro-cli sign-eif` does).
"""

import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final, Literal

_MOST_SECTIONS: Final = 32
_HEADER_BYTES: Final = 548
_SECTION_HEAD_BYTES: Final = 12
_PIECE: Final = 1_048_576


def write_eif(
    output: BinaryIO,
    *,
    kernel: Path,
    command_line: str,
    ramdisks: Sequence[Path],
    metadata: Mapping[str, object] | None = None,
    architecture: Literal["x86_64", "aarch64"] = "x86_64",
    memory: int = 1_073_741_824,
    cpus: int = 2,
) -> None:
    """Writes one image to the start of `output`, a piece of each file at a time.

    Args:
        output: an empty binary file that can be seeked in.
        kernel: a bzImage, or an arm64 Image.
        command_line: for the kernel, without a line's end.
        ramdisks: cpio archives (newc), plain or compressed; at least one. The first is measured
            into PCR1, the others into PCR2.
        metadata: what the image says of itself; nothing measures it. The crate's reader wants
            ImageName, ImageVersion, BuildMetadata, DockerInfo and CustomMetadata.
        memory, cpus: what the image asks for by default, bytes and count; nothing measures them.

    Raises:
        ValueError: there is no ramdisk, or too many; or a file's length changed meanwhile.
        OSError: a file cannot be read or written.
    """
    if not ramdisks:
        raise ValueError("an image needs a ramdisk")
    parts: list[tuple[int, Path | bytes]] = [(1, kernel), (2, command_line.encode("ascii"))]
    if metadata is not None:
        text = json.dumps(metadata, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        parts.append((5, text.encode()))
    parts += [(3, path) for path in ramdisks]
    if len(parts) > _MOST_SECTIONS:
        raise ValueError(f"{len(parts)} sections, and an image has room for {_MOST_SECTIONS}")
    sizes = [len(part) if isinstance(part, bytes) else part.stat().st_size for _, part in parts]
    flags = 1 if architecture == "aarch64" else 0
    header = _header(flags, memory, cpus, sizes)
    checksum = zlib.crc32(header)
    output.write(header + bytes(4))
    for (kind, part), size in zip(parts, sizes, strict=True):
        for piece in _section(kind, part, size):
            checksum = zlib.crc32(piece, checksum)
            output.write(piece)
    output.seek(len(header))
    output.write(checksum.to_bytes(4, "big"))
    output.seek(0, os.SEEK_END)


def _header(flags: int, memory: int, cpus: int, sizes: Sequence[int]) -> bytes:
    """All of it but the checksum, which covers everything else."""
    offsets, at = [], _HEADER_BYTES
    for size in sizes:
        offsets.append(at)
        at += _SECTION_HEAD_BYTES + size
    header = b".eif" + struct.pack(">HHQQHH", 4, flags, memory, cpus, 0, len(sizes))
    for column in (offsets, sizes):
        header += b"".join(number.to_bytes(8, "big") for number in column)
        header += bytes(8 * (_MOST_SECTIONS - len(column)))
    return header + bytes(4)


def _section(kind: int, part: Path | bytes, size: int) -> Iterator[bytes]:
    yield struct.pack(">HHQ", kind, 0, size)
    if isinstance(part, bytes):
        yield part
        return
    left = size
    with part.open("rb") as file:
        while piece := file.read(_PIECE):
            left -= len(piece)
            yield piece
    if left:
        raise ValueError(f"{part} changed while it was read")
