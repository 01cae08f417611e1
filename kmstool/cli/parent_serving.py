"""What the commands of `kmstool parent` have in common: their options, their log, and their end.

A service works on threads of its own; the main thread waits for a signal. SIGTERM, SIGINT and
(where nothing can be read again) SIGHUP end it, and a second one does not wait for what is under
way. systemd is told, where it asked (`kmstool/parent/notify.py`).
"""

import contextlib
import json
import math
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click

from kmstool import limits
from kmstool.cli import console
from kmstool.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from kmstool.parent.notify import Notifier

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
Report = Callable[[str], None]

_ALIVE_SECONDS: Final = 5.0  # between two looks at the service's threads
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

listen_option: Final = click.option(
    "--listen",
    metavar="ADDRESS",
    required=True,
    help="vsock://:PORT for every enclave of this instance; vsock://CID:PORT, tcp://HOST:PORT or"
    " unix:PATH.",
)
allow_cid_option: Final = click.option(
    "--allow-cid",
    "allowed_cids",
    metavar="N",
    type=click.IntRange(0, 0xFFFF_FFFE),
    multiple=True,
    help="An enclave that may ask (repeatable); a limit, not authentication  [default: all]",
)
metrics_option: Final = click.option(
    "--metrics",
    metavar="ADDRESS",
    help="Serve metrics in Prometheus' text format at unix:PATH or a tcp:// address of loopback.",
)
log_format_option: Final = click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Of the lines on stderr.",
)


def reporter(log_format: str) -> Report:
    """Writes one line of a service's log to stderr; may be called from threads.

    A line may be a subclass of str that has `fields`, a mapping: under `json` they are members of
    the object, beside `time` and `message`.

    Whoever reads stderr may be stuck (a full pipe). A thread that serves, or answers signals, waits
    `limits.FORWARD_LOG_SECONDS` and goes on without its line; the journal's, which does nothing
    else (kmstool/parent/journal.py), waits until there is a reader.
    """
    return _note if log_format == "text" else _report_json


def serve_until_signal(
    start: Callable[[], AbstractContextManager[T]],
    *,
    ready: Iterable[str] = (),
    report: Report | None = None,
    reload: Callable[[T], str | None] | None = None,
    alive: Callable[[T], bool] | None = None,
) -> NoReturn:
    """Starts a service, runs it until a signal, ends it, and leaves with the signal's exit code.

    Args:
        start: makes the service, whose `__exit__` ends it. Called when signals are already held
            back, so that its threads inherit that and every signal arrives here.
        ready: lines that say what it listens on, written once it does.
        reload: called with the service on SIGHUP, which otherwise ends it. What it cannot apply it
            reports itself, and may give as a status for systemd; what it raises ends the service.
        alive: asked every few seconds; False ends the service as a bug, since a process that
            serves nobody had better be started anew.
    """
    from kmstool.parent.notify import Notifier  # noqa: PLC0415 - not for --help

    report = report or _note
    notifier = Notifier()
    # What the caller ignores (nohup) stays ignored; Linux would queue it all the same.
    held = [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        with start() as service:
            for line in ready:
                report(line)
            notifier.ready("serving")
            while True:
                received = _next_signal(held, service, alive, notifier)
                if received != signal.SIGHUP or reload is None:
                    break
                notifier.reloading()
                notifier.ready(reload(service) or "serving")
            words = f"ending on {received.name}"
            report(words)
            notifier.stopping(words)
            # A second signal is not held back: it ends the waiting for what is under way.
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    interrupted = received == signal.SIGINT
    code = ExitCode.INTERRUPTED if interrupted else ExitCode.TERMINATED
    raise click.exceptions.Exit(code)


def _next_signal(
    held: list[signal.Signals],
    service: T,
    alive: Callable[[T], bool] | None,
    notifier: "Notifier",
) -> signal.Signals:
    pause = min(_ALIVE_SECONDS, (notifier.watchdog_seconds or math.inf) / 2)
    while True:
        received = signal.sigtimedwait(held, pause)
        if received is not None:
            return signal.Signals(received.si_signo)
        if alive is not None and not alive(service):
            raise RuntimeError("a part of the service has ended")
        notifier.alive()


_lock = threading.Lock()


def _note(line: str) -> None:
    with _turn() as mine:
        if mine:
            console.note(line)


def _report_json(line: str) -> None:
    fields = {"time": _now(), "message": str(line), **getattr(line, "fields", {})}
    with _turn() as mine:
        if mine:
            console.bare(json.dumps(fields, ensure_ascii=True))


@contextlib.contextmanager
def _turn() -> Iterator[bool]:
    """Waits until stderr takes a line, and says whether it does; one thread at a time.

    A thread that waits holds no lock of Python's own streams: flushing them at the end of the
    process would otherwise wait for the reader as well, without a bound.
    """
    from kmstool.parent.journal import THREAD  # noqa: PLC0415 - not for --help

    patient = threading.current_thread().name == THREAD
    if not _lock.acquire(timeout=-1 if patient else limits.FORWARD_LOG_SECONDS):
        yield False
        return
    try:
        yield _takes_a_line(None if patient else limits.FORWARD_LOG_SECONDS)
    finally:
        _lock.release()


def _takes_a_line(seconds: float | None) -> bool:
    try:
        waiting = select.poll()
        waiting.register(sys.stderr, select.POLLOUT)
        return bool(waiting.poll(None if seconds is None else seconds * 1_000))
    except (TypeError, OSError, ValueError):  # none, closed, or none of the system's
        return True


def _now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")
