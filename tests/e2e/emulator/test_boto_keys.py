"""An unmodified botocore client manages keys, aliases and policies.

Oracles: botocore signs, serialises and parses; cryptography reads public keys.
"""

import datetime
import json
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.emulator import RunningEmulator, running_emulator
from support.kms_calls import locked_policy, make_key, refused

from kmstool.emulator.kms import OPERATIONS
from kmstool.emulator.pcrs import label_pcrs
from kmstool.emulator.principals import (
    ADMIN_ARN,
    Principal,
    collect_principals,
    default_principals,
)


def test_every_operation_has_a_test_here() -> None:
    folder = Path(__file__).parent
    source = "".join(path.read_text("utf-8") for path in folder.glob("test_boto_*.py"))
    methods = {
        name: "".join(f"_{c.lower()}" if c.isupper() else c for c in name) for name in OPERATIONS
    }
    missing = [name for name, method in methods.items() if f".{method.lstrip('_')}(" not in source]
    assert missing == []


def test_create_and_describe_key(kms: Any) -> None:
    made = kms.create_key(Description="for a test", Tags=[{"TagKey": "a", "TagValue": "b"}])
    metadata = made["KeyMetadata"]
    assert metadata["KeySpec"] == "SYMMETRIC_DEFAULT"
    assert metadata["KeyState"] == "Enabled"
    assert metadata["Description"] == "for a test"
    assert metadata["EncryptionAlgorithms"] == ["SYMMETRIC_DEFAULT"]
    age = datetime.datetime.now(datetime.UTC) - metadata["CreationDate"]
    assert abs(age.total_seconds()) < 60
    for name in (metadata["KeyId"], metadata["Arn"]):
        assert kms.describe_key(KeyId=name)["KeyMetadata"] == metadata


def test_list_keys_page_by_page(kms: Any) -> None:
    made = {make_key(kms) for _ in range(3)}
    pages = list(kms.get_paginator("list_keys").paginate(PaginationConfig={"PageSize": 2}))
    assert len(pages) > 1
    assert all(len(page["Keys"]) <= 2 for page in pages)
    found = [key["KeyArn"] for page in pages for key in page["Keys"]]
    assert made <= set(found)
    assert len(found) == len(set(found))
    assert kms.list_keys(Limit=1000)["Truncated"] is False


def test_wrong_marker(kms: Any) -> None:
    refused("InvalidMarkerException", kms.list_keys, Marker="!")


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"KeySpec": "RSA_2048"}, "ValidationException"),
        ({"KeySpec": "RSA_2048", "KeyUsage": "KEY_AGREEMENT"}, "ValidationException"),
        ({"KeySpec": "ECC_NIST_P256", "KeyUsage": "ENCRYPT_DECRYPT"}, "ValidationException"),
        ({"KeySpec": "RSA_2048", "KeyUsage": "SIGN_VERIFY"}, "UnsupportedOperationException"),
        (
            {"KeySpec": "ECC_SECG_P256K1", "KeyUsage": "SIGN_VERIFY"},
            "UnsupportedOperationException",
        ),
        ({"KeySpec": "ML_KEM_768"}, "ValidationException"),
        ({"KeySpec": "AES_512"}, "ValidationException"),
        ({"Origin": "EXTERNAL"}, "UnsupportedOperationException"),
        ({"MultiRegion": True}, "UnsupportedOperationException"),
        ({"CustomKeyStoreId": "cks-1"}, "UnsupportedOperationException"),
        (
            {"KeySpec": "SYMMETRIC_DEFAULT", "CustomerMasterKeySpec": "SYMMETRIC_DEFAULT"},
            "ValidationException",
        ),
        ({"Policy": "{}"}, "MalformedPolicyDocumentException"),
        ({"Policy": "x" * 32_769}, "LimitExceededException"),
        ({"Tags": [{"TagKey": "a", "TagValue": ""}] * 2}, "TagException"),
        ({"Tags": [{"TagKey": "aws:a", "TagValue": ""}]}, "TagException"),
        (
            {"Tags": [{"TagKey": f"k{n}", "TagValue": ""} for n in range(51)]},
            "LimitExceededException",
        ),
    ],
)
def test_keys_that_are_not_made(kms: Any, parameters: dict[str, Any], code: str) -> None:
    refused(code, kms.create_key, **parameters)


