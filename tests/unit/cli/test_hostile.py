"""`kmstool emulator attacks`, `bend` and `run --hostile` in this process."""

import io
import json
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kmstool.arn import parse_key_arn
from kmstool.cli.main import main
from kmstool.emulator.hostile import ATTACKS
from kmstool.emulator.hostile_files import layout_of
from kmstool.sealing.files import seal
from kmstool.sealing.header import HpkeEntry, read_head
from kmstool.sealing.hpke import encode_point
from kmstool.sealing.recipients import DataKeyRecipient, public_key_recipient

ARN = parse_key_arn("arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab")
PUBLIC_KEY = (
    ec.generate_private_key(ec.SECP256R1())
    .public_key()
    .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
)

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


def test_bend_forges_what_looks_like_the_file(folder: Path) -> None:
    """Same recipient, label and counter; the content and the signature are the parent's."""
    recipient = public_key_recipient(ARN, PUBLIC_KEY)
    signing_key, genuine = Ed25519PrivateKey.generate(), io.BytesIO()
    seal(
        io.BytesIO(b"genuine"),
        genuine,
        [data_key_recipient(), recipient],
        label="config",
        counter=7,
        signing_key=signing_key,
    )
    (folder / "file").write_bytes(genuine.getvalue())
    assert main(["emulator", "bend", "file-forged", "file", "-o", "bent"]) == 0
    was, now = (
        read_head(io.BytesIO((folder / name).read_bytes()).read).header for name in ("file", "bent")
    )
    assert (now.label, now.counter) == (was.label, was.counter) == ("config", 7)
    (entry,) = now.recipients
    assert isinstance(entry, HpkeEntry)
    assert (entry.key, entry.public_key) == (ARN, encode_point(recipient.public_key))
    assert now.signer is not None
    assert now.signer != was.signer


def test_a_file_under_a_data_key_alone_cannot_be_forged(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    genuine = io.BytesIO()
    seal(io.BytesIO(b"genuine"), genuine, [data_key_recipient()])
    (folder / "file").write_bytes(genuine.getvalue())
    assert main(["emulator", "bend", "file-forged", "file", "-o", "bent"]) == 3
    assert "under a data key alone" in capsys.readouterr().err
    assert not (folder / "bent").exists()


def data_key_recipient() -> DataKeyRecipient:
    return DataKeyRecipient(key=ARN, data_key=bytes(32), ciphertext_blob=b"blob")


def test_the_layout_of_a_sealed_file() -> None:
    assert layout_of(FILE).head == len(HEAD)


def test_run_hostile(capfd: pytest.CaptureFixture[str]) -> None:
    source = "import os; print(os.environ['KMSTOOL_EMULATOR'], os.environ['KMSTOOL_RELAY'])"
    arguments = ["--hostile", "relay-half-open", "--", sys.executable, "-c", source]
    assert main(["emulator", "run", *arguments]) == 0
    folder, relay = capfd.readouterr().out.split()
    assert relay.startswith("tcp://127.0.0.1:")
    assert not Path(folder).exists()
