"""Is an attestation document genuine, and is it the one that was expected?

What it does: the steps of AWS' "Verifying the root of trust", each of which raises `DocumentError`
with its name:
  (1) `cbor`          the bytes are one strict CBOR item
  (2) `document`      COSE headers, fields, types and sizes keep every rule
  (3) `chain`         the leaf leads over cabundle to the root that the caller trusts, at the time
                      that the caller names
  (4) `signature`     the COSE signature over header and payload is the leaf's (RFC 9052, 4.4)
  (5) `expectations`  PCRs, nonce, user_data, public_key and age are what the caller asked for
What it never does: choose a root or a time, or return a document that failed. A document that
passes with empty expectations says only that *some* enclave made it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final, NoReturn

from cbor2 import dumps
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from kmstool import limits
from kmstool.attestation.chain import ChainCache, VerifiedChain, verify_chain
from kmstool.attestation.document import AttestationDocument, parse_document
from kmstool.errors import DocumentError, SettingError

__all__ = ["ChainCache", "Expectations", "VerifiedDocument", "own_time", "verify_document"]

_NOTHING: Final[Mapping[int, bytes]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectations:
    """What the document has to say; None (or no entry) is not compared.

    Attributes:
        pcrs: index to 48 bytes; others may have any value.
        nonce, user_data, public_key: the exact bytes.
        max_age: seconds between the document's timestamp and the time of the verification.
    """

    pcrs: Mapping[int, bytes] = field(default_factory=lambda: _NOTHING)
    nonce: bytes | None = None
    user_data: bytes | None = None
    public_key: bytes | None = None
    max_age: float | None = None


@dataclass(frozen=True, slots=True)
class VerifiedDocument:
    """A document that passed every step.

    Attributes:
        document: its fields, signed by the leaf.
        chain: leaf, intermediates, root.
        at: the time as of which it was verified.
    """

    document: AttestationDocument
    chain: VerifiedChain
    at: datetime


def own_time(document: AttestationDocument) -> datetime:
    """The document's own timestamp, for verifying a stored one; it says nothing about its age."""
    return _EPOCH + timedelta(milliseconds=document.timestamp)


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def verify_document(
    data: bytes,
    *,
    root_der: bytes,
    at: datetime,
    expectations: Expectations | None = None,
    chain_cache: ChainCache | None = None,
) -> VerifiedDocument:
    """Returns the document if it is genuine and as expected.

    Args:
        data: the document, 1..262144 bytes of CBOR.
        root_der: the one trusted root, DER.
        at: the time as of which certificates must be valid, with a time zone: now for a fresh
            document, `own_time` for a stored one.
        expectations: what it has to say.
        chain_cache: chains verified before (see there why that is safe).

    Raises:
        DocumentError: `step` says where it failed.
        SettingError: `at` has no time zone.
    """
    if at.tzinfo is None:
        raise SettingError("the time of a verification needs a time zone", hint="use UTC")
    # (1) CBOR and (2) the rules of AWS' text
    document = parse_document(data)
    # (3) the chain to the caller's root, at the caller's time
    verify = verify_chain if chain_cache is None else chain_cache.verify
    chain = verify(root_der, document.cabundle, document.certificate, at)
    # (4) the signature, always
    _verify_signature(document, chain.leaf_key)
    # (5) what the caller expects
    _compare(document, expectations or Expectations(), at)
    return VerifiedDocument(document, chain, at)


def _verify_signature(document: AttestationDocument, key: ec.EllipticCurvePublicKey) -> None:
    """ES384 over Sig_structure (RFC 9052, section 4.4); r and s of 48 bytes (RFC 9053, 2.1)."""
    signed = dumps(["Signature1", document.protected, b"", document.payload])
    half = limits.DOCUMENT_SIGNATURE_LENGTH // 2
    r = int.from_bytes(document.signature[:half], "big")
    s = int.from_bytes(document.signature[half:], "big")
    try:
        key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        raise DocumentError(
            "the signature of the document is not its leaf certificate's",
            step="signature",
            hint="the document was changed after it was signed, or was never signed",
        ) from None


def _compare(document: AttestationDocument, expected: Expectations, at: datetime) -> None:
    for index, value in sorted(expected.pcrs.items()):
        _compare_pcr(index, document.pcrs.get(index), value)
    for name in ("nonce", "user_data", "public_key"):
        wanted: bytes | None = getattr(expected, name)
        found: bytes | None = getattr(document, name)
        if wanted is None or found == wanted:
            continue
        if found is None:
            _differ(f"it has no {name}")
        _differ(f"its {name} of {len(found)} bytes is not the expected one of {len(wanted)} bytes")
    if expected.max_age is not None:
        _compare_age((at - own_time(document)).total_seconds(), expected.max_age)


def _compare_pcr(index: int, found: bytes | None, wanted: bytes) -> None:
    if found is None:
        _differ(f"it has no PCR{index}", hint="documents carry locked registers only")
    if found != wanted:
        hint = None
        if index <= 2 and not any(found):
            hint = "PCR0, PCR1 and PCR2 are zero when the enclave runs in debug mode"
        _differ(f"PCR{index} is {found.hex()}, not {wanted.hex()}", hint=hint)


def _compare_age(age: float, most: float) -> None:
    if age > most:
        _differ(f"it is {age:.0f} seconds old, over {most:.0f}", hint="ask for a fresh document")
    if age < -limits.CLOCK_SKEW_MAX:
        _differ(f"it was made {-age:.0f} seconds in the future", hint="check the clock here")


def _differ(what: str, hint: str | None = None) -> NoReturn:
    raise DocumentError(
        f"the document is genuine but not as expected: {what}", step="expectations", hint=hint
    )
