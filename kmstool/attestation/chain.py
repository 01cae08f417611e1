"""Step 3 of a verification: from the document's leaf to the one root that the caller trusts.

What it does: lets `cryptography.x509.verification` (RFC 5280 path validation: signatures, names,
times inclusive, pathLen, cA, unknown critical extensions) build the chain under an extension policy
of our own, and then holds the result to what AWS promises of its certificates: exactly the bundle,
in its order, P-384 keys and ECDSA with SHA-384 throughout.
What it never does: trust anything that stands in the document. The root comes from the caller
alone; `cabundle` supplies intermediates. No revocation: AWS' text says that it must be off.

The policy is our own because a real leaf has no AuthorityKeyIdentifier and no subject alternative
name, without which the library's web defaults refuse every real document (docs/decisions/0004).
"""

import threading
import warnings
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, NoReturn

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509 import verification as v
from cryptography.x509.oid import ExtensionOID, SignatureAlgorithmOID

from kmstool import limits
from kmstool.errors import DocumentError, printable


@dataclass(frozen=True, slots=True)
class VerifiedChain:
    """A chain that was verified.

    Attributes:
        certificates: DER of leaf, intermediates, root.
        leaf_key: the leaf's public key, on P-384.
        not_before, not_after: the time in which all of them are valid, both inclusive.
    """

    certificates: tuple[bytes, ...]
    leaf_key: ec.EllipticCurvePublicKey = field(repr=False)
    not_before: datetime
    not_after: datetime

    def describe(self, at: datetime) -> str:
        """In a line: how long the chain is, when it is valid, and as of when it was verified."""
        start, end, when = (
            f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
            for moment in (self.not_before, self.not_after, at)
        )
        return (
            f"{len(self.certificates)} certificates from the leaf to the trusted root, all on P-384"
            f" and valid from {start} to {end}; as of {when}"
        )


class ChainCache:
    """Chains that were verified, so that a service need not verify the same one for each document.

    Safe because a chain's validity depends on three things alone: the exact bytes of its
    certificates, the exact bytes of the root, and the time. The bytes are the key (compared in
    full, not by a digest), the time is compared on every use with the intersection of all validity
    periods, and there is no revocation to miss. Only successes are kept. The document's own
    signature is never cached. May be shared by threads.

    Args:
        size: how many chains are kept; the one not used for longest goes first.
    """

    def __init__(self, size: int = limits.CHAIN_CACHE_MAX) -> None:
        self._size = size
        self._chains: OrderedDict[tuple[bytes, ...], VerifiedChain] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._chains)

    def verify(
        self, root_der: bytes, cabundle: tuple[bytes, ...], leaf: bytes, at: datetime
    ) -> VerifiedChain:
        """As `verify_chain`, which is called for what is not known, or not valid at `at`."""
        key = (root_der, leaf, *cabundle)
        with self._lock:
            chain = self._chains.get(key)
            if chain is not None:
                self._chains.move_to_end(key)
        if chain is not None and chain.not_before <= at <= chain.not_after:
            return chain
        chain = verify_chain(root_der, cabundle, leaf, at)
        with self._lock:
            self._chains[key] = chain
            while len(self._chains) > self._size:
                self._chains.popitem(last=False)
        return chain


def verify_chain(
    root_der: bytes, cabundle: tuple[bytes, ...], leaf: bytes, at: datetime
) -> VerifiedChain:
    """Returns the chain from `leaf` over `cabundle` to `root_der`, valid at `at` (with time zone).

    Raises: DocumentError, step `chain`.
    """
    if cabundle[0] != root_der:
        _refuse(
            "it was issued under another root than the one trusted here",
            hint="a document of the emulator or of another partition has its own root",
        )
    try:
        return _verify(root_der, cabundle, leaf, at)
    except _UNREADABLE as error:
        _refuse(f"a certificate cannot be read: {_reason(error)}")


# What cryptography still reads but warns of (a serial number of zero, …) has no place in a document
# and on stderr: here, and only here, the warning is an error. A filter for this module alone is
# safe with threads, which `warnings.catch_warnings` is not.
warnings.filterwarnings("error", category=CryptographyDeprecationWarning, module=rf"{__name__}\Z")

