"""The known mistakes in the key policy of an enclave's key, found without asking KMS.

It reads the policy as it stands and asks of each Allow what it lets past: the operations that take
an attestation, the ways around the conditions, sealing; less what an unconditional Deny takes from
everybody. It knows mistakes, not intentions: no finding means that none of docs/reference/
policy-check.md was found, not that the policy is the one you want.

Never: evaluates a request (`evaluate.py`). Never sees grants and the key: `check_key.py`.
"""

import re
from collections.abc import Iterator
from typing import Final

from kmstool.policy import check_pcrs
from kmstool.policy import check_rules as rules
from kmstool.policy.actions import (
    KNOWN_ACTIONS,
    OPENING_ACTIONS,
    SEALING_ACTIONS,
    WAYS_AROUND,
    covers,
    has_wildcard,
    is_denied_to_all,
    pattern_covers,
)
from kmstool.policy.build import IMAGE_PCRS
from kmstool.policy.check_rules import Finding, Weight
from kmstool.policy.parse import Condition, Effect, Policy, PrincipalKind, Statement, read_policy
from kmstool.policy.printable import shown

__all__ = ["Finding", "Weight", "check_policy"]

# What says whose callers are meant by "*": one account or organisation in each value, whatever the
# operator makes of stars.
_ACCOUNT = re.compile(r"[0-9]{12}")
_CALLER_KEYS: Final = {
    "kms:calleraccount": _ACCOUNT,
    "aws:principalaccount": _ACCOUNT,
    "aws:principalorgid": re.compile(r"[^*?]+"),
    "aws:principalarn": re.compile(r"arn:aws[a-z-]*:(?:iam|sts)::[0-9]{12}:.+"),
}
# These compare part by part. In StringLike a star reaches over colons, and a role's path may hold
# them: arn:*:iam::ACCOUNT:role/NAME fits a role of any account.
_OF_ANY_PARTITION = re.compile(r"arn:[^:]*:(?:iam|sts)::[0-9]{12}:.+")
_BY_PARTS: Final = ("ArnEquals", "ArnLike")
_NAMING: Final = ("StringEquals", "StringEqualsIgnoreCase", "StringLike", *_BY_PARTS)


def check_policy(text: str) -> tuple[Finding, ...]:
    """Finds the known mistakes in a key policy, in the order of its statements.

    Args:
        text: the policy, up to 32 KiB of JSON.

    Raises:
        PolicyError: it is not a key policy.
    """
    policy = read_policy(text)
    found: list[Finding] = []
    for statement in policy.statements:
        found += _of_form(statement)
        found += check_pcrs.findings_of(statement)
        if statement.effect is Effect.ALLOW:
            found += _of_allow(policy, statement)
    found += _of_denies(policy)
    if not _opens(policy):
        found.append(Finding(rules.NOBODY_OPENS, "it lets nobody decrypt or derive"))
    return tuple(dict.fromkeys(found))


def _of_form(statement: Statement) -> Iterator[Finding]:
    if statement.actions is None or statement.resources is None:
        missing = "Action" if statement.actions is None else "Resource"
        yield Finding(rules.NO_EFFECT, f"it has no {missing}", statement)
    if statement.not_action:
        named = ", ".join(map(shown, statement.actions or ()))
        yield Finding(rules.NOT_ACTION, f"it speaks of everything but {named}", statement)
    for pattern in statement.actions or ():
        if not any(pattern_covers(pattern, action) for action in KNOWN_ACTIONS):
            found = f"{shown(pattern)} is no action of KMS that is known here"
            yield Finding(rules.UNKNOWN_ACTION, found, statement)
    if statement.not_principal:
        named = ", ".join(shown(one.text) for one in statement.principals)
        yield Finding(rules.NOT_PRINCIPAL, f"it speaks of everybody but {named}", statement)
    for one in statement.principals:
        if one.kind is PrincipalKind.DELETED:
            yield Finding(rules.DELETED_PRINCIPAL, f"it names {shown(one.text)}", statement)


def _of_allow(policy: Policy, statement: Statement) -> Iterator[Finding]:
    attested = check_pcrs.asks_for_attestation(statement)
    around = _reach(policy, statement, tuple(WAYS_AROUND))
    sealing = _reach(policy, statement, SEALING_ACTIONS)
    delegates = False
    if attested:
        never = [*around, *(one for one in sealing if one not in _WITH_RECIPIENT)]
        if never:
            what = f"it asks for an attestation for {', '.join(never)}"
            yield Finding(rules.PCR_ON_OTHER_ACTION, what, statement)
    else:
        findings = list(_ways_around(statement, around))
        delegates = any(one.rule is rules.ROOT_DELEGATION for one in findings)
        yield from findings
        unpinned = [one for one in sealing if not check_pcrs.pinned_by_denies(policy, one)]
        if unpinned and not delegates:
            what = f"{_who(statement)} may use {', '.join(unpinned)} without an attestation"
            yield Finding(rules.OUTSIDERS_MAY_SEAL, what, statement)
    if not delegates:
        yield from _opening(policy, statement)
        yield from _accounts(statement)
    anyone = any(one.kind is PrincipalKind.ANYONE for one in statement.principals)
    if (
        anyone
        and not statement.not_principal
        and not any(map(_names_callers, statement.conditions))
    ):
        yield Finding(rules.OPEN_TO_ANYONE, "it lets in callers of every account", statement)


