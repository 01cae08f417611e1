"""Misuses of the relayed setup. Every line with an `# error:` must fail to type-check, for that.

`test_typing.py` runs mypy over this file and compares; it is never run itself.
"""

import hashlib
from collections.abc import Hashable
from typing import cast

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kmstool.arn import ANY_KEY, KeyArn
from kmstool.enclave.relayed import RelayedKms, UnauthenticatedKey
from kmstool.session import SessionOptions, open_relayed

kms = cast("RelayedKms", None)
key = cast("UnauthenticatedKey", None)
arn = cast("KeyArn", None)


def needs_bytes(data: bytes) -> None: ...


# Raw bytes of a key that nobody vouches for.
needs_bytes(key)  # error: arg-type
bytes(key)  # error: call-overload
AESGCM(key)  # error: arg-type
hashlib.sha256(key)  # error: arg-type
key + b""  # error: operator
key[0]  # error: index
list(key)  # error: call-overload
len(key)  # error: arg-type
hashable: Hashable = key  # error: assignment
key.key  # error: attr-defined
key.plaintext  # error: attr-defined
key == b"guess"  # error: comparison-overlap
needs_bytes(kms.decrypt(b"c", key=arn, key_length=32))  # error: arg-type
kms.decrypt(b"c", key=arn, key_length=32).plaintext  # error: attr-defined
needs_bytes(key.derive(length=32))  # error: arg-type
key.length = 16  # error: misc

# What the parent would choose.
kms.generate_data_key(key=arn)  # error: attr-defined
kms.generate_data_key_pair(key=arn)  # error: attr-defined
kms.generate_random(32)  # error: attr-defined

# A key that is named by less than its ARN, or not at all.
kms.decrypt(b"c", key="alias/app", key_length=32)  # error: arg-type
kms.decrypt(b"c", key=str(arn), key_length=32)  # error: arg-type
kms.decrypt(b"c", key=ANY_KEY, key_length=32)  # error: arg-type
kms.derive_shared_secret(b"spki", key="1234abcd", secret_length=32)  # error: arg-type
open_relayed(SessionOptions(), key="alias/app")  # error: arg-type
open_relayed(SessionOptions(), key=None)  # error: arg-type

# A length that is not stated, or is none.
kms.decrypt(b"c", key=arn)  # error: call-arg
kms.decrypt(b"c", key=arn, key_length=20)  # error: arg-type
kms.derive_shared_secret(b"spki", key=arn)  # error: call-arg
kms.derive_shared_secret(b"spki", key=arn, secret_length=16)  # error: arg-type
