"""What a policy is told about a request, and that no decision is made anywhere else."""

import json
from typing import Any

import pytest

from kmstool.emulator.attested import Attested
from kmstool.emulator.authorisation import (
    authorise_identity,
    authorise_key,
    check_lockout,
    check_policy,
    default_policy,
)
from kmstool.emulator.keys import Key
from kmstool.emulator.principals import ADMIN_ARN, Principal
from kmstool.emulator.refusal import Refusal

OTHER_ACCOUNT = "arn:aws:iam::444455556666:role/other"
PCRS = {0: b"\xab" * 48, 8: b"\x01" * 48}


def principal(arn: str = ADMIN_ARN, *allows: str) -> Principal:
    return Principal(
        access_key_id="AKIAEXAMPLE000000000",
        secret_access_key="s",
        arn=arn,
        iam_allows=allows,
    )


def policy(conditions: dict[str, Any], *, arn: str = ADMIN_ARN) -> str:
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": arn},
        "Action": "kms:*",
        "Resource": "*",
        "Condition": conditions,
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


KEY = Key(
    key_id="1234abcd-12ab-34cd-56ef-1234567890ab",
    partition="aws",
    region="eu-west-1",
    account_id="111122223333",
    spec="SYMMETRIC_DEFAULT",
    usage="ENCRYPT_DECRYPT",
    description="",
    created=0.0,
    policy="",
    material=bytes(32),
    material_id=None,
)


def ask(text: str, who: Principal | None = None, *, attested: bool = False, **more: Any) -> None:
    more.setdefault("encryption_context", {"app": "one", "Größe": "2"})
    authorise_key(
        who or principal(),
        "kms:Decrypt",
        KEY,
        policy=text,
        attested=Attested(PCRS, b"", ()) if attested else None,
        extra={"kms:EncryptionAlgorithm": "SYMMETRIC_DEFAULT"},
        aliases=["alias/a", "alias/b"],
        named=more.pop("named", "alias/a"),
        **more,
    )


def denied(text: str, who: Principal | None = None, **more: Any) -> str:
    with pytest.raises(Refusal) as caught:
        ask(text, who, **more)
    assert caught.value.code == "AccessDeniedException"
    return caught.value.message


@pytest.mark.parametrize(
    ("key", "right", "wrong"),
    [
        ("aws:PrincipalArn", ADMIN_ARN, OTHER_ACCOUNT),
        ("aws:PrincipalAccount", "111122223333", "444455556666"),
        ("kms:CallerAccount", "111122223333", "444455556666"),
        ("kms:EncryptionAlgorithm", "SYMMETRIC_DEFAULT", "RSAES_OAEP_SHA_256"),
        ("kms:EncryptionContext:app", "one", "two"),
        ("kms:EncryptionContext:APP", "one", "two"),
        ("kms:EncryptionContext:größe", "2", "3"),
        ("kms:RecipientAttestation:ImageSha384", "ab" * 48, "ac" * 48),
        ("kms:RecipientAttestation:PCR0", "ab" * 48, "ac" * 48),
        ("kms:RecipientAttestation:PCR8", "01" * 48, "00" * 48),
        ("kms:RequestAlias", "alias/a", "alias/b"),
        ("kms:KeySpec", "SYMMETRIC_DEFAULT", "RSA_2048"),
        ("kms:KeyUsage", "ENCRYPT_DECRYPT", "SIGN_VERIFY"),
        ("kms:KeyOrigin", "AWS_KMS", "EXTERNAL"),
    ],
)
def test_condition_keys(key: str, right: str, wrong: str) -> None:
    ask(policy({"StringEquals": {key: right}}), attested=True)
    message = denied(policy({"StringEquals": {key: wrong}}), attested=True)
    assert key.rpartition(":")[2] in message


def test_keys_with_several_values() -> None:
    both = {"kms:EncryptionContextKeys": ["app", "Größe"]}
    ask(policy({"ForAllValues:StringEquals": both}))
    denied(policy({"ForAllValues:StringEquals": {"kms:EncryptionContextKeys": ["app"]}}))
    ask(policy({"ForAnyValue:StringEquals": {"kms:ResourceAliases": "alias/b"}}))
    denied(policy({"ForAnyValue:StringEquals": {"kms:ResourceAliases": "alias/c"}}))


def test_without_attestation_its_keys_are_missing() -> None:
    denied(policy({"StringEquals": {"kms:RecipientAttestation:PCR0": "ab" * 48}}))
    ask(policy({"Null": {"kms:RecipientAttestation:PCR0": "true"}}))
    denied(policy({"Null": {"kms:RecipientAttestation:PCR0": "true"}}), attested=True)


@pytest.mark.parametrize(
    ("named", "alias"),
    [
        ("alias/a", "alias/a"),
        ("arn:aws:kms:eu-west-1:111122223333:alias/a", "alias/a"),
        (KEY.arn, None),
        (KEY.key_id, None),
        (None, None),
    ],
)
def test_request_alias(named: str | None, alias: str | None) -> None:
    text = policy({"StringEquals": {"kms:RequestAlias": "alias/a"}})
    if alias is None:
        denied(text, named=named)
    else:
        ask(text, named=named)


@pytest.mark.parametrize("key", ["kms:ViaService", "aws:SourceIp", "aws:SourceVpce", "kms:Unknown"])
@pytest.mark.parametrize("operator", ["StringEquals", "StringNotEquals"])
def test_unknown_keys_deny_and_are_named(key: str, operator: str) -> None:
    if key == "aws:SourceIp":
        operator = operator.replace("String", "").replace("Equals", "IpAddress")
    value = "10.0.0.0/8" if key == "aws:SourceIp" else "x"
    assert key in denied(policy({operator: {key: value}}))


def test_another_account_needs_both_policies() -> None:
    text = policy({}, arn=OTHER_ACCOUNT).replace('"Condition": {}', '"Sid": "x"')
    denied(text, principal(OTHER_ACCOUNT))
    ask(text, principal(OTHER_ACCOUNT, "kms:Decrypt"))


def test_identity_policies() -> None:
    authorise_identity(principal(ADMIN_ARN, "kms:Create*"), "kms:CreateKey", "*")
    with pytest.raises(Refusal, match="AccessDeniedException"):
        authorise_identity(principal(ADMIN_ARN, "kms:Create*"), "kms:ListKeys", "*")


def test_the_default_policy_delegates() -> None:
    text = default_policy("aws", "111122223333")
    check_policy(text)
    ask(text, principal(ADMIN_ARN, "kms:Decrypt"))
    denied(text, principal(ADMIN_ARN, "kms:Encrypt"))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", policy({"StringEqual": {"a": "b"}})])
def test_malformed_policies(text: str) -> None:
    with pytest.raises(Refusal) as caught:
        check_policy(text)
    assert caught.value.code == "MalformedPolicyDocumentException"


def test_lockout() -> None:
    check_lockout(principal(), KEY, policy({"StringEquals": {"kms:KeySpec": "SYMMETRIC_DEFAULT"}}))
    with pytest.raises(Refusal) as caught:
        check_lockout(principal(), KEY, policy({}, arn=OTHER_ACCOUNT))
    assert caught.value.code == "MalformedPolicyDocumentException"
