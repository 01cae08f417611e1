"""Exceptions become messages and exit codes in one place, and show nothing they should not."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from kmstool.cli import console, guard
from kmstool.cli.common import Common
from kmstool.cli.exit_codes import ExitCode
from kmstool.cli.guard import _DOCTOR, guarded
from kmstool.errors import CredentialsError, SettingError, TransportError

SECRET = "s3cr3t-in-a-message"


def raising(error: BaseException) -> Callable[[], None]:
    def body() -> None:
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "code", "stderr"),
    [
        (SettingError("x"), ExitCode.SETTING, "kmstool: error: x\n"),
        (
            CredentialsError("x", hint="y"),
            ExitCode.CREDENTIALS,
            "kmstool: error: x\nkmstool: hint: y\n",
        ),
        (
            TransportError("x"),
            ExitCode.TRANSPORT,
            f"kmstool: error: x\nkmstool: hint: {_DOCTOR}\n",
        ),
        (click.UsageError("No such thing."), ExitCode.SETTING, "kmstool: error: no such thing\n"),
        (click.exceptions.Exit(0), 0, ""),
        (click.exceptions.Exit(7), 7, ""),
        (SystemExit(5), 5, ""),
        (click.Abort(), ExitCode.INTERRUPTED, "kmstool: error: interrupted\n"),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, "kmstool: error: interrupted\n"),
        (BrokenPipeError(), ExitCode.LOCAL_FILE, ""),
    ],
)
def test_codes(
    error: BaseException, code: int, stderr: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(raising(error), common=Common()) == code
    assert capsys.readouterr() == ("", stderr)


def test_a_missing_module_is_a_missing_part(capsys: pytest.CaptureFixture[str]) -> None:
    def body() -> None:
        import kmstool.no_such_room  # type: ignore[import-not-found] # noqa: F401, PLC0415

    assert guarded(body, common=Common()) == ExitCode.SETTING
    assert "needs kmstool.no_such_room" in capsys.readouterr().err


@pytest.mark.parametrize("verbose", [False, True])
def test_a_bug_shows_places_and_no_values(
    verbose: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    common = Common()
    common.verbose = verbose

    def body() -> None:
        secret = SECRET
        try:
            raise ValueError(secret)
        except ValueError as error:
            raise ZeroDivisionError(secret) from error

    assert guarded(body, common=common) == ExitCode.BUG
    err = capsys.readouterr().err
    assert SECRET not in err
    assert "a bug of kmstool: ZeroDivisionError at test_guard.py:" in err
    assert ("ValueError passed" in err) is verbose
    assert "hint: please report it" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_decides_even_where_something_else_is_raised(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    def body() -> None:
        try:
            signal.raise_signal(number)
        except BaseException:
            raise ImportError("half an import") from None

    before = signal.getsignal(number)
    code = guarded(body, common=Common())
    assert code == (130 if number == signal.SIGINT else 143)
    assert "bug" not in capsys.readouterr().err
    assert signal.getsignal(number) == before


def at_once(*numbers: signal.Signals) -> None:
    """Has the kernel deliver these signals together."""
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    for number in numbers:
        signal.raise_signal(number)  # to this thread: os.kill could pick one that blocks nothing
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)


def test_two_signals_at_once_are_one_end(capsys: pytest.CaptureFixture[str]) -> None:
    # systemd sends SIGTERM and SIGHUP together. The second raised again, out of the guard itself:
    # a traceback, and exit code 1.
    body = lambda: at_once(signal.SIGTERM, signal.SIGHUP)  # noqa: E731
    assert guarded(body, common=Common()) == ExitCode.TERMINATED
    assert capsys.readouterr().err == "kmstool: error: terminated\n"


def test_a_second_ctrl_c_does_not_end_the_clean_up(tmp_path: Path) -> None:
    # Impatience left the temporary file, and the secret in it, where they were.
    temporary = tmp_path / "secret"

    def body() -> None:
        temporary.touch()
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)
            temporary.unlink()

    assert guarded(body, common=Common()) == ExitCode.INTERRUPTED
    assert not temporary.exists()


def test_a_signal_that_was_swallowed_may_be_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    # By a library that catches everything.
    monkeypatch.setattr(guard, "_CLEAN_UP", 0.0)

    def body() -> None:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the second one ends it")

    assert guarded(body, common=Common()) == ExitCode.INTERRUPTED


def test_a_signal_where_python_drops_exceptions_is_not_lost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Ctrl-C within an import's weakref callback: "Exception ignored", and the secret was printed.
    class Dying:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    ended = []

    def body() -> None:
        Dying()
        time.sleep(20)
        ended.append("undisturbed")

    before = sys.unraisablehook
    assert guarded(body, common=Common()) == ExitCode.INTERRUPTED
    assert ended == []
    assert capsys.readouterr().err == "kmstool: error: interrupted\n"
    assert sys.unraisablehook == before


def test_other_exceptions_that_python_drops_are_shown_as_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Dying:
        def __del__(self) -> None:
            raise ValueError("of its own")

    shown: list[type] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: shown.append(found.exc_type))

    def body() -> None:
        Dying()

    assert guarded(body, common=Common()) == ExitCode.DONE
    assert shown == [ValueError]


def test_a_signal_after_the_end_comes_too_late(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # While the error was printed, it turned the message into a traceback.
    said = console.error

    def interrupted(message: str, hint: str | None = None) -> None:
        signal.raise_signal(signal.SIGTERM)
        said(message, hint)

    monkeypatch.setattr(console, "error", interrupted)
    assert guarded(raising(SettingError("x")), common=Common()) == ExitCode.SETTING
    assert capsys.readouterr().err == "kmstool: error: x\n"


def test_what_the_caller_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert guarded(lambda: signal.raise_signal(signal.SIGHUP), common=Common()) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_standard_descriptors_are_never_given_to_a_file() -> None:
    code = (
        "import os; from kmstool.cli.guard import guarded; from kmstool.cli.common import Common;"
        "numbers = [];"
        "guarded(lambda: numbers.append(os.open('/dev/null', os.O_RDONLY)), common=Common());"
        "os._exit(numbers[0])"
    )
    closed = subprocess.run(
        ["sh", "-c", '"$@" <&- >&- 2>&-', "sh", sys.executable, "-c", code], check=False
    )
    assert closed.returncode > 2
