"""Key policies locked to images: written as canonical JSON, and recognised in any form of it.

A locked key has one Allow for each image (PCR0, PCR1, PCR2 and what else is named), one that lets
the account look at the key, and at most one for an administrator who may switch it off. There is
nothing else: whatever no statement allows is denied, to root as to anybody. So nobody has
PutKeyPolicy, CreateGrant, ReEncrypt, ReplicateKey, UpdatePrimaryRegion, ImportKeyMaterial or
Decapsulate, which are ways around conditions on attestation, and no pattern covers them.

Use is given to the principal `*` under `kms:CallerAccount`, not to a role: a policy stores a role
by its unique id, so a role made anew under its old name would be locked out for ever.

Never: evaluates (`evaluate.py`), or accepts a policy that says more than a locked one. What a
locked key leaves open stands in docs/explanation/keys-made-inside.md.
Source: AWS KMS Developer Guide, "Condition keys for attested platforms", "Key policies".
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha384
from types import MappingProxyType
from typing import Final, NamedTuple

from kmstool.errors import PolicyError, SettingError
from kmstool.limits import (
    NSM_PCR_COUNT_MAX,
    NSM_PCR_LENGTH,
    POLICY_IMAGES_MAX,
    POLICY_MAX,
)
from kmstool.policy.keys import folded, register_index
from kmstool.policy.parse import (
    Condition,
    Effect,
    Policy,
    Principal,
    PrincipalKind,
    Statement,
    parse_policy,
)
from kmstool.policy.printable import shown

IMAGE_PCRS: Final = (0, 1, 2)


class KeyKind(NamedTuple):
    """What a locked key of one KeySpec is for: its KeyUsage, and what an image may ask of it."""

    usage: str
    actions: tuple[str, ...]


_SYMMETRIC = KeyKind(
    "ENCRYPT_DECRYPT", ("kms:Decrypt", "kms:GenerateDataKey", "kms:GenerateDataKeyPair")
)
# Anybody encrypts with the public key, outside of KMS.
_RSA = KeyKind("ENCRYPT_DECRYPT", ("kms:Decrypt",))
_AGREEMENT = KeyKind("KEY_AGREEMENT", ("kms:DeriveSharedSecret",))

# Only the operations that take a Recipient can be locked, so signing and MAC keys are not here.
KEY_KINDS: Final[Mapping[str, KeyKind]] = MappingProxyType(
    {
        "ECC_NIST_P256": _AGREEMENT,
        "ECC_NIST_P384": _AGREEMENT,
        "ECC_NIST_P521": _AGREEMENT,
        "SYMMETRIC_DEFAULT": _SYMMETRIC,
        "RSA_2048": _RSA,
        "RSA_3072": _RSA,
        "RSA_4096": _RSA,
    }
)
# Nothing of these changes a key or uses it: what they answer is public or says that it is locked.
LOOK_ACTIONS: Final = ("kms:DescribeKey", "kms:GetKeyPolicy", "kms:GetPublicKey", "kms:ListGrants")
ADMINISTRATOR_ACTIONS: Final = (
    "kms:DescribeKey",
    "kms:DisableKey",
    "kms:GetKeyPolicy",
    "kms:ListGrants",
    "kms:ScheduleKeyDeletion",
)

_ACCOUNT = re.compile(r"[0-9]{12}")
_ADMINISTRATOR = re.compile(
    r"arn:aws[a-z-]*:iam::([0-9]{12}):(?:role|user)/[\w+=,.@/-]{1,576}", re.ASCII
)
_HEX = re.compile(rf"[0-9A-Fa-f]{{{2 * NSM_PCR_LENGTH}}}")


@dataclass(frozen=True, slots=True)
class Image:
    """What an enclave has to attest: PCR0, PCR1 and PCR2, and more where they are named.

    Attributes:
        pcrs: index (0..31) to 48 bytes; none is zero, as all three are in debug mode.

    Raises:
        SettingError: one of PCR0-2 is missing, or a register is zero, does not exist, or is not of
            48 bytes.
    """

    pcrs: Mapping[int, bytes]

    def __post_init__(self) -> None:
        check_registers(self.pcrs, needed=IMAGE_PCRS)
        object.__setattr__(self, "pcrs", MappingProxyType(dict(sorted(self.pcrs.items()))))

    def __hash__(self) -> int:
        return hash(tuple(self.pcrs.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedPolicy:
    """What a locked key lets whom do; `text` is its policy. Valid as soon as it exists.

    Attributes:
        account: 12 digits; callers of other accounts have nothing.
        key_spec: one of `KEY_KINDS`.
        images: at least one; kept sorted, so that one set of images has one text.
        administrator: the ARN of a role or user of the account, or None.

    Raises:
        SettingError: a value of another form, an image twice, or more than `POLICY_IMAGES_MAX`.
    """

    account: str
    key_spec: str
    images: tuple[Image, ...]
    administrator: str | None = None

    def __post_init__(self) -> None:
        if not _ACCOUNT.fullmatch(self.account):
            raise SettingError(
                f"{shown(self.account)} is not an account id", hint="an account id has 12 digits"
            )
        if self.key_spec not in KEY_KINDS:
            raise SettingError(
                f"a key of the spec {shown(self.key_spec)} cannot be locked to an image",
                hint="KMS looks at an attestation in operations that take a Recipient alone; they"
                " work with " + ", ".join(KEY_KINDS),
            )
        if not 1 <= len(self.images) <= POLICY_IMAGES_MAX:
            raise SettingError(
                f"{len(self.images)} images were named, and a locked key has"
                f" 1 to {POLICY_IMAGES_MAX}"
            )
        if len(set(self.images)) != len(self.images):
            raise SettingError("an image is named twice", hint="each needs to be named once")
        if self.administrator is not None:
            _check_administrator(self.administrator, self.account)
        ordered = sorted(self.images, key=lambda image: sorted(image.pcrs.items()))
        object.__setattr__(self, "images", tuple(ordered))
        if len(self.text) > POLICY_MAX:
            raise SettingError(
                f"the policy would have {len(self.text)} bytes, and KMS takes {POLICY_MAX}",
                hint="name fewer images, or fewer PCRs of each",
            )

    @property
    def text(self) -> str:
        """The policy as canonical JSON: names sorted, no white space, ASCII."""
        return canonical_policy(
            locked_statements(
                account=self.account,
                actions=KEY_KINDS[self.key_spec].actions,
                images=[image.pcrs for image in self.images],
                administrator=self.administrator,
            )
        )

    @property
    def sha384(self) -> bytes:
        """SHA-384 of `text`, 48 bytes."""
        return sha384(self.text.encode("ascii")).digest()


def read_locked_policy(text: str, *, key_spec: str) -> LockedPolicy:
    """Recognises a locked policy in whatever JSON says the same, as KMS may give it back.

    White space, the order of statements and names, a list of one in the place of its value, `"*"`
    for `{"AWS": "*"}`, Sids and the letter case of PCRs and condition keys may differ: they mean
    nothing to IAM. Anything else does.

    Args:
        key_spec: one of `KEY_KINDS`; which actions an image may have depends on it.

    Raises:
        PolicyError: it is not the policy of a key that is locked to images and nothing more.
        SettingError: `key_spec` is another.
    """
    found = parse_policy(text)
    try:
        locked = LockedPolicy(
            account=_the_account(found),
            key_spec=key_spec,
            images=tuple(filter(None, map(_image, found.statements))),
            administrator=_the_administrator(found),
        )
    except SettingError as error:
        if key_spec not in KEY_KINDS:
            raise
        raise PolicyError(f"the policy is not locked to images: {error}") from None
    wanted = [_meaning(one) for one in parse_policy(locked.text).statements]
    for statement in found.statements:
        if _meaning(statement) not in wanted:
            raise PolicyError(
                f"the policy is not locked to images: {statement.name} is none of a locked policy",
                hint="a locked policy has a statement for each image, one to look at the key, one"
                " for an administrator, and no others",
            )
        wanted.remove(_meaning(statement))
    if wanted:
        raise PolicyError(f"the policy lacks {len(wanted)} of a locked policy's statements")
    if found.version != "2012-10-17":
        raise PolicyError("the policy's Version is not 2012-10-17")
    return locked


def _check_administrator(text: str, account: str) -> None:
    match = _ADMINISTRATOR.fullmatch(text)
    if match is None:
        raise SettingError(
            f"the administrator {shown(text)} is not the ARN of a role or user",
            hint="write arn:aws:iam::ACCOUNT:role/NAME; the account's root would leave it to"
            " whatever IAM policies say",
        )
    if match[1] != account:
        raise SettingError(
            f"the administrator {shown(text)} is not of the account {account}",
            hint="whoever switches the key off should belong to the account that owns it",
        )


# --- What `design.py` writes of it too ----------------------------------------------------------


def check_registers(pcrs: Mapping[int, bytes], *, needed: Sequence[int]) -> None:
    """Raises `SettingError` where a register is missing, does not exist, or names nothing."""
    for index in needed:
        if index not in pcrs:
            raise SettingError(
                f"the image has no PCR{index}",
                hint="PCR0 alone does not name an image: give PCR0, PCR1 and PCR2",
            )
    for index, value in pcrs.items():
        if not 0 <= index < NSM_PCR_COUNT_MAX:
            raise SettingError(
                f"there is no PCR{index}", hint=f"PCRs are 0..{NSM_PCR_COUNT_MAX - 1}"
            )
        if len(value) != NSM_PCR_LENGTH:
            raise SettingError(
                f"PCR{index} has {len(value)} bytes",
                hint=f"a PCR has {NSM_PCR_LENGTH} bytes, {2 * NSM_PCR_LENGTH} hex digits",
            )
        if not any(value):
            raise SettingError(
                f"PCR{index} is zero",
                hint="every enclave in debug mode attests zeros in PCR0-2, and a register that"
                " nothing was measured into names nothing",
            )


def locked_statements(
    *,
    account: str,
    actions: Sequence[str],
    images: Sequence[Mapping[int, bytes]],
    administrator: str | None,
) -> list[dict[str, object]]:
    """The statements of a locked key's policy, from values that were checked."""
    caller = {"kms:CallerAccount": account}
    anybody = {"AWS": "*"}
    statements = [
        statement(
            f"Image{number}",
            anybody,
            actions,
            {
                "StringEquals": caller,
                "StringEqualsIgnoreCase": {
                    f"kms:RecipientAttestation:PCR{index}": value.hex()
                    for index, value in pcrs.items()
                },
            },
        )
        for number, pcrs in enumerate(images, 1)
    ]
    statements.append(statement("Look", anybody, LOOK_ACTIONS, {"StringEquals": caller}))
    if administrator is not None:
        who = {"AWS": administrator}
        statements.append(statement("Administrator", who, ADMINISTRATOR_ACTIONS, None))
    return statements


