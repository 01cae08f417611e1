"""The options that every command has: `--strict`, `--allow-caveat`, `--verbose`; a type of some.

The options may stand before or after the command's name, or both; what is given anywhere holds.
`kmstool --help` imports this file, so it imports little.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

from kmstool.caveats import CATALOGUE, Tolerance
from kmstool.cli import console

F = TypeVar("F", bound=Callable[..., Any])


class Seconds(click.FloatRange):
    """A range that "nan" is outside of, too."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value} is not a number", param, ctx)
        return float(seconds)


class Common:
    """The options that every command has, merged from before and after the command's name.

    Attributes:
        strict: refuse every caveat that is not allowed.
        allowed: the codes of caveats that `strict` lets through.
        verbose: show the steps, and for a bug where it happened.
    """

    def __init__(self) -> None:
        self.strict = False
        self.allowed: set[str] = set()
        self.verbose = False

    def tolerance(self) -> Tolerance:
        """What the options accept. Raises `SettingError` for a code that no caveat has."""
        return Tolerance(strict=self.strict, allowed=frozenset(self.allowed))

    def trace(self, line: str) -> None:
        """Shows one step of the work under `--verbose`."""
        if self.verbose:
            console.trace(line)


def _set_flag(name: str) -> Callable[[click.Context, click.Parameter, bool], None]:
    def callback(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
        if value:
            setattr(context.ensure_object(Common), name, True)

    return callback


def _allow(context: click.Context, _parameter: click.Parameter, codes: tuple[str, ...]) -> None:
    context.ensure_object(Common).allowed.update(codes)


def common_options(command: F) -> F:
    """`--strict`, `--allow-caveat`, `--verbose`: before or after the command's name, merged."""
    for option in (
        click.option(
            "--verbose",
            is_flag=True,
            expose_value=False,
            callback=_set_flag("verbose"),
            help="Show each step on stderr; never a secret.",
        ),
        click.option(
            "--allow-caveat",
            metavar="CODE",
            multiple=True,
            expose_value=False,
            callback=_allow,
            help="Accept this caveat under --strict (repeatable).",
            shell_complete=lambda _context, _parameter, begun: [
                code for code in CATALOGUE if code.startswith(begun)
            ],
        ),
        click.option(
            "--strict",
            is_flag=True,
            expose_value=False,
            callback=_set_flag("strict"),
            help="Refuse a result that carries a caveat.",
        ),
    ):
        command = option(command)
    return command
