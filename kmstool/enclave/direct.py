"""Setup 2: the five KMS operations that take `Recipient`, over TLS that ends in this enclave.

The law of this file, in order, for every call:
(1) Caveats known before the request are checked before anything is sent.
(2) The request carries a document that is fresh at that moment, also on a retry.
(3) An answer is used only if it is encrypted to the key that this very request attested, and only
    if its KeyId, algorithms and lengths are those that were asked for. No option relaxes this.
(4) Caveats known after the answer are checked before a secret leaves.

Never: prints, logs, or keeps a plaintext.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self, TypeVar

from kmstool import limits
from kmstool.arn import AnyKey, KeyArn
from kmstool.caveats import CLOCK_SKEW, KMS_RANDOM, UNPINNED_KEY, Caveat, Tolerance
from kmstool.enclave.exchange import Exchange, parse_http_date
from kmstool.enclave.recipient import AttestedKey, Recipient
from kmstool.enclave.results import (
    DataKey,
    DataKeyPair,
    Decrypted,
    DryRun,
    RandomBytes,
    SharedSecret,
)
from kmstool.errors import KmsError, UntrustedAnswerError
from kmstool.protocol import (
    Answer,
    Operation,
    build_decrypt,
    build_derive_shared_secret,
    build_generate_data_key,
    build_generate_data_key_pair,
    build_generate_random,
    parse_answer,
)
from kmstool.protocol import Recipient as RecipientInfo

Value = TypeVar("Value")

_KEY_SPEC_BYTES = {"AES_256": 32, "AES_128": 16}
_SHARED_SECRET_BYTES = (32, 48, 66)  # x-coordinates on P-256, P-384 and P-521


@dataclass(frozen=True, slots=True)
class UnpinnedKeyId:
    """A bare key id or alias: the account of the credentials decides which key that is."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    answer: Answer
    plaintext: bytes = field(repr=False)
    caveats: tuple[Caveat, ...]


