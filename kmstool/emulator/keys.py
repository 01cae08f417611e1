"""A KMS key of the emulator: its metadata, its material, and what each key spec can do.

Key material lives in this process' memory (and in the store's file, when there is one) in the
clear: this is an emulator, there is no hardware behind it. It is never part of a `repr`.
Source: KMS developer guide, "Key spec reference" and "Key states of KMS keys".
"""

import secrets
import uuid
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from kmstool.emulator.refusal import Refusal, invalid

SYMMETRIC: Final = "SYMMETRIC_DEFAULT"
ENCRYPT_DECRYPT: Final = "ENCRYPT_DECRYPT"
KEY_AGREEMENT: Final = "KEY_AGREEMENT"

State = Literal["Enabled", "Disabled", "PendingDeletion"]
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
_PairKey = PrivateKey | ed25519.Ed25519PrivateKey

_RSA_BITS = {"RSA_2048": 2048, "RSA_3072": 3072, "RSA_4096": 4096}
_CURVES: dict[str, type[ec.EllipticCurve]] = {
    "ECC_NIST_P256": ec.SECP256R1,
    "ECC_NIST_P384": ec.SECP384R1,
    "ECC_NIST_P521": ec.SECP521R1,
}
_PAIR_ONLY_CURVES: dict[str, type[ec.EllipticCurve]] = {"ECC_SECG_P256K1": ec.SECP256K1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What CreateGrant gives somebody on one key.

    Attributes:
        grantee: the ARN of who has it.
        operations: names of operations, as in the API.
        created: seconds since 1970.
        issuer: the root ARN of the account that made it.
    """

    grant_id: str
    grantee: str
    operations: tuple[str, ...]
    name: str | None
    created: float
    issuer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One KMS key; a change makes a new object, so a reader never sees half of one.

    Attributes:
        created, deletion: seconds since 1970; `deletion` only while the deletion is pending.
        pending_days: the waiting period asked for, while the deletion is pending.
        policy: the key policy, as text, exactly as it was put.
        material: 32 bytes of an AES key, or the private key.
        material_id: KMS' name of the current material, 64 hexadecimal digits; symmetric keys only.
        grants: what CreateGrant gave.
    """

    key_id: str
    partition: str
    region: str
    account_id: str
    spec: str
    usage: str
    description: str
    created: float
    policy: str
    material: bytes | PrivateKey = field(repr=False)
    material_id: str | None
    state: State = "Enabled"
    deletion: float | None = None
    pending_days: int | None = None
    grants: tuple[Grant, ...] = ()

    @property
    def arn(self) -> str:
        return f"arn:{self.partition}:kms:{self.region}:{self.account_id}:key/{self.key_id}"

    @property
    def is_symmetric(self) -> bool:
        return self.spec == SYMMETRIC

    @property
    def encryption_algorithms(self) -> list[str]:
        """What Encrypt and Decrypt take with this key."""
        if self.usage != ENCRYPT_DECRYPT:
            return []
        return [SYMMETRIC] if self.is_symmetric else ["RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256"]

    def grants_to(self, principal: str, operation: str) -> bool:
        """Whether a grant gives the principal this operation."""
        return any(
            grant.grantee == principal and operation in grant.operations for grant in self.grants
        )

    def secret_key(self) -> bytes:
        """The AES key of a symmetric key."""
        assert isinstance(self.material, bytes)  # noqa: S101 - for the type checker
        return self.material

    def private_key(self) -> PrivateKey:
        """The private key of an asymmetric key."""
        assert not isinstance(self.material, bytes)  # noqa: S101 - for the type checker
        return self.material

    def public_key_der(self) -> bytes:
        """The SubjectPublicKeyInfo of an asymmetric key."""
        return _spki(self.private_key())

    def metadata(self) -> dict[str, Any]:
        """KMS' `KeyMetadata`."""
        optional: dict[str, Any] = {
            "EncryptionAlgorithms": self.encryption_algorithms or None,
            "KeyAgreementAlgorithms": ["ECDH"] if self.usage == KEY_AGREEMENT else None,
            "DeletionDate": self.deletion,
            "CurrentKeyMaterialId": self.material_id,
        }
        return {
            "AWSAccountId": self.account_id,
            "KeyId": self.key_id,
            "Arn": self.arn,
            "CreationDate": self.created,
            "Enabled": self.state == "Enabled",
            "Description": self.description,
            "KeyUsage": self.usage,
            "KeyState": self.state,
            "Origin": "AWS_KMS",
            "KeyManager": "CUSTOMER",
            "CustomerMasterKeySpec": self.spec,
            "KeySpec": self.spec,
            "MultiRegion": False,
        } | {name: value for name, value in optional.items() if value is not None}


def choose_usage(spec: str, usage: str | None) -> str:
    """The usage of a new key, after KMS' rules of which spec takes which.

    Raises:
        Refusal: `ValidationException` for a combination that KMS refuses,
            `UnsupportedOperationException` for one that only this emulator lacks.
    """
    if usage is None:
        if spec != SYMMETRIC:
            raise invalid(
                "You must specify a KeyUsage value for all KMS keys except for symmetric encryption"
                " keys."
            )
        usage = ENCRYPT_DECRYPT
    known = {SYMMETRIC, *_RSA_BITS, *_CURVES}
    if spec not in known or usage not in (ENCRYPT_DECRYPT, KEY_AGREEMENT):
        raise Refusal(
            "UnsupportedOperationException",
            f"The emulator makes no keys of KeySpec {spec} with KeyUsage {usage}",
        )
    if (usage == KEY_AGREEMENT) != (spec in _CURVES):
        raise invalid(f"KeyUsage {usage} is not compatible with KeySpec {spec}")
    return usage


def make_material(spec: str) -> bytes | PrivateKey:
    """New key material of a spec that `choose_usage` let through."""
    if spec == SYMMETRIC:
        return secrets.token_bytes(32)
    if spec in _RSA_BITS:
        return rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS[spec])
    return ec.generate_private_key(_CURVES[spec]())


