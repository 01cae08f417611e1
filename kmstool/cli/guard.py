"""The one place where exceptions become messages and exit codes, and signals become exceptions.

Both console scripts run inside `guarded`. Whatever happens inside, it ends with one code of
`exit_codes.py`, at most a few lines on stderr, and no traceback with values in it: a message or a
local variable of an unexpected exception could hold a secret, so only its type and place are shown.
"""

import contextlib
import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, NoReturn

import click

from kmstool.cli import console
from kmstool.cli.common import Common
from kmstool.cli.exit_codes import ExitCode, exit_code_of
from kmstool.errors import CredentialsError, KmsError, KmstoolError, NsmError, TransportError


class Signalled(KeyboardInterrupt):
    """A signal that ends the process arrived. Only `finally` and this file may see it."""


_ENDINGS = {
    signal.SIGINT: ("interrupted", ExitCode.INTERRUPTED),
    signal.SIGTERM: ("terminated", ExitCode.TERMINATED),
    signal.SIGHUP: ("terminated", ExitCode.TERMINATED),
}
_OF_THE_CHAIN = (NsmError, CredentialsError, TransportError, KmsError)
_DOCTOR = "`kmstool doctor` looks at each link of the chain to KMS"
# Seconds in which a signal cannot end what the one before it began: removing temporary files. Not
# for ever, since libraries swallow exceptions in some places, the first one's too.
_CLEAN_UP = 2.0
_AGAIN = 0.01  # seconds for Python to leave the callback in which a signal cannot be raised


def guarded(body: Callable[[], None], *, common: Common) -> int:
    """Runs `body` and turns its end, whatever it is, into an exit code."""
    _fill_standard_descriptors()
    signals = _Signals()
    code: int = ExitCode.DONE
    try:
        body()
        _flush_stdout()
        signals.over = True
    except BaseException as error:  # noqa: BLE001 - the one place that may catch everything
        signals.over = True
        # An extension module that is interrupted may raise something else in the signal's place.
        if signals.arrived is not None:
            message, code = _ENDINGS[signals.arrived]
            console.end_echo()
            console.error(message)
        else:
            code = _report(error, verbose=common.verbose)
    finally:
        signals.restore()
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


def _report(error: BaseException, *, verbose: bool) -> int:
    """Says on stderr what `error` means for the user, and returns its exit code."""
    code: int
    match error:
        case KmstoolError():
            console.error(str(error), error.hint or _way_on(error))
            code = exit_code_of(error)
        case click.exceptions.Exit():
            code = error.exit_code if _flushed() else ExitCode.LOCAL_FILE
        case SystemExit():
            code = error.code if isinstance(error.code, int) else ExitCode.BUG
        case click.ClickException():
            _report_usage(error)
            code = ExitCode.SETTING
        case ModuleNotFoundError():
            console.error(
                f"this needs {error.name}, which is not part of this installation",
                "an enclave image holds the trusted rooms only; elsewhere: kmstool[emulator]",
            )
            code = ExitCode.SETTING
        case KeyboardInterrupt() | click.Abort():
            console.error("interrupted")
            code = ExitCode.INTERRUPTED
        case BrokenPipeError():
            # Whoever read the output has gone: there is nobody to tell, and `| head` is no mistake.
            code = ExitCode.LOCAL_FILE
        case OSError(errno=errno.ENOSPC | errno.EDQUOT | errno.EIO):
            # Click wrote help, a version or a report; for results cli/output.py raises its own.
            console.error(f"output could not be written: {os.strerror(error.errno or 0).lower()}")
            code = ExitCode.LOCAL_FILE
        case _:
            _report_bug(error, verbose=verbose)
            code = ExitCode.BUG
    return code


def _way_on(error: KmstoolError) -> str | None:
    """What to do where an error of the chain to KMS does not say it itself."""
    return _DOCTOR if isinstance(error, _OF_THE_CHAIN) else None


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
    # Click lists what may be chosen with a line for each.
    message = " ".join(message.replace(". Choose from:", ", choose from:").split())
    return (message[:1].lower() + message[1:]).removesuffix(".")


def _report_bug(error: BaseException, *, verbose: bool) -> None:
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


class _Signals:
    """Makes the signals that end a process raise `Signalled`, and remembers the first.

    Attributes:
        arrived: the first signal, or None.
        over: the work has ended, one way or another, and signals come too late.
    """

    def __init__(self) -> None:
        self.arrived: signal.Signals | None = None
        self.over = False
        self._raised_at = -_CLEAN_UP
        self._before: dict[signal.Signals, Any] = {}
        self._again: threading.Timer | None = None
        self._hook = sys.unraisablehook
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _ENDINGS:
            # What the caller ignored (nohup, a background job) stays ignored.
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                self._before[number] = signal.signal(number, self._raise)
        sys.unraisablehook = self._swallowed

    def restore(self) -> None:
        """Gives each signal back what it did before."""
        if self._again is not None:
            self._again.cancel()
            self._again.join()
        sys.unraisablehook = self._hook
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _raise(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.over or now - self._raised_at < _CLEAN_UP:
            return
        self._raised_at = now
        self.arrived = self.arrived or signal.Signals(number)
        raise Signalled

    def _swallowed(self, unraisable: "sys.UnraisableHookArgs") -> None:
        """Sends it again where Python drops what is raised: `__del__`, an import's callbacks."""
        if not issubclass(unraisable.exc_type, Signalled) or self.arrived is None:
            self._hook(unraisable)
            return
        self._raised_at = -_CLEAN_UP
        # From another thread: sent from here it would be raised in this hook, and dropped as well.
        self._again = threading.Timer(_AGAIN, os.kill, (os.getpid(), self.arrived))
        self._again.daemon = True
        self._again.start()


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
