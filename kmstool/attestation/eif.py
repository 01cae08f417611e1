"""An enclave image file (EIF) → the PCRs that an enclave which runs it has, computed offline.

The format is that of AWS' crate aws-nitro-enclaves-image-format, version 4: a header of 548 bytes
with a table of sections, then the sections, each with a head of 12 bytes (type, flags, length), all
numbers big-endian. Measured are, by SHA-384 and each extended once into 48 zero bytes: kernel,
command line and every ramdisk (PCR0); kernel, command line and first ramdisk (PCR1); the other
ramdisks (PCR2); the signing certificate, where there is one (PCR8).

The measured parts are hashed one after the other without their lengths. So this reader also holds
each part to its own form (`eif_parts.py`), and takes one layout only, in which every reader finds
the same parts: kernel, command line, ramdisks in this order, the table in step with the sections,
nothing between and nothing after. What the PCRs leave open all the same, `ambiguities` says.

It reads the stream once from its start to its end, a piece at a time, whatever the image's length.
Never: unpacks a ramdisk, says which image is good, or trusts what is not measured: metadata, the
sizes of memory and CPUs, and the checksum (CRC-32), which anyone can compute.
"""

import hashlib
import math
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NoReturn, Protocol

from kmstool import limits
from kmstool.attestation.eif_parts import (
    HINT,
    RAMDISK_HEAD,
    Architecture,
    check_kernel,
    check_ramdisk,
    parse_command_line,
)
from kmstool.attestation.eif_signature import EifSignature, verify_signature
from kmstool.errors import InputError
from kmstool.strict_json import read_object

MAGIC: Final = b".eif"


@dataclass(frozen=True, slots=True)
class EifSection:
    """One section: its kind (`kernel`, `command-line`, `ramdisk`, …) and its length in bytes."""

    kind: str
    size: int


@dataclass(frozen=True, slots=True)
class EifMeasurements:
    """What an image measures to, and what else is in it.

    Attributes:
        pcrs: index to 48 bytes: 0, 1, 2, and 8 where the image is signed.
        architecture: `x86_64` or `aarch64`, as header and kernel both say.
        kernel_length_checked: the kernel's own header says how long it is, and it is that long.
            False for an aarch64 kernel without an EFI header, which only says how much memory it
            takes.
        command_line: of the kernel; printable ASCII.
        sections: in the order of the file.
        signature: who signed PCR0, verified with the certificate in the file; or None.
        metadata: what the build said of itself. Not measured: anyone can change it.
        memory, cpus: bytes and count that the image asks for by default. Not measured either.
        size: bytes of the whole image.
    """

    pcrs: Mapping[int, bytes]
    architecture: Architecture
    kernel_length_checked: bool
    command_line: str
    sections: tuple[EifSection, ...]
    signature: EifSignature | None
    metadata: Mapping[str, object] | None
    memory: int
    cpus: int
    size: int


class Readable(Protocol):
    """What is read from: any binary file, seekable or not."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, and none at the end."""
        ...


def read_eif(stream: Readable) -> EifMeasurements:
    """The measurements of the image that `stream` holds from here to its end.

    Args:
        stream: a binary file, read to its end; 256 KiB of it are in memory at a time.

    Raises:
        InputError: it is not an EIF of version 4, or one that is not read the same everywhere.
    """
    source = _Source(stream)
    header = _read_header(source)
    parts = _Parts(header.architecture)
    for index, (offset, size) in enumerate(header.table):
        _read_section(source, parts, index, offset, size)
    if source.read_up_to(1):
        _refuse("bytes follow the last section", "the checksum and the PCRs do not cover them")
    if source.checksum != header.checksum:
        _refuse(
            f"the checksum in the header is {header.checksum:08x}, and that of the file is"
            f" {source.checksum:08x}",
            "it was altered or damaged: get the image again",
        )
    return parts.measured(header, source.position)


def ambiguities(image: EifMeasurements) -> tuple[str, ...]:
    """What can be otherwise in another image with the same PCR0, PCR1 and PCR2, a line for each."""
    ramdisks = sum(section.kind == "ramdisk" for section in image.sections)
    return (
        "the border of kernel and command line: arguments moved from its start to the kernel's end",
        "the border of command line and first ramdisk",
        "the borders among the second and later ramdisks, and so their number"
        if ramdisks > 1
        else "PCR2 says nothing here: it is the same in every image of one ramdisk",
    )


_PIECE: Final = 262_144  # bytes; hashing is the slower part, so more buys nothing
_HEADER: Final = struct.Struct(">4sHHQQHH32Q32QII")
_SECTION: Final = struct.Struct(">HHQ")
_CHECKSUM_BYTES: Final = 4  # the last field of the header, and the only bytes it does not cover
_VERSION: Final = 4
_FLAG_AARCH64: Final = 1

