"""KMS' JSON 1.1 messages for the five operations that take a `Recipient`: built, and parsed.

Pure: bytes in, bytes out. Requests are held to KMS' own limits before anything is sent (a test
compares each with botocore's model of the service). Answers are read strictly, and one that holds
a plaintext is refused: the KMS ignored `Recipient`, so nothing was attested. This module never
knows a socket, a credential or a decrypted secret, and no exception of it carries an answer.
What is not a 200 is read by `refusals.py`. Source: AWS KMS API Reference, the five operations.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Never

from kmstool.errors import InputError, SettingError, UntrustedAnswerError
from kmstool.limits import (
    CIPHERTEXT_MAX,
    CMS_MAX,
    DOCUMENT_MAX,
    ENCRYPTION_CONTEXT_MAX,
    GRANT_TOKEN_MAX,
    GRANT_TOKENS_MAX,
    HTTP_BODY_MAX,
    KEY_ID_MAX,
    PUBLIC_KEY_MAX,
    RANDOM_BYTES_MAX,
)
from kmstool.strict_json import read_object

__all__ = [
    "Answer",
    "AnswerReader",
    "Operation",
    "Recipient",
    "build_decrypt",
    "build_derive_shared_secret",
    "build_generate_data_key",
    "build_generate_data_key_pair",
    "build_generate_random",
    "parse_answer",
    "target_header",
]

ENCRYPTION_ALGORITHMS: Final = (
    "SYMMETRIC_DEFAULT",
    "RSAES_OAEP_SHA_1",
    "RSAES_OAEP_SHA_256",
    "SM2PKE",
)
KEY_AGREEMENT_ALGORITHM: Final = "ECDH"
KEY_ENCRYPTION_ALGORITHM: Final = "RSAES_OAEP_SHA_256"
DATA_KEY_SPECS: Final = ("AES_256", "AES_128")
# fmt: off
DATA_KEY_PAIR_SPECS: Final = (
    "RSA_2048", "RSA_3072", "RSA_4096",
    "ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521", "ECC_SECG_P256K1", "ECC_NIST_EDWARDS25519",
    "ML_KEM_512", "ML_KEM_768", "ML_KEM_1024", "SM2",
)
# fmt: on


class Operation(StrEnum):
    """The operations of KMS that take a `Recipient`, by the API's own names."""

    DECRYPT = "Decrypt"
    DERIVE_SHARED_SECRET = "DeriveSharedSecret"  # noqa: S105 - a name, not a secret
    GENERATE_DATA_KEY = "GenerateDataKey"
    GENERATE_DATA_KEY_PAIR = "GenerateDataKeyPair"
    GENERATE_RANDOM = "GenerateRandom"


