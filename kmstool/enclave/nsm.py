"""The Nitro Security Module: its seven requests, over /dev/nsm or another transport.

What it does: builds each request of the ABI (aws-nitro-enclaves-nsm-api, `api::Request`; CBOR in
serde's externally tagged form) within the module's bounds, sends it, and lets nsm_answers.py read
what came back.
What it never does: trust a length it was told, keep a request or answer, or know where a simulated
module is (session.py brings that transport).

`DevNsm` follows linux/nsm.h: ioctl `_IOWR(0x0A, 0x0, struct nsm_message)`, where the message is two
`struct iovec`, request then response, and the driver writes the answer's length into the second.
"""

import errno
import os
from collections.abc import Callable, Mapping
from struct import Struct
from typing import Final, Protocol, Self

from cbor2 import dumps

from kmstool import limits
from kmstool.enclave import nsm_answers as answers
from kmstool.enclave.nsm_answers import NsmDescription, Pcr
from kmstool.errors import InputError, NsmError, SettingError

__all__ = ["BIRTH_TAG", "RESERVED_PREFIX", "DevNsm", "Nsm", "NsmDescription", "Pcr", "Transport"]

BIRTH_TAG: Final = b"kmstool-birth-1"
# The whole prefix, not the tag alone: an image of today must not sign the tags of tomorrow either.
RESERVED_PREFIX: Final = b"kmstool-"


class Transport(Protocol):
    """Carries one request of 1..4096 bytes of CBOR and returns the answer's bytes."""

    def exchange(self, request: bytes) -> bytes: ...

    def close(self) -> None: ...


class Nsm:
    """The module behind a transport; a context manager that closes the transport."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def describe_nsm(self) -> NsmDescription:
        """Raises: NsmError."""
        return answers.parse_describe_nsm(self._exchange("DescribeNSM"))

    def get_random(self) -> bytes:
        """Returns 1 to 256 bytes of the module's own randomness. Raises: NsmError."""
        return answers.parse_get_random(self._exchange("GetRandom"))

    def attestation(
        self,
        *,
        public_key: bytes | None = None,
        user_data: bytes | None = None,
        nonce: bytes | None = None,
    ) -> bytes:
        """Returns a fresh attestation document (COSE_Sign1) that carries the three values.

        Args:
            public_key: 1..1024 bytes, SubjectPublicKeyInfo DER of the recipient key.
            user_data: 0..512 bytes. It must not begin with `kmstool-`: that prefix says that the
                image itself, and not whoever asked it, vouches for what follows. A parent that
                could have it signed would forge birth certificates. The check is here because
                whatever asks for a document comes through this method.
            nonce: 0..512 bytes.

        Raises:
            InputError: a value is longer than the module takes, or user_data has the prefix.
            NsmError: the module refused or answered nonsense.
        """
        if user_data is not None and user_data.startswith(RESERVED_PREFIX):
            raise InputError(
                f"user_data begins with {RESERVED_PREFIX.decode()!r}, which is reserved",
                hint="such a document would say that kmstool vouches for its content; begin yours"
                " with a name of your own",
            )
        return self._attest(public_key=public_key, user_data=user_data, nonce=nonce)

    def attest_birth(self, statement_digest: bytes) -> bytes:
        """Returns the document of a birth certificate: `BIRTH_TAG` and the digest as user_data.

        For `create_key.make_key` alone, which computed the digest of a statement that it checked.

        Args:
            statement_digest: 48 bytes, SHA-384.

        Raises:
            InputError: another length. NsmError.
        """
        _bound("statement_digest", statement_digest, 48, 48)
        return self._attest(public_key=None, user_data=BIRTH_TAG + statement_digest, nonce=None)

    def _attest(
        self, *, public_key: bytes | None, user_data: bytes | None, nonce: bytes | None
    ) -> bytes:
        _bound("public_key", public_key, 1, limits.DOCUMENT_PUBLIC_KEY_MAX)
        _bound("user_data", user_data, 0, limits.DOCUMENT_USER_DATA_MAX)
        _bound("nonce", nonce, 0, limits.DOCUMENT_NONCE_MAX)
        fields = {"user_data": user_data, "nonce": nonce, "public_key": public_key}
        return answers.parse_attestation(self._exchange("Attestation", fields))

    def describe_pcr(self, index: int) -> Pcr:
        """Raises: SettingError for an index outside 0..31, NsmError."""
        _bound_index(index)
        return answers.parse_describe_pcr(self._exchange("DescribePCR", {"index": index}))

    def extend_pcr(self, index: int, data: bytes) -> bytes:
        """Extends PCR `index` by 1..512 bytes and returns its new 48 bytes.

        Raises: SettingError for an index outside 0..31, InputError, NsmError.
        """
        _bound_index(index)
        _bound("data", data, 1, limits.NSM_EXTEND_MAX)
        return answers.parse_extend_pcr(self._exchange("ExtendPCR", {"index": index, "data": data}))

    def lock_pcr(self, index: int) -> None:
        """Makes PCR `index` read-only until the enclave ends. Raises: SettingError, NsmError."""
        _bound_index(index)
        answers.parse_lock_pcr(self._exchange("LockPCR", {"index": index}))

    def lock_pcrs(self, range_: int) -> None:
        """Makes the PCRs 0 to `range_` - 1 read-only. Raises: SettingError, NsmError."""
        if not 1 <= range_ <= limits.NSM_PCR_COUNT_MAX:
            raise SettingError(
                f"no range of {range_} PCRs can be locked",
                hint=f"the range counts from PCR 0 and lies in 1..{limits.NSM_PCR_COUNT_MAX}",
            )
        answers.parse_lock_pcrs(self._exchange("LockPCRs", {"range": range_}))

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _exchange(self, name: str, fields: Mapping[str, object] | None = None) -> bytes:
        return self._transport.exchange(dumps(name if fields is None else {name: dict(fields)}))