_WITH_RECIPIENT = ("kms:GenerateDataKey", "kms:GenerateDataKeyPair")


def _reach(policy: Policy, statement: Statement, actions: tuple[str, ...]) -> list[str]:
    """The actions that the statement speaks of and nobody takes away from everybody."""
    return [one for one in actions if covers(statement, one) and not is_denied_to_all(policy, one)]


def _ways_around(statement: Statement, around: list[str]) -> Iterator[Finding]:
    # What NotAction names is never in `around`; NotAction itself is a finding of its own.
    for pattern in statement.actions or ():
        covered = [action for action in around if pattern_covers(pattern, action)]
        if not has_wildcard(pattern):
            for action in covered:
                yield Finding(
                    rules.WAY_RULES[action], f"{_who(statement)} may use {action}", statement
                )
        elif covered:
            accounts = any(one.kind is PrincipalKind.ACCOUNT for one in statement.principals)
            everything = accounts and len(covered) == len(WAYS_AROUND)
            rule = rules.ROOT_DELEGATION if everything else rules.WILDCARD_ACTION
            rule = _only_way(covered, pattern) or rule
            what = f"{_who(statement)} may use {shown(pattern)}, which covers {', '.join(covered)}"
            yield Finding(rule, what, statement)


def _only_way(covered: list[str], pattern: str) -> rules.Rule | None:
    """Of `kms:*` with all ways but one denied, the finding is the one that is left."""
    return rules.WAY_RULES[covered[0]] if len(covered) == 1 and pattern in ("*", "kms:*") else None


def _opening(policy: Policy, statement: Statement) -> Iterator[Finding]:
    """Who decrypts or derives has to have PCR0, PCR1 and PCR2 right."""
    mine = check_pcrs.named(statement)
    by_registers: dict[frozenset[int], list[str]] = {}
    for action in _reach(policy, statement, OPENING_ACTIONS):
        pinned = mine | set(check_pcrs.pinned_by_denies(policy, action))
        by_registers.setdefault(frozenset(pinned), []).append(action)
    for registers, actions in by_registers.items():
        if registers.issuperset(IMAGE_PCRS):
            continue
        may = f"{_who(statement)} may use {', '.join(actions)}"
        if not registers:
            yield Finding(rules.NO_ATTESTATION, f"{may} without an attestation", statement)
        elif registers == {0}:
            yield Finding(rules.PCR0_ALONE, f"{may} by PCR0 alone", statement)
        else:
            named = ", ".join(f"PCR{index}" for index in sorted(registers))
            yield Finding(rules.PCRS_MISSING, f"{may} by {named}", statement)


def _accounts(statement: Statement) -> Iterator[Finding]:
    for one in statement.principals:
        if one.kind is PrincipalKind.ACCOUNT and not statement.not_principal:
            what = f"IAM policies of {shown(one.text)} decide who uses it"
            yield Finding(rules.ACCOUNT_PRINCIPAL, what, statement)


def _names_callers(condition: Condition) -> bool:
    """Whether it holds for callers of accounts or organisations that it names, and for no others.

    A policy variable names nobody: ${aws:PrincipalAccount} is the caller's own, whoever calls.
    """
    operator = condition.operator
    # To IAM the Kelvin sign is no k, although its small letter is one.
    form = _CALLER_KEYS.get(condition.key.lower()) if condition.key.isascii() else None
    if form is None or condition.has_variables or operator.base not in _NAMING:
        return False
    if operator.base in _BY_PARTS:
        form = _OF_ANY_PARTITION
    named = all(form.fullmatch(value) for value in condition.values)
    return named and not check_pcrs.passes_when_missing(condition)


def _of_denies(policy: Policy) -> Iterator[Finding]:
    """Lists of several images in the Denies of several registers."""
    for action in OPENING_ACTIONS:
        lists = check_pcrs.pinned_by_denies(policy, action)
        several = [f"PCR{index}" for index, values in sorted(lists.items()) if len(values) > 1]
        if len(several) > 1:
            what = f"the Denies list several values of each of {', '.join(several)}"
            yield Finding(rules.MIXED_IMAGES, what)


def _opens(policy: Policy) -> bool:
    """Whether some enclave may decrypt or derive by some Allow."""
    allows = [one for one in policy.statements if one.effect is Effect.ALLOW]
    return any(
        check_pcrs.can_hold(one, check_pcrs.pinned_by_denies(policy, action))
        for one in allows
        for action in _reach(policy, one, OPENING_ACTIONS)
    )


def _who(statement: Statement) -> str:
    if statement.not_principal:
        return "whoever is not named"
    names = [shown(one.text) for one in statement.principals]
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
