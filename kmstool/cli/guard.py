"""The one place where exceptions become messages and exit codes, and signals become exceptions.

Both console scripts run inside `guarded`. Whatever happens inside, it ends with one code of
`exit_codes.py`, at most a few lines on stderr, and no traceback with values in it: a message or a
local variable of an unexpected exception could hold a secret, so only its type and place are shown.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import NoReturn

import click

from kmstool.cli import console
from kmstool.cli.common import Common
from kmstool.cli.exit_codes import ExitCode, exit_code_of
from kmstool.errors import KmstoolError


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived. Not an `Exception`: only `finally` and this file may see it."""


def guarded(body: Callable[[], None], *, common: Common) -> int:
    """Runs `body` and turns its end, whatever it is, into an exit code."""
    _fill_standard_descriptors()
    before = _install_signal_handlers()
    code: int = ExitCode.DONE
    try:
        body()
        _flush_stdout()
    except KmstoolError as error:
        console.error(str(error), error.hint)
        code = exit_code_of(error)
    except click.exceptions.Exit as end:
        code = end.exit_code if _flushed() else ExitCode.LOCAL_FILE
    except click.ClickException as error:
        _report_usage(error)
        code = ExitCode.SETTING
    except (KeyboardInterrupt, click.Abort):
        console.error("interrupted")
        code = ExitCode.INTERRUPTED
    except Terminated:
        console.error("terminated")
        code = ExitCode.TERMINATED
    except BrokenPipeError:
        # Whoever read the output has gone: there is nobody to tell, and `| head` is no mistake.
        code = ExitCode.LOCAL_FILE
    except Exception as error:  # noqa: BLE001 - the one place that may catch everything
        _report_bug(error, verbose=common.verbose)
        code = ExitCode.BUG
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code


def leave(code: int) -> NoReturn:
    """Ends the process with `code`, without Python's own shutdown.

    A thread may still be making a recipient key when an error or Ctrl-C ends the work: shutdown
    would kill it inside cryptography's Rust code, which aborts the process (exit 134). A signal
    that comes during shutdown would change the exit code of work that is done. And it takes
    milliseconds. By now results are with the kernel and temporary files are gone.
    """
    _flushed()
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()
    os._exit(code)


def _report_usage(error: click.ClickException) -> None:
    context = getattr(error, "ctx", None)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            click.echo(error.format_message(), err=True)
        return
    message = error.format_message()
    hint = f"see {context.command_path} --help" if context is not None else None
    possibilities = getattr(error, "possibilities", None)
    if possibilities:
        hint = "did you mean " + " or ".join(possibilities) + "?"
        message = error.message
    console.error(_in_house_style(message), hint)


def _in_house_style(message: str) -> str:
    return (message[:1].lower() + message[1:]).removesuffix(".")


def _report_bug(error: Exception, *, verbose: bool) -> None:
    place = ""
    if verbose:
        chain: BaseException | None = error
        while chain is not None:
            for where in _places(chain.__traceback__):
                console.note(f"{type(chain).__name__} passed {where}")
            chain = chain.__cause__ or chain.__context__
    places = _places(error.__traceback__)
    if places:
        place = f" at {places[-1]}"
    console.error(
        f"a bug of kmstool: {type(error).__name__}{place}",
        "please report it with the output of the same command with --verbose, which shows places"
        " in the code and no values",
    )


def _places(traceback: TracebackType | None) -> list[str]:
    """File and line of each frame, the innermost last. No source lines, no values."""
    places = []
    while traceback is not None:
        path = traceback.tb_frame.f_code.co_filename
        root, found, inside = path.rpartition("/kmstool/")
        shown = f"kmstool/{inside}" if found and root else path.rpartition("/")[2]
        places.append(f"{shown}:{traceback.tb_lineno}")
        traceback = traceback.tb_next
    return places


def _install_signal_handlers() -> dict[signal.Signals, signal.Handlers]:
    """Makes the signals that end a process raise; returns what they did before."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number, handler in _SIGNALS.items():
            # What the caller ignored (nohup, a background job) stays ignored.
            if signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.SIG_DFL
                signal.signal(number, handler)
    return before


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated


_SIGNALS = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: _terminate,
    signal.SIGHUP: _terminate,
}


def _fill_standard_descriptors() -> None:
    """Makes sure that descriptors 0, 1 and 2 are taken.

    Were one closed, the next socket or file would get its number, and a secret meant for stdout
    would be written into it. What fills the gap cannot be used in the direction that is meant, so
    using it is still an error.
    """
    for descriptor, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open("/dev/null", mode)  # takes the lowest free number, which is this one


def _flush_stdout() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _flushed() -> bool:
    """Flushes stdout; where that fails, makes sure that Python's shutdown does not try again."""
    try:
        _flush_stdout()
    except (OSError, ValueError):
        sys.stdout = None  # as Python has it where there is no stdout
        return False
    return True
