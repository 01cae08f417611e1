"""The way in: completion, the last line of a process, and what comes before anything else."""

import os
import signal
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

from kmstool.cli import compat, main


class Left(Exception):  # noqa: N818 - in the place of the process' end
    """`os._exit` was called."""


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    codes: list[int] = []

    def leave(code: int) -> NoReturn:
        codes.append(code)
        raise Left

    monkeypatch.setattr(os, "_exit", leave)
    before = signal.getsignal(signal.SIGINT)
    yield codes
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("way_in", "arguments", "code"),
    [
        (main.run, ["--version"], 0),
        (main.run, ["--frob"], 2),
        (compat.run, ["--help"], 1),
    ],
)
def test_run(
    way_in: Any, arguments: list[str], code: int, left: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["program", *arguments])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(Left):
        way_in()
    assert left == [code]
    assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL, "outside the guard there is no other"


def test_ctrl_c_before_the_guard_is_the_signal_itself(left: list[int]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main.die_quietly_on_ctrl_c()
    assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main.die_quietly_on_ctrl_c()
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_completion(monkeypatch: pytest.MonkeyPatch, capsys: Any, left: list[int]) -> None:
    monkeypatch.setenv(main.COMPLETION_VARIABLE, "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "kmstool dec")
    monkeypatch.setenv("COMP_CWORD", "1")
    with pytest.raises(SystemExit) as ended:
        main.run()
    assert ended.value.code == 0
    assert capsys.readouterr().out == "plain,decrypt\n"
