"""Input is bounded, its encoding is stated, and an open descriptor is never opened again."""

import os
from pathlib import Path

import pytest

from kmstool import limits
from kmstool.cli.input import InputStream, descriptor_of, parse_base64, read_bytes, read_input
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


# --- InputStream -------------------------------------------------------------------------------


def test_a_stream_is_read_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abcdef")
    buffer = bytearray(4)
    with InputStream(str(tmp_path / "file"), what="it") as stream:
        assert stream.size == 6
        assert [stream.readinto(memoryview(buffer)) for _ in range(3)] == [4, 2, 0]
    assert buffer == b"efcd"


def test_the_size_of_a_pipe_is_not_known() -> None:
    with InputStream("/dev/null", what="it") as stream:
        assert stream.size is None


@pytest.mark.parametrize("source", ["missing", ".", "a\0b"])
def test_a_stream_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LocalFileError, match="could not be read"):
        InputStream(source, what="it")


def test_a_stream_that_breaks_off(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    with (tmp_path / "file").open("wb") as write_only:
        source = f"/dev/fd/{write_only.fileno()}"
        with (
            InputStream(source, what="it") as stream,
            pytest.raises(LocalFileError, match=f"{source} could not be read: Bad file"),
        ):
            stream.readinto(memoryview(bytearray(4)))
