"""What KMS says when it refuses: read from any body into a `KmsError`, with what to do about it.

Never raises on what it reads, and never lets it steer a terminal. Source: AWS KMS API Reference,
"Errors" of the five operations, and "Common Error Types"; JSON 1.1 puts the code into `__type`.
"""

import re
from collections.abc import Mapping
from typing import Final

from kmstool.errors import KmsError, printable
from kmstool.limits import HTTP_BODY_MAX, HTTP_MESSAGE_PRINT_MAX
from kmstool.strict_json import read_object

_CODE = re.compile(r"[A-Za-z][A-Za-z0-9._]{0,127}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9-]{1,128}")

# Whatever the body says, a 5xx is retryable too: a load balancer's 503 has no code of KMS'.
RETRYABLE_CODES: Final = frozenset(
    {
        "KMSInternalException",
        "DependencyTimeoutException",
        "KeyUnavailableException",
        "ThrottlingException",
    }
)


def parse_error(
    operation: str,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    secret: str | None = None,
) -> KmsError:
    """Reads an answer that is not 200; any body gives an error, none raises.

    Args:
        headers: names in lower case.
        secret: what was sent along and must not be repeated: AWS explains a wrong signature with
            the canonical request, and the session token is a header in that.

    Returns:
        The error to raise. Its message is one printable line whatever the body holds (messages go
        to terminals): control characters, escapes and direction marks become `?`. Where no code can
        be read it is `HTTP500` and so on.
    """
    members = read_object(body, HTTP_BODY_MAX)[0] or {}
    code = _error_code(members.get("__type")) or _error_code(headers.get("x-amzn-errortype"))
    said = members.get("message", members.get("Message"))
    said = said if isinstance(said, str) else ""
    said = _one_line(said.replace(secret, "…") if secret else said)
    code = code or f"HTTP{status}"
    request_id = headers.get("x-amzn-requestid", "")
    return KmsError(
        f"KMS refused {operation}: {code}" + (f": {said}" if said else ""),
        operation=str(operation),
        status=status,
        code=code,
        kms_message=said,
        request_id=request_id if _REQUEST_ID.fullmatch(request_id) else None,
        retryable=code in RETRYABLE_CODES or status >= 500,
        hint=HINTS.get(code),
    )


def _error_code(value: object) -> str | None:
    """`com.amazonaws.kms#NotFoundException:http://…` → `NotFoundException`."""
    if not isinstance(value, str):
        return None
    name = value.partition(":")[0].rpartition("#")[2]
    return name if _CODE.fullmatch(name) else None


def _one_line(text: str) -> str:
    line = printable(" ".join(text[: 2 * HTTP_MESSAGE_PRINT_MAX].split()))
    return line if len(line) <= HTTP_MESSAGE_PRINT_MAX else line[: HTTP_MESSAGE_PRINT_MAX - 1] + "…"


_CLOCK = (
    "check the enclave's clock, the region, and that the secret access key belongs to the access"
    " key id"
)
_NO_ACCOUNT = (
    "KMS does not know these credentials: they are of another partition, were deleted, or are"
    " temporary ones without their session token"
)
_EXPIRED = "the parent has to hand over fresh credentials; the enclave cannot renew them itself"
_PASSING = "KMS asks to try again; if it lasts, look at the AWS Health Dashboard of the region"

# What the code alone tells. What only the enclave knows (debug mode, its PCRs) is added elsewhere.
HINTS: Final[Mapping[str, str]] = {
    "AccessDeniedException": "the key policy, an IAM policy or a grant has to allow this role, this"
    " action and, where it has kms:RecipientAttestation conditions, the PCRs of this image",
    "CustomKeyStoreInvalidStateException": "connect the custom key store, or wait until it is"
    " connected",
    "CustomKeyStoreNotFoundException": "the custom key store does not exist in this account and"
    " region",
    "DependencyTimeoutException": _PASSING,
    "DisabledException": "enable the key (EnableKey), or use another one",
    "ExpiredTokenException": _EXPIRED,
    "ExpiredToken": _EXPIRED,
    "IncompleteSignature": "something between the enclave and KMS changed the request's headers",
    "IncompleteSignatureException": "something between the enclave and KMS changed the request's"
    " headers",
    "IncorrectKeyException": "the ciphertext was made with another key than --key-id names",
    "InvalidCiphertextException": "the ciphertext is damaged (--input says whether it is base64 or"
    " raw), was not made by KMS, or was made with another encryption context: give the very same"
    " names and values",
    "InvalidClientTokenId": _NO_ACCOUNT,
    "InvalidGrantTokenException": "grant tokens are needed only in the first minutes of a grant:"
    " leave it out, or create the grant again",
    "InvalidKeyUsageException": "the key's usage or spec does not fit the operation: Decrypt and"
    " data keys need ENCRYPT_DECRYPT, DeriveSharedSecret needs KEY_AGREEMENT, data keys a symmetric"
    " key",
    "InvalidSignatureException": _CLOCK,
    "KMSInternalException": _PASSING,
    "KMSInvalidStateException": "look at the key's state (DescribeKey): it is disabled, pending"
    " deletion or import, or its custom key store is not connected",
    "KeyUnavailableException": _PASSING,
    "LimitExceededException": "a quota of the account is used up: see Service Quotas",
    "MissingAuthenticationToken": "something between the enclave and KMS removed the request's"
    " signature",
    "MissingAuthenticationTokenException": "something between the enclave and KMS removed the"
    " request's signature",
    "NotFoundException": "the key does not exist in this account and region: compare both with the"
    " ARN",
    "OptInRequired": "the account has not enabled this region, or is suspended",
    "RequestExpired": _CLOCK,
    "SignatureDoesNotMatch": _CLOCK,
    "ThrottlingException": "the account's request quota for KMS is used up: fewer calls at a time,"
    " or a higher quota",
    "UnknownOperationException": "what answers here is not KMS, or one that does not know this"
    " operation",
    "UnrecognizedClientException": _NO_ACCOUNT,
    "UnsupportedOperationException": "this key or its key store does not support the operation"
    " with these parameters",
    "ValidationException": "KMS' message names the member of the request that it refuses",
}