class DirectKms:
    """An attested KMS client whose answers are authenticated by TLS 1.3.

    Every operation raises `InputError` or `SettingError` before anything is sent, `NsmError`,
    `CredentialsError`, `TransportError` or `KmsError` when a link of the chain fails,
    `UntrustedAnswerError` (or its `CmsError`) for an answer that may not be used, and
    `CaveatRefused` where the tolerance does not accept a caveat.

    Args:
        exchange: the authenticated way to KMS.
        recipient: makes the attested keys.
        caveats: what is known against trusting this client before it does anything.
        tolerance: which caveats stop the work.
    """

    def __init__(
        self,
        exchange: Exchange,
        recipient: Recipient,
        *,
        caveats: tuple[Caveat, ...] = (),
        tolerance: Tolerance = Tolerance(),  # noqa: B008 - frozen
        clock: Callable[[], float] = time.time,
    ) -> None:
        tolerance.check(caveats)
        self._exchange = exchange
        self._recipient = recipient
        self._caveats = caveats
        self._tolerance = tolerance
        self._clock = clock

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; the recipient key goes with the object."""
        self._exchange.close()

    def decrypt(
        self,
        ciphertext: bytes,
        *,
        key: KeyArn | AnyKey | UnpinnedKeyId,
        encryption_context: Mapping[str, str] | None = None,
        encryption_algorithm: str | None = None,
        grant_tokens: Sequence[str] = (),
        dry_run: bool = False,
    ) -> Decrypted | DryRun:
        """Decrypts 1 to 6,144 bytes of ciphertext. Source: KMS API Reference, Decrypt.

        Args:
            key: the ARN of the key that must have encrypted it. `ANY_KEY` and `UnpinnedKeyId` carry
                the caveat `unpinned-key`.
            encryption_context: what the ciphertext was bound to when it was encrypted.
            encryption_algorithm: `SYMMETRIC_DEFAULT` unless named.
        """

        def build(recipient: RecipientInfo) -> bytes:
            return build_decrypt(
                ciphertext_blob=ciphertext,
                key_id=None if isinstance(key, AnyKey) else str(key),
                encryption_context=encryption_context,
                encryption_algorithm=encryption_algorithm,
                grant_tokens=grant_tokens,
                dry_run=dry_run,
                recipient=recipient,
            )

        outcome = self._call(Operation.DECRYPT, build, key=key, dry_run=dry_run)
        if isinstance(outcome, DryRun):
            return outcome
        return Decrypted(
            plaintext=outcome.plaintext,
            key_id=_present("KeyId", outcome.answer.key_id),
            encryption_algorithm=_same(
                "EncryptionAlgorithm",
                outcome.answer.encryption_algorithm,
                encryption_algorithm or "SYMMETRIC_DEFAULT",
            ),
            caveats=outcome.caveats,
        )

    def may_decrypt(
        self,
        *,
        key: KeyArn,
        encryption_context: Mapping[str, str] | None = None,
        grant_tokens: Sequence[str] = (),
    ) -> DryRun:
        """Returns if KMS would decrypt under `key` for this enclave; no ciphertext is needed.

        Source: KMS API Reference, Decrypt, DryRunModifiers.
        """

        def build(recipient: RecipientInfo) -> bytes:
            return build_decrypt(
                ciphertext_blob=None,
                key_id=str(key),
                encryption_context=encryption_context,
                grant_tokens=grant_tokens,
                recipient=recipient,
            )

        outcome = self._call(Operation.DECRYPT, build, key=key, dry_run=True)
        if isinstance(outcome, DryRun):
            return outcome
        raise AssertionError("a dry run ends as one or raises")

    def derive_shared_secret(
        self,
        public_key: bytes,
        *,
        key: KeyArn | UnpinnedKeyId,
        grant_tokens: Sequence[str] = (),
        dry_run: bool = False,
    ) -> SharedSecret | DryRun:
        """ECDH of a KMS key-agreement key with `public_key`, SubjectPublicKeyInfo DER.

        Source: KMS API Reference, DeriveSharedSecret.
        """

        def build(recipient: RecipientInfo) -> bytes:
            return build_derive_shared_secret(
                key_id=str(key),
                public_key=public_key,
                grant_tokens=grant_tokens,
                dry_run=dry_run,
                recipient=recipient,
            )

        outcome = self._call(Operation.DERIVE_SHARED_SECRET, build, key=key, dry_run=dry_run)
        if isinstance(outcome, DryRun):
            return outcome
        _check_length(outcome.plaintext, _SHARED_SECRET_BYTES)
        return SharedSecret(
            secret=outcome.plaintext,
            key_id=_present("KeyId", outcome.answer.key_id),
            key_agreement_algorithm=_same(
                "KeyAgreementAlgorithm", outcome.answer.key_agreement_algorithm, "ECDH"
            ),
            caveats=outcome.caveats,
        )

    def generate_data_key(
        self,
        *,
        key: KeyArn | UnpinnedKeyId,
        key_spec: str | None = None,
        number_of_bytes: int | None = None,
        encryption_context: Mapping[str, str] | None = None,
        grant_tokens: Sequence[str] = (),
        dry_run: bool = False,
    ) -> DataKey | DryRun:
        """A new data key: `key_spec` (`AES_256`, `AES_128`) or `number_of_bytes`, 1 to 1,024.

        Source: KMS API Reference, GenerateDataKey.
        """

        def build(recipient: RecipientInfo) -> bytes:
            return build_generate_data_key(
                key_id=str(key),
                key_spec=key_spec,
                number_of_bytes=number_of_bytes,
                encryption_context=encryption_context,
                grant_tokens=grant_tokens,
                dry_run=dry_run,
                recipient=recipient,
            )

        outcome = self._call(Operation.GENERATE_DATA_KEY, build, key=key, dry_run=dry_run)
        if isinstance(outcome, DryRun):
            return outcome
        length = number_of_bytes or _KEY_SPEC_BYTES[key_spec or "AES_256"]
        _check_length(outcome.plaintext, (length,))
        return DataKey(
            plaintext=outcome.plaintext,
            ciphertext_blob=_present("CiphertextBlob", outcome.answer.ciphertext_blob),
            key_id=_present("KeyId", outcome.answer.key_id),
            caveats=outcome.caveats,
        )

    def generate_data_key_pair(
        self,
        *,
        key: KeyArn | UnpinnedKeyId,
        key_pair_spec: str,
        encryption_context: Mapping[str, str] | None = None,
        grant_tokens: Sequence[str] = (),
        dry_run: bool = False,
    ) -> DataKeyPair | DryRun:
        """A new key pair (`ECC_NIST_P256`, `RSA_3072`, …) whose private half opens here.

        Source: KMS API Reference, GenerateDataKeyPair.
        """

        def build(recipient: RecipientInfo) -> bytes:
            return build_generate_data_key_pair(
                key_id=str(key),
                key_pair_spec=key_pair_spec,
                encryption_context=encryption_context,
                grant_tokens=grant_tokens,
                dry_run=dry_run,
                recipient=recipient,
            )

        outcome = self._call(Operation.GENERATE_DATA_KEY_PAIR, build, key=key, dry_run=dry_run)
        if isinstance(outcome, DryRun):
            return outcome
        answer = outcome.answer
        return DataKeyPair(
            private_key_plaintext=outcome.plaintext,
            private_key_ciphertext_blob=_present(
                "PrivateKeyCiphertextBlob", answer.private_key_ciphertext_blob
            ),
            public_key=_present("PublicKey", answer.public_key),
            key_pair_spec=_same("KeyPairSpec", answer.key_pair_spec, key_pair_spec),
            key_id=_present("KeyId", answer.key_id),
            caveats=outcome.caveats,
        )

    def generate_random(self, number_of_bytes: int) -> RandomBytes:
        """1 to 1,024 random bytes, with the caveat `kms-random`.

        Source: KMS API Reference, GenerateRandom.
        """

        def build(recipient: RecipientInfo) -> bytes:
            return build_generate_random(number_of_bytes=number_of_bytes, recipient=recipient)

        opened = self._open(Operation.GENERATE_RANDOM, build, key=None)
        _check_length(opened.plaintext, (number_of_bytes,))
        return RandomBytes(plaintext=opened.plaintext, caveats=opened.caveats)

    def _call(
        self,
        operation: Operation,
        build: Callable[[RecipientInfo], bytes],
        *,
        key: KeyArn | AnyKey | UnpinnedKeyId,
        dry_run: bool,
    ) -> _Opened | DryRun:
        try:
            opened = self._open(operation, build, key=key)
        except KmsError as error:
            if not dry_run or error.code != "DryRunOperationException":
                raise
        else:
            if not dry_run:
                return opened
            raise UntrustedAnswerError(
                f"KMS answered a dry run with a result: it carried out {operation}",
                hint="this is not how KMS answers: check the endpoint",
            )
        # The document is the one that was just sent: it is kept for minutes.
        caveats = self._known(key) + self._recipient.attested_key().caveats()
        self._tolerance.check(caveats)
        return DryRun(operation=operation, caveats=caveats)

    def _open(
        self,
        operation: Operation,
        build: Callable[[RecipientInfo], bytes],
        *,
        key: KeyArn | AnyKey | UnpinnedKeyId | None,
    ) -> _Opened:
        known = self._known(key)
        self._tolerance.check(known)
        # Bad arguments are refused before a key, a document or a connection is made for them.
        build(RecipientInfo(attestation_document=b"\0"))
        attested: AttestedKey | None = None

        def prepare() -> tuple[bytes, AttestedKey]:
            nonlocal attested
            attested = self._recipient.attested_key()
            self._tolerance.check(attested.caveats())  # (1)
            return build(RecipientInfo(attestation_document=attested.document)), attested  # (2)

        try:
            http_answer, used = self._exchange.call(operation, prepare)
        except KmsError as error:
            if attested is not None:
                attested.explain(error)
            raise

        answer = parse_answer(operation, http_answer.body)  # (3)
        if isinstance(key, KeyArn):
            _same("KeyId", answer.key_id, str(key))
        plaintext = used.unwrap(answer.ciphertext_for_recipient)

        date = parse_http_date(http_answer.headers.get("date", ""))
        late = date is not None and abs(date - self._clock()) > limits.CLOCK_SKEW_MAX
        caveats = tuple(dict.fromkeys(known + used.caveats() + (CLOCK_SKEW,) * late))
        self._tolerance.check(caveats)  # (4)
        return _Opened(answer=answer, plaintext=plaintext, caveats=caveats)

    def _known(self, key: KeyArn | AnyKey | UnpinnedKeyId | None) -> tuple[Caveat, ...]:
        """The caveats of an operation that are known before its request; no key: GenerateRandom."""
        if key is None:
            return (*self._caveats, KMS_RANDOM)
        return self._caveats if isinstance(key, KeyArn) else (*self._caveats, UNPINNED_KEY)


def _present(name: str, value: Value | None) -> Value:
    if value is None:
        raise UntrustedAnswerError(
            f"the answer has no {name}", hint="this is not how KMS answers: check the endpoint"
        )
    return value


def _same(name: str, got: str | None, asked: str) -> str:
    if got != asked:
        raise UntrustedAnswerError(
            f"the answer's {name} is {got!a}, and {asked!a} was asked for",
            hint="this is not how KMS answers: do not use the endpoint before you know why",
        )
    return asked


def _check_length(plaintext: bytes, lengths: tuple[int, ...]) -> None:
    if len(plaintext) not in lengths:
        wanted = " or ".join(str(length) for length in lengths)
        raise UntrustedAnswerError(
            f"the opened answer has {len(plaintext)} bytes, and {wanted} were asked for",
            hint="this is not how KMS answers: do not use the endpoint before you know why",
        )
