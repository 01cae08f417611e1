"""Which Debian packages and wheels are in an image; what requirements/image.lock has otherwise.

A line for each: `deb NAME VERSION ARCHITECTURE SHA256`, the hash being that of the .deb as Debian's
signed lists have it, or `wheel FILE SHA256`. Only what gives the image a file is named: the base is
thrown away, and with it whatever else was installed there.

    python -m image.locked ROOT PACKAGES WHEELS     prints the lines of that image, sorted
    python -m image.locked --differ LINES TARGET    prints where these differ from the lock
"""

import hashlib
import sys
from pathlib import Path

LOCK = Path(__file__).resolve().parents[2] / "requirements" / "image.lock"
HEAD = """\
# What is in the enclave image that is not ours, as of the last time that somebody looked at it.
# scripts/build-enclave-image --lock writes it. A build says where it differs, and goes on.
"""
ONLY_SHELL = ("busybox-static",)


def lines_of(root: Path, packages: Path, wheels: Path) -> list[str]:
    """What the image at `root` was made of.

    Args:
        packages: of the base: name, version, architecture, hash.
        wheels: the folder that pip installed from.
    """
    names = {path.name for path in (root / "var/lib/dpkg/status.d").iterdir()}
    rows = [line.split() for line in packages.read_text().splitlines()]
    found = [f"deb {' '.join(row)}" for row in rows if row[0] in names]
    found += [
        f"wheel {path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        for path in wheels.glob("*.whl")
    ]
    return sorted(found)


def read_lock(path: Path) -> list[str]:
    """The lines of a lock without its comments."""
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def difference(there: list[str], locked: list[str], target: str) -> list[str]:
    """A sentence for each line that is in one of both only."""
    if target != "shell":
        locked = [line for line in locked if line.split()[1] not in ONLY_SHELL]
    missing = [f"locked, and not in this image: {line}" for line in locked if line not in there]
    return missing + [
        f"in this image, and not locked: {line}" for line in there if line not in locked
    ]


def main(arguments: list[str]) -> int:
    """The commands of the module's text, and `--write LINES`."""
    if arguments[0] == "--differ":
        there = read_lock(Path(arguments[1]))
        print(*difference(there, read_lock(LOCK), arguments[2]), sep="\n")
    elif arguments[0] == "--write":
        LOCK.write_text(HEAD + Path(arguments[1]).read_text())
    else:
        root, packages, wheels = (Path(argument) for argument in arguments)
        print(*lines_of(root, packages, wheels), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
