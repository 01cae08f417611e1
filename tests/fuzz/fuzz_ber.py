"""Fuzzes the BER reader: what it accepts must read the same when written in another form."""

from support.ber_tree import shortest_length

from kmstool.enclave.ber import OCTET_STRING, Tlv, octets, parse_ber
from kmstool.errors import CmsError


def target(data: bytes) -> None:
    try:
        tlv = parse_ber(data)
    except CmsError as refusal:
        check(refusal)
        return
    assert parse_ber(encode(tlv, indefinite=False)) == tlv
    if len(data) < 4_096:  # two octets more an element must not reach the bound on size
        assert parse_ber(encode(tlv, indefinite=True)) == tlv
    try:
        content = octets(tlv, OCTET_STRING, "it")
    except CmsError:
        return
    assert content in data or not isinstance(tlv.content, bytes)


def check(refusal: CmsError) -> None:
    assert str(refusal).isprintable()
    assert len(str(refusal)) < 300


def encode(tlv: Tlv, *, indefinite: bool) -> bytes:
    if isinstance(tlv.content, bytes):
        return bytes([tlv.tag]) + shortest_length(len(tlv.content)) + tlv.content
    body = b"".join(encode(child, indefinite=indefinite) for child in tlv.content)
    identifier = bytes([tlv.tag | 0x20])
    if indefinite:
        return identifier + b"\x80" + body + b"\x00\x00"
    return identifier + shortest_length(len(body)) + body


SEEDS: list[bytes] = [
    bytes.fromhex(text)
    for text in (
        "0500",
        "040201ff",
        "3006020102040101",
        "30800201020401010000",
        "24800401aa24800401bb000004000000",
        "a0803080040200000000 0000",
        "048180" + "00" * 128,
        "3080" * 8 + "0500" + "0000" * 8,
    )
]
