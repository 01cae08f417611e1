"""A cpio archive (newc) that is the same byte for byte whenever its content is.

Names are sorted, times are zero, owners are root, inode numbers count up: nothing of the machine
gets in. Written with the standard library, from a plan of entries and not from a folder alone, so
that what enters a ramdisk can be read in one place.
"""

import hashlib
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO


@dataclass(frozen=True)
class Entry:
    """One name of an archive: its mode with the type of file, and its content."""

    mode: int
    content: bytes | Path = b""

    def read(self) -> bytes:
        """A file's bytes, a link's target, nothing of a folder."""
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()

    def described(self) -> str:
        """As the agent's manifest has it: mode and SHA-256, a link's target, or `folder`."""
        if stat.S_ISLNK(self.mode):
            return f"link {self.read().decode()}"
        if stat.S_ISDIR(self.mode):
            return f"{stat.S_IMODE(self.mode):04o} folder"
        return f"{stat.S_IMODE(self.mode):04o} {hashlib.sha256(self.read()).hexdigest()}"


def file(content: bytes | Path, mode: int = 0o644) -> Entry:
    return Entry(stat.S_IFREG | mode, content)


def folder(mode: int = 0o755) -> Entry:
    return Entry(stat.S_IFDIR | mode)


def tree(root: Path, prefix: str) -> dict[str, Entry]:
    """Every file, link and folder under `root`, as entries under `prefix`.

    Raises:
        ValueError: something else is there, such as a device.
    """
    return {f"{prefix}{path.relative_to(root)}": _entry(path) for path in _walk(root)}


def write_archive(output: BinaryIO, entries: Mapping[str, Entry]) -> None:
    """Writes the archive; folders that an entry lies in are made where no entry says how."""
    whole = dict(entries)
    for name in entries:
        for parent in list(Path(name).parents)[:-1]:
            whole.setdefault(str(parent), folder())
    for inode, name in enumerate(sorted(whole), 1):
        _write_entry(output, name, whole[name], inode)
    _write_entry(output, "TRAILER!!!", Entry(0), 0)


def _walk(root: Path) -> Iterator[Path]:
    for path in sorted(root.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)


def _entry(path: Path) -> Entry:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return Entry(mode, str(path.readlink()).encode())
    if stat.S_ISREG(mode):
        return Entry(mode, path)
    if stat.S_ISDIR(mode):
        return Entry(mode)
    raise ValueError(f"{path} is neither file nor link nor folder")


def _write_entry(output: BinaryIO, name: str, entry: Entry, inode: int) -> None:
    content = entry.read()
    encoded = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    numbers = (inode, entry.mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + encoded
    output.write(head + bytes(-len(head) % 4))
    output.write(content + bytes(-len(content) % 4))
