"""The credentials, and whether KMS would do what this enclave is for: a dry run with attestation.

Of credentials only what is no secret is told. Whose they are, STS alone could say, which a
forwarder to KMS does not reach; KMS names the principal where it refuses. A dry run carries a
genuine attestation document and is carried out by nobody.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kmstool.arn import KeyArn
from kmstool.doctor.way import Way
from kmstool.enclave.credentials import Credentials, default_source, load_credentials
from kmstool.enclave.direct import DirectKms
from kmstool.endpoint import Deadline
from kmstool.errors import KmsError
from kmstool.findings import Check, Fact, Outcome, caution, fine, not_tried
from kmstool.session import SessionOptions, open_direct

OPERATIONS: Final = ("decrypt", "derive-shared-secret", "generate-data-key")
_SOON: Final = 300.0  # seconds
_LONG_TERM: Final = "AKIA"  # IAM User Guide, "IAM identifiers", unique id prefixes
_RENEW: Final = (
    "give them in a file, a pipe or over a socket, as `aws configure export-credentials --format"
    " process` writes them"
)
_ASK_AWS: Final = (
    "where KMS names the error, look it up in the KMS API Reference; where it does not, try again"
)
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the enclave is to be allowed.

    Attributes:
        key: with which key; None where nobody said.
        operation: one of `OPERATIONS`.
        encryption_context, grant_tokens: as the operations take them.
        explain: adds to a refusal what else is known of it.
    """

    key: KeyArn | None = None
    operation: str = "decrypt"
    encryption_context: Mapping[str, str] | None = None
    grant_tokens: tuple[str, ...] = ()
    explain: Callable[[KmsError], None] = lambda _error: None


class Access:
    """The checks of credentials and permission."""

    def __init__(
        self, options: SessionOptions, wish: Wish, way: Way, environ: Mapping[str, str]
    ) -> None:
        self._options = options
        self._wish = wish
        self._way = way
        self._environ = environ
        self._credentials: Credentials | None = None

    def checks(self) -> tuple[Check, ...]:
        """In their order."""
        # The emulator's are named in its directory, which the settings are read from.
        first = ("settings",) if "KMSTOOL_EMULATOR" in self._environ else ()
        needs = ("attestation", "kms", "credentials")
        return (
            Check("credentials", self._options.timeout, self._load, first, _RENEW),
            Check("permission", self._options.timeout, self._ask, needs, _ASK_AWS),
        )

    def _load(self, deadline: Deadline) -> Outcome:
        named = self._options.credentials
        if named is None and self._way.found is not None:
            named = self._way.found.credentials
        source = default_source(self._environ) if named is None else named
        found = self._credentials = load_credentials(source, self._environ, deadline)
        shown = f"{found.access_key_id[:4]}…{found.access_key_id[-4:]}"
        if len(found.access_key_id) < 16:  # too short for eight characters of it to be shown
            shown = "a short one"
        temporary = found.session_token is not None
        ends, left = _end_of(found)
        words = f"from {source}, access key id {shown}, {ends}"
        facts: dict[str, Fact] = {
            "source": source,
            "access_key_id": shown,
            "temporary": temporary,
            "expiration": None if found.expiration is None else found.expiration.isoformat(),
        }
        if not temporary:
            return caution(
                f"{words}; they are long-term keys",
                "hand out those of a role: `kmstool parent credentials` does",
                facts=facts,
            )
        if left is not None and left < _SOON:
            return caution(
                words, "see that whoever hands them out renews them in time", facts=facts
            )
        return fine(words, facts=facts)

    def _ask(self, _deadline: Deadline) -> Outcome:
        wish = self._wish
        if wish.key is None:
            return not_tried("no key was named", "give --key-id ARN, or set KMSTOOL_KEY_ID")
        try:
            with open_direct(
                self._options,
                key=wish.key,
                environ=self._environ,
                explicit_credentials=self._credentials,
            ) as kms:
                self._dry_run(kms, wish.key)
        except KmsError as error:
            wish.explain(error)
            raise
        return fine(
            f"KMS would carry out {wish.operation} with this key for this enclave",
            facts={"key": str(wish.key), "operation": wish.operation},
        )

    def _dry_run(self, kms: DirectKms, key: KeyArn) -> None:
        context, tokens = self._wish.encryption_context, self._wish.grant_tokens
        if self._wish.operation == "decrypt":
            kms.may_decrypt(key=key, encryption_context=context, grant_tokens=tokens)
        elif self._wish.operation == "generate-data-key":
            kms.generate_data_key(
                key=key,
                key_spec="AES_256",
                encryption_context=context,
                grant_tokens=tokens,
                dry_run=True,
            )
        else:
            _may_derive(kms, key, tokens)


def _may_derive(kms: DirectKms, key: KeyArn, tokens: tuple[str, ...]) -> None:
    """Tries the curves in turn: which one the key is on, KMS says only to whoever may ask."""
    for curve in _CURVES:
        public_key = ec.generate_private_key(curve()).public_key()
        der = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        try:
            kms.derive_shared_secret(der, key=key, grant_tokens=tokens, dry_run=True)
        except KmsError as error:
            if error.code != "ValidationException" or curve is _CURVES[-1]:
                raise
        else:
            return


def _end_of(credentials: Credentials) -> tuple[str, float | None]:
    if credentials.expiration is None:
        return "without a word of when they end", None
    left = (credentials.expiration - datetime.now(UTC)).total_seconds()
    return f"good for {_span(left)} more", left


def _span(seconds: float) -> str:
    minutes = int(seconds) // 60
    if minutes < 1:
        return f"{int(seconds)} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"
