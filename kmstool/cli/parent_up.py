"""`kmstool parent up`: all that an enclave needs of its parent, from one file.

`kmstool/parent/configuration.py` reads the file and `together.py` runs what it says.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from kmstool import limits
from kmstool.cli import console
from kmstool.cli.common import common_options
from kmstool.cli.parent_serving import Report, log_format_option, reporter, serve_until_signal
from kmstool.errors import CheckFailedError, KmstoolError, LocalFileError, quoted

if TYPE_CHECKING:
    from collections.abc import Callable

    from kmstool.parent.configuration import Configuration, Reading
    from kmstool.parent.mistakes import Mistake
    from kmstool.parent.together import Together

_HERE: Final = Path("kmstool-parent.toml")
_INSTALLED: Final = Path("/etc/kmstool/parent.toml")


@click.command()
@click.option(
    "--config",
    "config_file",
    metavar="FILE",
    help=f"What to start, as TOML  [default: {_HERE}, else {_INSTALLED}]",
)
@click.option(
    "--check", is_flag=True, help="Read the file, explain each mistake in it, and start nothing."
)
@log_format_option
@common_options
def up(*, config_file: str | None, check: bool, log_format: str) -> None:
    """Run forwarder, credentials and relay from one file.

    All of them start or none. SIGHUP reads the file again, without dropping a connection; a file
    with mistakes changes nothing. Ends on SIGTERM or Ctrl-C, when open connections have ended or
    their time to drain is over.

    \b
    Examples:
      kmstool parent up --check --config kmstool-parent.toml
      kmstool parent up --config kmstool-parent.toml
    """
    path = find_configuration(config_file)
    if check:
        _check(path)
        return
    from kmstool.enclave.process import harden  # noqa: PLC0415 - not for --help
    from kmstool.parent.configuration import describe  # noqa: PLC0415
    from kmstool.parent.together import Together  # noqa: PLC0415

    harden()  # before anything secret is read
    report = reporter(log_format)
    configuration = _configuration(path)
    serve_until_signal(
        lambda: Together(configuration, report=report),
        ready=[*describe(configuration), "ready"],
        report=report,
        reload=_reload(path, report),
        alive=lambda together: together.alive,
    )


def find_configuration(config_file: str | None) -> Path:
    """The file that was named, or else the one that would be taken; it need not exist."""
    if config_file is not None:
        return Path(config_file)
    return _HERE if _HERE.exists() or not _INSTALLED.exists() else _INSTALLED


def read_file(path: Path) -> "Reading":
    """Reads the file, and what it names beside it. Raises `LocalFileError` for the file itself."""
    from kmstool.parent.configuration import read_configuration  # noqa: PLC0415

    data = _bytes_of(
        path,
        limits.PARENT_FILE_MAX,
        "name it with --config FILE; docs/howto/run-the-parent.md has one",
    )

    def read_beside(name: str) -> bytes:
        beside = "a path is relative to the folder of the file that names it"
        return _bytes_of(path.parent / name, limits.INPUT_MAX, beside)

    return read_configuration(data, read_file=read_beside)


def _bytes_of(path: Path, maximum: int, hint: str) -> bytes:
    """One byte more than `maximum` at most: whoever reads them refuses that."""
    try:
        with path.open("rb") as stream:
            return stream.read(maximum + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        number = error.errno if isinstance(error, OSError) else None
        reason = os.strerror(number).lower() if number else "it is no path"
        raise LocalFileError(f"cannot read {quoted(str(path))}: {reason}", hint=hint) from None


def _check(path: Path) -> None:
    from kmstool.parent.configuration import describe  # noqa: PLC0415

    reading = read_file(path)
    for line in describe(reading.configuration):
        click.echo(f"fine   {console.printable(line)}")
    for mistake in reading.mistakes:
        click.echo(f"wrong  {console.printable(str(mistake))}")
        if mistake.mend:
            click.echo(f"       {console.printable(mistake.mend)}")
    if reading.mistakes:
        raise CheckFailedError(f"{quoted(str(path))} has {_count(reading.mistakes)}")


def _configuration(path: Path) -> "Configuration":
    from kmstool.parent.mistakes import MistakesError  # noqa: PLC0415

    reading = read_file(path)
    if reading.mistakes:
        for mistake in reading.mistakes[1:]:
            console.error(str(mistake), mistake.mend)
        raise MistakesError(str(path), reading.mistakes)
    return reading.configuration


def _reload(path: Path, report: Report) -> "Callable[[Together], str]":
    from kmstool.parent.configuration import describe  # noqa: PLC0415

    def reload(together: "Together") -> str:
        try:
            reading = read_file(path)
            for mistake in reading.mistakes:
                report(f"{mistake}" + (f" (hint: {mistake.mend})" if mistake.mend else ""))
            if not reading.mistakes:
                together.change(reading.configuration)
                for line in describe(reading.configuration):
                    report(line)
                words = "settings read again"
                report(words)
                return words
            words = f"{path} has {_count(reading.mistakes)}"
        except KmstoolError as error:
            words = str(error) + (f" (hint: {error.hint})" if error.hint else "")
        except Exception as error:  # noqa: BLE001 - what is open goes on; its text may hold anything
            words = type(error).__name__
        kept = f"the settings of before are kept: {words}"
        report(kept)
        return kept

    return reload


def _count(mistakes: "tuple[Mistake, ...]") -> str:
    return f"{len(mistakes)} mistake" + ("s" if len(mistakes) > 1 else "")
