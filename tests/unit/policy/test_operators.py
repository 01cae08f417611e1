"""IAM's documented operator semantics, row by row.

Source of the rows: IAM User Guide, "Condition operators" (each table and its notes) and "Set
operators for multivalued context keys". A request of `()` is a missing key.
"""

import time

import pytest

from kmstool.errors import PolicyError
from kmstool.policy.operators import OPERATOR_NAMES, Quantifier, glob_matches, parse_operator

Row = tuple[str, tuple[str, ...], tuple[str, ...], bool | None]

STRINGS: list[Row] = [
    ("StringEquals", ("a",), ("a",), True),
    ("StringEquals", ("a",), ("A",), False),
    ("StringEquals", ("a*",), ("ab",), False),
    ("StringEquals", ("a", "b"), ("b",), True),
    ("StringEquals", ("a", "b"), ("c",), False),
    ("StringEquals", ("a",), (), False),
    ("StringEquals", ("",), ("",), True),
    ("StringEqualsIfExists", ("a",), (), True),
    ("StringEqualsIfExists", ("a",), ("b",), False),
    ("StringEqualsIfExists", ("a",), ("a",), True),
    ("StringNotEquals", ("a",), ("b",), True),
    ("StringNotEquals", ("a",), ("a",), False),
    ("StringNotEquals", ("a",), ("A",), True),
    ("StringNotEquals", ("a", "b"), ("b",), False),
    ("StringNotEquals", ("a", "b"), ("c",), True),
    ("StringNotEquals", ("a",), (), True),
    ("StringNotEqualsIfExists", ("a",), (), True),
    ("StringNotEqualsIfExists", ("a",), ("a",), False),
    ("StringEqualsIgnoreCase", ("aBc",), ("AbC",), True),
    ("StringEqualsIgnoreCase", ("aBc",), ("abd",), False),
    ("StringEqualsIgnoreCase", ("a",), (), False),
    ("StringNotEqualsIgnoreCase", ("aBc",), ("AbC",), False),
    ("StringNotEqualsIgnoreCase", ("aBc",), ("abd",), True),
    ("StringNotEqualsIgnoreCase", ("a",), (), True),
    ("StringLike", ("a*c",), ("abbc",), True),
    ("StringLike", ("a*c",), ("ac",), True),
    ("StringLike", ("a*c",), ("acd",), False),
    ("StringLike", ("a?c",), ("abc",), True),
    ("StringLike", ("a?c",), ("ac",), False),
    ("StringLike", ("A*",), ("abc",), False),
    ("StringLike", ("*",), ("anything",), True),
    ("StringLike", ("*",), (), False),
    ("StringLike", ("a*", "b*"), ("bc",), True),
    ("StringLikeIfExists", ("a*",), (), True),
    ("StringNotLike", ("a*",), ("b",), True),
    ("StringNotLike", ("a*",), ("ab",), False),
    ("StringNotLike", ("*",), (), True),
    ("StringNotLike", ("a*", "b*"), ("bc",), False),
]
NUMBERS: list[Row] = [
    ("NumericEquals", ("10",), ("10",), True),
    ("NumericEquals", ("10",), ("10.0",), True),
    ("NumericEquals", ("10",), ("11",), False),
    ("NumericEquals", ("10",), (), False),
    ("NumericNotEquals", ("10",), ("11",), True),
    ("NumericNotEquals", ("10", "11"), ("11",), False),
    ("NumericNotEquals", ("10",), (), True),
    ("NumericLessThan", ("10",), ("9",), True),
    ("NumericLessThan", ("10",), ("10",), False),
    ("NumericLessThanEquals", ("10",), ("10",), True),
    ("NumericLessThanEquals", ("10",), ("10.1",), False),
    ("NumericGreaterThan", ("10",), ("10",), False),
    ("NumericGreaterThan", ("10",), ("-11",), False),
    ("NumericGreaterThan", ("-11",), ("10",), True),
    ("NumericGreaterThanEquals", ("10",), ("10",), True),
    ("NumericGreaterThanEquals", ("10",), ("9",), False),
    ("NumericLessThanIfExists", ("10",), (), True),
    ("NumericLessThan", ("10",), ("ten",), None),
    ("NumericNotEquals", ("10",), ("ten",), None),
]
DATES: list[Row] = [
    ("DateEquals", ("2026-01-02T03:04:05Z",), ("2026-01-02T03:04:05Z",), True),
    ("DateEquals", ("2026-01-02T03:04:05Z",), ("1767323045",), True),
    ("DateEquals", ("2026-01-02",), ("2026-01-02T00:00:00Z",), True),
    ("DateEquals", ("2026-01-02T03:04Z",), ("2026-01-02T05:04:00+02:00",), True),
    ("DateEquals", ("2026-01-02",), ("2026-01-03",), False),
    ("DateEquals", ("2026-01-02",), (), False),
    ("DateNotEquals", ("2026-01-02",), ("2026-01-03",), True),
    ("DateNotEquals", ("2026-01-02",), ("2026-01-02",), False),
    ("DateNotEquals", ("2026-01-02",), (), True),
    ("DateLessThan", ("2026-01-02",), ("2026-01-01T23:59:59.999Z",), True),
    ("DateLessThan", ("2026-01-02",), ("2026-01-02",), False),
    ("DateLessThanEquals", ("2026-01-02",), ("2026-01-02",), True),
    ("DateGreaterThan", ("2026-01-02",), ("2026-01-02",), False),
    ("DateGreaterThan", ("2026-01-02",), ("2026-01-02T00:00:01Z",), True),
    ("DateGreaterThanEquals", ("2026-01-02",), ("2026-01-02",), True),
    ("DateGreaterThanEquals", ("2026-01-02",), ("2026-01-01",), False),
    ("DateLessThan", ("0001-01-01T00:00:00Z",), ("0001-01-01T00:00:00+23:59",), True),
    ("DateGreaterThan", ("9999-12-31T23:59:59Z",), ("9999-12-31T23:59:59-23:59",), True),
    ("DateLessThan", ("2026-01-02",), ("tomorrow",), None),
    ("DateLessThan", ("2026-01-02",), ("2026-13-01",), None),
]
OTHERS: list[Row] = [
    ("Bool", ("true",), ("true",), True),
    ("Bool", ("true",), ("false",), False),
    ("Bool", ("True",), ("true",), True),
    ("Bool", ("true", "false"), ("false",), True),
    ("Bool", ("false",), (), False),
    ("BoolIfExists", ("true",), (), True),
    ("BoolIfExists", ("true",), ("false",), False),
    ("Bool", ("true",), ("yes",), None),
    ("BinaryEquals", ("QmluYXJ5",), ("QmluYXJ5",), True),
    ("BinaryEquals", ("QmluYXJ5",), ("QmluYXJ6",), False),
    ("BinaryEquals", ("QmluYXJ5",), (), False),
    ("BinaryEquals", ("QmluYXJ5",), ("***",), None),
    ("IpAddress", ("203.0.113.0/24",), ("203.0.113.7",), True),
    ("IpAddress", ("203.0.113.0/24",), ("203.0.114.7",), False),
    ("IpAddress", ("203.0.113.7",), ("203.0.113.7",), True),
    ("IpAddress", ("203.0.113.9/24",), ("203.0.113.7",), True),
    ("IpAddress", ("203.0.113.0/24", "2001:db8::/32"), ("2001:db8::1",), True),
    ("IpAddress", ("203.0.113.0/24",), ("2001:db8::1",), False),
    ("IpAddress", ("203.0.113.0/24",), (), False),
    ("IpAddress", ("203.0.113.0/24",), ("here",), None),
    ("NotIpAddress", ("203.0.113.0/24",), ("203.0.114.7",), True),
    ("NotIpAddress", ("203.0.113.0/24",), ("203.0.113.7",), False),
    ("NotIpAddress", ("203.0.113.0/24",), (), True),
    ("NotIpAddress", ("203.0.113.0/24",), ("here",), None),
    ("ArnEquals", ("arn:aws:iam::1:role/a",), ("arn:aws:iam::1:role/a",), True),
    ("ArnEquals", ("arn:aws:iam::1:role/*",), ("arn:aws:iam::1:role/a/b",), True),
    ("ArnEquals", ("arn:aws:iam::1:role/A",), ("arn:aws:iam::1:role/a",), False),
    ("ArnLike", ("arn:*:iam::1:role/?",), ("arn:aws-cn:iam::1:role/a",), True),
    ("ArnLike", ("arn:aws:*:1:role/a",), ("arn:aws:iam::1:role/a",), None),
    ("ArnLike", ("arn:aws:i*:role/a:x:y",), ("arn:aws:iam::1:role/a",), False),
    ("ArnLike", ("arn:aws:sns:*:1:topic:*",), ("arn:aws:sns:eu:1:topic:a:b",), True),
    ("ArnLike", ("arn:aws:iam::1:role/a",), (), False),
    ("ArnLike", ("arn:aws:iam::1:role/a",), ("role/a",), None),
    ("ArnNotEquals", ("arn:aws:iam::1:role/a",), ("arn:aws:iam::1:role/a",), False),
    ("ArnNotEquals", ("arn:aws:iam::1:role/a",), ("arn:aws:iam::1:role/b",), True),
    ("ArnNotEquals", ("arn:aws:iam::1:role/a",), (), True),
    ("ArnNotLike", ("arn:aws:iam::1:role/*",), ("arn:aws:iam::1:role/b",), False),
    ("ArnNotLike", ("arn:aws:iam::1:role/*",), ("arn:aws:iam::2:role/b",), True),
    ("ArnNotLike", ("arn:aws:iam::1:role/*",), (), True),
    ("Null", ("true",), (), True),
    ("Null", ("true",), ("a",), False),
    ("Null", ("false",), (), False),
    ("Null", ("false",), ("a",), True),
    ("Null", ("false",), ("a", "b"), True),
    ("Null", ("TRUE",), (), True),
    ("Null", ("true", "false"), ("a",), True),
]
SETS: list[Row] = [
    ("ForAllValues:StringEquals", ("a", "b"), ("a", "b"), True),
    ("ForAllValues:StringEquals", ("a", "b"), ("a",), True),
    ("ForAllValues:StringEquals", ("a", "b"), ("a", "c"), False),
    ("ForAllValues:StringEquals", ("a", "b"), (), True),
    ("ForAllValues:StringEqualsIfExists", ("a",), (), True),
    ("ForAllValues:StringEqualsIfExists", ("a",), ("b",), False),
    ("ForAllValues:StringNotEquals", ("a", "b"), ("c", "d"), True),
    ("ForAllValues:StringNotEquals", ("a", "b"), ("a", "d"), False),
    ("ForAllValues:StringNotEquals", ("a", "b"), (), True),
    ("ForAllValues:StringLike", ("a*",), ("ab", "ac"), True),
    ("ForAllValues:StringLike", ("a*",), ("ab", "bc"), False),
    ("ForAnyValue:StringEquals", ("a", "b"), ("b", "c"), True),
    ("ForAnyValue:StringEquals", ("a", "b"), ("c", "d"), False),
    ("ForAnyValue:StringEquals", ("a", "b"), (), False),
    ("ForAnyValue:StringNotEquals", ("a", "b"), ("a", "c"), True),
    ("ForAnyValue:StringNotEquals", ("a", "b"), ("a", "b"), False),
    ("ForAnyValue:StringNotEquals", ("a", "b"), (), False),
    ("ForAnyValue:StringLike", ("a*",), ("b", "ab"), True),
    ("ForAnyValue:NumericLessThan", ("3",), ("5", "2"), True),
    ("ForAllValues:NumericLessThan", ("3",), ("5", "2"), False),
    ("ForAnyValue:ArnLike", ("arn:aws:iam::1:role/*",), ("arn:aws:iam::1:role/a",), True),
    ("ForAnyValue:Bool", ("true",), ("false", "maybe"), None),
    # Without a quantifier IAM does not say what several values mean.
    ("StringEquals", ("a",), ("a", "a"), None),
    ("StringNotEquals", ("a",), ("b", "c"), None),
]
ROWS = STRINGS + NUMBERS + DATES + OTHERS + SETS


