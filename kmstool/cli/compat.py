"""`kmstool_enclave_cli`: a drop-in for the C tool of aws-nitro-enclaves-sdk-c.

Its options, its stdout (`PLAINTEXT: …`, before it `CIPHERTEXT: …` for genkey) and its exit codes
(0, 1 for usage and --help, 255 for every failure), so that an existing script works unchanged.
Everything behind that is kmstool: TLS 1.3 to Amazon's roots, retries, strict CMS, KMS' own words in
errors. What the C tool's interface makes weak gets its caveat: credentials that every process can
read, and keys named by an alias or a bare id. There is no --strict here.

Moving away from it: docs/howto/kmstool_enclave_cli.md.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from kmstool.caveats import CREDENTIALS_ON_COMMAND_LINE, Caveat
from kmstool.cli import console
from kmstool.cli.common import Common
from kmstool.cli.exit_codes import ExitCode
from kmstool.cli.guard import guarded, leave
from kmstool.cli.input import parse_base64
from kmstool.cli.main import die_quietly_on_ctrl_c

if TYPE_CHECKING:
    from kmstool.arn import AnyKey, KeyArn
    from kmstool.enclave.credentials import Credentials
    from kmstool.enclave.direct import DirectKms, UnpinnedKeyId

F = TypeVar("F", bound=Callable[..., Any])

USAGE = 1
FAILURE = 255
_PASSED_ON = (ExitCode.DONE, ExitCode.INTERRUPTED, ExitCode.TERMINATED)
PROGRAM = "kmstool_enclave_cli"
_KEY_SPECS = {"AES-256": "AES_256", "AES-128": "AES_128"}


class _Command(click.Command):
    """A command whose errors never repeat a stray argument: here it may be a secret."""

    allow_extra_args = True

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        super().parse_args(ctx, args)
        if ctx.args:
            raise click.UsageError(f"{len(ctx.args)} arguments belong to no option", ctx)
        return []


@click.group()
def cli() -> None:
    """Attested KMS calls with the options and the output of AWS' kmstool_enclave_cli."""


def connection_options(command: F) -> F:
    """The options that all three commands have."""
    for option in (
        click.option("-t", "--aws-session-token", metavar="TOKEN", help="If there is one."),
        click.option("-s", "--aws-secret-access-key", metavar="SECRET"),
        click.option(
            "-k",
            "--aws-access-key-id",
            metavar="ID",
            help="Without -k and -s: the AWS_* variables, then KMSTOOL_CREDENTIALS.",
        ),
        click.option(
            "-x",
            "--proxy-port",
            type=click.IntRange(0, 0xFFFFFFFF),
            default=8000,
            show_default=True,
            help="Of the proxy on the parent, CID 3.",
        ),
        click.option("-r", "--region", help="[default: the key ARN's, or us-east-1]"),
    ):
        command = option(command)
    return command


@cli.command(cls=_Command)
@connection_options
@click.option("-c", "--ciphertext", metavar="BASE64", required=True)
@click.option("-K", "--key-id", help="A full ARN pins the key; an alias or id does not.")
@click.option(
    "-a",
    "--encryption-algorithm",
    type=click.Choice(["SYMMETRIC_DEFAULT", "RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256"]),
    help="Needs --key-id.",
)
def decrypt(
    *, ciphertext: str, key_id: str | None, encryption_algorithm: str | None, **connection: Any
) -> None:
    """Decrypt a ciphertext; prints PLAINTEXT: and base64."""
    from kmstool.arn import ANY_KEY  # noqa: PLC0415 - not for --help
    from kmstool.enclave.results import Decrypted  # noqa: PLC0415

    if encryption_algorithm is not None and key_id is None:
        raise click.UsageError("--encryption-algorithm needs --key-id")
    blob = parse_base64(os.fsencode(ciphertext), what="the ciphertext", hint=None)
    key = ANY_KEY if key_id is None else _key(key_id)
    kms, caveats = _open(key, **connection)
    with kms:
        result = kms.decrypt(blob, key=key, encryption_algorithm=encryption_algorithm)
    assert isinstance(result, Decrypted)  # noqa: S101 - there is no dry run here
    _print(caveats + result.caveats, PLAINTEXT=result.plaintext)


