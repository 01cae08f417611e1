"""Setup 1: the two KMS operations that make sense when the parent carries the answer.

The parent calls KMS with credentials of its own and hands back the `CiphertextForRecipient`. It
cannot read it; it can make one itself, since the recipient's public key is public, and it can
change a genuine one bit by bit. The law of this file (docs/explanation/two-setups.md):

(1) A result is an `UnauthenticatedKey`, never `bytes`, and carries the caveat `relayed-answer`.
    There is no GenerateDataKey here: the parent would choose the key.
(2) Each attempt has a recipient key and a document of its own, and one answer is opened with it.
(3) What depends on a secret never raises: it gives a random key of the stated length, and what is
    opened with that fails with one exception and one text, `NotOpenedError(NOT_OPENED)`.
(4) What raises (`UntrustedAnswerError`, `CmsError`) looks at bytes that the parent knows anyway.

Never: prints, logs, or keeps a key. Needs no TLS, no HTTP, no credentials.
"""

import json
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import ClassVar, Final, Literal, NoReturn, Self, SupportsIndex

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from kmstool import limits
from kmstool.arn import KeyArn
from kmstool.caveats import RELAYED_ANSWER, Caveat, Tolerance
from kmstool.enclave.hkdf import derive_key
from kmstool.enclave.recipient import Recipient
from kmstool.endpoint import Deadline, pause_before_retry
from kmstool.errors import (
    NOT_OPENED,
    InputError,
    KmsError,
    NotOpenedError,
    SettingError,
    TransportError,
    UntrustedAnswerError,
)
from kmstool.framing import build_relay_request, parse_relay_answer, read_frame
from kmstool.protocol import (
    Answer,
    Operation,
    build_decrypt,
    build_derive_shared_secret,
    parse_answer,
)
from kmstool.protocol import Recipient as RecipientInfo
from kmstool.refusals import parse_error

KEY_LENGTHS: Final = (16, 24, 32)  # bytes; AES
SECRET_LENGTHS: Final = (32, 48, 66)  # bytes; x-coordinates on P-256, P-384 and P-521

RELAY_HINT: Final = (
    "start the relay on the parent instance: `kmstool parent relay --listen vsock://:8001"
    " --allow-key ARN`"
)
_AES_KEYS = frozenset(KEY_LENGTHS)
_CHACHA_KEYS = frozenset({32})
_NONCE = 12  # bytes; RFC 5116, section 5.1, and RFC 8439, section 2.8
_MESSAGE_MAX = 2**31 - 1  # bytes; what cryptography's AEADs take in one call


class UnauthenticatedKey:
    """A key that KMS may have sent, or the parent; whoever holds it cannot tell.

    It opens authenticated messages: a message that was sealed under the real key does not open
    under another one. That shows that the message was not altered since somebody sealed it; it
    never shows who, because a parent that chooses key *and* message passes off its own.

    Neither compared, hashed, iterated, copied nor pickled, and no `repr` shows it.

    Attributes:
        length: of the key in bytes.
        caveats: `relayed-answer`, and what else is known against it.
        key_id: the ARN that was asked for; the parent said that it was the one used.
    """

    __slots__ = ("_caveats", "_key", "_key_id")
    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # nothing is looked up by a key

    def __init__(self, key: bytes, *, key_id: KeyArn, caveats: tuple[Caveat, ...]) -> None:
        self._key = key
        self._key_id = key_id
        self._caveats = caveats

    @property
    def length(self) -> int:
        """Of the key, in bytes."""
        return len(self._key)

    @property
    def caveats(self) -> tuple[Caveat, ...]:
        """What speaks against trusting it; always `relayed-answer` at least."""
        return self._caveats

    @property
    def key_id(self) -> KeyArn:
        """The KMS key that was asked for."""
        return self._key_id

    def open_aes_gcm(self, nonce: bytes, ciphertext: bytes, associated_data: bytes) -> bytes:
        """The plaintext of an AES-GCM message (RFC 5116), whose last 16 bytes are the tag.

        Args:
            nonce: 12 bytes.
            associated_data: as it was when the message was sealed; may be empty.

        Raises:
            NotOpenedError: it does not open; there is no more to know.
            SettingError: this key's length is none of AES. InputError: the nonce's is wrong.
        """
        self._check("AES-GCM", _AES_KEYS, nonce, ciphertext)
        return _open(AESGCM(self._key), nonce, ciphertext, associated_data)

    def open_chacha20_poly1305(
        self, nonce: bytes, ciphertext: bytes, associated_data: bytes
    ) -> bytes:
        """The plaintext of a ChaCha20-Poly1305 message (RFC 8439); otherwise as `open_aes_gcm`."""
        self._check("ChaCha20-Poly1305", _CHACHA_KEYS, nonce, ciphertext)
        return _open(ChaCha20Poly1305(self._key), nonce, ciphertext, associated_data)

    def derive(self, *, length: int, salt: bytes = b"", info: bytes = b"") -> "UnauthenticatedKey":
        """A key made from this one by HKDF-SHA-256 (RFC 5869), with the same caveats.

        Args:
            length: of the new key, 1 to 8,160 bytes.
            info: what the key is for; two purposes need two infos.
        """
        derived = derive_key(self._key, length=length, salt=salt, info=info)
        return UnauthenticatedKey(derived, key_id=self._key_id, caveats=self._caveats)

    def reveal_bytes_the_parent_may_have_chosen(self) -> bytes:
        """The bare key, for an authenticated cipher that this class does not know, and only for it.

        Whatever else is done with it, the parent can have chosen it or changed bits of it, and a
        program that behaves differently by its value answers the parent's questions about the real
        key: printed, compared, parsed or logged, each call is one answer.
        """
        return self._key

    def __repr__(self) -> str:
        codes = ", ".join(caveat.code for caveat in self._caveats)
        return f"<UnauthenticatedKey of {self.length} bytes: {codes}>"

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> NoReturn:
        raise TypeError("an UnauthenticatedKey is not copied, pickled or sent anywhere")

    def _check(self, name: str, keys: frozenset[int], nonce: bytes, ciphertext: bytes) -> None:
        """Refuses what no key could open; lengths only, so it says nothing of this key."""
        if self.length not in keys:
            wanted = " or ".join(str(length) for length in sorted(keys))
            raise SettingError(
                f"a key of {self.length} bytes is none of {name}, which takes {wanted}",
                hint="make one of the right length with derive(length=…, info=…)",
            )
        if len(nonce) != _NONCE:
            raise InputError(f"the nonce has {len(nonce)} bytes, and {name} takes {_NONCE}")
        if len(ciphertext) > _MESSAGE_MAX:
            raise InputError(f"the message has {len(ciphertext)} bytes, more than {_MESSAGE_MAX}")


