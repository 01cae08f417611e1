"""Frames between enclave and parent, and the messages in them: credentials, relay. No sockets here.

A frame is a length of four bytes, big-endian, and that many bytes of UTF-8 JSON, always an object.
docs/formats/framing.md is the specification; tests/vectors/framing.json holds it to this file.
Both sides use it, so neither side is trusted here: every length is bounded before it is believed,
and no message of an error repeats what was read, which may be a secret.
"""

import json
from collections.abc import Callable, Mapping
from typing import Final

from kmstool.errors import (
    CredentialsError,
    InputError,
    TransportError,
    UntrustedAnswerError,
    printable,
)
from kmstool.limits import FRAME_MAX, PEER_MESSAGE_PRINT_MAX
from kmstool.strict_json import read_object

LENGTH_BYTES: Final = 4
VERSION: Final = 1
_CREDENTIALS: Final = "Credentials"
_KMS: Final = "Kms"


def build_frame(message: Mapping[str, object]) -> bytes:
    """The frame of one message: 4 bytes of length, then 2 to `FRAME_MAX` bytes of JSON.

    Raises:
        InputError: the message is too long for a frame.
    """
    payload = json.dumps(message, separators=(",", ":"), allow_nan=False).encode("ascii")
    if len(payload) > FRAME_MAX:
        raise InputError(f"a message of {len(payload)} bytes does not fit a frame of {FRAME_MAX}")
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload


def read_frame(recv: Callable[[int], bytes]) -> dict[str, object]:
    """Reads one frame and never a byte beyond it.

    Args:
        recv: gives 1 to n bytes, or b"" at the end of the stream, as `socket.recv` does. What it
            raises passes through.

    Raises:
        InputError: the stream ended, the length is 0 or beyond `FRAME_MAX`, or the payload is not
            one strict JSON object.
    """
    length = int.from_bytes(_read_exactly(recv, LENGTH_BYTES, "length"), "big")
    if not 1 <= length <= FRAME_MAX:
        raise InputError(
            f"a frame announces {length} bytes, and 1 to {FRAME_MAX} are allowed",
            hint="the other end probably speaks another protocol: check the address",
        )
    message, fault = read_object(_read_exactly(recv, length, "payload"), FRAME_MAX)
    if message is None:
        raise InputError(f"the payload of a frame {fault}")
    return message


def build_credentials_request() -> bytes:
    """The frame with which an enclave asks its parent for credentials."""
    return build_frame({"Version": VERSION, "Request": _CREDENTIALS})


def parse_credentials_request(message: Mapping[str, object]) -> None:
    """Returns when the message is the request for credentials, all of it and nothing more.

    Raises:
        InputError: it is something else.
    """
    if not _is_version(message.get("Version")):
        raise InputError(f"the request is not of version {VERSION}")
    if message.get("Request") != _CREDENTIALS:
        raise InputError(f"the request is not for {_CREDENTIALS!r}")
    if len(message) != 2:
        raise InputError("the request has members that version 1 does not know")


def build_credentials_answer(
    *,
    access_key_id: str,
    secret_access_key: str,
    session_token: str | None = None,
    expiration: str | None = None,
) -> bytes:
    """The frame that carries credentials, in the JSON of AWS' `credential_process`.

    Args:
        expiration: a date and time of ISO 8601 with its zone; None for credentials that last.

    Source: "Sourcing credentials with an external process", AWS SDKs and Tools Reference Guide.
    """
    message: dict[str, object] = {
        "Version": VERSION,
        "AccessKeyId": access_key_id,
        "SecretAccessKey": secret_access_key,
    }
    if session_token is not None:
        message["SessionToken"] = session_token
    if expiration is not None:
        message["Expiration"] = expiration
    return build_frame(message)


def build_error_answer(code: str, message: str) -> bytes:
    """The frame with which a parent refuses; docs/formats/framing.md lists the codes."""
    return build_frame({"Error": {"Code": code, "Message": message}})


def parse_credentials_answer(message: Mapping[str, object]) -> Mapping[str, object]:
    """The credentials' JSON, still to be read by `enclave.credentials`.

    Raises:
        CredentialsError: the parent sent an error instead, or something malformed.
    """
    if "Error" not in message:
        return message
    refusal = _read_refusal(message)
    if refusal is None:
        raise CredentialsError("the parent answered with a malformed error in place of credentials")
    raise CredentialsError(
        "the parent gave no credentials: " + ": ".join(refusal),
        hint="look at the output of `kmstool parent credentials` on the parent instance",
    )


# --- Relay -------------------------------------------------------------------------------------

NOT_AVAILABLE: Final = "NotAvailable"
REFUSED: Final = "Refused"
BAD_REQUEST: Final = "BadRequest"
INTERNAL_ERROR: Final = "InternalError"

_REQUEST_MEMBERS = {"Version", "Request", "Operation", "Region", "Parameters"}


