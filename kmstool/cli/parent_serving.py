"""What the commands of `kmstool parent` have in common: their options, their log, and their end.

A service works on threads of its own; the main thread waits for a signal. SIGTERM, SIGINT and
(where nothing can be read again) SIGHUP end it, and a second one does not wait for what is under
way. systemd is told, where it asked (`kmstool/parent/notify.py`).
"""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, Final, NoReturn, TypeVar

import click

from kmstool.cli import console
from kmstool.cli.exit_codes import ExitCode

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
Report = Callable[[str], None]

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
    """
    return console.note if log_format == "text" else _report_json


def serve_until_signal(
    start: Callable[[], AbstractContextManager[T]],
    *,
    ready: Iterable[str] = (),
    report: Report = console.note,
    reload: Callable[[T], None] | None = None,
) -> NoReturn:
    """Starts a service, runs it until a signal, ends it, and leaves with the signal's exit code.

    Args:
        start: makes the service, whose `__exit__` ends it. Called when signals are already held
            back, so that its threads inherit that and every signal arrives here.
        ready: lines that say what it listens on, written once it does.
        reload: called with the service on SIGHUP, which otherwise ends it. What it cannot apply it
            reports itself; what it raises ends the service.
    """
    # What the caller ignores (nohup) stays ignored; Linux would queue it all the same.
    held = [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        with start() as service:
            for line in ready:
                report(line)
            while (received := signal.sigwait(held)) == signal.SIGHUP and reload is not None:
                reload(service)
            report(f"ending on {signal.Signals(received).name}")
            # A second signal is not held back: it ends the waiting for what is under way.
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    interrupted = received == signal.SIGINT
    code = ExitCode.INTERRUPTED if interrupted else ExitCode.TERMINATED
    raise click.exceptions.Exit(code)


_lock = threading.Lock()


def _report_json(line: str) -> None:
    fields = {"time": _now(), "message": str(line), **getattr(line, "fields", {})}
    with _lock:
        console.bare(json.dumps(fields, ensure_ascii=True))


def _now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")
