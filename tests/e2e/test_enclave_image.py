"""What is in the image that scripts/build-enclave-image makes: every file of it is looked at.

It is built once, into the user's cache. That it works: test_enclave_image_confined.py;
that it is the same each time: test_enclave_image_check.py.
"""

import _imp
import base64
import csv
import hashlib
import json
import re
import stat
import tarfile
from pathlib import Path

import pytest
from image.context import rooms
from image.lines import python_rows
from image.modules import CUT, UNUSED
from support.enclave_image import (
    ROOT,
    Confined,
    EnclaveImage,
    build,
    python,
)

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

MOST_BYTES = 60 * 1024 * 1024
SHELLS = {"sh", "bash", "dash", "ash", "zsh", "busybox", "perl", "awk", "gawk", "mawk", "sed"}
INSTALLERS = {"apt", "apt-get", "dpkg", "dpkg-deb", "pip", "pip3", "curl", "wget", "nc", "ssh"}
NEVER = {"emulator", "parent", "pytest_plugin.py", "outside.py", "boto.py"}
PACKAGES = ["cbor2", "cffi", "click", "cryptography", "pycparser"]


@pytest.fixture(scope="module")
def minimal() -> EnclaveImage:
    return build("minimal")


@pytest.fixture(scope="module")
def shell() -> EnclaveImage:
    return build("shell")


def packages_of(image: EnclaveImage) -> Path:
    (found,) = image.root.glob("usr/local/lib/python3.*/dist-packages")
    return found


def files_of(image: EnclaveImage) -> dict[str, Path]:
    return {
        str(path.relative_to(image.root)): path
        for path in image.root.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def entries(image: EnclaveImage) -> list[tarfile.TarInfo]:
    with tarfile.open(image.folder / "rootfs.tar") as archive:
        return archive.getmembers()


def test_it_is_small(minimal: EnclaveImage) -> None:
    figures = json.loads((minimal.folder / "figures.json").read_text())
    sizes = [path.stat().st_size for path in files_of(minimal).values()]
    assert (figures["bytes"], figures["files"]) == (sum(sizes), len(sizes))
    assert figures["bytes"] <= MOST_BYTES


@pytest.mark.parametrize("target", ["minimal", "shell"])
def test_it_has_not_grown_unnoticed(target: str) -> None:
    figures = json.loads((build(target).folder / "figures.json").read_text())
    recorded = json.loads((ROOT / "requirements" / "image-figures.json").read_text())[target]
    hint = "if it is meant, write the new figures into requirements/image-figures.json"
    assert figures["bytes"] <= recorded["bytes"] + 1_000_000, hint
    assert figures["files"] <= recorded["files"] + 40, hint


@pytest.mark.parametrize("target", ["minimal", "shell"])
def test_modes_owners_and_times(target: str) -> None:
    image = build(target)
    epoch = json.loads((image.folder / "figures.json").read_text())["epoch"]
    found = entries(image)
    assert [entry.name for entry in found] == sorted(entry.name for entry in found)
    for entry in found:
        assert entry.isfile() or entry.isdir() or entry.issym(), entry.name
        assert (entry.uid, entry.gid, entry.uname, entry.gname) == (0, 0, "", ""), entry.name
        assert entry.mtime == epoch, entry.name
        if not entry.issym():
            assert entry.mode in {0o755, 0o644}, f"{entry.name} {entry.mode:o}"
            assert not entry.mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH | stat.S_IWGRP)


def test_no_shell_and_nothing_that_installs(minimal: EnclaveImage) -> None:
    names = {Path(entry.name).name for entry in entries(minimal) if not entry.isdir()}
    assert names & (SHELLS | INSTALLERS) == set()
    programs = {
        entry.name for entry in entries(minimal) if "bin/" in entry.name and not entry.isdir()
    }
    assert programs == {
        "usr/bin/python3",
        "usr/bin/python3.13",
        "usr/local/bin/kmstool",
        "usr/local/bin/kmstool_enclave_cli",
    }


def test_shell_is_minimal_and_busybox(minimal: EnclaveImage, shell: EnclaveImage) -> None:
    small, large = files_of(minimal), files_of(shell)
    assert all(large[name].read_bytes() == path.read_bytes() for name, path in small.items())
    more = set(large) - set(small)
    assert {name for name in more if not name.startswith(("usr/share/doc", "var/lib/dpkg"))} == {
        "usr/bin/busybox"
    }
    links = {path.name for path in (shell.root / "usr/bin").iterdir() if path.is_symlink()}
    assert {"sh", "cat", "mount", "setpriv", "su"} <= links
    assert links & INSTALLERS == set()


def test_of_ours_what_the_dockerfile_names(minimal: EnclaveImage) -> None:
    modules, folders = rooms((ROOT / "enclave.Dockerfile").read_text())
    package = packages_of(minimal) / "kmstool"
    there = {path.name for path in package.iterdir() if path.name != "__pycache__"}
    assert there == {f"{name}.py" for name in modules} | set(folders)
    assert there & NEVER == set()
    for path in package.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            ours = ROOT / "kmstool" / path.relative_to(package)
            assert path.read_bytes() == ours.read_bytes(), path


