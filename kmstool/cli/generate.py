"""`kmstool generate-data-key`, `generate-data-key-pair` and `generate-random`."""

from typing import TYPE_CHECKING

import click

from kmstool.cli.common import Common
from kmstool.cli.options import RequestOptions, key_option, request_options, session_options
from kmstool.cli.results import Destination, output_options
from kmstool.protocol import DATA_KEY_PAIR_SPECS, DATA_KEY_SPECS
from kmstool.session import SessionOptions, open_direct

if TYPE_CHECKING:
    from kmstool.arn import KeyArn


@click.command("generate-data-key")
@key_option()
@click.option("--key-spec", type=click.Choice(DATA_KEY_SPECS), help="[default: AES_256]")
@click.option(
    "--number-of-bytes",
    type=click.IntRange(1, 1024),
    help="A length in place of --key-spec, 1 to 1,024.",
)
@request_options()
@output_options(ciphertext_out="CiphertextBlob")
@session_options
def generate_data_key(
    common: Common,  # noqa: ARG001 - every command gets it
    *,
    key: "KeyArn",
    key_spec: str | None,
    number_of_bytes: int | None,
    request: RequestOptions,
    destination: Destination,
    session: SessionOptions,
) -> None:
    """Make a data key, and the same key encrypted.

    Writes one JSON object with Plaintext and CiphertextBlob; with --ciphertext-out the blob goes to
    that file, and the key itself to -o or stdout.

    \b
    Example:
      kmstool generate-data-key --key-id "$ARN" -o data.key --ciphertext-out data.key.enc
    """
    if key_spec is not None and number_of_bytes is not None:
        raise click.UsageError(
            "--key-spec and --number-of-bytes exclude each other", click.get_current_context()
        )
    if number_of_bytes is None and key_spec is None:
        key_spec = "AES_256"
    with open_direct(session, key=key) as kms:
        result = kms.generate_data_key(
            key=key,
            key_spec=key_spec,
            number_of_bytes=number_of_bytes,
            encryption_context=request.encryption_context,
            grant_tokens=request.grant_tokens,
            dry_run=request.dry_run,
        )
    destination.write(
        result,
        fields=lambda done: {
            "KeyId": done.key_id,
            "Plaintext": done.plaintext,
            "CiphertextBlob": done.ciphertext_blob,
        },
        secret="Plaintext",  # noqa: S106 - the name of a field
    )


@click.command("generate-data-key-pair")
@key_option()
@click.option(
    "--key-pair-spec",
    type=click.Choice(DATA_KEY_PAIR_SPECS),
    metavar="SPEC",
    required=True,
    help=f"One of {', '.join(DATA_KEY_PAIR_SPECS)}.",
)
@request_options()
@output_options(ciphertext_out="PrivateKeyCiphertextBlob", public_key_out="PublicKey")
@session_options
def generate_data_key_pair(
    common: Common,  # noqa: ARG001 - every command gets it
    *,
    key: "KeyArn",
    key_pair_spec: str,
    request: RequestOptions,
    destination: Destination,
    session: SessionOptions,
) -> None:
    """Make a key pair, its private key also encrypted.

    Writes one JSON object; with --ciphertext-out the encrypted private key goes to that file, the
    private key (PKCS #8 DER) to -o or stdout, and the public key to --public-key-out.

    \b
    Example:
      kmstool generate-data-key-pair --key-id "$ARN" --key-pair-spec ECC_NIST_P256 \\
          -o key.der --ciphertext-out key.enc --public-key-out key.pub.der
    """
    with open_direct(session, key=key) as kms:
        result = kms.generate_data_key_pair(
            key=key,
            key_pair_spec=key_pair_spec,
            encryption_context=request.encryption_context,
            grant_tokens=request.grant_tokens,
            dry_run=request.dry_run,
        )
    destination.write(
        result,
        fields=lambda done: {
            "KeyId": done.key_id,
            "KeyPairSpec": done.key_pair_spec,
            "PrivateKeyPlaintext": done.private_key_plaintext,
            "PrivateKeyCiphertextBlob": done.private_key_ciphertext_blob,
            "PublicKey": done.public_key,
        },
        secret="PrivateKeyPlaintext",  # noqa: S106 - the name of a field
    )


@click.command("generate-random")
@click.argument("number_of_bytes", metavar="BYTES", type=click.IntRange(1, 1024))
@output_options()
@session_options
def generate_random(
    common: Common,  # noqa: ARG001 - every command gets it
    *,
    number_of_bytes: int,
    destination: Destination,
    session: SessionOptions,
) -> None:
    """Get random bytes from KMS.

    BYTES is 1 to 1,024. Always brings the caveat kms-random: the answer is only as good as the TLS
    session that carried it, which needed good randomness already. The enclave's own sources come
    first.
    """
    with open_direct(session, key=None) as kms:
        result = kms.generate_random(number_of_bytes)
    destination.write(
        result,
        fields=lambda done: {"Plaintext": done.plaintext},
        secret="Plaintext",  # noqa: S106 - the name of a field
    )