def test_public_keys(kms: Any) -> None:
    arn = make_key(kms, KeySpec="ECC_NIST_P384", KeyUsage="KEY_AGREEMENT")
    answer = kms.get_public_key(KeyId=arn)
    key = serialization.load_der_public_key(answer["PublicKey"])
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp384r1"
    assert answer["KeyAgreementAlgorithms"] == ["ECDH"]
    refused("UnsupportedOperationException", kms.get_public_key, KeyId=make_key(kms))


def test_key_policy(kms: Any) -> None:
    arn = make_key(kms)
    assert kms.list_key_policies(KeyId=arn)["PolicyNames"] == ["default"]
    default = json.loads(kms.get_key_policy(KeyId=arn)["Policy"])
    assert default["Statement"][0]["Principal"] == {"AWS": "arn:aws:iam::111122223333:root"}
    policy = locked_policy(label_pcrs())
    kms.put_key_policy(KeyId=arn, Policy=policy)
    assert kms.get_key_policy(KeyId=arn, PolicyName="default")["Policy"] == policy
    refused("NotFoundException", kms.get_key_policy, KeyId=arn, PolicyName="other")


def test_a_policy_that_locks_out_its_author(kms: Any) -> None:
    arn = make_key(kms)
    policy = (
        locked_policy(label_pcrs()).replace('"kms:*Key*", ', "").replace('"kms:PutKeyPolicy", ', "")
    )
    refused("MalformedPolicyDocumentException", kms.put_key_policy, KeyId=arn, Policy=policy)
    refused("MalformedPolicyDocumentException", kms.create_key, Policy=policy)
    made = make_key(kms, Policy=policy, BypassPolicyLockoutSafetyCheck=True)
    refused("AccessDeniedException", kms.put_key_policy, KeyId=made, Policy=policy)
    kms.put_key_policy(KeyId=arn, Policy=policy, BypassPolicyLockoutSafetyCheck=True)
    refused("AccessDeniedException", kms.put_key_policy, KeyId=arn, Policy=policy)


def test_aliases(kms: Any, emulator: RunningEmulator) -> None:
    first, second = make_key(kms), make_key(kms)
    kms.create_alias(AliasName="alias/app", TargetKeyId=first)
    alias_arn = f"arn:aws:kms:{emulator.region}:111122223333:alias/app"
    for name in ("alias/app", alias_arn):
        assert kms.describe_key(KeyId=name)["KeyMetadata"]["Arn"] == first
        assert kms.encrypt(KeyId=name, Plaintext=b"x")["KeyId"] == first
    refused("AlreadyExistsException", kms.create_alias, AliasName="alias/app", TargetKeyId=second)
    kms.update_alias(AliasName="alias/app", TargetKeyId=second)
    (entry,) = kms.list_aliases(KeyId=second)["Aliases"]
    assert entry["AliasArn"] == alias_arn
    assert entry["TargetKeyId"] == second.rpartition("/")[2]
    assert kms.list_aliases(KeyId=first)["Aliases"] == []
    kms.delete_alias(AliasName="alias/app")
    refused("NotFoundException", kms.delete_alias, AliasName="alias/app")
    refused("NotFoundException", kms.update_alias, AliasName="alias/app", TargetKeyId=first)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("app", "ValidationException"),
        ("alias/", "ValidationException"),
        ("alias/aws/app", "InvalidAliasNameException"),
        ("alias/a b", "ValidationException"),
    ],
)
def test_alias_names(kms: Any, name: str, code: str) -> None:
    refused(code, kms.create_alias, AliasName=name, TargetKeyId=make_key(kms))


def test_alias_moves_only_to_a_key_of_its_kind(kms: Any) -> None:
    kms.create_alias(AliasName="alias/kind", TargetKeyId=make_key(kms))
    other = make_key(kms, KeySpec="ECC_NIST_P256", KeyUsage="KEY_AGREEMENT")
    refused("ValidationException", kms.update_alias, AliasName="alias/kind", TargetKeyId=other)
    refused(
        "ValidationException",
        kms.create_alias,
        AliasName="alias/of-alias",
        TargetKeyId="alias/kind",
    )


