"""`kmstool seal`: a file that only the enclaves of a KMS key open."""

import click

from kmstool.caveats import Caveat
from kmstool.cli import console
from kmstool.cli.common import Common
from kmstool.cli.expectations import BirthExpectations, birth_options
from kmstool.cli.input import InputStream
from kmstool.cli.options import KEY_ID_VARIABLE, PairType, as_mapping, session_options
from kmstool.cli.output import Stream, check_target
from kmstool.cli.progress import progress
from kmstool.cli.public_key import read_signing_key
from kmstool.cli.recipients import make_data_keys, read_recipients
from kmstool.sealing.files import seal as seal_file
from kmstool.sealing.format import BodyCipher
from kmstool.sealing.recipients import Recipient
from kmstool.session import SessionOptions

CIPHERS = {"aes-256-gcm": BodyCipher.AES_256_GCM, "chacha20-poly1305": BodyCipher.CHACHA20_POLY1305}


@click.command()
@click.argument("source", metavar="[INPUT]", default="-")
@click.option(
    "--to",
    metavar="FILE",
    multiple=True,
    help="Seal to this public key of a KMS key-agreement key, PEM or DER, which takes the next"
    " --key-id; or to the key of this birth certificate, held against --pcr and --account"
    " (repeatable).",
)
@click.option(
    "--data-key",
    "with_data_key",
    is_flag=True,
    help="Seal under a data key of each KMS key whose --key-id no --to takes; inside an enclave,"
    " or with --outside.",
)
@click.option(
    "--outside",
    is_flag=True,
    help="With --data-key: this machine is no enclave. Ask KMS as an AWS SDK would, without"
    " attestation; this machine sees the data key, hence the caveat unattested-data-key.",
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
@birth_options
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
    to: tuple[str, ...],
    with_data_key: bool,
    outside: bool,
    key_ids: tuple[str, ...],
    encryption_context: tuple[tuple[str, str], ...],
    expected: BirthExpectations,
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
    --to with a birth certificate does not, since an enclave vouches for key, image and account.

    \b
    Examples:
      kmstool seal --to enclave-key.pem --key-id "$ARN" -o config.sealed config.json
      kmstool seal --to key.cert --pcr-from image.json --account 111122223333 -o a.sealed a
      kmstool seal --data-key --key-id "$ARN" --encryption-context app=web -o db.sealed db
      kmstool seal --data-key --outside --key-id "$ARN" -o state.sealed state
    """
    context = as_mapping(encryption_context)
    for option, is_given in (("--encryption-context", context is not None), ("--outside", outside)):
        if is_given and not with_data_key:
            raise click.UsageError(f"{option} is for --data-key", click.get_current_context())
    check_target(output)
    recipients, keys = read_recipients(to, key_ids, expected, with_data_key=with_data_key)
    signing_key = None if sign_with is None else read_signing_key(sign_with)
    common.tolerance().check(_caveats(recipients))
    recipients += make_data_keys(keys, context, session, outside=outside)
    console.warn(_caveats(recipients))
    with InputStream(source, what="the plaintext") as stream, Stream(output) as target:
        with progress(stream, "sealing") as watched:
            seal_file(
                watched,
                target.start(),
                recipients,
                cipher=CIPHERS[cipher],
                label=label,
                counter=counter,
                signing_key=signing_key,
                read_ahead=stream.is_worth_a_thread,
                tolerance=common.tolerance(),
            )
        target.commit()


def _caveats(recipients: list[Recipient]) -> tuple[Caveat, ...]:
    return tuple(one for each in recipients for one in each.caveats)
