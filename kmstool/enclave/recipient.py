"""An ephemeral RSA key and the attestation document that carries it to KMS as `Recipient`.

The key is made in a thread, beside imports and the TLS handshake (`recipient_key.py`). The document
is made when it is first needed and again before KMS would find it too old. A key and its document
leave here together, as one `AttestedKey`: an answer is opened with the very key that its request
carried.

Over a relay each answer has a `Recipient` of its own, which is forgotten with it (`relayed.py`).

Never: stores a key, hands out a private key, or uses a key beyond the limits in `limits.py`.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from kmstool import cbor, limits
from kmstool.caveats import CLOCK_SKEW, DEBUG_ENCLAVE, Caveat
from kmstool.enclave import cms
from kmstool.enclave.nsm import Nsm
from kmstool.enclave.recipient_key import next_key
from kmstool.errors import KmsError, NsmError, SettingError

_IMAGE_PCRS = (0, 1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestedKey:
    """A recipient key with the document that attests it.

    Attributes:
        document: the COSE_Sign1 attestation document, 1 to 12,288 bytes.
        clock_offset: the document's timestamp less our clock when it was made, in seconds.
        image_pcrs: PCR0, PCR1 and PCR2 as the document has them, 48 bytes each.
        made_at: `time.monotonic()` at which the document was made, in seconds.
    """

    document: bytes = field(repr=False)
    clock_offset: float
    image_pcrs: tuple[bytes, ...] = field(repr=False)
    made_at: float
    _private_key: rsa.RSAPrivateKey = field(repr=False)

    @property
    def is_debug(self) -> bool:
        """True where all image PCRs are zero, which is how an enclave in debug mode attests."""
        return not any(any(pcr) for pcr in self.image_pcrs)

    def caveats(self) -> tuple[Caveat, ...]:
        """What the document says against trusting the enclave."""
        skewed = abs(self.clock_offset) > limits.CLOCK_SKEW_MAX
        return (DEBUG_ENCLAVE,) * self.is_debug + (CLOCK_SKEW,) * skewed

    def explain(self, error: KmsError) -> None:
        """Adds what only the enclave knows: why a policy on the image's PCRs may have refused."""
        if error.code == "AccessDeniedException":
            error.hint = (
                "the enclave runs in debug mode, so its PCR0-2 are zero and a policy that names an"
                " image refuses it: start it without --debug-mode"
                if self.is_debug
                else f"this enclave attests PCR0 {self.image_pcrs[0].hex()}: compare it, PCR1 and"
                " PCR2 with the conditions of the key policy, and the role of the credentials with"
                " its Principal"
            )

    def unwrap(self, ciphertext_for_recipient: bytes) -> bytes:
        """The plaintext of KMS' `CiphertextForRecipient`. Raises `CmsError`."""
        return cms.unwrap(ciphertext_for_recipient, self._private_key)

    def unwrap_unauthenticated(self, ciphertext_for_recipient: bytes, length: int) -> bytes:
        """`length` bytes from an answer that came through the parent, right or random.

        The caller forgets this object afterwards: a key that opens two relayed answers lets the
        parent ask twice. Raises `CmsError` for what is public only (`cms.unwrap_unauthenticated`).
        """
        return cms.unwrap_unauthenticated(ciphertext_for_recipient, self._private_key, length)


class Recipient:
    """Makes recipient keys and their documents, each no older and no more used than the limits say.

    Over TLS one key may serve a process: nobody but KMS can put an answer into the connection.
    Over a relay that does not hold, and each answer needs a `Recipient` of its own.

    Args:
        nsm: the security module that signs.
        nonce: put into every document, 16 to 512 bytes, or None.
        user_data: put into every document, up to 512 bytes, or None.

    Raises:
        SettingError: nonce or user_data have a length that the module or an auditor would refuse.
    """

    def __init__(
        self,
        nsm: Nsm,
        *,
        nonce: bytes | None = None,
        user_data: bytes | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if nonce is not None and not (
            limits.DOCUMENT_NONCE_MIN <= len(nonce) <= limits.DOCUMENT_NONCE_MAX
        ):
            raise SettingError(
                f"the nonce has {len(nonce)} bytes",
                hint=f"give {limits.DOCUMENT_NONCE_MIN} to {limits.DOCUMENT_NONCE_MAX} bytes,"
                " random and used once",
            )
        if user_data is not None and len(user_data) > limits.DOCUMENT_USER_DATA_MAX:
            raise SettingError(
                f"the user data has {len(user_data)} bytes",
                hint=f"the security module signs up to {limits.DOCUMENT_USER_DATA_MAX}",
            )
        self._nsm = nsm
        self._nonce = nonce
        self._user_data = user_data
        self._clock = clock
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._attested: AttestedKey | None = None
        self._start_key()

    def attested_key(self) -> AttestedKey:
        """A key and document for one request; call it again for a retry. Raises `NsmError`."""
        with self._lock:
            now = self._monotonic()
            worn = self._uses >= limits.RECIPIENT_KEY_ANSWERS_MAX
            if worn or now - self._key_started_at > limits.RECIPIENT_KEY_AGE_MAX:
                self._start_key()
            if self._attested is None or now - self._attested.made_at > limits.DOCUMENT_AGE_RENEW:
                self._attested = self._attest(self._key.result())
            self._uses += 1
            return self._attested

    def _start_key(self) -> None:
        self._attested = None
        self._uses = 0
        self._key_started_at = self._monotonic()
        self._key = next_key()

    def _attest(self, private_key: rsa.RSAPrivateKey) -> AttestedKey:
        made_at = self._monotonic()
        public_key = private_key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        document = self._nsm.attestation(
            public_key=public_key, nonce=self._nonce, user_data=self._user_data
        )
        timestamp, image_pcrs = _read_own_document(document)
        return AttestedKey(
            document=document,
            clock_offset=timestamp - self._clock(),
            image_pcrs=image_pcrs,
            made_at=made_at,
            _private_key=private_key,
        )


def _read_own_document(document: bytes) -> tuple[float, tuple[bytes, ...]]:
    """Timestamp in seconds and PCR0-2 of a document that our own security module just signed.

    Nothing is verified: the module is trusted, and KMS will check the document. These two fields
    only serve warnings.
    """
    depth = limits.DOCUMENT_CBOR_DEPTH_MAX
    try:
        payload = cbor.decode(cbor.decode(document, max_depth=depth)[2], max_depth=depth)
        image_pcrs = tuple(bytes(payload["pcrs"][index]) for index in _IMAGE_PCRS)
        return float(payload["timestamp"]) / 1000, image_pcrs
    except (cbor.CborError, LookupError, TypeError, ValueError) as error:
        raise NsmError(
            f"the security module's attestation document is malformed ({type(error).__name__})",
            hint="run kmstool attest and kmstool inspect to see what it sends",
        ) from None
