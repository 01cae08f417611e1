"""attestation/eif.py: what an image measures to, and each defect of one, refused for it."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.eif_images import (
    COMMAND,
    COMMAND_LINE,
    IDENTITY,
    KERNEL,
    METADATA,
    RAMDISK,
    Image,
    Section,
    arm64,
    bzimage,
    image,
    ramdisk,
    with_pe,
)

from kmstool import limits
from kmstool.attestation.eif import EifMeasurements, EifSection, read_eif
from kmstool.attestation.eif_writer import write_eif
from kmstool.errors import InputError


def read(made: Image) -> EifMeasurements:
    return read_eif(BytesIO(made.file()))


def test_what_is_read_of_an_image() -> None:
    made = image()
    found = read(made)
    assert found.pcrs == {0: made.pcr(0, 1, 3, 4), 1: made.pcr(0, 1, 3), 2: made.pcr(4)}
    assert found.architecture == "x86_64"
    assert found.kernel_length_checked
    assert found.command_line == COMMAND
    assert found.metadata == IDENTITY
    assert found.signature is None
    assert (found.memory, found.cpus, found.size) == (2**30, 2, len(made.file()))
    assert found.sections == (
        EifSection("kernel", len(bzimage())),
        EifSection("command-line", len(COMMAND)),
        EifSection("metadata", len(made.sections[2].data)),
        EifSection("ramdisk", 600),
        EifSection("ramdisk", 600),
    )
    with pytest.raises(TypeError):
        found.pcrs[0] = b""  # type: ignore[index]


def test_metadata_as_deep_as_it_may_be() -> None:
    made = image()
    made.sections[2].data = b'{"a":' + b"[" * 31 + b"]" * 31 + b"}"
    assert read(made).metadata


def test_images_of_other_shapes() -> None:
    one = image(ramdisk("only"))
    empty = hashlib.sha384(bytes(48) + hashlib.sha384().digest()).digest()
    assert read(one).pcrs == {0: one.pcr(0, 1, 3), 1: one.pcr(0, 1, 3), 2: empty}
    many = image(*(ramdisk(str(index)) for index in range(29)))
    assert read(many).pcrs[2] == many.pcr(*range(4, 32))
    kernel, command, metadata, *ramdisks = image().sections
    for sections in (
        [kernel, command, *ramdisks],
        [metadata, kernel, command, *ramdisks],
        [kernel, command, *ramdisks, metadata],
    ):
        assert read(Image(sections)).pcrs == read(image()).pcrs


@pytest.mark.parametrize(
    "kernel",
    [
        bzimage(),
        bzimage(sectors=0),
        with_pe(bzimage(), [(512, 512)]),
        with_pe(bzimage(), [(512, 512)], b"signed for Secure Boot"),
    ],
)
def test_kernels_for_x86(kernel: bytes) -> None:
    found = read(image(kernel=kernel))
    assert found.kernel_length_checked
    for shifted in (kernel + b"r", kernel[:-1], kernel + bytes(8)):
        with pytest.raises(InputError, match=r"the kernel has \d+ bytes, and by its own header"):
            read(image(kernel=shifted))


def test_kernels_for_arm64() -> None:
    bare = arm64()
    assert not read(image(kernel=bare, flags=1)).kernel_length_checked
    assert read(image(kernel=bare, flags=1)).architecture == "aarch64"
    kernel = with_pe(MZ_ARM64, [(1024, 1024), (2048, 2048)])
    assert read(image(kernel=kernel, flags=1)).kernel_length_checked
    signed = with_pe(MZ_ARM64, [(1024, 1024), (2048, 2048)], b"for Secure Boot")
    assert read(image(kernel=signed, flags=1)).kernel_length_checked
    for shifted in (kernel + b"r", kernel[:-1], signed + b"r"):
        with pytest.raises(InputError, match=r"the kernel has \d+ bytes, and by its own header"):
            read(image(kernel=shifted, flags=1))


MAGICS = {
    "newc": b"070701",
    "crc": b"070702",
    "gzip": b"\x1f\x8b\x08\0",
    "bzip2": b"BZh9",
    "lzma": b"\x5d\0\0\x80",
    "xz": b"\xfd7zXZ\0",
    "lzo": b"\x89LZO\0\r\n\x1a\n",
    "lz4": b"\x02\x21\x4c\x18",
    "zstd": b"\x28\xb5\x2f\xfd",
}


@pytest.mark.parametrize("magic", MAGICS.values(), ids=MAGICS)
def test_ramdisks_that_linux_unpacks(magic: bytes) -> None:
    assert read(image(ramdisk("a", magic), ramdisk("b", magic), ramdisk("c", magic))).pcrs


def _section(index: int, **change: object) -> Callable[[Image], Image]:
    def bend(made: Image) -> Image:
        sections = list(made.sections)
        sections[index] = replace(sections[index], **change)  # type: ignore[arg-type]
        return replace(made, sections=sections)

    return bend


def _order(*indices: int) -> Callable[[Image], Image]:
    return lambda made: replace(made, sections=[made.sections[i] for i in indices])


def _and(kind: int, data: bytes) -> Callable[[Image], Image]:
    return lambda made: replace(made, sections=[*made.sections, Section(kind, data)])


def _image(**change: object) -> Callable[[Image], Image]:
    return lambda made: replace(made, **change)  # type: ignore[arg-type]


START = 548
MZ_ARM64 = b"MZ" + arm64()[2:]
DEFECTS: dict[str, tuple[Callable[[Image], Image], str]] = {
    "another magic": (_image(magic=b".elf"), "begins with 2e656c66, not with 2e656966"),
    "version 3": (_image(version=3), "its version is 3, not 4"),
    "version 5": (_image(version=5), "its version is 5, not 4"),
    "unknown flag": (_image(flags=2), "its flags are 0x0002"),
    "reserved": (_image(reserved=1), "a reserved field of its header is not zero"),
    "unused": (_image(unused=1), "a reserved field of its header is not zero"),
    "33 sections": (
        lambda made: replace(made, sections=[*made.sections, *([made.sections[4]] * 28)]),
        "it says 33 sections, and a header has room for 32",
    ),
    "one section less in the count": (_image(count=4), "its table goes on after its 4 sections"),
    "an offset after the last": (_image(offsets={5: 1}), "its table goes on after its 5 sections"),
    "a size after the last": (_image(sizes={31: 1}), "its table goes on after its 5 sections"),
    "one section more in the count": (_image(count=6), "the table puts section 5 at 0"),
    "no section": (lambda made: replace(made, sections=[]), "it has no ramdisk"),
    "first offset": (_image(offsets={0: START - 1}), "the table puts section 0 at 547"),
    "two offsets swapped": (
        lambda made: replace(
            made, offsets={3: START + 60 + len(bzimage()) + 700, 4: START + 60 + len(bzimage())}
        ),
        "the table puts section 3 at",
    ),
    "two sections in one place": (_image(offsets={1: START}), "the table puts section 1 at 548"),
    "offset beyond the file": (_image(offsets={4: 2**63}), "the table puts section 4 at 9223"),
    "size in the table": (_image(sizes={3: 599}), "the table gives section 3 599 bytes, and its"),
    "size in the section": (_section(3, length=601), "600 bytes, and its own head 601"),
    "both sizes beyond the file": (
        lambda made: replace(_section(4, length=2**40)(made), sizes={4: 2**40}),
        r"the file ends after \d+ bytes, within section 4 \(ramdisk\)",
    ),
    "both sizes beyond any bound": (
        lambda made: replace(_section(4, length=2**64 - 1)(made), sizes={4: 2**64 - 1}),
        "section 4 .ramdisk. has 18446744073709551615 bytes, not 1 to 1099511627776",
    ),
    "a gap between sections": (
        _image(offsets={4: START + 100_000}),
        "the table puts section 4 at 100548",
    ),
    "trailing byte": (_image(after=b"\0"), "bytes follow the last section"),
    "a second image after it": (_image(after=image().file()), "bytes follow the last section"),
    "checksum": (_image(checksum=0), "the checksum in the header is 00000000, and that of the"),
    "unknown type": (_section(2, kind=6), "section 2 is of the unknown type 6"),
    "type 0": (_section(2, kind=0), "section 2 is of the unknown type 0"),
    "section flags": (_section(4, flags=1), "section 4 .ramdisk. has flags"),
    "second kernel": (_and(KERNEL, bzimage()), "it has a second kernel"),
    "second command line": (_and(COMMAND_LINE, b"quiet"), "it has a second command line"),
    "second metadata": (_and(METADATA, b"{}"), "it has a second metadata section"),
    "no kernel": (_order(1, 2, 3, 4), "a command line stands before the kernel"),
    "no command line": (_order(0, 2, 3, 4), "a ramdisk stands before the command line"),
    "no ramdisk": (_order(0, 1, 2), "it has no ramdisk"),
    "kernel after the command line": (_order(1, 0, 2, 3, 4), "stands before the kernel"),
    "ramdisk first": (_order(3, 0, 1, 2, 4), "a ramdisk stands before the kernel"),
    "ramdisk before the command line": (_order(0, 3, 1, 2, 4), "before the command line"),
    "empty kernel": (_section(0, data=b""), "section 0 .kernel. has 0 bytes, not 1 to"),
    "empty command line": (_section(1, data=b""), "section 1 .command-line. has 0 bytes"),
    "empty ramdisk": (_section(4, data=b""), "section 4 .ramdisk. has 0 bytes"),
    "long command line": (_section(1, data=b"a" * 2048), "has 2048 bytes, not 1 to 2047"),
    "newline in the command line": (_section(1, data=b"quiet\n"), "not printable ASCII"),
    "NUL in the command line": (_section(1, data=b"quiet\0"), "not printable ASCII"),
    "umlaut in the command line": (_section(1, data="ü".encode()), "not printable ASCII"),
    "kernel's end in the command line": (_section(1, data=b"\x8b quiet"), "not printable ASCII"),
    "no bzImage": (_section(0, data=b"\x7fELF" + bytes(4096)), "the kernel is no bzImage"),
    "bzImage of 10 bytes": (_section(0, data=bzimage()[:10]), "the kernel is no bzImage"),
    "no boot flag": (
        _section(0, data=bzimage()[:0x1FE] + b"\0\0" + bzimage()[0x200:]),
        "bzImage header is malformed",
    ),
    "protocol 2.03": (
        _section(0, data=bzimage()[:0x206] + b"\x03\x02" + bzimage()[0x208:]),
        "older than protocol 2.04",
    ),
    "arguments at the kernel's end": (
        _section(0, data=bzimage(extra=b"reboot=k ")),
        "the kernel has 2569 bytes, and by its own header 2560",
    ),
    "a Secure Boot table elsewhere": (
        _section(0, data=with_pe(bzimage(), [(1, 1)], b"abc")[:-3] + b"-abc"),
        "the kernel has 2564 bytes, and by its own header 2560",
    ),
    "x86 kernel as aarch64": (_image(flags=1), "the kernel is no arm64 Image"),
    "aarch64 kernel as x86": (_section(0, data=arm64()), "the kernel is no bzImage"),
    "arm64 kernel of 63 bytes": (
        lambda made: replace(_section(0, data=arm64()[:63])(made), flags=1),
        "the kernel is no arm64 Image",
    ),
    "EFI header without sections": (
        lambda made: replace(_section(0, data=with_pe(MZ_ARM64, []))(made), flags=1),
        "the table of sections in the kernel's EFI header is beyond its start",
    ),
    "EFI header with sections beyond the start": (
        lambda made: replace(_section(0, data=with_pe(MZ_ARM64, [(0, 1)] * 97))(made), flags=1),
        "the table of sections in the kernel's EFI header is beyond its start",
    ),
    "arm64 kernel larger than its memory": (
        lambda made: replace(_section(0, data=arm64(in_memory=4095))(made), flags=1),
        "the kernel has 4096 bytes, more than the 4095 of its Image header",
    ),
    "arm64 kernel without a size": (
        lambda made: replace(_section(0, data=arm64(in_memory=0))(made), flags=1),
        "Image header gives it 0 bytes of memory",
    ),
    "no magic in the first ramdisk": (
        _section(3, data=b"console=ttyS0 070701"),
        "section 3 .ramdisk. begins with 636f6e736f6c, which is no cpio archive",
    ),
    "no magic in a later ramdisk": (_section(4, data=b"\0070701"), "section 4 .ramdisk. begins"),
    "cpio of another form": (_section(4, data=b"070707" * 9), "which is no cpio archive .newc"),
    "one byte of a magic": (_section(4, data=b"\x1f"), "section 4 .ramdisk. begins with 1f,"),
    "metadata is no JSON": (_section(2, data=b"{"), "its metadata is not JSON"),
    "metadata is no object": (_section(2, data=b"[]"), "its metadata is not a JSON object"),
    "a name twice in metadata": (_section(2, data=b'{"a":1,"a":2}'), "names a member twice"),
    "deep metadata": (
        _section(2, data=b'{"a":' + b"[" * 32 + b"]" * 32 + b"}"),
        "its metadata nests deeper than 32",
    ),
    "metadata beyond any stack": (
        _section(2, data=b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"),
        "its metadata is not JSON",
    ),
    "infinite metadata": (_section(2, data=b'{"a":[1e999]}'), "a number that is too large"),
    "long metadata": (_section(2, data=b" " * (2**20 + 1)), "has 1048577 bytes, not 1 to 1048576"),
    "long signature": (_and(4, bytes(32_769)), "has 32769 bytes, not 1 to 32768"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_one_defect_each(defect: str) -> None:
    bend, message = DEFECTS[defect]
    with pytest.raises(InputError, match=message) as error:
        read(bend(image()))
    assert str(error.value).startswith("not an enclave image (EIF) to be measured: ")
    assert error.value.hint
    assert error.value.__context__ is None or error.value.__suppress_context__


def test_a_file_cut_at_any_byte() -> None:
    data = image(ramdisk("a", size=40), ramdisk("b", size=40)).file()
    for length in range(len(data)):
        with pytest.raises(InputError, match="the file ends after") as caught:
            read_eif(BytesIO(data[:length]))
        assert "get the image again" in str(caught.value.hint)


class Pieces:
    """A stream that gives what it likes, as pipes do."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._file, self._sizes = BytesIO(data), sizes

    def read(self, size: int, /) -> bytes:
        most = self._sizes.pop() if self._sizes else size
        return self._file.read(min(most, size))


