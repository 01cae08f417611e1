"""KMS' JSON 1.1 protocol for keys as such: requests to make and look at them, answers from them.

The sibling of `protocol.py`, which has the operations that use keys. Requests are held to KMS' own
limits (a test compares each with botocore's model of the service); answers are read strictly.
No answer here holds a secret, and none is attested: they are worth what TLS to KMS is worth.
Never: a socket, a credential. Source: AWS KMS API Reference, the five operations.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from kmstool.arn import KeyArn, parse_key_arn
from kmstool.errors import SettingError, UntrustedAnswerError
from kmstool.limits import (
    GRANT_MARKER_MAX,
    HTTP_BODY_MAX,
    KEY_ID_MAX,
    POLICY_MAX,
    PUBLIC_KEY_MAX,
)
from kmstool.protocol import AnswerReader
from kmstool.strict_json import read_object

POLICY_NAME: Final = "default"  # the only one that a key has
_GRANTS_PAGE: Final = 100  # the most that ListGrants gives at once


class AdminOperation(StrEnum):
    """The operations on keys as such that kmstool asks for, by the API's own names."""

    CREATE_KEY = "CreateKey"
    DESCRIBE_KEY = "DescribeKey"
    GET_KEY_POLICY = "GetKeyPolicy"
    GET_PUBLIC_KEY = "GetPublicKey"
    LIST_GRANTS = "ListGrants"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyMetadata:
    """What KMS says of a key.

    Attributes:
        key: its ARN; account and key id agree with it.
        key_spec, key_usage, origin, key_state, key_manager: as KMS names them.
        multi_region: whether it can be replicated.
    """

    key: KeyArn
    key_spec: str
    key_usage: str
    origin: str
    key_state: str
    key_manager: str
    multi_region: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """A public key of KMS': SubjectPublicKeyInfo DER, 1 to 8,192 bytes, not looked into."""

    key: KeyArn
    public_key: bytes
    key_spec: str
    key_usage: str


@dataclass(frozen=True, slots=True)
class Grants:
    """One page of a key's grants: their ids, and the marker of the next page or None."""

    grant_ids: tuple[str, ...]
    next_marker: str | None


# --- Requests ----------------------------------------------------------------------------------


def build_create_key(*, key_spec: str, key_usage: str, policy: str) -> bytes:
    """The body of a CreateKey request for a key of one region, of KMS' own material.

    `BypassPolicyLockoutSafetyCheck` is set: the check refuses policies that nobody can change, and
    such a policy is what is wanted here.

    Raises:
        SettingError: a value is outside KMS' limits.
    """
    if not 1 <= len(policy.encode("utf-8", "replace")) <= POLICY_MAX:
        raise SettingError(f"the policy does not have 1 to {POLICY_MAX} bytes")
    return _finish(
        {
            "KeySpec": key_spec,
            "KeyUsage": key_usage,
            "Origin": "AWS_KMS",
            "MultiRegion": False,
            "Policy": policy,
            "BypassPolicyLockoutSafetyCheck": True,
        }
    )


def build_describe_key(key: KeyArn) -> bytes:
    """The body of a DescribeKey request."""
    return _finish({"KeyId": str(key)})


def build_get_key_policy(key: KeyArn) -> bytes:
    """The body of a GetKeyPolicy request."""
    return _finish({"KeyId": str(key), "PolicyName": POLICY_NAME})


def build_get_public_key(key: KeyArn) -> bytes:
    """The body of a GetPublicKey request."""
    return _finish({"KeyId": str(key)})


def build_list_grants(key: KeyArn, *, marker: str | None = None) -> bytes:
    """The body of a ListGrants request; `marker` is what the page before gave."""
    body: dict[str, object] = {"KeyId": str(key), "Limit": _GRANTS_PAGE}
    if marker is not None:
        body["Marker"] = marker
    return _finish(body)


def _finish(body: Mapping[str, object]) -> bytes:
    return json.dumps(body, separators=(",", ":"), allow_nan=False).encode("ascii")


# --- Answers -----------------------------------------------------------------------------------


def parse_create_key(body: bytes) -> KeyMetadata:
    """Reads the answer to CreateKey. Raises: UntrustedAnswerError."""
    return _metadata(AdminOperation.CREATE_KEY, body)


