"""What IAM's documentation says of whole statements: variables, keys, and how conditions combine.

As `test_documented_operators.py`, whose sources these are too; each row is a sentence, a statement,
the request's condition keys and what comes out.
"""

import json
from typing import Any

import pytest

from kmstool.errors import PolicyError
from kmstool.policy.evaluate import Decision, Request, evaluate, parse_policy

ROLE = "arn:aws:iam::111122223333:role/enclave"
KEY = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
TEAM = "aws:PrincipalTag/team"


def decide(
    statement: dict[str, Any], context: dict[str, tuple[str, ...]], version: str = "2012-10-17"
) -> Decision:
    base: dict[str, Any] = {"Effect": "Allow", "Principal": {"AWS": ROLE}, "Action": "kms:*"}
    if "NotResource" not in statement:
        base["Resource"] = "*"
    policy = parse_policy(json.dumps({"Version": version, "Statement": [base | statement]}))
    return evaluate(
        policy, Request(action="kms:Decrypt", principal=ROLE, resource=KEY, context=context)
    )


def when(**blocks: dict[str, Any]) -> dict[str, Any]:
    return {"Condition": blocks}


STATEMENTS: list[tuple[str, dict[str, Any], dict[str, tuple[str, ...]], bool | None]] = [
    (
        "[variables] a variable is replaced by the value of the key in the request",
        when(StringEquals={"aws:UserAgent": "x-${aws:PrincipalAccount}"}),
        {"aws:UserAgent": ("x-111122223333",)},
        True,
    ),
    (
        "[variables] names of variables are not case-sensitive",
        when(StringEquals={"aws:UserAgent": "${AWS:principalACCOUNT}"}),
        {"aws:UserAgent": ("111122223333",)},
        True,
    ),
    (
        "[variables] without a value, StringEquals and StringLike do not match",
        when(StringLike={"aws:UserAgent": "${aws:PrincipalTag/team}*"}),
        {"aws:UserAgent": ("x",), TEAM: ()},
        False,
    ),
    (
        "[variables] without a value, inverted operators do match",
        when(StringNotLike={"aws:UserAgent": "${aws:PrincipalTag/team}*"}),
        {"aws:UserAgent": ("x",), TEAM: ()},
        True,
    ),
    (
        "[variables] without a value another value of the list may still match",
        when(StringEquals={"aws:UserAgent": ["${aws:PrincipalTag/team}", "x"]}),
        {"aws:UserAgent": ("x",), TEAM: ()},
        True,
    ),
    (
        "[variables] a default value stands in for a missing one",
        when(StringEquals={"aws:UserAgent": "${aws:PrincipalTag/team, 'all of us'}"}),
        {"aws:UserAgent": ("all of us",), TEAM: ()},
        True,
    ),
    (
        "[variables] a default value does not stand in for one that is there",
        when(StringEquals={"aws:UserAgent": "${aws:PrincipalTag/team, 'all'}"}),
        {"aws:UserAgent": ("all",), TEAM: ("red",)},
        False,
    ),
    (
        "[variables] ${*} is an asterisk and no wildcard",
        when(StringLike={"aws:UserAgent": "a${*}*"}),
        {"aws:UserAgent": ("a*b",)},
        True,
    ),
    (
        "[variables] ${*} is an asterisk and no wildcard",
        when(StringLike={"aws:UserAgent": "a${*}"}),
        {"aws:UserAgent": ("ab",)},
        False,
    ),
    (
        "[variables] ${?} is a question mark and no wildcard",
        when(StringLike={"aws:UserAgent": "a${?}"}),
        {"aws:UserAgent": ("ab",)},
        False,
    ),
    (
        "[variables] ${$} is a dollar sign",
        when(StringEquals={"aws:UserAgent": "${$}{x}"}),
        {"aws:UserAgent": ("${x}",)},
        True,
    ),
    (
        "[variables] ARN operators take variables",
        when(ArnLike={"aws:SourceArn": "arn:aws:iam::${aws:PrincipalAccount}:role/*"}),
        {"aws:SourceArn": (ROLE,)},
        True,
    ),
    (
        "[variables] a value that is one variable",
        when(ArnEquals={"aws:SourceArn": "${aws:PrincipalArn}"}),
        {"aws:SourceArn": (ROLE,)},
        True,
    ),
    (
        "[variables] whether a wildcard in a value is one, is not said",
        when(StringLike={"aws:UserAgent": "${aws:PrincipalTag/team}"}),
        {"aws:UserAgent": ("x",), TEAM: ("*",)},
        None,
    ),
    (
        "[variables] … and where there are no wildcards, it does not matter",
        when(StringEquals={"aws:UserAgent": "${aws:PrincipalTag/team}"}),
        {"aws:UserAgent": ("*",), TEAM: ("*",)},
        True,
    ),
    (
        "[variables] a key with several values is no variable",
        when(StringEquals={"aws:UserAgent": "${kms:EncryptionContextKeys}"}),
        {"aws:UserAgent": ("a",), "kms:EncryptionContextKeys": ("a", "b")},
        None,
    ),
    (
        "[variables] a key that nobody knows",
        when(StringEquals={"aws:UserAgent": "${aws:PrincipalOrgID}"}),
        {"aws:UserAgent": ("a",)},
        None,
    ),
    (
        "[variables] in Resource, a variable is replaced after the fifth colon",
        {"Resource": "arn:aws:kms:*:*:key/${aws:PrincipalTag/team}*"},
        {TEAM: ("1234",)},
        True,
    ),
    (
        "[variables] in Resource, a variable without a value matches no resource",
        {"Resource": "arn:aws:kms:*:*:key/${aws:PrincipalTag/team}*"},
        {TEAM: ()},
        False,
    ),
    (
        "[variables] in NotResource, that may mean every key or none",
        {"NotResource": "arn:aws:kms:*:*:key/${aws:PrincipalTag/team}*"},
        {TEAM: ()},
        None,
    ),
    (
        "[condition] keys and operators of one statement are ANDed",
        when(StringEquals={"aws:UserAgent": "a"}, Bool={"aws:SecureTransport": "true"}),
        {"aws:UserAgent": ("a",), "aws:SecureTransport": ("false",)},
        False,
    ),
    (
        "[condition] names of keys are not case-sensitive",
        when(StringEquals={"AWS:useragent": "a"}),
        {"aws:UserAgent": ("a",)},
        True,
    ),
    (
        "[kms] the name in kms:EncryptionContext:NAME is not case-sensitive, its value is",
        when(StringEquals={"kms:EncryptionContext:APP": "a"}),
        {"kms:EncryptionContext:app": ("a",)},
        True,
    ),
    (
        "[kms] … of letters beyond A to Z nothing is said",
        when(StringEquals={"kms:EncryptionContext:\u00c9": "a"}),
        {"kms:EncryptionContext:\u00e9": ("a",)},
        None,
    ),
    (
        "[kms] … and a name that only looks alike in upper case is not the same for certain",
        when(StringEquals={"kms:EncryptionContext:k": "a"}),
        {"kms:EncryptionContext:\u212a": ("a",)},
        None,
    ),
]


