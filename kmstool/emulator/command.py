"""Runs a command beside the emulator as a shell would: signals go to it, its end becomes a code.

The emulator's threads run in this process, so the command is started with posix_spawn (a fork in a
process with threads may deadlock), and this thread then only waits: for the command's end, and for
signals to pass on. Signals are held back from before the emulator's first thread is started, so
that none of them ends this process before its files are removed. What the caller ignored (nohup, a
background job) stays ignored, here and in the command.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from kmstool.errors import SettingError

NOT_EXECUTABLE: Final = 126  # as POSIX shells and env(1) say it
NOT_FOUND: Final = 127
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_FROM_KERNEL = 128  # SI_KERNEL of sigaction(2): the terminal sent it to the command as well


@contextlib.contextmanager
def held_signals() -> Iterator[set[int]]:
    """Holds back the signals that end a process; yields the mask from before.

    To be used in the main thread, around everything that starts threads.
    """
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {*_ENDING, signal.SIGCHLD})
    try:
        yield {int(number) for number in previous}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def wait_for_end() -> int:
    """Waits, with signals held, until one asks to end; returns 130 for SIGINT, 143 for others."""
    return 130 if signal.sigwait(_heeded()) == signal.SIGINT else 143


def run_command(
    arguments: Sequence[str],
    environ: Mapping[str, str],
    *,
    mask: set[int],
    report: Callable[[str], None] = lambda _line: None,
) -> int:
    """Runs the command to its end, with signals held.

    Args:
        mask: the signals that the command shall find blocked, as `held_signals` yields them.
        report: gets a sentence where the command could not be started.

    Returns:
        its exit code; 128 + n where signal n ended it; 126 or 127 where it could not be started.

    Raises:
        SettingError: no command was given.
    """
    if not arguments:
        raise SettingError("no command was given", hint="put it after --")
    try:
        process = os.posix_spawnp(
            arguments[0],
            list(arguments),
            dict(environ),
            setsigmask=mask,
            # Python ignores these two, and a command would inherit that.
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
        )
    except OSError as error:
        report(f"cannot run {arguments[0]!r}: {error.strerror}")
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        return NOT_FOUND if missing else NOT_EXECUTABLE
    return _wait(process)


def _wait(process: int) -> int:
    while True:
        # Asked first: the command may have ended before this loop began to listen.
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        received = signal.sigwaitinfo({*_heeded(), signal.SIGCHLD})
        if received.si_signo != signal.SIGCHLD and received.si_code != _FROM_KERNEL:
            os.kill(process, received.si_signo)


def _heeded() -> list[signal.Signals]:
    """Those that the caller did not ignore. (Linux queues an ignored one that is held back.)"""
    return [number for number in _ENDING if signal.getsignal(number) != signal.SIG_IGN]
