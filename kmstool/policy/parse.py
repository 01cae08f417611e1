"""A key policy from its JSON text: strict, so that nothing in it is read past.

Grammar: IAM User Guide, "Grammar of the IAM JSON policy language", as KMS takes it for keys ("Key
policies in AWS KMS"). Refused by name: elements, operators and principals that this reader does
not know, names that occur twice. It never evaluates: see `evaluate.py`.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Never

from kmstool.errors import PolicyError
from kmstool.limits import POLICY_MAX
from kmstool.policy.keys import folded
from kmstool.policy.operators import Operator, read_operator, refuse_undefined
from kmstool.policy.printable import shown
from kmstool.policy.variables import check_resource, check_variables, placeholder


class Effect(StrEnum):
    ALLOW = "Allow"
    DENY = "Deny"


class PrincipalKind(StrEnum):
    """What a principal of a statement names."""

    ANYONE = "anyone"  # "*"
    ACCOUNT = "account"  # an account id, or its root ARN
    IDENTITY = "identity"  # a role or user, by ARN
    SESSION = "session"  # one session of a role, or a federated user, by STS ARN
    SERVICE = "service"  # an AWS service
    DELETED = "deleted"  # a unique id: KMS shows it where the role or user no longer exists


@dataclass(frozen=True, slots=True)
class Principal:
    """One principal of a statement: its kind, its text, and its account id where it has one."""

    kind: PrincipalKind
    text: str
    account_id: str | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition: an operator, one key as the policy writes it, one or more values.

    Attributes:
        has_variables: a value holds a policy variable (`variables.py`).
    """

    operator: Operator
    key: str
    values: tuple[str, ...]
    has_variables: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement, at `index` (from 0) in its policy.

    Attributes:
        actions, resources: patterns; None where the element is missing, and KMS then takes the
            policy but the statement has no effect (API reference, PutKeyPolicy).
    """

    sid: str | None
    index: int
    effect: Effect
    principals: tuple[Principal, ...]
    not_principal: bool
    actions: tuple[str, ...] | None
    not_action: bool
    resources: tuple[str, ...] | None
    not_resource: bool
    conditions: tuple[Condition, ...]
    has_variables: bool = False

    @property
    def name(self) -> str:
        """How a message calls it: `statement "Sid"`, or by number from 1 where it has no Sid."""
        return f'statement "{self.sid}"' if self.sid else f"statement number {self.index + 1}"


@dataclass(frozen=True, slots=True)
class Policy:
    """A parsed key policy; `version` is `2012-10-17` or `2008-10-17`."""

    version: str
    statements: tuple[Statement, ...]


def parse_policy(text: str) -> Policy:
    """Reads a key policy of at most 32 KiB.

    Raises:
        PolicyError: it is not one that KMS would take, or uses what this evaluator does not know;
            the message says where (`statement "Sid": …`).
    """
    policy = read_policy(text)
    for statement in policy.statements:
        try:
            _refuse_undecidable(statement)
        except PolicyError as error:
            raise PolicyError(f"{statement.name}: {error}", hint=error.hint) from None
    return policy


def read_policy(text: str) -> Policy:
    """Like `parse_policy`, and takes what nobody can decide: for looking at a policy alone.

    Raises:
        PolicyError: it is not a policy.
    """
    if len(text.encode("utf-8", "surrogatepass")) > POLICY_MAX:
        raise PolicyError(f"the policy has more than {POLICY_MAX} bytes, which is KMS' limit")
    if strange := _STRANGE.search(text):
        raise PolicyError(
            f"the policy holds the character U+{ord(strange[0]):04X}, which KMS refuses"
        )
    members = _object(_load(text), "the policy")
    _only(members, ("Version", "Id", "Statement"), "the policy")
    # Without a Version, IAM reads the older language, which has no variables.
    version = members.get("Version", "2008-10-17")
    if version not in VERSIONS:
        raise PolicyError(
            f"the policy's Version is not one of {' and '.join(VERSIONS)}",
            hint=f'write "Version": "{VERSIONS[0]}"',
        )
    if not isinstance(members.get("Id", ""), str):
        raise PolicyError("the policy's Id is not a string")
    raw = members.get("Statement")
    statements = raw if isinstance(raw, list) else [raw]
    if not statements or raw is None:
        raise PolicyError("the policy has no Statement")
    return Policy(
        version,
        tuple(_statement(item, index, version) for index, item in enumerate(statements)),
    )


NEWER: Final = "2012-10-17"  # in the older language "${" is plain text
VERSIONS: Final = (NEWER, "2008-10-17")

# PolicyType of KMS' service model.
_STRANGE = re.compile("[^\t\n\r\u0020-\u00ff]")
_ELEMENTS = (
    "Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource",
    "Condition",
)  # fmt: skip
_ACTION = re.compile(r"\*|[A-Za-z0-9-]+:[A-Za-z0-9*?]+")
_ACCOUNT = re.compile(r"[0-9]{12}")
IDENTITY: Final = re.compile(
    r"arn:aws[a-z-]*:iam::([0-9]{12}):(root|(?:role|user)/[\w+=,.@/-]{1,576})", re.ASCII
)
_SESSION = re.compile(
    r"arn:aws[a-z-]*:sts::([0-9]{12}):(?:assumed-role|federated-user)/[\w+=,.@/-]{1,576}", re.ASCII
)
_UNIQUE_ID = re.compile(r"A[A-Z]{3}[A-Z0-9]{12,124}")
_SERVICE = re.compile(r"[a-z0-9.-]{1,128}")


def _load(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        where = f"{error.msg} in line {error.lineno}, column {error.colno}"
        raise PolicyError(f"the policy is not JSON: {where}") from None
    except (ValueError, RecursionError):
        raise PolicyError("the policy is not JSON") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members: dict[str, object] = {}
    for name, value in pairs:
        if name in members:
            raise PolicyError(f"the policy names {shown(name)} twice in one object")
        members[name] = value
    return members


def _no_constant(_name: str) -> Never:
    raise ValueError


def _object(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise PolicyError(f"{what} is not a JSON object")
    return value


def _only(members: dict[str, object], known: tuple[str, ...], what: str) -> None:
    for name in members:
        if name not in known:
            raise PolicyError(
                f"{what} has an unknown element {shown(name)}",
                hint="the elements are " + ", ".join(known),
            )


def _statement(raw: object, index: int, version: str) -> Statement:
    what = f"statement number {index + 1}"
    members = _object(raw, what)
    sid = members.get("Sid")
    if sid is not None and not isinstance(sid, str):
        raise PolicyError(f"{what} has a Sid that is not a string")
    sid = None if not sid else shown(sid)[1:-1]
    if sid:
        what = f'statement "{sid}"'
    _only(members, _ELEMENTS, what)
    for name in ("Principal", "Action", "Resource"):
        if name in members and f"Not{name}" in members:
            raise PolicyError(f"{what} has both {name} and Not{name}")
    effect = members.get("Effect")
    if effect not in tuple(Effect):
        raise PolicyError(f'{what} has an Effect that is neither "Allow" nor "Deny"')
    try:
        resources = _patterns(members, "Resource", check_resource if version == NEWER else _any)
        return Statement(
            sid=sid,
            index=index,
            effect=Effect(str(effect)),
            principals=_principals(members),
            not_principal="NotPrincipal" in members,
            actions=_patterns(members, "Action", _check_action),
            not_action="NotAction" in members,
            resources=resources,
            not_resource="NotResource" in members,
            conditions=_conditions(members.get("Condition", {}), version),
            has_variables=version == NEWER and any("${" in one for one in resources or ()),
        )
    except PolicyError as error:
        raise PolicyError(f"{what}: {error}", hint=error.hint) from None


def _refuse_undecidable(statement: Statement) -> None:
    if statement.not_principal and statement.effect is Effect.ALLOW:
        raise PolicyError(
            "NotPrincipal with Allow is not supported by IAM: it would allow everybody else",
            hint="name the principals that are allowed",
        )
    for condition in statement.conditions:
        refuse_undefined(condition.operator)


def _principals(members: dict[str, object]) -> tuple[Principal, ...]:
    name = "NotPrincipal" if "NotPrincipal" in members else "Principal"
    if name not in members:
        raise PolicyError(
            "it has no Principal", hint="a key policy names who, unlike a policy of a role"
        )
    raw = members[name]
    if raw == "*":
        return (Principal(PrincipalKind.ANYONE, "*"),)
    kinds = _object(raw, name)
    _only(kinds, ("AWS", "Service"), name)
    found = [_aws_principal(text) for text in _strings(kinds, "AWS")]
    for text in _strings(kinds, "Service"):
        if not _SERVICE.fullmatch(text):
            raise PolicyError(f"the service principal {shown(text)} is not a service's name")
        found.append(Principal(PrincipalKind.SERVICE, text))
    if not found:
        raise PolicyError(f"{name} names nobody")
    return tuple(found)


def _aws_principal(text: str) -> Principal:
    if text == "*":
        return Principal(PrincipalKind.ANYONE, text)
    if _ACCOUNT.fullmatch(text):
        return Principal(PrincipalKind.ACCOUNT, text, text)
    if identity := IDENTITY.fullmatch(text):
        kind = PrincipalKind.ACCOUNT if identity[2] == "root" else PrincipalKind.IDENTITY
        return Principal(kind, text, identity[1])
    if session := _SESSION.fullmatch(text):
        return Principal(PrincipalKind.SESSION, text, session[1])
    if _UNIQUE_ID.fullmatch(text):
        return Principal(PrincipalKind.DELETED, text)
    raise PolicyError(
        f"the principal {shown(text)} is not an account, a role, a user, a session or *",
        hint="IAM takes no wildcard inside a principal: use the whole ARN, or a condition on"
        " aws:PrincipalArn",
    )


def _patterns(
    members: dict[str, object], name: str, check: Callable[[str], None]
) -> tuple[str, ...] | None:
    present = f"Not{name}" if f"Not{name}" in members else name
    if present not in members:
        return None
    patterns = _strings(members, present)
    if not patterns:
        raise PolicyError(f"{present} is an empty list")
    for pattern in patterns:
        check(pattern)
    return patterns


def _check_action(pattern: str) -> None:
    if not _ACTION.fullmatch(pattern):
        raise PolicyError(
            f"the action {shown(pattern)} is not a service and a name",
            hint="write kms:Decrypt, kms:Generate* or kms:*",
        )


def _any(_pattern: str) -> None:
    """Every pattern will do."""


def _strings(members: dict[str, object], name: str) -> tuple[str, ...]:
    """A string or a list of strings; nothing where the member is missing."""
    raw = members.get(name, [])
    values = raw if isinstance(raw, list) else [raw]
    texts = tuple(value for value in values if isinstance(value, str) and value)
    if len(texts) != len(values):
        raise PolicyError(f"{name} is not a string or a list of strings")
    return texts


def _conditions(raw: object, version: str) -> tuple[Condition, ...]:
    found = []
    for name, block in _object(raw, "Condition").items():
        operator = read_operator(name)
        seen = set()
        for key, value in _object(block, f"the condition {operator}").items():
            if ":" not in key or not key.isprintable():
                raise PolicyError(f"{shown(key)} is not a condition key")
            if folded(key) in seen:  # condition keys are case-insensitive
                raise PolicyError(f"{operator} names {shown(key)} twice")
            seen.add(folded(key))
            values = _condition_values(value, operator, key)
            has_variables = version == NEWER and any("${" in text for text in values)
            for text in values:
                form: str | None = text
                if has_variables and operator.takes_variables:
                    check_variables(text)
                    form = placeholder(text)
                if form is not None:
                    operator.check_policy_value(form)
            found.append(Condition(operator, key, values, has_variables))
    return tuple(found)


def _condition_values(raw: object, operator: Operator, key: str) -> tuple[str, ...]:
    """IAM takes bare numbers and booleans for their text."""
    values = raw if isinstance(raw, list) else [raw]
    texts = []
    for value in values:
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, bool | int | float):
            texts.append(json.dumps(value))
        else:
            raise PolicyError(f"{operator} {key} has a value that is not a string")
    if not texts:
        raise PolicyError(f"{operator} {key} has no value")
    return tuple(texts)