def build_relay_request(operation: str, region: str, parameters: Mapping[str, object]) -> bytes:
    """The frame with which an enclave asks its parent to call KMS.

    Args:
        parameters: the members of KMS' JSON request, by AWS' names and with blobs in base64.

    Raises:
        InputError: it does not fit a frame.
    """
    return build_frame(
        {
            "Version": VERSION,
            "Request": _KMS,
            "Operation": operation,
            "Region": region,
            "Parameters": dict(parameters),
        }
    )


def parse_relay_request(message: Mapping[str, object]) -> tuple[str, str, dict[str, object]]:
    """Operation, region and parameters; what they may be is the relay's decision.

    Raises:
        InputError: it is another message.
    """
    if not _is_version(message.get("Version")):
        raise InputError(f"the request is not of version {VERSION}")
    if message.get("Request") != _KMS:
        raise InputError(f"the request is not for {_KMS!r}")
    if set(message) != _REQUEST_MEMBERS:
        raise InputError("the request has not just the members of version 1")
    operation, region, parameters = (
        message[name] for name in ("Operation", "Region", "Parameters")
    )
    if not isinstance(operation, str) or not isinstance(region, str):
        raise InputError("the request's Operation or Region is not a string")
    if not isinstance(parameters, dict):
        raise InputError("the request's Parameters are not an object")
    return operation, region, parameters


def build_relay_answer(members: Mapping[str, object]) -> bytes:
    """The frame that carries KMS' answer: its members by AWS' names, blobs in base64."""
    return build_frame({"Version": VERSION, "Answer": dict(members)})


def build_relay_refusal(*, status: int, code: str, message: str, request_id: str | None) -> bytes:
    """The frame that says that KMS refused, and how."""
    error = {"Status": status, "Code": code, "Message": message, "RequestId": request_id}
    return build_frame({"Version": VERSION, "KmsError": error})


RelayRefusal = tuple[int, dict[str, str], bytes]


def parse_relay_answer(
    message: Mapping[str, object],
) -> tuple[dict[str, object], None] | tuple[None, RelayRefusal]:
    """KMS' answer, or else status, headers and body of KMS' refusal; both still to be read.

    They are read by `protocol.parse_answer` and `refusals.parse_error`, as over TLS.

    Raises:
        TransportError: the relay refused by itself; `retryable` where it may do it later.
        UntrustedAnswerError: it is no answer of a relay.
    """
    if "Error" in message:
        raise _relay_error(message)
    if not _is_version(message.get("Version")) or len(message) != 2:
        raise UntrustedAnswerError(f"the relay's answer is not one of version {VERSION}")
    answer = message.get("Answer")
    if isinstance(answer, dict):
        return answer, None
    error = message.get("KmsError")
    if not isinstance(error, dict) or not _is_status(error.get("Status")):
        raise UntrustedAnswerError("the relay's answer holds neither KMS' answer nor its error")
    # Whatever the other members are, `parse_error` reads only strings of a certain form.
    body = json.dumps({"__type": error.get("Code"), "message": error.get("Message")})
    request_id = error.get("RequestId")
    headers = {"x-amzn-requestid": request_id} if isinstance(request_id, str) else {}
    return None, (error["Status"], headers, body.encode("ascii"))


def _relay_error(message: Mapping[str, object]) -> TransportError | UntrustedAnswerError:
    refusal = _read_refusal(message)
    if refusal is None:
        return UntrustedAnswerError("the relay answered with a malformed error")
    return TransportError(
        "the relay did not ask KMS: " + ": ".join(refusal),
        hint="look at the output of the relay on the parent instance, and at its --allow-key",
        retryable=refusal[0] == NOT_AVAILABLE,
    )


def _is_version(value: object) -> bool:
    # True == 1 and 1.0 == 1 in Python; neither is the number 1 of JSON as it was meant.
    return type(value) is int and value == VERSION


def _is_status(value: object) -> bool:
    """Of HTTP (RFC 9110, section 15), or 0 where the relay did not see one."""
    return type(value) is int and 0 <= value <= 999


def _read_refusal(message: Mapping[str, object]) -> tuple[str, str] | None:
    """Code and text of the peer's `Error`, fit for a message; None where it is malformed."""
    error = message["Error"]
    if len(message) != 1 or not isinstance(error, dict):
        return None
    code, text = error.get("Code"), error.get("Message")
    if not isinstance(code, str) or not isinstance(text, str):
        return None
    return _cut(code), _cut(text)


def _cut(text: str) -> str:
    cut = text if len(text) <= PEER_MESSAGE_PRINT_MAX else text[:PEER_MESSAGE_PRINT_MAX] + "…"
    return printable(cut)


def _read_exactly(recv: Callable[[int], bytes], count: int, what: str) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = recv(count - len(data))
        if not piece:
            raise InputError(
                f"the stream ended after {len(data)} of the {count} bytes of a frame's {what}",
                hint="the other end closed the connection: look at its output",
            )
        data += piece
    return bytes(data)