@cli.command(cls=_Command)
@connection_options
@click.option("-K", "--key-id", required=True, help="A full ARN pins the key.")
@click.option("-p", "--key-spec", type=click.Choice(list(_KEY_SPECS)), required=True)
def genkey(*, key_id: str, key_spec: str, **connection: Any) -> None:
    """Make a data key; prints CIPHERTEXT: and PLAINTEXT: with base64."""
    from kmstool.enclave.results import DataKey  # noqa: PLC0415 - not for --help

    key = _key(key_id)
    kms, caveats = _open(key, **connection)
    with kms:
        result = kms.generate_data_key(key=key, key_spec=_KEY_SPECS[key_spec])
    assert isinstance(result, DataKey)  # noqa: S101 - there is no dry run here
    _print(caveats + result.caveats, CIPHERTEXT=result.ciphertext_blob, PLAINTEXT=result.plaintext)


@cli.command(cls=_Command)
@connection_options
@click.option("-l", "--length", type=click.IntRange(1, 1024), required=True, help="In bytes.")
def genrandom(*, length: int, **connection: Any) -> None:
    """Get random bytes; prints PLAINTEXT: and base64."""
    kms, caveats = _open(None, **connection)
    with kms:
        result = kms.generate_random(length)
    _print(caveats + result.caveats, PLAINTEXT=result.plaintext)


def main(arguments: Sequence[str]) -> int:
    """Runs one command line, without the program's name, and returns the C tool's exit code."""
    is_usage = False

    def body() -> None:
        nonlocal is_usage
        try:
            # The C tool explains itself on stderr; results go to the descriptor of stdout.
            with (
                contextlib.redirect_stdout(sys.stderr),
                cli.make_context(PROGRAM, list(arguments)) as context,
            ):
                cli.invoke(context)
        except (click.exceptions.Exit, click.ClickException):
            is_usage = True
            raise

    code = guarded(body, common=Common())
    if is_usage:
        return USAGE
    # Killed by a signal, the C tool has the shell's own code for that.
    return code if code in _PASSED_ON else FAILURE


def run() -> NoReturn:
    """The console script `kmstool_enclave_cli`."""
    die_quietly_on_ctrl_c()
    leave(main(sys.argv[1:]))


def _key(text: str) -> "KeyArn | UnpinnedKeyId":
    from kmstool.arn import parse_key_arn  # noqa: PLC0415 - not for --help
    from kmstool.enclave.direct import UnpinnedKeyId  # noqa: PLC0415

    if text.startswith("arn:") and ":key/" in text:
        return parse_key_arn(text)
    return UnpinnedKeyId(text)


def _open(
    key: "KeyArn | UnpinnedKeyId | AnyKey | None",
    *,
    region: str | None,
    proxy_port: int,
    aws_access_key_id: str | None,
    aws_secret_access_key: str | None,
    aws_session_token: str | None,
) -> "tuple[DirectKms, tuple[Caveat, ...]]":
    """The client, and what the command line itself says against trusting the result."""
    from kmstool.arn import KeyArn  # noqa: PLC0415 - not for --help
    from kmstool.enclave.process import harden  # noqa: PLC0415
    from kmstool.session import SessionOptions, open_direct  # noqa: PLC0415

    harden()
    credentials = _credentials(aws_access_key_id, aws_secret_access_key, aws_session_token)
    if region is None and not isinstance(key, KeyArn):
        region = "us-east-1"
    # The emulator's directory says where its KMS is.
    via = () if "KMSTOOL_EMULATOR" in os.environ else (f"direct=vsock://3:{proxy_port}",)
    kms = open_direct(
        SessionOptions(region=region, via=via), key=key, explicit_credentials=credentials
    )
    return kms, () if credentials is None else (CREDENTIALS_ON_COMMAND_LINE,)


def _credentials(
    access_key_id: str | None, secret_access_key: str | None, session_token: str | None
) -> "Credentials | None":
    if access_key_id is None and secret_access_key is None and session_token is None:
        return None
    if access_key_id is None or secret_access_key is None:
        raise click.UsageError(
            "--aws-access-key-id and --aws-secret-access-key belong together",
            click.get_current_context(),
        )
    from kmstool.enclave.credentials import Credentials  # noqa: PLC0415 - not for --help

    return Credentials(access_key_id, secret_access_key, session_token, None)


def _print(caveats: tuple[Caveat, ...], **lines: bytes) -> None:
    from kmstool.cli.output import Output, deliver, encode  # noqa: PLC0415 - not for --help

    console.warn(caveats)
    text = b"".join(
        name.encode("ascii") + b": " + encode(data, "base64") for name, data in lines.items()
    )
    deliver([Output(text, None)])
