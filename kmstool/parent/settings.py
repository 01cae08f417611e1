"""What the parent's services are told: targets, routes, limits. Values only; nothing is opened.

`configuration.py` makes them from a file, `kmstool/cli/parent_*.py` from options.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from kmstool import limits
from kmstool.arn import KeyArn
from kmstool.endpoint import Address
from kmstool.errors import SettingError, quoted

_TARGET_HINT: Final = (
    "a target looks like kms.eu-west-1.amazonaws.com:443, 127.0.0.1:5000 or [::1]:443"
)
_PORT_MAX: Final = 65_535
_HEX: Final = re.compile("0x[0-9a-f]*")
# Whoever connects there gets the credentials of the instance (EC2), task (ECS) or pod (EKS).
_METADATA: Final = frozenset(
    map(
        ipaddress.ip_address,
        ("169.254.169.254", "fd00:ec2::254", "169.254.170.2", "169.254.170.23", "fd00:ec2::23"),
    )
)
METADATA_WORDS: Final = "it leads to the credentials of this instance"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a forwarder connects to, over TCP.

    Attributes:
        host: a DNS name in lower case, an IPv4 address, or an IPv6 address without brackets.
        port: 1 to 65,535.
    """

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardLimits:
    """What one forwarder takes on: connections at once, and seconds."""

    connections: int = limits.FORWARD_CONNECTIONS
    connections_per_cid: int = limits.FORWARD_CONNECTIONS_PER_CID
    connect_seconds: float = limits.FORWARD_CONNECT_SECONDS
    idle_seconds: float = limits.FORWARD_IDLE_SECONDS
    lifetime_seconds: float = limits.FORWARD_LIFETIME_SECONDS
    drain_seconds: float = limits.FORWARD_DRAIN_SECONDS


@dataclass(frozen=True, slots=True)
class Route:
    """One listener, and the target that its connections are carried to."""

    listen: Address
    to: Target


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialsSettings:
    """The service of credentials.

    Attributes:
        assume_role: the ARN of a role whose credentials are served in place of the instance's own.
        session_policy: JSON text that lessens what that role may do; only with `assume_role`.
        only_kms: the same, written by us: nothing but these keys; only with `assume_role`, and not
            with `session_policy`.
        role_session_name: what CloudTrail shows of the role's session; only with `assume_role`.
        duration_seconds: of the role's session, 900 to 43,200; an instance's role may assume
            another for one hour at most.
    """

    listen: Address
    assume_role: str | None = None
    session_policy: str | None = None
    only_kms: tuple[KeyArn, ...] = ()
    role_session_name: str = "kmstool"
    duration_seconds: int = limits.ROLE_SESSION_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaySettings:
    """The relay: see `relay.serve`."""

    listen: Address
    allow_keys: tuple[KeyArn, ...]
    endpoint_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """All that `kmstool parent up` starts.

    Attributes:
        allowed_cids: of vsock peers, for every service; empty lets every CID ask.
        metrics: where the forwarder's counters are served, or None.
    """

    routes: tuple[Route, ...] = ()
    limits: ForwardLimits = ForwardLimits()
    allowed_cids: frozenset[int] = frozenset()
    credentials: CredentialsSettings | None = None
    relay: RelaySettings | None = None
    metrics: Address | None = None


def parse_target(text: str) -> Target:
    """Reads `HOST:PORT`, an IPv6 address in brackets.

    Raises:
        SettingError: it is something else, or the instance's metadata service.
    """
    if "://" in text:
        raise _no_target(text, "it is a URL or an address to listen on")
    host, separator, digits = text.rpartition(":")
    if not separator:
        raise _no_target(text, "the port is missing")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 5):
        raise _no_target(text, f"the port is not a number from 1 to {_PORT_MAX}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not _is_address(host, 6):
            raise _no_target(text, "there is no IPv6 address in its brackets")
    elif ":" in host:
        raise _no_target(text, "an IPv6 address goes in brackets, and a port after it")
    target = make_target(host, int(digits))
    if is_metadata_service(target.host):
        raise SettingError(
            f"{quoted(text)} is not forwarded to: {METADATA_WORDS}, all of them",
            hint="hand out credentials with `kmstool parent credentials`",
        )
    return target


def is_metadata_service(host: str) -> bool:
    """Whether an address, in any form of it, is one that gives out credentials of the parent."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])  # a zone changes nothing
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address) in _METADATA


def make_target(host: str, port: int) -> Target:
    """The target of a host (an IPv6 address without brackets) and a port.

    Raises:
        SettingError: the host is no name and no address, or the port is out of range.
    """
    text = f"{host}:{port}"
    if not 1 <= port <= _PORT_MAX:
        raise _no_target(text, f"the port is not a number from 1 to {_PORT_MAX}")
    if ":" in host:
        if not _is_address(host, 6):
            raise _no_target(text, "the host is no IPv6 address")
        return Target(str(ipaddress.IPv6Address(host)), port)
    name = host.lower().removesuffix(".")
    labels = name.split(".")
    # inet_aton(3), which resolvers ask first, takes 0x7f000001 and 127.0.0x1 for addresses as well.
    if labels[-1].isascii() and (labels[-1].isdecimal() or _HEX.fullmatch(labels[-1])):
        if not _is_address(name, 4):
            raise _no_target(text, "the host is no IPv4 address")
        return Target(name, port)
    if not (
        host.isascii()
        and len(name) <= limits.HOST_MAX
        and all(1 <= len(label) <= limits.HOST_LABEL_MAX for label in labels)
        and name.replace(".", "").replace("-", "").replace("_", "").isalnum()
    ):
        raise _no_target(text, "the host is not a name or an address")
    return Target(name, port)


def check_endpoint_url(text: str) -> str:
    """The same text. Raises `SettingError` where it is not the URL of a KMS."""
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("https", "http") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or not text.isascii() or not text.isprintable() or " " in text:
        raise SettingError(
            f"{quoted(text)} is not a URL", hint="it looks like https://kms.eu-west-1.amazonaws.com"
        )
    return text


def _is_address(host: str, version: int) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    # A zone (fe80::1%eth0) is a name of this machine's, and no target outside has one.
    return address.version == version and "%" not in host


def _no_target(text: str, reason: str) -> SettingError:
    return SettingError(f"{quoted(text)} is not a target: {reason}", hint=_TARGET_HINT)
