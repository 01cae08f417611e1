"""docs/reference/cli.md names every command, option and variable, and none that does not exist."""

import re
from pathlib import Path

import click
import pytest

from kmstool.cli import compat
from kmstool.cli.commands import COMMANDS, cli

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGE = (DOCS / "reference" / "cli.md").read_text()
HOWTO = (DOCS / "howto" / "kmstool_enclave_cli.md").read_text()
GLOBAL = {"--version", "--help"}
# Of `emulator`, whose options stand in its own page.
SHARED, *SECTIONS = re.split(r"^## (?=decrypt$)|^## ", PAGE, flags=re.MULTILINE)


def section(name: str) -> str:
    return next(part for part in SECTIONS if part.startswith(name + "\n"))


def options_of(command: click.Command) -> set[str]:
    """Of a command; of a group with all of its commands."""
    return set().union(*map(options_of, inner_commands(command))) | {
        option
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--")
    }


def inner_commands(command: click.Command) -> list[click.Command]:
    if not isinstance(command, click.Group):
        return []
    context = click.Context(command)
    found = [command.get_command(context, name) for name in command.list_commands(context)]
    return [inner for inner in found if inner is not None]


def options_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z]", text))


NAMES = [entry.name for entry in COMMANDS if entry.name != "emulator"]


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_described(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    common = section("What holds for every command")
    assert options_of(command) <= options_in(section(name) + common)


@pytest.mark.parametrize("name", NAMES)
def test_a_command_s_own_section_names_no_option_of_another(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    # An example may end in another program or command.
    table = section(name).partition("```sh")[0]
    assert options_in(table) <= options_of(command)


def test_no_option_is_invented() -> None:
    known = set(GLOBAL)
    for name in NAMES:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        known |= options_of(command)
    assert options_in(PAGE) <= known


def test_every_command_is_in_the_table_with_its_section() -> None:
    for entry in COMMANDS:
        assert f"| [`{entry.name}`](#{entry.name}) |" in PAGE
        assert section(entry.name)


def test_the_drop_in_s_options() -> None:
    rows = re.findall(r"^\| `(-.)`, `(--[a-z-]+)` \| ([^|]+) \|", HOWTO, re.MULTILINE)
    described = {(short, long, name) for short, long, names in rows for name in expand(names)}
    real = {
        (*sorted(parameter.opts, key=len), name)
        for name, command in compat.cli.commands.items()
        for parameter in command.params
    }
    assert described == real


def expand(names: str) -> list[str]:
    return list(compat.cli.commands) if names.strip() == "all" else names.strip().split(", ")
