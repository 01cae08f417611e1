"""What may be listened on for what, and which two addresses cannot be listened on at once. Pure."""

import ipaddress
import posixpath
from typing import Final

from kmstool.endpoint import VSOCK_CID_ANY, Address, TcpAddress, UnixAddress, VsockAddress
from kmstool.errors import SettingError

_WILDCARDS: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not listened on


def is_loopback(address: TcpAddress) -> bool:
    """Whether only this machine can connect there; of names only `localhost` is known to."""
    if address.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return False


def check_metrics_address(address: Address) -> Address:
    """The same address, where metrics may be served.

    Raises:
        SettingError: it is a vsock, which enclaves could read, or a TCP address of a network.
    """
    if isinstance(address, VsockAddress):
        raise SettingError(
            f"metrics are not served at {address}: they are for the parent, not for enclaves",
            hint="use unix:PATH, or a tcp:// address of loopback, such as tcp://127.0.0.1:9100",
        )
    if isinstance(address, TcpAddress) and not is_loopback(address):
        raise SettingError(
            f"metrics are not served at {address}: the network could read them",
            hint="use tcp://127.0.0.1:PORT or unix:PATH, and a scraper on this machine",
        )
    return address


def check_credentials_address(address: Address) -> Address:
    """The same address, where credentials may be served.

    Raises:
        SettingError: it is a TCP address of a network: whoever connects would get them.
    """
    return _not_of_a_network(
        address, "credentials are", "the network could take them", "vsock://:8002"
    )


def check_relay_address(address: Address) -> Address:
    """The same address, where the relay may be served.

    Raises:
        SettingError: it is a TCP address of a network: any enclave anywhere would be let in whose
            attestation the key's policy does not turn away.
    """
    return _not_of_a_network(
        address, "the relay is", "the network could use its credentials", "vsock://:8001"
    )


def collide(one: Address, other: Address) -> bool:
    """Whether the second of two listeners would find its address taken."""
    match one, other:
        case VsockAddress(), VsockAddress():
            any_cid = VSOCK_CID_ANY in (one.cid, other.cid)
            return one.port == other.port and (any_cid or one.cid == other.cid)
        case TcpAddress(), TcpAddress():
            any_host = bool(_WILDCARDS & {one.host, other.host})
            return one.port == other.port and (any_host or one.host == other.host)
        case UnixAddress(), UnixAddress():
            return posixpath.normpath(one.path) == posixpath.normpath(other.path)
        case _:
            return False


def _not_of_a_network(address: Address, what: str, why: str, better: str) -> Address:
    if isinstance(address, TcpAddress) and not is_loopback(address):
        raise SettingError(
            f"{what} not served at {address}: {why}",
            hint=f"use {better}; for tests unix:PATH or tcp://127.0.0.1:PORT",
        )
    return address
