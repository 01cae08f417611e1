"""Each operation asks the key's policy for its own action, and for no other.

A key whose policy allows the administrator everything but one action refuses that operation; a key
whose policy allows one action alone lets that operation through.
"""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.emulator import running_emulator
from support.kms_calls import make_key, refused

from kmstool.emulator.kms import OPERATIONS
from kmstool.emulator.principals import (
    ADMIN_ARN,
    Principal,
    collect_principals,
    default_principals,
)

NOBODY_ARN = ADMIN_ARN.replace("admin", "nobody")
PEER = (
    ec.generate_private_key(ec.SECP256R1())
    .public_key()
    .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
)
# What each operation needs beside the key; KEY and BLOB stand for the key and a ciphertext of it.
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "CancelKeyDeletion": ("cancel_key_deletion", {"KeyId": "KEY"}),
    "CreateAlias": ("create_alias", {"AliasName": "alias/ALIAS", "TargetKeyId": "KEY"}),
    "CreateGrant": (
        "create_grant",
        {"KeyId": "KEY", "GranteePrincipal": ADMIN_ARN, "Operations": ["Decrypt"]},
    ),
    "Decrypt": ("decrypt", {"CiphertextBlob": "BLOB"}),
    "DeriveSharedSecret": (
        "derive_shared_secret",
        {"KeyId": "KEY", "KeyAgreementAlgorithm": "ECDH", "PublicKey": PEER},
    ),
    "DescribeKey": ("describe_key", {"KeyId": "KEY"}),
    "DisableKey": ("disable_key", {"KeyId": "KEY"}),
    "EnableKey": ("enable_key", {"KeyId": "KEY"}),
    "Encrypt": ("encrypt", {"KeyId": "KEY", "Plaintext": b"x"}),
    "GenerateDataKey": ("generate_data_key", {"KeyId": "KEY", "KeySpec": "AES_256"}),
    "GenerateDataKeyPair": (
        "generate_data_key_pair",
        {"KeyId": "KEY", "KeyPairSpec": "ECC_NIST_P256"},
    ),
    "GenerateDataKeyPairWithoutPlaintext": (
        "generate_data_key_pair_without_plaintext",
        {"KeyId": "KEY", "KeyPairSpec": "ECC_NIST_P256"},
    ),
    "GenerateDataKeyWithoutPlaintext": (
        "generate_data_key_without_plaintext",
        {"KeyId": "KEY", "KeySpec": "AES_256"},
    ),
    "GetKeyPolicy": ("get_key_policy", {"KeyId": "KEY"}),
    "GetPublicKey": ("get_public_key", {"KeyId": "KEY"}),
    "ListGrants": ("list_grants", {"KeyId": "KEY"}),
    "ListKeyPolicies": ("list_key_policies", {"KeyId": "KEY"}),
    "PutKeyPolicy": (
        "put_key_policy",
        {"KeyId": "KEY", "Policy": "POLICY", "BypassPolicyLockoutSafetyCheck": True},
    ),
    "ReEncryptFrom": ("re_encrypt", {"CiphertextBlob": "BLOB", "DestinationKeyId": "OTHER"}),
    "ReEncryptTo": ("re_encrypt", {"CiphertextBlob": "FOREIGN", "DestinationKeyId": "KEY"}),
    "ScheduleKeyDeletion": ("schedule_key_deletion", {"KeyId": "KEY"}),
}
ALIAS_CHANGES = {
    "DeleteAlias": ("delete_alias", {"AliasName": "alias/ALIAS"}),
    "UpdateAlias": ("update_alias", {"AliasName": "alias/ALIAS", "TargetKeyId": "OTHER"}),
}
KEY_AGREEMENT = ("DeriveSharedSecret", "GetPublicKey")


def policy(*statements: tuple[str, str]) -> str:
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": effect,
                    "Principal": {"AWS": ADMIN_ARN},
                    "Action": action,
                    "Resource": "*",
                }
                for effect, action in statements
            ],
        }
    )