# What cryptography raises on certificates that it cannot read; they have no common base, and much
# is only parsed when it is asked for.
_UNREADABLE: Final = (
    ValueError,
    TypeError,  # a name whose string type does not fit its attribute
    CryptographyDeprecationWarning,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


def _verify(
    root_der: bytes, cabundle: tuple[bytes, ...], leaf: bytes, at: datetime
) -> VerifiedChain:
    root = _load(root_der, "the root")
    intermediates = [_load(c, f"cabundle[{n}]") for n, c in enumerate(cabundle[1:], start=1)]
    certificate = _load(leaf, "the leaf")
    verifier = (
        v.PolicyBuilder()
        .store(v.Store([root]))
        .time(at)
        .max_chain_depth(len(intermediates))
        .extension_policies(ee_policy=_LEAF_POLICY, ca_policy=_CA_POLICY)
        .build_client_verifier()
    )
    try:
        chain = verifier.verify(certificate, intermediates).chain
    except v.VerificationError as error:
        _explain_time([certificate, *intermediates, root], at)
        _refuse(_reason(error))
    # Certificates are equal where their bytes are.
    if chain != [certificate, *reversed(intermediates), root]:
        _refuse("cabundle is not the chain in its order, from the root to the leaf's issuer")
    built = (leaf, *reversed(cabundle))
    keys = [_check_certificate(each, der) for each, der in zip(chain, built, strict=True)]
    # not_after names a whole second, and the library compares whole seconds.
    return VerifiedChain(
        certificates=built,
        leaf_key=keys[0],
        not_before=max(each.not_valid_before_utc for each in chain),
        not_after=min(each.not_valid_after_utc for each in chain) + _LAST_OF_SECOND,
    )


_LAST_OF_SECOND: Final = timedelta(microseconds=999_999)


def _leaf_constraints(
    _policy: v.Policy, _certificate: x509.Certificate, extension: x509.BasicConstraints
) -> None:
    if extension.ca:  # a pathLen without cA is refused where the library reads it
        raise ValueError("the leaf is a CA")


def _leaf_usage(
    _policy: v.Policy, _certificate: x509.Certificate, extension: x509.KeyUsage
) -> None:
    if not extension.digital_signature or extension.key_cert_sign:
        raise ValueError("the leaf's keyUsage is not for signatures alone")


def _ca_usage(_policy: v.Policy, _certificate: x509.Certificate, extension: x509.KeyUsage) -> None:
    if not extension.key_cert_sign:
        raise ValueError("an issuer's keyUsage is not for certificates")


# The library itself demands cA of an issuer and heeds pathLen, but takes a CA for a leaf.
# Real keyUsage is critical in CAs and not critical in leaves (seen in all real documents).
_LEAF_POLICY: Final = (
    v.ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, v.Criticality.CRITICAL, _leaf_constraints)
    .require_present(x509.KeyUsage, v.Criticality.AGNOSTIC, _leaf_usage)
)
_CA_POLICY: Final = (
    v.ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, v.Criticality.CRITICAL, None)
    .require_present(x509.KeyUsage, v.Criticality.CRITICAL, _ca_usage)
)
_PROCESSED: Final = frozenset({ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE})


def _check_certificate(certificate: x509.Certificate, encoded: bytes) -> ec.EllipticCurvePublicKey:
    """Returns its key, and refuses what the library lets pass: other curves, critical extensions
    that it only permits, a signature that is not whole bytes."""
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp384r1":
        _refuse(f"the key of {_name(certificate)} is not on P-384")
    if certificate.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA384:
        _refuse(f"the certificate of {_name(certificate)} is not signed by ECDSA with SHA-384")
    # X.690, 8.6.2: a BIT STRING begins with the number of bits in its last byte that do not count.
    # It is not signed, and the library passes over it: one certificate would have eight encodings.
    if encoded[-1 - len(certificate.signature)]:
        _refuse(f"the signature of the certificate of {_name(certificate)} is not whole bytes")
    for extension in certificate.extensions:
        # RFC 5280, section 4.2: a critical extension that is not processed must be refused.
        if extension.critical and extension.oid not in _PROCESSED:
            _refuse(
                f"{_name(certificate)} has the critical extension {extension.oid.dotted_string}"
            )
    return key


def _name(certificate: x509.Certificate) -> str:
    return repr(certificate.subject.rfc4514_string()[:100])


def _explain_time(certificates: list[x509.Certificate], at: datetime) -> None:
    """Raises with the certificate's name and times where time is why the library refused."""
    moment = at.replace(microsecond=0)
    for each in certificates:
        start, end = each.not_valid_before_utc, each.not_valid_after_utc
        if not start <= moment <= end:
            when = "not valid yet" if moment < start else "expired"
            _refuse(
                f"the certificate of {_name(each)} is {when}"
                f" at {at:%Y-%m-%dT%H:%M:%SZ}; it is valid from {start:%Y-%m-%dT%H:%M:%SZ}"
                f" to {end:%Y-%m-%dT%H:%M:%SZ}",
                hint="certificates of a leaf live three hours: verify a stored document as of its"
                " own timestamp, and decide on its age apart",
            )


def _load(data: bytes, what: str) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(data)
    except _UNREADABLE:
        _refuse(f"{what} is not a certificate")


def _reason(error: Exception) -> str:
    """The library's words without its wrapping: which certificate it was is said in our own."""
    text = str(error).partition("\n")[0].partition(" (encountered processing")[0]
    if "no interior errors" in text:
        return "the issuer of one of its certificates is not in cabundle"
    for wrapping in _WRAPPINGS:
        text = text.replace(wrapping, "")
    return printable(text)[:300]


_WRAPPINGS: Final = (
    "validation failed: ",
    "candidates exhausted: ",
    "Python extension validator failed: ",
    "ValueError: ",
)


def _refuse(what: str, hint: str | None = None) -> NoReturn:
    raise DocumentError(f"the certificate chain does not hold: {what}", step="chain", hint=hint)
