"""What KMS does with `Recipient`: verifies the attestation document, and encrypts the answer to it.

Checked, in this order: the algorithm is named; a document is there; form, chain and signature of
the document (`kmstool.attestation.verify`, against the root that this emulator trusts, as of now);
not older than five minutes, and not from the future by more than one; it carries a public key,
which is an RSA key of 2048, 3072 or 4096 bits. Only the chain may come from a cache, which
`ChainCache` explains; form, signature and age are looked at in every request.

The answer is written by `cms_writer`, in one of the two shapes that KMS has been seen to send.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from kmstool.attestation.verify import ChainCache, Expectations, verify_document
from kmstool.emulator.cms_writer import Shape, write_enveloped_data
from kmstool.emulator.refusal import invalid
from kmstool.errors import DocumentError
from kmstool.limits import DOCUMENT_AGE_MAX

RANDOM_SHAPE: Final = (Shape.KMS_EXPLICIT, Shape.KMS_PRIMITIVE)
# KMS takes documents of debug mode; only the policy's PCRs refuse them.
_FRESH: Final = Expectations(max_age=DOCUMENT_AGE_MAX, allow_debug=True)
_RSA_BITS = (2048, 3072, 4096)


@dataclass(frozen=True, slots=True)
class Attested:
    """A recipient whose document was verified.

    Attributes:
        pcrs: index to 48 bytes.
        spki_der: its RSA public key.
        shapes: the CMS shapes to choose from for an answer.
    """

    pcrs: Mapping[int, bytes]
    spki_der: bytes = field(repr=False)
    shapes: tuple[Shape, ...]

    def seal(self, secret: bytes) -> bytes:
        """`CiphertextForRecipient` with this content."""
        return write_enveloped_data(secret, self.spki_der, shape=secrets.choice(self.shapes))


def attest(
    recipient: Mapping[str, Any],
    *,
    root_der: bytes,
    chains: ChainCache,
    shapes: tuple[Shape, ...],
    now: float,
) -> Attested:
    """Verifies the `Recipient` of a request.

    Args:
        root_der: the certificate that the document's chain has to end in.
        now: seconds since 1970.

    Raises:
        Refusal: `ValidationException`, with the step that failed.
    """
    if "KeyEncryptionAlgorithm" not in recipient:
        raise invalid("Recipient: KeyEncryptionAlgorithm is required")
    document_bytes = recipient.get("AttestationDocument")
    if document_bytes is None:
        raise invalid("Recipient: AttestationDocument is required")
    try:
        verified = verify_document(
            document_bytes,
            root_der=root_der,
            at=datetime.fromtimestamp(now, UTC),
            expectations=_FRESH,
            chain_cache=chains,
        )
    except DocumentError as error:
        raise invalid(f"Recipient: attestation document ({error.step}): {error}") from None
    document = verified.document
    if document.public_key is None:
        raise invalid("Recipient: the attestation document carries no public key")
    _check_public_key(document.public_key)
    return Attested(document.pcrs, document.public_key, shapes)


def _check_public_key(der: bytes) -> None:
    try:
        key = serialization.load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm):
        raise invalid(
            "Recipient: public_key of the attestation document is not the DER of a"
            " SubjectPublicKeyInfo"
        ) from None
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size not in _RSA_BITS:
        found = f"RSA of {key.key_size} bits" if isinstance(key, rsa.RSAPublicKey) else "no RSA key"
        raise invalid(
            "Recipient: public_key of the attestation document has to be RSA of 2048, 3072 or 4096"
            f" bits, but is {found}"
        )
