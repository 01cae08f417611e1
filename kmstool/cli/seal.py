"""`kmstool seal`: a file that only the enclaves of a KMS key open."""

import contextlib
import os
from typing import TYPE_CHECKING

import click

from kmstool.arn import KeyArn, parse_key_arn
from kmstool.cli import console
from kmstool.cli.common import Common
from kmstool.cli.input import InputStream
from kmstool.cli.options import KEY_ID_VARIABLE, PairType, as_mapping, session_options
from kmstool.cli.output import Stream, check_target
from kmstool.cli.progress import progress
from kmstool.cli.public_key import read_public_key, read_signing_key
from kmstool.errors import SettingError
from kmstool.sealing.files import seal as seal_file
from kmstool.sealing.format import BodyCipher
from kmstool.sealing.recipients import Recipient, public_key_recipient
from kmstool.session import SessionOptions, is_relayed, open_direct

if TYPE_CHECKING:
    from kmstool.sealing.recipients import DataKeyRecipient

CIPHERS = {"aes-256-gcm": BodyCipher.AES_256_GCM, "chacha20-poly1305": BodyCipher.CHACHA20_POLY1305}


@click.command()
@click.argument("source", metavar="[INPUT]", default="-")
@click.option(
    "--to",
    "public_keys",
    metavar="FILE",
    multiple=True,
    help="Seal to this public key of a KMS key-agreement key, PEM or DER; takes the next --key-id"
    " (repeatable).",
)
@click.option(
    "--data-key",
    "with_data_key",
    is_flag=True,
    help="Seal under a data key of each KMS key whose --key-id no --to takes; inside an enclave.",
)
@click.option(
    "--key-id",
    "key_ids",
    metavar="ARN",
    multiple=True,
    help=f"The full ARN of a KMS key, in the order of --to  [variable: {KEY_ID_VARIABLE}]",
)
@click.option(
    "--encryption-context",
    type=PairType(),
    multiple=True,
    help="With --data-key: what KMS binds the data key to (repeatable).",
)
@click.option("--label", metavar="TEXT", help="What kind of file this is, 1 to 256 bytes.")
@click.option(
    "--counter",
    type=click.IntRange(0),
    metavar="N",
    help="Which of several; an opener can refuse older ones.",
)
@click.option(
    "--sign-with", metavar="FILE", help="Sign the file with this Ed25519 private key, PEM."
)
@click.option(
    "--cipher",
    type=click.Choice(list(CIPHERS)),
    default="aes-256-gcm",
    show_default=True,
    help="How the content is encrypted.",
)
@click.option("-o", "--output", metavar="FILE", help="Write to this file, whole or not at all.")
@session_options
def seal(
    common: Common,
    *,
    source: str,
    public_keys: tuple[str, ...],
    with_data_key: bool,
    key_ids: tuple[str, ...],
    encryption_context: tuple[tuple[str, str], ...],
    label: str | None,
    counter: int | None,
    sign_with: str | None,
    cipher: str,
    output: str | None,
    session: SessionOptions,
) -> None:
    """Seal a file that only the enclaves of a KMS key open.

    Reads INPUT or stdin as it is, of any length. With --to no network and no AWS account is needed.
    With several recipients, each of them opens the file.

    Without --sign-with nobody can tell who sealed it. --to with a public key brings the caveat
    unverified-recipient: whoever has that key's private half opens the file, whatever the ARN says.

    \b
    Examples:
      kmstool seal --to enclave-key.pem --key-id "$ARN" -o config.sealed config.json
      kmstool seal --data-key --key-id "$ARN" --encryption-context app=web -o db.sealed db
    """
    keys = _keys(key_ids, public_keys, with_data_key=with_data_key)
    context = as_mapping(encryption_context)
    if context is not None and not with_data_key:
        raise _usage("--encryption-context is for --data-key")
    check_target(output)
    signing_key = None if sign_with is None else read_signing_key(sign_with)
    recipients: list[Recipient] = [
        public_key_recipient(key, read_public_key(path))
        for path, key in zip(public_keys, keys, strict=False)
    ]
    recipients += _data_keys(keys[len(public_keys) :], context, session)
    with InputStream(source, what="the plaintext") as stream, Stream(output) as target:
        with progress(stream, "sealing") as watched:
            done = seal_file(
                watched,
                target.start(),
                recipients,
                cipher=CIPHERS[cipher],
                label=label,
                counter=counter,
                signing_key=signing_key,
                tolerance=common.tolerance(),
            )
        console.warn(done.caveats)
        target.commit()


def _keys(
    key_ids: tuple[str, ...], public_keys: tuple[str, ...], *, with_data_key: bool
) -> list[KeyArn]:
    """The keys in order: first one for each public key, then those that make data keys."""
    if not public_keys and not with_data_key:
        raise _usage("nobody to seal to: give --to FILE or --data-key, and --key-id ARN")
    if not key_ids and os.environ.get(KEY_ID_VARIABLE):
        key_ids = (os.environ[KEY_ID_VARIABLE],)
    if len(key_ids) < len(public_keys) + with_data_key:
        raise _usage("each --to needs a --key-id ARN, and --data-key needs one of its own")
    if len(key_ids) > len(public_keys) and not with_data_key:
        raise _usage("there are more --key-id than --to: add --data-key, or leave them out")
    return [parse_key_arn(key_id) for key_id in key_ids]


def _data_keys(
    keys: list[KeyArn], context: dict[str, str] | None, session: SessionOptions
) -> "list[DataKeyRecipient]":
    if not keys:
        return []
    if is_relayed(session):
        raise SettingError(
            "a data key over a relay would be one that the parent chose and knows",
            hint="use --via direct, or seal with --to to a key-agreement key",
        )
    from kmstool.holders import data_key_recipient  # noqa: PLC0415 - not without --data-key

    recipients = []
    with contextlib.ExitStack() as stack:
        for key in keys:
            kms = stack.enter_context(open_direct(session, key=key))
            recipients.append(data_key_recipient(kms, key, context))
    return recipients


def _usage(message: str) -> click.UsageError:
    return click.UsageError(message, click.get_current_context())
