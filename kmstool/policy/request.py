"""What somebody asks of a key, as far as it is known: the input of `evaluate.py`.

Three states of a condition key are told apart: it has values, it is known to be missing, nobody
knows (`Request.why_unknown`). Pure data, checked when it is made.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from kmstool.errors import SettingError
from kmstool.policy.keys import (
    ATTESTATION_PREFIX,
    folded,
    is_missing_when_absent,
    same_but_for_case,
)
from kmstool.policy.parse import IDENTITY
from kmstool.policy.printable import shown

NO_VALUE = "is a condition key that this evaluator has no value for"
_MAY_BE = (
    "may be a name in the request that differs in the case of a letter beyond A to Z, and IAM does"
    " not say whether the two are one"
)

_KEY = re.compile(r"arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+")
_ACTION = re.compile(r"[a-z0-9-]+:[A-Za-z0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What somebody asks of a key.

    Attributes:
        action: `kms:Decrypt` and so on.
        principal: the ARN of a role, a user, or an account's root user.
        resource: the key's full ARN.
        context: condition keys and their values; names are made lower case. Whoever builds a
            request fills in the keys that `keys.py` lists wherever KMS would, since their absence
            counts as missing. Others may be given too: an empty tuple says "known to be missing".
            aws:PrincipalArn, aws:PrincipalAccount and kms:CallerAccount come from `principal`.
        session: the STS ARN of the role's session, where it is known.
        unknown: keys (lower case) that count as unknown although KMS would have filled them in,
            each with the reason; a name that ends with a colon stands for all that begin with it.
            `context` comes first.

    Raises:
        SettingError: an action, principal or resource of another form.
    """

    action: str
    principal: str
    resource: str
    context: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    session: str | None = None
    unknown: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _ACTION.fullmatch(self.action):
            raise SettingError(f"{shown(self.action)} is not an action such as kms:Decrypt")
        if not IDENTITY.fullmatch(self.principal):
            raise SettingError(
                f"{shown(self.principal)} is not the ARN of a role or user",
                hint="a role is named by its own ARN (arn:aws:iam::ACCOUNT:role/NAME), not by that"
                " of a session (arn:aws:sts::…:assumed-role/…)",
            )
        if not _KEY.fullmatch(self.resource):
            raise SettingError(f"{shown(self.resource)} is not the ARN of a key")
        values: dict[str, tuple[str, ...]] = {}
        for name, given in self.context.items():
            key = folded(name)
            values[key] = values.get(key, ()) + tuple(given)
        values["aws:principalarn"] = (self.principal,)
        values["aws:principalaccount"] = values["kms:calleraccount"] = (self.account_id,)
        object.__setattr__(self, "context", values)

    @property
    def account_id(self) -> str:
        """The caller's account."""
        return self.principal.split(":")[4]

    @property
    def key_account_id(self) -> str:
        return self.resource.split(":")[4]

    @property
    def attested(self) -> bool:
        """Whether it carries an attestation document that KMS accepted."""
        return any(
            name.startswith(ATTESTATION_PREFIX) and values for name, values in self.context.items()
        )

    def why_unknown(self, key: str) -> str | None:
        """Why nobody knows about this key (lower case), or None: it is there, or truly missing."""
        if key in self.context:
            return None
        for name, why in self.unknown.items():
            if key == name or (name.endswith(":") and key.startswith(name)):
                return f"is unknown: {why}"
        if any(same_but_for_case(key, name) for name in self.context):
            return _MAY_BE
        return None if is_missing_when_absent(key) else NO_VALUE
