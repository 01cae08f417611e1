"""A file appears whole or not at all; what is no file is written to; a terminal gets text only."""

import errno
import os
import pty
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from kmstool.cli.output import Output, Stream, check_target, deliver, encode, encode_json
from kmstool.errors import LocalFileError


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_new_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    deliver([Output(b"secret", str(tmp_path / "out"))])
    assert (tmp_path / "out").read_bytes() == b"secret"
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o600


def test_an_old_file_is_replaced_and_its_readers_keep_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")
    target.chmod(0o666)
    with target.open("rb") as reader:
        deliver([Output(b"new", str(target))])
        assert reader.read() == b"old"
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert names(tmp_path) == ["out"]


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real/file")
    deliver([Output(b"x", str(tmp_path / "link"))])
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "file").read_bytes() == b"x"


def test_the_longest_name_works(tmp_path: Path) -> None:
    deliver([Output(b"x", str(tmp_path / ("n" * 255)))])
    assert names(tmp_path) == ["n" * 255]


def test_a_device_is_written_to() -> None:
    deliver([Output(b"x", "/dev/null")])
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)  # noqa: PTH116
    with pytest.raises(LocalFileError, match="/dev/full could not be written: no space left"):
        deliver([Output(b"x", "/dev/full")])


@pytest.mark.parametrize("form", ["/dev/fd/{}", "/proc/self/fd/{}"])
def test_a_descriptor_is_written_to_where_it_stands(tmp_path: Path, form: str) -> None:
    with (tmp_path / "out").open("wb", buffering=0) as file:
        file.write(b"before ")
        deliver([Output(b"x", form.format(file.fileno()))])
        file.write(b" after")
    assert (tmp_path / "out").read_bytes() == b"before x after"


def failing(real: Callable[..., object], at: int, number: int) -> Callable[..., object]:
    """`real`, which fails at its `at`-th call."""
    calls = 0

    def call(*arguments: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == at:
            raise OSError(number, os.strerror(number))
        return real(*arguments, **named)

    return call


@pytest.mark.parametrize(
    ("name", "at"), [("open", 2), ("write", 1), ("fsync", 1), ("open", 4), ("write", 2)]
)
def test_any_failure_leaves_the_old_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, at: int
) -> None:
    (tmp_path / "one").write_bytes(b"old")
    monkeypatch.setattr(f"os.{name}", failing(getattr(os, name), at, errno.ENOSPC))
    with pytest.raises(LocalFileError, match="could not be written: no space left on device"):
        deliver([Output(b"1", str(tmp_path / "one")), Output(b"2", str(tmp_path / "two"))])
    monkeypatch.undo()
    assert names(tmp_path) == ["one"]
    assert (tmp_path / "one").read_bytes() == b"old"


def test_a_failing_stdout_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr("os.write", failing(os.write, 2, errno.EPIPE))
    with pytest.raises(LocalFileError, match="stdout could not be written: broken pipe"):
        deliver([Output(b"blob", str(tmp_path / "blob")), Output(b"secret", None)])
    assert names(tmp_path) == []


def test_an_interrupt_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        deliver([Output(b"x", str(tmp_path / "out"))])
    assert names(tmp_path) == []


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr("os.write", lambda descriptor, data: real(descriptor, data[:3]))
    deliver([Output(b"0123456789", str(tmp_path / "out"))])
    assert (tmp_path / "out").read_bytes() == b"0123456789"


