"""Each attack on two programs: it does what it claims to the plain one, and kmstool refuses it.

An attack that fools nobody proves nothing, so what becomes of the plain client is held here too,
also where it does well.
"""

import base64
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.trials import CONTENTS, FIRST, PLAIN_CLIENT, SECOND, STALLING, End, Stage, stage

from kmstool.emulator.hostile import ATTACKS, CHOSEN, Attack, honest_parent
from kmstool.emulator.hostile_files import FileAttack, FileForged
from kmstool.emulator.hostile_oracle import FreshKeysOracle
from kmstool.emulator.hostile_relay import OwnOperation
from kmstool.roots import amazon_roots_pem

REFUSED_BY_BOTH = {
    "another-ca",
    "amazon-lookalike",
    "another-host",
    "expired-certificate",
    "flipped-record",
    "answer-cut",
    "another-image",
}
# The plain client speaks TLS 1.2, and has one key, so that no other is older.
HARMLESS_TO_PLAIN = {"tls-1.2", "older-recipient-key", "relay-older-recipient-key"}
FOOLS_PLAIN = set(ATTACKS) - REFUSED_BY_BOTH - HARMLESS_TO_PLAIN - STALLING


@pytest.fixture(scope="module")
def ground() -> Iterator[Stage]:
    with stage() as one:
        yield one


def test_without_an_attack_both_open_the_right_secret(ground: Stage) -> None:
    environment = ground.emulator.environment()
    assert ground.plain_client(environment).end is End.RIGHT
    assert ground.kmstool(environment).end is End.RIGHT
    plain, kmstool = ground.documents(None)
    assert (plain.code, kmstool.code) == (0, 0), kmstool


def test_over_an_honest_relay_both_open_the_right_secret(ground: Stage) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="kmstool-") as folder,
        honest_parent(ground.emulator.emulator, Path(folder)) as parent,
    ):
        assert ground.plain_client(parent.environment, "--relay").end is End.RIGHT
        assert ground.relayed(parent.environment).end is End.RIGHT


class _Keeps(FileAttack):
    """A parent that gives back what it was given."""

    name = "none"

    def bend(self, file: bytes, **_options: Any) -> bytes:
        return file


def test_without_an_attack_both_open_the_right_file(ground: Stage, tmp_path: Path) -> None:
    assert ground.plain_file(_Keeps(), tmp_path).end is End.RIGHT
    assert ground.kmstool_file(_Keeps(), tmp_path).end is End.RIGHT


def test_whoever_expects_no_signer_is_warned_and_opens_what_the_parent_sealed(
    ground: Stage, tmp_path: Path
) -> None:
    """Else `file-forged` would prove nothing: label and counter alone do not stop it."""
    done = ground.kmstool_file(FileForged(), tmp_path, expect_signer=False)
    assert done.end is End.FOOLED
    assert (tmp_path / "opened").read_bytes() == FileForged.content
    assert "warning[unknown-sealer]" in done.stderr


def test_the_numbers_that_the_readme_says() -> None:
    readme = Path(__file__).resolve().parents[2].joinpath("README.md").read_text("utf-8")
    assert f"| {len(ATTACKS)} attacks, each on kmstool" in readme
    assert f"which {len(FOOLS_PLAIN)} of them fool |" in readme
    assert f"[{len(ATTACKS)} ways in all]" in readme
    security = Path(__file__).resolve().parents[2].joinpath("SECURITY.md").read_text("utf-8")
    assert f"[{len(ATTACKS)} attacks](docs/reference/attacks.md)" in security


@pytest.mark.long
@pytest.mark.parametrize("name", ATTACKS)
def test_attack(ground: Stage, name: str) -> None:
    attack = ATTACKS[name]
    plain, kmstool = ground.trial(attack)
    assert plain.end is expected_of_plain(name), plain
    assert kmstool.end is End.REFUSES, kmstool
    assert kmstool.code in attack.exit_codes, kmstool
    assert kmstool.stdout == b""
    assert attack.words in kmstool.text
    assert "Traceback" not in kmstool.stderr
    for secret in (FIRST, SECOND, CHOSEN, *CONTENTS):
        assert secret.decode()[:30] not in kmstool.stderr


