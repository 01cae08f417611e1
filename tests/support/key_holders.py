"""Holders of the keys that test files are sealed to, without a KMS."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)
from support.sealed_files import KEMS, arn, private_key

from kmstool.arn import KeyArn, parse_key_arn
from kmstool.caveats import Caveat
from kmstool.errors import KmsError
from kmstool.sealing.recipients import DataKeyRecipient, HpkeRecipient, public_key_recipient

OTHER_ARN = "arn:aws:kms:eu-west-1:111122223333:key/00000000-0000-0000-0000-000000000000"


def denied() -> KmsError:
    """What KMS says to a stranger."""
    return KmsError("denied", operation="Decrypt", status=400, code="AccessDeniedException")


@dataclass
class LocalHolder:
    """Holds private keys and data keys by ARN; what it does not hold, KMS denies.

    Attributes:
        asked: the ARNs of all questions, in order.
    """

    agreeing: dict[str, ec.EllipticCurvePrivateKey] = field(default_factory=dict)
    data_keys: dict[tuple[str, bytes], bytes] = field(default_factory=dict)
    caveats: tuple[Caveat, ...] = ()
    asked: list[str] = field(default_factory=list)

    def agree(self, key: KeyArn, public_key_der: bytes, secret_length: int) -> bytes:
        self.asked.append(str(key))
        if str(key) not in self.agreeing:
            raise denied()
        peer = load_der_public_key(public_key_der)
        assert isinstance(peer, ec.EllipticCurvePublicKey)
        secret = self.agreeing[str(key)].exchange(ec.ECDH(), peer)
        assert len(secret) == secret_length
        return secret

    def unwrap(
        self,
        key: KeyArn,
        ciphertext_blob: bytes,
        encryption_context: Mapping[str, str],
        key_length: int,
    ) -> bytes:
        self.asked.append(str(key))
        if (str(key), ciphertext_blob) not in self.data_keys:
            raise denied()
        data_key = self.data_keys[str(key), ciphertext_blob]
        assert len(data_key) == key_length
        return data_key


def hpke_pair(name: str, curve: str = "P-256") -> tuple[HpkeRecipient, LocalHolder]:
    """A recipient, and the holder of its key."""
    private = private_key(name, KEMS[curve])
    der = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    recipient = public_key_recipient(parse_key_arn(arn(name)), der)
    return recipient, LocalHolder({arn(name): private})


def data_key_pair(
    name: str, encryption_context: Mapping[str, str] | None = None
) -> tuple[DataKeyRecipient, LocalHolder]:
    """A recipient, and the holder of its key."""
    data_key, blob = name.encode().ljust(32, b"."), b"blob of " + name.encode()
    recipient = DataKeyRecipient(
        key=parse_key_arn(arn(name)),
        data_key=data_key,
        ciphertext_blob=blob,
        encryption_context=encryption_context or {},
    )
    return recipient, LocalHolder(data_keys={(arn(name), blob): data_key})