def test_descriptors_are_closed(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    deliver([Output(b"1", str(tmp_path / "one")), Output(b"2", str(tmp_path / "two"))])
    assert len(os.listdir("/proc/self/fd")) == len(before)  # noqa: PTH208


@pytest.mark.parametrize(
    ("data", "target", "printed"),
    [
        (b"text, \xc3\xa4, a tab\t\n", None, True),
        (b"\x00", None, False),
        (b"\x1b[2J", None, False),
        (b"\xff", None, False),
        (b"\x00\xff", "-", True),
    ],
)
def test_a_terminal_gets_text_only(data: bytes, target: str | None, printed: bool) -> None:
    terminal, other = pty.openpty()
    saved = os.dup(1)
    try:
        os.dup2(other, 1)
        if printed:
            deliver([Output(data, target)])
        else:
            with pytest.raises(LocalFileError, match="stdout is a terminal") as caught:
                deliver([Output(data, target)])
            assert "-o FILE" in str(caught.value.hint)
    finally:
        os.dup2(saved, 1)
        for descriptor in (saved, terminal, other):
            os.close(descriptor)


@pytest.mark.parametrize("target", ["missing/out", "", ".", "a\0b"])
def test_targets_that_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LocalFileError):
        deliver([Output(b"x", target)])
    with pytest.raises(LocalFileError):
        check_target(target)


@pytest.mark.parametrize("target", [None, "-", "/dev/stdout", "/dev/null", "new"])
def test_targets_that_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    check_target(target)


def test_encodings() -> None:
    data = bytes(range(90))
    assert encode(data, "raw") == data
    assert encode(data, "hex") == data.hex().encode() + b"\n"
    assert encode(data, "base64").count(b"\n") == 1
    assert encode_json({"a": b"\x00", "b": "ä", "c": None}) == (
        b'{"a": "AA==", "b": "\\u00e4", "c": null}\n'
    )


def test_no_repr_shows_the_data() -> None:
    assert "secret" not in repr(Output(b"secret", "out"))


# --- Stream ------------------------------------------------------------------------------------


def test_a_stream_appears_with_commit(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")
    with Stream(str(target)) as stream:
        stream.start()
        assert stream.write(memoryview(b"one ")) == 4
        stream.write(memoryview(b"two"))
        assert target.read_bytes() == b"old"
        assert len(names(tmp_path)) == 2
        stream.commit()
        assert target.read_bytes() == b"one two"
    assert names(tmp_path) == ["out"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_stream_without_commit_leaves_nothing(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    with Stream(str(tmp_path / "out")) as stream:
        stream.start().write(memoryview(b"x"))
    with Stream(str(tmp_path / "out")):
        pass
    assert names(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) == len(before)  # noqa: PTH208


def test_a_stream_to_a_descriptor_leaves_it_open(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb", buffering=0) as file:
        file.write(b"before ")
        with Stream(f"/dev/fd/{file.fileno()}") as stream:
            stream.start().write(memoryview(b"x"))
            stream.commit()
        file.write(b" after")
    assert (tmp_path / "out").read_bytes() == b"before x after"


def test_a_stream_to_a_device(tmp_path: Path) -> None:
    with Stream("/dev/full") as stream:
        stream.start()
        with pytest.raises(LocalFileError, match="/dev/full could not be written: no space left"):
            stream.write(memoryview(b"x"))
    with Stream(str(tmp_path / "missing" / "out")) as stream, pytest.raises(LocalFileError):
        stream.start()


@pytest.mark.parametrize(
    ("pieces", "target", "printed"),
    [
        ([b"text ", b"\xc3", b"\xa4\n"], None, True),
        ([b"text", b"\x1b[2J"], None, False),
        ([b"\xff"], None, False),
        ([b"\x00"], "-", True),
    ],
)
def test_a_terminal_gets_a_stream_of_text_only(
    pieces: list[bytes], target: str | None, printed: bool
) -> None:
    terminal, other = pty.openpty()
    saved = os.dup(1)
    try:
        os.dup2(other, 1)
        with Stream(target) as stream:
            stream.start()
            for piece in pieces[:-1]:
                stream.write(memoryview(piece))
            if printed:
                stream.write(memoryview(pieces[-1]))
            else:
                with pytest.raises(LocalFileError, match="stdout is a terminal"):
                    stream.write(memoryview(pieces[-1]))
    finally:
        os.dup2(saved, 1)
        for descriptor in (saved, terminal, other):
            os.close(descriptor)