def test_key_states(kms: Any) -> None:
    arn = make_key(kms)
    blob = kms.encrypt(KeyId=arn, Plaintext=b"x")["CiphertextBlob"]
    kms.disable_key(KeyId=arn)
    for call, request in (
        (kms.encrypt, {"KeyId": arn, "Plaintext": b"x"}),
        (kms.decrypt, {"CiphertextBlob": blob}),
        (kms.generate_data_key, {"KeyId": arn, "KeySpec": "AES_256"}),
    ):
        refused("DisabledException", call, **request)
    assert kms.describe_key(KeyId=arn)["KeyMetadata"]["Enabled"] is False
    kms.enable_key(KeyId=arn)
    assert kms.decrypt(CiphertextBlob=blob)["Plaintext"] == b"x"

    answer = kms.schedule_key_deletion(KeyId=arn, PendingWindowInDays=7)
    assert answer["KeyState"] == "PendingDeletion"
    assert kms.describe_key(KeyId=arn)["KeyMetadata"]["DeletionDate"] == answer["DeletionDate"]
    for call, request in (
        (kms.decrypt, {"CiphertextBlob": blob}),
        (kms.enable_key, {"KeyId": arn}),
        (kms.disable_key, {"KeyId": arn}),
        (kms.schedule_key_deletion, {"KeyId": arn}),
        (kms.create_alias, {"AliasName": "alias/late", "TargetKeyId": arn}),
    ):
        refused("KMSInvalidStateException", call, **request)
    assert kms.cancel_key_deletion(KeyId=arn)["KeyId"] == arn
    assert kms.describe_key(KeyId=arn)["KeyMetadata"]["KeyState"] == "Disabled"
    refused("KMSInvalidStateException", kms.cancel_key_deletion, KeyId=arn)
    refused("ValidationException", kms.schedule_key_deletion, KeyId=arn, PendingWindowInDays=31)


@pytest.mark.parametrize(
    "name",
    [
        "1234abcd-12ab-34cd-56ef-1234567890ab",
        "alias/none",
        "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "arn:aws:kms:eu-west-1:111122223333:alias/none",
        "arn:nonsense",
    ],
)
def test_keys_that_do_not_exist(kms: Any, name: str) -> None:
    refused("NotFoundException", kms.describe_key, KeyId=name)


def test_some_operations_take_no_alias(kms: Any) -> None:
    refused("InvalidArnException", kms.disable_key, KeyId="alias/none")


def test_keys_and_aliases_of_another_account() -> None:
    other = Principal(
        access_key_id="AKIAOTHER00000000000",
        secret_access_key="other",
        arn="arn:aws:iam::444455556666:role/other",
        iam_allows=("kms:*",),
    )
    principals = collect_principals([*default_principals().by_access_key.values(), other])
    with running_emulator(principals=principals) as emulator:
        kms, theirs = emulator.admin_client(), emulator.client(other)
        arn = make_key(kms)
        assert theirs.list_keys()["Keys"] == []
        refused("NotFoundException", theirs.describe_key, KeyId=arn.rpartition("/")[2])
        refused("AccessDeniedException", theirs.describe_key, KeyId=arn)
        refused("NotFoundException", theirs.create_alias, AliasName="alias/x", TargetKeyId=arn)
        policy = json.loads(kms.get_key_policy(KeyId=arn)["Policy"])
        policy["Statement"][0]["Principal"]["AWS"] = [ADMIN_ARN, other.arn]
        kms.put_key_policy(KeyId=arn, Policy=json.dumps(policy))
        assert theirs.describe_key(KeyId=arn)["KeyMetadata"]["AWSAccountId"] == "111122223333"


def test_a_key_whose_waiting_period_is_over() -> None:
    # The signature's time has to fit the clock, so the store is asked as of later.
    with running_emulator() as emulator:
        kms = emulator.admin_client()
        arn = make_key(kms)
        kms.create_alias(AliasName="alias/gone", TargetKeyId=arn)
        kms.schedule_key_deletion(KeyId=arn, PendingWindowInDays=7)
        key = emulator.emulator.store.key(arn.rpartition("/")[2], time.time() + 7.1 * 86_400)
        assert key is None
        refused("NotFoundException", kms.describe_key, KeyId=arn)
        refused("NotFoundException", kms.delete_alias, AliasName="alias/gone")
