"""Reading a public key from a file, PEM or DER, into the one form that KMS and the NSM take."""

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from kmstool.cli.input import read_bytes
from kmstool.errors import InputError


def read_public_key(path: str) -> bytes:
    """The SubjectPublicKeyInfo (RFC 5280) of a file in PEM or DER, as DER.

    Args:
        path: of the file; `-` is stdin.

    Raises:
        InputError: this is no public key. LocalFileError: the file cannot be read.
    """
    data = read_bytes(path, what="the public key")
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
