"""Pages show what really happens: the commands of those below are run, and of the README's first
screen.

`…` in a page stands for anything; ids that are made anew each time may differ.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("tutorial/first-secret.md", "howto/why-was-i-denied.md")  # under docs
OUTER = "kmstool emulator run -- bash"  # the shell in which everything else is typed

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"as `([\w.]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MADE_ANEW = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|(?<=password is )\S+"
)


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    programs = Path(sys.executable).parent
    environ = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )


def pattern(shown: str) -> re.Pattern[str]:
    """What a page shows, as a pattern for what was printed."""
    parts = [re.escape(_MADE_ANEW.sub("<anew>", part)) for part in shown.split("…")]
    return re.compile(".*".join(parts), re.DOTALL)


def typed(block: str) -> list[tuple[str, str]]:
    """Each command of a console block with the output that the page shows for it."""
    found: list[tuple[str, str]] = []
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, newline, output = part.partition("\n")
        while command.endswith("\\"):
            line, newline, output = output.partition("\n")
            command = f"{command}{newline}{line}"
        found.append((command, output.strip()))
    return found


@pytest.mark.timeout(120)
@pytest.mark.parametrize("page", PAGES)
def test_the_page_does_what_it_shows(page: str, tmp_path: Path) -> None:
    text = (ROOT / "docs" / page).read_text("utf-8")
    for name, content in _FILE.findall(text):
        (tmp_path / name).write_text(content)
    blocks = _BLOCK.findall(text)
    steps = [step for language, text in blocks if language == "console" for step in typed(text)]
    assert steps[0] == (OUTER, "")
    mark = "code=$?; printf '\\n<<end of step>>\\n'; (exit $code)"  # so that `echo $?` still works
    script = "".join(f"{command}\n{mark}\n" for command, _ in steps[1:])
    (tmp_path / "steps").write_text(script)

    done = run("kmstool emulator run -- bash steps", tmp_path)

    assert done.returncode == 0, done.stdout
    printed = done.stdout.split("\n<<end of step>>\n")[:-1]
    assert len(printed) == len(steps) - 1
    for (command, shown), output in zip(steps[1:], printed, strict=True):
        assert pattern(shown).fullmatch(_MADE_ANEW.sub("<anew>", output.strip())), (command, output)


@pytest.mark.timeout(120)
def test_the_readme_shows_lines_of_the_demo_in_their_order(tmp_path: Path) -> None:
    blocks = _BLOCK.findall((ROOT / "README.md").read_text("utf-8"))
    ((command, shown),) = [
        step for language, text in blocks if language == "console" for step in typed(text)
    ]
    assert command == "scripts/demo"

    done = run(f"bash {ROOT}/scripts/main-job", tmp_path)

    assert done.returncode == 0, done.stdout
    printed = [_MADE_ANEW.sub("<anew>", line).strip() for line in done.stdout.splitlines()]
    position = 0
    for line in shown.splitlines():
        matches = [
            number
            for number in range(position, len(printed))
            if pattern(line.strip()).fullmatch(printed[number])
        ]
        assert matches, (line, printed[position:])
        position = matches[0] + 1
