"""`kmstool decrypt` and `kmstool derive-shared-secret`."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from kmstool.caveats import RAW_SHARED_SECRET
from kmstool.cli.common import Common
from kmstool.cli.input import read_input
from kmstool.cli.options import (
    BYTES,
    RequestOptions,
    accept_option,
    input_options,
    key_option,
    request_options,
    session_options,
)
from kmstool.cli.results import Destination, output_options
from kmstool.errors import KmsError, SettingError
from kmstool.protocol import ENCRYPTION_ALGORITHMS
from kmstool.session import SessionOptions, is_relayed, open_direct

if TYPE_CHECKING:
    from kmstool.arn import AnyKey, KeyArn
    from kmstool.cli.denied import KnownPolicy
    from kmstool.enclave.results import SharedSecret


@click.command()
@input_options("the ciphertext")
@key_option(any_key=True)
@click.option(
    "--encryption-algorithm",
    type=click.Choice(ENCRYPTION_ALGORITHMS),
    metavar="NAME",
    help=f"One of {', '.join(ENCRYPTION_ALGORITHMS)}  [default: SYMMETRIC_DEFAULT]",
)
@click.option(
    "--length",
    type=click.Choice(["16", "24", "32"]),
    help="With --via relay: bytes of the key that comes out.",
)
@click.option(
    "--policy",
    "policy_file",
    metavar="FILE",
    help="A copy of the key's policy: if KMS denies the call, the hint says what in it fails.",
)
@accept_option
@request_options()
@output_options()
@session_options
def decrypt(
    common: Common,  # noqa: ARG001 - every command gets it
    *,
    source: str,
    encoding: str,
    key: "KeyArn | AnyKey",
    encryption_algorithm: str | None,
    length: str | None,
    policy_file: str | None,
    accept_unauthenticated: bool,
    request: RequestOptions,
    destination: Destination,
    session: SessionOptions,
) -> None:
    """Decrypt a ciphertext for this enclave alone.

    Reads the ciphertext (base64) from INPUT or stdin and writes the plaintext as it is.

    \b
    Example:
      kmstool decrypt --key-id "$ARN" -o /run/db-password < secret.enc

    A shell's $(…) drops trailing newlines and cannot hold NUL bytes: for a plaintext that is not
    text use -o FILE, a pipe, or --format base64.

    Over a relay (--via relay) the parent may have chosen or changed what comes out: only a key for
    an authenticated cipher is worth having there, with --length and --accept-unauthenticated.
    """
    relayed = is_relayed(session)
    _check_relay_options(relayed, accept=accept_unauthenticated, length=length)
    if length is not None and not relayed:
        raise click.UsageError("--length is for --via relay", click.get_current_context())
    known = _known_policy(policy_file, source, key)
    ciphertext = read_input(source, encoding=encoding, what="the ciphertext")
    with _explained(known, request, encryption_algorithm):
        if relayed:
            from kmstool.cli.relayed import decrypt_relayed  # noqa: PLC0415

            decrypt_relayed(
                ciphertext,
                key=key,
                length=length,
                encryption_algorithm=encryption_algorithm,
                request=request,
                destination=destination,
                session=session,
            )
            return
        with open_direct(session, key=key) as kms:
            result = kms.decrypt(
                ciphertext,
                key=key,
                encryption_algorithm=encryption_algorithm,
                encryption_context=request.encryption_context,
                grant_tokens=request.grant_tokens,
                dry_run=request.dry_run,
            )
    destination.write(
        result,
        fields=lambda done: {
            "KeyId": done.key_id,
            "Plaintext": done.plaintext,
            "EncryptionAlgorithm": done.encryption_algorithm,
        },
        secret="Plaintext",  # noqa: S106 - the name of a field
    )


def _known_policy(
    policy_file: str | None, source: str, key: "KeyArn | AnyKey"
) -> "KnownPolicy | None":
    if policy_file is None:
        return None
    if policy_file == source == "-":
        raise click.UsageError("stdin can be read once", click.get_current_context())
    from kmstool.cli.denied import read_known_policy  # noqa: PLC0415 - not for a plain decrypt

    return read_known_policy(policy_file, key)


@contextlib.contextmanager
def _explained(
    known: "KnownPolicy | None", request: RequestOptions, encryption_algorithm: str | None
) -> Iterator[None]:
    """If KMS denies what is done inside, adds what the given policy makes of it."""
    try:
        yield
    except KmsError as error:
        if known is not None:
            known.explain(error, request=request, encryption_algorithm=encryption_algorithm)
        raise


@click.command("derive-shared-secret")
@key_option()
@click.option(
    "--public-key",
    "public_key_file",
    metavar="FILE",
    required=True,
    help="The other side's public key, PEM or DER (SubjectPublicKeyInfo); - is stdin.",
)
@click.option("--salt", type=BYTES, help="For the key derivation (HKDF).")
@click.option("--info", type=BYTES, help="What the derived key is for (HKDF).")
@click.option(
    "--length",
    type=click.IntRange(1, 8160),
    help="Bytes of what comes out  [default: 32; has to be given with --via relay]",
)
@click.option(
    "--raw-secret",
    is_flag=True,
    help="Give the x-coordinate itself. It is not uniformly random, and the same for every use of"
    " these two keys: as a key it is weak, and it cannot be told apart by purpose. For protocols"
    " that do their own derivation; brings the caveat raw-shared-secret.",
)
@accept_option
@request_options(context=False)
@output_options()
@session_options
def derive_shared_secret(
    common: Common,
    *,
    key: "KeyArn",
    public_key_file: str,
    salt: bytes | None,
    info: bytes | None,
    length: int | None,
    raw_secret: bool,
    accept_unauthenticated: bool,
    request: RequestOptions,
    destination: Destination,
    session: SessionOptions,
) -> None:
    """Derive a key from an ECDH exchange with a KMS key.

    KMS multiplies its key-agreement key with the other side's public key; HKDF-SHA-256 makes a key
    of the result here in the enclave.

    \b
    BYTES are written as hex:00FF, base64:AP8=, utf8:TEXT or file:PATH.
    Example:
      kmstool derive-shared-secret --key-id "$ARN" --public-key peer.pem \\
          --info utf8:my-protocol-v1 -o session.key

    Over a relay (--via relay) the parent may have chosen what comes out: only a key for an
    authenticated cipher is worth having there, with --length and --accept-unauthenticated.
    """
    relayed = is_relayed(session)
    _check_relay_options(relayed, accept=accept_unauthenticated, length=length)
    if raw_secret:
        if (salt, info) != (None, None) or (length is not None and not relayed):
            raise click.UsageError(
                "--raw-secret takes no --salt, --info or --length", click.get_current_context()
            )
        common.tolerance().check((RAW_SHARED_SECRET,))
    from kmstool.cli.public_key import read_public_key  # noqa: PLC0415 - not for decrypt

    public_key = read_public_key(public_key_file)
    if relayed:
        from kmstool.cli.relayed import derive_relayed  # noqa: PLC0415

        derive_relayed(
            public_key,
            key=key,
            length=length,
            salt=salt,
            info=info,
            raw_secret=raw_secret,
            request=request,
            destination=destination,
            session=session,
        )
        return
    with open_direct(session, key=key) as kms:
        result = kms.derive_shared_secret(
            public_key, key=key, grant_tokens=request.grant_tokens, dry_run=request.dry_run
        )

    def fields(done: "SharedSecret") -> dict[str, Any]:
        from kmstool.enclave.hkdf import derive_key  # noqa: PLC0415 - after the request is sent

        common_fields = {
            "KeyId": done.key_id,
            "KeyAgreementAlgorithm": done.key_agreement_algorithm,
        }
        if raw_secret:
            return common_fields | {"SharedSecret": done.secret}
        derived = derive_key(done.secret, length=length or 32, salt=salt or b"", info=info or b"")
        return common_fields | {"DerivedKey": derived}

    destination.write(
        result,
        fields=fields,
        secret="SharedSecret" if raw_secret else "DerivedKey",
        more_caveats=(RAW_SHARED_SECRET,) if raw_secret else (),
    )


def _check_relay_options(relayed: bool, *, accept: bool, length: object) -> None:
    """A bare secret from a relay is taken by nobody who has not said so, nor of unknown length."""
    if not relayed:
        if accept:
            raise click.UsageError(
                "--accept-unauthenticated is for --via relay", click.get_current_context()
            )
        return
    if not accept:
        raise SettingError(
            "over a relay the parent may have chosen this secret or changed it, and learns about"
            " the true one from whatever is done with it",
            hint="if it goes straight into an authenticated cipher, add --accept-unauthenticated;"
            " otherwise use --via direct",
        )
    if length is None:
        raise SettingError(
            "over a relay the length of the secret has to be stated",
            hint="add --length: where an answer does not open, a random secret of that length comes"
            " out, so that the parent cannot tell why",
        )
