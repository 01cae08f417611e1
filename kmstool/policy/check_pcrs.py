"""What a policy's conditions say of an attestation, and the mistakes in how they say it.

`pinned` and `pinned_by_denies` answer which registers a request has to have right; `findings_of`
says what is wrong with the conditions of one statement. A register that is named wrongly counts as
named: the finding is about how, and never that nothing is named at all.

Source: AWS KMS Developer Guide, "Condition keys for attested platforms"; IAM User Guide, "Condition
operators" (what negated operators, IfExists and ForAllValues do where the key is missing).
"""

import re
from collections.abc import Iterator
from typing import Final

from kmstool.limits import NSM_PCR_LENGTH
from kmstool.policy import check_rules as rules
from kmstool.policy.actions import (
    OTHER_ACTIONS,
    RECIPIENT_ACTIONS,
    SEALING_ACTIONS,
    WAYS_AROUND,
    covers,
    has_wildcard,
    is_about_anybody,
)
from kmstool.policy.check_rules import Finding, Rule
from kmstool.policy.keys import ATTESTATION_PREFIX, is_attestation, register_index
from kmstool.policy.operators import Quantifier
from kmstool.policy.parse import Condition, Effect, Policy, Statement
from kmstool.policy.printable import cut, shown

_HEX: Final = re.compile(rf"[0-9A-Fa-f]{{{2 * NSM_PCR_LENGTH}}}")
_WITHOUT_RECIPIENT: Final = tuple(
    action
    for action in (*WAYS_AROUND, *SEALING_ACTIONS, *OTHER_ACTIONS)
    if action not in RECIPIENT_ACTIONS
)


def passes_when_missing(condition: Condition) -> bool:
    """Whether it holds for a request without the key, Null aside."""
    operator = condition.operator
    return operator.if_exists or operator.negated or operator.quantifier is Quantifier.ALL


def named(statement: Statement) -> set[int]:
    """The registers whose value an Allow asks for, rightly or wrongly."""
    found = (register_index(one.key) for one in statement.conditions if one.operator.base != "Null")
    return {index for index in found if index is not None}


def asks_for_attestation(statement: Statement) -> bool:
    """Whether no request without an attestation can fulfil the conditions."""
    return any(
        is_attestation(one.key)
        and (
            "true" not in map(str.lower, one.values)
            if one.operator.base == "Null"
            else not passes_when_missing(one)
        )
        for one in statement.conditions
    )


def pinned_by_denies(policy: Policy, action: str) -> dict[int, set[str]]:
    """Registers that everybody must have right for the action, with their values in small letters.

    Only a Deny with this one condition counts: any other condition beside it is a way past it.
    """
    found: dict[int, set[str]] = {}
    for statement in policy.statements:
        if statement.effect is not Effect.DENY or len(statement.conditions) != 1:
            continue
        (condition,) = statement.conditions
        index = register_index(condition.key)
        fires_when_missing = condition.operator.negated and (
            condition.operator.quantifier is not Quantifier.ANY
        )
        if (
            index is not None
            and fires_when_missing
            and is_about_anybody(statement)
            and covers(statement, action)
        ):
            values = set(map(str.lower, condition.values))
            found[index] = found.get(index, values) & values
    return found


def can_hold(statement: Statement, pinned: dict[int, set[str]]) -> bool:
    """Whether a register can have a value that an Allow and the Denies of `pinned` let pass."""
    for index, values in pinned.items():
        asked = [set(map(str.lower, one.values)) for one in _asking(statement, index)]
        # Patterns may overlap whatever their texts are, and are mistakes of their own.
        comparable = all(_HEX.fullmatch(value) for value in values.union(*asked))
        if comparable and not values.intersection(*asked):
            return False
    return True


def _asking(statement: Statement, index: int) -> Iterator[Condition]:
    for one in statement.conditions:
        if register_index(one.key) == index and one.operator.base.startswith("StringEquals"):
            yield one