_KERNEL, _COMMAND_LINE, _RAMDISK, _SIGNATURE, _METADATA = 1, 2, 3, 4, 5
_KINDS: Final = {
    _KERNEL: ("kernel", limits.EIF_KERNEL_MAX),
    _COMMAND_LINE: ("command-line", limits.EIF_COMMAND_LINE_MAX),
    _RAMDISK: ("ramdisk", limits.EIF_RAMDISK_MAX),
    _SIGNATURE: ("signature", limits.EIF_SIGNATURE_MAX),
    _METADATA: ("metadata", limits.EIF_METADATA_MAX),
}


@dataclass(frozen=True, slots=True)
class _Header:
    architecture: Architecture
    memory: int
    cpus: int
    table: tuple[tuple[int, int], ...]
    checksum: int


class _Source:
    """The stream, with its position and the checksum of what was read from it."""

    def __init__(self, stream: Readable) -> None:
        self._read = stream.read
        self.position = 0
        self.checksum = 0

    def read_up_to(self, count: int) -> bytes:
        piece = self._read(count)
        self.position += len(piece)
        return piece

    def read(self, count: int, what: str) -> bytes:
        """Exactly `count` bytes, which the caller has bounded; outside the checksum."""
        pieces = []
        while count:
            piece = self.read_up_to(min(count, _PIECE))
            if not piece:
                _refuse(
                    f"the file ends after {self.position} bytes, within {what}",
                    "get the image again: this is not all of it",
                )
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    def read_covered(self, count: int, what: str) -> bytes:
        data = self.read(count, what)
        self.checksum = zlib.crc32(data, self.checksum)
        return data


def _read_header(source: _Source) -> _Header:
    start = source.read(len(MAGIC), "its header")
    if start != MAGIC:
        _refuse(f"it begins with {start.hex()}, not with {MAGIC.hex()}")
    data = start + source.read(_HEADER.size - len(MAGIC), "its header")
    source.checksum = zlib.crc32(data[:-_CHECKSUM_BYTES])
    _, version, flags, memory, cpus, reserved, count, *rest = _HEADER.unpack(data)
    table, (unused, checksum) = rest[:-2], rest[-2:]
    offsets, sizes = table[: limits.EIF_SECTIONS_MAX], table[limits.EIF_SECTIONS_MAX :]
    if version != _VERSION:
        _refuse(f"its version is {version}, not {_VERSION}", "build it with a current nitro-cli")
    if flags & ~_FLAG_AARCH64:
        _refuse(f"its flags are {flags:#06x}, of which only the last bit has a meaning")
    if reserved or unused:
        _refuse("a reserved field of its header is not zero")
    if count > limits.EIF_SECTIONS_MAX:
        _refuse(f"it says {count} sections, and a header has room for {limits.EIF_SECTIONS_MAX}")
    if any(offsets[count:]) or any(sizes[count:]):
        _refuse(f"its table goes on after its {count} sections")
    return _Header(
        architecture="aarch64" if flags else "x86_64",
        memory=memory,
        cpus=cpus,
        table=tuple(zip(offsets[:count], sizes[:count], strict=True)),
        checksum=checksum,
    )


def _read_section(source: _Source, parts: "_Parts", index: int, offset: int, size: int) -> None:
    if source.position != offset:
        _refuse(
            f"the table puts section {index} at {offset}, and the one before ends at"
            f" {source.position}"
        )
    name = f"the head of section {index}"
    number, flags, length = _SECTION.unpack(source.read_covered(_SECTION.size, name))
    if number not in _KINDS:
        _refuse(f"section {index} is of the unknown type {number}")
    kind, maximum = _KINDS[number]
    if length != size:
        _refuse(f"the table gives section {index} {size} bytes, and its own head {length}")
    if flags:
        _refuse(f"section {index} ({kind}) has flags, which have no meaning: {flags:#06x}")
    if not 0 < length <= maximum:
        _refuse(f"section {index} ({kind}) has {length} bytes, not 1 to {maximum}")
    parts.begin(kind, length)
    what = f"section {index} ({kind})"
    if number == _KERNEL:
        parts.read_kernel(source, length, what)
    elif number == _RAMDISK:
        parts.read_ramdisk(source, length, what)
    else:
        parts.take(kind, source.read_covered(length, what))


