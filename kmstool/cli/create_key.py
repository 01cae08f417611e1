"""`kmstool create-key`: a KMS key that opens for this image alone, and the proof of it."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from kmstool.cli import console
from kmstool.cli.common import Common
from kmstool.cli.expectations import IMAGE
from kmstool.cli.options import connection_options
from kmstool.cli.output import Output, check_target, deliver
from kmstool.create_key import advice_on_what_stays, make_key, say_that_it_exists
from kmstool.errors import LocalFileError
from kmstool.limits import NSM_PCR_COUNT_MAX
from kmstool.policy.build import KEY_KINDS
from kmstool.session import SessionOptions, open_admin

if TYPE_CHECKING:
    from kmstool.arn import KeyArn


@click.command("create-key")
@click.option(
    "--account",
    metavar="ID",
    required=True,
    help="The account that shall own the key, 12 digits: the credentials may be of another.",
)
@click.option(
    "--key-spec",
    type=click.Choice(list(KEY_KINDS)),
    metavar="SPEC",
    default="ECC_NIST_P256",
    show_default=True,
    help=f"One of {', '.join(KEY_KINDS)}. The ECC ones are for key agreement, which is what files"
    " are sealed to.",
)
@click.option(
    "--lock-pcr",
    "lock_pcrs",
    type=click.IntRange(3, NSM_PCR_COUNT_MAX - 1),
    metavar="N",
    multiple=True,
    help="Lock the key to this PCR of this enclave too, beside PCR0, PCR1 and PCR2 (repeatable).",
)
@click.option(
    "--also-image",
    "also_images",
    type=IMAGE,
    multiple=True,
    help="Another image that the key shall open for, such as a successor known now (repeatable).",
)
@click.option(
    "--administrator",
    metavar="ARN",
    help="A role or user who may disable the key and schedule its deletion, and no more. Without"
    " one nobody ever can.",
)
@click.option("-o", "--output", metavar="FILE", help="Write the birth certificate to this file.")
@connection_options
def create_key(
    common: Common,  # noqa: ARG001 - every command gets it
    *,
    account: str,
    key_spec: str,
    lock_pcrs: tuple[int, ...],
    also_images: tuple[dict[int, bytes], ...],
    administrator: str | None,
    output: str | None,
    session: SessionOptions,
) -> None:
    """Make a KMS key that opens for this image alone.

    Runs in the enclave, over TLS, with credentials that allow kms:CreateKey. The key's policy can
    never be changed, by anyone but AWS. Writes its birth certificate, which proves all that to
    whoever knows the image's PCRs: see verify --birth-certificate.

    \b
    Example:
      kmstool create-key --account 111122223333 -o enclave-key.cert \\
          --administrator arn:aws:iam::111122223333:role/key-admin
    """
    check_target(output)
    nsm, admin, caveats = open_admin(session)
    made: list[KeyArn] = []

    def created(key: "KeyArn") -> None:
        made.append(key)
        console.note(f"kms made {key}; reading it back")
        if administrator is None:
            console.note("no administrator was named: nobody can ever disable or delete this key")

    with _what_a_signal_leaves(made, administrator):
        with nsm, admin:
            born = make_key(
                nsm,
                admin,
                account=account,
                key_spec=key_spec,
                lock_pcrs=lock_pcrs,
                also_images=also_images,
                administrator=administrator,
                caveats=caveats,
                created=created,
            )
        console.warn(born.caveats)
        try:
            deliver([Output(born.certificate, output)])
        except LocalFileError as error:
            say_that_it_exists(error, born.statement.key, administrator)
            raise


@contextlib.contextmanager
def _what_a_signal_leaves(made: "list[KeyArn]", administrator: str | None) -> Iterator[None]:
    """Ctrl-C ends kmstool and no key: says what there is now, or may be."""
    explained = False
    try:
        yield
        explained = True
    except Exception:
        explained = True  # an error names the key itself
        raise
    finally:
        if not explained and made:
            console.note(f"the key {made[0]} exists now, without a birth certificate")
            console.note(advice_on_what_stays(made[0], administrator))
        elif not explained:
            console.note(
                "kms may have made a key by now: look for one made just now (aws kms list-keys, or"
                " CreateKey in CloudTrail) and delete it before you try once more"
            )
