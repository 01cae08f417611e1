"""Addresses, the deadline of an exchange, connecting, and trying again. No TLS, no protocol here.

An address is only the way to somebody who forwards bytes (in an enclave: the parent). Who answers
at its other end is never concluded from it: that is the certificate's business (`enclave/tls.py`).
Text forms: `vsock://CID:PORT`, `tcp://HOST:PORT` (IPv6 in brackets) and `unix:PATH`.
"""

import errno
import math
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from kmstool.errors import KmsError, SettingError, TransportError, quoted
from kmstool.limits import (
    CONNECT_TIMEOUT,
    DEADLINE_MAX,
    HOST_MAX,
    RETRY_ATTEMPTS,
    RETRY_BASE,
    RETRY_CAP,
    UNIX_PATH_MAX,
    VSOCK_NUMBER_MAX,
)

DIRECT_HINT: Final = (
    "start the forwarder on the parent instance: `kmstool parent forward --listen vsock://:8000"
    " --to kms.<region>.amazonaws.com:443`"
)

VSOCK_CID_ANY: Final = 0xFFFF_FFFF  # VMADDR_CID_ANY of vsock(7); an address to listen on only


@dataclass(frozen=True, slots=True)
class VsockAddress:
    """A port of a virtual machine on this host (vsock(7)); CID 3 is an enclave's parent."""

    cid: int
    port: int

    def __str__(self) -> str:
        cid = "" if self.cid == VSOCK_CID_ANY else self.cid
        return f"vsock://{cid}:{self.port}"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A TCP port; `host` is a name, an IPv4 address, or an IPv6 address without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """The path of a Unix stream socket."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


Address = VsockAddress | TcpAddress | UnixAddress


def forwarder_hint(address: Address, host: str) -> str:
    """`DIRECT_HINT` for the address that was tried and the KMS behind it."""
    # As the parent listens there: its own CID is not what it is from inside.
    listen = f"vsock://:{address.port}" if isinstance(address, VsockAddress) else str(address)
    return (
        f"start the forwarder on the parent instance: `kmstool parent forward --listen {listen}"
        f" --to {host}:443`"
    )


class Deadline:
    """One point in time by which a whole exchange must have ended, whatever its steps.

    Reads and writes are armed with what is left of it, so a peer that sends a byte a second gains
    no time. The clock is the monotonic one: the parent's changes of the wall clock do not reach it.
    """

    __slots__ = ("_end", "seconds")

    def __init__(self, seconds: float) -> None:
        """Starts the clock.

        Raises:
            SettingError: `seconds` is negative, not a number, or more than a day.
        """
        if not (math.isfinite(seconds) and 0 <= seconds <= DEADLINE_MAX):
            raise SettingError(
                f"a timeout of {seconds} seconds makes no sense",
                hint=f"give a number between 0 and {DEADLINE_MAX:.0f}",
            )
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def expired(self) -> bool:
        """True once no time is left."""
        return time.monotonic() >= self._end

    def remaining(self, what: str = "the exchange") -> float:
        """The seconds left, more than 0: fit for `socket.settimeout`.

        Raises:
            TransportError: none is left; the message says during `what`.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise self.exceeded(what)
        return left

    def exceeded(self, what: str) -> TransportError:
        """The error of a deadline that passed during `what`; for callers whose wait ran out."""
        return TransportError(
            f"the time of {self.seconds:g} seconds was used up during {what}",
            hint="give it more with --timeout, or see whether the forwarder on the parent is stuck",
        )


def pause_before_retry(attempt: int, error: TransportError | KmsError, deadline: Deadline) -> float:
    """Seconds to wait before attempt `attempt` + 1, or raises `error` where there is to be none.

    Full jitter: AWS Architecture Blog, "Exponential backoff and jitter".
    """
    longest = min(RETRY_CAP, RETRY_BASE * 2**attempt)
    pause = random.uniform(0, longest)  # noqa: S311 - it spreads load and guards nothing
    try:
        too_late = pause >= deadline.remaining()
    except TransportError:
        too_late = True
    if not error.retryable or attempt == RETRY_ATTEMPTS or too_late:
        if attempt > 1:
            error.args = (f"{error} (after {attempt} attempts)",)
        raise error
    return pause


def parse_address(text: str, *, listening: bool = False) -> Address:
    """Reads an address.

    Args:
        listening: it is to be listened on, and `vsock://:PORT` means every CID of this machine.

    Raises:
        SettingError: it has none of the three forms, or a number is out of range.
    """
    if text.startswith("vsock://"):
        cid, separator, port = text.removeprefix("vsock://").partition(":")
        if not separator:
            raise _no_address(text, "the port is missing")
        any_cid = listening and not cid
        return VsockAddress(
            VSOCK_CID_ANY if any_cid else _number(text, "CID", cid, 0, VSOCK_NUMBER_MAX),
            _number(text, "port", port, 0, VSOCK_NUMBER_MAX),
        )
    if text.startswith("tcp://"):
        return _parse_tcp(text)
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path or "\0" in path:
            raise _no_address(text, "the path is empty or has a NUL in it")
        if len(os.fsencode(path)) > UNIX_PATH_MAX:
            raise _no_address(text, f"the path has more than {UNIX_PATH_MAX} bytes")
        return UnixAddress(path)
    raise _no_address(text, "it starts with none of vsock:// tcp:// unix:")


