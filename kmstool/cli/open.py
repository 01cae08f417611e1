"""`kmstool open`: the content of a sealed file, inside the enclave."""

from typing import TYPE_CHECKING

import click

from kmstool.cli import console
from kmstool.cli.common import Common
from kmstool.cli.input import InputStream
from kmstool.cli.options import key_option, session_options
from kmstool.cli.output import Stream, check_target
from kmstool.cli.progress import progress
from kmstool.cli.public_key import read_signer
from kmstool.holders import SessionHolder
from kmstool.sealing.files import Expected, open_sealed
from kmstool.session import SessionOptions

if TYPE_CHECKING:
    from kmstool.arn import AnyKey, KeyArn


@click.command("open")
@click.argument("source", metavar="[INPUT]", default="-")
@key_option(any_key=True)
@click.option(
    "--expect-signer",
    metavar="FILE",
    help="Open only what this Ed25519 public key signed, PEM or DER; without it anyone may have"
    " sealed the file, and the result carries the caveat unknown-sealer.",
)
@click.option("--expect-label", metavar="TEXT", help="Open only a file with this very label.")
@click.option(
    "--min-counter",
    type=click.IntRange(0),
    metavar="N",
    help="Open only a file whose counter is at least N.",
)
@click.option("-o", "--output", metavar="FILE", help="Write to this file, whole or not at all.")
@session_options
def open_command(
    common: Common,
    *,
    source: str,
    key: "KeyArn | AnyKey",
    expect_signer: str | None,
    expect_label: str | None,
    min_counter: int | None,
    output: str | None,
    session: SessionOptions,
) -> None:
    """Open a sealed file inside the enclave.

    Reads INPUT or stdin as it is and writes the content.

    What opening proves: the file is what one sealer made, whole and unaltered. What it does not:
    who that was, since anyone who has the public key can seal, and choose label, counter and ARN;
    and that it is the newest, since whoever stores files can bring back an old one. For the first
    give --expect-signer, for the second --min-counter with a number that you remember.

    It works over a relay as well (--via relay): the key goes straight into an authenticated cipher.

    To stdout each part goes out when it is authenticated. If a later one is not, the exit code is
    8, and what came out may not be used. With -o the file appears only when all of it is.

    \b
    Example:
      kmstool open --key-id "$ARN" --expect-signer release.pub -o config.json config.sealed
    """
    check_target(output)
    expected = Expected(
        signer=None if expect_signer is None else read_signer(expect_signer),
        label=expect_label,
        min_counter=min_counter,
    )
    with (
        InputStream(source, what="the sealed file") as stream,
        Stream(output) as target,
        SessionHolder(session) as holder,
    ):
        with progress(stream, "opening") as watched:
            open_sealed(
                watched,
                target.start,
                holder,
                key=key,
                expected=expected,
                tolerance=common.tolerance(),
                report=console.warn,
                read_ahead=stream.is_worth_a_thread,
            )
        target.commit()
