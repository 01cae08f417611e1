"""kmstool/policy/parse.py: what KMS would refuse, and what the evaluator does not know."""

import json
from typing import Any

import pytest

from kmstool.errors import PolicyError
from kmstool.limits import POLICY_MAX
from kmstool.policy.parse import Effect, PrincipalKind, parse_policy

ROLE = "arn:aws:iam::111122223333:role/enclave"
STATEMENT: dict[str, Any] = {
    "Sid": "One",
    "Effect": "Allow",
    "Principal": {"AWS": ROLE},
    "Action": "kms:Decrypt",
    "Resource": "*",
}
ABSENT = object()


def policy(version: str = "2012-10-17", /, **changes: object) -> str:
    statement = {n: v for n, v in (STATEMENT | changes).items() if v is not ABSENT}
    return json.dumps({"Version": version, "Statement": [statement]})


def test_a_whole_policy() -> None:
    text = json.dumps(
        {
            "Version": "2012-10-17",
            "Id": "key-policy",
            "Statement": [
                STATEMENT,
                {
                    "Effect": "Deny",
                    "NotPrincipal": {"AWS": [ROLE, "111122223333"], "Service": "x.amazonaws.com"},
                    "NotAction": ["kms:Describe*", "kms:Get?"],
                    "NotResource": ["a", "b"],
                    "Condition": {
                        "NumericLessThan": {"kms:X": [1, 2.5]},
                        "ForAnyValue:StringLike": {"kms:EncryptionContextKeys": "a*", "b:c": "d"},
                        "Bool": {"kms:Y": True},
                    },
                },
            ],
        }
    )
    parsed = parse_policy(text)
    one, two = parsed.statements
    assert parsed.version == "2012-10-17"
    assert (one.sid, one.index, one.name) == ("One", 0, 'statement "One"')
    assert one.effect is Effect.ALLOW
    assert [p.kind for p in one.principals] == [PrincipalKind.IDENTITY]
    assert one.actions == ("kms:Decrypt",)
    assert one.resources == ("*",)
    assert not one.not_principal
    assert not one.not_action
    assert not one.not_resource
    assert one.conditions == ()
    assert (two.sid, two.name) == (None, "statement number 2")
    assert two.effect is Effect.DENY
    assert [p.kind for p in two.principals] == ["identity", "account", "service"]
    assert two.not_principal
    assert two.not_action
    assert two.not_resource
    assert two.actions == ("kms:Describe*", "kms:Get?")
    assert [(str(c.operator), c.key, c.values) for c in two.conditions] == [
        ("NumericLessThan", "kms:X", ("1", "2.5")),
        ("ForAnyValue:StringLike", "kms:EncryptionContextKeys", ("a*",)),
        ("ForAnyValue:StringLike", "b:c", ("d",)),
        ("Bool", "kms:Y", ("true",)),
    ]


def test_one_statement_needs_no_list() -> None:
    assert len(parse_policy(json.dumps({"Statement": STATEMENT})).statements) == 1


def test_without_a_version_it_is_the_old_language() -> None:
    assert parse_policy(json.dumps({"Statement": STATEMENT})).version == "2008-10-17"


@pytest.mark.parametrize("name", ["Action", "Resource"])
def test_kms_takes_a_statement_without_effect(name: str) -> None:
    statement = parse_policy(policy(**{name: ABSENT})).statements[0]
    assert getattr(statement, f"{name.lower()}s") is None


