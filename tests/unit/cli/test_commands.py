"""Commands are imported when used, and every one of them explains itself."""

import subprocess
import sys
from typing import Any

import click
import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner

from kmstool.caveats import CATALOGUE
from kmstool.cli.commands import COMMANDS, cli
from kmstool.cli.lazy import LazyGroup
from kmstool.cli.main import main

NEVER = (
    *("asyncio", "botocore", "concurrent", "http.client", "logging", "rich", "urllib3"),
    *("kmstool.emulator.kms", "kmstool.parent"),
)


def modules_after(*arguments: str) -> set[str]:
    """The modules that a whole process has imported when it is done with these arguments."""
    code = (
        "import os, sys; from kmstool.cli.main import main; main(sys.argv[1:]);"
        "print(*sys.modules, file=sys.stderr, flush=True); os._exit(0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return set(done.stderr.splitlines()[-1].split())


def ours(modules: set[str]) -> set[str]:
    return {name.removeprefix("kmstool.") for name in modules if name.startswith("kmstool.")}


def test_help_imports_no_command() -> None:
    modules = modules_after("--help")
    assert ours(modules) == {
        *("caveats", "errors", "cli"),
        *(f"cli.{name}" for name in ("commands", "common", "console", "exit_codes", "guard")),
        *("cli.lazy", "cli.main"),
    }
    assert not modules & {"ssl", "cryptography", "cbor2", *NEVER}


@pytest.mark.parametrize(
    "arguments",
    [
        ("decrypt", "--any-key", "--region", "eu-west-1", "/dev/null"),
        ("decrypt", "--help"),
        ("attest",),
        ("generate-random", "3"),
    ],
)
def test_commands_import_nothing_that_they_do_not_use(arguments: tuple[str, ...]) -> None:
    assert not modules_after(*arguments) & set(NEVER)


def commands() -> list[tuple[str, ...]]:
    """Every command's path, groups included."""
    found: list[tuple[str, ...]] = [()]
    for entry in COMMANDS:
        command = cli.get_command(click.Context(cli), entry.name)
        found.append((entry.name,))
        if isinstance(command, click.Group):
            found += [(entry.name, name) for name in command.list_commands(click.Context(command))]
    return found


@pytest.mark.parametrize("path", commands())
def test_every_help(path: tuple[str, ...], capsys: Any) -> None:
    assert main([*path, "--help"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Usage: kmstool" + "".join(f" {name}" for name in path))
    assert err == ""
    assert all(len(line) <= 100 for line in out.splitlines())


@pytest.mark.parametrize("entry", COMMANDS)
def test_the_table_says_what_the_command_says(entry: Any) -> None:
    command = cli.get_command(click.Context(cli), entry.name)
    assert command is not None
    assert command.name == entry.name
    assert command.get_short_help_str(200) == entry.summary


def test_the_tables_of_groups_say_what_their_commands_say() -> None:
    for entry in COMMANDS:
        group = cli.get_command(click.Context(cli), entry.name)
        if not isinstance(group, LazyGroup):
            continue
        for inner in group.entries.values():
            command = group.get_command(click.Context(group), inner.name)
            assert command is not None
            assert (command.name, command.get_short_help_str(200)) == (inner.name, inner.summary)


@pytest.mark.parametrize("path", [path for path in commands() if path])
def test_common_options_everywhere(path: tuple[str, ...]) -> None:
    command: click.Command = cli
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found is not None
        command = found
    options = {option for parameter in command.params for option in parameter.opts}
    assert {"--strict", "--allow-caveat", "--verbose"} <= options


def test_no_command_is_help_on_stderr_and_2(capsys: Any) -> None:
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Usage: kmstool ")


def test_version() -> None:
    result = CliRunner().invoke(cli, ["--version"])
    assert result.output.startswith("kmstool 0.")


@pytest.mark.parametrize(
    ("words", "incomplete", "expected"),
    [
        ([], "gen", ["generate-data-key", "generate-data-key-pair", "generate-random"]),
        (["decrypt"], "--any", ["--any-key"]),
        (["decrypt", "--format"], "", ["raw", "base64", "hex", "json"]),
        ([], "--str", ["--strict"]),
        (["--allow-caveat"], "un", [code for code in CATALOGUE if code.startswith("un")]),
        (["seal", "--allow-caveat"], "relayed", ["relayed-answer"]),
    ],
)
def test_completion(words: list[str], incomplete: str, expected: list[str]) -> None:
    completion = BashComplete(cli, {}, "kmstool", "_KMSTOOL_COMPLETE")
    found = [item.value for item in completion.get_completions(words, incomplete)]
    assert found == expected


def test_completion_script() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kmstool"],
        env={"_KMSTOOL_COMPLETE": "zsh_source"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "#compdef kmstool" in done.stdout, done.stderr
