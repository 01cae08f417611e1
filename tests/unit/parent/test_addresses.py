"""Which addresses may be listened on for what, and which two not at once."""

import pytest

from kmstool.endpoint import Address, TcpAddress, parse_address
from kmstool.errors import SettingError
from kmstool.parent.addresses import (
    check_credentials_address,
    check_metrics_address,
    collide,
    is_loopback,
)


def address(text: str) -> Address:
    return parse_address(text, listening=True)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("vsock://:8000", "vsock://:8000", True),
        ("vsock://:8000", "vsock://3:8000", True),
        ("vsock://3:8000", "vsock://:8000", True),
        ("vsock://3:8000", "vsock://3:8000", True),
        ("vsock://3:8000", "vsock://4:8000", False),
        ("vsock://:8000", "vsock://:8001", False),
        ("tcp://127.0.0.1:1", "tcp://127.0.0.1:1", True),
        ("tcp://0.0.0.0:1", "tcp://127.0.0.1:1", True),
        ("tcp://127.0.0.1:1", "tcp://[::]:1", True),
        ("tcp://127.0.0.1:1", "tcp://127.0.0.2:1", False),
        ("tcp://127.0.0.1:1", "tcp://127.0.0.1:2", False),
        ("unix:/run/a", "unix:/run/a", True),
        ("unix:/run/a", "unix:/run//x/../a", True),
        ("unix:/run/a", "unix:/run/b", False),
        ("unix:8000", "vsock://:8000", False),
        ("tcp://127.0.0.1:8000", "vsock://:8000", False),
    ],
)
def test_collide(one: str, other: str, expected: bool) -> None:
    assert collide(address(one), address(other)) is expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
    ],
)
def test_is_loopback(host: str, expected: bool) -> None:
    assert is_loopback(TcpAddress(host, 1)) is expected


@pytest.mark.parametrize("text", ["unix:/run/m", "tcp://127.0.0.1:1", "tcp://[::1]:1"])
def test_where_metrics_may_be(text: str) -> None:
    assert check_metrics_address(address(text)) == address(text)


@pytest.mark.parametrize("text", ["vsock://:1", "tcp://0.0.0.0:1", "tcp://[::]:1", "tcp://a:1"])
def test_where_metrics_may_not_be(text: str) -> None:
    with pytest.raises(SettingError, match="metrics are not served"):
        check_metrics_address(address(text))


@pytest.mark.parametrize("text", ["vsock://:1", "unix:/run/c", "tcp://127.0.0.1:1"])
def test_where_credentials_may_be(text: str) -> None:
    assert check_credentials_address(address(text)) == address(text)


@pytest.mark.parametrize("text", ["tcp://0.0.0.0:1", "tcp://10.0.0.1:1", "tcp://a:1"])
def test_where_credentials_may_not_be(text: str) -> None:
    with pytest.raises(SettingError, match="the network could take them"):
        check_credentials_address(address(text))
