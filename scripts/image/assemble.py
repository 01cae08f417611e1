"""Lays out the image's root file system, file by file, in the build stage of enclave.Dockerfile.

Nothing is taken away from a distribution: a new tree gets the interpreter, the modules of its
library that requirements/python-modules.txt names, the wheels as pip unpacked them, the rooms of
kmstool, the libraries that these link to, and a copyright file for each Debian package that gave
one. Every mode is set, nothing is owned by anyone but root, and bytecode is compiled so that its
bytes depend on the source alone (PEP 552, unchecked hashes: it is not compared with the source at
run time, which whoever changes a file in a running image could change as well).

    python3 -m image.assemble BUILD ROOT SHELL

BUILD has rooms/kmstool/, packages/ (what pip unpacked) and python-modules.txt; ROOT and SHELL are
made.
"""

import compileall
import hashlib
import os
import py_compile
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from image import modules

PROGRAM = """\
#!/usr/bin/python3 -IB
from kmstool.cli.{module} import run

run()
"""
PROGRAMS = {"kmstool": "main", "kmstool_enclave_cli": "compat"}
# glibc loads it by name when a thread ends, and aborts without it: no link shows it.
BY_NAME = ("libgcc_s.so.1",)
MOUNT_POINTS = ("dev", "proc", "run", "sys", "tmp")
LINKS = {"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64", "sbin": "usr/bin"}
# What an entry script is written with; nothing that installs, and nothing that talks to a network.
APPLETS = (
    "[ base64 basename cat chmod chown cp cut date dd dirname echo env expr false grep head id"
    " kill ln ls mkdir mktemp mount mv od printf ps pwd readlink rm rmdir sed setpriv sh sha256sum"
    " sleep sort stat su tail tee test touch tr true umount uname wc xxd"
)
FILES = {
    "etc/passwd": "root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
}


def main(arguments: list[str]) -> int:
    """Makes both trees; the reason of a failure is a traceback, in the build's log."""
    build, root, shell = (Path(argument) for argument in arguments)
    os.umask(0o022)
    python = Path(sysconfig.get_paths()["stdlib"])
    packages = root / "usr/local/lib" / python.name / "dist-packages"
    skeleton(root)
    interpreter(root, python, build / "python-modules.txt")
    shutil.copytree(build / "packages", packages, ignore=shutil.ignore_patterns("bin"))
    shutil.copytree(
        build / "rooms/kmstool", packages / "kmstool", ignore=shutil.ignore_patterns("__pycache__")
    )
    compare_modules(build, python)
    for name, module in PROGRAMS.items():
        program = root / "usr/local/bin" / name
        program.write_text(PROGRAM.format(module=module))
        program.chmod(0o755)
    libraries(root)
    compile_all(root)
    busybox(shell)
    for tree in (root, shell):
        debian_records(tree)
        set_modes(tree)
    return 0


def skeleton(root: Path) -> None:
    """Mount points, links of the merged /usr, and the two files that name users."""
    for name in (*MOUNT_POINTS, "etc", "usr/bin", "usr/lib", "usr/lib64", "usr/local/bin"):
        (root / name).mkdir(parents=True)
    for name, target in LINKS.items():
        (root / name).symlink_to(target)
    for name, content in FILES.items():
        (root / name).write_text(content)


def interpreter(root: Path, library: Path, listed: Path) -> None:
    """The program, and the listed modules of its library."""
    program = Path(sys.executable).resolve()
    shutil.copy2(program, root / "usr/bin" / program.name)
    (root / "usr/bin/python3").symlink_to(program.name)
    for name in read_list(listed):
        source = modules.find(name, library)
        if source is None:
            raise SystemExit(f"python-modules.txt: this Python has no module {name}")
        copy(source, root)


