"""Is an attestation document genuine, and is it the one that was expected?

What it does: the four steps of AWS' "Verifying the root of trust", in its order and with its
numbers, and a fifth that is the caller's. Each raises `DocumentError` with the step's name:
  (1) `cbor`          the bytes are one strict CBOR item, a COSE_Sign1 with ES384
  (2) `document`      the payload is a document: its fields, types and sizes keep every rule
  (3) `chain`         the leaf leads over cabundle to the root that the caller trusts, at the time
                      that the caller names
  (4) `signature`     the COSE signature over header and payload is the leaf's (RFC 9052, 4.4)
  (5) `expectations`  PCRs, nonce, user_data, public_key and age are what the caller asked for, and
                      the enclave was not in debug mode unless the caller allows it
What it never does: choose a root or a time, or return a document that failed. A document that
passes with empty expectations says only that *some* enclave made it.
"""

from collections.abc import Callable, Mapping
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
from kmstool.attestation.document import AttestationDocument, read_cose, read_fields
from kmstool.errors import DocumentError, SettingError

__all__ = [
    "STEPS",
    "ChainCache",
    "Expectations",
    "Trace",
    "VerifiedDocument",
    "is_debug",
    "own_time",
    "verify_document",
    "verify_es384",
]

STEPS: Final = ("cbor", "document", "chain", "signature", "expectations")
"""The names of the steps in their order; the first four are AWS' and numbered as there, from 1."""

Trace = Callable[[int, Callable[[], str]], None]
"""Is told of each step that held: its number, and what makes a line of text about it."""

_IMAGE_PCRS: Final = (0, 1, 2)
_NOTHING: Final[Mapping[int, bytes]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectations:
    """What the document has to say; None (or no entry) is not compared.

    Attributes:
        pcrs: index to 48 bytes; others may have any value.
        nonce, user_data, public_key: the exact bytes.
        max_age: seconds between the document's timestamp and the time of the verification.
        allow_debug: take a document of an enclave in debug mode, whose parent reads its console
            and whose PCRs name no image.
    """

    pcrs: Mapping[int, bytes] = field(default_factory=lambda: _NOTHING)
    nonce: bytes | None = None
    user_data: bytes | None = None
    public_key: bytes | None = None
    max_age: float | None = None
    allow_debug: bool = False

    def names(self) -> tuple[str, ...]:
        """What is compared, in words: `PCR0`, `nonce`, `age`, …"""
        given = [name for name in _FIELDS if getattr(self, name) is not None]
        age = () if self.max_age is None else ("age",)
        return (*(f"PCR{index}" for index in sorted(self.pcrs)), *given, *age)


_FIELDS: Final = ("nonce", "user_data", "public_key")


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


def is_debug(document: AttestationDocument) -> bool:
    """Whether PCR0, PCR1 and PCR2 are zero, those of them that it has."""
    found = [document.pcrs[index] for index in _IMAGE_PCRS if index in document.pcrs]
    return bool(found) and not any(map(any, found))


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def verify_document(
    data: bytes,
    *,
    root_der: bytes,
    at: datetime,
    expectations: Expectations | None = None,
    chain_cache: ChainCache | None = None,
    trace: Trace | None = None,
) -> VerifiedDocument:
    """Returns the document if it is genuine and as expected.

    Args:
        data: the document, 1..262144 bytes of CBOR.
        root_der: the one trusted root, DER.
        at: the time as of which certificates must be valid, with a time zone: now for a fresh
            document, `own_time` for a stored one.
        expectations: what it has to say; without any, that it is not of debug mode.
        chain_cache: chains verified before (see there why that is safe).
        trace: is told of each step that held.

    Raises:
        DocumentError: `step` says where it failed.
        SettingError: `at` has no time zone.
    """
    if at.tzinfo is None:
        raise SettingError("the time of a verification needs a time zone", hint="use UTC")
    expected = expectations or Expectations()
    say = trace or _say_nothing
    # (1) The CBOR object is a COSE_Sign1.
    cose = read_cose(data)
    say(1, lambda: f"one COSE_Sign1 with ES384, {len(data)} bytes")
    # (2) Its payload is an attestation document.
    document = read_fields(cose)
    say(2, lambda: f"every field keeps its rule, {len(document.pcrs)} PCRs")
    # (3) The chain leads to the caller's root, at the caller's time.
    verify = verify_chain if chain_cache is None else chain_cache.verify
    chain = verify(root_der, document.cabundle, document.certificate, at)
    say(3, lambda: chain.describe(at))
    # (4) The document is signed by the chain's leaf: always verified, never cached.
    _verify_signature(document, chain.leaf_key)
    say(4, lambda: "the leaf's key signed header and payload")
    # (5) The document is the one that the caller expects.
    _compare(document, expected, at)
    say(5, lambda: f"as expected: {', '.join(expected.names()) or 'nothing was named'}")
    return VerifiedDocument(document, chain, at)


def _say_nothing(_number: int, _text: Callable[[], str]) -> None:
    """Nobody asked for a trace, and no text is made."""


def verify_es384(key: ec.EllipticCurvePublicKey, signature: bytes, signed: bytes) -> None:
    """ECDSA on P-384 with SHA-384, r and s of 48 bytes each (RFC 9053, section 2.1).

    Raises:
        DocumentError: step `signature`.
    """
    half = limits.DOCUMENT_SIGNATURE_LENGTH // 2
    r = int.from_bytes(signature[:half], "big")
    s = int.from_bytes(signature[half:], "big")
    encoded = encode_dss_signature(r, s) if len(signature) == 2 * half else b""
    try:
        key.verify(encoded, signed, _ECDSA_SHA384)
    except InvalidSignature:
        raise DocumentError(
            "the signature of the document is not its leaf certificate's",
            step="signature",
            hint="the document was changed after it was signed, or was never signed",
        ) from None


_ECDSA_SHA384: Final = ec.ECDSA(hashes.SHA384())


def _verify_signature(document: AttestationDocument, key: ec.EllipticCurvePublicKey) -> None:
    """Over Sig_structure (RFC 9052, section 4.4)."""
    signed = dumps(["Signature1", document.protected, b"", document.payload])
    verify_es384(key, document.signature, signed)


def _compare(document: AttestationDocument, expected: Expectations, at: datetime) -> None:
    if not expected.allow_debug and is_debug(document):
        _differ(
            "PCR0, PCR1 and PCR2 are zero: the enclave was started in debug mode",
            hint="its parent reads its console, and no PCR names its image: run it without"
            " --debug-mode, or allow debug mode in a test",
        )
    for index, value in sorted(expected.pcrs.items()):
        _compare_pcr(index, document.pcrs.get(index), value)
    for name in _FIELDS:
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
        zero = index in _IMAGE_PCRS and not any(found)
        hint = "PCR0, PCR1 and PCR2 are zero when the enclave runs in debug mode" if zero else None
        _differ(f"PCR{index} is {found.hex()}, not {wanted.hex()}", hint=hint)


def _compare_age(age: float, most: float) -> None:
    if not age <= most:  # so that nothing is as young as "not a number" asks
        _differ(f"it is {age:.0f} seconds old, over {most:.0f}", hint="ask for a fresh document")
    if age < -limits.CLOCK_SKEW_MAX:
        _differ(f"it was made {-age:.0f} seconds in the future", hint="check the clock here")


def _differ(what: str, hint: str | None = None) -> NoReturn:
    raise DocumentError(
        f"the document is genuine but not as expected: {what}", step="expectations", hint=hint
    )
