"""A file key wrapped under a KMS data key, bound to key ARN, blob, encryption context and version.

KMS binds the blob to the context; this binds the wrapped key to both, so that what KMS accepted is
what the sealer meant. The wrapping key is derived with the file's salt, hence the fixed nonce.
Source: docs/formats/sealed-file.md, "Data key".
"""

from collections.abc import Mapping

import cbor2
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kmstool.arn import KeyArn
from kmstool.errors import NOT_OPENED, NotOpenedError
from kmstool.sealing.format import NONCE_LENGTH, derive, label

_PURPOSE = "data-key"
_NONCE = bytes(NONCE_LENGTH)


def wrap(
    file_key: bytes,
    data_key: bytes,
    salt: bytes,
    *,
    key: KeyArn,
    ciphertext_blob: bytes,
    encryption_context: Mapping[str, str],
) -> bytes:
    """The file key under a data key of 32 bytes: 48 bytes."""
    bound = _bound(key, ciphertext_blob, encryption_context)
    return _cipher(data_key, salt).encrypt(_NONCE, file_key, bound)


def unwrap(
    wrapped: bytes,
    data_key: bytes,
    salt: bytes,
    *,
    key: KeyArn,
    ciphertext_blob: bytes,
    encryption_context: Mapping[str, str],
) -> bytes:
    """The file key again.

    Raises:
        NotOpenedError: another data key, or anything that is bound was changed.
    """
    bound = _bound(key, ciphertext_blob, encryption_context)
    try:
        return _cipher(data_key, salt).decrypt(_NONCE, wrapped, bound)
    except InvalidTag:
        raise NotOpenedError(NOT_OPENED) from None


def _cipher(data_key: bytes, salt: bytes) -> AESGCM:
    return AESGCM(derive(data_key, salt, label(_PURPOSE)))


def _bound(key: KeyArn, ciphertext_blob: bytes, encryption_context: Mapping[str, str]) -> bytes:
    fields = [str(key), ciphertext_blob, dict(encryption_context)]
    return label(_PURPOSE, cbor2.dumps(fields, canonical=True))
