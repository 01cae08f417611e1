"""What the commands of `kmstool parent` share, in processes of their own: signals are theirs."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.processes import environment

from kmstool.cli.parent_serving import reporter
from kmstool.parent.journal import LogLine

PROGRAM = """
import contextlib, sys
from kmstool.cli import parent_serving
from kmstool.cli.common import Common
from kmstool.cli.guard import guarded, leave

@contextlib.contextmanager
def service():
    print("started", flush=True)
    try:
        yield "it"
    finally:
        print("ended", flush=True)

parent_serving._ALIVE_SECONDS = 0.05
OPTIONS = dict({options})
def body():
    parent_serving.serve_until_signal(service, ready=["listening"], **OPTIONS)
leave(guarded(body, common=Common()))
"""


def run(*signals: int, options: str = "", shell: str = "") -> tuple[int, list[str], str]:
    """Exit code, what the service said, and stderr; each signal is sent when the last was seen."""
    program = [sys.executable, "-c", PROGRAM.replace("{options}", options)]
    process = subprocess.Popen(
        ["sh", "-c", shell, "sh", *program] if shell else program,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    for number in signals:
        time.sleep(0.3)  # it may be anywhere in its loop
        process.send_signal(number)
    out, err = process.communicate(timeout=30)
    return process.returncode, out.splitlines(), err


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 143)]
)
def test_a_signal_ends_it(number: signal.Signals, code: int) -> None:
    assert run(number) == (
        code,
        ["ended"],
        f"kmstool: note: listening\nkmstool: note: ending on {number.name}\n",
    )


@pytest.mark.parametrize("log", ["text", "json"])
def test_without_a_stderr_it_serves_all_the_same(log: str) -> None:
    options = f"report=parent_serving.reporter('{log}')"
    code, out, _ = run(signal.SIGTERM, options=options, shell='exec "$@" 2>&-')
    assert (code, out) == (143, ["ended"])


def test_sighup_reloads_where_there_is_something_to_reload() -> None:
    code, out, _ = run(
        *(signal.SIGHUP, signal.SIGHUP, signal.SIGTERM),
        options="reload=lambda service: print('reload', service, flush=True)",
    )
    assert (code, out) == (143, ["reload it", "reload it", "ended"])


def test_a_part_that_has_ended_ends_the_process() -> None:
    code, out, err = run(options="alive=lambda service: False")
    assert (code, out) == (1, ["ended"])
    assert "a bug of kmstool: RuntimeError" in err


def test_one_that_lives_goes_on() -> None:
    code, out, _ = run(signal.SIGTERM, options="alive=lambda service: service == 'it'")
    assert (code, out) == (143, ["ended"])


def test_what_a_reload_raises_ends_the_service() -> None:
    code, out, _ = run(signal.SIGHUP, options="reload=lambda service: 1 / 0")
    assert (code, out) == (1, ["ended"])


def test_a_line_for_programs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    report = reporter("json")
    report("one\nline \x1b[31m")
    report(LogLine("two", {"bytes": 3, "peer": "vsock CID 16"}))
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert first["message"] == "one\nline \x1b[31m"
    assert set(first) == {"time", "message"}
    assert second["message"] == "two"
    assert (second["bytes"], second["peer"]) == (3, "vsock CID 16")


def test_a_line_for_the_eye_is_neutralised(capsys: pytest.CaptureFixture[str]) -> None:
    reporter("text")("one\x1b[31m")
    assert capsys.readouterr().err == "kmstool: note: one\\x1b[31m\n"
