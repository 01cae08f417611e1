"""A ramdisk has the same bytes whenever it has the same content, and says what it is given."""

import io
import os
from pathlib import Path

import pytest
from vm.archive import Entry, file, folder, tree, write_archive


def make(root: Path, names: list[str], *, time: int) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        path.write_bytes(name.encode() * 3)
        path.chmod(0o640)
    (root / "link").symlink_to("b/c")
    for path in [root, *root.rglob("*")]:
        os.utime(path, (time, time), follow_symlinks=False)
    return root


def archive(entries: dict[str, Entry]) -> bytes:
    output = io.BytesIO()
    write_archive(output, entries)
    return output.getvalue()


def read(data: bytes) -> list[tuple[str, int, bytes]]:
    """Name, mode and content of each, by the text of newc (cpio(5)) and not by the writer."""
    found: list[tuple[str, int, bytes]] = []
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        numbers = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        assert numbers[2:4] == [0, 0]
        assert numbers[5] == 0
        name = data[at + 110 : at + 110 + numbers[11] - 1].decode()
        start = (at + 110 + numbers[11] + 3) // 4 * 4
        content = data[start : start + numbers[6]]
        at = (start + numbers[6] + 3) // 4 * 4
        if name == "TRAILER!!!":
            assert at == len(data)
            return found
        found.append((name, numbers[1], content))


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    names = ["b/c", "a", "b/dd"]
    one = make(tmp_path / "one", names, time=1)
    two = make(tmp_path / "two", names[::-1], time=2_000_000_000)
    first = archive({**tree(one, "rootfs/"), "init": file(b"x", 0o755)})
    second = archive({"init": file(b"x", 0o755), **tree(two, "rootfs/")})
    assert first == second
    assert read(first) == [
        ("init", 0o100755, b"x"),
        ("rootfs", 0o40755, b""),
        ("rootfs/a", 0o100640, b"aaa"),
        ("rootfs/b", 0o40755, b""),
        ("rootfs/b/c", 0o100640, b"b/c" * 3),
        ("rootfs/b/dd", 0o100640, b"b/dd" * 3),
        ("rootfs/link", 0o120777, b"b/c"),
    ]


def test_a_parent_is_made_and_a_device_is_refused(tmp_path: Path) -> None:
    assert [name for name, _, _ in read(archive({"x/y/z": folder(0o700)}))] == ["x", "x/y", "x/y/z"]
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is neither file nor link nor folder"):
        tree(tmp_path, "")
