"""Key policies for images, locked or with what somebody asked to have open, and what that costs.

Without a wish it writes what `create-key` gives its keys (`build.LockedPolicy`). Every wish that
weakens it has a name, and a caveat that says what it lets whom do.

`root_delegation` leaves to the account's IAM policies what no Deny takes away: a Deny for each PCR
over the operations that take a Recipient, one Deny over the ways around and over sealing. One Deny
for each PCR, because several keys in one Condition are ANDed: together they would fire only where
all of them differ. And over those operations alone: a negated operator holds where the key is
missing, and elsewhere it always is.

Never: evaluates, talks to KMS. `check.py` finds what is wrong with a policy, this one's included.
Source: AWS KMS Developer Guide, "Condition keys for attested platforms", "Default key policy".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from kmstool.caveats import (
    MIXED_IMAGES,
    NOT_LOCKED,
    OUTSIDERS_MAY_SEAL,
    PCR0_ALONE,
    Caveat,
)
from kmstool.errors import SettingError
from kmstool.limits import POLICY_MAX
from kmstool.policy.actions import RECIPIENT_ACTIONS, SEALING_ACTIONS, WAYS_AROUND
from kmstool.policy.build import (
    IMAGE_PCRS,
    KEY_KINDS,
    Image,
    LockedPolicy,
    canonical_policy,
    check_registers,
    locked_statements,
    statement,
)
from kmstool.policy.parse import Effect


class Outsiders(StrEnum):
    """What anybody of the account may do without an attestation."""

    ENCRYPT = "encrypt"
    GENERATE_DATA_KEY = "generate-data-key"
    GENERATE_WITHOUT_PLAINTEXT = "generate-data-key-without-plaintext"
    RE_ENCRYPT_TO = "re-encrypt-to"


OUTSIDERS_ACTIONS: Final[Mapping[Outsiders, tuple[str, ...]]] = MappingProxyType(
    {
        Outsiders.ENCRYPT: ("kms:Encrypt",),
        Outsiders.GENERATE_DATA_KEY: ("kms:GenerateDataKey", "kms:GenerateDataKeyPair"),
        Outsiders.GENERATE_WITHOUT_PLAINTEXT: (
            "kms:GenerateDataKeyWithoutPlaintext",
            "kms:GenerateDataKeyPairWithoutPlaintext",
        ),
        Outsiders.RE_ENCRYPT_TO: ("kms:ReEncryptTo",),
    }
)
# What Terraform's aws_kms_key and CloudFormation's AWS::KMS::Key read back of a key that they made.
TOOLS_ACTIONS: Final = ("kms:GetKeyRotationStatus", "kms:ListResourceTags")

_GENERATING: Final = (Outsiders.GENERATE_DATA_KEY, Outsiders.GENERATE_WITHOUT_PLAINTEXT)
# No key's policy is asked about GenerateRandom.
_PINNED: Final = tuple(action for action in RECIPIENT_ACTIONS if action != "kms:GenerateRandom")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPolicy:
    """A key policy for one image or several; valid as soon as it exists.

    Attributes:
        account: 12 digits; the images are let in for its callers alone.
        key_spec: one of `build.KEY_KINDS`.
        images: index to 48 bytes; each with PCR0, PCR1 and PCR2, and with PCR0 alone where that is
            asked for. Kept sorted.
        administrator: the ARN of a role or user who may switch the key off, and no more; or None.
        pcr0_alone: take images without PCR1 and PCR2.
        outsiders: what anybody of the account may do without an attestation.
        root_delegation: leave the rest to the account's IAM policies.
        keep_put_key_policy: leave PutKeyPolicy to them too: the key is not locked.
        tools: let the account read what Terraform and CloudFormation read.

    Raises:
        SettingError: a value of another form, or wishes that do not go together.
    """

    account: str
    key_spec: str
    images: tuple[Mapping[int, bytes], ...]
    administrator: str | None = None
    pcr0_alone: bool = False
    outsiders: frozenset[Outsiders] = frozenset()
    root_delegation: bool = False
    keep_put_key_policy: bool = False
    tools: bool = False

    def __post_init__(self) -> None:
        for pcrs in self.images:
            check_registers(pcrs, needed=(0,) if self.pcr0_alone else IMAGE_PCRS)
        if self.pcr0_alone and any(1 in pcrs or 2 in pcrs for pcrs in self.images):
            raise SettingError(
                "PCR0 alone was asked for, and PCR1 or PCR2 is given",
                hint="with all three the policy names them all: leave out --pcr0-alone",
            )
        # It checks the rest; images of PCR0 alone it would not take.
        LockedPolicy(
            account=self.account,
            key_spec=self.key_spec,
            images=tuple(Image({1: pcrs[0], 2: pcrs[0], **pcrs}) for pcrs in self.images),
            administrator=self.administrator,
        )
        self._check_outsiders()
        self._check_delegation()
        ordered = sorted(
            (MappingProxyType(dict(sorted(pcrs.items()))) for pcrs in self.images),
            key=lambda pcrs: tuple(pcrs.items()),
        )
        object.__setattr__(self, "images", tuple(ordered))
        if len(self.text) > POLICY_MAX:
            raise SettingError(
                f"the policy would have {len(self.text)} bytes, and KMS takes {POLICY_MAX}",
                hint="name fewer images, or fewer PCRs of each",
            )

    @property
    def key_usage(self) -> str:
        return KEY_KINDS[self.key_spec].usage

    @property
    def caveats(self) -> tuple[Caveat, ...]:
        """What the wishes cost; empty for a locked key."""
        found = []
        if self.pcr0_alone:
            found.append(PCR0_ALONE)
        if self.keep_put_key_policy:
            found.append(NOT_LOCKED)
        if self.root_delegation and len(self.images) > 1:
            found.append(MIXED_IMAGES)
        if self.outsiders:
            found.append(OUTSIDERS_MAY_SEAL)
        return tuple(found)

    @property
    def text(self) -> str:
        """The policy as canonical JSON: names sorted, no white space, ASCII."""
        statements = locked_statements(
            account=self.account,
            actions=KEY_KINDS[self.key_spec].actions,
            images=self.images,
            administrator=self.administrator,
        )
        anybody, caller = {"AWS": "*"}, {"StringEquals": {"kms:CallerAccount": self.account}}
        if self.tools:
            statements.append(statement("Tools", anybody, TOOLS_ACTIONS, caller))
        if opened := self._opened():
            statements.append(statement("Outsiders", anybody, opened, caller))
        if self.root_delegation:
            # An account's id stands for its root in every partition.
            statements.append(statement("Root", {"AWS": self.account}, ("kms:*",), None))
            statements += self._denials(opened)
        return canonical_policy(statements)

    def _opened(self) -> tuple[str, ...]:
        return tuple(action for one in sorted(self.outsiders) for action in OUTSIDERS_ACTIONS[one])

    def _denials(self, opened: tuple[str, ...]) -> list[dict[str, object]]:
        anybody = {"AWS": "*"}
        attested = [action for action in _PINNED if action not in opened]
        found = [
            statement(
                f"DenyOtherPCR{index}",
                anybody,
                attested,
                {
                    "StringNotEqualsIgnoreCase": {
                        f"kms:RecipientAttestation:PCR{index}": sorted(
                            {pcrs[index].hex() for pcrs in self.images}
                        )
                    }
                },
                effect=Effect.DENY,
            )
            for index in self.images[0]
        ]
        around = [
            action
            for action in WAYS_AROUND
            if not (action == "kms:PutKeyPolicy" and self.keep_put_key_policy)
        ]
        sealing = [one for one in SEALING_ACTIONS if one not in (*opened, *RECIPIENT_ACTIONS)]
        found.append(statement("DenyWaysAround", anybody, around, None, effect=Effect.DENY))
        if sealing:
            found.append(statement("DenySealing", anybody, sealing, None, effect=Effect.DENY))
        return found

    def _check_outsiders(self) -> None:
        if self.outsiders and self.key_usage != "ENCRYPT_DECRYPT":
            raise SettingError(
                f"there is nothing to open to outsiders with a key of the spec {self.key_spec}",
                hint="whoever has its public key can seal to it",
            )
        if self.key_spec != "SYMMETRIC_DEFAULT" and self.outsiders.intersection(_GENERATING):
            raise SettingError(
                f"a key of the spec {self.key_spec} generates no data keys",
                hint="only a key of the spec SYMMETRIC_DEFAULT does",
            )

    def _check_delegation(self) -> None:
        if self.keep_put_key_policy and not self.root_delegation:
            raise SettingError(
                "PutKeyPolicy is only kept where the rest is left to the account's IAM policies",
                hint="ask for the root delegation too, or for neither",
            )
        if self.root_delegation and len({frozenset(pcrs) for pcrs in self.images}) > 1:
            raise SettingError(
                "the images name different registers, and a Deny for each register holds for all",
                hint="name the same registers of each image, or leave the root delegation out",
            )