# --- The device ---------------------------------------------------------------------------------

NSM_IOCTL: Final = 0xC0200A00
_MESSAGE: Final = Struct("@PNPN")  # two struct iovec: void *iov_base; size_t iov_len

Ioctl = Callable[[int, int, bytearray], object]


class DevNsm:
    """Transport over the kernel's nsm driver.

    Args:
        path: the character device.
        ioctl: in the place of `fcntl.ioctl`, for tests without the hardware.

    Raises:
        NsmError: the device is missing or may not be opened.
    """

    def __init__(self, path: str = "/dev/nsm", *, ioctl: Ioctl | None = None) -> None:
        from fcntl import ioctl as fcntl_ioctl  # noqa: PLC0415 - needed for this transport alone

        self._path = path
        self._ioctl: Ioctl = fcntl_ioctl if ioctl is None else ioctl
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise _device_error(path, error) from None

    def exchange(self, request: bytes) -> bytes:
        """Returns the answer's bytes. Raises: NsmError."""
        from array import array  # noqa: PLC0415 - a third of ctypes' import time, and enough

        # The driver never answers an empty request (seen with Linux 6.12).
        if not 1 <= len(request) <= limits.NSM_REQUEST_MAX:
            raise NsmError(
                f"a request of {len(request)} bytes cannot be sent to the NSM",
                hint=f"requests have 1..{limits.NSM_REQUEST_MAX} bytes",
            )
        sent = array("B", request)
        received = array("B", bytes(limits.NSM_RESPONSE_MAX))
        message = bytearray(
            _MESSAGE.pack(
                sent.buffer_info()[0],
                len(sent),
                received.buffer_info()[0],
                len(received),
            )
        )
        while True:
            try:
                self._ioctl(self._fd, NSM_IOCTL, message)
            except InterruptedError:  # PEP 475 retries system calls, but not ioctl
                continue
            except OSError as error:
                raise _device_error(self._path, error) from None
            break
        length = _MESSAGE.unpack(message)[3]
        if not 1 <= length <= len(received):
            raise NsmError(f"{self._path} said that its answer has {length} bytes")
        return received[:length].tobytes()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


_DEVICE_ERRORS: Final[dict[int, tuple[str, str]]] = {
    errno.ENOENT: (
        "there is no {path}",
        "this needs a Nitro Enclave with the nsm driver; elsewhere: `kmstool emulator run -- CMD`",
    ),
    errno.EACCES: (
        "{path} may not be opened by this user",
        "run as root, or give this user read and write access to the device",
    ),
    errno.ENODEV: (
        "no security module stands behind {path}",
        "load the kernel module nsm, and see dmesg for why it found no device",
    ),
    errno.ENOTTY: (
        "{path} is not a Nitro Security Module",
        "the device must be that of Linux' nsm driver",
    ),
    errno.EMSGSIZE: (
        "the request is too large for {path}",
        f"requests have at most {limits.NSM_REQUEST_MAX} bytes: send less user_data",
    ),
}
_DEVICE_ERRORS[errno.ENXIO] = _DEVICE_ERRORS[errno.ENODEV]
_DEVICE_ERRORS[errno.EPERM] = _DEVICE_ERRORS[errno.EACCES]
_DEVICE_ERRORS[errno.EINVAL] = _DEVICE_ERRORS[errno.ENOTTY]


def _device_error(path: str, error: OSError) -> NsmError:
    sentence, hint = _DEVICE_ERRORS.get(
        error.errno or 0,
        (f"{{path}} failed: {error.strerror}", "see dmesg for the driver's word"),
    )
    return NsmError(sentence.format(path=path), hint=hint)


def _bound(name: str, value: bytes | None, least: int, most: int) -> None:
    if value is not None and not least <= len(value) <= most:
        raise InputError(
            f"{name} has {len(value)} bytes",
            hint=f"the Nitro Security Module takes {least}..{most} bytes",
        )


def _bound_index(index: int) -> None:
    if not 0 <= index < limits.NSM_PCR_COUNT_MAX:
        raise SettingError(
            f"there is no PCR {index}", hint=f"PCRs are 0..{limits.NSM_PCR_COUNT_MAX - 1}"
        )
