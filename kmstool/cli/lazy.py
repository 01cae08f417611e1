"""A Click group that imports a command's module only when that command is used.

In a shell script every call is a new process: `kmstool decrypt` must not pay for the emulator, nor
`kmstool --help` for cryptography. Names and one-line descriptions therefore stand in a table, and a
test holds the table equal to the commands.
"""

import importlib
from typing import Any, NamedTuple

import click


class Entry(NamedTuple):
    """One command: its name, where it is, and its line in `--help`."""

    name: str
    module: str
    attribute: str
    summary: str


class LazyGroup(click.Group):
    """A group of commands that are named in a table and imported on demand."""

    def __init__(self, *args: Any, entries: tuple[Entry, ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.entries = {entry.name: entry for entry in entries}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - Click's signature
        """The names in the table's order, which is the order of `--help`."""
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Imports one command, or returns None where the table has no such name."""
        entry = self.entries.get(cmd_name)
        if entry is None:
            return None
        command = getattr(importlib.import_module(entry.module), entry.attribute)
        assert isinstance(command, click.Command)  # noqa: S101 - the table is ours, and tested
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As Click does, with suggestions from the table."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches  # noqa: PLC0415

            close = get_close_matches(args[0], self.entries)
            if close and not args[0].startswith("-"):
                error.possibilities = close  # type: ignore[attr-defined] # read by the guard
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Writes the commands' lines from the table, without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl([(entry.name, entry.summary) for entry in self.entries.values()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Completes names from the table: pressing Tab must not import every room."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415

        items = [
            CompletionItem(entry.name, help=entry.summary)
            for entry in self.entries.values()
            if entry.name.startswith(incomplete)
        ]
        return items + click.Command.shell_complete(self, ctx, incomplete)
