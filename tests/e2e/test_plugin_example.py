"""docs/howto/attack-your-own-program finds the bug of its program, and none in the fixed one.

In a process of its own, as a user's pytest would: the plugin comes by its entry point.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from kmstool.emulator.hostile import ATTACKS

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "attack-your-own-program"
DIRECT = sum(attack.setup == "direct" for attack in ATTACKS.values())


def attacked(folder: Path, program: str, *arguments: str) -> str:
    """What pytest says of a program."""
    for file in EXAMPLE.glob("*.py"):
        shutil.copy(file, folder)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "error", *arguments]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "APP_PROGRAM": program},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def test_the_plugin_finds_the_bug(tmp_path: Path) -> None:
    said = attacked(tmp_path, "program.py", "-k", "works or another or stripped or key-id")
    failed = re.findall(
        r"^FAILED test_program.py::test_it_is_not_fooled\[(.*)\]", said, re.MULTILINE
    )
    assert failed == ["wrong-key-id", "another-account"], said
    assert "it took something else" in said
    assert "bytes that the parent has chosen" in said


def test_the_plugin_finds_nothing_in_the_fixed_program(tmp_path: Path) -> None:
    said = attacked(tmp_path, "program_fixed.py")
    assert f"{DIRECT + 1} passed" in said, said


def test_the_fixtures_are_documented(tmp_path: Path) -> None:
    said = attacked(tmp_path, "program.py", "--fixtures")
    for fixture in ("kms_emulator", "enclave", "hostile_parent"):
        assert re.search(rf"^{fixture}\b.*\n    \S", said, re.MULTILINE), said
