"""Grants through botocore: what they give although no statement does, and what still stops them."""

import json
from typing import Any

import pytest
from support.emulator import running_emulator
from support.kms_calls import locked_policy, make_key, refused

from kmstool.emulator.principals import ADMIN_ARN, ENCLAVE_ARN

PCRS = {0: b"\x01" * 48, 1: b"\x02" * 48, 2: b"\x03" * 48}


def statement(effect: str, principal: str, action: str) -> dict[str, Any]:
    return {
        "Effect": effect,
        "Principal": {"AWS": principal},
        "Action": action,
        "Resource": "*",
    }


def test_a_grant_gets_around_the_conditions_of_a_policy() -> None:
    with running_emulator() as emulator:
        admin, enclave = emulator.admin_client(), emulator.enclave_client()
        policy = json.loads(locked_policy(PCRS))
        policy["Statement"].append(statement("Allow", ADMIN_ARN, "kms:CreateGrant"))
        arn = make_key(admin, Policy=json.dumps(policy))
        blob = admin.encrypt(KeyId=arn, Plaintext=b"sealed")["CiphertextBlob"]
        refused("AccessDeniedException", enclave.decrypt, CiphertextBlob=blob)

        made = admin.create_grant(
            KeyId=arn, GranteePrincipal=ENCLAVE_ARN, Operations=["Decrypt"], Name="around"
        )
        assert enclave.decrypt(CiphertextBlob=blob)["Plaintext"] == b"sealed"
        refused("AccessDeniedException", enclave.encrypt, KeyId=arn, Plaintext=b"x")
        refused("AccessDeniedException", enclave.generate_data_key, KeyId=arn, KeySpec="AES_256")

        policy["Statement"].append(statement("Allow", ADMIN_ARN, "kms:ListGrants"))
        admin.put_key_policy(KeyId=arn, Policy=json.dumps(policy))
        (listed,) = admin.list_grants(KeyId=arn)["Grants"]
        assert listed["GrantId"] == made["GrantId"]
        assert (listed["GranteePrincipal"], listed["Operations"], listed["Name"]) == (
            ENCLAVE_ARN,
            ["Decrypt"],
            "around",
        )

        policy["Statement"].append(statement("Deny", ENCLAVE_ARN, "kms:Decrypt"))
        admin.put_key_policy(KeyId=arn, Policy=json.dumps(policy))
        refused("AccessDeniedException", enclave.decrypt, CiphertextBlob=blob)


def test_grants_are_listed_in_pages_and_by_id(kms: Any) -> None:
    arn = make_key(kms)
    request = {"KeyId": arn, "GranteePrincipal": ENCLAVE_ARN, "Operations": ["Decrypt"]}
    made = sorted(kms.create_grant(**request)["GrantId"] for _ in range(3))
    first = kms.list_grants(KeyId=arn, Limit=2)
    rest = kms.list_grants(KeyId=arn, Limit=2, Marker=first["NextMarker"])
    assert [one["GrantId"] for one in first["Grants"] + rest["Grants"]] == made
    assert (first["Truncated"], rest["Truncated"]) == (True, False)
    (one,) = kms.list_grants(KeyId=arn, GrantId=made[1])["Grants"]
    assert one["GrantId"] == made[1]
    assert kms.list_grants(KeyId=arn, GranteePrincipal=ADMIN_ARN)["Grants"] == []


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("ValidationException", {"GranteePrincipal": "somebody"}),
        ("UnsupportedOperationException", {"Constraints": {"EncryptionContextEquals": {"a": "b"}}}),
        ("DryRunOperationException", {"DryRun": True}),
    ],
)
def test_what_create_grant_refuses(kms: Any, code: str, change: dict[str, Any]) -> None:
    arn = make_key(kms)
    request = {"GranteePrincipal": ENCLAVE_ARN, "Operations": ["Decrypt"], **change}
    refused(code, kms.create_grant, KeyId=arn, **request)
    assert kms.list_grants(KeyId=arn)["Grants"] == []
