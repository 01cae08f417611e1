"""KMS' actions, sorted by what they mean for a locked key, and which of them a statement covers.

Source: AWS KMS Developer Guide, "Condition keys for attested platforms", "Actions, resources and
condition keys"; the operations that take `Recipient` in KMS' service model. A test compares the
lists with the model. ReEncrypt is authorised as two actions.
"""

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from kmstool.errors import SettingError
from kmstool.policy.operators import glob_matches
from kmstool.policy.parse import Effect, Policy, PrincipalKind, Statement
from kmstool.policy.printable import shown

# The only ones for which a request has condition keys of an attestation.
RECIPIENT_ACTIONS: Final = (
    "kms:Decrypt",
    "kms:DeriveSharedSecret",
    "kms:GenerateDataKey",
    "kms:GenerateDataKeyPair",
    "kms:GenerateRandom",
)
# Of these, what opens what others have sealed.
OPENING_ACTIONS: Final = ("kms:Decrypt", "kms:DeriveSharedSecret")
# No attestation is asked for in any of these, and each leads to the plaintext.
WAYS_AROUND: Final[Mapping[str, str]] = MappingProxyType(
    {
        "kms:CreateGrant": "gives Decrypt to anybody, and a grant knows nothing of attestation",
        "kms:Decapsulate": "opens what was encapsulated, and takes no attestation document",
        "kms:ImportKeyMaterial": "puts in key material that somebody knows outside of KMS",
        "kms:PutKeyPolicy": "replaces the policy, with one that lets anybody in",
        "kms:ReEncryptFrom": "moves a ciphertext under a key of one's own, which then opens it",
        "kms:ReplicateKey": "makes a replica with a policy of its own",
        "kms:UpdatePrimaryRegion": "moves the primary key, and so who may replicate it",
    }
)
# Without an attestation these let somebody seal to the key; nothing is opened by them.
SEALING_ACTIONS: Final = (
    "kms:Encrypt",
    "kms:GenerateDataKey",
    "kms:GenerateDataKeyPair",
    "kms:GenerateDataKeyPairWithoutPlaintext",
    "kms:GenerateDataKeyWithoutPlaintext",
    "kms:ReEncryptTo",
)
# The rest of what a key policy decides.
OTHER_ACTIONS: Final = (
    "kms:CancelKeyDeletion",
    "kms:CreateAlias",
    "kms:DeleteAlias",
    "kms:DeleteImportedKeyMaterial",
    "kms:DescribeKey",
    "kms:DisableKey",
    "kms:DisableKeyRotation",
    "kms:EnableKey",
    "kms:EnableKeyRotation",
    "kms:Encapsulate",
    "kms:GenerateMac",
    "kms:GetKeyLastUsage",
    "kms:GetKeyPolicy",
    "kms:GetKeyRotationStatus",
    "kms:GetParametersForImport",
    "kms:GetPublicKey",
    "kms:ListGrants",
    "kms:ListKeyPolicies",
    "kms:ListKeyRotations",
    "kms:ListResourceTags",
    "kms:RetireGrant",
    "kms:RevokeGrant",
    "kms:RotateKeyOnDemand",
    "kms:ScheduleKeyDeletion",
    "kms:Sign",
    "kms:TagResource",
    "kms:UntagResource",
    "kms:UpdateAlias",
    "kms:UpdateKeyDescription",
    "kms:Verify",
    "kms:VerifyMac",
)
# Decided without any key's policy.
KEYLESS_ACTIONS: Final = (
    "kms:ConnectCustomKeyStore",
    "kms:CreateCustomKeyStore",
    "kms:CreateKey",
    "kms:DeleteCustomKeyStore",
    "kms:DescribeCustomKeyStores",
    "kms:DisconnectCustomKeyStore",
    "kms:ListAliases",
    "kms:ListKeys",
    "kms:ListRetirableGrants",
    "kms:UpdateCustomKeyStore",
)

KNOWN_ACTIONS: Final = frozenset(
    (*RECIPIENT_ACTIONS, *WAYS_AROUND, *SEALING_ACTIONS, *OTHER_ACTIONS, *KEYLESS_ACTIONS)
)


def action_of(name: str) -> str:
    """The action that a key policy decides an operation by: `kms:Decrypt` of `Decrypt`.

    Args:
        name: as the API has it, or the AWS CLI (`generate-data-key`), or with `kms:`, whatever its
            case. With `kms:` one that is not known here is taken as it is.

    Raises:
        SettingError: KMS has no such operation, or no key policy decides it.
    """
    plain = name.removeprefix("kms:").replace("-", "").lower()
    if action := _BY_NAME.get(plain):
        return action
    if plain in _KEYLESS:
        raise SettingError(
            f"{shown(name)} is of no key, so no key policy decides it",
            hint="the IAM policies of the caller do",
        )
    if name.startswith("kms:"):
        return name
    near = [_BY_NAME[one][4:] for one in difflib.get_close_matches(plain, _BY_NAME, n=1)]
    near = ["ReEncryptFrom", "ReEncryptTo"] if plain == "reencrypt" else near
    did_you_mean = f"did you mean {' or '.join(near)}? " if near else ""
    raise SettingError(
        f"{shown(name)} is not an operation of KMS that is known here",
        hint=f"{did_you_mean}one that is newer is taken as kms:NAME",
    )


_KEYLESS: Final = frozenset(
    action[4:].lower() for action in (*KEYLESS_ACTIONS, "kms:GenerateRandom")
)
_BY_NAME: Final[Mapping[str, str]] = MappingProxyType(
    {
        action[4:].lower(): action
        for action in (*RECIPIENT_ACTIONS, *WAYS_AROUND, *SEALING_ACTIONS, *OTHER_ACTIONS)
        if action != "kms:GenerateRandom"
    }
)


def takes_recipient(action: str) -> bool:
    """Whether a request for the action, in any letter case, can carry an attestation document."""
    return action.lower() in _TAKES_RECIPIENT


_TAKES_RECIPIENT: Final = frozenset(map(str.lower, RECIPIENT_ACTIONS))


def pattern_covers(pattern: str, action: str) -> bool:
    """Whether an element of `Action` matches an action; case-insensitive, as in IAM."""
    return glob_matches(pattern.lower(), action.lower())


def has_wildcard(pattern: str) -> bool:
    return "*" in pattern or "?" in pattern


def covers(statement: Statement, action: str) -> bool:
    """Whether the statement speaks of the action; one without Action or Resource has no effect."""
    if statement.actions is None or statement.resources is None:
        return False
    named = any(pattern_covers(pattern, action) for pattern in statement.actions)
    return named is not statement.not_action


def is_about_anybody(statement: Statement) -> bool:
    """Whether the statement speaks of every caller, and of this key whatever its ARN."""
    anyone = any(one.kind is PrincipalKind.ANYONE for one in statement.principals)
    everything = statement.resources is not None and "*" in statement.resources
    return anyone and everything and not (statement.not_principal or statement.not_resource)


def is_denied_to_all(policy: Policy, action: str) -> bool:
    """Whether a Deny without any condition takes the action from everybody."""
    return any(
        one.effect is Effect.DENY
        and not one.conditions
        and is_about_anybody(one)
        and covers(one, action)
        for one in policy.statements
    )
