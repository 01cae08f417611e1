"""The table of exit codes is complete and is what the reference says."""

import inspect
import re
from pathlib import Path

import pytest

from kmstool import errors
from kmstool.cli.exit_codes import BY_ERROR, ExitCode, exit_code_of

ROOT = Path(__file__).resolve().parents[3]
ALL = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.KmstoolError) and kind is not errors.KmstoolError
]


@pytest.mark.parametrize("kind", ALL)
def test_every_error_has_a_code(kind: type[errors.KmstoolError]) -> None:
    error = kind.__new__(kind)
    assert exit_code_of(error) not in (ExitCode.DONE, ExitCode.BUG)


def test_a_subclass_takes_the_code_of_its_base() -> None:
    assert exit_code_of(errors.CmsError("x")) == ExitCode.UNTRUSTED
    assert errors.CmsError not in BY_ERROR


def test_an_error_of_no_known_kind_is_a_bug() -> None:
    assert exit_code_of(errors.KmstoolError("x")) == ExitCode.BUG


def test_the_codes_of_the_design() -> None:
    assert [int(code) for code in ExitCode] == [*range(12), 130, 143]


def test_the_reference_says_the_same() -> None:
    text = (ROOT / "docs/reference/exit-codes.md").read_text()
    rows = dict(re.findall(r"^\| (\d+) \| ([^|]+) \| [^|]+ \|$", text, re.MULTILINE))
    assert rows == {str(int(code)): code.meaning for code in ExitCode}
