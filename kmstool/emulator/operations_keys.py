"""Operations on keys as such: make, describe, list, enable, disable, delete, and their policies."""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from kmstool.emulator.authorisation import check_lockout, check_policy, default_policy
from kmstool.emulator.call import Call, check_not_pending_deletion
from kmstool.emulator.keys import (
    ENCRYPT_DECRYPT,
    KEY_AGREEMENT,
    SYMMETRIC,
    Key,
    choose_usage,
    make_material,
    new_key_id,
)
from kmstool.emulator.refusal import Refusal, invalid
from kmstool.emulator.validation import Parameters

_DAY = 86_400  # seconds
_PENDING_DAYS = 30  # KMS' default waiting period
_TAGS_MAX = 50
_POLICY_NAME = "default"  # the only one that KMS has
_Item = TypeVar("_Item")


def create_key(call: Call) -> Parameters:
    """CreateKey."""
    parameters = call.parameters
    call.authorise_identity("*")
    _refuse_what_is_not_emulated(parameters)
    _check_tags(parameters.get("Tags", []))
    if "KeySpec" in parameters and "CustomerMasterKeySpec" in parameters:
        raise invalid("You cannot specify KeySpec and CustomerMasterKeySpec in the same request.")
    spec = parameters.get("KeySpec") or parameters.get("CustomerMasterKeySpec") or SYMMETRIC
    usage = choose_usage(spec, parameters.get("KeyUsage"))
    policy = parameters.get("Policy") or default_policy(call.partition, call.account_id)
    check_policy(policy)
    key_id = new_key_id()
    key = Key(
        key_id=key_id,
        partition=call.partition,
        region=call.region,
        account_id=call.account_id,
        spec=spec,
        usage=usage,
        description=parameters.get("Description", ""),
        created=round(call.now, 3),
        policy=policy,
        material=b"",
        material_id=None,
    )
    if not parameters.get("BypassPolicyLockoutSafetyCheck"):
        check_lockout(call.principal, key, policy)
    key = replace(key, material=make_material(spec), material_id=_material_id(spec))
    call.store.put_key(key)
    call.key_arn = key.arn
    return {"KeyMetadata": key.metadata()}


def describe_key(call: Call) -> Parameters:
    """DescribeKey."""
    key = call.find_key(call.parameters["KeyId"])
    call.authorise(key)
    return {"KeyMetadata": key.metadata()}


def list_keys(call: Call) -> Parameters:
    """ListKeys."""
    call.authorise_identity("*")
    return paginate(
        call,
        call.store.keys(call.account_id, call.now),
        name=lambda key: key.key_id,
        default=100,
        member="Keys",
        write=lambda key: {"KeyId": key.key_id, "KeyArn": key.arn},
    )


def get_public_key(call: Call) -> Parameters:
    """GetPublicKey."""
    key = call.find_key(call.parameters["KeyId"])
    call.authorise(key)
    if key.is_symmetric:
        raise Refusal(
            "UnsupportedOperationException", f"{key.arn} is symmetric and has no public key."
        )
    answer: Parameters = {
        "KeyId": key.arn,
        "PublicKey": key.public_key_der(),
        "CustomerMasterKeySpec": key.spec,
        "KeySpec": key.spec,
        "KeyUsage": key.usage,
    }
    if key.usage == ENCRYPT_DECRYPT:
        answer["EncryptionAlgorithms"] = key.encryption_algorithms
    if key.usage == KEY_AGREEMENT:
        answer["KeyAgreementAlgorithms"] = ["ECDH"]
    return answer


def get_key_policy(call: Call) -> Parameters:
    """GetKeyPolicy."""
    key = call.find_own_key(call.parameters["KeyId"])
    call.authorise(key)
    _check_policy_name(call)
    return {"Policy": key.policy, "PolicyName": _POLICY_NAME}


def put_key_policy(call: Call) -> Parameters:
    """PutKeyPolicy."""
    key = call.find_own_key(call.parameters["KeyId"])
    bypass = bool(call.parameters.get("BypassPolicyLockoutSafetyCheck"))
    call.authorise(key, extra={"kms:BypassPolicyLockoutSafetyCheck": str(bypass).lower()})
    _check_policy_name(call)
    policy = call.parameters["Policy"]
    check_policy(policy)
    if not bypass:
        check_lockout(call.principal, key, policy)
    call.store.put_key(replace(key, policy=policy))
    return {}