def prepare(kms: Any, action: str, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A key in the state that the operation needs, and the request with its words filled in."""
    agreement = {"KeySpec": "ECC_NIST_P256", "KeyUsage": "KEY_AGREEMENT"}
    arn = make_key(kms, **(agreement if action in KEY_AGREEMENT else {}))
    alias = f"alias/{arn.rpartition('/')[2]}"
    other = make_key(kms)
    words: dict[str, Any] = {
        "KEY": arn,
        "OTHER": other,
        "POLICY": policy(("Allow", "kms:*")),
        "alias/ALIAS": alias,
        "FOREIGN": kms.encrypt(KeyId=other, Plaintext=b"x")["CiphertextBlob"],
    }
    if action not in KEY_AGREEMENT:
        words["BLOB"] = kms.encrypt(KeyId=arn, Plaintext=b"x")["CiphertextBlob"]
    if action in ALIAS_CHANGES:
        kms.create_alias(AliasName=alias, TargetKeyId=arn)
    if action == "CancelKeyDeletion":
        kms.schedule_key_deletion(KeyId=arn)
    filled = {
        name: words.get(value, value) if isinstance(value, str) else value
        for name, value in request.items()
    }
    return arn, filled


def put(kms: Any, arn: str, text: str) -> None:
    kms.put_key_policy(KeyId=arn, Policy=text, BypassPolicyLockoutSafetyCheck=True)


@pytest.mark.parametrize("action", [*REQUESTS, *ALIAS_CHANGES])
def test_its_own_action(kms: Any, action: str) -> None:
    method, template = (REQUESTS | ALIAS_CHANGES)[action]
    arn, request = prepare(kms, action, template)
    put(kms, arn, policy(("Allow", "kms:*"), ("Deny", f"kms:{action}")))
    message = refused("AccessDeniedException", getattr(kms, method), **request)
    assert f"perform: kms:{action} on resource: {arn} because" in message

    arn, request = prepare(kms, action, template)
    put(kms, arn, policy(("Allow", f"kms:{action}")))
    getattr(kms, method)(**request)


def test_update_alias_asks_the_new_key_too(kms: Any) -> None:
    _, request = prepare(kms, "UpdateAlias", ALIAS_CHANGES["UpdateAlias"][1])
    put(kms, request["TargetKeyId"], policy(("Allow", "kms:*"), ("Deny", "kms:UpdateAlias")))
    refused("AccessDeniedException", kms.update_alias, **request)


def test_every_operation_on_a_key_is_in_the_tables() -> None:
    without_a_key = {"CreateKey", "GenerateRandom", "ListAliases", "ListKeys"}
    tables = {name.removesuffix("From").removesuffix("To") for name in (*REQUESTS, *ALIAS_CHANGES)}
    assert tables == set(OPERATIONS) - without_a_key


@pytest.mark.parametrize(
    ("old", "new"), [(":eu-west-1:", ":eu-west-2:"), ("arn:aws:", "arn:aws-cn:")]
)
def test_an_arn_of_elsewhere_is_not_found_although_its_id_is_ours(
    kms: Any, old: str, new: str
) -> None:
    arn = make_key(kms)
    assert old in arn
    refused("NotFoundException", kms.describe_key, KeyId=arn.replace(old, new))


def test_what_concerns_no_key_is_up_to_identity_policies() -> None:
    nobody = Principal(
        access_key_id="AKIANOBODY0000000000", secret_access_key="nobody", arn=NOBODY_ARN
    )
    principals = collect_principals([*default_principals().by_access_key.values(), nobody])
    with running_emulator(principals=principals) as emulator:
        kms = emulator.client(nobody)
        for method, request in (
            (kms.create_key, {}),
            (kms.list_keys, {}),
            (kms.list_aliases, {}),
            (kms.generate_random, {"NumberOfBytes": 1}),
        ):
            assert "kms:" in refused("AccessDeniedException", method, **request)
