"""IAM's condition operators: what a policy value and the values of a request have to do.

Source: IAM User Guide, "IAM JSON policy elements: Condition operators" and "Multivalued context
keys". An operator is a base (`StringEquals`), perhaps `…IfExists`, perhaps a quantifier
(`ForAllValues:`, `ForAnyValue:`). What IAM leaves open is never guessed: `holds` answers None.
"""

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from typing import Final

from kmstool.errors import PolicyError
from kmstool.policy.keys import folded, same_but_for_case
from kmstool.policy.printable import shown


class Quantifier(StrEnum):
    """How many values of a multivalued key have to match."""

    ALL = "ForAllValues"
    ANY = "ForAnyValue"


@dataclass(frozen=True, slots=True)
class Operator:
    """A condition operator as written in a policy; `str()` gives the text back.

    Attributes:
        base: a name of IAM's list, for example `StringNotLike`.
        negated: True where no policy value may match (NOR), and a missing key holds.
    """

    base: str
    quantifier: Quantifier | None = None
    if_exists: bool = False

    @property
    def negated(self) -> bool:
        return "Not" in self.base

    @property
    def has_wildcards(self) -> bool:
        """Whether `*` and `?` in a policy value are wildcards."""
        return "Like" in self.base or self.base.startswith("Arn")

    @property
    def takes_variables(self) -> bool:
        """Whether IAM replaces policy variables in its values: string and ARN operators only."""
        return self.base.startswith(("String", "Arn"))

    def __str__(self) -> str:
        prefix = f"{self.quantifier}:" if self.quantifier else ""
        return prefix + self.base + ("IfExists" if self.if_exists else "")

    def check_policy_value(self, value: str) -> None:
        """Raises `PolicyError` for a value that this operator cannot compare with."""
        try:
            _KINDS[self.base].check(value)
        except ValueError:
            raise PolicyError(f"{self.base} cannot compare with {shown(value)}") from None

    def holds(self, policy_values: Sequence[str], request_values: Sequence[str]) -> bool | None:
        """Whether the condition holds for the request; no values mean that the key is missing.

        Returns:
            None where IAM does not say: a request value that cannot be compared, or several of them
            without a quantifier.
        """
        if self.base == "Null":
            missing = "false" if request_values else "true"
            return any(value.lower() == missing for value in policy_values)
        if not request_values:
            # ForAllValues holds, ForAnyValue does not, whether negated or not.
            alone = self.negated and self.quantifier is None
            return self.if_exists or alone or self.quantifier is Quantifier.ALL
        if len(request_values) > 1 and not self.quantifier:
            return None
        try:
            each = [self._one_holds(policy_values, value) for value in request_values]
        except ValueError:
            return None
        return all(each) if self.quantifier is Quantifier.ALL else any(each)

    def _one_holds(self, policy_values: Sequence[str], request_value: str) -> bool:
        compare = _KINDS[self.base].compare
        return any(compare(value, request_value) for value in policy_values) is not self.negated


def parse_operator(text: str) -> Operator:
    """Reads `ForAllValues:StringLikeIfExists` and the like.

    Raises:
        PolicyError: the operator is unknown, or combined in a way that IAM does not define.
    """
    operator = read_operator(text)
    refuse_undefined(operator)
    return operator


def read_operator(text: str) -> Operator:
    """Like `parse_operator`, and takes what IAM takes without defining it: to look at, not to ask.

    Raises:
        PolicyError: IAM does not know the operator.
    """
    before, colon, name = text.rpartition(":")
    quantifiers = {str(quantifier): quantifier for quantifier in Quantifier}
    if colon and before not in quantifiers:
        raise PolicyError(f"unknown condition operator {shown(text)}")
    base = name.removesuffix("IfExists")
    if base not in _KINDS:
        raise PolicyError(
            f"unknown condition operator {shown(text)}",
            hint="operators are written as IAM's documentation has them, for example StringEquals",
        )
    operator = Operator(base, quantifiers.get(before), base != name)
    if base == "Null" and (operator.quantifier or operator.if_exists):
        raise PolicyError(f"{text} is not defined: Null stands alone")
    return operator


def refuse_undefined(operator: Operator) -> None:
    """Raises `PolicyError` for a combination whose result IAM does not define."""
    if operator.quantifier is Quantifier.ANY and operator.if_exists:
        # The documentation says that IfExists makes a missing key hold, observers say that
        # ForAnyValue wins. Which is right decides about access.
        raise PolicyError(
            f"{operator} is not evaluated: IAM does not define what it does when the key is"
            " missing",
            hint="use two statements, one of them with Null",
        )


# In a pattern these stand for a star and a question mark that are no wildcards. Policies hold no
# such characters (PolicyType of KMS' service model); policy variables put them there.
LITERAL_ANY: Final = "\ue000"
LITERAL_ONE: Final = "\ue001"


