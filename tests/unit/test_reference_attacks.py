"""docs/reference/attacks.md says what the code does, table by table."""

import re
from pathlib import Path

from kmstool.emulator.hostile import ATTACKS, Setup

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "attacks.md"


def test_every_attack_stands_in_the_table_of_its_setup() -> None:
    parts = re.split(r"^## (\w+):", PAGE.read_text("utf-8"), flags=re.MULTILINE)[1:]
    tables = dict(zip((name.lower() for name in parts[::2]), parts[1::2], strict=True))
    assert set(tables) == set(Setup)
    for setup, text in tables.items():
        rows = re.findall(r"^\| `([^`]+)` \| (.+) \| (.+) \| (.+) \|$", text, re.MULTILINE)
        assert rows == [
            (one.name, one.sentence, one.sound, ", ".join(map(str, one.exit_codes)))
            for one in ATTACKS.values()
            if one.setup == setup
        ]
