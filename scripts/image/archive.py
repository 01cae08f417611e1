"""A tar archive of a root file system that is the same byte for byte whenever its content is.

Sorted names, one time for all, owner 0:0 by number, no devices, no names of users; and the figures
of what is in it. Modes are taken from the tree, where scripts/image/assemble.py has set them.

    python -m image.archive ROOT FOLDER EPOCH     writes FOLDER/rootfs.tar and FOLDER/figures.json
"""

import hashlib
import io
import json
import stat
import sys
import tarfile
from pathlib import Path

FORMAT = tarfile.GNU_FORMAT  # no extended headers, in which a time or a name could hide


def write_tar(root: Path, output: io.BufferedIOBase, epoch: int) -> None:
    """Writes every file, link and folder under `root`.

    Raises:
        ValueError: something else is there, such as a device or a socket.
    """
    with tarfile.open(fileobj=output, mode="w", format=FORMAT) as archive:
        for path in sorted(root.rglob("*"), key=lambda item: str(item.relative_to(root))):
            entry = describe(path, str(path.relative_to(root)))
            entry.mtime = epoch
            if entry.isfile():
                with path.open("rb") as content:
                    archive.addfile(entry, content)
            else:
                archive.addfile(entry)


def describe(path: Path, name: str) -> tarfile.TarInfo:
    """The header of one entry, of what may be in an image: no user, no device, no second name."""
    status = path.lstat()
    entry = tarfile.TarInfo(name)
    entry.mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISREG(status.st_mode):
        entry.size = status.st_size
    elif stat.S_ISLNK(status.st_mode):
        entry.type, entry.linkname = tarfile.SYMTYPE, str(path.readlink())
    elif stat.S_ISDIR(status.st_mode):
        entry.type = tarfile.DIRTYPE
    else:
        raise ValueError(f"{path} is neither file nor folder nor symbolic link")
    return entry


def figures(root: Path) -> dict[str, int]:
    """Bytes of all files, and how many there are; links and folders are not counted."""
    paths = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    return {"bytes": sum(path.stat().st_size for path in paths), "files": len(paths)}


def main(arguments: list[str]) -> int:
    """Writes both files."""
    root, folder, epoch = Path(arguments[0]), Path(arguments[1]), int(arguments[2])
    with (folder / "rootfs.tar").open("wb") as output:
        write_tar(root, output, epoch)
    with (folder / "rootfs.tar").open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    text = json.dumps({**figures(root), "sha256": digest, "epoch": epoch}, indent=2)
    (folder / "figures.json").write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
