"""Reading keys from files: public ones in the form that KMS and the NSM take, and signing keys."""

from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from kmstool.cli.input import read_bytes
from kmstool.errors import InputError

_MAKE_SIGNING_KEY: Final = "make one with openssl genpkey -algorithm ed25519"


def read_public_key(path: str) -> bytes:
    """The SubjectPublicKeyInfo (RFC 5280) of a file in PEM or DER, as DER.

    Args:
        path: of the file; `-` is stdin.

    Raises:
        InputError: this is no public key. LocalFileError: the file cannot be read.
    """
    return parse_public_key(read_bytes(path, what="the public key"))


def parse_public_key(data: bytes) -> bytes:
    """The SubjectPublicKeyInfo in PEM or DER, as DER.

    Raises:
        InputError: this is no public key.
    """
    if b"PRIVATE KEY-----" in data:
        raise InputError(
            "the public key's file holds a private key", hint="openssl pkey -pubout makes the other"
        )
    try:
        if data.lstrip().startswith(b"-----BEGIN"):
            key = serialization.load_pem_public_key(data)
        else:
            key = serialization.load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(
            "the public key is not a SubjectPublicKeyInfo in PEM or DER",
            hint="openssl pkey -pubout writes one",
        ) from None
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def read_signer(path: str) -> bytes:
    """The 32 bytes of an Ed25519 public key in a file, PEM or DER.

    Raises:
        InputError: it is none. LocalFileError: the file cannot be read.
    """
    key = serialization.load_der_public_key(read_public_key(path))
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(
            f"{path} holds a public key of another kind than Ed25519",
            hint="openssl pkey -pubout writes the public half of a signing key",
        )
    return key.public_bytes_raw()


def read_signing_key(path: str) -> Ed25519PrivateKey:
    """The Ed25519 private key of a file in PEM, without a passphrase.

    Raises:
        InputError: it is none. LocalFileError: the file cannot be read.
    """
    data = read_bytes(path, what="the signing key")
    try:
        key = serialization.load_pem_private_key(data, None)
    except TypeError:
        raise InputError(
            f"{path} holds a private key under a passphrase", hint="nothing asks for one here"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(f"{path} holds no private key in PEM", hint=_MAKE_SIGNING_KEY) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(
            f"{path} holds a private key of another kind than Ed25519", hint=_MAKE_SIGNING_KEY
        )
    return key
