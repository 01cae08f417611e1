"""`kmstool emulator attacks`, `bend` and `run --hostile` in this process."""

import json
import sys
from pathlib import Path

import pytest

from kmstool.cli.main import main
from kmstool.emulator.hostile import ATTACKS
from kmstool.emulator.hostile_files import layout_of

HEADER = b"a header"
HEAD = b"kmstool-sealed" + b"\0\1" + len(HEADER).to_bytes(4, "big") + HEADER + b"m" * 32
ONE, TWO, REST = (letter * 65_552 for letter in (b"1", b"2", b"3"))
FILE = HEAD + ONE + TWO + REST[:100]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(FILE)
    (tmp_path / "old").write_bytes(b"an older one")
    return tmp_path


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emulator", "attacks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(ATTACKS)
    for line, attack in zip(lines, ATTACKS.values(), strict=True):
        assert line.split()[1] == attack.setup
        assert line.endswith(attack.sentence)


def test_the_table_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emulator", "attacks", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in table] == list(ATTACKS)
    half_open = ATTACKS["half-open"]
    assert next(row for row in table if row["name"] == "half-open") == {
        "name": "half-open",
        "setup": "direct",
        "sentence": half_open.sentence,
        "sound": half_open.sound,
        "exit_codes": [6],
    }


@pytest.mark.parametrize(
    ("attack", "body"),
    [
        ("file-cut", ONE + TWO),
        ("file-reordered", TWO + ONE + REST[:100]),
        ("file-repeated", ONE + ONE + TWO + REST[:100]),
    ],
)
def test_bend_chunks(folder: Path, attack: str, body: bytes) -> None:
    assert main(["emulator", "bend", attack, "file", "-o", "bent"]) == 0
    assert (folder / "bent").read_bytes() == HEAD + body
    assert (folder / "file").read_bytes() == FILE


@pytest.mark.parametrize(
    ("attack", "option"), [("file-swapped", "--other"), ("file-rolled-back", "--older")]
)
def test_bend_gives_another_file(folder: Path, attack: str, option: str) -> None:
    assert main(["emulator", "bend", attack, "file", option, "old", "-o", "bent"]) == 0
    assert (folder / "bent").read_bytes() == b"an older one"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["x", "file", "-o", "bent"], 2, "there is no attack named 'x'"),
        (["half-open", "file", "-o", "bent"], 2, "half-open is no attack on a file"),
        (["file-swapped", "file", "-o", "bent"], 2, "needs another file"),
        (["file-rolled-back", "file", "-o", "bent"], 2, "needs an older file"),
        (["file-cut", "old", "-o", "bent"], 3, "not a file that kmstool sealed"),
        (["file-cut", "short", "-o", "bent"], 3, "at least two"),
        (["file-cut", "none", "-o", "bent"], 11, "cannot read none"),
        (["file-cut", "file", "-o", "none/bent"], 11, "cannot write none/bent"),
    ],
)
def test_bend_refuses(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    (folder / "short").write_bytes(HEAD + ONE)
    assert main(["emulator", "bend", *arguments]) == code
    assert words in capsys.readouterr().err
    assert not (folder / "bent").exists()


def test_the_layout_of_a_sealed_file() -> None:
    assert layout_of(FILE).head == len(HEAD)


def test_run_hostile(capfd: pytest.CaptureFixture[str]) -> None:
    source = "import os; print(os.environ['KMSTOOL_EMULATOR'], os.environ['KMSTOOL_RELAY'])"
    arguments = ["--hostile", "relay-half-open", "--", sys.executable, "-c", source]
    assert main(["emulator", "run", *arguments]) == 0
    folder, relay = capfd.readouterr().out.split()
    assert relay.startswith("tcp://127.0.0.1:")
    assert not Path(folder).exists()
