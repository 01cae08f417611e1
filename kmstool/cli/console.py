"""Everything that goes to stderr: errors, hints, warnings, notes, trace. Never a secret.

Style: lower case, no full stop, one line each, `kmstool: error: …`. Text from outside (KMS, a
document, a path) is neutralised first, so that nobody writes escape sequences to the terminal.
"""

import contextlib
import sys

from kmstool.caveats import Caveat


def error(message: str, hint: str | None = None) -> None:
    """Prints what failed, and what to do where that is known."""
    _line("error", message)
    if hint is not None:
        _line("hint", hint)


def warn(caveats: tuple[Caveat, ...]) -> None:
    """Prints one warning for each caveat, each once."""
    for caveat in dict.fromkeys(caveats):
        _line(f"warning[{caveat.code}]", caveat.sentence)


def note(text: str) -> None:
    """Prints something worth knowing that is neither an error nor a caveat."""
    _line("note", text)


def trace(text: str) -> None:
    """Prints one step of the work; for `--verbose`."""
    _line("trace", text)


def bare(line: str) -> None:
    """Prints a line of a log that programs read, as it is; whoever makes it has escaped it."""
    _write(f"{line}\n")


def end_echo() -> None:
    """Ends the line in which a terminal shows the `^C` that somebody typed."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if sys.stderr.isatty():
            sys.stderr.write("\n")


def printable(text: str, *, keep: str = "") -> str:
    r"""`text` with every control, format and surrogate character written as an escape like `\x1b`.

    Args:
        keep: characters that stay as they are although they are not printable.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in keep
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def _line(kind: str, text: str) -> None:
    _write(f"kmstool: {kind}: {printable(text)}\n")


def _write(line: str) -> None:
    # A closed stderr must not hide the exit code, which says the same.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(line)
        sys.stderr.flush()
