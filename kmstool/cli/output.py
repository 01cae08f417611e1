"""Writing results: all of it or an error, to stdout or to a file that appears whole or not at all.

Rules:
1. A file is written under a temporary name in its own directory, mode 0600, flushed to the disk and
   renamed. It has the old content or the new, never a part; an error or a signal leaves no
   temporary file.
2. Several results are written all before the first is renamed, so that neither a secret nor the
   blob that belongs to it appears without the other, as far as a file system allows.
3. What is not a regular file (a FIFO, a device, `/dev/stdout`) is written to directly, never
   renamed over. A symbolic link is followed, and the file it leads to is replaced where it is.
4. stdout is written by its descriptor, without a buffer: if the call returns, the kernel has it.
5. Bytes that are not text are not written to a terminal, unless `-o -` says so.
6. `Stream` does the same for a result that comes in pieces: a file appears with `commit`, and what
   goes to stdout goes out at once.
"""

import binascii
import codecs
import contextlib
import errno
import json
import os
import stat
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

from kmstool.cli.input import descriptor_of
from kmstool.errors import LocalFileError

FORMATS = ("raw", "base64", "hex", "json")
_HINTS = {
    errno.ENOSPC: "free some space, or write to another place",
    errno.EDQUOT: "free some space, or write to another place",
    errno.EACCES: "choose a directory that this user may write to",
    errno.EPERM: "choose a directory that this user may write to",
    errno.EROFS: "choose a directory that is not mounted read-only",
    errno.ENOENT: "make the directory first",
    errno.ENOTDIR: "name a file in a directory",
    errno.EISDIR: "name a file, not a directory",
    errno.EPIPE: "what reads the output ended before it had everything",
    errno.EBADF: "stdout is closed: redirect it, or give -o FILE",
}
_BINARY = "the result is binary, and stdout is a terminal"
_BINARY_HINT = "write it to a file with -o FILE, or force it with -o -"


class Output(NamedTuple):
    """One result on its way out.

    Attributes:
        data: the bytes to write, already encoded.
        target: a path, `-` for stdout even if that is a terminal, or None for stdout.
    """

    # A tuple: making a dataclass costs every cold start 0.4 ms, eight times as much.
    data: bytes
    target: str | None

    def __repr__(self) -> str:
        """Never the data."""
        return f"Output(…, {self.target!r})"


def deliver(outputs: Sequence[Output]) -> None:
    """Writes every output, or raises and leaves no file behind.

    Raises:
        LocalFileError: something could not be written, or binary was meant for a terminal.
    """
    for output in outputs:
        if output.target is None and os.isatty(1) and not _is_text(output.data):
            raise LocalFileError(_BINARY, hint=f"{_BINARY_HINT}, or add --format base64")
    with _Staging() as staging:
        direct = [output for output in outputs if not staging.add(output)]
        for output in direct:
            _write_direct(output)
        staging.commit()


def refuse_terminal(target: str | None) -> None:
    """Refuses a terminal as stdout whatever will be written to it.

    For bytes of which nobody may learn whether they are text.

    Raises:
        LocalFileError: stdout is a terminal, and `-o -` does not say that it is meant.
    """
    if target is None and os.isatty(1):
        raise LocalFileError(
            "the result may be binary, and stdout is a terminal",
            hint=f"{_BINARY_HINT}, or add --format base64",
        )


class Stream:
    """One result on its way out in pieces, from `start` to `commit`.

    Args:
        target: as in `Output`.
    """

    def __init__(self, target: str | None) -> None:
        self._target = target
        self._name = "stdout" if target is None or target == "-" else target
        self._staging = _Staging()
        self._descriptor = -1
        self._staged = False
        self._terminal = target is None and os.isatty(1)
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._close()
        self._staging.__exit__()

    def start(self) -> Self:
        """Opens the target: from here on it can be written to.

        Raises:
            LocalFileError: it cannot be.
        """
        staged = self._staging.reserve(self._target)
        self._staged = staged is not None
        try:
            self._descriptor = _open_direct(self._target) if staged is None else staged
        except OSError as error:
            raise _failed(self._name, error) from None
        return self

    def write(self, data: memoryview, /) -> int:
        """Takes up to all of `data`.

        Raises:
            LocalFileError: it could not be written, or it is binary and meant for a terminal.
        """
        if self._terminal:
            self._check_text(data)
        try:
            return os.write(self._descriptor, data)
        except OSError as error:
            raise _failed(self._name, error) from None

    def commit(self) -> None:
        """Gives a file its name. Raises `LocalFileError` where that fails."""
        try:
            if self._staged:
                os.fsync(self._descriptor)
            self._close()
        except OSError as error:
            raise _failed(self._name, error) from None
        self._staging.commit()

    def _check_text(self, data: memoryview) -> None:
        try:
            text = self._decoder.decode(data)
        except UnicodeDecodeError:
            text = "\0"
        if not _is_printable(text):
            raise LocalFileError(_BINARY, hint=_BINARY_HINT)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor not in (-1, _standing(self._target)):
            os.close(descriptor)


