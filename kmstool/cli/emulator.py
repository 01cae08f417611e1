"""`kmstool emulator`: KMS and a security module on this machine, for tests without Nitro hardware.

The library does the work (`kmstool/emulator/running.py`); it is imported when a command runs, since
it brings botocore.
"""

import contextlib
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kmstool.cli import console
from kmstool.cli.common import common_options
from kmstool.cli.hostile import attacks, bend
from kmstool.errors import LocalFileError, SettingError

if TYPE_CHECKING:
    from kmstool.emulator.running import Emulator, EmulatorOptions

F = TypeVar("F", bound=Callable[..., Any])

EXIT_FAILED = 125  # `emulator run` and `enclave` themselves, as env(1) and timeout(1) say it
_COMMAND = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@click.group("emulator")
@common_options
def group() -> None:
    """Run KMS and a security module for tests.

    Nothing that they attest proves anything of hardware, and results carry caveats that say so.
    """


group.add_command(attacks)
group.add_command(bend)


def enclave_options(command: F) -> F:
    """What the simulated enclave is: its PCRs, and how its documents are written."""
    for option in (
        click.option(
            "--map-form",
            type=click.Choice(["definite", "indefinite", "random"]),
            default="random",
            show_default=True,
            help="How attestation documents are written.",
        ),
        click.option("--debug-mode", is_flag=True, help="PCR0, PCR1 and PCR2 are zero."),
        click.option(
            "--pcr-from",
            metavar="FILE",
            help="The enclave runs this image (EIF), or the one that nitro-cli printed JSON of.",
        ),
        click.option(
            "--pcr",
            "pcrs",
            metavar="N=HEX",
            multiple=True,
            help="A PCR of the enclave, 96 hexadecimal digits (repeatable)"
            "  [default: fixed values for PCR0 to PCR2]",
        ),
    ):
        command = option(command)
    return command


def kms_options(command: F) -> F:
    """What the simulated KMS is."""
    for option in (
        click.option(
            "--nitro-root",
            type=click.Choice(["simulated", "aws"]),
            default="simulated",
            show_default=True,
            help="The root that attestation documents have to lead to.",
        ),
        click.option(
            "--cms-shape",
            type=click.Choice(["random", "explicit", "primitive", "der"]),
            default="random",
            show_default=True,
            help="How answers for a recipient are encoded; random takes the two that KMS sends.",
        ),
        click.option(
            "--principals",
            "principals_file",
            metavar="FILE",
            help="Access keys and roles, as TOML  [default: an administrator and an enclave role]",
        ),
        click.option(
            "--store", "store_file", metavar="FILE", help="Keep keys and aliases in this file."
        ),
        click.option("--region", default="eu-west-1", show_default=True, help="Region of KMS."),
        click.option(
            "--port",
            type=click.IntRange(0, 65535),
            default=0,
            help="Port of KMS on 127.0.0.1  [default: a free one]",
        ),
    ):
        command = option(command)
    return command


@group.command(context_settings=_COMMAND)
@kms_options
@enclave_options
@click.option("--log", "log_file", metavar="FILE", help="Append a line for each request to FILE.")
@click.option(
    "--hostile",
    metavar="ATTACK",
    help="Put a hostile parent between COMMAND and the emulator; `emulator attacks` lists what it"
    " can do.",
)
@common_options
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def run(
    context: click.Context,
    /,
    *,
    command: tuple[str, ...],
    log_file: str | None,
    hostile: str | None,
    **values: Any,
) -> None:
    """Run COMMAND beside an emulator made for it.

    kmstool in COMMAND acts as the enclave; an AWS SDK or the AWS CLI as an administrator of the
    same KMS. Ends with COMMAND's exit code (125 when the emulator fails), and leaves nothing
    behind.

    \b
    Examples:
      kmstool emulator run -- ./my-test.sh
      kmstool emulator run --hostile replayed-answer -- ./my-test.sh
    """
    from kmstool.emulator.command import held_signals, run_command  # noqa: PLC0415
    from kmstool.emulator.directory import environment_around  # noqa: PLC0415
    from kmstool.emulator.running import Emulator  # noqa: PLC0415

    with (
        _failing(context),
        held_signals() as mask,
        _report_to(log_file) as report,
        _temporary_folder() as folder,
        Emulator(folder, _options(values, report)) as emulator,
        _environment(emulator, hostile, values, report) as environment,
    ):
        variables = environment_around(os.environ, environment)
        code = run_command(command, variables, mask=mask, report=console.error)
    context.exit(code)


@group.command()
@kms_options
@enclave_options
@click.option(
    "--dir",
    "directory",
    metavar="DIR",
    help="Put the emulator's files here  [default: a temporary directory]",
)
@common_options
@click.pass_context
def serve(context: click.Context, /, *, directory: str | None, **values: Any) -> None:
    """Keep an emulator running until it is interrupted.

    Writes the environment for clients to stdout once it is ready, and then a line for each request
    to stderr.

    \b
    Example:
      kmstool emulator serve --dir ./kms > environment &
      . ./environment
    """
    from kmstool.emulator.command import held_signals, wait_for_end  # noqa: PLC0415
    from kmstool.emulator.running import Emulator  # noqa: PLC0415

    with (
        held_signals(),
        _named_folder(directory) as folder,
        Emulator(folder, _options(values, _to_stderr)) as emulator,
    ):
        for name, value in emulator.environment.items():
            click.echo(f"export {name}={shlex.quote(value)}")
        sys.stdout.flush()
        code = wait_for_end()
    context.exit(code)