@given(st.lists(st.integers(1, 900), max_size=200))
def test_any_split_into_pieces_gives_the_same(sizes: list[int]) -> None:
    assert read_eif(Pieces(image().file(), sizes)) == read(image())


@given(st.integers(0, len(image().file()) - 1), st.integers(1, 255))
def test_any_byte_that_is_altered_is_seen(position: int, change: int) -> None:
    data = bytearray(image().file())
    data[position] ^= change
    with pytest.raises(InputError):
        read_eif(BytesIO(data))


def test_what_the_registers_leave_open() -> None:
    """A border that moves changes nothing, so the form of each part is checked."""
    true = read(image(command="quiet ro"))
    moved = image(kernel=bzimage(extra=b"quiet "), command="ro")
    assert {0: moved.pcr(0, 1, 3, 4), 1: moved.pcr(0, 1, 3), 2: moved.pcr(4)} == true.pcrs
    with pytest.raises(InputError, match="by its own header"):
        read(moved)
    first, second, third = ramdisk("a"), ramdisk("b"), ramdisk("c")
    joined = image(first, second + third)
    assert read(image(first, second, third)).pcrs == read(joined).pcrs  # nothing can tell these
    assert read(image(first + second, third)).pcrs != read(joined).pcrs


def write(folder: Path, name: str, made: Image, **options: object) -> Path:
    parts = {}
    for index, section in enumerate(made.sections):
        parts[index] = folder / f"{name}-{index}"
        parts[index].write_bytes(section.data)
    ramdisks = [parts[i] for i, section in enumerate(made.sections) if section.kind == RAMDISK]
    path = folder / name
    with path.open("wb") as file:
        write_eif(file, kernel=parts[0], command_line=COMMAND, ramdisks=ramdisks, **options)  # type: ignore[arg-type]
    return path


