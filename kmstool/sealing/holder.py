"""What opening needs of whoever can reach the KMS keys. Sealing knows no KMS: it asks this.

`kmstool.holders` has the two that exist: over TLS that ends here, and over the parent's relay.
"""

from collections.abc import Mapping
from typing import Protocol

from kmstool.arn import KeyArn
from kmstool.caveats import Caveat


class KeyHolder(Protocol):
    """Uses KMS keys by their ARN; every method may raise any `KmstoolError`."""

    @property
    def caveats(self) -> tuple[Caveat, ...]:
        """What is known so far against the answers that were given."""
        ...

    def agree(self, key: KeyArn, public_key_der: bytes, secret_length: int) -> bytes:
        """The x-coordinate of ECDH between a key-agreement key and a public key.

        Args:
            public_key_der: SubjectPublicKeyInfo, on the key's own curve.
            secret_length: of the answer: 32, 48 or 66 bytes for P-256, P-384, P-521.
        """
        ...

    def unwrap(
        self,
        key: KeyArn,
        ciphertext_blob: bytes,
        encryption_context: Mapping[str, str],
        key_length: int,
    ) -> bytes:
        """A data key that KMS decrypted; `key_length` is its length in bytes: 16, 24 or 32."""
        ...
