"""Whether a key policy lets a request through, and which statement and condition decided.

Follows IAM User Guide, "Policy evaluation logic", for one key policy: an explicit Deny wins, else
an Allow is needed. It evaluates the key policy alone: no grants, service or resource control
policies, permissions boundaries, session or endpoint policies; what the caller's own IAM policies
allow is an argument. What it cannot know it refuses by name, never ignores (see `keys.py`).
docs/reference/policy-evaluation.md says what of IAM is evaluated.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from kmstool.errors import PolicyError, printable
from kmstool.policy.keys import attestation_keys, encryption_context_keys, folded
from kmstool.policy.operators import glob_matches
from kmstool.policy.parse import (
    Condition,
    Effect,
    Policy,
    Principal,
    PrincipalKind,
    Statement,
    parse_policy,
)
from kmstool.policy.printable import cut
from kmstool.policy.reasons import allows, cannot_decide, denies, nothing_allows
from kmstool.policy.request import Request
from kmstool.policy.results import ConditionResult, Decision, StatementResult
from kmstool.policy.variables import CannotExpandError, expand_all
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
            return Decision(allowed=False, reason=denies(one), statements=results, decided_by=one)
    for one in results:
        if one.undecided:
            return Decision(
                allowed=False, reason=cannot_decide(one), statements=results, decided_by=one
            )
    for one in results:
        if one.matched:
            return Decision(
                allowed=True,
                reason=allows(one, request),
                statements=results,
                decided_by=one,
            )
    return Decision(allowed=False, reason=nothing_allows(results, request), statements=results)


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
    unknown_key: str | None = None


def _statement(statement: Statement, request: Request, *, identity: bool) -> StatementResult:
    principal = _principal(statement, request)
    action = _action(statement, request)
    resource = _resource(statement, request)
    conditions = tuple(_condition(one, statement, request) for one in statement.conditions)
    refused = principal.delegated and not identity
    possible = (
        (principal.matched or principal.undecided)
        and action.matched
        and (resource.matched or resource.undecided)
        and all(one.matched or one.undecided for one in conditions)
        and not refused
    )
    undecided = (
        principal.undecided or resource.undecided or any(one.undecided for one in conditions)
    )
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
        left_to_iam=refused,
        unknown_key=resource.unknown_key,
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


_NO_VALUE_IN_NOT_RESOURCE = (
    "a policy variable in NotResource has no value, and IAM does not say whether the statement then"
    " applies to every key or to none"
)


def _resource(statement: Statement, request: Request) -> _Match:
    if statement.resources is None:
        return _Match(matched=False, reason="it has no Resource, so it applies to no key")
    resources: Sequence[str] = statement.resources
    if statement.has_variables:
        try:
            resources = expand_all(resources, request, pattern=True)
        except CannotExpandError as error:
            return _Match(matched=False, reason=str(error), undecided=True, unknown_key=error.key)
        if statement.not_resource and len(resources) < len(statement.resources):
            return _Match(matched=False, reason=_NO_VALUE_IN_NOT_RESOURCE, undecided=True)
    among = any(glob_matches(pattern, request.resource) for pattern in resources)
    patterns = printable(cut(" ".join(statement.resources)))
    return _Match(
        matched=among is not statement.not_resource,
        reason=f"{request.resource} is {'' if among else 'not '}among {patterns}"
        + (" (NotResource)" if statement.not_resource else ""),
    )


def _condition(condition: Condition, statement: Statement, request: Request) -> ConditionResult:
    key = folded(condition.key)
    values = request.context.get(key, ())
    holds, reason, unknown_key = None, "", None
    try:
        wanted = _wanted(condition, request)
    except CannotExpandError as error:
        reason, unknown_key = str(error), error.key
    else:
        if key not in request.context and (why := request.why_unknown(key)):
            reason, unknown_key = unknown_sentence(condition.key, why), condition.key
        elif (holds := condition.operator.holds(wanted, values)) is None:
            reason = undefined_sentence(condition, values)
        else:
            denies_it = statement.effect is Effect.DENY
            reason = condition_sentence(
                condition, values, denies=denies_it, attested=request.attested
            )
    return ConditionResult(
        operator=str(condition.operator),
        key=condition.key,
        policy_values=condition.values,
        request_values=values or None,
        matched=holds is True,
        undecided=holds is None,
        unknown_key=unknown_key,
        reason=reason,
    )


def _wanted(condition: Condition, request: Request) -> Sequence[str]:
    if not condition.has_variables:
        return condition.values
    return expand_all(condition.values, request, pattern=condition.operator.has_wildcards)