def statement(
    sid: str,
    principal: Mapping[str, str],
    actions: Sequence[str],
    condition: Mapping[str, object] | None,
    *,
    effect: Effect = Effect.ALLOW,
) -> dict[str, object]:
    """One statement about the key that the policy is of."""
    made: dict[str, object] = {
        "Sid": sid,
        "Effect": str(effect),
        "Principal": principal,
        "Action": list(actions),
        "Resource": "*",
    }
    return made if condition is None else made | {"Condition": condition}


def canonical_policy(statements: Sequence[Mapping[str, object]]) -> str:
    """A policy as canonical JSON: names sorted, no white space, ASCII."""
    return json.dumps(
        {"Statement": statements, "Version": "2012-10-17"},
        sort_keys=True,
        separators=(",", ":"),
    )


# --- Reading a policy back ----------------------------------------------------------------------
# What is taken out here is a guess: the policy made from it must mean the same, whole.


def _image(statement: Statement) -> Image | None:
    pcrs: dict[int, bytes] = {}
    for condition in statement.conditions:
        index, value = register_index(condition.key), condition.values[0]
        if index is not None and len(condition.values) == 1 and _HEX.fullmatch(value):
            pcrs[index] = bytes.fromhex(value)
    return Image(pcrs) if pcrs else None


def _the_account(policy: Policy) -> str:
    for statement in policy.statements:
        for condition in statement.conditions:
            if folded(condition.key) == "kms:calleraccount":
                return condition.values[0]
    return ""


def _the_administrator(policy: Policy) -> str | None:
    for statement in policy.statements:
        for principal in statement.principals:
            if principal.kind is PrincipalKind.IDENTITY:
                return principal.text
    return None


def _meaning(statement: Statement) -> tuple[object, ...]:
    """All of a statement that IAM looks at, in one form."""
    return (
        statement.effect,
        statement.not_principal,
        statement.not_action,
        statement.not_resource,
        frozenset(map(_principal, statement.principals)),
        None if statement.actions is None else frozenset(a.lower() for a in statement.actions),
        None if statement.resources is None else frozenset(statement.resources),
        frozenset(map(_condition, statement.conditions)),
    )


def _principal(principal: Principal) -> tuple[PrincipalKind, str]:
    return (principal.kind, principal.text)


def _condition(condition: Condition) -> tuple[str, str, frozenset[str]]:
    values = condition.values
    if str(condition.operator) == "StringEqualsIgnoreCase":
        values = tuple(value.lower() for value in values)
    return (str(condition.operator), folded(condition.key), frozenset(values))