@group.command(
    context_settings=_COMMAND, short_help="Run COMMAND as another enclave of this emulator."
)
@enclave_options
@common_options
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def enclave(context: click.Context, /, *, command: tuple[str, ...], **values: Any) -> None:
    """Run COMMAND as another enclave image against the running emulator.

    To be used inside `emulator run`, or with the environment of `emulator serve`.

    \b
    Example:
      kmstool emulator enclave --debug-mode -- kmstool decrypt secret.enc
    """
    from kmstool.emulator.command import held_signals, run_command  # noqa: PLC0415
    from kmstool.emulator.running import SecondEnclave  # noqa: PLC0415

    with _failing(context), held_signals() as mask:
        outer = os.environ.get("KMSTOOL_EMULATOR")
        if not outer:
            raise SettingError(
                "KMSTOOL_EMULATOR is not set: no emulator is running here",
                hint="use this inside `kmstool emulator run -- …`",
            )
        with (
            _temporary_folder() as folder,
            SecondEnclave(
                Path(outer), folder, pcrs=_pcrs(values), map_form=values["map_form"]
            ) as second,
        ):
            variables = {**os.environ, "KMSTOOL_EMULATOR": str(second.directory)}
            code = run_command(command, variables, mask=mask, report=console.error)
    context.exit(code)


def _options(values: dict[str, Any], report: Callable[[str], None]) -> "EmulatorOptions":
    from kmstool.emulator.attested import RANDOM_SHAPE  # noqa: PLC0415
    from kmstool.emulator.cms_writer import Shape  # noqa: PLC0415
    from kmstool.emulator.principals import load_principals  # noqa: PLC0415
    from kmstool.emulator.running import EmulatorOptions  # noqa: PLC0415

    shape, store, principals = (
        values[name] for name in ("cms_shape", "store_file", "principals_file")
    )
    return EmulatorOptions(
        region=values["region"],
        principals=None if principals is None else load_principals(Path(principals)),
        pcrs=_pcrs(values),
        map_form=values["map_form"],
        shapes=RANDOM_SHAPE if shape == "random" else (Shape(shape),),
        nitro_root=values["nitro_root"],
        store=None if store is None else Path(store),
        port=values["port"],
        report=report,
    )


def _pcrs(values: dict[str, Any]) -> dict[int, bytes]:
    from kmstool.emulator.pcrs import choose_pcrs, parse_pcrs  # noqa: PLC0415

    given = parse_pcrs(values["pcrs"])
    if values["pcr_from"] is not None:
        from kmstool.cli.measured import read_measured  # noqa: PLC0415 - brings cryptography

        for index, value in read_measured(values["pcr_from"]).image.items():
            if given.setdefault(index, value) != value:
                raise SettingError(
                    f"two values are given for PCR{index}",
                    hint="a register has one: leave one out",
                )
    return choose_pcrs(given, debug_mode=values["debug_mode"])


@contextlib.contextmanager
def _environment(
    emulator: "Emulator",
    attack: str | None,
    values: dict[str, Any],
    report: Callable[[str], None],
) -> Iterator[dict[str, str]]:
    """The environment of the command: the emulator's, or that of a hostile parent before it."""
    if attack is None:
        yield emulator.environment
        return
    if values["nitro_root"] != "simulated":
        raise SettingError(
            "a hostile parent needs the simulated root", hint="leave --nitro-root out"
        )
    from kmstool.emulator.hostile import HostileParent  # noqa: PLC0415

    with (
        _temporary_folder() as folder,
        HostileParent(emulator, folder, attack, report=report) as parent,
    ):
        yield parent.environment


@contextlib.contextmanager
def _failing(context: click.Context) -> Iterator[None]:
    """Turns the emulator's own failures into 125, so that COMMAND's codes stay its own."""
    from kmstool.errors import KmstoolError  # noqa: PLC0415

    try:
        yield
    except KmstoolError as error:
        console.error(str(error), error.hint)
        context.exit(EXIT_FAILED)


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    try:
        folder = tempfile.TemporaryDirectory(prefix="kmstool-")  # made 0700
    except OSError as error:
        raise LocalFileError(f"cannot make a temporary directory: {error.strerror}") from None
    with folder as name:
        yield Path(name)


@contextlib.contextmanager
def _named_folder(name: str | None) -> Iterator[Path]:
    if name is None:
        with _temporary_folder() as folder:
            yield folder
        return
    folder = Path(name).resolve()
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except FileExistsError:
        raise LocalFileError(f"{name} is not a directory", hint="--dir names one") from None
    except OSError as error:
        raise LocalFileError(f"cannot make {name}: {error.strerror}") from None
    yield folder


@contextlib.contextmanager
def _report_to(name: str | None) -> Iterator[Callable[[str], None]]:
    if name is None:
        yield lambda _line: None
        return
    try:
        descriptor = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    except OSError as error:
        raise LocalFileError(f"cannot write the log {name}: {error.strerror}") from None
    with os.fdopen(descriptor, "a", encoding="utf-8", buffering=1) as stream:
        yield lambda line: print(line, file=stream)


def _to_stderr(line: str) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):  # stderr may be closed
        sys.stderr.write(line + "\n")
