"""Policy variables: `${aws:PrincipalAccount}` in a condition's value or in Resource.

Source: IAM User Guide, "IAM policy elements: Variables and tags": they exist in the language of
2012-10-17 only, in Resource and in values of the string and ARN operators; a key's name is
case-insensitive; `${*}`, `${?}` and `${$}` are the characters; `${key, 'text'}` has a default; a
variable without a value equals nothing, so that negated operators hold and no resource matches.

What the guide leaves open is refused by name, never guessed: a key with several values, a key that
nobody knows, and a value with `*` or `?` in a place where those are wildcards.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from kmstool.errors import PolicyError
from kmstool.policy.keys import folded
from kmstool.policy.operators import LITERAL_ANY, LITERAL_ONE
from kmstool.policy.printable import shown

if TYPE_CHECKING:
    from kmstool.policy.request import Request

_SPECIAL: Final = {"*": LITERAL_ANY, "?": LITERAL_ONE, "$": "$"}
_WILD: Final = frozenset(("*", "?", LITERAL_ANY, LITERAL_ONE))

_VARIABLE = re.compile(r"\$\{([^{}]*)\}")
_INSIDE = re.compile(r"([A-Za-z0-9-]+:[^\s,'{}]+)(?:, '([^'{}]*)')?")


class CannotExpandError(Exception):
    """A variable's value cannot be known; the message says which and why.

    Attributes:
        key: the condition key that nobody knows, or None: knowing more would not help.
    """

    def __init__(self, message: str, *, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


def check_variables(text: str) -> None:
    """Raises `PolicyError` for something that begins like a variable and is none."""
    for inside in _VARIABLE.findall(text):
        if inside not in _SPECIAL and not _INSIDE.fullmatch(inside):
            raise PolicyError(
                f"{shown('${' + inside + '}')} is not a policy variable",
                hint="a variable is a condition key (${aws:PrincipalAccount}), a key with a default"
                " (${aws:PrincipalAccount, 'none'}), ${*}, ${?} or ${$}",
            )
    if "${" in _VARIABLE.sub("", text):
        raise PolicyError(f"the value {shown(text)} opens a policy variable and does not close it")


def check_resource(text: str) -> None:
    """As `check_variables`, for Resource, whose variables stand after the fifth colon alone."""
    check_variables(text)
    first = _VARIABLE.search(text)
    if first is not None and text[: first.start()].count(":") < 5:
        raise PolicyError(
            f"{shown(text)} has a policy variable before its fifth colon, where IAM takes none",
            hint="write out partition, service, region and account",
        )


def placeholder(text: str) -> str | None:
    """The text with a letter for each variable, whose form can be checked before values are known.

    None where the text is one variable and nothing else: there is no form to check.
    """
    return None if _VARIABLE.fullmatch(text) else _VARIABLE.sub("x", text)


def expand_all(texts: Sequence[str], request: "Request", *, pattern: bool) -> tuple[str, ...]:
    """Each text with the request's values in it; those whose variable has no value are left out.

    Args:
        pattern: `*` and `?` are wildcards in these texts.

    Raises:
        CannotExpandError: a value is not known, or IAM does not say what it means.
    """
    expanded = (_expand(text, request, pattern=pattern) for text in texts)
    return tuple(text for text in expanded if text is not None)


def _expand(text: str, request: "Request", *, pattern: bool) -> str | None:
    pieces: list[str] = []
    end = 0
    for found in _VARIABLE.finditer(text):
        value = _value(found[1], request, pattern=pattern)
        if value is None:
            return None
        pieces += (text[end : found.start()], value)
        end = found.end()
    return "".join((*pieces, text[end:]))


def _value(inside: str, request: "Request", *, pattern: bool) -> str | None:
    if inside in _SPECIAL:
        return _SPECIAL[inside] if pattern else inside
    match = _INSIDE.fullmatch(inside)
    assert match is not None  # noqa: S101 - check_variables, when the policy was parsed
    name, default = match[1], match[2]
    if why := request.why_unknown(folded(name)):
        raise CannotExpandError(f"the policy variable {shown(name)} {why}", key=name)
    values = request.context.get(folded(name), ())
    if len(values) > 1:
        raise CannotExpandError(f"the policy variable {shown(name)} has several values")
    value = values[0] if values else default
    if pattern and value is not None and _WILD.intersection(value):
        raise CannotExpandError(
            f"the policy variable {shown(name)} holds * or ?, and IAM does not say whether those"
            " are wildcards then"
        )
    return value