@pytest.mark.parametrize(
    ("principal", "kinds"),
    [
        ("*", ["anyone"]),
        ({"AWS": "*"}, ["anyone"]),
        ({"AWS": "111122223333"}, ["account"]),
        ({"AWS": "arn:aws:iam::111122223333:root"}, ["account"]),
        ({"AWS": "arn:aws-us-gov:iam::111122223333:user/path/bob"}, ["identity"]),
        ({"AWS": "arn:aws:sts::111122223333:assumed-role/enclave/i-1"}, ["session"]),
        ({"AWS": "arn:aws:sts::111122223333:federated-user/bob"}, ["session"]),
        ({"AWS": "AROAEXAMPLE123456789"}, ["deleted"]),
        ({"Service": ["logs.eu-west-1.amazonaws.com"]}, ["service"]),
        ({"AWS": [ROLE, "*"], "Service": []}, ["identity", "anyone"]),
    ],
)
def test_principals(principal: object, kinds: list[str]) -> None:
    statement = parse_policy(policy(Principal=principal)).statements[0]
    assert [one.kind for one in statement.principals] == kinds


BAD_STATEMENTS: list[tuple[dict[str, object], str]] = [
    ({"Effect": ABSENT}, 'an Effect that is neither "Allow" nor "Deny"'),
    ({"Effect": "allow"}, 'an Effect that is neither "Allow" nor "Deny"'),
    ({"Effect": ["Allow"]}, 'an Effect that is neither "Allow" nor "Deny"'),
    ({"Sid": 5}, "Sid that is not a string"),
    ({"Principals": {}}, 'unknown element "Principals"'),
    ({"action": "kms:*"}, 'unknown element "action"'),
    ({"NotPrincipal": "*"}, "both Principal and NotPrincipal"),
    ({"NotAction": "kms:*"}, "both Action and NotAction"),
    ({"NotResource": "*"}, "both Resource and NotResource"),
    ({"Principal": ABSENT}, "no Principal"),
    ({"Principal": ROLE}, "Principal is not a JSON object"),
    ({"Principal": {}}, "Principal names nobody"),
    ({"Principal": {"AWS": []}}, "Principal names nobody"),
    ({"Principal": {"AWS": [5]}}, "AWS is not a string"),
    ({"Principal": {"AWS": ""}}, "AWS is not a string"),
    ({"Principal": {"CanonicalUser": "x"}}, 'unknown element "CanonicalUser"'),
    ({"Principal": {"Federated": "x"}}, 'unknown element "Federated"'),
    ({"Principal": {"Service": "X Y"}}, "not a service's name"),
    ({"Principal": {"AWS": "arn:aws:iam::111122223333:role/*"}}, "is not an account, a role"),
    ({"Principal": {"AWS": "arn:aws:iam::1111:role/a"}}, "is not an account, a role"),
    ({"Principal": {"AWS": "11112222333"}}, "is not an account, a role"),
    ({"Principal": {"AWS": "arn:aws:iam::111122223333:group/a"}}, "is not an account, a role"),
    ({"Principal": ABSENT, "NotPrincipal": {"AWS": ROLE}}, "NotPrincipal with Allow"),
    ({"Action": []}, "Action is an empty list"),
    ({"Action": 5}, "Action is not a string"),
    ({"Action": ["kms:*", ""]}, "Action is not a string"),
    ({"Action": "k*:Decrypt"}, "is not a service and a name"),
    ({"Action": "Decrypt"}, "is not a service and a name"),
    ({"Action": "kms:De crypt"}, "is not a service and a name"),
    ({"Action": "kms:${x}"}, "is not a service and a name"),
    ({"Resource": []}, "Resource is an empty list"),
    ({"Resource": {"a": "b"}}, "Resource is not a string"),
    ({"Resource": "${x}"}, r'"\$\{x\}" is not a policy variable'),
    ({"Resource": "arn:aws:kms:x:${aws:x}:key/*"}, "a policy variable before its fifth colon"),
    ({"Condition": []}, "Condition is not a JSON object"),
    ({"Condition": {"StringEqual": {}}}, 'unknown condition operator "StringEqual"'),
    ({"Condition": {"StringEquals": []}}, "condition StringEquals is not a JSON object"),
    ({"Condition": {"StringEquals": {"key": "v"}}}, '"key" is not a condition key'),
    ({"Condition": {"StringEquals": {"a:\x07": "v"}}}, "is not a condition key"),
    ({"Condition": {"StringEquals": {"a:b": []}}}, "StringEquals a:b has no value"),
    ({"Condition": {"StringEquals": {"a:b": None}}}, "has a value that is not a string"),
    ({"Condition": {"StringEquals": {"a:b": [["c"]]}}}, "has a value that is not a string"),
    ({"Condition": {"StringEquals": {"a:b": "1", "A:B": "2"}}}, 'names "A:B" twice'),
    ({"Condition": {"StringEquals": {"a:b": "${a:b,'x'}"}}}, "is not a policy variable"),
    ({"Condition": {"StringEquals": {"a:b": "x${aws:username"}}}, "does not close it"),
    ({"Condition": {"ArnLike": {"a:b": "${aws:x}:role"}}}, "ArnLike cannot compare with"),
    ({"Condition": {"Bool": {"a:b": "${aws:x}"}}}, "Bool cannot compare with"),
    ({"Condition": {"NumericEquals": {"a:b": "one"}}}, "NumericEquals cannot compare"),
    ({"Condition": {"NumericEquals": {"a:b": 1e999}}}, "not JSON"),
]


