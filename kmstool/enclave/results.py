"""What the five operations give back: the secret, what KMS said of it, and its caveats.

No `repr` of these shows a secret.
"""

from dataclasses import dataclass, field

from kmstool.caveats import Caveat


@dataclass(frozen=True, slots=True, kw_only=True)
class Decrypted:
    """A plaintext of 1 to 4,096 bytes that KMS decrypted for this enclave."""

    plaintext: bytes = field(repr=False)
    key_id: str
    encryption_algorithm: str
    caveats: tuple[Caveat, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedSecret:
    """The x-coordinate of an ECDH exchange, 32, 48 or 66 bytes: not yet a key, see `hkdf.py`."""

    secret: bytes = field(repr=False)
    key_id: str
    key_agreement_algorithm: str
    caveats: tuple[Caveat, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataKey:
    """A data key of the length asked for, and the same key encrypted under the KMS key."""

    plaintext: bytes = field(repr=False)
    ciphertext_blob: bytes
    key_id: str
    caveats: tuple[Caveat, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataKeyPair:
    """A key pair: PKCS #8 DER, the same under the KMS key, and SubjectPublicKeyInfo DER."""

    private_key_plaintext: bytes = field(repr=False)
    private_key_ciphertext_blob: bytes
    public_key: bytes
    key_pair_spec: str
    key_id: str
    caveats: tuple[Caveat, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomBytes:
    """Random bytes of the length asked for."""

    plaintext: bytes = field(repr=False)
    caveats: tuple[Caveat, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """KMS would have done the operation: this caller, with this attestation, is authorised."""

    operation: str
    caveats: tuple[Caveat, ...]
