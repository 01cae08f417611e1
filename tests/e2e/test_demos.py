"""What the demos show happens; scripts/demo itself only makes the environment around them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PATH": path, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_life_of_a_key_in_both_setups() -> None:
    done = run("bash", "scripts/setups-job")
    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert sum(line.startswith("made on a laptop, for one enclave:") for line in lines) == 2
    assert "relay: refused, exit code 7, nothing on stdout" in lines
    assert "direct: refused, exit code 7, nothing on stdout" in lines


@pytest.mark.long
@pytest.mark.timeout(600)
def test_every_attack_is_refused() -> None:
    done = run(sys.executable, "-W", "error", "tests/attacks/demo.py", PYTHONPATH="tests")
    assert done.returncode == 0, done.stdout + done.stderr
