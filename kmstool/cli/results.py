"""From a result to what is written: which field goes where, in which encoding, with its caveats."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

import click

from kmstool.caveats import Caveat
from kmstool.cli import console
from kmstool.cli.output import FORMATS, Output, check_target, deliver, encode, encode_json, place_of
from kmstool.enclave.results import DryRun

F = TypeVar("F", bound=Callable[..., Any])


class HasCaveats(Protocol):
    """What every result of an operation has."""

    @property
    def caveats(self) -> tuple[Caveat, ...]: ...


Result = TypeVar("Result", bound=HasCaveats)


class Destination(NamedTuple):
    """Where the results go, by the options of one command.

    Attributes:
        form: `raw`, `base64`, `hex` or `json`.
        main: target of the secret, or of the JSON object.
        others: target by field name, for what accompanies the secret; None where none was given.
    """

    form: str
    main: str | None
    others: Mapping[str, str | None]

    def check(self) -> None:
        """Refuses targets that cannot be written, before anything is asked of KMS."""
        others = [target for target in self.others.values() if target is not None]
        places: set[str] = set()
        for target in (self.main, *others):
            check_target(target)
            place = place_of(target)
            if place in places:
                name = "stdout" if place == "-" else target
                raise click.UsageError(f"{name} is named for two results", _context())
            places.add(place)

    def write(
        self,
        result: Result | DryRun,
        *,
        fields: Callable[[Result], dict[str, Any]],
        secret: str,
        more_caveats: tuple[Caveat, ...] = (),
    ) -> None:
        """Warns of the result's caveats, then writes it.

        Args:
            fields: makes of the result what is written, in the KMS API's names, bytes as bytes.
            secret: the name of the field that `-o` takes.
            more_caveats: what this way of writing it adds to the result's own.
        """
        caveats = result.caveats + more_caveats
        console.warn(caveats)
        if isinstance(result, DryRun):
            self._write_dry_run(result.operation, caveats)
        else:
            self._write_fields(fields(result), secret, caveats)

    def _write_fields(
        self, fields: dict[str, Any], secret: str, caveats: tuple[Caveat, ...]
    ) -> None:
        outputs = [
            Output(encode(fields[name], self.form), target)
            for name, target in self.others.items()
            if target is not None
        ]
        if self.form == "json":
            rest = {name: value for name, value in fields.items() if self.others.get(name) is None}
            main = encode_json(rest | {"caveats": as_json(caveats)})
        else:
            main = encode(fields[secret], self.form)
        deliver([*outputs, Output(main, self.main)])

    def _write_dry_run(self, operation: str, caveats: tuple[Caveat, ...]) -> None:
        console.note(f"dry run: KMS would have carried out {operation}")
        if self.form == "json":
            answer = {"DryRun": operation, "caveats": as_json(caveats)}
            deliver([Output(encode_json(answer), self.main)])


def as_json(caveats: tuple[Caveat, ...]) -> list[dict[str, str]]:
    """The caveats as they stand in JSON output."""
    return [{"code": caveat.code, "sentence": caveat.sentence} for caveat in caveats]


def output_options(**others: str) -> Callable[[F], F]:
    """`-o`, `--format`, and an option for each result beside the secret; passes `destination`.

    Args:
        others: field name in the KMS API, by option name (`ciphertext_out="CiphertextBlob"`). The
            first of them is lost unless it gets a file or JSON is written.
    """

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def with_destination(*arguments: Any, **values: Any) -> Any:
            form = values.pop("form")
            targets = {name: values.pop(option) for option, name in others.items()}
            first = next(iter(targets), None)
            if form is None:
                form = "json" if first is not None and targets[first] is None else "raw"
            elif form != "json" and first is not None and targets[first] is None:
                option = next(iter(others)).replace("_", "-")
                raise click.UsageError(
                    f"--format {form} has room for one value: add --{option} FILE for the other,"
                    " or take --format json",
                    _context(),
                )
            destination = Destination(form=form, main=values.pop("output"), others=targets)
            destination.check()
            return command(*arguments, destination=destination, **values)

        wrapped: Any = with_destination
        for option, name in reversed(others.items()):
            wrapped = click.option(
                "--" + option.replace("_", "-"),
                metavar="FILE",
                help=f"Write {name} to this file, encoded as --format says.",
            )(wrapped)
        default = "json, or raw with --ciphertext-out" if others else "raw"
        wrapped = click.option(
            "--format",
            "form",
            type=click.Choice(FORMATS),
            help=f"How the result is written  [default: {default}]",
        )(wrapped)
        result: F = click.option(
            "-o",
            "--output",
            metavar="FILE",
            help="Write the result to this file, mode 0600, whole or not at all.",
        )(wrapped)
        return result

    return decorate


def _context() -> click.Context:
    return click.get_current_context()