@pytest.mark.parametrize(("sentence", "statement", "context", "holds"), STATEMENTS)
def test_a_statement(
    sentence: str,
    statement: dict[str, Any],
    context: dict[str, tuple[str, ...]],
    holds: bool | None,
) -> None:
    decision = decide(statement, context)
    (one,) = decision.statements
    assert (None if one.undecided else one.matched) is holds, (sentence, decision.reason)
    assert decision.allowed is (holds is True)


def test_the_reason_names_the_element_that_cannot_be_decided() -> None:
    decision = decide({"NotResource": "arn:aws:kms:*:*:key/${aws:PrincipalTag/team}*"}, {TEAM: ()})
    assert decision.reason.endswith(
        "refused: a policy variable in NotResource has no value, and IAM does not say whether the"
        " statement then applies to every key or to none"
    )
    decision = decide({"Resource": "arn:aws:kms:*:*:key/${aws:PrincipalOrgID}"}, {})
    assert 'refused: the policy variable "aws:PrincipalOrgID" is a condition' in decision.reason


def test_in_the_older_language_there_are_no_variables() -> None:
    """[variables] Version 2012-10-17 is required: in older ones a variable is literal text."""
    statement = when(StringEquals={"aws:UserAgent": "${aws:PrincipalAccount}"})
    literal: dict[str, tuple[str, ...]] = {"aws:UserAgent": ("${aws:PrincipalAccount}",)}
    assert decide(statement, literal, "2008-10-17").allowed
    assert not decide(statement, literal).allowed


@pytest.mark.parametrize(
    "statement",
    [
        when(NumericEquals={"a:b": "${a:c}"}),
        when(DateEquals={"a:b": "${a:c}"}),
        when(Bool={"a:b": "${a:c}"}),
        when(BinaryEquals={"a:b": "${a:c}"}),
        when(IpAddress={"a:b": "${a:c}"}),
        when(Null={"a:b": "${a:c}"}),
    ],
)
def test_other_operators_take_none(statement: dict[str, Any]) -> None:
    """[variables] string and ARN operators alone; refused, since ours would have to guess."""
    with pytest.raises(PolicyError, match="cannot compare with"):
        decide(statement, {})