def connect(
    address: Address,
    deadline: Deadline,
    *,
    hint: str = DIRECT_HINT,
    timeout: float = CONNECT_TIMEOUT,
) -> socket.socket:
    """A connected stream socket.

    One attempt takes `timeout` seconds at most, or what the deadline leaves. Signals do not end
    it: Python repeats what EINTR interrupted (PEP 475).

    Args:
        hint: what to start at the other end when nobody answers there.

    Raises:
        TransportError: nobody answers, or this machine has no such socket. Retryable where the
            other end may just be starting.
    """
    last: OSError | None = None
    for family, target in _targets(address, deadline, hint):
        limit = min(timeout, deadline.remaining(f"connecting to {address}"))
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            last = error
            continue
        try:
            sock.settimeout(limit)
            sock.connect(target)
        except OSError as error:
            sock.close()
            last = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise _connect_error(address, last, deadline, hint)


def connect_first(
    addresses: Sequence[Address],
    deadline: Deadline,
    *,
    hint: str = DIRECT_HINT,
    trace: Callable[[str], None],
) -> socket.socket:
    """A socket connected to the first address that answers, in their order; at least one is given.

    Raises:
        TransportError: none answers; the reason is that of the last.
    """
    *others, last = addresses
    for address in others:
        trace(f"connecting to {address}")
        try:
            return connect(address, deadline, hint=hint)
        except TransportError as error:
            trace(f"{error}; trying the next address")
    trace(f"connecting to {last}")
    return connect(last, deadline, hint=hint)


# What a connect fails with where nobody listens, or not yet. A vsock answers ECONNRESET for a port
# without a listener and ENODEV where there is no vsock at all (vsock(7)).
_NOBODY: Final = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection refused",
    errno.ECONNABORTED: "connection refused",
    errno.EAGAIN: "too many connections are waiting there",
    errno.ENOENT: "no such socket",
    errno.EHOSTUNREACH: "no route there",
    errno.ENETUNREACH: "no route there",
}
_RETRYABLE: Final = frozenset(
    {errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EAGAIN}
)
_NO_VSOCK: Final = frozenset({errno.ENODEV, errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


def _connect_error(
    address: Address, error: OSError | None, deadline: Deadline, hint: str
) -> TransportError:
    if isinstance(error, TimeoutError):  # our own bound, or the system's ETIMEDOUT
        if deadline.expired:
            return deadline.exceeded(f"connecting to {address}")
        return TransportError(
            f"could not connect to {address}: nobody answered in time", hint=hint, retryable=True
        )
    number = error.errno if error and error.errno else 0
    if isinstance(address, VsockAddress) and number in _NO_VSOCK:
        return TransportError(
            f"could not connect to {address}: this machine has no vsock ({os.strerror(number)})",
            hint="inside an enclave vsock is always there; elsewhere use tcp:// or unix:, or the"
            " emulator",
        )
    reason = _NOBODY.get(number) or (os.strerror(number) if number else "no address")
    return TransportError(
        f"could not connect to {address}: {reason}", hint=hint, retryable=number in _RETRYABLE
    )


_Target = tuple[int, tuple[object, ...] | str]


def _targets(address: Address, deadline: Deadline, hint: str) -> list[_Target]:
    if isinstance(address, VsockAddress):
        return [(socket.AF_VSOCK, (address.cid, address.port))]
    if isinstance(address, UnixAddress):
        return [(socket.AF_UNIX, address.path)]
    found: list[_Target] = []
    failure: list[OSError] = []

    def look_up() -> None:
        try:
            # As bytes: a str would draw in encodings.idna and stringprep. The name is ASCII.
            infos = socket.getaddrinfo(
                address.host.encode(),
                address.port,
                type=socket.SOCK_STREAM,
                proto=socket.IPPROTO_TCP,
            )
        except OSError as error:
            failure.append(error)
        else:
            found.extend((family, target) for family, _, _, _, target in infos)

    # In a thread, since getaddrinfo knows no timeout, and a daemon, since it may never end.
    thread = threading.Thread(target=look_up, name="look-up", daemon=True)
    remaining = deadline.remaining(f"connecting to {address}")
    thread.start()
    thread.join(remaining)
    if thread.is_alive():
        raise deadline.exceeded(f"looking up the name {address.host!r}")
    if failure:
        raise TransportError(
            f"could not connect to {address}: the name {address.host!r} was not found"
            f" ({failure[0].strerror})",
            hint=hint,
        )
    return found


def _parse_tcp(text: str) -> TcpAddress:
    rest = text.removeprefix("tcp://")
    if rest.startswith("["):
        host, bracket, port = rest[1:].partition("]:")
        if not bracket or not _is_ipv6(host):
            raise _no_address(text, "there is no IPv6 address in its brackets, or no port after")
    else:
        host, separator, port = rest.rpartition(":")
        if not separator:
            raise _no_address(text, "the port is missing")
        if ":" in host:
            raise _no_address(text, "an IPv6 address goes in brackets")
        plain = host.replace(".", "").replace("-", "").replace("_", "")
        if not (plain.isascii() and plain.isalnum() and len(host) <= HOST_MAX):
            raise _no_address(text, "the host is not a name or an address")
    return TcpAddress(host, _number(text, "port", port, 1, 65_535))


def _is_ipv6(host: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6, host)
    except (OSError, ValueError):
        return False
    return True


def _number(text: str, name: str, digits: str, least: int, most: int) -> int:
    # str.isdecimal takes the digits of every script, hence isascii.
    if digits.isascii() and digits.isdecimal() and len(digits) <= 10:
        value = int(digits)
        if least <= value <= most:
            return value
    raise _no_address(text, f"the {name} is not a number from {least} to {most}")


def _no_address(text: str, reason: str) -> SettingError:
    return SettingError(
        f"{quoted(text)} is not an address: {reason}",
        hint="an address looks like vsock://3:8000, tcp://127.0.0.1:8000 or unix:/run/kms.sock",
    )