def expected_of_plain(name: str) -> End:
    if name in FOOLS_PLAIN:
        return End.FOOLED
    if name in STALLING:
        return End.HELD_UP
    return End.RIGHT if name in HARMLESS_TO_PLAIN else End.REFUSES


def test_tls_1_2_is_what_the_plain_client_speaks(ground: Stage) -> None:
    """Else the attack would prove nothing: kmstool refuses it for the version alone."""
    with ground.under("tls-1.2") as parent:
        assert ground.plain_client(parent.environment).end is End.RIGHT
        refused = ground.kmstool(parent.environment)
    assert "does not speak TLS 1.3" in refused.text


def test_a_root_of_amazon_s_name_is_not_amazon_s(ground: Stage, tmp_path: Path) -> None:
    """Against the roots of production, one of which has the very name of the parent's root."""
    roots = tmp_path / "roots.pem"
    roots.write_text(amazon_roots_pem())
    with ground.under("amazon-lookalike") as parent:
        refused = ground.kmstool(parent.environment, options=("--roots", str(roots)))
    assert refused.code == 6
    assert "comes from a CA that is not among the roots" in refused.text


@pytest.mark.parametrize("name", ["relay-forged-answer", "relay-flipped-bits", "relay-plaintext"])
def test_a_secret_is_not_printed_over_a_relay(ground: Stage, name: str) -> None:
    with ground.under(name) as parent:
        done = ground.relayed_command(parent.environment)
    assert (done.code, done.stdout) == (2, b"")
    assert "the parent may have chosen this secret or changed it" in done.text


def test_what_the_plain_client_takes_is_what_the_parent_chose(ground: Stage) -> None:
    """Flipped bits are not noise: the first block is the parent's, and the rest the secret's."""
    with ground.under("relay-flipped-bits") as parent:
        done = ground.plain_client(parent.environment, "--relay")
    opened = [base64.b64decode(line) for line in done.stdout.split()]
    assert opened == [CHOSEN[:16] + FIRST[16:], CHOSEN[:16] + SECOND[16:]]


def test_the_parent_knows_the_key_that_it_asked_for(ground: Stage) -> None:
    with ground.under("relay-own-operation") as parent:
        done = ground.plain_client(parent.environment, "--relay")
        assert isinstance(parent.attack, OwnOperation)
        assert parent.attack.learned == base64.b64decode(done.stdout.split()[-1])


@pytest.mark.long
def test_the_oracle_reads_a_whole_block(ground: Stage) -> None:
    """All 16 bytes, over every length of padding: 337 requests read three, and nothing is luck."""
    with (
        ground.under("padding-oracle-one-key") as parent,
        ground.service(PLAIN_CLIENT, parent.environment, ground.plain[1]) as enclave,
    ):
        assert isinstance(parent.attack, FreshKeysOracle)
        candidates = b"abcdefghijklmnopqrstuvwxyz -"
        assert parent.attack.recover(enclave, 16, candidates=candidates) == SECOND[:16]


def test_a_program_that_says_nothing_gives_nothing_away(ground: Stage) -> None:
    with ground.under("padding-oracle-one-key") as parent:
        assert isinstance(parent.attack, FreshKeysOracle)
        assert parent.attack.recover(lambda: "failed", 16) == b""


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_every_attack_describes_itself(attack: type[Attack]) -> None:
    assert attack.name == attack.name.lower()
    assert not set(attack.name) - set("abcdefghijklmnopqrstuvwxyz0123456789-.")
    for sentence in (attack.sentence, attack.sound):
        assert sentence[0].islower()
        assert not sentence.endswith(".")
    assert attack.words


def test_the_plain_client_is_short() -> None:
    """It has to look like what people write."""
    assert len(Path(PLAIN_CLIENT).read_text().splitlines()) < 160
