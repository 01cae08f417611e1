"""Why a key policy lets a request through or not, for the person who has to mend it.

`evaluate` decides and says what was compared with what; this adds what that usually means (a debug
enclave, an image built again, a role of another name), from the statement that came nearest. It
never changes a decision. Pure: no file, no network.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from kmstool.policy.evaluate import Decision, IdentityAllows, evaluate
from kmstool.policy.explain_causes import causes_of_deny, causes_of_miss, causes_of_unknown
from kmstool.policy.parse import Effect, Policy
from kmstool.policy.reasons import what_is_open
from kmstool.policy.request import Request
from kmstool.policy.results import StatementResult, nearest


class Verdict(StrEnum):
    """What came out. UNKNOWN: something that would decide is not known here."""

    ALLOWED = "allowed"
    DENIED = "denied"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A decision with its reasons.

    Attributes:
        reason: the evaluator's own sentence; of UNKNOWN, what is not known, since only an evaluator
            that has to answer refuses then.
        advice: what it probably means, one sentence each, the likeliest first; empty if allowed.
        statements: what decided first, then the nearest misses, then the rest.
        unknown_keys: condition keys whose values would decide and are not known, as written.
    """

    verdict: Verdict
    reason: str
    advice: tuple[str, ...]
    statements: tuple[StatementResult, ...]
    unknown_keys: tuple[str, ...]
    request: Request

    def as_json(self) -> dict[str, Any]:
        """The same as data, with every value whole."""
        return {
            "decision": str(self.verdict),
            "reason": self.reason,
            "advice": list(self.advice),
            "unknown_keys": list(self.unknown_keys),
            "request": {
                "action": self.request.action,
                "principal": self.request.principal,
                "session": self.request.session,
                "resource": self.request.resource,
                "context": {name: list(v) for name, v in sorted(self.request.context.items())},
            },
            "statements": [_statement(one) for one in self.statements],
        }


def explain(
    policy: Policy, request: Request, *, identity_allows: IdentityAllows = frozenset()
) -> Explanation:
    """Decides as `evaluate` does, and says what it means."""
    decision = evaluate(policy, request, identity_allows=identity_allows)
    decider = decision.decided_by
    unknown = decider is not None and decider.undecided
    verdict = Verdict.ALLOWED if decision.allowed else Verdict.DENIED
    reason = decision.reason
    if unknown and decider is not None:
        reason = f"{decider.name} cannot be decided: {what_is_open(decider)}"
    return Explanation(
        verdict=Verdict.UNKNOWN if unknown else verdict,
        reason=reason,
        advice=tuple(dict.fromkeys(_advice(policy, decision, request))),
        statements=tuple(decision.ranked()),
        unknown_keys=_unknown_keys(decider) if unknown and decider is not None else (),
        request=request,
    )


def _advice(policy: Policy, decision: Decision, request: Request) -> list[str]:
    decider = decision.decided_by
    if decision.allowed:
        return []
    if decider is not None and decider.undecided:
        return causes_of_unknown(decider)
    if decider is not None:
        return causes_of_deny(policy.statements[decider.index], decider, request)
    best = nearest(decision.statements)
    if best is None:
        return ["the policy has no Allow: nobody may do anything with this key"]
    return causes_of_miss(policy.statements[best.index], best, request) + [
        _left_to_iam(one, request)
        for one in decision.statements
        if one.effect is Effect.ALLOW
        and one.left_to_iam
        and one.applies
        and not one.unmatched_conditions
    ]


def _left_to_iam(one: StatementResult, request: Request) -> str:
    foreign = request.account_id != request.key_account_id
    also = ", and a caller of another account needs both" if foreign else ""
    return (
        f"{one.name} leaves it to the IAM policies of account {request.account_id}{also}: as far as"
        f" is known here they do not allow {request.action}"
    )


def _unknown_keys(statement: StatementResult) -> tuple[str, ...]:
    found = (statement.unknown_key, *(one.unknown_key for one in statement.conditions))
    return tuple(dict.fromkeys(key for key in found if key is not None))


def _statement(one: StatementResult) -> dict[str, Any]:
    return {
        "statement": one.name,
        "sid": one.sid,
        "index": one.index,
        "effect": str(one.effect),
        "takes_effect": None if one.undecided else one.matched,
        "left_to_iam": one.left_to_iam,
        "principal": {"matched": one.principal_matched, "reason": one.principal_reason},
        "action": {"matched": one.action_matched, "reason": one.action_reason},
        "resource": {"matched": one.resource_matched, "reason": one.resource_reason},
        "conditions": [
            {
                "operator": condition.operator,
                "key": condition.key,
                "policy_values": list(condition.policy_values),
                "request_values": list(condition.request_values or ()),
                "matched": None if condition.undecided else condition.matched,
                "reason": condition.reason,
            }
            for condition in one.conditions
        ],
    }