def check_target(target: str | None) -> None:
    """Fails early where a file could not be written: before a request whose result it would hold.

    Raises:
        LocalFileError: the directory is missing or closed to this user, or the target is one.
    """
    if target is None or target == "-" or descriptor_of(target) is not None:
        return
    if not target or "\0" in target:
        raise LocalFileError("this is no name for a file", hint="name the output with -o FILE")
    if os.path.isdir(target):  # noqa: PTH112 - pathlib costs an import
        raise _failed(target, OSError(errno.EISDIR, "it is a directory"))
    directory = os.path.dirname(os.path.realpath(target))  # noqa: PTH120
    if os.path.exists(directory) and not os.path.isdir(directory):  # noqa: PTH110, PTH112
        raise _failed(target, OSError(errno.ENOTDIR, f"{directory} is not a directory"))
    if not os.path.isdir(directory):  # noqa: PTH112
        raise _failed(target, OSError(errno.ENOENT, "there is no such directory"))
    if not os.path.exists(target) and not os.access(directory, os.W_OK | os.X_OK):  # noqa: PTH110
        raise _failed(target, OSError(errno.EACCES, os.strerror(errno.EACCES)))


def place_of(target: str | None) -> str:
    """What two names of one target have in common; `-` for stdout."""
    descriptor = 1 if target is None or target == "-" else descriptor_of(target)
    if descriptor is None:
        return os.path.realpath(str(target))
    return "-" if descriptor == 1 else str(target)


def encode(data: bytes, form: str) -> bytes:
    """`data` as `raw` bytes, or as one line of `base64` or `hex`."""
    if form == "base64":
        return binascii.b2a_base64(data)
    if form == "hex":
        return data.hex().encode("ascii") + b"\n"
    return data


def encode_json(fields: dict[str, Any]) -> bytes:
    """One JSON object on one line; bytes become base64, as in the KMS API."""
    plain = {
        name: binascii.b2a_base64(value, newline=False).decode("ascii")
        if isinstance(value, bytes)
        else value
        for name, value in fields.items()
    }
    return json.dumps(plain).encode("ascii") + b"\n"


class _Staging:
    """Temporary files beside their targets: renamed by `commit`, removed by any other end."""

    def __init__(self) -> None:
        self._files: list[tuple[int, str, str, str]] = []  # directory, temporary, name, target

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for directory, temporary, _, _ in self._files:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=directory)
            os.close(directory)

    def add(self, output: Output) -> bool:
        """Writes a temporary file; False where the target has to be written to directly."""
        descriptor = self.reserve(output.target)
        if descriptor is None:
            return False
        try:
            try:
                _write_all(descriptor, output.data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _failed(str(output.target), error) from None
        return True

    def reserve(self, target: str | None) -> int | None:
        """A descriptor of a new temporary file; None where the target is written to directly."""
        if target is None or target == "-" or descriptor_of(target) is not None:
            return None
        check_target(target)
        try:
            if not _is_replaceable(target):
                return None
            real = os.path.realpath(target)
            directory = os.open(
                os.path.dirname(real),  # noqa: PTH120
                os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC,
            )
            # Listed before it exists, so that a signal between the two lines leaves nothing.
            temporary = f".kmstool-{os.urandom(8).hex()}"
            self._files.append((directory, temporary, os.path.basename(real), target))  # noqa: PTH119
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            return os.open(temporary, flags, 0o600, dir_fd=directory)
        except OSError as error:
            raise _failed(target, error) from None

    def commit(self) -> None:
        """Gives every temporary file its name."""
        for directory, temporary, name, target in self._files:
            try:
                os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
                os.fsync(directory)
            except OSError as error:
                raise _failed(target, error) from None


def _is_replaceable(target: str) -> bool:
    try:
        mode = os.stat(target).st_mode  # noqa: PTH116
    except FileNotFoundError:
        return True
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a directory")
    return stat.S_ISREG(mode)


def _write_direct(output: Output) -> None:
    target = output.target
    try:
        descriptor = _open_direct(target)
        try:
            _write_all(descriptor, output.data)
        finally:
            if descriptor != _standing(target):
                os.close(descriptor)
    except OSError as error:
        name = "stdout" if _standing(target) == 1 else str(target)
        raise _failed(name, error) from None


def _open_direct(target: str | None) -> int:
    """A descriptor of what is not replaced; one that was there before must not be closed."""
    standing = _standing(target)
    if standing is not None:
        return standing
    return os.open(str(target), os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY)


def _standing(target: str | None) -> int | None:
    return 1 if target is None or target == "-" else descriptor_of(target)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _failed(target: str, error: OSError) -> LocalFileError:
    reason = error.strerror or type(error).__name__
    return LocalFileError(
        f"{target} could not be written: {reason[:1].lower()}{reason[1:]}",
        hint=_HINTS.get(error.errno or 0),
    )


def _is_text(data: bytes) -> bool:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return _is_printable(text)


def _is_printable(text: str) -> bool:
    return all(character.isprintable() or character in "\n\t" for character in text)
