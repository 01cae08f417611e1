"""Exceptions become messages and exit codes in one place, and show nothing they should not."""

import signal
import subprocess
import sys
from collections.abc import Callable

import click
import pytest

from kmstool.cli.common import Common
from kmstool.cli.exit_codes import ExitCode
from kmstool.cli.guard import guarded
from kmstool.errors import CredentialsError, SettingError

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