def list_key_policies(call: Call) -> Parameters:
    """ListKeyPolicies."""
    key = call.find_own_key(call.parameters["KeyId"])
    call.authorise(key)
    return {"PolicyNames": [_POLICY_NAME], "Truncated": False}


def enable_key(call: Call) -> Parameters:
    """EnableKey."""
    key = call.find_own_key(call.parameters["KeyId"])
    call.authorise(key)
    check_not_pending_deletion(key)
    call.store.put_key(replace(key, state="Enabled"))
    return {}


def disable_key(call: Call) -> Parameters:
    """DisableKey."""
    key = call.find_own_key(call.parameters["KeyId"])
    call.authorise(key)
    check_not_pending_deletion(key)
    call.store.put_key(replace(key, state="Disabled"))
    return {}


def schedule_key_deletion(call: Call) -> Parameters:
    """ScheduleKeyDeletion."""
    key = call.find_own_key(call.parameters["KeyId"])
    days = call.parameters.get("PendingWindowInDays", _PENDING_DAYS)
    call.authorise(key, extra={"kms:ScheduleKeyDeletionPendingWindowInDays": str(days)})
    check_not_pending_deletion(key)
    if not 7 <= days <= 30:
        raise invalid(f"PendingWindowInDays is {days}: it has to be between 7 and 30")
    deletion = round(call.now + days * _DAY, 3)
    call.store.put_key(replace(key, state="PendingDeletion", deletion=deletion, pending_days=days))
    return {
        "KeyId": key.arn,
        "DeletionDate": deletion,
        "KeyState": "PendingDeletion",
        "PendingWindowInDays": days,
    }


def cancel_key_deletion(call: Call) -> Parameters:
    """CancelKeyDeletion: the key is disabled afterwards, as in KMS."""
    key = call.find_own_key(call.parameters["KeyId"])
    call.authorise(key)
    if key.state != "PendingDeletion":
        raise Refusal("KMSInvalidStateException", f"{key.arn} is not pending deletion.")
    call.store.put_key(replace(key, state="Disabled", deletion=None, pending_days=None))
    return {"KeyId": key.arn}


def paginate(
    call: Call,
    items: Sequence[_Item],
    *,
    name: Callable[[_Item], str],
    default: int,
    member: str,
    write: Callable[[_Item], Parameters],
) -> Parameters:
    """One page of a list that is sorted by `name`; the marker is the last name of the page before.

    Raises:
        Refusal: `InvalidMarkerException`.
    """
    limit = call.parameters.get("Limit", default)
    marker = call.parameters.get("Marker")
    if marker is not None:
        try:
            last = base64.b64decode(marker, validate=True).decode()
        except (binascii.Error, ValueError):
            raise Refusal("InvalidMarkerException", "The marker is not valid.") from None
        items = [item for item in items if name(item) > last]
    page = items[:limit]
    answer: Parameters = {member: [write(item) for item in page], "Truncated": len(items) > limit}
    if answer["Truncated"]:
        answer["NextMarker"] = base64.b64encode(name(page[-1]).encode()).decode()
    return answer


def _check_policy_name(call: Call) -> None:
    if call.parameters.get("PolicyName", _POLICY_NAME) != _POLICY_NAME:
        raise Refusal("NotFoundException", "No such policy exists: a key has one named 'default'")


def _material_id(spec: str) -> str | None:
    # A name, not derived from the material: 64 hexadecimal digits of two fresh UUIDs.
    return (new_key_id() + new_key_id()).replace("-", "") if spec == SYMMETRIC else None


def _refuse_what_is_not_emulated(parameters: Parameters) -> None:
    for member, allowed in (
        ("Origin", "AWS_KMS"),
        ("MultiRegion", False),
        ("CustomKeyStoreId", None),
        ("XksKeyId", None),
    ):
        if parameters.get(member, allowed) != allowed:
            raise Refusal(
                "UnsupportedOperationException",
                f"The emulator makes no keys with {member} {parameters[member]}",
            )


def _check_tags(tags: list[dict[str, Any]]) -> None:
    names = [tag["TagKey"] for tag in tags]
    if len(names) > _TAGS_MAX:
        raise Refusal("LimitExceededException", f"A key has at most {_TAGS_MAX} tags")
    if len(set(names)) != len(names):
        raise Refusal("TagException", "Duplicate tag keys")
    if any(name.lower().startswith("aws:") for name in names):
        raise Refusal("TagException", "Tag keys that start with 'aws:' are reserved")
