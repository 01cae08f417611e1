"""Fuzzes the reader of ServerHello: a group or `TransportError`, and how it is cut is no matter."""

from kmstool.doctor.server_hello import RECEIVED_MAX, parse_group
from kmstool.errors import TransportError

_EXTENSIONS = bytes.fromhex("002b00020304 003300060011000200aa".replace(" ", ""))
_BODY = b"\x03\x03" + bytes(32) + b"\x00\x13\x02\x00\x00" + bytes([len(_EXTENSIONS)]) + _EXTENSIONS
_HELLO = b"\x02\x00\x00" + bytes([len(_BODY)]) + _BODY
SEEDS: list[bytes] = [
    b"\x16\x03\x03\x00" + bytes([len(_HELLO)]) + _HELLO + b"\x17\x03\x03\x00\x01x",
    b"\x14\x03\x03\x00\x01\x01",
    b"\x15\x03\x03\x00\x02\x02\x28",
]


def target(data: bytes) -> None:
    try:
        group = parse_group(data)
    except TransportError:
        return
    assert 0 <= group <= 0xFFFF
    assert len(data) <= RECEIVED_MAX
    assert data[0] in (20, 22)
    # What comes after the clear part changes nothing.
    if len(data) + 5 <= RECEIVED_MAX:
        assert parse_group(data + b"\x17\x03\x03\x00\x00") == group