def new_key_id() -> str:
    """A random UUID, as KMS names its keys."""
    return str(uuid.uuid4())


def make_data_key_pair(spec: str) -> tuple[bytes, bytes]:
    """A key pair for use outside: PKCS #8 DER of the private key, SPKI DER of the public one.

    Raises:
        Refusal: `UnsupportedOperationException` for SM2 and ML-KEM.
    """
    key: _PairKey
    if spec in _RSA_BITS:
        key = rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS[spec])
    elif curve := (_CURVES | _PAIR_ONLY_CURVES).get(spec):
        key = ec.generate_private_key(curve())
    elif spec == "ECC_NIST_EDWARDS25519":
        key = ed25519.Ed25519PrivateKey.generate()
    else:
        raise Refusal(
            "UnsupportedOperationException", f"The emulator makes no data key pairs of {spec}"
        )
    return _pkcs8(key), _spki(key)


def dump_material(material: bytes | PrivateKey) -> bytes:
    """The form in which the store's file keeps material: raw AES key, or PKCS #8 DER."""
    return material if isinstance(material, bytes) else _pkcs8(material)


def load_material(spec: str, data: bytes) -> bytes | PrivateKey:
    """The reverse of `dump_material`.

    Raises:
        ValueError: the data is not material of this spec.
    """
    if spec == SYMMETRIC:
        if len(data) != 32:
            raise ValueError("an AES key has to have 32 bytes")
        return data
    key = serialization.load_der_private_key(data, password=None)
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size == _RSA_BITS.get(spec):
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, _CURVES[spec]):
        return key
    raise ValueError(f"the private key is not of the spec {spec}")


def _pkcs8(key: _PairKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _spki(key: _PairKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
