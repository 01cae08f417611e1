"""HPKE (RFC 9180), mode base, to a public key whose private half may be in KMS.

The key schedule is `cryptography`'s, whose `Suite.decrypt` takes any `EllipticCurvePrivateKey`. Of
the private key it needs one ECDH with `enc` and the public half. KMS is asked for that ECDH first
(`open_with`), and `_AgreedKey` then hands out the answer for that one peer key and nothing else:
an exception inside `exchange` would come out as `InvalidTag`, whatever it said.

Never: a mode other than base, a second message under one context, a private key in memory.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kmstool.errors import NOT_OPENED, InputError, NotOpenedError, SealedFileError


class Kem(IntEnum):
    """The KEMs of RFC 9180, section 7.1, for which KMS has keys, by their numbers there."""

    P256 = 0x0010
    P384 = 0x0011
    P521 = 0x0012


@dataclass(frozen=True, slots=True)
class Parameters:
    """What follows from a KEM.

    Attributes:
        curve: of the recipient's key and of `enc`.
        suite: with the KDF of the same strength and AES-256-GCM.
        point_length: bytes of an uncompressed point.
        secret_length: bytes of an ECDH secret, the x-coordinate.
    """

    curve: ec.EllipticCurve
    suite: Suite
    point_length: int
    secret_length: int


PARAMETERS = {
    Kem.P256: Parameters(
        ec.SECP256R1(), Suite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_256_GCM), 65, 32
    ),
    Kem.P384: Parameters(
        ec.SECP384R1(), Suite(KEM.P384, KDF.HKDF_SHA384, AEAD.AES_256_GCM), 97, 48
    ),
    Kem.P521: Parameters(
        ec.SECP521R1(), Suite(KEM.P521, KDF.HKDF_SHA512, AEAD.AES_256_GCM), 133, 66
    ),
}
_BY_CURVE = {parameters.curve.name: kem for kem, parameters in PARAMETERS.items()}


def kem_of(public_key: ec.EllipticCurvePublicKey) -> Kem:
    """The KEM for a public key.

    Raises:
        InputError: HPKE has none for this curve.
    """
    kem = _BY_CURVE.get(public_key.curve.name)
    if kem is None:
        raise InputError(
            f"nothing can be sealed to a key on the curve {public_key.curve.name}",
            hint="take a KMS key for key agreement on P-256, P-384 or P-521",
        )
    return kem


def parse_point(kem: Kem, data: bytes) -> ec.EllipticCurvePublicKey:
    """Reads an uncompressed point (SEC 1, section 2.3.3) and checks that it is on the curve.

    Raises:
        SealedFileError: it is not.
    """
    parameters = PARAMETERS[kem]
    if len(data) == parameters.point_length:  # which compressed points have not
        try:
            return ec.EllipticCurvePublicKey.from_encoded_point(parameters.curve, data)
        except ValueError:
            pass
    raise SealedFileError(f"a public key in the header is no point on {parameters.curve.name}")


def encode_point(public_key: ec.EllipticCurvePublicKey) -> bytes:
    """The uncompressed point: SerializePublicKey of RFC 9180, section 7.1.1."""
    return public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def seal_to(public_key: ec.EllipticCurvePublicKey, plaintext: bytes, info: bytes) -> bytes:
    """SealBase of RFC 9180, section 6.1, with an empty aad: `enc`, then the ciphertext."""
    return PARAMETERS[kem_of(public_key)].suite.encrypt(plaintext, public_key, info)


def open_with(
    agree: Callable[[bytes, int], bytes],
    public_key: ec.EllipticCurvePublicKey,
    enc: bytes,
    ciphertext: bytes,
    info: bytes,
) -> bytes:
    """OpenBase of RFC 9180, section 6.1, with an empty aad, for a private key that is elsewhere.

    Args:
        agree: the one ECDH: takes a SubjectPublicKeyInfo DER and the length of the x-coordinate.
        public_key: of the recipient; a false one opens nothing.
        enc: the encapsulated key, an uncompressed point on the same curve.

    Raises:
        SealedFileError: `enc` is no such point. NotOpenedError: it does not open. And whatever
            `agree` raises.
    """
    kem = kem_of(public_key)
    peer = parse_point(kem, enc)
    der = peer.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    secret = agree(der, PARAMETERS[kem].secret_length)
    try:
        return PARAMETERS[kem].suite.decrypt(
            enc + ciphertext, _AgreedKey(public_key, enc, secret), info
        )
    except InvalidTag:
        raise NotOpenedError(NOT_OPENED) from None


class _AgreedKey(ec.EllipticCurvePrivateKey):
    """Stands for a private key that is elsewhere: it has one answer, to one question."""

    def __init__(self, public_key: ec.EllipticCurvePublicKey, peer: bytes, secret: bytes) -> None:
        self._public_key = public_key
        self._peer = peer
        self._secret = secret

    def exchange(
        self,
        algorithm: ec.ECDH,  # noqa: ARG002 - there is one
        peer_public_key: ec.EllipticCurvePublicKey,
    ) -> bytes:
        if encode_point(peer_public_key) != self._peer:
            raise AssertionError("the secret was agreed with another key")
        return self._secret

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._public_key

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._public_key.curve

    @property
    def key_size(self) -> int:
        return self._public_key.key_size

    def _elsewhere(self, *_arguments: Any, **_named: Any) -> NoReturn:
        raise NotImplementedError("the private key is in KMS")

    sign = private_numbers = private_bytes = __copy__ = __deepcopy__ = _elsewhere