def test_wheels_are_as_their_authors_published_them(minimal: EnclaveImage) -> None:
    packages = packages_of(minimal)
    names = set()
    for record in packages.glob("*.dist-info/RECORD"):
        names.add(record.parent.name.partition("-")[0])
        for name, digest, _ in csv.reader(record.read_text().splitlines()):
            path = packages / name
            if digest and not name.startswith(".."):
                said = base64.urlsafe_b64decode(digest.removeprefix("sha256=") + "=")
                assert hashlib.sha256(path.read_bytes()).digest() == said, name
    assert sorted(names) == PACKAGES
    tops = {path.name for path in packages.iterdir() if not path.name.endswith(".dist-info")}
    binding = next(name for name in tops if name.startswith("_cffi_backend"))
    assert tops == {*PACKAGES, "kmstool", binding}


def test_bytecode_is_that_of_its_source(minimal: EnclaveImage) -> None:
    count = 0
    for path in minimal.root.rglob("*.py"):
        (compiled,) = (path.parent / "__pycache__").glob(f"{path.stem}.cpython-*.pyc")
        head = compiled.read_bytes()[:16]
        key = int.from_bytes(head[:4], "little")
        assert int.from_bytes(head[4:8], "little") == 1, f"{compiled}: not an unchecked hash"
        assert head[8:] == _imp.source_hash(key, path.read_bytes()), compiled
        count += 1
    assert count == len(list(minimal.root.rglob("*.pyc")))
    assert str(minimal.root).encode() not in b"".join(
        path.read_bytes() for path in minimal.root.rglob("*.pyc")
    )


def listed_modules() -> list[str]:
    lines = (ROOT / "requirements" / "python-modules.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_library_is_what_the_list_names(minimal: EnclaveImage) -> None:
    (library,) = minimal.root.glob("usr/lib/python3.*")
    there = set()
    for path in library.rglob("*"):
        if path.suffix == ".py":
            parts = path.relative_to(library).with_suffix("").parts
            there.add(".".join(part for part in parts if part != "__init__"))
        elif path.suffix == ".so":
            there.add(path.name.partition(".")[0])
    assert there == set(listed_modules())
    assert there & set(CUT) == set()
    # What the build found differs from the list: see scripts/image/modules.py.
    assert (minimal.folder / "modules-differ").read_text() == ""


def test_every_module_in_it_can_be_imported(minimal: EnclaveImage) -> None:
    packages = packages_of(minimal)
    names = listed_modules()
    for path in sorted(packages.rglob("*.py")):
        parts = path.relative_to(packages).with_suffix("").parts
        names.append(".".join(part for part in parts if part != "__init__"))
    unused = tuple(UNUSED)
    names = [
        name
        for name in names
        if not any(name == other or name.startswith(f"{other}.") for other in unused)
        and not name.endswith("__main__")
    ]
    code = (
        "import importlib, sys\n"
        "for name in sys.stdin.read().split():\n"
        "    try: importlib.import_module(name)\n"
        "    except ImportError as error: print(name, error)\n"
    )
    done = Confined(minimal).run(*python(code), stdin=" ".join(names).encode())
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode() == ""


def test_no_file_is_without_an_entry_in_the_bill(minimal: EnclaveImage) -> None:
    bill = json.loads((minimal.folder / "sbom.json").read_text())
    listed = {
        file["name"]: file["hashes"][0]["content"]
        for component in bill["components"]
        for file in component["components"]
    }
    there = {
        f"/{name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in files_of(minimal).items()
    }
    assert listed == there
    lines = (minimal.folder / "image.lock").read_text().splitlines()
    hashes = {item["content"] for part in bill["components"] for item in part.get("hashes", [])}
    assert hashes == {line.split()[-1] for line in lines}
    ours = next(part for part in bill["components"] if part["name"] == "kmstool")
    outside = [
        file["name"] for file in ours["components"] if "dist-packages/kmstool/" not in file["name"]
    ]
    assert sorted(outside) == [
        "/etc/group",
        "/etc/passwd",
        "/usr/local/bin/kmstool",
        "/usr/local/bin/kmstool_enclave_cli",
    ]


def test_every_debian_package_has_its_copyright(shell: EnclaveImage) -> None:
    records = shell.root / "var/lib/dpkg/status.d"
    names = [path.name for path in records.iterdir() if not path.name.endswith(".md5sums")]
    assert {"libc6", "libssl3t64", "python3.13-minimal", "busybox-static"} <= set(names)
    for name in names:
        assert (shell.root / "usr/share/doc" / name / "copyright").exists() or name in {
            # Their folder is a link to that of another package of the same source.
            "libgcc-s1",
            "libpython3.13-stdlib",
            "python3.13-minimal",
        }, name


DOCUMENTED = re.compile(r"^\| (?P<what>[^|]+) \| Python \| (?P<lines>[\d,]+) \|$", re.MULTILINE)


def test_the_table_of_trusted_lines_is_of_this_image(minimal: EnclaveImage) -> None:
    page = (ROOT / "docs" / "explanation" / "image.md").read_text()
    said = {
        match["what"]: int(match["lines"].replace(",", "")) for match in DOCUMENTED.finditer(page)
    }
    counted = {row.what: row.lines for row in python_rows(minimal.root)}
    assert set(said) == set(counted)
    for what, lines in counted.items():
        assert abs(said[what] - lines) <= max(lines / 10, 60), f"{what}: {lines} lines"
