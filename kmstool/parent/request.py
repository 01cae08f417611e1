"""What an enclave asks of the relay, read strictly: two operations, known members, a recipient.

The relay holds credentials for KMS, so what is not plainly one of the two calls that it exists for
is refused: another operation, a member that is not listed here, a request without `Recipient`
(whose answer the relay could read), or one whose region is not its key's.
Source: AWS KMS API Reference, Decrypt and DeriveSharedSecret.
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Never

from kmstool import limits
from kmstool.arn import KeyArn, parse_key_arn
from kmstool.errors import InputError, SettingError
from kmstool.framing import parse_relay_request
from kmstool.protocol import (
    ENCRYPTION_ALGORITHMS,
    KEY_AGREEMENT_ALGORITHM,
    KEY_ENCRYPTION_ALGORITHM,
    Operation,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayedCall:
    """One call that the relay may make, if it allows the key.

    Attributes:
        parameters: as botocore takes them: blobs are bytes.
    """

    operation: Operation
    key: KeyArn
    parameters: Mapping[str, Any] = field(repr=False)


def parse_relayed_call(message: Mapping[str, object]) -> RelayedCall:
    """Reads a relay request.

    Raises:
        InputError: it is anything but what docs/formats/framing.md has; the message names the
            member and repeats no value of it.
    """
    operation, region, parameters = parse_relay_request(message)
    members = _MEMBERS.get(operation)
    if members is None:
        raise InputError("the operation is none that makes sense over a relay")
    unknown = sorted(set(parameters) - set(members))
    if unknown:
        names = ", ".join(ascii(name) for name in unknown)
        raise InputError(f"unknown parameters: {names[: limits.PEER_MESSAGE_PRINT_MAX]}")
    for name in _REQUIRED[operation]:
        if name not in parameters:
            raise InputError(f"the parameter {name} is missing")
    read = {name: members[name](name, value) for name, value in parameters.items()}
    key: KeyArn = read.pop("KeyId")
    if key.region != region:
        raise InputError("the region is not that of the key")
    return RelayedCall(
        operation=Operation(operation), key=key, parameters={**read, "KeyId": str(key)}
    )


def _refuse(name: str, what: str) -> Never:
    raise InputError(f"the parameter {name} is not {what}")


def _blob(maximum: int) -> Callable[[str, object], bytes]:
    def read(name: str, value: object) -> bytes:
        data = b""
        if isinstance(value, str):
            try:
                data = base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError):
                _refuse(name, "base64")
        if not 1 <= len(data) <= maximum:
            _refuse(name, f"base64 of 1 to {maximum} bytes")
        return data

    return read


def _one_of(*allowed: str) -> Callable[[str, object], str]:
    def read(name: str, value: object) -> str:
        if not isinstance(value, str) or value not in allowed:
            _refuse(name, " or ".join(allowed))
        return value

    return read


def _key(name: str, value: object) -> KeyArn:
    try:
        return parse_key_arn(value) if isinstance(value, str) else _refuse(name, "a key ARN")
    except SettingError:
        _refuse(name, "a key ARN")


def _context(name: str, value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        _refuse(name, "an object of strings")
    size = sum(_utf8_length(name, text) for pair in value.items() for text in pair)
    if size > limits.ENCRYPTION_CONTEXT_MAX:
        _refuse(name, f"within {limits.ENCRYPTION_CONTEXT_MAX} bytes")
    return value


def _tokens(name: str, value: object) -> list[str]:
    if not isinstance(value, list) or len(value) > limits.GRANT_TOKENS_MAX:
        _refuse(name, f"a list of at most {limits.GRANT_TOKENS_MAX}")
    for token in value:
        if not isinstance(token, str) or not 1 <= len(token) <= limits.GRANT_TOKEN_MAX:
            _refuse(name, f"a list of strings of 1 to {limits.GRANT_TOKEN_MAX} characters")
        _utf8_length(name, token)
    return value


def _recipient(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != set(_RECIPIENT):
        _refuse(name, "an object of " + " and ".join(_RECIPIENT))
    return {inner: read(inner, value[inner]) for inner, read in _RECIPIENT.items()}


def _utf8_length(name: str, text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError:  # JSON can write lone surrogates
        _refuse(name, "valid UTF-8")


_RECIPIENT: Final[Mapping[str, Callable[[str, object], Any]]] = {
    "KeyEncryptionAlgorithm": _one_of(KEY_ENCRYPTION_ALGORITHM),
    "AttestationDocument": _blob(limits.DOCUMENT_MAX),
}
_MEMBERS: Final[Mapping[str, Mapping[str, Callable[[str, object], Any]]]] = {
    Operation.DECRYPT: {
        "CiphertextBlob": _blob(limits.CIPHERTEXT_MAX),
        "KeyId": _key,
        "EncryptionContext": _context,
        "EncryptionAlgorithm": _one_of(*ENCRYPTION_ALGORITHMS),
        "GrantTokens": _tokens,
        "Recipient": _recipient,
    },
    Operation.DERIVE_SHARED_SECRET: {
        "KeyId": _key,
        "KeyAgreementAlgorithm": _one_of(KEY_AGREEMENT_ALGORITHM),
        "PublicKey": _blob(limits.PUBLIC_KEY_MAX),
        "GrantTokens": _tokens,
        "Recipient": _recipient,
    },
}
_REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    Operation.DECRYPT: ("CiphertextBlob", "KeyId", "Recipient"),
    Operation.DERIVE_SHARED_SECRET: ("KeyId", "KeyAgreementAlgorithm", "PublicKey", "Recipient"),
}