def findings_of(statement: Statement) -> Iterator[Finding]:
    """What is wrong with the conditions of one statement."""
    for condition in statement.conditions:
        yield from _general(statement, condition)
        if is_attestation(condition.key):
            yield from _of_register(statement, condition)
    if statement.effect is Effect.DENY:
        yield from _of_deny(statement)
        return
    values = {
        register_index(one.key): set(map(str.lower, one.values))
        for one in statement.conditions
        if register_index(one.key) is not None and one.operator.base != "Null"
    }
    if sum(len(one) > 1 for one in values.values()) > 1:
        several = ", ".join(f"PCR{index}" for index, one in values.items() if len(one) > 1)
        yield Finding(rules.MIXED_IMAGES, f"several values of each of {several}", statement)


def _general(statement: Statement, condition: Condition) -> Iterator[Finding]:
    """What is wrong with a condition of an Allow, whatever its key is."""
    if statement.effect is Effect.DENY:
        return
    operator, key = condition.operator, shown(condition.key)
    if operator.base == "Null":
        if "true" in map(str.lower, condition.values):
            yield Finding(rules.NULL_IN_ALLOW, f"it asks that {key} is missing", statement)
        return
    if operator.if_exists or operator.quantifier is Quantifier.ALL:
        found = f"{operator} on {key} holds where the request has no such key"
        yield Finding(rules.PASSES_WHEN_MISSING, found, statement)
    elif operator.negated:
        found = f"{operator} on {key} holds where the request has no such key"
        yield Finding(rules.NEGATED_IN_ALLOW, found, statement)


def _of_register(statement: Statement, condition: Condition) -> Iterator[Finding]:
    def found(rule: Rule, sentence: str) -> Finding:
        return Finding(rule, sentence, statement)

    operator, index = condition.operator, register_index(condition.key)
    name = condition.key[len(ATTESTATION_PREFIX) :]
    if index is None:
        yield found(rules.NOT_A_REGISTER, f"{shown(name)} is no register of an enclave")
        return
    if name.lower() == "imagesha384":
        yield found(rules.IMAGE_SHA384, "it names ImageSha384")
    if operator.base == "Null":
        return
    if not operator.base.startswith("String"):
        yield found(rules.PCR_OPERATOR, f"PCR{index} is compared by {operator}")
        return
    if patterns := [one for one in condition.values if _is_pattern(condition, one)]:
        yield found(
            rules.PCR_WILDCARD, f"PCR{index} is compared with the pattern {shown(patterns[0])}"
        )
        return
    yield from _of_values(statement, condition, index)
    if "IgnoreCase" not in operator.base:
        capitals = any(_HEX.fullmatch(one) and one != one.lower() for one in condition.values)
        rule = rules.CASE_SENSITIVE_HEX if capitals else rules.CASE_SENSITIVE_OPERATOR
        has = "a value in capitals" if capitals else "a value"
        yield found(rule, f"PCR{index} is compared by {operator} with {has}")


def _is_pattern(condition: Condition, value: str) -> bool:
    """Whether more than one value fits: by wildcards or a variable, perhaps of itself."""
    wild = "Like" in condition.operator.base and has_wildcard(value)
    return wild or (condition.has_variables and "${" in value)


def _of_values(statement: Statement, condition: Condition, index: int) -> Iterator[Finding]:
    for value in condition.values:
        if not _HEX.fullmatch(value):
            what = f"PCR{index} is compared with {shown(value)}, of {len(value)} characters"
            yield Finding(rules.NOT_A_PCR, what, statement)
        elif not value.strip("0") and condition.operator.negated is (
            statement.effect is Effect.DENY
        ):
            yield Finding(rules.ZERO_PCR, f"it lets in a PCR{index} of zeros", statement)


def _of_deny(statement: Statement) -> Iterator[Finding]:
    about = [one for one in statement.conditions if is_attestation(one.key)]
    negated = (register_index(one.key) for one in about if one.operator.negated)
    registers = sorted({index for index in negated if index is not None})
    if len(registers) > 1:
        several = ", ".join(f"PCR{index}" for index in registers)
        found = f"it fires only where all of {several} differ"
        yield Finding(rules.DENY_MIXES_PCRS, found, statement)
    others = [action for action in _WITHOUT_RECIPIENT if covers(statement, action)]
    alone = len(about) == len(statement.conditions) > 0
    if others and alone and all(one.operator.holds(one.values, ()) for one in about):
        found = f"it fires for {cut(', '.join(others))} whoever calls, since these have no PCRs"
        yield Finding(rules.DENY_TOO_WIDE, found, statement)
