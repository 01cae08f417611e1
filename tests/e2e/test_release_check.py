"""scripts/release-check passes: looked at on every CI run, not on the day of a release."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.long
@pytest.mark.timeout(400)
def test_nothing_stands_against_a_release(tmp_path: Path) -> None:
    done = subprocess.run(
        [ROOT / "scripts" / "release-check", tmp_path / "dist"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    names = sorted(path.suffix for path in (tmp_path / "dist").iterdir())
    assert names == [".gz", ".whl"]
    assert "nothing stands against a release" in done.stderr
