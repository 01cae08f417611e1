"""Whom a file is sealed to, and how an opener gets the file key back from one of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import assert_never

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from kmstool import limits
from kmstool.arn import KeyArn
from kmstool.caveats import UNVERIFIED_RECIPIENT, Caveat
from kmstool.errors import InputError
from kmstool.sealing import datakey, hpke
from kmstool.sealing.format import KEY_LENGTH, label
from kmstool.sealing.header import DataKeyEntry, Entry, HpkeEntry
from kmstool.sealing.holder import KeyHolder


@dataclass(frozen=True, slots=True, kw_only=True)
class HpkeRecipient:
    """A KMS key-agreement key, by its public half. Made by `public_key_recipient`.

    Attributes:
        key: its ARN, which the opener will use.
        public_key: on P-256, P-384 or P-521.
        caveats: `unverified-recipient`, unless somebody vouches for the pair of key and ARN.
    """

    key: KeyArn
    public_key: ec.EllipticCurvePublicKey
    caveats: tuple[Caveat, ...] = (UNVERIFIED_RECIPIENT,)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataKeyRecipient:
    """A data key of 32 bytes that KMS made (GenerateDataKey, `AES_256`).

    Attributes:
        key: the ARN of the KMS key that it is encrypted under.
        data_key: the key itself.
        ciphertext_blob: the same under the KMS key, 1 to 6,144 bytes.
        encryption_context: what KMS bound it to.
        caveats: what is known against it, from the call that made it.
    """

    key: KeyArn
    data_key: bytes = field(repr=False)
    ciphertext_blob: bytes
    encryption_context: Mapping[str, str] = field(default_factory=dict)
    caveats: tuple[Caveat, ...] = ()

    def __post_init__(self) -> None:
        if len(self.data_key) != KEY_LENGTH:
            raise InputError(
                f"the data key has {len(self.data_key)} bytes, and {KEY_LENGTH} are needed",
                hint="make it with the key spec AES_256",
            )


Recipient = HpkeRecipient | DataKeyRecipient


def public_key_recipient(
    key: KeyArn, public_key_der: bytes, *, caveats: tuple[Caveat, ...] = (UNVERIFIED_RECIPIENT,)
) -> HpkeRecipient:
    """A recipient from a SubjectPublicKeyInfo in DER, as KMS GetPublicKey gives it.

    Args:
        caveats: leave them: only what a verified birth certificate says goes without.

    Raises:
        InputError: it is no public key on P-256, P-384 or P-521.
    """
    try:
        public_key = load_der_public_key(public_key_der[: limits.PUBLIC_KEY_MAX])
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(
            "the recipient's public key is not a SubjectPublicKeyInfo in DER",
            hint="it is what `aws kms get-public-key` gives",
        ) from None
    if not isinstance(public_key, ec.EllipticCurvePublicKey):
        raise InputError(
            "the recipient's public key is not of an elliptic curve",
            hint="take a KMS key for key agreement on P-256, P-384 or P-521",
        )
    hpke.kem_of(public_key)
    return HpkeRecipient(key=key, public_key=public_key, caveats=caveats)


def wrap(recipient: Recipient, file_key: bytes, salt: bytes) -> Entry:
    """The header's entry from which this recipient, and nobody else, gets the file key."""
    match recipient:
        case HpkeRecipient():
            kem = hpke.kem_of(recipient.public_key)
            sealed = hpke.seal_to(recipient.public_key, file_key, _hpke_info(recipient.key))
            length = hpke.PARAMETERS[kem].point_length
            return HpkeEntry(
                key=recipient.key,
                kem=kem,
                public_key=hpke.encode_point(recipient.public_key),
                enc=sealed[:length],
                wrapped=sealed[length:],
            )
        case DataKeyRecipient():
            wrapped = datakey.wrap(
                file_key,
                recipient.data_key,
                salt,
                key=recipient.key,
                ciphertext_blob=recipient.ciphertext_blob,
                encryption_context=recipient.encryption_context,
            )
            return DataKeyEntry(
                key=recipient.key,
                wrapped=wrapped,
                ciphertext_blob=recipient.ciphertext_blob,
                encryption_context=recipient.encryption_context,
            )
        case _:
            assert_never(recipient)


def unwrap(entry: Entry, salt: bytes, holder: KeyHolder) -> bytes:
    """The file key, with one call to `holder`.

    Raises:
        NotOpenedError: what the holder answered does not open it. And whatever the holder raises.
    """
    match entry:
        case HpkeEntry():
            return hpke.open_with(
                lambda der, length: holder.agree(entry.key, der, length),
                hpke.parse_point(entry.kem, entry.public_key),
                entry.enc,
                entry.wrapped,
                _hpke_info(entry.key),
            )
        case DataKeyEntry():
            data_key = holder.unwrap(
                entry.key, entry.ciphertext_blob, entry.encryption_context, KEY_LENGTH
            )
            return datakey.unwrap(
                entry.wrapped,
                data_key,
                salt,
                key=entry.key,
                ciphertext_blob=entry.ciphertext_blob,
                encryption_context=entry.encryption_context,
            )
        case _:
            assert_never(entry)


def _hpke_info(key: KeyArn) -> bytes:
    return label("hpke", str(key).encode("ascii"))
