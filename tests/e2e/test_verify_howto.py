"""docs/howto/verify-a-document.md: its commands, in their order, under the emulator."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "verify-a-document.md"


def test_the_page_does_what_it_shows(tmp_path: Path) -> None:
    page = PAGE.read_text("utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    commands = [text for language, text in blocks if language == "sh"]
    (shown,) = [text for language, text in blocks if not language]
    (tmp_path / "steps").write_text("set -eu\n" + "".join(commands))
    pcrs = {f"PCR{index}": hashlib.sha384(bytes([index])).hexdigest() for index in range(3)}
    options = [part for index in range(3) for part in ("--pcr", f"{index}={pcrs[f'PCR{index}']}")]
    programs = Path(sys.executable).parent
    done = subprocess.run(
        [programs / "kmstool", "emulator", "run", *options, "--", "bash", "steps"],
        cwd=tmp_path,
        env=os.environ | pcrs | {"PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(commands) == 4
    assert done.stdout.count("verified: yes") == 2
    for line in shown.splitlines():
        pattern = ".*".join(map(re.escape, line.split("…")))
        assert re.search(f"^{pattern}$", done.stderr, re.MULTILINE), (line, done.stderr)
