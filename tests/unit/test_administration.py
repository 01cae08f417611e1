"""kmstool/administration.py against botocore's model of KMS, and against answers that lie."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel

from kmstool import administration, limits
from kmstool.administration import AdminOperation
from kmstool.arn import parse_key_arn
from kmstool.errors import SettingError, UntrustedAnswerError
from kmstool.policy.build import KEY_KINDS

MODEL = ServiceModel(Loader().load_service_model("kms", "service-2"), "kms")
KEY_ID = "1234abcd-12ab-34cd-56ef-1234567890ab"
ARN = f"arn:aws:kms:eu-west-1:111122223333:key/{KEY_ID}"
KEY = parse_key_arn(ARN)
METADATA: dict[str, Any] = {
    "AWSAccountId": "111122223333",
    "KeyId": KEY_ID,
    "Arn": ARN,
    "CreationDate": 1795512137.546,
    "Enabled": True,
    "Description": "",
    "KeyUsage": "KEY_AGREEMENT",
    "KeyState": "Enabled",
    "Origin": "AWS_KMS",
    "KeyManager": "CUSTOMER",
    "CustomerMasterKeySpec": "ECC_NIST_P256",
    "KeySpec": "ECC_NIST_P256",
    "KeyAgreementAlgorithms": ["ECDH"],
    "MultiRegion": False,
}
PUBLIC_KEY = {
    "KeyId": ARN,
    "PublicKey": base64.b64encode(b"der").decode(),
    "KeySpec": "ECC_NIST_P256",
    "KeyUsage": "KEY_AGREEMENT",
}
REQUESTS = {
    AdminOperation.CREATE_KEY: administration.build_create_key(
        key_spec="ECC_NIST_P256", key_usage="KEY_AGREEMENT", policy="{}"
    ),
    AdminOperation.DESCRIBE_KEY: administration.build_describe_key(KEY),
    AdminOperation.GET_KEY_POLICY: administration.build_get_key_policy(KEY),
    AdminOperation.GET_PUBLIC_KEY: administration.build_get_public_key(KEY),
    AdminOperation.LIST_GRANTS: administration.build_list_grants(KEY, marker="m"),
}


def body(members: object) -> bytes:
    return json.dumps(members).encode()


# --- Requests ----------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", AdminOperation)
def test_request_members_are_members_of_the_model(operation: AdminOperation) -> None:
    shape: Any = MODEL.operation_model(operation.value).input_shape
    sent = json.loads(REQUESTS[operation])
    assert set(sent) <= set(shape.members)
    assert set(shape.required_members) <= set(sent)
    python = {"string": str, "boolean": bool, "integer": int}
    for name, value in sent.items():
        assert type(value) is python[shape.members[name].type_name], name
        allowed = getattr(shape.members[name], "enum", [])
        assert not allowed or value in allowed


def test_a_key_is_asked_for_as_it_has_to_be() -> None:
    assert json.loads(REQUESTS[AdminOperation.CREATE_KEY]) == {
        "KeySpec": "ECC_NIST_P256",
        "KeyUsage": "KEY_AGREEMENT",
        "Origin": "AWS_KMS",
        "MultiRegion": False,
        "Policy": "{}",
        "BypassPolicyLockoutSafetyCheck": True,
    }


def test_every_spec_and_usage_of_a_locked_key_is_one_of_kms() -> None:
    shape: Any = MODEL.operation_model("CreateKey").input_shape
    assert set(KEY_KINDS) <= set(shape.members["KeySpec"].enum)
    assert {kind.usage for kind in KEY_KINDS.values()} <= set(shape.members["KeyUsage"].enum)


def test_every_action_of_a_locked_key_takes_a_recipient() -> None:
    for kind in KEY_KINDS.values():
        for action in kind.actions:
            shape: Any = MODEL.operation_model(action.removeprefix("kms:")).input_shape
            assert "Recipient" in shape.members


@pytest.mark.parametrize("length", [0, limits.POLICY_MAX + 1])
def test_a_policy_has_bounds(length: int) -> None:
    with pytest.raises(SettingError):
        administration.build_create_key(key_spec="x", key_usage="y", policy="p" * length)
    administration.build_create_key(key_spec="x", key_usage="y", policy="p" * limits.POLICY_MAX)


# --- Answers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parse", [administration.parse_create_key, administration.parse_describe_key]
)
def test_metadata(parse: Callable[[bytes], administration.KeyMetadata]) -> None:
    found = parse(body({"KeyMetadata": METADATA}))
    assert found == administration.KeyMetadata(
        key=KEY,
        key_spec="ECC_NIST_P256",
        key_usage="KEY_AGREEMENT",
        origin="AWS_KMS",
        key_state="Enabled",
        key_manager="CUSTOMER",
        multi_region=False,
    )


# fmt: off
NEEDED = [
    "AWSAccountId", "KeyId", "Arn", "KeyUsage", "KeyState", "Origin", "KeyManager", "KeySpec",
    "MultiRegion",
]
# fmt: on


@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("value", [None, ..., 7, "", "x\n", [], "x" * 3000])
def test_metadata_that_lacks_something(name: str, value: object) -> None:
    members = {**METADATA, name: value}
    if value is ...:
        del members[name]
    with pytest.raises(UntrustedAnswerError, match=name) as error:
        administration.parse_create_key(body({"KeyMetadata": members}))
    assert str(error.value).startswith("the answer to CreateKey has ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWSAccountId", "444455556666"),
        ("KeyId", KEY_ID.replace("1", "2")),
        ("Arn", ARN.replace("111122223333", "444455556666")),
        ("Arn", "arn:aws:kms:eu-west-1:111122223333:alias/key"),
        ("MultiRegion", 0),
        ("MultiRegion", "false"),
    ],
)
def test_metadata_that_contradicts_itself(name: str, value: object) -> None:
    with pytest.raises(UntrustedAnswerError):
        administration.parse_describe_key(body({"KeyMetadata": {**METADATA, name: value}}))


@pytest.mark.parametrize("answer", [b"", b"[]", b"{", b'{"KeyMetadata":[]}', b"{}", b'{"a":NaN}'])
def test_answers_that_are_none(answer: bytes) -> None:
    for parse in (
        administration.parse_create_key,
        administration.parse_describe_key,
        administration.parse_get_key_policy,
        administration.parse_get_public_key,
        administration.parse_list_grants,
    ):
        with pytest.raises(UntrustedAnswerError):
            parse(answer)
    padded = b" " * limits.HTTP_BODY_MAX + body({"KeyMetadata": METADATA})
    with pytest.raises(UntrustedAnswerError):
        administration.parse_create_key(padded)


def test_a_policy_comes_as_its_text() -> None:
    text = '{\n "ä": 1}'
    answer = {"Policy": text, "PolicyName": "default"}
    assert administration.parse_get_key_policy(body(answer)) == text
    assert administration.parse_get_key_policy(body({"Policy": text})) == text
    longest = {"Policy": "p" * limits.POLICY_MAX}
    assert administration.parse_get_key_policy(body(longest)) == longest["Policy"]


@pytest.mark.parametrize(
    "change",
    [
        {"Policy": None},
        {"Policy": ""},
        {"Policy": {}},
        {"Policy": "p" * (limits.POLICY_MAX + 1)},
        {"PolicyName": "other"},
    ],
)
def test_policies_that_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(UntrustedAnswerError):
        administration.parse_get_key_policy(
            body({"Policy": "{}", "PolicyName": "default", **change})
        )


def test_a_public_key() -> None:
    found = administration.parse_get_public_key(body(PUBLIC_KEY))
    assert found == administration.PublicKey(
        key=KEY, public_key=b"der", key_spec="ECC_NIST_P256", key_usage="KEY_AGREEMENT"
    )


@pytest.mark.parametrize("name", PUBLIC_KEY)
@pytest.mark.parametrize("value", [None, 7, "", "not base64 nor an arn, too long" * 900])
def test_a_public_key_that_lacks_something(name: str, value: object) -> None:
    with pytest.raises(UntrustedAnswerError, match=name):
        administration.parse_get_public_key(body({**PUBLIC_KEY, name: value}))


def test_grants() -> None:
    page = {"Grants": [{"GrantId": "a"}, {"GrantId": "b"}], "Truncated": True, "NextMarker": "m"}
    assert administration.parse_list_grants(body(page)) == administration.Grants(("a", "b"), "m")
    last = {"Grants": [], "Truncated": False}
    assert administration.parse_list_grants(body(last)) == administration.Grants((), None)
    assert administration.parse_list_grants(body({"Grants": []})) == administration.Grants((), None)


@pytest.mark.parametrize(
    "change",
    [
        {"Grants": None},
        {"Grants": {}},
        {"Grants": ["a"]},
        {"Grants": [{}]},
        {"Grants": [{"GrantId": 7}]},
        {"Truncated": True},
        {"NextMarker": "m"},
        {"Truncated": 0},
        {"Truncated": "true", "NextMarker": "m"},
        {"Truncated": True, "NextMarker": "m" * (limits.GRANT_MARKER_MAX + 1)},
        {"Truncated": True, "NextMarker": 7},
    ],
)
def test_grants_that_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(UntrustedAnswerError):
        administration.parse_list_grants(body({"Grants": [], "Truncated": False, **change}))