def parse_describe_key(body: bytes) -> KeyMetadata:
    """Reads the answer to DescribeKey. Raises: UntrustedAnswerError."""
    return _metadata(AdminOperation.DESCRIBE_KEY, body)


def parse_get_key_policy(body: bytes) -> str:
    """Reads the answer to GetKeyPolicy: the policy's text, 1 to 32,768 characters.

    Raises: UntrustedAnswerError.
    """
    members, reader = _open(AdminOperation.GET_KEY_POLICY, body)
    if reader.text("PolicyName") not in (None, POLICY_NAME):
        reader.refuse("is of another policy than the one that was asked for")
    policy = members.get("Policy")
    if not isinstance(policy, str) or not 1 <= len(policy) <= POLICY_MAX:
        reader.refuse(f"has no Policy of 1 to {POLICY_MAX} characters")
    return policy


def parse_get_public_key(body: bytes) -> PublicKey:
    """Reads the answer to GetPublicKey. Raises: UntrustedAnswerError."""
    _, reader = _open(AdminOperation.GET_PUBLIC_KEY, body)
    return PublicKey(
        key=_arn(reader, "KeyId"),
        public_key=reader.needed_blob("PublicKey", PUBLIC_KEY_MAX),
        key_spec=_needed(reader, "KeySpec"),
        key_usage=_needed(reader, "KeyUsage"),
    )


def parse_list_grants(body: bytes) -> Grants:
    """Reads one page of the answer to ListGrants. Raises: UntrustedAnswerError."""
    members, reader = _open(AdminOperation.LIST_GRANTS, body)
    grants = members.get("Grants")
    if not isinstance(grants, list) or not all(isinstance(one, dict) for one in grants):
        reader.refuse("has no list of Grants")
    truncated = members.get("Truncated", False)
    marker = reader.text("NextMarker", GRANT_MARKER_MAX)
    if not isinstance(truncated, bool) or truncated is not (marker is not None):
        reader.refuse("has a Truncated that does not fit its NextMarker")
    ids = tuple(_needed(AnswerReader(AdminOperation.LIST_GRANTS, one), "GrantId") for one in grants)
    return Grants(ids, marker)


def _metadata(operation: AdminOperation, body: bytes) -> KeyMetadata:
    members, outer = _open(operation, body)
    inner = members.get("KeyMetadata")
    if not isinstance(inner, dict):
        outer.refuse("has no KeyMetadata")
    reader = AnswerReader(operation, inner)
    key = _arn(reader, "Arn")
    if reader.text("AWSAccountId", needed=True) != key.account_id:
        reader.refuse("has an AWSAccountId that is not the one in its Arn")
    if reader.text("KeyId", KEY_ID_MAX, needed=True) != key.key_id:
        reader.refuse("has a KeyId that is not the one in its Arn")
    # Missing means False in KMS' model; here the answer has to say so.
    multi_region = inner.get("MultiRegion")
    if not isinstance(multi_region, bool):
        reader.refuse("has no MultiRegion")
    return KeyMetadata(
        key=key,
        key_spec=_needed(reader, "KeySpec"),
        key_usage=_needed(reader, "KeyUsage"),
        origin=_needed(reader, "Origin"),
        key_state=_needed(reader, "KeyState"),
        key_manager=_needed(reader, "KeyManager"),
        multi_region=multi_region,
    )


def _open(operation: AdminOperation, body: bytes) -> tuple[dict[str, object], AnswerReader]:
    members, problem = read_object(body, HTTP_BODY_MAX)
    if members is None:
        raise UntrustedAnswerError(f"the answer to {operation} {problem}")
    return members, AnswerReader(operation, members)


def _needed(reader: AnswerReader, name: str) -> str:
    text = reader.text(name, needed=True)
    assert text is not None  # noqa: S101 - for the type checker: it was needed
    return text


def _arn(reader: AnswerReader, name: str) -> KeyArn:
    text = reader.text(name, KEY_ID_MAX, needed=True)
    try:
        return parse_key_arn(text or "")
    except SettingError:
        reader.refuse(f"has a {name} that is not the ARN of a key")
