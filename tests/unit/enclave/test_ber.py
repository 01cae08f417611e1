"""ber.py: form is forgotten; what is not well-formed is refused, with the place and the reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.ber_tree import Node, make_indefinite, shortest_length

from kmstool.enclave import ber
from kmstool.enclave.ber import OCTET_STRING, SEQUENCE, Tlv, elements, octets, parse_ber, primitive
from kmstool.errors import CmsError
from kmstool.limits import CMS_DEPTH_MAX, CMS_MAX, CMS_STRING_PIECES_MAX


def nested(depth: int, *, indefinite: bool) -> bytes:
    node = Node(0x05, b"")
    for _ in range(depth - 1):
        node = Node(0x30, [node])
        if indefinite:
            make_indefinite(node)
    return node.encode()


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("0500", Tlv(0x05, b"")),
        ("040101", Tlv(0x04, b"\x01")),
        ("24030401aa", Tlv(0x04, (Tlv(0x04, b"\xaa"),))),
        ("3000", Tlv(0x10, ())),
        ("30800000", Tlv(0x10, ())),
        ("3080 0500 0000", Tlv(0x10, (Tlv(0x05, b""),))),
        ("3004 3080 0000", Tlv(0x10, (Tlv(0x10, ()),))),
        ("3080 3000 3080 0000 0000", Tlv(0x10, (Tlv(0x10, ()), Tlv(0x10, ())))),
        # Two zero octets inside a value are a value, never an end.
        ("3080 0402 0000 0000", Tlv(0x10, (Tlv(0x04, b"\0\0"),))),
        ("8001ff", Tlv(0x80, b"\xff")),
        ("be00", Tlv(0x9E, ())),
        ("048180" + "00" * 128, Tlv(0x04, bytes(128))),
        ("04820100" + "00" * 256, Tlv(0x04, bytes(256))),
    ],
)
def test_reads(encoding: str, expected: Tlv) -> None:
    assert parse_ber(bytes.fromhex(encoding)) == expected


REFUSED = [
    ("nothing", "", "byte 0: an element or an end-of-contents is missing"),
    ("identifier alone", "30", "byte 1: a length is missing"),
    ("length cut off", "3082ff", "byte 1: a length is cut off"),
    ("length of the length cut off", "3081", "byte 1: a length is cut off"),
    ("value cut off", "040201", "byte 0: a value is cut off, 1 octets"),
    ("announced beyond the parent", "3003 0402 01 02", "byte 2: a value is cut off, 1 octets"),
    ("child's length beyond the parent", "3001 04 00", "byte 3: a length is missing"),
    ("child's length cut by the parent", "3002 0481 80", "byte 3: a length is cut off"),
    ("huge length", "04fe" + "01" * 126, "byte 0: a value is cut off, 0 octets of it are there"),
    ("two octets for a length below 128", "048101aa", "takes more octets than it needs"),
    ("a length of 127 in two octets", "04817f" + "00" * 127, "takes more octets than it needs"),
    ("leading zero in a length", "04820080" + "00" * 128, "takes more octets than it needs"),
    ("reserved length", "04ff" + "00" * 127, "byte 1: the length 0xff is reserved"),
    ("high tag number", "1f1f00", "byte 0: the tag number is above 30"),
    ("high tag number in context class", "3004 bf811f00", "byte 2: the tag number is above 30"),
    (
        "primitive of indefinite length",
        "0480 0000",
        "a primitive encoding has an indefinite length",
    ),
    ("trailing byte", "050000", "byte 2: the message ends here"),
    ("trailing element", "05000500", "byte 2: the message ends here"),
    ("trailing end-of-contents", "30000000", "byte 2: the message ends here"),
    ("trailing end-of-contents, indefinite", "308000000000", "byte 4: the message ends here"),
    ("end-of-contents alone", "0000", "byte 0: an end-of-contents stands where none may be"),
    ("end-of-contents under a definite length", "30020000", "byte 2: an end-of-contents stands"),
    ("end-of-contents with content", "3080 0001aa 0000", "byte 2: an end-of-contents stands"),
    ("end-of-contents with a long zero length", "3080 008100", "byte 2: an end-of-contents stands"),
    ("end-of-contents that is constructed", "3080 2000 0000", "byte 2: an end-of-contents stands"),
    ("end-of-contents missing", "3080 0500", "byte 4: an element or an end-of-contents is missing"),
    ("half an end-of-contents", "3080 0500 00", "byte 4: an end-of-contents stands"),
    ("end-of-contents outside the parent", "3002 3080 0000", "byte 4: an element or an end-of"),
    ("end-of-contents across the parent's end", "3003 3080 00 00", "byte 4: an end-of-contents"),
    ("one end-of-contents for two", "3080 3080 0000", "byte 6: an element or an end-of-contents"),
]


@pytest.mark.parametrize(
    ("encoding", "message"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_refuses(encoding: str, message: str) -> None:
    with pytest.raises(CmsError) as caught:
        parse_ber(bytes.fromhex(encoding))
    assert message in str(caught.value)
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize("indefinite", [False, True])
def test_depth(indefinite: bool) -> None:
    parse_ber(nested(CMS_DEPTH_MAX, indefinite=indefinite))
    with pytest.raises(CmsError, match=f"nested deeper than {CMS_DEPTH_MAX}"):
        parse_ber(nested(CMS_DEPTH_MAX + 1, indefinite=indefinite))


def test_depth_of_a_hostile_message_costs_no_recursion() -> None:
    with pytest.raises(CmsError, match="nested deeper"):
        parse_ber(b"\x30\x80" * (CMS_MAX // 2))


def test_size() -> None:
    largest = b"\x04" + shortest_length(CMS_MAX - 4) + bytes(CMS_MAX - 4)
    assert len(largest) == CMS_MAX
    parse_ber(largest)
    with pytest.raises(CmsError, match=f"has {CMS_MAX + 1} bytes, more than {CMS_MAX}"):
        parse_ber(largest + b"\0")


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("0403 010203", "010203"),
        ("2400", ""),
        ("24800000", ""),
        ("2407 040101 04020203", "010203"),
        ("2480 0400 0401aa 0000", "aa"),
        ("240a 2480 040101 0000 040102", "0102"),
        ("2480 2406 240404020102 0401ff 0000", "0102ff"),
    ],
)
def test_octets_of_every_form(encoding: str, expected: str) -> None:
    assert octets(parse_ber(bytes.fromhex(encoding)), OCTET_STRING, "x").hex() == expected


def test_octets_of_an_implicit_tag_are_made_of_octet_strings() -> None:
    explicit = parse_ber(bytes.fromhex("a080 040101 040102 0000"))
    assert octets(explicit, ber.CONTEXT_0, "x") == b"\x01\x02"
    with pytest.raises(CmsError, match="a piece of x has tag 0x80 instead of 0x04"):
        octets(parse_ber(bytes.fromhex("a003 800101")), ber.CONTEXT_0, "x")


@pytest.mark.parametrize("encoding", ["2403 030101", "2405 2403 0c0101", "2402 3000"])
def test_octets_refuses_pieces_of_another_type(encoding: str) -> None:
    with pytest.raises(CmsError, match=r"a piece of x has tag 0x\w\w instead of 0x04"):
        octets(parse_ber(bytes.fromhex(encoding)), OCTET_STRING, "x")


@pytest.mark.parametrize("piece", ["040101", "2400", "0400"])
def test_octets_refuses_too_many_pieces(piece: str) -> None:
    pieces = bytes.fromhex(piece)
    most = parse_ber(b"\x24\x80" + pieces * CMS_STRING_PIECES_MAX + b"\0\0")
    octets(most, OCTET_STRING, "x")
    more = parse_ber(b"\x24\x80" + pieces * (CMS_STRING_PIECES_MAX + 1) + b"\0\0")
    with pytest.raises(CmsError, match=f"x has {CMS_STRING_PIECES_MAX + 1} pieces, more than"):
        octets(more, OCTET_STRING, "x")


def test_accessors_refuse_other_tags_forms_and_counts() -> None:
    null, pair = Tlv(0x05, b""), Tlv(SEQUENCE, (Tlv(0x05, b""), Tlv(0x05, b"")))
    with pytest.raises(CmsError, match="x has tag 0x05 instead of 0x10"):
        elements(null, SEQUENCE, "x", 2)
    with pytest.raises(CmsError, match="x is primitive where it must be constructed"):
        elements(Tlv(SEQUENCE, b""), SEQUENCE, "x", 0)
    with pytest.raises(CmsError, match="x has 2 elements instead of 1 or 3"):
        elements(pair, SEQUENCE, "x", 1, 3)
    with pytest.raises(CmsError, match="x has tag 0x10 instead of 0x05"):
        primitive(pair, 0x05, "x")
    with pytest.raises(CmsError, match="x is constructed where it must be primitive"):
        primitive(pair, SEQUENCE, "x")
    with pytest.raises(CmsError, match="x has tag 0x05 instead of 0x04"):
        octets(null, OCTET_STRING, "x")
    assert elements(pair, SEQUENCE, "x", 1, 2) == (null, null)
    assert primitive(null, 0x05, "x") == b""


def test_the_repr_shows_no_content() -> None:
    assert repr(Tlv(4, b"secret")) == "Tlv(tag=4)"


@st.composite
def trees(draw: st.DrawFn) -> Node:
    leaf = st.builds(Node, st.integers(1, 30), st.binary(max_size=200))
    return draw(
        st.recursive(
            leaf,
            lambda inner: (
                st.builds(
                    Node,
                    st.integers(0xA0, 0xBE),
                    st.lists(inner, max_size=4),
                    st.just(b"\x80"),
                    st.just(b"\0\0"),
                )
                | st.builds(Node, st.integers(0xA0, 0xBE), st.lists(inner, max_size=4))
            ),
            max_leaves=12,
        )
    )


def as_tlv(node: Node) -> Tlv:
    if isinstance(node.value, bytes):
        return Tlv(node.identifier, node.value)
    return Tlv(node.identifier & ~0x20, tuple(as_tlv(child) for child in node.value))


@given(trees())
def test_reads_whatever_the_other_encoder_writes(tree: Node) -> None:
    if max_depth(tree) <= CMS_DEPTH_MAX:
        assert parse_ber(tree.encode()) == as_tlv(tree)


def max_depth(node: Node) -> int:
    children = [] if isinstance(node.value, bytes) else node.value
    return 1 + max(map(max_depth, children), default=0)


@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        tlv = parse_ber(data)
    except CmsError:
        return
    assert parse_ber(definite(tlv)) == tlv


def definite(tlv: Tlv) -> bytes:
    if isinstance(tlv.content, bytes):
        return bytes([tlv.tag]) + shortest_length(len(tlv.content)) + tlv.content
    body = b"".join(map(definite, tlv.content))
    return bytes([tlv.tag | 0x20]) + shortest_length(len(body)) + body
