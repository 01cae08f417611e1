"""Whom `kmstool seal` seals to: public keys with their ARNs, birth certificates, data keys."""

import contextlib
import os
from typing import TYPE_CHECKING, Final

import click

from kmstool.arn import KeyArn, parse_key_arn
from kmstool.caveats import UNATTESTED_DATA_KEY
from kmstool.cli.input import read_bytes
from kmstool.cli.options import KEY_ID_VARIABLE
from kmstool.cli.public_key import parse_public_key
from kmstool.errors import SettingError
from kmstool.sealing.recipients import HpkeRecipient, Recipient, public_key_recipient
from kmstool.session import SessionOptions, attestation_root, is_relayed, open_direct

if TYPE_CHECKING:
    from kmstool.cli.expectations import BirthExpectations

_IMAGE_PCRS: Final = (0, 1, 2)
_ENCLAVE_OPTIONS: Final = {
    "via": "--via",
    "region": "--region",
    "credentials": "--credentials",
    "host": "--host",
    "fips": "--fips",
    "roots_file": "--roots",
    "nonce": "--nonce",
    "user_data": "--user-data",
}


def read_recipients(
    paths: tuple[str, ...],
    key_ids: tuple[str, ...],
    expected: "BirthExpectations",
    *,
    with_data_key: bool,
) -> tuple[list[Recipient], list[KeyArn]]:
    """The recipients of `--to`, and the keys whose ARNs are left over, for data keys.

    Args:
        paths: of public keys, each of which takes the next of `key_ids`, and of birth certificates,
            which say themselves which key they are of.
        expected: what a birth certificate is held against.
    """
    if not paths and not with_data_key:
        raise _usage("nobody to seal to: give --to FILE or --data-key")
    files = [read_bytes(path, what="the recipient") for path in paths]
    certificates = [_is_certificate(data) for data in files]
    _check_expected(expected, needed=any(certificates))
    keys = _keys(key_ids, certificates.count(False), with_data_key=with_data_key)
    recipients: list[Recipient] = []
    for data, is_certificate in zip(files, certificates, strict=True):
        if is_certificate:
            recipients.append(_born(data, expected))
        else:
            recipients.append(public_key_recipient(keys.pop(0), parse_public_key(data)))
    return recipients, keys


def make_data_keys(
    keys: list[KeyArn], context: dict[str, str] | None, session: SessionOptions, *, outside: bool
) -> list[Recipient]:
    """Asks KMS for one data key under each key.

    Args:
        outside: this machine is no enclave, and gets it without attestation.
    """
    if outside:
        return _make_outside(keys, context, session)
    if not keys:
        return []
    if is_relayed(session):
        raise SettingError(
            "a data key over a relay would be one that the parent chose and knows",
            hint="use --via direct, or seal with --to to a key-agreement key",
        )
    from kmstool.holders import data_key_recipient  # noqa: PLC0415 - not without --data-key

    recipients: list[Recipient] = []
    with contextlib.ExitStack() as stack:
        for key in keys:
            kms = stack.enter_context(open_direct(session, key=key))
            recipients.append(data_key_recipient(kms, key, context))
    return recipients


def _make_outside(
    keys: list[KeyArn], context: dict[str, str] | None, session: SessionOptions
) -> list[Recipient]:
    from kmstool.outside import outside_data_key  # noqa: PLC0415 - as above

    usual = SessionOptions()
    for name, option in _ENCLAVE_OPTIONS.items():
        if getattr(session, name) != getattr(usual, name):
            raise SettingError(
                f"{option} means nothing with --outside",
                hint="credentials and endpoint are those that an AWS SDK finds (AWS_PROFILE,"
                " AWS_ENDPOINT_URL_KMS, AWS_USE_FIPS_ENDPOINT), and nothing is attested",
            )
    session.tolerance.check((UNATTESTED_DATA_KEY,))
    return [outside_data_key(key, context, timeout=session.timeout) for key in keys]


def _keys(key_ids: tuple[str, ...], public_keys: int, *, with_data_key: bool) -> list[KeyArn]:
    """The keys in order: first one for each public key, then those that make data keys."""
    if not key_ids and (public_keys or with_data_key) and os.environ.get(KEY_ID_VARIABLE):
        key_ids = (os.environ[KEY_ID_VARIABLE],)
    if len(key_ids) < public_keys + with_data_key:
        raise _usage(
            "each public key of --to needs a --key-id ARN, and --data-key needs one of its own"
        )
    if len(key_ids) > public_keys and not with_data_key:
        raise _usage("there are more --key-id than public keys: add --data-key, or leave them out")
    return [parse_key_arn(key_id) for key_id in key_ids]


def _is_certificate(data: bytes) -> bool:
    return data.startswith(b"{")  # PEM begins with a hyphen, DER with 0x30


def _born(data: bytes, expected: "BirthExpectations") -> HpkeRecipient:
    # Not at the top: sealing to a public key needs no reader of attestation documents.
    from kmstool.birth import verify_birth_certificate  # noqa: PLC0415
    from kmstool.holders import birth_recipient  # noqa: PLC0415

    assert expected.account is not None  # noqa: S101 - checked before
    root_der, caveats = attestation_root()
    born = verify_birth_certificate(
        data,
        pcrs=expected.pcrs,
        account=expected.account,
        also_images=expected.also_images,
        root_der=root_der,
    )
    return birth_recipient(born, caveats)


def _check_expected(expected: "BirthExpectations", *, needed: bool) -> None:
    if not needed and any(expected):
        raise _usage("--pcr, --pcr-from, --account and --also-image are for a birth certificate")
    if needed and (expected.account is None or not expected.pcrs.keys() >= {*_IMAGE_PCRS}):
        raise _usage(
            "a birth certificate needs --account, and PCR0, PCR1 and PCR2 by --pcr or --pcr-from:"
            " an attacker's own image makes certificates just as genuine"
        )


def _usage(message: str) -> click.UsageError:
    return click.UsageError(message, click.get_current_context())