def glob_matches(pattern: str, text: str) -> bool:
    """`*` is any run of characters, `?` is one; case-sensitive, and no pattern takes long."""
    return _glob(pattern).fullmatch(text) is not None


@lru_cache(maxsize=512)  # the same few policies are asked again and again
def _glob(pattern: str) -> re.Pattern[str]:
    pieces = [re.escape(piece).replace(r"\?", ".") for piece in pattern.split("*")]
    pieces = [p.replace(LITERAL_ANY, r"\*").replace(LITERAL_ONE, r"\?") for p in pieces]
    if len(pieces) == 1:
        return re.compile(pieces[0], re.DOTALL)
    # Each inner piece is taken at its first place and never reconsidered (atomic group): for globs
    # that is exact, and it cannot backtrack through the stars.
    inner = "".join(f"(?>.*?{piece})" for piece in pieces[1:-1] if piece)
    return re.compile(f"{pieces[0]}{inner}.*{pieces[-1]}", re.DOTALL)


# --- Kinds of values: each compares (policy value, request value) and raises ValueError ---------


def _string_equals(policy: str, request: str) -> bool:
    return policy == request


def _string_equals_ignore_case(policy: str, request: str) -> bool:
    if folded(policy) == folded(request):
        return True
    if same_but_for_case(policy, request):
        raise ValueError  # whether IAM folds letters beyond A to Z, and how, is not documented
    return False


_NUMBER = re.compile(r"[+-]?[0-9]{1,32}(\.[0-9]{1,32})?")
_DATE = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})?)?"
)


def _number(text: str) -> Decimal:
    if not _NUMBER.fullmatch(text):
        raise ValueError
    return Decimal(text)


def _moment(text: str) -> Decimal:
    """Seconds since 1970: an ISO 8601 date, in UTC where it does not say, or a number of them."""
    if not _DATE.fullmatch(text):
        return _number(text)
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return Decimal(repr(moment.timestamp()))


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError
    return text.lower() == "true"


def _binary(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError from None


def _ip_matches(policy: str, request: str) -> bool:
    network = ipaddress.ip_network(policy, strict=False)
    address = ipaddress.ip_address(request)
    return address.version == network.version and address in network


def _arn(text: str) -> list[str]:
    """The six components; the last may hold colons."""
    parts = text.split(":", 5)
    if len(parts) != 6 or parts[0] != "arn":
        raise ValueError
    return parts


def _arn_matches(policy: str, request: str) -> bool:
    """Component by component: a `*` never reaches over a colon into the next."""
    return all(map(glob_matches, _arn(policy), _arn(request)))


@dataclass(frozen=True, slots=True)
class _Kind:
    check: Callable[[str], object]
    compare: Callable[[str, str], bool]


def _ordered(read: Callable[[str], Decimal], ask: Callable[[Decimal, Decimal], bool]) -> _Kind:
    return _Kind(read, lambda policy, request: ask(read(request), read(policy)))


def _orders(prefix: str, read: Callable[[str], Decimal]) -> dict[str, _Kind]:
    return {
        f"{prefix}Equals": _ordered(read, lambda request, policy: request == policy),
        f"{prefix}NotEquals": _ordered(read, lambda request, policy: request == policy),
        f"{prefix}LessThan": _ordered(read, lambda request, policy: request < policy),
        f"{prefix}LessThanEquals": _ordered(read, lambda request, policy: request <= policy),
        f"{prefix}GreaterThan": _ordered(read, lambda request, policy: request > policy),
        f"{prefix}GreaterThanEquals": _ordered(read, lambda request, policy: request >= policy),
    }


_EXACT = _Kind(str, _string_equals)
_CASELESS = _Kind(str, _string_equals_ignore_case)
_LIKE = _Kind(str, glob_matches)
_ADDRESS = _Kind(lambda text: ipaddress.ip_network(text, strict=False), _ip_matches)
_NAMED = _Kind(_arn, _arn_matches)

_KINDS: Final[dict[str, _Kind]] = {
    "StringEquals": _EXACT,
    "StringNotEquals": _EXACT,
    "StringEqualsIgnoreCase": _CASELESS,
    "StringNotEqualsIgnoreCase": _CASELESS,
    "StringLike": _LIKE,
    "StringNotLike": _LIKE,
    **_orders("Numeric", _number),
    **_orders("Date", _moment),
    "Bool": _Kind(_boolean, lambda policy, request: _boolean(policy) is _boolean(request)),
    "BinaryEquals": _Kind(_binary, lambda policy, request: _binary(policy) == _binary(request)),
    "IpAddress": _ADDRESS,
    "NotIpAddress": _ADDRESS,
    # IAM: ArnEquals and ArnLike behave identically, and so do their negations.
    "ArnEquals": _NAMED,
    "ArnLike": _NAMED,
    "ArnNotEquals": _NAMED,
    "ArnNotLike": _NAMED,
    "Null": _Kind(_boolean, _string_equals),
}
OPERATOR_NAMES: Final = frozenset(_KINDS)
