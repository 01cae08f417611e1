"""Input is bounded, its encoding is stated, and an open descriptor is never opened again."""

import os
from pathlib import Path

import pytest

from kmstool import limits
from kmstool.cli.input import descriptor_of, parse_base64, read_bytes, read_input
from kmstool.errors import InputError, LocalFileError


@pytest.mark.parametrize("text", [b"AAEC", b"AAEC\n", b"A\nAE C\r\n\t", b"AA\nEC"])
def test_white_space_is_no_error(text: bytes) -> None:
    assert parse_base64(text, what="it") == b"\x00\x01\x02"


@pytest.mark.parametrize(
    "text", [b"AAE", b"AAEC=", b"=AAEC", b"AA==AA==", b"AA_-", b"AAEC\x00", b"AA\x0bEC", b"\xff"]
)
def test_anything_else_is(text: bytes) -> None:
    with pytest.raises(InputError, match="it is not base64"):
        parse_base64(text, what="it")


def test_bounds(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(limits.INPUT_MAX))
    assert len(read_bytes(str(file), what="it")) == limits.INPUT_MAX
    file.write_bytes(bytes(limits.INPUT_MAX + 1))
    with pytest.raises(InputError, match="longer than 1048576 bytes"):
        read_bytes(str(file), what="it")
    with pytest.raises(InputError, match="longer"):
        read_bytes("/dev/zero", what="it")


def test_empty(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for encoding in ("raw", "base64"):
        with pytest.raises(InputError, match="it is empty"):
            read_input(str(tmp_path / "file"), encoding=encoding, what="it")


@pytest.mark.parametrize("path", ["/nonexistent/file", "/", "a\0b", "/dev/fd/999999", ""])
def test_what_cannot_be_read(path: str) -> None:
    with pytest.raises(LocalFileError):
        read_bytes(path, what="it")


def test_a_descriptor_is_read_where_it_stands() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"piped")
    os.close(writing)
    try:
        assert read_bytes(f"/dev/fd/{reading}", what="it") == b"piped"
    finally:
        os.close(reading)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/dev/fd/63", 63),
        ("/proc/self/fd/3", 3),
        ("/dev/stdin", 0),
        ("/dev/stdout", 1),
        ("/dev/stderr", 2),
        ("/dev/fd/", None),
        ("/dev/fd/1x", None),
        ("/dev/null", None),
        ("dev/fd/1", None),
    ],
)
def test_which_paths_are_descriptors(path: str, expected: int | None) -> None:
    assert descriptor_of(path) == expected
