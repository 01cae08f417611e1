"""Whether a key policy lets a request through, and which statement and condition decided.

Follows IAM User Guide, "Policy evaluation logic", for one key policy: an explicit Deny wins, else
an Allow is needed. It evaluates the key policy alone: no grants, service or resource control
policies, permissions boundaries, session or endpoint policies; what the caller's own IAM policies
allow is an argument. What it cannot know it refuses by name, never ignores (see `keys.py`).
docs/reference/policy-evaluation.md says what of IAM is evaluated.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from kmstool.errors import PolicyError, SettingError, printable
from kmstool.policy.keys import (
    ATTESTATION_PREFIX,
    attestation_keys,
    encryption_context_keys,
    is_missing_when_absent,
)
from kmstool.policy.operators import glob_matches
from kmstool.policy.parse import (
    IDENTITY,
    Condition,
    Effect,
    Policy,
    Principal,
    PrincipalKind,
    Statement,
    parse_policy,
)
from kmstool.policy.printable import cut, shown
from kmstool.policy.results import ConditionResult, Decision, StatementResult, nearest
from kmstool.policy.wording import condition_sentence, undefined_sentence, unknown_sentence

__all__ = [
    "ConditionResult",
    "Decision",
    "Policy",
    "PolicyError",
    "Request",
    "StatementResult",
    "attestation_keys",
    "encryption_context_keys",
    "evaluate",
    "parse_policy",
]

IdentityAllows = Callable[[str], bool] | Collection[str]

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

    Raises:
        SettingError: an action, principal or resource of another form.
    """

    action: str
    principal: str
    resource: str
    context: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    session: str | None = None

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
            values[name.lower()] = values.get(name.lower(), ()) + tuple(given)
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


def evaluate(
    policy: Policy, request: Request, *, identity_allows: IdentityAllows = frozenset()
) -> Decision:
    """Decides a request by a key policy.

    Args:
        identity_allows: what the caller's own IAM policies allow on this key: a function of the
            action, or patterns such as `kms:*`. It counts only where the key policy leaves the
            decision to the caller's account, or the caller is of another account. By default they
            allow nothing.

    Returns:
        Allowed, only if no Deny matched, nothing was undecided, and an Allow matched.
    """
    identity = _identity_allows(identity_allows, request.action)
    results = tuple(_statement(s, request, identity=identity) for s in policy.statements)
    for one in results:
        if one.matched and one.effect is Effect.DENY:
            return Decision(allowed=False, reason=_denies(one), statements=results, decided_by=one)
    for one in results:
        if one.undecided:
            return Decision(
                allowed=False, reason=_undecided(one), statements=results, decided_by=one
            )
    for one in results:
        if one.matched:
            return Decision(
                allowed=True,
                reason=_allows(one, request),
                statements=results,
                decided_by=one,
            )
    return Decision(allowed=False, reason=_nothing_allows(results, request), statements=results)


def _identity_allows(given: IdentityAllows, action: str) -> bool:
    if callable(given):
        return given(action)
    if isinstance(given, str):
        given = (given,)
    return _action_matches(given, action)


# --- One statement -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Match:
    """Whether an element matches, whether only by way of the caller's IAM policies, and why."""

    matched: bool
    reason: str
    delegated: bool = False
    undecided: bool = False


def _statement(statement: Statement, request: Request, *, identity: bool) -> StatementResult:
    principal = _principal(statement, request)
    action = _action(statement, request)
    resource = _resource(statement, request)
    conditions = tuple(_condition(one, statement, request) for one in statement.conditions)
    refused = principal.delegated and not identity
    possible = (
        (principal.matched or principal.undecided)
        and action.matched
        and resource.matched
        and all(one.matched or one.undecided for one in conditions)
        and not refused
    )
    undecided = principal.undecided or any(one.undecided for one in conditions)
    return StatementResult(
        sid=statement.sid,
        index=statement.index,
        name=statement.name,
        effect=statement.effect,
        matched=possible and not undecided,
        undecided=possible and undecided,
        principal_matched=principal.matched,
        action_matched=action.matched,
        resource_matched=resource.matched,
        conditions=conditions,
        delegated=principal.delegated,
        principal_reason=principal.reason,
        action_reason=action.reason,
        resource_reason=resource.reason,
    )


def _principal(statement: Statement, request: Request) -> _Match:
    if statement.not_principal:
        return _not_principal(statement, request)
    found = [_one_principal(one, statement.effect, request) for one in statement.principals]
    # A direct grant beats one by way of IAM, and both beat what cannot be decided.
    for test in (
        lambda match: match.matched and not match.delegated,
        lambda match: match.matched,
        lambda match: match.undecided,
    ):
        if best := next(filter(test, found), None):
            return best
    names = cut(" and ".join(one.text for one in statement.principals))
    return _Match(matched=False, reason=f"it names {names}, and the caller is {request.principal}")


def _one_principal(principal: Principal, effect: Effect, request: Request) -> _Match:
    foreign = request.account_id != request.key_account_id
    match principal.kind:
        case PrincipalKind.ANYONE:
            matched, delegated = True, foreign
        case PrincipalKind.ACCOUNT:
            matched = principal.account_id == request.account_id
            # The root user needs no policy of its own. For everybody else in the account an Allow
            # only opens the door to IAM policies; a Deny means them all.
            delegated = foreign or not request.principal.endswith(":root")
        case PrincipalKind.IDENTITY:
            matched, delegated = principal.text == request.principal, foreign
        case PrincipalKind.SESSION:
            if request.session is None and _may_be_session(principal, request):
                reason = f"it names {principal.text}, and the caller's session is not known"
                return _Match(matched=False, reason=reason, undecided=True)
            matched, delegated = principal.text == request.session, foreign
        case _:
            matched, delegated = False, False
    reason = f"it names {principal.text}"
    if matched and delegated and effect is Effect.ALLOW:
        reason += f", which leaves it to the IAM policies of account {request.account_id}"
    return _Match(
        matched=matched, reason=reason, delegated=matched and delegated and effect is Effect.ALLOW
    )


