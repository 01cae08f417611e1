"""Commands run as a shell would: codes, signals, and what the command finds blocked or ignored."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kmstool.emulator.command import held_signals, run_command, wait_for_end
from kmstool.errors import SettingError


def run(*arguments: str) -> int:
    with held_signals() as mask:
        return run_command(arguments, os.environ, mask=mask)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("true",), 0),
        (("sh", "-c", "exit 200"), 200),
        (("sh", "-c", "kill -INT $$"), 130),
        (("sh", "-c", "kill -KILL $$"), 137),
    ],
)
def test_codes(arguments: tuple[str, ...], code: int) -> None:
    assert run(*arguments) == code


@pytest.mark.parametrize(("name", "code"), [("/no/such/command", 127), ("/", 126)])
def test_commands_that_do_not_start(name: str, code: int) -> None:
    said: list[str] = []
    with held_signals() as mask:
        assert run_command([name], {}, mask=mask, report=said.append) == code
    assert said == [f"cannot run {name!r}: {os.strerror(2 if code == 127 else 13)}"]


def test_no_command() -> None:
    with pytest.raises(SettingError):
        run()


def signals_in(status: str) -> dict[str, int]:
    """SigBlk and SigIgn of proc(5), as bits; not 32 and 33, which are glibc's own."""
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return {name: int(fields[name], 16) & 0x7FFFFFFF for name in ("SigBlk", "SigIgn")}


def test_the_command_s_signals_are_as_ours_were(tmp_path: Path) -> None:
    # Ours: some terminals (tmux) start their shells with SIGTTIN and SIGTTOU ignored.
    expected = signals_in(Path("/proc/thread-self/status").read_text())
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them
        expected["SigIgn"] &= ~(1 << (number - 1))
    found = tmp_path / "status"
    assert run("cp", "/proc/self/status", str(found)) == 0
    assert signals_in(found.read_text()) == expected


def soon(action: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(0.2, action)
    timer.start()
    return timer


def to_this_thread(number: signal.Signals) -> threading.Timer:
    """Sends a signal to the main thread alone: others of this process do not hold it back."""
    thread = threading.main_thread().ident
    assert thread is not None
    return soon(lambda: signal.pthread_kill(thread, number))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_signals_are_passed_on(number: signal.Signals) -> None:
    with held_signals() as mask:
        timer = to_this_thread(number)
        assert run_command(["sleep", "20"], os.environ, mask=mask) == 128 + number
        timer.join()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
)
def test_waiting_for_the_end(number: signal.Signals, code: int) -> None:
    with held_signals():
        timer = to_this_thread(number)
        assert wait_for_end() == code
        timer.join()


@pytest.fixture
def no_hangup() -> Iterator[None]:
    """As nohup(1) has it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("no_hangup")
def test_what_the_caller_ignored_does_not_end_the_emulator() -> None:
    with held_signals():
        timers = [to_this_thread(signal.SIGHUP), to_this_thread(signal.SIGTERM)]
        signal.pthread_kill(threading.get_ident(), signal.SIGHUP)
        assert wait_for_end() == 143
        assert signal.SIGHUP in signal.sigpending()
        for timer in timers:
            timer.join()


@pytest.mark.usefixtures("no_hangup")
def test_what_the_caller_ignored_is_not_passed_on() -> None:
    # The shell could not trap it, but bash and Python programs reset what they inherit at times.
    listen = "import signal, time; signal.signal(signal.SIGHUP, signal.SIG_DFL); time.sleep(1)"
    with held_signals() as mask:
        timer = to_this_thread(signal.SIGHUP)
        assert run_command([sys.executable, "-c", listen], os.environ, mask=mask) == 0
        timer.join()


def test_the_mask_is_given_back() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with held_signals():
        assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
