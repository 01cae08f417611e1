"""What reaches stderr is one line each, and no escape sequence."""

import io

import pytest

from kmstool.caveats import CUSTOM_ROOTS, KMS_RANDOM
from kmstool.cli import console


def test_text_from_outside_is_neutralised(capsys: pytest.CaptureFixture[str]) -> None:
    console.error("a\x1b[2Jb\nc\u202e\x9b\ud800", "d\re")
    assert capsys.readouterr().err == (
        "kmstool: error: a\\x1b[2Jb\\nc\\u202e\\x9b\\ud800\nkmstool: hint: d\\re\n"
    )


def test_printable_text_stays() -> None:
    assert console.printable("Zürich – 東京") == "Zürich – 東京"
    assert console.printable("a\tb\nc", keep="\t") == "a\tb\\nc"


def test_each_caveat_once(capsys: pytest.CaptureFixture[str]) -> None:
    console.warn((KMS_RANDOM, CUSTOM_ROOTS, KMS_RANDOM))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"kmstool: warning[kms-random]: {KMS_RANDOM.sentence}",
        f"kmstool: warning[custom-roots]: {CUSTOM_ROOTS.sentence}",
    ]


def test_a_closed_stderr_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    console.error("nobody hears this")


def test_the_echo_of_ctrl_c_gets_its_own_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    console.end_echo()
    console.error("interrupted")
    assert terminal.getvalue() == "\nkmstool: error: interrupted\n"
