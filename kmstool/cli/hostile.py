"""`kmstool emulator attacks` and `bend`: what the hostile parent can do, and what it does to files.

`emulator run --hostile` is in `emulator.py`, beside the honest one.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kmstool.cli.common import common_options
from kmstool.errors import LocalFileError, SettingError

if TYPE_CHECKING:
    from kmstool.emulator.hostile import Attack


@click.command(short_help="List what the hostile parent can do.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@common_options
def attacks(*, as_json: bool) -> None:
    """List what the hostile parent of `emulator run --hostile` can do."""
    from kmstool.emulator.hostile import ATTACKS  # noqa: PLC0415

    if as_json:
        click.echo(json.dumps([_described(attack) for attack in ATTACKS.values()], indent=1))
        return
    width = max(len(name) for name in ATTACKS)
    for attack in ATTACKS.values():
        click.echo(f"{attack.name:{width}}  {attack.setup:11}  {attack.sentence}")


@click.command(short_help="Do to a sealed file what a hostile parent would.")
@click.option("--older", metavar="FILE", help="An earlier version of it, for file-rolled-back.")
@click.option("--other", metavar="FILE", help="Another file, for file-swapped.")
@click.option("-o", "--output", metavar="FILE", required=True, help="Where the result goes.")
@common_options
@click.argument("attack")
@click.argument("file")
def bend(*, attack: str, file: str, older: str | None, other: str | None, output: str) -> None:
    """Do to a sealed FILE what a hostile parent would.

    ATTACK is one of those on files that `emulator attacks` lists. FILE itself stays as it is.

    \b
    Example:
      kmstool emulator bend file-cut config.sealed -o given.sealed
    """
    from kmstool.emulator.hostile import FileAttack, find_attack  # noqa: PLC0415

    chosen = find_attack(attack)
    if not issubclass(chosen, FileAttack):
        raise SettingError(
            f"{attack} is no attack on a file", hint="use it with `kmstool emulator run --hostile`"
        )
    given = [None if path is None else _read(path) for path in (older, other)]
    bent = chosen().bend(_read(file), older=given[0], other=given[1])
    try:
        Path(output).write_bytes(bent)
    except OSError as error:
        raise LocalFileError(f"cannot write {output}: {error.strerror}") from None


def _read(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise LocalFileError(f"cannot read {name}: {error.strerror}") from None


def _described(attack: "type[Attack]") -> dict[str, Any]:
    return {
        "name": attack.name,
        "setup": attack.setup,
        "sentence": attack.sentence,
        "sound": attack.sound,
        "exit_codes": attack.exit_codes,
    }
