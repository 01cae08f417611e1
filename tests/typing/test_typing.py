"""mypy --strict proves the types: each misuse fails, for its own reason, and proper use passes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


MISUSES = sorted(path.name for path in HERE.glob("*_misuse.py"))
USES = sorted(path.name for path in HERE.glob("*_use.py"))


def errors(name: str) -> dict[int, set[str]]:
    """The codes of mypy's errors in one file, by line."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", "--show-error-codes", "--no-pretty",
         str(HERE / name)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    found: dict[int, set[str]] = {}
    for line in done.stdout.splitlines():
        match = re.fullmatch(rf"\S*{re.escape(name)}:(\d+): error: .*\[([a-z-]+)\]", line)
        if match is None:
            assert ": note: " in line, line
            continue
        found.setdefault(int(match[1]), set()).add(match[2])
    return found


def expected(name: str) -> dict[int, set[str]]:
    lines = (HERE / name).read_text().splitlines()
    return {
        number: {match[1]}
        for number, line in enumerate(lines, 1)
        if (match := re.search(r"# error: ([a-z-]+)$", line))
    }


@pytest.mark.parametrize("name", MISUSES)
def test_each_misuse_fails_to_type_check(name: str) -> None:
    assert expected(name)
    assert errors(name) == expected(name)


@pytest.mark.parametrize("name", USES)
def test_proper_use_type_checks(name: str) -> None:
    assert errors(name) == {}


def test_what_the_relayed_setup_promises_is_there() -> None:
    assert {"relayed_misuse.py"} <= set(MISUSES)
    assert {"relayed_use.py"} <= set(USES)
    assert len(expected("relayed_misuse.py")) > 25