def read_list(path: Path) -> list[str]:
    """The names in a list with comments."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


def compare_modules(build: Path, library: Path) -> None:
    """Adds nothing: says which names the list should have, or need not, for this Python."""
    starts = modules.modules_in(build / "rooms") + modules.modules_in(build / "packages")
    wanted = set(modules.needed(starts, library))
    listed = set(read_list(build / "python-modules.txt"))
    for name in sorted(wanted - listed):
        print(f"python-modules.txt: {name} is imported, and is not in the list")
    for name in sorted(listed - wanted):
        print(f"python-modules.txt: {name} is in the list, and nothing imports it")


def libraries(root: Path) -> None:
    """Every shared library that a file of the tree links to, and the loader."""
    linked: set[str] = set()
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.read_bytes()[:4] == b"\x7fELF":
            linked |= links_of(path)
    folders = {str(Path(path).parent) for path in linked}
    for name in BY_NAME:
        linked |= {f"{folder}/{name}" for folder in folders if Path(folder, name).exists()}
    for name in sorted(linked):
        # Under the name that is asked for, as a file: no chain of links to follow.
        target = root / Path(name).parent.resolve().relative_to("/") / Path(name).name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(Path(name).resolve(), target)


def links_of(path: Path) -> set[str]:
    """What the loader resolves for one file, as paths."""
    found = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=False).stdout
    if "not found" in found:
        raise SystemExit(f"{path} links to a library that is not there:\n{found}")
    words = (word for line in found.splitlines() for word in line.split())
    return {word for word in words if word.startswith("/") and not word.endswith(":")}


def compile_all(root: Path) -> None:
    """Bytecode whose names are those in the image, in one process and one order."""
    done = compileall.compile_dir(
        str(root / "usr"),
        maxlevels=99,
        quiet=1,
        stripdir=str(root),
        prependdir="/",
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        workers=1,
    )
    if not done:
        raise SystemExit("a module does not compile")


def busybox(shell: Path) -> None:
    """What the target `shell` has beside the minimal image."""
    target = shell / "usr/bin"
    target.mkdir(parents=True)
    copy(Path("/usr/bin/busybox"), shell)
    for name in APPLETS.split():
        (target / name).symlink_to("busybox")


def copy(source: Path, root: Path) -> None:
    """Copies a file of the base to the same place of the tree, links resolved."""
    place = source.parent.resolve() / source.name
    target = root / place.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source.resolve(), target)


def debian_records(root: Path) -> None:
    """For each package with a file here: its copyright, version, and these files.

    In var/lib/dpkg/status.d, where scanners of images without dpkg look.
    """
    taken: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.suffix != ".pyc":
            name = owner("/" + str(path.relative_to(root)))
            if name:
                taken.setdefault(name, []).append(path)
    records = root / "var/lib/dpkg/status.d"
    records.mkdir(parents=True)
    fields = "Package: ${Package}\nStatus: ${Status}\nArchitecture: ${Architecture}\n"
    fields += "Source: ${source:Package} (${source:Version})\nVersion: ${Version}\n"
    for name, paths in sorted(taken.items()):
        bare = name.partition(":")[0]
        shown = subprocess.run(
            ["dpkg-query", "-W", "-f", fields, name], capture_output=True, text=True, check=True
        )
        (records / bare).write_text(shown.stdout)
        copyright_file = Path("/usr/share/doc", bare, "copyright")
        if copyright_file.exists():
            target = root / copyright_file.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(copyright_file.resolve(), target)
            paths.append(target)
        sums = [(path.relative_to(root), hashlib.md5(path.read_bytes())) for path in paths]
        text = "".join(f"{digest.hexdigest()}  {path}\n" for path, digest in sums)
        (records / f"{bare}.md5sums").write_text(text)


_owners: dict[str, str] = {}


def owner(path: str) -> str | None:
    """The Debian package that has this file, by dpkg's own lists."""
    if not _owners:
        for listing in sorted(Path("/var/lib/dpkg/info").glob("*.list")):
            for line in listing.read_text().splitlines():
                if Path(line).is_file():
                    folder, name = os.path.split(line)
                    _owners[f"{os.path.realpath(folder)}/{name}"] = listing.stem
    # A library is here under the name that is asked for; the package may have it as a link.
    return _owners.get(path) or _owners.get(os.path.realpath(path))


def set_modes(root: Path) -> None:
    """0755 for folders and what was executable, 0644 for the rest; one time for all."""
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if executable else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