def _open(
    cipher: AESGCM | ChaCha20Poly1305, nonce: bytes, ciphertext: bytes, associated_data: bytes
) -> bytes:
    try:
        return cipher.decrypt(nonce, ciphertext, associated_data)
    except InvalidTag:
        pass  # raised below, without a context
    raise NotOpenedError(NOT_OPENED)


class RelayedKms:
    """A KMS client whose answers come through the parent: confidential, and not authenticated.

    Each operation raises `InputError` or `SettingError` before anything is sent, `NsmError`,
    `TransportError` (relay) or `KmsError` when a link of the chain fails, `UntrustedAnswerError`
    (or its `CmsError`) for an answer whose *public* part is wrong, and `CaveatRefused` where the
    tolerance does not accept a caveat. It never raises for what only the recipient's key can see.

    Args:
        dial: connects to the relay within a deadline.
        make_recipient: gives a new recipient key for each attempt.
        caveats: what is known against trusting this client before it does anything.
        tolerance: which caveats stop the work.
        timeout: seconds for one whole operation, retries included.
        trace: called with one line for each step; never with a secret.
    """

    def __init__(
        self,
        dial: Callable[[Deadline], socket.socket],
        make_recipient: Callable[[], Recipient],
        *,
        caveats: tuple[Caveat, ...] = (),
        tolerance: Tolerance = Tolerance(),  # noqa: B008 - frozen
        timeout: float = limits.DEADLINE,
        trace: Callable[[str], None] = lambda _line: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._caveats = (RELAYED_ANSWER, *caveats)
        tolerance.check(self._caveats)
        self._dial = dial
        self._make_recipient = make_recipient
        self._tolerance = tolerance
        self._timeout = timeout
        self._trace = trace
        self._sleep = sleep
        self._next: Recipient | None = make_recipient()  # its key is being made from now on

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Forgets the key that was made ahead; connections last for one request only."""
        self._next = None

    def decrypt(
        self,
        ciphertext: bytes,
        *,
        key: KeyArn,
        key_length: Literal[16, 24, 32],
        encryption_context: Mapping[str, str] | None = None,
        encryption_algorithm: str | None = None,
        grant_tokens: Sequence[str] = (),
    ) -> UnauthenticatedKey:
        """Decrypts a content-encryption key. Source: KMS API Reference, Decrypt.

        Args:
            ciphertext: 1 to 6,144 bytes.
            key: the ARN of the key that must have encrypted it.
            key_length: what the plaintext's length is, in bytes; it cannot be found out here.
        """

        def build(recipient: RecipientInfo) -> bytes:
            return build_decrypt(
                ciphertext_blob=ciphertext,
                key_id=str(key),
                encryption_context=encryption_context,
                encryption_algorithm=encryption_algorithm,
                grant_tokens=grant_tokens,
                recipient=recipient,
            )

        _check_arguments(key, key_length, KEY_LENGTHS)
        wanted = encryption_algorithm or "SYMMETRIC_DEFAULT"

        def check(answer: Answer) -> None:
            _same("EncryptionAlgorithm", answer.encryption_algorithm, wanted)

        return self._call(Operation.DECRYPT, build, check, key=key, length=key_length)

    def derive_shared_secret(
        self,
        public_key: bytes,
        *,
        key: KeyArn,
        secret_length: Literal[32, 48, 66],
        grant_tokens: Sequence[str] = (),
    ) -> UnauthenticatedKey:
        """ECDH of a KMS key-agreement key with `public_key`, SubjectPublicKeyInfo DER.

        The x-coordinate is not uniformly random: use `derive` on the result, not the result.
        Source: KMS API Reference, DeriveSharedSecret.

        Args:
            secret_length: 32 bytes on P-256, 48 on P-384, 66 on P-521.
        """

        def build(recipient: RecipientInfo) -> bytes:
            return build_derive_shared_secret(
                key_id=str(key),
                public_key=public_key,
                grant_tokens=grant_tokens,
                recipient=recipient,
            )

        _check_arguments(key, secret_length, SECRET_LENGTHS)

        def check(answer: Answer) -> None:
            _same("KeyAgreementAlgorithm", answer.key_agreement_algorithm, "ECDH")

        operation = Operation.DERIVE_SHARED_SECRET
        return self._call(operation, build, check, key=key, length=secret_length)

    def _call(
        self,
        operation: Operation,
        build: Callable[[RecipientInfo], bytes],
        check: Callable[[Answer], None],
        *,
        key: KeyArn,
        length: int,
    ) -> UnauthenticatedKey:
        # Bad arguments are refused before a document or a connection is made for them.
        build(RecipientInfo(attestation_document=b"\0"))
        deadline = Deadline(self._timeout)
        attempt = 0
        while True:
            attempt += 1
            recipient, self._next = self._next or self._make_recipient(), None
            try:
                return self._attempt(
                    operation, build, check, recipient, deadline, key=key, length=length
                )
            except (TransportError, KmsError) as error:
                pause = pause_before_retry(attempt, error, deadline)
                self._trace(
                    f"{operation}: attempt {attempt} of {limits.RETRY_ATTEMPTS} failed: {error};"
                    f" trying again in {pause:.2f} s"
                )
            self._next = self._make_recipient()  # during the pause
            self._sleep(pause)

    def _attempt(
        self,
        operation: Operation,
        build: Callable[[RecipientInfo], bytes],
        check: Callable[[Answer], None],
        recipient: Recipient,
        deadline: Deadline,
        *,
        key: KeyArn,
        length: int,
    ) -> UnauthenticatedKey:
        with self._dial(deadline) as sock:
            attested = recipient.attested_key()
            caveats = tuple(dict.fromkeys(self._caveats + attested.caveats()))
            self._tolerance.check(caveats)
            body = build(RecipientInfo(attestation_document=attested.document))
            request = build_relay_request(str(operation), key.region, json.loads(body))
            self._trace(f"{operation}: sending {len(request)} bytes to the relay")
            message = _exchange(sock, request, deadline)
        members, refusal = parse_relay_answer(message)
        if refusal is not None:
            error = parse_error(operation, *refusal)
            attested.explain(error)
            raise error
        answer = parse_answer(operation, json.dumps(members).encode())
        # The parent can write anything here, so this proves nothing against it; it finds mistakes.
        _same("KeyId", answer.key_id, str(key))
        check(answer)
        secret = attested.unwrap_unauthenticated(answer.ciphertext_for_recipient, length)
        return UnauthenticatedKey(secret, key_id=key, caveats=caveats)


def _exchange(sock: socket.socket, request: bytes, deadline: Deadline) -> dict[str, object]:
    def recv(count: int) -> bytes:
        sock.settimeout(deadline.remaining("waiting for the relay"))
        piece = sock.recv(count)
        if not piece:
            raise TransportError(
                "the relay closed the connection", hint="look at its output", retryable=True
            )
        return piece

    try:
        sock.settimeout(deadline.remaining("asking the relay"))
        sock.sendall(request)
        return read_frame(recv)
    except TimeoutError:
        failure = deadline.exceeded("waiting for the relay")
    except OSError as error:
        reason = error.strerror or error
        failure = TransportError(f"the connection to the relay broke: {reason}", retryable=True)
    except InputError as error:
        failure = TransportError(f"the relay sent no answer: {error}", hint=error.hint)
    raise failure


def _check_arguments(key: KeyArn, length: int, lengths: tuple[int, ...]) -> None:
    if not isinstance(key, KeyArn):
        raise SettingError("over a relay a key is named by a KeyArn", hint="use parse_key_arn")
    if length not in lengths:
        wanted = ", ".join(str(one) for one in lengths)
        raise SettingError(
            f"a length of {length!a} bytes cannot be asked for over a relay",
            hint=f"it has to be stated, and is one of {wanted}",
        )


def _same(name: str, got: str | None, asked: str) -> None:
    if got != asked:
        raise UntrustedAnswerError(
            f"the relay's answer has the {name} {got!a}, and {asked!a} was asked for",
            hint="look at the relay on the parent: it passes on what KMS answered, or should",
        )
