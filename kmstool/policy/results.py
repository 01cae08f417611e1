"""What an evaluation found, as data: per condition, per statement, and the decision.

Made by `evaluate.py` only. `Decision.reason` is one sentence for a person, `explain()` is the whole
story with the nearest miss first. Neither ends with a full stop, and both are printable.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from kmstool.policy.parse import Effect


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionResult:
    """One condition of a statement, compared with the request.

    Attributes:
        operator: as written, for example `ForAnyValue:StringLike`.
        key: the condition key as the policy writes it.
        request_values: None where the request does not have the key.
        matched: the condition holds. Never True where `undecided` is.
        undecided: the evaluator has no value for the key, or IAM does not define the comparison.
        unknown_key: the condition key that nobody knows and whose value would decide, as written;
            it may be one in a policy variable.
        reason: what was compared with what.
    """

    operator: str
    key: str
    policy_values: tuple[str, ...]
    request_values: tuple[str, ...] | None
    matched: bool
    undecided: bool = False
    unknown_key: str | None = None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementResult:
    """One statement of the policy, compared with the request.

    Attributes:
        matched: everything in it matched, and it has its effect on the request.
        delegated: it is an Allow that leaves the decision to the caller's own IAM policies (an
            account as principal, or a caller from another account); `matched` is then True only if
            those allow the action too.
        left_to_iam: it is delegated, and the caller's IAM policies do not allow the action.
        undecided: it may have its effect or not, and the evaluator cannot know.
        unknown_key: as in `ConditionResult`, of a policy variable in Resource.
        principal_reason, action_reason, resource_reason: what was compared with what.
    """

    sid: str | None
    index: int
    name: str
    effect: Effect
    matched: bool
    principal_matched: bool
    action_matched: bool
    resource_matched: bool
    conditions: tuple[ConditionResult, ...]
    delegated: bool = False
    left_to_iam: bool = False
    undecided: bool = False
    unknown_key: str | None = None
    principal_reason: str = ""
    action_reason: str = ""
    resource_reason: str = ""

    @property
    def unmatched_conditions(self) -> tuple[ConditionResult, ...]:
        return tuple(condition for condition in self.conditions if not condition.matched)

    @property
    def applies(self) -> bool:
        """Principal, action and resource match; only conditions or IAM policies are left."""
        return self.principal_matched and self.action_matched and self.resource_matched

    def lines(self) -> list[str]:
        """The statement for the eye: one line, and one for each thing that was compared."""
        parts = [
            (self.principal_matched, f"principal: {self.principal_reason}"),
            (self.action_matched, f"action: {self.action_reason}"),
            (self.resource_matched, f"resource: {self.resource_reason}"),
        ]
        found = [f"  {'yes' if yes else 'no '}  {text}" for yes, text in parts]
        for condition in self.conditions:
            mark = "yes" if condition.matched else " ? " if condition.undecided else "no "
            found.append(f"  {mark}  {condition.operator}: {condition.reason}")
        if self.left_to_iam:
            found.append(
                "  no   IAM policies of the caller: as far as is known, they do not allow it"
            )
        verb = self.effect.lower()
        if self.undecided:
            verdict = f"may {verb} it or not, which cannot be decided"
        else:
            verdict = f"does {'' if self.matched else 'not '}{verb} it"
        return [f"{self.name} {verdict}", *found]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer, and what decided it.

    Attributes:
        reason: one sentence for a person.
        statements: all of them, in the policy's order.
        decided_by: the statement that allowed, denied or could not be decided; None where the
            request was refused because nothing allowed it.
    """

    allowed: bool
    reason: str
    statements: tuple[StatementResult, ...]
    decided_by: StatementResult | None = None

    def explain(self) -> list[str]:
        """The reason, then every statement: what decided first, then the nearest misses."""
        verdict = "allowed" if self.allowed else "denied"
        lines = [line for one in self.ranked() for line in one.lines()]
        return [f"{verdict}: {self.reason}", *lines]

    def ranked(self) -> list[StatementResult]:
        """The statement that decided, the Allows with the nearest miss first, then the Denys."""
        return sorted(self.statements, key=lambda s: (s is not self.decided_by, *distance(s)))


def distance(statement: StatementResult) -> tuple[bool, int, bool, int, int]:
    """How far a statement is from allowing: sorts Allows before Denys, nearest first.

    Of two whose elements fit, one that names the caller is nearer than one that leaves it to IAM
    policies: who wrote it had this caller in mind.
    """
    misses = (statement.principal_matched, statement.action_matched, statement.resource_matched)
    return (
        statement.effect is Effect.DENY,
        misses.count(False),
        statement.left_to_iam,
        len(statement.unmatched_conditions),
        statement.index,
    )


def nearest(statements: Iterable[StatementResult]) -> StatementResult | None:
    """The Allow that came closest to allowing, or None where there is no Allow."""
    allows = [s for s in statements if s.effect is Effect.ALLOW]
    return min(allows, key=distance, default=None)
