"""CBOR as the simulated security module writes it (RFC 8949), by our own hand.

The readers in kmstool/cbor.py stand on cbor2; this writer does not, so that a mistake of cbor2's
would show as a disagreement. It writes the shortest heads, as the real module does, and maps of
either form: newer Nitro hosts write a document's payload as a map of indefinite length.
It never reads CBOR.
"""

from collections.abc import Mapping


def encode(value: object) -> bytes:
    """Returns the encoding of int, bytes, str, list, tuple, mapping, bool or None.

    Raises: TypeError for anything else.
    """
    if value is None or isinstance(value, bool):
        return {None: b"\xf6", False: b"\xf4", True: b"\xf5"}[value]
    if isinstance(value, int):
        return _head(0, value) if value >= 0 else _head(1, -1 - value)
    if isinstance(value, bytes):
        return _head(2, len(value)) + value
    if isinstance(value, str):
        text = value.encode()
        return _head(3, len(text)) + text
    if isinstance(value, list | tuple):
        return _head(4, len(value)) + b"".join(map(encode, value))
    if isinstance(value, Mapping):
        return _head(5, len(value)) + _entries(value)
    raise TypeError(f"no CBOR form for {type(value).__name__}")


def encode_indefinite_map(value: Mapping[object, object]) -> bytes:
    """Returns the map of indefinite length: bf, the entries, ff (RFC 8949, section 3.2.2)."""
    return b"\xbf" + _entries(value) + b"\xff"


def _entries(value: Mapping[object, object]) -> bytes:
    return b"".join(encode(key) + encode(item) for key, item in value.items())


def _head(major: int, argument: int) -> bytes:
    """The initial byte and its argument in the fewest bytes (RFC 8949, section 3)."""
    if argument < 24:
        return bytes([major << 5 | argument])
    for additional, length in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 1 << 8 * length:
            return bytes([major << 5 | additional]) + argument.to_bytes(length, "big")
    raise TypeError("an integer over 64 bits has no plain CBOR form")