class _Parts:
    """What was read so far, and the hashes of what is measured."""

    def __init__(self, architecture: Architecture) -> None:
        self._architecture = architecture
        self._sections: list[EifSection] = []
        self._whole = hashlib.sha384()
        self._later_ramdisks = hashlib.sha384()
        self._first_ramdisk: bytes | None = None  # the digest up to its end
        self._kernel_length_checked = False
        self._small: dict[str, bytes] = {}

    def begin(self, kind: str, size: int) -> None:
        before = {section.kind for section in self._sections}
        if kind != "ramdisk" and kind in before:
            _refuse(f"it has a second {_WORDS[kind]}")
        if missing := [earlier for earlier in _AFTER.get(kind, ()) if earlier not in before]:
            _refuse(
                f"a {_WORDS[kind]} stands before the {_WORDS[missing[0]]}",
                "PCRs are hashed in the order of kernel, command line, ramdisks",
            )
        self._sections.append(EifSection(kind, size))

    def read_kernel(self, source: _Source, size: int, what: str) -> None:
        head = source.read_covered(min(size, limits.EIF_KERNEL_HEAD), what)
        self._kernel_length_checked = check_kernel(head, size, self._architecture)
        self._whole.update(head)
        _pass_on(source, size - len(head), what, self._whole.update)

    def read_ramdisk(self, source: _Source, size: int, what: str) -> None:
        head = source.read_covered(min(size, RAMDISK_HEAD), what)
        check_ramdisk(head, what)
        if self._first_ramdisk is None:
            self._whole.update(head)
            _pass_on(source, size - len(head), what, self._whole.update)
            self._first_ramdisk = self._whole.digest()
            return
        for hashed in (self._whole, self._later_ramdisks):
            hashed.update(head)
        _pass_on(source, size - len(head), what, self._whole.update, self._later_ramdisks.update)

    def take(self, kind: str, data: bytes) -> None:
        if kind == "command-line":
            self._whole.update(data)
        self._small[kind] = data

    def measured(self, header: _Header, size: int) -> EifMeasurements:
        if self._first_ramdisk is None:
            _refuse("it has no ramdisk, or no kernel or command line before it")
        digests = (self._whole.digest(), self._first_ramdisk, self._later_ramdisks.digest())
        pcrs = {index: extend(digest) for index, digest in enumerate(digests)}
        signature = None
        if "signature" in self._small:
            signature = verify_signature(self._small["signature"], pcrs[0])
            pcrs[8] = extend(hashlib.sha384(signature.certificate).digest())
        return EifMeasurements(
            pcrs=MappingProxyType(pcrs),
            architecture=self._architecture,
            kernel_length_checked=self._kernel_length_checked,
            command_line=parse_command_line(self._small["command-line"]),
            sections=tuple(self._sections),
            signature=signature,
            metadata=_metadata(self._small.get("metadata")),
            memory=header.memory,
            cpus=header.cpus,
            size=size,
        )


def extend(digest: bytes) -> bytes:
    """A register of 48 zero bytes after `digest`, SHA-384, was extended into it."""
    return hashlib.sha384(bytes(limits.NSM_PCR_LENGTH) + digest).digest()


_WORDS: Final = {
    "kernel": "kernel",
    "command-line": "command line",
    "ramdisk": "ramdisk",
    "signature": "signature",
    "metadata": "metadata section",
}
_AFTER: Final = {"command-line": ("kernel",), "ramdisk": ("kernel", "command-line")}


def _pass_on(source: _Source, size: int, what: str, *sinks: Callable[[bytes], None]) -> None:
    while size:
        piece = source.read_covered(min(size, _PIECE), what)
        for sink in sinks:
            sink(piece)
        size -= len(piece)


def _metadata(data: bytes | None) -> Mapping[str, object] | None:
    if data is None:
        return None
    members, problem = read_object(data, limits.EIF_METADATA_MAX)
    if members is None:
        _refuse(f"its metadata {problem}")
    _check_values(members)
    return MappingProxyType(members)


def _check_values(members: dict[str, object]) -> None:
    """That it can be shown: no nesting that exhausts a stack, no number that JSON has not."""
    level: list[object] = [members]
    for _ in range(limits.EIF_METADATA_DEPTH_MAX):
        if any(isinstance(value, float) and math.isinf(value) for value in level):
            _refuse("its metadata has a number that is too large")
        inner = [value for value in level if isinstance(value, dict | list)]
        level = [
            item
            for value in inner
            for item in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    _refuse(f"its metadata nests deeper than {limits.EIF_METADATA_DEPTH_MAX}")


def _refuse(reason: str, hint: str = HINT) -> NoReturn:
    raise InputError(f"not an enclave image (EIF) to be measured: {reason}", hint=hint)
