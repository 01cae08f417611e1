"""Whether the measured parts of an enclave image are what they stand for, by their own form.

PCR0, PCR1 and PCR2 hash kernel, command line and ramdisks without lengths, so a border that was
moved does not change them. A kernel that is as long as its own header says, a command line that can
be printed and ramdisks that begin as such leave little room for that.

Sources: Linux' Documentation/arch/x86/boot.rst (bzImage), Documentation/arch/arm64/booting.rst
(Image), lib/decompress.c and Documentation/driver-api/early-userspace/buffer-format.rst (ramdisks),
and Microsoft's PE format for the EFI header that both kinds of kernel may have.
"""

import struct
from typing import Final, Literal, NoReturn

from kmstool import limits
from kmstool.errors import InputError

Architecture = Literal["x86_64", "aarch64"]

HINT: Final = "build the image again with nitro-cli, and compare the two"


def check_kernel(head: bytes, size: int, architecture: Architecture) -> bool:
    """Holds a kernel to its own header; whether that says how long the kernel is.

    Args:
        head: the kernel's first bytes, `limits.EIF_KERNEL_HEAD` of them or all that it has.
        size: bytes of the whole kernel.

    Raises:
        InputError: it is no kernel for this architecture, or of another length.
    """
    length = _bzimage_length(head) if architecture == "x86_64" else _arm64_length(head, size)
    if length is None:
        return False
    if size not in (length, _with_certificates(head, length)):
        _refuse(f"the kernel has {size} bytes, and by its own header {length}")
    return True


def parse_command_line(data: bytes) -> str:
    """The kernel's command line, 1 to 2047 printable characters of ASCII.

    Raises:
        InputError: it has others.
    """
    if not all(0x20 <= byte <= 0x7E for byte in data):
        _refuse("the command line has bytes that are not printable ASCII")
    return data.decode("ascii")


def check_ramdisk(head: bytes, what: str) -> None:
    """Holds the first `RAMDISK_HEAD` bytes of a ramdisk to what Linux unpacks.

    Raises:
        InputError: they are the start of nothing of the kind.
    """
    if not head.startswith(_RAMDISK_MAGICS):
        _refuse(
            f"{what} begins with {head[:6].hex()}, which is no cpio archive (newc), plain or"
            " compressed"
        )


_RAMDISK_MAGICS: Final = (
    b"070701",  # cpio newc
    b"070702",  # the same with checksums
    b"\x1f\x8b\x08",  # gzip, deflate
    b"BZh",  # bzip2
    b"\x5d\x00\x00",  # lzma
    b"\xfd7zXZ\x00",
    b"\x89LZO\x00\r\n\x1a\n",
    b"\x02\x21\x4c\x18",  # lz4, the legacy frame: the only one that Linux reads
    b"\x28\xb5\x2f\xfd",  # zstd
)
RAMDISK_HEAD: Final = max(map(len, _RAMDISK_MAGICS))

_BOOT_FLAG: Final = 0x1FE  # aa55
_BZIMAGE_MAGIC: Final = 0x202
_PROTOCOL_MIN: Final = 0x0204  # before it, syssize had 16 bits
_BZIMAGE_LEAST: Final = 0x208


def _bzimage_length(head: bytes) -> int:
    """Sectors of set-up code, the boot sector, and the rest in paragraphs of 16 bytes."""
    if len(head) < _BZIMAGE_LEAST or head[_BZIMAGE_MAGIC : _BZIMAGE_MAGIC + 4] != b"HdrS":
        _refuse("the kernel is no bzImage, and the image says x86_64")
    (flag,) = struct.unpack_from("<H", head, _BOOT_FLAG)
    (protocol,) = struct.unpack_from("<H", head, _BZIMAGE_MAGIC + 4)
    if flag != 0xAA55 or protocol < _PROTOCOL_MIN:
        _refuse("the kernel's bzImage header is malformed, or older than protocol 2.04")
    sectors = head[0x1F1] or 4
    (paragraphs,) = struct.unpack_from("<I", head, 0x1F4)
    return (sectors + 1) * 512 + int(paragraphs) * 16


_ARM64_MAGIC: Final = 56  # ARM\x64
_ARM64_HEADER: Final = 64  # bytes


def _arm64_length(head: bytes, size: int) -> int | None:
    """From the EFI header where there is one: the Image header has the size in memory alone."""
    if len(head) < _ARM64_HEADER or head[_ARM64_MAGIC : _ARM64_MAGIC + 4] != b"ARM\x64":
        _refuse("the kernel is no arm64 Image, and the image says aarch64")
    (in_memory,) = struct.unpack_from("<Q", head, 16)
    if not 0 < in_memory <= limits.EIF_KERNEL_MAX:
        _refuse(f"the kernel's Image header gives it {in_memory} bytes of memory")
    pe = _pe_header(head)
    length = None if pe is None else _pe_length(head, pe)
    if (size if length is None else length) > in_memory:
        _refuse(f"the kernel has {size} bytes, more than the {in_memory} of its Image header")
    return length


def _pe_header(head: bytes) -> int | None:
    """Where the PE header is, or None: both kinds of kernel have its offset at 60."""
    (at,) = struct.unpack_from("<I", head, 60)
    # 24 bytes of COFF, then an optional header of 112 and more bytes for 64 bits (0x20b).
    if head[:2] != b"MZ" or len(head) < at + 24 + 112 or head[at : at + 4] != b"PE\0\0":
        return None
    (magic,) = struct.unpack_from("<H", head, at + 24)
    return int(at) if magic == 0x20B else None


def _pe_length(head: bytes, pe: int) -> int:
    """The end of the section that ends last in the file."""
    sections, optional = struct.unpack_from("<H12xH", head, pe + 6)
    table = pe + 24 + optional
    if not sections or len(head) < table + 40 * sections:
        _refuse("the table of sections in the kernel's EFI header is beyond its start")
    end = 0
    for index in range(sections):
        size, start = struct.unpack_from("<II", head, table + 40 * index + 16)
        end = max(end, int(size) + int(start))
    return end


def _with_certificates(head: bytes, length: int) -> int:
    """The length of a kernel that is signed for Secure Boot: the signatures follow it."""
    pe = _pe_header(head)
    if pe is None:
        return length
    (directories,) = struct.unpack_from("<I", head, pe + 24 + 108)
    entry = pe + 24 + 112 + 4 * 8
    if directories <= 4 or len(head) < entry + 8:
        return length
    start, size = struct.unpack_from("<II", head, entry)
    return length + int(size) if start == length else length


def _refuse(reason: str) -> NoReturn:
    raise InputError(f"not an enclave image (EIF) to be measured: {reason}", hint=HINT)
