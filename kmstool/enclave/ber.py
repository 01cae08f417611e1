"""BER of ITU-T X.690: type, length, value and depth. It knows nothing of KMS.

`parse_ber` reads one whole message into a tree, in one pass. The tree has forgotten the *form* of
the lengths: definite (8.1.3.4, 8.1.3.5) or indefinite (8.1.3.6) makes no difference to anything
behind it. `octets` does the same for the two forms of an OCTET STRING (8.7), primitive and
constructed, and so do `elements` and `primitive` for what has one form only.

Narrower than X.690 in two places: a length must take no more octets than it needs (8.1.3.5 lets
the sender choose), and tag numbers end at 30 (8.1.2.4). No sender of CMS uses either, and each is
a way to say one thing twice. Nothing is skipped, repaired or guessed; every failure is a
`CmsError`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from kmstool.errors import CmsError
from kmstool.limits import CMS_DEPTH_MAX, CMS_MAX, CMS_STRING_PIECES_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator

# Identifier octets (8.1.2) without the bit that tells constructed from primitive.
INTEGER: Final = 0x02
OCTET_STRING: Final = 0x04
NULL: Final = 0x05
OBJECT_IDENTIFIER: Final = 0x06
SEQUENCE: Final = 0x10
SET: Final = 0x11
CONTEXT_0: Final = 0x80
CONTEXT_1: Final = 0x81
CONTEXT_2: Final = 0x82

_CONSTRUCTED = 0x20
_END_OF_CONTENTS = b"\x00\x00"


@dataclass(frozen=True, slots=True)
class Tlv:
    """One element of an encoding.

    Attributes:
        tag: class and number, as the identifier octet without its bit 6 (0x20).
        content: the octets of a primitive encoding, or the elements of a constructed one.
    """

    tag: int
    content: bytes | tuple[Tlv, ...] = field(repr=False)


def parse_ber(data: bytes) -> Tlv:
    """Reads exactly one element that fills `data` (at most `CMS_MAX` bytes).

    Raises:
        CmsError: the encoding is malformed, too large, too deep, or followed by anything.
    """
    if len(data) > CMS_MAX:
        raise CmsError(f"the CMS has {len(data)} bytes, more than {CMS_MAX}")
    tlv, end = _read(data, 0, len(data), 1)
    if end != len(data):
        raise _malformed(end, "the message ends here, but more bytes follow")
    return tlv


def elements(tlv: Tlv, tag: int, name: str, *counts: int) -> tuple[Tlv, ...]:
    """The elements of a constructed `tlv` which must have this tag and one of these counts.

    Raises:
        CmsError: another tag, a primitive encoding, or another number of elements.
    """
    _require_tag(tlv, tag, name)
    if isinstance(tlv.content, bytes):
        raise CmsError(f"{name} is primitive where it must be constructed")
    if len(tlv.content) not in counts:
        wanted = " or ".join(map(str, counts))
        raise CmsError(f"{name} has {len(tlv.content)} elements instead of {wanted}")
    return tlv.content


def primitive(tlv: Tlv, tag: int, name: str) -> bytes:
    """The octets of a `tlv` with this tag whose type has a primitive form only.

    Raises:
        CmsError: another tag, or a constructed encoding.
    """
    _require_tag(tlv, tag, name)
    if not isinstance(tlv.content, bytes):
        raise CmsError(f"{name} is constructed where it must be primitive")
    return tlv.content


def octets(tlv: Tlv, tag: int, name: str) -> bytes:
    """The octets of an OCTET STRING in either form (8.7); `tag` differs where it is implicit.

    The pieces of a constructed one are OCTET STRINGs with their own tag, whatever the tag of the
    whole is (8.7.3), and may be constructed themselves.

    Raises:
        CmsError: another tag, a piece that is no OCTET STRING, or too many pieces.
    """
    _require_tag(tlv, tag, name)
    if isinstance(tlv.content, bytes):
        return tlv.content
    pieces = list(_descendants(tlv.content))
    if len(pieces) > CMS_STRING_PIECES_MAX:
        raise CmsError(f"{name} has {len(pieces)} pieces, more than {CMS_STRING_PIECES_MAX}")
    for piece in pieces:
        _require_tag(piece, OCTET_STRING, f"a piece of {name}")
    return b"".join(piece.content for piece in pieces if isinstance(piece.content, bytes))


def _descendants(children: tuple[Tlv, ...]) -> Iterator[Tlv]:
    for child in children:
        yield child
        if not isinstance(child.content, bytes):
            yield from _descendants(child.content)


def _require_tag(tlv: Tlv, tag: int, name: str) -> None:
    if tlv.tag != tag:
        raise CmsError(f"{name} has tag 0x{tlv.tag:02x} instead of 0x{tag:02x}")


def _read(data: bytes, start: int, limit: int, depth: int) -> tuple[Tlv, int]:
    """Reads the element at `start`, of which no octet may lie at `limit` or beyond.

    Returns the element and the offset behind it, which is at most `limit`.
    """
    if depth > CMS_DEPTH_MAX:
        raise _malformed(start, f"elements are nested deeper than {CMS_DEPTH_MAX}")
    if start >= limit:
        raise _malformed(start, "an element or an end-of-contents is missing")
    identifier = data[start]
    tag = identifier & ~_CONSTRUCTED
    if tag & 0x1F == 0x1F:
        raise _malformed(start, "the tag number is above 30")
    if tag == 0:
        raise _malformed(start, "an end-of-contents stands where none may be")
    length, begin = _read_length(data, start + 1, limit)
    definite = length is not None
    end = limit if length is None else begin + length
    if end > limit:
        raise _malformed(start, f"a value is cut off, {limit - begin} octets of it are there")
    if identifier & _CONSTRUCTED:
        children, end = _read_elements(data, begin, end, depth + 1, definite=definite)
        return Tlv(tag, children), end
    if not definite:
        raise _malformed(start, "a primitive encoding has an indefinite length")
    return Tlv(tag, data[begin:end]), end


def _read_elements(
    data: bytes, position: int, limit: int, depth: int, *, definite: bool
) -> tuple[tuple[Tlv, ...], int]:
    """Reads what a constructed encoding holds: up to `limit`, or up to an end-of-contents."""
    children: list[Tlv] = []
    while True:
        if definite and position == limit:
            return tuple(children), position
        if not definite and data[position : min(position + 2, limit)] == _END_OF_CONTENTS:
            return tuple(children), position + 2
        child, position = _read(data, position, limit, depth)
        children.append(child)


def _read_length(data: bytes, start: int, limit: int) -> tuple[int | None, int]:
    """Reads the length octets at `start`: the length, None for indefinite, and where they end."""
    if start >= limit:
        raise _malformed(start, "a length is missing")
    first = data[start]
    begin = start + 1
    if first < 0x80:
        return first, begin
    if first == 0x80:
        return None, begin
    if first == 0xFF:
        raise _malformed(start, "the length 0xff is reserved")
    end = begin + (first & 0x7F)
    if end > limit:
        raise _malformed(start, "a length is cut off")
    length = int.from_bytes(data[begin:end], "big")
    if data[begin] == 0 or length < 0x80:
        raise _malformed(start, "a length takes more octets than it needs")
    return length, end


def _malformed(offset: int, what: str) -> CmsError:
    return CmsError(f"the CMS is not well-formed BER at byte {offset}: {what}")