@pytest.mark.parametrize(("operator", "policy", "request_values", "holds"), ROWS)
def test_semantics(
    operator: str,
    policy: tuple[str, ...],
    request_values: tuple[str, ...],
    holds: bool | None,
) -> None:
    if holds is not None:
        for value in policy:
            parse_operator(operator).check_policy_value(value)
    assert parse_operator(operator).holds(policy, request_values) is holds


def test_the_table_covers_every_operator() -> None:
    assert len(ROWS) >= 80
    assert {parse_operator(row[0]).base for row in ROWS} == OPERATOR_NAMES


@pytest.mark.parametrize("name", sorted(OPERATOR_NAMES - {"Null"}))
def test_a_missing_key(name: str) -> None:
    """The documentation's rule for missing keys, for every operator and variant."""
    assert parse_operator(name).holds(("x",), ()) is ("Not" in name)
    assert parse_operator(f"{name}IfExists").holds(("x",), ()) is True
    assert parse_operator(f"ForAllValues:{name}").holds(("x",), ()) is True
    assert parse_operator(f"ForAllValues:{name}IfExists").holds(("x",), ()) is True
    assert parse_operator(f"ForAnyValue:{name}").holds(("x",), ()) is False


def test_if_exists_changes_nothing_where_the_key_exists() -> None:
    rows = [row for row in ROWS if row[2] and row[0] != "Null"]
    rows = [row for row in rows if "IfExists" not in row[0] and "ForAny" not in row[0]]
    assert len(rows) > 80
    for operator, policy, request, holds in rows:
        assert parse_operator(f"{operator}IfExists").holds(policy, request) is holds


