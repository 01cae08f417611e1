"""The parts of scripts/build-enclave-image, each on a small tree; the whole is in tests/e2e."""

import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from image.archive import figures, write_tar
from image.context import files, rooms, sources, stage
from image.lines import count_text, rounded
from image.locked import difference, lines_of
from image.modules import needed
from image.sbom import bill, owner_of

DOCKERFILE = """
FROM x AS build
COPY requirements/a.txt wheels* /build/
COPY \\
    kmstool/arn.py \\
    kmstool/cli.py \\
    /build/rooms/
COPY kmstool/enclave /build/rooms/enclave/
COPY --from=build /rootfs/ /
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/b").write_bytes(b"two")
    (root / "usr/bin/b").chmod(0o755)
    (root / "a").write_bytes(b"one!")
    (root / "a").chmod(0o644)
    (root / "bin").symlink_to("usr/bin")
    return root


def archive(root: Path, epoch: int = 5) -> bytes:
    output = io.BytesIO()
    write_tar(root, output, epoch)
    return output.getvalue()


def test_an_archive_does_not_know_when_or_by_whom(tree: Path) -> None:
    first = archive(tree)
    os.utime(tree / "a", (1, 1))
    os.chown(tree / "a", 1, 1) if os.geteuid() == 0 else None
    os.link(tree / "a", tree / "z")
    (tree / "z").unlink()
    assert archive(tree) == first
    assert archive(tree, 6) != first
    (tree / "a").write_bytes(b"oNe!")
    assert archive(tree) != first


def test_an_archive_is_sorted_and_owned_by_root(tree: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive(tree))) as opened:
        entries = opened.getmembers()
    assert [entry.name for entry in entries] == ["a", "bin", "usr", "usr/bin", "usr/bin/b"]
    assert {(entry.uid, entry.gid, entry.uname, entry.mtime) for entry in entries} == {
        (0, 0, "", 5)
    }
    assert [entry.linkname for entry in entries if entry.issym()] == ["usr/bin"]


def test_a_file_with_two_names_is_written_twice(tree: Path) -> None:
    os.link(tree / "a", tree / "z")
    with tarfile.open(fileobj=io.BytesIO(archive(tree))) as opened:
        twice = opened.extractfile("z")
        assert twice is not None
        assert twice.read() == b"one!"
        assert all(not entry.islnk() for entry in opened.getmembers())


def test_a_pipe_has_no_place_in_an_image(tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    with pytest.raises(ValueError, match="neither file nor folder"):
        archive(tree)


def test_figures(tree: Path) -> None:
    assert figures(tree) == {"bytes": 7, "files": 2}


def test_the_dockerfile_is_the_list() -> None:
    names = ["requirements/a.txt", "kmstool/arn.py", "kmstool/cli.py", "kmstool/enclave"]
    assert sources(DOCKERFILE) == names
    assert rooms(DOCKERFILE) == (["arn", "cli"], ["enclave"])


def test_a_build_sees_only_what_is_copied(tmp_path: Path) -> None:
    (tmp_path / "enclave.Dockerfile").write_text("COPY kmstool/enclave /x/\nCOPY a.txt /x/\n")
    enclave = tmp_path / "kmstool" / "enclave"
    (enclave / "__pycache__").mkdir(parents=True)
    for path in (enclave / "a.py", enclave / "__pycache__/a.pyc", tmp_path / "a.txt"):
        path.write_text("x")
    (tmp_path / "b.txt").write_text("not copied")
    assert files(tmp_path) == ["a.txt", "enclave.Dockerfile", "kmstool/enclave/a.py"]
    first = stage(tmp_path, tmp_path / "one")
    (tmp_path / "b.txt").write_text("not copied, and changed")
    assert stage(tmp_path, tmp_path / "two") == first
    (tmp_path / "a.txt").write_text("y")
    assert stage(tmp_path, tmp_path / "three") != first


def test_modules_are_followed_through_functions_and_packages(tmp_path: Path) -> None:
    library, start = tmp_path / "library", tmp_path / "start.py"
    (library / "lib-dynload").mkdir(parents=True)
    (library / "lib-dynload" / "_c.cpython-313.so").write_bytes(b"")
    (library / "pack").mkdir()
    contents = {
        "pack/__init__.py": "from . import inner",
        "pack/inner.py": "import _c",
        "pack/other.py": "",
        "late.py": "",
        "typed.py": "",
        "program.py": "",
        "pdb.py": "",
        "site.py": "",
    }
    for name, text in contents.items():
        (library / name).write_text(text)
    start.write_text(
        "from typing import TYPE_CHECKING\n"
        "import pack, pdb\n"
        "def f():\n    import late\n"
        "if TYPE_CHECKING:\n    import typed\n"
        "if __name__ == '__main__':\n    import program\n"
    )
    found = needed([("start", start)], library)
    assert set(found) == {"pack", "pack.inner", "_c", "late", "site"}
    assert found["late"] == "start"


def test_what_is_there_and_what_is_locked(tmp_path: Path) -> None:
    records = tmp_path / "root/var/lib/dpkg/status.d"
    records.mkdir(parents=True)
    (records / "libc6").write_text("")
    (tmp_path / "packages").write_text("apt 1 amd64 aa\nlibc6 2 amd64 bb\n")
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "click-8-py3-none-any.whl").write_bytes(b"")
    lines = lines_of(tmp_path / "root", tmp_path / "packages", tmp_path / "w")
    assert [line.rsplit(" ", 1)[0] for line in lines] == [
        "deb libc6 2 amd64",
        "wheel click-8-py3-none-any.whl",
    ]
    locked = [*lines, "deb busybox-static 1 amd64 cc"]
    assert difference(lines, locked, "minimal") == []
    assert difference(lines, locked, "shell") == [
        "locked, and not in this image: deb busybox-static 1 amd64 cc"
    ]
    assert difference(lines, [], "minimal")[0].startswith(
        "in this image, and not locked: deb libc6"
    )


def test_bytecode_belongs_to_its_source() -> None:
    owners = {"usr/lib/a.py": "deb x 1 amd64"}
    assert owner_of("usr/lib/__pycache__/a.cpython-313.pyc", owners) == "deb x 1 amd64"
    assert owner_of("usr/lib/b.py", owners) == "kmstool"


def test_a_bill_names_every_file_once(tmp_path: Path) -> None:
    root = tmp_path / "rootfs"
    ours = root / "usr/local/lib/python3.13/dist-packages/kmstool"
    records = root / "var/lib/dpkg/status.d"
    for folder in (ours, records, root / "etc"):
        folder.mkdir(parents=True)
    (ours / "__init__.py").write_text('__version__ = "9.8"\n')
    (root / "etc/x").write_text("x")
    fields = "Package: x\nArchitecture: amd64\nVersion: 1:2+3~4\n"
    (records / "x").write_text(fields)
    (records / "x.md5sums").write_text("00  etc/x\n")
    (tmp_path / "figures.json").write_text(json.dumps({"epoch": 0, "sha256": "ab" * 32}))
    (tmp_path / "image.lock").write_text("deb x 1:2+3~4 amd64 cafe\n")
    made = bill(tmp_path)
    parts = {part["name"]: part for part in made["components"]}
    assert parts["kmstool"]["version"] == "9.8"
    assert parts["x"]["purl"] == "pkg:deb/debian/x@1%3A2%2B3%7E4?arch=amd64&distro=debian-13"
    assert parts["x"]["hashes"] == [{"alg": "SHA-256", "content": "cafe"}]
    names = [file["name"] for part in parts.values() for file in part["components"]]
    assert sorted(names) == sorted(
        f"/{path.relative_to(root)}" for path in root.rglob("*") if path.is_file()
    )
    assert bill(tmp_path) == made


@pytest.mark.parametrize(
    ("text", "suffix", "lines"),
    [
        ("a\n\n  # b\nc # d\n", ".py", 2),
        ("a;\n/* b\n c */\n// d\ne; // f\n", ".c", 2),
    ],
)
def test_lines_are_counted_without_comments(text: str, suffix: str, lines: int) -> None:
    assert count_text(text, suffix) == lines


@pytest.mark.parametrize(("number", "said"), [(7, "7"), (842, "840"), (61_234, "61,000")])
def test_two_digits_mean_something(number: int, said: str) -> None:
    assert rounded(number) == said