def test_what_the_writer_writes(tmp_path: Path) -> None:
    made = image()
    path = write(tmp_path, "image.eif", made, metadata=IDENTITY)
    with path.open("rb") as file:
        found = read_eif(file)
    assert found.pcrs == read(made).pcrs
    assert (found.metadata, found.memory, found.cpus) == (IDENTITY, 2**30, 2)
    again = write(tmp_path, "again.eif", made, metadata=dict(reversed(IDENTITY.items())))
    assert again.read_bytes() == path.read_bytes()
    bare = write(tmp_path, "bare.eif", image(kernel=arm64()), architecture="aarch64", cpus=4)
    with bare.open("rb") as file:
        found = read_eif(file)
    assert (found.metadata, found.architecture, found.cpus) == (None, "aarch64", 4)


def test_what_the_writer_refuses(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a ramdisk"):
        write(tmp_path, "none.eif", Image(image().sections[:2]))
    with pytest.raises(ValueError, match="33 sections"):
        write(tmp_path, "many.eif", image(*[ramdisk("a")] * 31))
    with pytest.raises(UnicodeEncodeError):
        write_eif(BytesIO(), kernel=tmp_path, command_line="ü", ramdisks=[tmp_path])
    grows = Path("/proc/self/stat")  # of which stat() says 0 bytes
    with pytest.raises(ValueError, match="changed while it was read"):
        write_eif(BytesIO(), kernel=grows, command_line="quiet", ramdisks=[grows])


def test_bounds_are_those_of_the_format() -> None:
    assert limits.EIF_SECTIONS_MAX == 32
