"""The one sentence of a decision: why a request is allowed, denied, or cannot be decided.

Made by `evaluate.py` only. Each names the statement that decided or came nearest, and ends without
a full stop.
"""

from kmstool.policy.parse import Effect
from kmstool.policy.request import Request
from kmstool.policy.results import StatementResult, nearest


def denies(one: StatementResult) -> str:
    why = f": {one.conditions[0].reason}" if one.conditions else ", without any condition"
    return f"{one.name} denies it{why}"


def cannot_decide(one: StatementResult) -> str:
    return f"{one.name} cannot be decided, so the request is refused: {what_is_open(one)}"


def what_is_open(one: StatementResult) -> str:
    """Why a statement cannot be decided."""
    reasons = [condition.reason for condition in one.conditions if condition.undecided]
    reasons.append(one.resource_reason if one.principal_matched else one.principal_reason)
    return reasons[0]


def allows(one: StatementResult, request: Request) -> str:
    if one.delegated:
        return (
            f"{one.name} leaves it to the IAM policies of account {request.account_id},"
            f" and those allow {request.action}"
        )
    return f"{one.name} allows {request.action} to {request.principal}"


def nothing_allows(results: tuple[StatementResult, ...], request: Request) -> str:
    best = nearest(results)
    if best is None:
        return "no statement allows anything"
    if not best.applies:
        return _not_named(results, request)
    # What certainly failed first: what is not known may have held.
    if failed := sorted(best.unmatched_conditions, key=lambda one: one.undecided):
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
