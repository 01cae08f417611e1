"""Answers of the Nitro Security Module: one function for each kind, pure over bytes.

An answer is CBOR in serde's externally tagged form (aws-nitro-enclaves-nsm-api, `api::Response`):
`{"GetRandom": {"random": …}}`, a bare `"LockPCR"`, or `{"Error": "InvalidArgument"}`. Accepted is
the kind that was asked for, with the fields of that kind in their types and sizes, and nothing
after it; everything else is `NsmError`. Fields that a newer module may add are passed over: the
module is trusted hardware, and what we use of it is checked.
"""

from dataclasses import dataclass
from typing import Any, Final, NoReturn

from kmstool import cbor, limits
from kmstool.errors import NsmError


@dataclass(frozen=True, slots=True)
class NsmDescription:
    """Answer of DescribeNSM.

    Attributes:
        version: major, minor, patch of the module's API.
        module_id: `i-<instance>-enc<enclave>`.
        max_pcrs: number of PCRs.
        locked_pcrs: indexes that can no longer be extended, ascending.
        digest: name of the PCRs' hash, `SHA384` on every module seen.
    """

    version: tuple[int, int, int]
    module_id: str
    max_pcrs: int
    locked_pcrs: tuple[int, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class Pcr:
    """Answer of DescribePCR: whether the register is locked, and its 48 bytes."""

    lock: bool
    data: bytes


def parse_describe_nsm(data: bytes) -> NsmDescription:
    """Raises: NsmError."""
    name = "DescribeNSM"
    fields = _fields(data, name)
    version = tuple(
        _integer(fields, name, f"version_{part}", 0, 0xFFFF) for part in ("major", "minor", "patch")
    )
    module_id = fields.get("module_id")
    if type(module_id) is not str or not 1 <= len(module_id) <= limits.NSM_MODULE_ID_MAX:
        raise _nonsense(name, "module_id is not a short text")
    max_pcrs = _integer(fields, name, "max_pcrs", 1, limits.NSM_PCR_COUNT_MAX)
    locked = fields.get("locked_pcrs")
    if type(locked) is not list or not all(
        type(index) is int and 0 <= index < max_pcrs for index in locked
    ):
        raise _nonsense(name, "locked_pcrs is not a list of PCR indexes")
    if len(set(locked)) != len(locked):
        raise _nonsense(name, "locked_pcrs names an index twice")
    digest = fields.get("digest")
    if digest not in ("SHA256", "SHA384", "SHA512"):
        raise _nonsense(name, "digest is none of SHA256, SHA384, SHA512")
    return NsmDescription(
        version=(version[0], version[1], version[2]),
        module_id=module_id,
        max_pcrs=max_pcrs,
        locked_pcrs=tuple(sorted(locked)),
        digest=digest,
    )


def parse_get_random(data: bytes) -> bytes:
    """Raises: NsmError."""
    fields = _fields(data, "GetRandom")
    return _octets(fields, "GetRandom", "random", 1, limits.NSM_RANDOM_MAX)


def parse_attestation(data: bytes) -> bytes:
    """Returns the document's bytes, unread. Raises: NsmError."""
    fields = _fields(data, "Attestation")
    return _octets(fields, "Attestation", "document", 1, limits.NSM_RESPONSE_MAX)


def parse_describe_pcr(data: bytes) -> Pcr:
    """Raises: NsmError."""
    fields = _fields(data, "DescribePCR")
    lock = fields.get("lock")
    if type(lock) is not bool:
        raise _nonsense("DescribePCR", "lock is neither true nor false")
    length = limits.NSM_PCR_LENGTH
    return Pcr(lock=lock, data=_octets(fields, "DescribePCR", "data", length, length))


def parse_extend_pcr(data: bytes) -> bytes:
    """Raises: NsmError."""
    length = limits.NSM_PCR_LENGTH
    return _octets(_fields(data, "ExtendPCR"), "ExtendPCR", "data", length, length)


def parse_lock_pcr(data: bytes) -> None:
    """Raises: NsmError."""
    _bare(data, "LockPCR")


def parse_lock_pcrs(data: bytes) -> None:
    """Raises: NsmError."""
    _bare(data, "LockPCRs")


# What each `Error` of the ABI means for the person who sees it: sentence, hint.
_ERRORS: Final[dict[str, tuple[str, str | None]]] = {
    "InvalidArgument": (
        "an argument of the request is not valid for the module",
        "check the PCR index and the sizes of nonce, user_data and public_key",
    ),
    "InvalidIndex": ("no PCR has that index", "the module's PCRs are those that max_pcrs counts"),
    "InvalidResponse": (
        "the module could not make a valid answer",
        "try again; if it stays, terminate the enclave and start it anew",
    ),
    "ReadOnlyIndex": (
        "the PCR is locked and cannot be changed",
        "PCR 0 to 15 are locked when the enclave starts; extend one of 16 to 31",
    ),
    "InvalidOperation": (
        "the module does not know this request",
        "the module is older than this request, or is another device than a Nitro module",
    ),
    "BufferTooSmall": (
        "the answer is larger than the buffer for it",
        "send a shorter user_data or nonce",
    ),
    "InputTooLarge": (
        "user_data, nonce, public_key or the data to extend is too long",
        "the limits are 512 bytes for user_data, nonce and extend, and 1024 for public_key",
    ),
    "InternalError": (
        "the module failed inside",
        "try again; if it stays, terminate the enclave and start it anew",
    ),
}


def _answer(data: bytes, name: str) -> Any:
    """Returns the decoded answer unless it is an `Error`, which is raised."""
    if len(data) > limits.NSM_RESPONSE_MAX:
        raise _nonsense(name, f"it has {len(data)} bytes, over {limits.NSM_RESPONSE_MAX}")
    try:
        answer = cbor.decode(data, max_depth=limits.NSM_CBOR_DEPTH_MAX)
    except cbor.CborError as error:
        raise _nonsense(name, f"it is not CBOR: {error}") from None
    if type(answer) is dict and len(answer) == 1 and "Error" in answer:
        _raise_error(name, answer["Error"])
    return answer


def _raise_error(name: str, code: object) -> NoReturn:
    if type(code) is not str or code not in _ERRORS:
        raise _nonsense(name, "its Error is none of the ABI's")
    sentence, hint = _ERRORS[code]
    raise NsmError(f"the NSM refused {name}: {code}: {sentence}", hint=hint, code=code)


def _fields(data: bytes, name: str) -> dict[Any, Any]:
    answer = _answer(data, name)
    if type(answer) is not dict or len(answer) != 1 or name not in answer:
        raise _nonsense(name, "it is an answer of another kind")
    fields = answer[name]
    if type(fields) is not dict:
        raise _nonsense(name, "it has no fields")
    return fields


def _bare(data: bytes, name: str) -> None:
    if _answer(data, name) != name:
        raise _nonsense(name, "it is an answer of another kind")


def _integer(fields: dict[Any, Any], name: str, key: str, least: int, most: int) -> int:
    value = fields.get(key)
    if type(value) is not int or not least <= value <= most:
        raise _nonsense(name, f"{key} is not a number in {least}..{most}")
    return value


def _octets(fields: dict[Any, Any], name: str, key: str, least: int, most: int) -> bytes:
    value = fields.get(key)
    if type(value) is not bytes:
        raise _nonsense(name, f"{key} is not a byte string")
    if not least <= len(value) <= most:
        raise _nonsense(name, f"{key} has {len(value)} bytes, not {least}..{most}")
    return value


def _nonsense(name: str, what: str) -> NsmError:
    return NsmError(
        f"the NSM's answer to {name} is not valid: {what}",
        hint="what answers is not a Nitro Security Module, or is broken",
    )
