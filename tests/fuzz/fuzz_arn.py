"""Fuzzes what a user types: ARNs, regions, hosts, addresses."""

from collections.abc import Callable
from typing import TypeVar

from kmstool.arn import kms_host, parse_host, parse_key_arn
from kmstool.endpoint import parse_address
from kmstool.errors import SettingError

Parsed = TypeVar("Parsed")

SEEDS: list[bytes] = [
    b"arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
    b"arn:aws-cn:kms:cn-north-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab",
    b"arn:aws:kms:eu-west-1:111122223333:alias/db",
    b"us-gov-west-1",
    b"kms-fips.us-east-1.amazonaws.com",
    b"vsock://3:8000",
    b"tcp://[::1]:443",
    b"unix:/run/kms.sock",
]


def target(data: bytes) -> None:
    # As argv is decoded: bytes that are no UTF-8 become lone surrogates.
    text = data.decode("utf-8", "surrogateescape")
    key = attempt(parse_key_arn, text)
    assert key is None or str(key) == text
    host = attempt(parse_host, text)
    assert host is None or host == text.lower() == attempt(parse_host, host)
    address = attempt(parse_address, text)
    assert address is None or attempt(parse_address, str(address)) == address
    kms = attempt(kms_host, text)
    assert kms is None or parse_host(kms) == kms


def attempt(parse: Callable[[str], Parsed], text: str) -> Parsed | None:
    try:
        return parse(text)
    except SettingError as error:
        shown = str(error) + (error.hint or "")
        assert shown.isprintable()
        assert len(shown) < 2000
        return None