def test_text_and_parts() -> None:
    operator = parse_operator("ForAllValues:StringNotLikeIfExists")
    assert operator.base == "StringNotLike"
    assert operator.quantifier is Quantifier.ALL
    assert operator.if_exists
    assert operator.negated
    for row in ROWS:
        assert str(parse_operator(row[0])) == row[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("StringMatches", 'unknown condition operator "StringMatches"'),
        ("stringequals", "unknown condition operator"),
        ("", "unknown condition operator"),
        ("IfExists", "unknown condition operator"),
        ("StringEqualsIfExistsIfExists", "unknown condition operator"),
        ("ForSomeValues:StringEquals", "unknown condition operator"),
        ("ForAllValues:ForAnyValue:StringEquals", "unknown condition operator"),
        (":StringEquals", "unknown condition operator"),
        ("ForAllValues:", "unknown condition operator"),
        ("\x1b[31m", "unknown condition operator"),
        ("NullIfExists", "Null stands alone"),
        ("ForAllValues:Null", "Null stands alone"),
        ("ForAnyValue:Null", "Null stands alone"),
        ("ForAnyValue:StringEqualsIfExists", "IAM does not define"),
    ],
)
def test_operators_that_are_refused(text: str, says: str) -> None:
    with pytest.raises(PolicyError, match=says) as caught:
        parse_operator(text)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("operator", "value"),
    [
        ("NumericEquals", "ten"),
        ("NumericEquals", "1e3"),
        ("NumericEquals", "NaN"),
        ("NumericEquals", "٣"),
        ("NumericEquals", "9" * 33),
        ("DateEquals", "yesterday"),
        ("DateEquals", "2026-02-30"),
        ("DateEquals", "2026-W01-1"),
        ("Bool", "yes"),
        ("Null", "1"),
        ("BinaryEquals", "?"),
        ("IpAddress", "203.0.113.0/33"),
        ("NotIpAddress", "here"),
        ("ArnEquals", "*"),
        ("ArnLike", "arn:aws:iam::1"),
        ("ArnNotLike", "role/a"),
    ],
)
def test_policy_values_that_are_refused(operator: str, value: str) -> None:
    with pytest.raises(PolicyError, match=f"{operator} cannot compare with"):
        parse_operator(operator).check_policy_value(value)


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("", "", True),
        ("", "a", False),
        ("**", "", True),
        ("a**b", "ab", True),
        ("*a*a*", "aba", True),
        ("*a*a*", "ab", False),
        ("a*a", "a", False),
        ("ab*ba", "aba", False),
        ("*?", "", False),
        ("?*?", "ab", True),
        ("*.b", "axb", False),
        ("[a]", "a", False),
        ("\\?", "\\x", True),
        ("a*b", "a\nb", True),
        ("*ab*abc", "ababc", True),
        ("*abc*c", "abcabcc", True),
    ],
)
def test_globs(pattern: str, text: str, matches: bool) -> None:
    assert glob_matches(pattern, text) is matches


def test_no_glob_takes_long() -> None:
    begin = time.process_time()
    assert not glob_matches("*a" * 200 + "b", "a" * 20_000)
    assert time.process_time() - begin < 1.0
