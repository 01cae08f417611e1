"""Reading what a command works on, from a file or stdin: bounded, and with its encoding stated."""

import binascii
import os
import re
import stat
from typing import Self

import click

from kmstool import limits
from kmstool.cli import console
from kmstool.errors import InputError, LocalFileError, SettingError

_STDIN = "kmstool.stdin"  # what a command read from it, in Click's `meta`
_WORTH_A_THREAD = 1024 * 1024  # bytes of a regular file
_WHITESPACE = b" \t\r\n"
_DESCRIPTOR_PATH = re.compile(r"/(?:dev|proc/self)/fd/(\d{1,9})")
_NAMED_DESCRIPTORS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}


def read_input(source: str, *, encoding: str, what: str) -> bytes:
    """The bytes of a file, or of stdin where `source` is `-`; at least one byte.

    Args:
        encoding: `base64` (white space allowed, for wrapped lines) or `raw`.
        what: the name of the data in messages, such as `the ciphertext`.

    Raises:
        InputError: empty, too long, not base64. LocalFileError: it cannot be read.
    """
    return decode_input(read_bytes(source, what=what), encoding=encoding, what=what)


def decode_input(data: bytes, *, encoding: str, what: str) -> bytes:
    """What `read_input` makes of the bytes that it read."""
    check_size(data, what=what)
    if encoding == "base64":
        data = parse_base64(data, what=what)
    if not data:
        raise InputError(f"{what} is empty", hint="give a file, or pipe the data to stdin")
    return data


_RAW_HINT = "if these are the bytes themselves, add --input raw"


def parse_base64(data: bytes, *, what: str, hint: str | None = _RAW_HINT) -> bytes:
    """Strict, canonical base64 (RFC 4648, sections 4 and 3.5), white space aside.

    Raises:
        InputError: it is not.
    """
    text = data.translate(None, _WHITESPACE)
    try:
        decoded = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        decoded = None
    # Even in strict mode Python takes padding where none belongs ("AAEC=").
    if decoded is None or binascii.b2a_base64(decoded, newline=False) != text:
        raise InputError(f"{what} is not base64", hint=hint)
    return decoded


def read_bytes(source: str, *, what: str) -> bytes:
    """At most `INPUT_MAX` bytes of a file, or of stdin where `source` is `-`.

    Raises:
        InputError: there is more. LocalFileError: it cannot be read.
    """
    data = read_start(source, what=what)
    check_size(data, what=what)
    return data


def check_size(data: bytes, *, what: str) -> None:
    """Raises `InputError` where `read_start` did not reach the end within `INPUT_MAX` bytes."""
    if len(data) > limits.INPUT_MAX:
        raise InputError(
            f"{what} is longer than {limits.INPUT_MAX} bytes", hint="check that this is the file"
        )


def read_start(source: str, *, what: str) -> bytes:
    """Up to `INPUT_MAX` bytes and one more, which says that there are more.

    Raises:
        LocalFileError: it cannot be read.
    """
    _claim_stdin(source, what)
    try:
        descriptor = 0 if source == "-" else _open(source)
        try:
            if source == "-" and os.isatty(descriptor):
                console.note(f"reading {what} from the terminal: end it with Ctrl-D")
            data = _read(descriptor)
        finally:
            if source != "-":
                os.close(descriptor)
    except OSError as error:
        name = _name(source)
        raise LocalFileError(
            f"{name} could not be read: {error.strerror}", hint=f"{what} is read from it"
        ) from None
    except ValueError as error:  # a NUL in the path
        raise LocalFileError(f"{source} could not be read: {error}") from None
    return data


class InputStream:
    """A file or stdin that is read piece by piece, whatever its length.

    Args:
        source: of the file; `-` is stdin.
        what: the name of the data in messages.

    Attributes:
        size: bytes of a regular file, or None.
        is_worth_a_thread: reading it ahead saves time, and keeps no thread waiting.

    Raises:
        LocalFileError: it cannot be read.
    """

    def __init__(self, source: str, *, what: str) -> None:
        self._name = _name(source)
        self._what = what
        self._owned = source != "-"
        _claim_stdin(source, what)
        try:
            self._descriptor = _open(source) if self._owned else 0
            status = os.fstat(self._descriptor)
        except OSError as error:
            raise self._failed(error.strerror) from None
        except ValueError as error:  # a NUL in the path
            raise self._failed(str(error)) from None
        self.size = status.st_size if stat.S_ISREG(status.st_mode) else None
        self.is_worth_a_thread = (self.size or 0) > _WORTH_A_THREAD
        if not self._owned and os.isatty(0):
            console.note(f"reading {what} from the terminal: end it with Ctrl-D")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._owned:
            os.close(self._descriptor)

    def readinto(self, buffer: memoryview, /) -> int:
        """Fills up to all of `buffer`; 0 at the end. Raises `LocalFileError`."""
        try:
            return os.readv(self._descriptor, [buffer])
        except OSError as error:
            raise self._failed(error.strerror) from None

    def _failed(self, reason: str | None) -> LocalFileError:
        return LocalFileError(
            f"{self._name} could not be read: {reason}", hint=f"{self._what} is read from it"
        )


def descriptor_of(path: str) -> int | None:
    """The number N where `path` names an open descriptor (`/dev/fd/N`, `/dev/stdout`), or None.

    Such a path is never opened: that would truncate or rewind a file that the shell has open, and
    in a process without core dumps /proc/self/fd is closed to everyone but root.
    """
    match = _DESCRIPTOR_PATH.fullmatch(path)
    return int(match[1]) if match else _NAMED_DESCRIPTORS.get(path)


def _name(source: str) -> str:
    """As a message has it; an empty one, of a variable that is not set, has to be seen too."""
    return "stdin" if source == "-" else source or '""'


def _claim_stdin(source: str, what: str) -> None:
    """Refuses to read stdin for two things: the second would be empty, and may well be allowed to.

    Raises:
        SettingError: something else of this command was read from it.
    """
    context = click.get_current_context(silent=True)
    if context is None or (source != "-" and descriptor_of(source) != 0):
        return
    if _STDIN in context.meta:
        raise SettingError(
            f"{what} cannot be read from stdin, which had {context.meta[_STDIN]}",
            hint="name a file for one of the two",
        )
    context.meta[_STDIN] = what


def _open(path: str) -> int:
    inherited = descriptor_of(path)
    if inherited is not None:
        return os.dup(inherited)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IsADirectoryError(21, "it is a directory")
    return descriptor


def _read(descriptor: int) -> bytes:
    pieces = []
    wanted = limits.INPUT_MAX + 1
    while wanted > 0:
        piece = os.read(descriptor, min(wanted, 65_536))
        if not piece:
            break
        pieces.append(piece)
        wanted -= len(piece)
    return b"".join(pieces)