@dataclass(frozen=True, slots=True)
class Recipient:
    """Who the answer is for: an attestation document of 1 to 262,144 bytes with a public key."""

    attestation_document: bytes

    def __post_init__(self) -> None:
        if not 1 <= len(self.attestation_document) <= DOCUMENT_MAX:
            raise InputError(
                f"the attestation document has {len(self.attestation_document)} bytes,"
                f" and KMS takes 1 to {DOCUMENT_MAX}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What KMS answered, decoded from base64 and checked in form; its meaning is not checked.

    Attributes:
        key_id: the ARN of the key that KMS used; None only for GenerateRandom.
        ciphertext_for_recipient: the CMS EnvelopedData, 1 to `CMS_MAX` bytes.
        encryption_algorithm: of Decrypt. key_agreement_algorithm: of DeriveSharedSecret.
        ciphertext_blob: of GenerateDataKey, always there.
        private_key_ciphertext_blob, public_key (SPKI DER), key_pair_spec: of GenerateDataKeyPair,
            always there.
        key_material_id: which material of a rotated or imported key was used, where KMS says so.
    """

    key_id: str | None
    ciphertext_for_recipient: bytes = field(repr=False)
    encryption_algorithm: str | None = None
    key_agreement_algorithm: str | None = None
    ciphertext_blob: bytes | None = None
    private_key_ciphertext_blob: bytes | None = None
    public_key: bytes | None = None
    key_pair_spec: str | None = None
    key_material_id: str | None = None


def target_header(operation: str) -> str:
    """The value of `X-Amz-Target`: `TrentService.Decrypt` and so on."""
    return f"TrentService.{operation}"


# --- Requests ----------------------------------------------------------------------------------


def build_decrypt(
    *,
    ciphertext_blob: bytes | None,
    key_id: str | None,
    encryption_context: Mapping[str, str] | None = None,
    encryption_algorithm: str | None = None,
    grant_tokens: Sequence[str] = (),
    dry_run: bool = False,
    recipient: Recipient,
) -> bytes:
    """The body of a Decrypt request.

    Args:
        ciphertext_blob: 1 to 6,144 bytes. None: a dry run that needs none (it needs `key_id`).
        key_id: an ARN, or None to let KMS take the key that the ciphertext names.

    Raises:
        InputError: the ciphertext is empty or too long.
        SettingError: a name, id or number is outside KMS' limits.
    """
    body: dict[str, object] = {"DryRunModifiers": ["IGNORE_CIPHERTEXT"]}
    if ciphertext_blob is not None:
        body = {"CiphertextBlob": _blob("ciphertext", ciphertext_blob)}
    dry_run = dry_run or ciphertext_blob is None
    if key_id is not None:
        body["KeyId"] = _text("key id", key_id, KEY_ID_MAX)
    if encryption_algorithm is not None:
        body["EncryptionAlgorithm"] = _one_of(
            "encryption algorithm", encryption_algorithm, ENCRYPTION_ALGORITHMS
        )
    _add_context(body, encryption_context)
    return _finish(body, grant_tokens=grant_tokens, dry_run=dry_run, recipient=recipient)


def build_derive_shared_secret(
    *,
    key_id: str,
    public_key: bytes,
    grant_tokens: Sequence[str] = (),
    dry_run: bool = False,
    recipient: Recipient,
) -> bytes:
    """The body of a DeriveSharedSecret request; `public_key` is SPKI DER of 1 to 8,192 bytes.

    Raises:
        InputError, SettingError: as `build_decrypt`.
    """
    body: dict[str, object] = {
        "KeyId": _text("key id", key_id, KEY_ID_MAX),
        "KeyAgreementAlgorithm": KEY_AGREEMENT_ALGORITHM,
        "PublicKey": _blob("public key", public_key, PUBLIC_KEY_MAX),
    }
    return _finish(body, grant_tokens=grant_tokens, dry_run=dry_run, recipient=recipient)


def build_generate_data_key(
    *,
    key_id: str,
    key_spec: str | None = None,
    number_of_bytes: int | None = None,
    encryption_context: Mapping[str, str] | None = None,
    grant_tokens: Sequence[str] = (),
    dry_run: bool = False,
    recipient: Recipient,
) -> bytes:
    """The body of a GenerateDataKey request: either `key_spec` or `number_of_bytes` (1 to 1,024).

    Raises:
        SettingError: both or neither were given, or a value is outside KMS' limits.
    """
    body: dict[str, object] = {"KeyId": _text("key id", key_id, KEY_ID_MAX)}
    if (key_spec is None) == (number_of_bytes is None):
        raise SettingError(
            "a data key needs either a key spec or a number of bytes, not both",
            hint="the key specs are " + " and ".join(DATA_KEY_SPECS),
        )
    if key_spec is not None:
        body["KeySpec"] = _one_of("key spec", key_spec, DATA_KEY_SPECS)
    if number_of_bytes is not None:
        body["NumberOfBytes"] = _number_of_bytes(number_of_bytes)
    _add_context(body, encryption_context)
    return _finish(body, grant_tokens=grant_tokens, dry_run=dry_run, recipient=recipient)


def build_generate_data_key_pair(
    *,
    key_id: str,
    key_pair_spec: str,
    encryption_context: Mapping[str, str] | None = None,
    grant_tokens: Sequence[str] = (),
    dry_run: bool = False,
    recipient: Recipient,
) -> bytes:
    """The body of a GenerateDataKeyPair request.

    Raises:
        SettingError: a value is outside KMS' limits.
    """
    body: dict[str, object] = {
        "KeyId": _text("key id", key_id, KEY_ID_MAX),
        "KeyPairSpec": _one_of("key pair spec", key_pair_spec, DATA_KEY_PAIR_SPECS),
    }
    _add_context(body, encryption_context)
    return _finish(body, grant_tokens=grant_tokens, dry_run=dry_run, recipient=recipient)


def build_generate_random(*, number_of_bytes: int, recipient: Recipient) -> bytes:
    """The body of a GenerateRandom request for 1 to 1,024 bytes.

    Raises:
        SettingError: the number is outside KMS' limits.
    """
    return _finish({"NumberOfBytes": _number_of_bytes(number_of_bytes)}, recipient=recipient)


def _finish(
    body: dict[str, object],
    *,
    grant_tokens: Sequence[str] = (),
    dry_run: bool = False,
    recipient: Recipient,
) -> bytes:
    if len(grant_tokens) > GRANT_TOKENS_MAX:
        raise SettingError(
            f"{len(grant_tokens)} grant tokens were given, and KMS takes {GRANT_TOKENS_MAX}"
        )
    if grant_tokens:
        body["GrantTokens"] = [_text("grant token", t, GRANT_TOKEN_MAX) for t in grant_tokens]
    if dry_run:
        body["DryRun"] = True
    body["Recipient"] = {
        "KeyEncryptionAlgorithm": KEY_ENCRYPTION_ALGORITHM,
        "AttestationDocument": base64.b64encode(recipient.attestation_document).decode("ascii"),
    }
    return json.dumps(body, separators=(",", ":"), allow_nan=False).encode("ascii")


def _blob(what: str, data: bytes, maximum: int = CIPHERTEXT_MAX) -> str:
    if not data:
        raise InputError(f"the {what} is empty")
    if len(data) > maximum:
        raise InputError(f"the {what} has {len(data)} bytes, and KMS takes at most {maximum}")
    return base64.b64encode(data).decode("ascii")


def _text(what: str, value: str, maximum: int) -> str:
    """A length in characters, and no lone surrogates: those are bytes of argv that are no UTF-8."""
    if not 1 <= len(value) <= maximum:
        raise SettingError(f"the {what} has {len(value)} characters, and KMS takes 1 to {maximum}")
    if not _is_unicode(value):
        raise SettingError(f"the {what} is not valid UTF-8")
    return value


def _is_unicode(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _one_of(what: str, value: str, choices: Sequence[str]) -> str:
    if value not in choices:
        raise SettingError(f"unknown {what} {value!r}", hint="KMS knows " + ", ".join(choices))
    return value


def _number_of_bytes(value: int) -> int:
    if not 1 <= value <= RANDOM_BYTES_MAX:
        raise SettingError(f"the number of bytes is {value}, and KMS takes 1 to {RANDOM_BYTES_MAX}")
    return value


def _add_context(body: dict[str, object], context: Mapping[str, str] | None) -> None:
    """An empty context is left out: KMS takes both as none."""
    if not context:
        return
    texts = [text for pair in context.items() for text in pair]
    if not all(map(_is_unicode, texts)):
        raise SettingError("the encryption context is not valid UTF-8")
    size = sum(len(text.encode()) for text in texts)
    if size > ENCRYPTION_CONTEXT_MAX:
        raise SettingError(
            f"the encryption context has {size} bytes, and KMS takes {ENCRYPTION_CONTEXT_MAX}"
        )
    body["EncryptionContext"] = dict(context)


# --- Answers -----------------------------------------------------------------------------------

# Members that hold a secret when the KMS did not encrypt to the recipient. "Null or empty" else.
_UNATTESTED = ("Plaintext", "PrivateKeyPlaintext", "SharedSecret")


def parse_answer(operation: Operation, body: bytes) -> Answer:
    """Reads the body of a 200 answer.

    Raises:
        UntrustedAnswerError: the body is not one strict JSON object (no duplicate names, no NaN, at
            most `HTTP_BODY_MAX` bytes), holds an unattested secret, or lacks what the operation
            must answer. Neither the exception nor its context holds a part of the body.
    """
    members, problem = read_object(body, HTTP_BODY_MAX)
    if members is None:
        raise UntrustedAnswerError(f"the answer to {operation} {problem}")
    for name in _UNATTESTED:
        if members.get(name) not in (None, ""):
            raise UntrustedAnswerError(
                f"the answer to {operation} holds {name}: the KMS ignored Recipient,"
                " so the answer is not attested",
                hint="the secret in it was sent to whoever asked; check what is answering,"
                " and let the key policy require kms:RecipientAttestation conditions",
            )
    reader = AnswerReader(operation, members)
    generates_key = operation is Operation.GENERATE_DATA_KEY
    generates_pair = operation is Operation.GENERATE_DATA_KEY_PAIR
    return Answer(
        key_id=reader.text("KeyId", KEY_ID_MAX, needed=operation is not Operation.GENERATE_RANDOM),
        ciphertext_for_recipient=reader.needed_blob("CiphertextForRecipient", CMS_MAX),
        encryption_algorithm=reader.text("EncryptionAlgorithm"),
        key_agreement_algorithm=reader.text("KeyAgreementAlgorithm"),
        ciphertext_blob=reader.blob("CiphertextBlob", CIPHERTEXT_MAX, needed=generates_key),
        private_key_ciphertext_blob=reader.blob(
            "PrivateKeyCiphertextBlob", CIPHERTEXT_MAX, needed=generates_pair
        ),
        public_key=reader.blob("PublicKey", PUBLIC_KEY_MAX, needed=generates_pair),
        key_pair_spec=reader.text("KeyPairSpec", needed=generates_pair),
        key_material_id=reader.text("KeyMaterialId"),
    )


class AnswerReader:
    """Takes typed members out of an answer; its errors name the member, never the value."""

    def __init__(self, operation: str, members: Mapping[str, object]) -> None:
        self._operation = operation
        self._members = members

    def text(self, name: str, maximum: int = 128, *, needed: bool = False) -> str | None:
        value = self._members.get(name)
        if value is None and not needed:
            return None
        if value is None:
            self.refuse(f"has no {name}")
        if not isinstance(value, str) or not 1 <= len(value) <= maximum:
            self.refuse(f"has a {name} that is not a string of 1 to {maximum} characters")
        # It will stand in messages on a terminal; the real values are ARNs and names.
        if not (value.isascii() and value.isprintable()):
            self.refuse(f"has a {name} with characters that KMS does not use")
        return value

    def blob(self, name: str, maximum: int, *, needed: bool = False) -> bytes | None:
        if self._members.get(name) is None and not needed:
            return None
        return self.needed_blob(name, maximum)

    def needed_blob(self, name: str, maximum: int) -> bytes:
        value = self._members.get(name)
        if value is None:
            self.refuse(f"has no {name}")
        data = strict_base64(value)
        if data is None:
            self.refuse(f"has a {name} that is not base64")
        if not 1 <= len(data) <= maximum:
            self.refuse(f"has a {name} of {len(data)} bytes, and 1 to {maximum} were expected")
        return data

    def refuse(self, problem: str) -> Never:
        """Raises `UntrustedAnswerError`: the answer `problem`."""
        raise UntrustedAnswerError(f"the answer to {self._operation} {problem}")


def strict_base64(value: object) -> bytes | None:
    """Canonical base64 only: one text for one value, so that nothing hides in padding bits."""
    if not isinstance(value, str):
        return None
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if base64.b64encode(data).decode("ascii") == value else None