@pytest.mark.parametrize(("changes", "says"), BAD_STATEMENTS)
def test_statements_that_are_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(PolicyError, match=says) as caught:
        parse_policy(policy(**changes))
    if "JSON" not in says and "Sid" not in says:
        assert str(caught.value).startswith('statement "One"')
    assert str(caught.value).isprintable()


def test_the_old_language_has_no_variables() -> None:
    text = policy("2008-10-17", Condition={"StringEquals": {"a:b": "${aws:username}"}})
    assert parse_policy(text).statements[0].conditions[0].values == ("${aws:username}",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON: Expecting value in line 1, column 1"),
        ("{", "not JSON"),
        ("[" * 5_000, "not JSON"),
        ("{} {}", "not JSON"),
        ('{"Version": NaN}', "not JSON"),
        ("[]", "the policy is not a JSON object"),
        ("{}", "the policy has no Statement"),
        ('{"Statement": null}', "the policy has no Statement"),
        ('{"Statement": []}', "the policy has no Statement"),
        ('{"Statement": ["x"]}', "statement number 1 is not a JSON object"),
        ('{"Version": "2012-10-18", "Statement": []}', "Version is not one of 2012-10-17 and"),
        ('{"Version": ["2012-10-17"], "Statement": []}', "Version is not one of"),
        ('{"Id": 5, "Statement": []}', "Id is not a string"),
        ('{"Rules": [], "Statement": []}', 'the policy has an unknown element "Rules"'),
        ('{"Statement": [], "Statement": []}', 'names "Statement" twice'),
        ('{"Statement": {"Effect": "Deny", "Effect": "Allow"}}', 'names "Effect" twice'),
        ('{"Statement": "\u0100"}', r"the character U\+0100"),
        ('{"Statement": "\udcff"}', r"the character U\+DCFF"),
        (" " * (POLICY_MAX + 1), "more than 32768 bytes"),
        ('"' + "é" * (POLICY_MAX // 2) + '"', "more than 32768 bytes"),
    ],
)
def test_policies_that_are_refused(text: str, says: str) -> None:
    with pytest.raises(PolicyError, match=says) as caught:
        parse_policy(text)
    assert caught.value.__cause__ is None


def test_a_policy_of_the_largest_size_parses() -> None:
    text = json.dumps({"Statement": STATEMENT})
    assert parse_policy(text + " " * (POLICY_MAX - len(text))).statements


def test_a_hostile_sid_is_made_printable() -> None:
    statement = parse_policy(policy(Sid="\x1b[31mred")).statements[0]
    assert statement.name == 'statement "?[31mred"'
    with pytest.raises(PolicyError) as caught:
        parse_policy(policy(Sid="\x9b31m", Effect="x"))
    assert str(caught.value).isprintable()
