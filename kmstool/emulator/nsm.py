"""A simulated Nitro Security Module: PCRs of your choice, and documents that a test chain signs.

What it does: answers the seven requests of the ABI (aws-nitro-enclaves-nsm-api) with the real
module's limits, and with the errors that QEMU's emulation behind the Linux driver showed: PCR 0 to
15 are locked at boot, `pcrs` of a document holds the locked ones, extending or locking a locked one
is ReadOnlyIndex, an index up to 255 that does not exist is InvalidIndex, and whatever cannot be
read as a request is InvalidOperation.
What it never does: prove anything. It shares no code with `kmstool/enclave`.
"""

import hashlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

from kmstool import cbor, limits
from kmstool.emulator.cbor_writer import encode
from kmstool.emulator.signer import SigningChain
from kmstool.errors import SettingError

MapForm = Literal["definite", "indefinite", "random"]

LOCKED_AT_BOOT = 16
MODULE_ID = "i-0123456789abcdef0-enc0123456789abcdef"
_ZERO = bytes(limits.NSM_PCR_LENGTH)


class SimulatedNsm:
    """One module of one enclave; `handle` may be called from several threads.

    Args:
        pcrs: index (0..31) to 48 bytes; the others are zero.
        signer: the chain that signs documents.
        map_form: how a document's payload is written; `random` takes either, each time anew.
        module_id: what documents and DescribeNSM say.
        clock: seconds since 1970, for tests that age documents.

    Raises:
        SettingError: a PCR that does not exist or is not of 48 bytes.
    """

    def __init__(
        self,
        pcrs: Mapping[int, bytes],
        signer: SigningChain,
        map_form: MapForm = "random",
        *,
        module_id: str = MODULE_ID,
        clock: Callable[[], float] = time.time,
    ) -> None:
        for index, value in pcrs.items():
            if not 0 <= index < limits.NSM_PCR_COUNT_MAX or len(value) != limits.NSM_PCR_LENGTH:
                raise SettingError(
                    f"PCR {index} of {len(value)} bytes cannot be simulated",
                    hint=f"PCRs are 0..{limits.NSM_PCR_COUNT_MAX - 1} and have 48 bytes",
                )
        self._pcrs = [pcrs.get(index, _ZERO) for index in range(limits.NSM_PCR_COUNT_MAX)]
        self._locked = set(range(LOCKED_AT_BOOT))
        self._signer = signer
        self._map_form = map_form
        self._module_id = module_id
        self._clock = clock
        self._lock = threading.Lock()

    def handle(self, request: bytes) -> bytes:
        """Returns the answer to one request; never raises."""
        try:
            answer = encode(self._answer(*_read_request(request)))
        except _Refused as refused:
            return encode({"Error": refused.code})
        if len(answer) > limits.NSM_RESPONSE_MAX:
            return encode({"Error": "BufferTooSmall"})
        return answer

    def _answer(self, name: str, fields: dict[Any, Any]) -> object:
        handlers: dict[str, Callable[[dict[Any, Any]], object]] = {
            "DescribeNSM": self._describe_nsm,
            "GetRandom": lambda _: {"random": os.urandom(limits.NSM_RANDOM_MAX)},
            "Attestation": self._attestation,
            "DescribePCR": self._describe_pcr,
            "ExtendPCR": self._extend_pcr,
            "LockPCR": self._lock_pcr,
            "LockPCRs": self._lock_pcrs,
        }
        if name not in handlers:
            raise _Refused("InvalidOperation")
        with self._lock:
            content = handlers[name](fields)
        return name if content is None else {name: content}

    def _describe_nsm(self, _fields: dict[Any, Any]) -> object:
        return {
            "version_major": 1,
            "version_minor": 0,
            "version_patch": 0,
            "module_id": self._module_id,
            "max_pcrs": limits.NSM_PCR_COUNT_MAX,
            "locked_pcrs": sorted(self._locked),
            "digest": "SHA384",
        }

    def _attestation(self, fields: dict[Any, Any]) -> object:
        values = {
            "public_key": _octets(fields, "public_key", limits.DOCUMENT_PUBLIC_KEY_MAX),
            "user_data": _octets(fields, "user_data", limits.DOCUMENT_USER_DATA_MAX),
            "nonce": _octets(fields, "nonce", limits.DOCUMENT_NONCE_MAX),
        }
        form = self._map_form
        if form == "random":
            form = secrets.choice(("definite", "indefinite"))
        document = self._signer.sign_document(
            module_id=self._module_id,
            timestamp=int(self._clock() * 1000),
            pcrs={index: self._pcrs[index] for index in self._locked},
            indefinite=form == "indefinite",
            **values,
        )
        return {"document": document}

    def _describe_pcr(self, fields: dict[Any, Any]) -> object:
        index = _index(fields)
        return {"lock": index in self._locked, "data": self._pcrs[index]}

    def _extend_pcr(self, fields: dict[Any, Any]) -> object:
        data = _octets(fields, "data", limits.NSM_EXTEND_MAX)
        index = _index(fields)
        if data is None:
            raise _Refused("InvalidOperation")
        self._refuse_locked(index)
        self._pcrs[index] = hashlib.sha384(self._pcrs[index] + data).digest()
        return {"data": self._pcrs[index]}

    def _lock_pcr(self, fields: dict[Any, Any]) -> None:
        index = _index(fields)
        self._refuse_locked(index)
        self._locked.add(index)

    def _lock_pcrs(self, fields: dict[Any, Any]) -> None:
        count = _number(fields, "range")
        if count > limits.NSM_PCR_COUNT_MAX:
            raise _Refused("InvalidIndex")
        self._locked.update(range(count))

    def _refuse_locked(self, index: int) -> None:
        if index in self._locked:
            raise _Refused("ReadOnlyIndex")


class _Refused(Exception):  # noqa: N818 - an answer of the ABI, not a fault
    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def _read_request(request: bytes) -> tuple[str, dict[Any, Any]]:
    if not 1 <= len(request) <= limits.NSM_REQUEST_MAX:
        raise _Refused("InputTooLarge" if request else "InvalidOperation")
    try:
        message = cbor.decode(request, max_depth=limits.NSM_CBOR_DEPTH_MAX)
    except cbor.CborError:
        raise _Refused("InvalidOperation") from None
    if message in ("DescribeNSM", "GetRandom"):
        return message, {}
    if type(message) is dict and len(message) == 1:
        name, fields = next(iter(message.items()))
        if type(fields) is dict and name not in ("DescribeNSM", "GetRandom"):
            return name, fields
    raise _Refused("InvalidOperation")


def _octets(fields: dict[Any, Any], name: str, most: int) -> bytes | None:
    value = fields.get(name)
    if value is None:
        return None
    if type(value) is not bytes:
        raise _Refused("InvalidOperation")
    if len(value) > most:
        raise _Refused("InputTooLarge")
    return value


def _number(fields: dict[Any, Any], name: str) -> int:
    value = fields.get(name)
    if type(value) is not int or not 0 <= value <= 0xFF:
        raise _Refused("InvalidOperation")
    return value


def _index(fields: dict[Any, Any]) -> int:
    index = _number(fields, "index")
    if index >= limits.NSM_PCR_COUNT_MAX:
        raise _Refused("InvalidIndex")
    return index
