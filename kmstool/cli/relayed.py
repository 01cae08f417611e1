"""`--via relay` of `decrypt` and `derive-shared-secret`: a bare secret that nobody vouches for.

Apart from `operations.py`, so that a direct decrypt does not import it. That the user accepts an
unauthenticated answer of a stated length has been checked by then.
"""

from typing import TYPE_CHECKING, Any, Literal, cast

import click
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from kmstool.arn import KeyArn
from kmstool.caveats import RAW_SHARED_SECRET
from kmstool.cli.options import RequestOptions
from kmstool.cli.output import refuse_terminal
from kmstool.cli.results import Destination
from kmstool.enclave.relayed import SECRET_LENGTHS
from kmstool.errors import InputError, SettingError
from kmstool.session import SessionOptions, open_relayed

if TYPE_CHECKING:
    from kmstool.arn import AnyKey
    from kmstool.enclave.relayed import UnauthenticatedKey


def decrypt_relayed(
    ciphertext: bytes,
    *,
    key: "KeyArn | AnyKey",
    length: str | None,
    encryption_algorithm: str | None,
    request: RequestOptions,
    destination: Destination,
    session: SessionOptions,
) -> None:
    """Writes a key of `length` bytes: KMS' plaintext, the parent's, or random bytes."""
    _refuse_dry_run(request)
    _refuse_terminal(destination)
    if not isinstance(key, KeyArn):
        raise SettingError(
            "--any-key does not exist over a relay", hint="give --key-id with the key's full ARN"
        )
    with open_relayed(session, key=key) as kms:
        result = kms.decrypt(
            ciphertext,
            key=key,
            key_length=cast("Literal[16, 24, 32]", int(length or 0)),
            encryption_context=request.encryption_context,
            encryption_algorithm=encryption_algorithm,
            grant_tokens=request.grant_tokens,
        )
    destination.write(
        result,
        fields=lambda done: {
            "KeyId": str(done.key_id),
            "Plaintext": done.reveal_bytes_the_parent_may_have_chosen(),
            "EncryptionAlgorithm": encryption_algorithm or "SYMMETRIC_DEFAULT",
        },
        secret="Plaintext",  # noqa: S106 - the name of a field
    )


def derive_relayed(
    public_key: bytes,
    *,
    key: KeyArn,
    length: int | None,
    salt: bytes | None,
    info: bytes | None,
    raw_secret: bool,
    request: RequestOptions,
    destination: Destination,
    session: SessionOptions,
) -> None:
    """Writes a key derived from an ECDH secret, or the secret: KMS', the parent's, or random."""
    _refuse_dry_run(request)
    _refuse_terminal(destination)
    secret_length = _coordinate_length(public_key)
    if raw_secret and length != secret_length:
        raise click.UsageError(
            f"--length is {length}, and a raw secret on this curve has {secret_length} bytes",
            click.get_current_context(),
        )
    with open_relayed(session, key=key) as kms:
        result = kms.derive_shared_secret(
            public_key,
            key=key,
            secret_length=cast("Literal[32, 48, 66]", secret_length),
            grant_tokens=request.grant_tokens,
        )

    def fields(done: "UnauthenticatedKey") -> dict[str, Any]:
        name = "SharedSecret" if raw_secret else "DerivedKey"
        if not raw_secret:
            done = done.derive(length=length or 0, salt=salt or b"", info=info or b"")
        return {
            "KeyId": str(done.key_id),
            "KeyAgreementAlgorithm": "ECDH",
            name: done.reveal_bytes_the_parent_may_have_chosen(),
        }

    destination.write(
        result,
        fields=fields,
        secret="SharedSecret" if raw_secret else "DerivedKey",
        more_caveats=(RAW_SHARED_SECRET,) if raw_secret else (),
    )


def _coordinate_length(public_key: bytes) -> int:
    """Bytes of an x-coordinate on the other side's curve, which is the length of the secret."""
    try:
        loaded = load_der_public_key(public_key)
    except ValueError:
        raise InputError("the public key is not one that can be read") from None
    length = (loaded.key_size + 7) // 8 if isinstance(loaded, EllipticCurvePublicKey) else 0
    if length not in SECRET_LENGTHS:
        raise InputError(
            "the public key is on none of the curves that KMS agrees keys on",
            hint="they are P-256, P-384 and P-521",
        )
    return length


def _refuse_dry_run(request: RequestOptions) -> None:
    if request.dry_run:
        raise SettingError("--dry-run does not exist over a relay", hint="use --via direct")


def _refuse_terminal(destination: Destination) -> None:
    """Beforehand: elsewhere it depends on whether the secret is text, which nobody may learn."""
    if destination.form == "raw":
        refuse_terminal(destination.main)
