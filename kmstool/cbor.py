"""One way to read CBOR (RFC 8949), for answers of the NSM and for attestation documents.

Any well-formed encoding of the plain data model is read, whatever its form (minimal or longer
heads, and indefinite lengths where the caller allows them): a form says nothing about trust.
Refused are what would make the reader do more than read (tags: cbor2 would build dates, regular
expressions, e-mail messages, shared and cyclic references), what has two meanings (a map key that
occurs twice, RFC 8949 section 5.6), what nests deeper than the caller allows, and bytes after the
item. Huge lengths cost nothing: cbor2 reads at most what is there.

cbor2 6 can refuse duplicate keys and indefinite lengths and bound the depth itself
(tests/unit/test_cbor.py holds it to that), so there is no scanner of our own before it. This module
never writes CBOR.
"""

from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from typing import Any, NoReturn

import cbor2

from kmstool.errors import printable


class CborError(Exception):
    """The bytes are not one strict CBOR item; callers turn it into their own family's error."""


def decode(data: bytes, *, max_depth: int, indefinite: bool = True) -> Any:
    """Returns the one item that `data` holds: int, bytes, str, list, dict, bool, None (or float).

    Args:
        data: the whole encoding, of a length that the caller has bounded.
        max_depth: how many arrays and maps may stand inside each other.
        indefinite: whether strings, arrays and maps may have indefinite lengths (RFC 8949, 3.2).

    Raises:
        CborError: not well-formed, a tag, a repeated key, too deep, or bytes after the item.
    """
    stream = BytesIO(data)
    try:
        decoder = cbor2.CBORDecoder(
            stream,
            semantic_decoders=_NO_TAGS,
            max_depth=max_depth,
            allow_indefinite=indefinite,
            allow_duplicate_keys=False,
        )
        item = decoder.decode()
    except (cbor2.CBORError, ValueError, TypeError, OverflowError) as error:
        raise CborError(_first_line(error)) from None
    left = len(data) - stream.tell()
    if left:
        raise CborError(f"{left} bytes follow the item")
    return item


def _refuse_tag(_value: object, _immutable: object = None) -> NoReturn:
    raise ValueError("tags are not allowed here")


class _EveryTag(Mapping[int, Callable[..., Any]]):
    """A mapping that has every tag number, so that none reaches cbor2's own decoders."""

    def __getitem__(self, tag: int) -> Callable[..., Any]:
        return _refuse_tag

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 0


_NO_TAGS = _EveryTag()


def _first_line(error: Exception) -> str:
    return printable(str(error.__cause__ or error))[:200]
