"""JSON objects from outside (RFC 8259), read strictly and without leaking them.

Refused beside what is no JSON: names that occur twice (readers differ in which one they take), NaN
and Infinity, bytes that are no UTF-8, nesting beyond Python's, and more bytes than the caller
allows. It never raises: an exception raised while json's own is being handled keeps that one as its
context, and json's holds the whole document, which may be a secret.
"""

import json
from typing import Never


def read_object(data: bytes, maximum: int) -> tuple[dict[str, object] | None, str]:
    """The object and "", or None and what is wrong with the data, to follow "the answer …".

    Args:
        maximum: bytes.
    """
    if len(data) > maximum:
        return None, f"has {len(data)} bytes, more than {maximum}"
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except _DuplicateNameError:
        return None, "names a member twice"
    except (ValueError, RecursionError):
        return None, "is not JSON"
    if not isinstance(value, dict):
        return None, "is not a JSON object"
    return value, ""


class _DuplicateNameError(ValueError):
    pass


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _DuplicateNameError
    return members


def _no_constant(_name: str) -> Never:
    raise ValueError