def _may_be_session(principal: Principal, request: Request) -> bool:
    """A session names its role without the path; a federated user may be of any user."""
    role = request.principal.rpartition("/")[2]
    kind, _, rest = principal.text.split(":", 5)[5].partition("/")
    return principal.account_id == request.account_id and (
        kind != "assumed-role" or rest.partition("/")[0] == role
    )


def _not_principal(statement: Statement, request: Request) -> _Match:
    """Deny for everybody but …: IAM exempts a role or user only if its account is named as well."""
    kinds = {one.kind for one in statement.principals}
    texts = {one.text for one in statement.principals}
    account = PrincipalKind.ANYONE in kinds or any(
        one.kind is PrincipalKind.ACCOUNT and one.account_id == request.account_id
        for one in statement.principals
    )
    named = (
        PrincipalKind.ANYONE in kinds
        or request.principal in texts
        or (request.principal.endswith(":root") and account)
    )
    if named and account:
        return _Match(matched=False, reason="NotPrincipal names the caller and its account")
    if named:
        reason = "NotPrincipal names the caller but not its account, and IAM may then deny it"
    else:
        reason = "NotPrincipal does not name the caller"
    return _Match(matched=True, reason=reason)


def _action(statement: Statement, request: Request) -> _Match:
    if statement.actions is None:
        return _Match(matched=False, reason="it has no Action, so it has no effect")
    among = _action_matches(statement.actions, request.action)
    patterns = cut(" ".join(statement.actions))
    return _Match(
        matched=among is not statement.not_action,
        reason=f"{request.action} is {'' if among else 'not '}among {patterns}"
        + (" (NotAction)" if statement.not_action else ""),
    )


def _action_matches(patterns: Collection[str], action: str) -> bool:
    return any(glob_matches(pattern.lower(), action.lower()) for pattern in patterns)


def _resource(statement: Statement, request: Request) -> _Match:
    if statement.resources is None:
        return _Match(matched=False, reason="it has no Resource, so it applies to no key")
    among = any(glob_matches(pattern, request.resource) for pattern in statement.resources)
    patterns = printable(cut(" ".join(statement.resources)))
    return _Match(
        matched=among is not statement.not_resource,
        reason=f"{request.resource} is {'' if among else 'not '}among {patterns}"
        + (" (NotResource)" if statement.not_resource else ""),
    )


def _condition(condition: Condition, statement: Statement, request: Request) -> ConditionResult:
    key = condition.key.lower()
    values = request.context.get(key, ())
    holds: bool | None = None
    if key not in request.context and not is_missing_when_absent(key):
        reason = unknown_sentence(condition.key)
    elif (holds := condition.operator.holds(condition.values, values)) is None:
        reason = undefined_sentence(condition, values)
    else:
        denies = statement.effect is Effect.DENY
        reason = condition_sentence(condition, values, denies=denies, attested=request.attested)
    return ConditionResult(
        operator=str(condition.operator),
        key=condition.key,
        policy_values=condition.values,
        request_values=values or None,
        matched=holds is True,
        undecided=holds is None,
        reason=reason,
    )


# --- One sentence for a person -----------------------------------------------------------------


def _denies(one: StatementResult) -> str:
    why = f": {one.conditions[0].reason}" if one.conditions else ", without any condition"
    return f"{one.name} denies it{why}"


def _undecided(one: StatementResult) -> str:
    reasons = [condition.reason for condition in one.conditions if condition.undecided]
    reason = reasons[0] if reasons else one.principal_reason
    return f"{one.name} cannot be decided, so the request is refused: {reason}"


def _allows(one: StatementResult, request: Request) -> str:
    if one.delegated:
        return (
            f"{one.name} leaves it to the IAM policies of account {request.account_id},"
            f" and those allow {request.action}"
        )
    return f"{one.name} allows {request.action} to {request.principal}"


def _nothing_allows(results: tuple[StatementResult, ...], request: Request) -> str:
    best = nearest(results)
    if best is None:
        return "no statement allows anything"
    if not best.applies:
        return _not_named(results, request)
    if failed := best.unmatched_conditions:
        more = len(failed) - 1
        also = f" ({more} more condition{'s' if more > 1 else ''} did not hold)" if more else ""
        return f"{best.name} would allow it, but {failed[0].reason}{also}"
    return (
        f"{best.name} leaves it to the IAM policies of account {request.account_id},"
        f" and those do not allow {request.action}"
    )


def _not_named(results: tuple[StatementResult, ...], request: Request) -> str:
    """No Allow has principal, action and resource right."""
    mine = [one for one in results if one.effect is Effect.ALLOW and one.principal_matched]
    if miss := next((one for one in mine if one.action_matched), None):
        return f"{miss.name} would allow it, but {miss.resource_reason}"
    if any(not one.delegated for one in mine):
        return f"no statement that names {request.principal} names the action {request.action}"
    also = ""
    if mine:
        also = f", and none that names its account names the action {request.action}"
    return f"no statement names the principal {request.principal}{also}"
