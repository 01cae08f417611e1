"""What IAM's documentation says of operators, sentence by sentence, each with rows that show it.

The sentences are the documentation's, shortened; the section is in brackets. IAM User Guide:
[operators] "IAM JSON policy elements: Condition operators", [sets] "Set operators for multivalued
context keys", [condition] "IAM JSON policy elements: Condition", [variables] "IAM policy elements:
Variables and tags", [resource] "IAM JSON policy elements: Resource", [logic] "Policy evaluation
logic". KMS Developer Guide: [kms] "Condition keys for AWS KMS". A row is an operator, the policy's
values, the request's values (none: the key is missing) and what comes out; None: IAM does not say,
and the evaluator refuses by name. `test_operators.py` has many more rows.
"""

import pytest

from kmstool.policy.operators import OPERATOR_NAMES, parse_operator

Row = tuple[str, list[str], list[str], bool | None]
ARN = "arn:aws:iam::111122223333:role/"

SENTENCES: list[tuple[str, list[Row]]] = [
    (
        "[operators] if the key is not in the request, the condition is false",
        [
            (name, ["x"], [], False)
            for name in sorted(OPERATOR_NAMES - {"Null"})
            if "Not" not in name
        ],
    ),
    (
        "[operators] if the operator is negated and the key is missing, the condition is true",
        [(name, ["x"], [], True) for name in sorted(OPERATOR_NAMES) if "Not" in name],
    ),
    (
        "[operators] …IfExists: if the key is missing, the condition is true",
        [(f"{name}IfExists", ["x"], [], True) for name in sorted(OPERATOR_NAMES - {"Null"})],
    ),
    (
        "[operators] …IfExists: if the key is there, process it as the policy specifies",
        [
            ("StringEqualsIfExists", ["a"], ["a"], True),
            ("StringEqualsIfExists", ["a"], ["b"], False),
            ("StringNotEqualsIfExists", ["a"], ["a"], False),
            ("NumericLessThanIfExists", ["5"], ["6"], False),
        ],
    ),
    (
        "[operators] StringEquals: exact matching, case-sensitive",
        [
            ("StringEquals", ["a"], ["a"], True),
            ("StringEquals", ["a"], ["A"], False),
            ("StringEquals", ["a*"], ["ab"], False),
            ("StringNotEquals", ["a"], ["A"], True),
            ("StringNotEquals", ["a"], ["a"], False),
        ],
    ),
    (
        "[operators] StringEqualsIgnoreCase: exact matching, ignoring case",
        [
            ("StringEqualsIgnoreCase", ["aB0"], ["Ab0"], True),
            ("StringEqualsIgnoreCase", ["ab"], ["abc"], False),
            ("StringEqualsIgnoreCase", ["a*"], ["ab"], False),
            ("StringNotEqualsIgnoreCase", ["aB"], ["Ab"], False),
            # Nothing is said of letters beyond A to Z: equal as they are, else undecided where
            # some folding of Unicode would make them equal.
            ("StringEqualsIgnoreCase", ["\u00e9"], ["\u00e9"], True),
            ("StringEqualsIgnoreCase", ["\u00e9A"], ["\u00e9a"], True),
            ("StringEqualsIgnoreCase", ["\u00c9"], ["\u00e9"], None),
            ("StringEqualsIgnoreCase", ["k"], ["\u212a"], None),
            ("StringEqualsIgnoreCase", ["\u00df"], ["ss"], None),
            ("StringNotEqualsIgnoreCase", ["\u00c9"], ["\u00e9"], None),
            ("StringEqualsIgnoreCase", ["\u00c9"], ["e"], False),
        ],
    ),
    (
        "[operators] StringLike: case-sensitive; * is any number of characters, ? a single one",
        [
            ("StringLike", ["a*"], ["a"], True),
            ("StringLike", ["a*z"], ["abcz"], True),
            ("StringLike", ["a?"], ["a"], False),
            ("StringLike", ["a?"], ["ab"], True),
            ("StringLike", ["A*"], ["ab"], False),
            ("StringNotLike", ["a*"], ["ab"], False),
        ],
    ),
    (
        "[operators] numeric comparisons, of whole numbers or decimals",
        [
            ("NumericEquals", ["10"], ["10.0"], True),
            ("NumericNotEquals", ["10"], ["10"], False),
            ("NumericLessThan", ["10"], ["9.9"], True),
            ("NumericLessThanEquals", ["10"], ["10"], True),
            ("NumericGreaterThan", ["10"], ["10"], False),
            ("NumericGreaterThanEquals", ["10"], ["10"], True),
            ("NumericLessThan", ["10"], ["9"], True),
            ("NumericEquals", ["10"], ["ten"], None),
        ],
    ),
    (
        "[operators] date: an ISO 8601 date or epoch (UNIX) time",
        [
            ("DateEquals", ["2026-01-01T00:00:00Z"], ["1767225600"], True),
            ("DateGreaterThan", ["1767225600"], ["2026-01-01T00:00:01Z"], True),
            ("DateLessThan", ["2026-01-01T00:00:00Z"], ["2026-01-01T00:30:00+01:00"], True),
            ("DateNotEquals", ["2026-01-01"], ["2026-01-01T00:00:00Z"], False),
            ("DateLessThanEquals", ["2026-01-01"], ["2026-01-01"], True),
            ("DateGreaterThanEquals", ["2026-01-02"], ["2026-01-01"], False),
        ],
    ),
    (
        "[operators] Bool: compares with true or false",
        [
            ("Bool", ["true"], ["true"], True),
            ("Bool", ["true"], ["false"], False),
            ("Bool", ["TRUE"], ["true"], True),
            ("Bool", ["true"], ["1"], None),
        ],
    ),
    (
        "[operators] BinaryEquals: compares byte for byte with the base64 in the policy",
        [
            ("BinaryEquals", ["QQ=="], ["QQ=="], True),
            ("BinaryEquals", ["QQ=="], ["Qg=="], False),
        ],
    ),
    (
        "[operators] IpAddress: the address or range; NotIpAddress: all but it; IPv4 and IPv6",
        [
            ("IpAddress", ["203.0.113.0/24"], ["203.0.113.200"], True),
            ("IpAddress", ["203.0.113.0/24"], ["203.0.114.1"], False),
            ("IpAddress", ["203.0.113.5"], ["203.0.113.5"], True),
            ("IpAddress", ["2001:db8::/32"], ["2001:db8:1::1"], True),
            ("IpAddress", ["0.0.0.0/0"], ["203.0.113.5"], True),
            ("NotIpAddress", ["203.0.113.0/24"], ["203.0.113.200"], False),
            ("NotIpAddress", ["203.0.113.0/24"], ["2001:db8::1"], True),
        ],
    ),
    (
        "[operators] each of an ARN's six components by itself, with * and ?; Equals is as Like",
        [
            (name, values, [ARN + "enclave"], "Not" not in name)
            for name in ("ArnEquals", "ArnLike", "ArnNotEquals", "ArnNotLike")
            for values in ([ARN + "*"], [ARN + "encl?ve"], ["arn:*:iam::*:role/enclave"])
        ]
        + [
            ("ArnLike", ["arn:aws:*:role/enclave"], [ARN + "enclave"], None),
            ("ArnLike", ["arn:aws:iam::111122223333:role/enclave"], ["enclave"], None),
            ("ArnLike", [ARN + "Enclave"], [ARN + "enclave"], False),
        ],
    ),
    (
        "[operators] Null: true, the key does not exist; false, it exists and is not null",
        [
            ("Null", ["true"], [], True),
            ("Null", ["true"], ["x"], False),
            ("Null", ["false"], ["x"], True),
            ("Null", ["false"], [], False),
        ],
    ),
    (
        "[condition] several values of one key are ORed, for a negated operator NORed",
        [
            ("StringEquals", ["a", "b"], ["b"], True),
            ("StringEquals", ["a", "b"], ["c"], False),
            ("StringNotEquals", ["a", "b"], ["b"], False),
            ("StringNotEquals", ["a", "b"], ["c"], True),
            ("NotIpAddress", ["203.0.113.0/24", "198.51.100.0/24"], ["198.51.100.1"], False),
        ],
    ),
    (
        "[sets] ForAllValues: every value of the request is in the policy's set, or there is none",
        [
            ("ForAllValues:StringEquals", ["a", "b"], ["a"], True),
            ("ForAllValues:StringEquals", ["a", "b"], ["a", "b"], True),
            ("ForAllValues:StringEquals", ["a", "b"], ["a", "c"], False),
            ("ForAllValues:StringEquals", ["a"], [], True),
            ("ForAllValues:StringNotEquals", ["a"], ["b", "c"], True),
            ("ForAllValues:StringNotEquals", ["a"], ["b", "a"], False),
            ("ForAllValues:StringLike", ["a*"], ["ab", "ac"], True),
        ],
    ),
    (
        "[sets] ForAnyValue: at least one value of the request matches; false for a missing key",
        [
            ("ForAnyValue:StringEquals", ["a", "b"], ["b", "c"], True),
            ("ForAnyValue:StringEquals", ["a", "b"], ["c"], False),
            ("ForAnyValue:StringEquals", ["a"], [], False),
            ("ForAnyValue:StringNotEquals", ["a"], ["a", "b"], True),
            ("ForAnyValue:StringNotEquals", ["a"], [], False),
        ],
    ),
    (
        "[sets] a key with several values requires a set operator",
        [
            ("StringEquals", ["a"], ["a", "b"], None),
            ("StringNotEquals", ["c"], ["a", "b"], None),
        ],
    ),
]
ROWS = [(sentence, *row) for sentence, rows in SENTENCES for row in rows]


@pytest.mark.parametrize(("sentence", "operator", "policy", "request_values", "holds"), ROWS)
def test_a_row(
    sentence: str, operator: str, policy: list[str], request_values: list[str], holds: bool | None
) -> None:
    assert parse_operator(operator).holds(policy, request_values) is holds, sentence


def test_every_operator_and_every_source_is_there() -> None:
    assert {parse_operator(row[1]).base for row in ROWS} == OPERATOR_NAMES
    assert len(ROWS) > 120
    assert all(sentence.startswith("[") for sentence, _ in SENTENCES)
