"""What stands behind a condition or an element that did not fit: sentences for a person.

Each function looks at one statement and one request and says what usually is the matter. They are
guesses where they say "or", never where a value decides. PCRs are in `explain_attestation.py`.
Sources: AWS KMS Developer Guide, "AWS KMS condition keys" and "Key policies"; IAM User Guide,
"AWS global condition context keys" and "IAM JSON policy elements: Principal".
"""

from collections.abc import Callable
from typing import Final

from kmstool.policy.explain_attestation import attestation_causes
from kmstool.policy.keys import CONTEXT_PREFIX, is_attestation
from kmstool.policy.operators import parse_operator
from kmstool.policy.parse import PrincipalKind, Statement
from kmstool.policy.printable import cut, shown
from kmstool.policy.request import Request
from kmstool.policy.results import ConditionResult, StatementResult


def causes_of_miss(statement: Statement, result: StatementResult, request: Request) -> list[str]:
    """Why an Allow did not allow: its elements first, then its conditions."""
    found = []
    if not result.principal_matched:
        found.append(_principal_cause(statement, request))
    if not result.action_matched:
        found.append(_action_cause(statement, result, request))
    if not result.resource_matched:
        found.append(_resource_cause(statement, result, request))
    failed = [one for one in result.conditions if not one.matched and not one.undecided]
    found += attestation_causes([one for one in failed if is_attestation(one.key)], request)
    found += [_condition_cause(one, request) for one in failed if not is_attestation(one.key)]
    return found + _unknown_causes(result)


def causes_of_deny(statement: Statement, result: StatementResult, request: Request) -> list[str]:
    """Why a Deny denied."""
    found = []
    if statement.not_principal:
        found.append(f"{result.name} denies everybody but whom it names: {result.principal_reason}")
    if not result.conditions and not statement.not_principal:
        found.append(
            f"{result.name} denies {request.action} whatever the conditions: no Allow, no grant and"
            " no IAM policy gets around a Deny"
        )
    found += [
        f"{one.operator} holds where the key is missing: {result.name} denies every call without"
        f" {shown(one.key)}"
        for one in result.conditions
        if one.request_values is None and parse_operator(one.operator).negated
    ]
    found += attestation_causes(
        [one for one in result.conditions if is_attestation(one.key) and _excludes(one)], request
    )
    found += [
        _condition_cause(one, request)
        for one in result.conditions
        if not is_attestation(one.key) and _excludes(one)
    ]
    return found


def causes_of_unknown(result: StatementResult) -> list[str]:
    """What would have to be known."""
    found = _unknown_causes(result)
    if not result.principal_matched:
        found.append(
            f"{result.principal_reason}: aws sts get-caller-identity prints its ARN where the"
            " caller's credentials are"
        )
    if not result.resource_matched:
        found.append(result.resource_reason)
    return found


def _excludes(one: ConditionResult) -> bool:
    return parse_operator(one.operator).negated


def _unknown_causes(result: StatementResult) -> list[str]:
    """What is not known; one sentence for all the registers that are unknown for one reason."""
    registers: dict[str, list[str]] = {}
    others = []
    for one in result.conditions:
        key, _, why = one.reason.partition(" is unknown: ")
        if one.undecided and why and is_attestation(one.key):
            registers.setdefault(why, []).append(key)
        elif one.undecided:
            others.append(_unknown_cause(one))
    return [_are_unknown(keys) + why for why, keys in registers.items()] + others


def _are_unknown(keys: list[str]) -> str:
    *most, last = keys
    return f"{', '.join(most)} and {last} are unknown: " if most else f"{last} is unknown: "


def _unknown_cause(one: ConditionResult) -> str:
    special = _ABOUT.get(one.key.lower())
    return one.reason + (f"; {special}" if special else "")


# --- Elements ----------------------------------------------------------------------------------


def _principal_cause(statement: Statement, request: Request) -> str:
    named = statement.principals
    caller = request.principal
    for kind, sentence in _KINDS.items():
        if all(one.kind is kind for one in named):
            return sentence.format(names=cut(" and ".join(one.text for one in named)))
    for one in named:
        for differs, how in _NEARLY:
            if one.kind is PrincipalKind.IDENTITY and differs(one.text, caller):
                return f"the caller is {caller}, the policy names {one.text}: {how}"
    if deleted := [one.text for one in named if one.kind is PrincipalKind.DELETED]:
        return (
            f"the caller is {caller}, and {deleted[0]} in the policy is the id of a role or user"
            " that was deleted: one made again under the same name is another, so write its ARN"
            " into the policy again"
        )
    names = cut(" and ".join(_short(one.text) for one in named))
    return f"the caller is {_short(caller)}, the policy names {names}: these are not the same"


def _short(arn: str) -> str:
    """`role NAME of account ID`, or the text itself."""
    parts = arn.split(":", 5)
    kind, slash, name = parts[-1].partition("/")
    return f"{kind} {name} of account {parts[4]}" if slash and len(parts) == 6 else arn


def _name(arn: str) -> str:
    return arn.rpartition("/")[2]


def _account(arn: str) -> str:
    return arn.split(":")[4]


def _partition(arn: str) -> str:
    return arn.split(":")[1]


_NEARLY: Final[tuple[tuple[Callable[[str, str], bool], str], ...]] = (
    (lambda mine, theirs: mine.lower() == theirs.lower(), "names of roles are case-sensitive here"),
    (
        lambda mine, theirs: (
            _name(mine) == _name(theirs) and _partition(mine) != _partition(theirs)
        ),
        "the same name in another partition",
    ),
    (
        lambda mine, theirs: _name(mine) == _name(theirs) and _account(mine) != _account(theirs),
        "the same name in another account",
    ),
    (
        lambda mine, theirs: (
            _name(mine) == _name(theirs) and ":role/" in mine and ":role/" in theirs
        ),
        "the same name under another path, which is another role",
    ),
    (
        lambda mine, theirs: _name(mine) == _name(theirs) and mine != theirs,
        "a role and a user of one name are two principals",
    ),
)

_KINDS: Final = {
    PrincipalKind.SERVICE: "the statement is for an AWS service ({names}), which an enclave is not",
    PrincipalKind.DELETED: "the statement names {names}, the id of a role or user that was deleted:"
    " one made again under the same name is another, so write its ARN into the policy again",
    PrincipalKind.SESSION: "the statement names one session ({names}), and another session of the"
    " role is another principal: name the role",
    PrincipalKind.ACCOUNT: "the statement names an account ({names}), and the caller is of another",
}


def _action_cause(statement: Statement, result: StatementResult, request: Request) -> str:
    if statement.actions is None:
        return f"{result.name} has no Action: KMS takes such a statement, and it has no effect"
    patterns = cut(" ".join(statement.actions))
    if statement.not_action:
        return f"{result.name} is for all actions but {patterns}, and the call is {request.action}"
    return f"the call is {request.action}, and {result.name} is for {patterns} alone"


def _resource_cause(statement: Statement, result: StatementResult, request: Request) -> str:
    resources = statement.resources
    if resources is None:
        return (
            f"{result.name} has no Resource: KMS takes such a statement, and it applies to no key:"
            ' write "Resource": "*"'
        )
    if any(":alias/" in one for one in resources):
        return (
            f"{result.name} names an alias as its Resource, and KMS compares the ARN of the key:"
            ' write "*", which in a key policy is this key'
        )
    return (
        f"{result.name} is for another key than {request.resource}: in a key policy write"
        ' "Resource": "*", which is the key that it belongs to'
    )


# --- Conditions --------------------------------------------------------------------------------


def _condition_cause(one: ConditionResult, request: Request) -> str:
    key = one.key.lower()
    if key.startswith(CONTEXT_PREFIX):
        return _context_cause(one, request)
    if key == "kms:encryptioncontextkeys":
        has = _context_names(request)
        return f"{one.reason}: the names in the encryption context are {has or 'none'}"
    if special := _ABOUT.get(key):
        return f"{one.reason}: {special}"
    return one.reason


def _context_names(request: Request) -> str:
    names = request.context.get("kms:encryptioncontextkeys", ())
    return " and ".join(shown(name) for name in names)


def _context_cause(one: ConditionResult, request: Request) -> str:
    name = shown(one.key[len(CONTEXT_PREFIX) :])
    if one.request_values is None:
        has = _context_names(request)
        verb = "the statement denies all but" if _excludes(one) else "the policy wants"
        wants = f"{verb} {' or '.join(map(shown, one.policy_values))}"
        if has:
            return f"the encryption context lacks {name}, and {wants}: it has {has}"
        return f"the encryption context lacks {name}, and {wants}: the call had none at all"
    asked = {value.lower() for value in one.policy_values}
    if any(value.lower() in asked for value in one.request_values) and not _excludes(one):
        return f"{one.reason}: they differ in case alone, and {one.operator} compares it"
    return f"{one.reason}: an encryption context is compared byte for byte"


_SERVICE_ONLY = "it is there only where an AWS service calls KMS, and an enclave calls KMS itself"
_ABOUT: Final = {
    "kms:viaservice": "it is there only where an AWS service calls KMS for somebody, and an enclave"
    " calls KMS itself",
    "kms:requestalias": "it is there only where the call names the key by an alias, and kmstool"
    " names it by its ARN",
    "kms:granteeprincipal": "it is there only in CreateGrant",
    "kms:grantisforawsresource": _SERVICE_ONLY,
    "aws:calledvia": _SERVICE_ONLY,
    "aws:calledviafirst": _SERVICE_ONLY,
    "aws:calledvialast": _SERVICE_ONLY,
    "aws:viaawsservice": _SERVICE_ONLY,
    "aws:sourcearn": _SERVICE_ONLY,
    "aws:sourceaccount": _SERVICE_ONLY,
    "aws:sourceip": "KMS sees the address that the parent instance calls from, and none that means"
    " anything where the call comes through a VPC endpoint (aws:VpcSourceIp)",
    "aws:vpcsourceip": "it is there only where the call comes through a VPC endpoint",
    "aws:sourcevpc": "it is there only where the call comes through a VPC endpoint: the forwarder"
    " on the parent has to connect to that",
    "aws:sourcevpce": "it is there only where the call comes through a VPC endpoint: the forwarder"
    " on the parent has to connect to that",
    "aws:multifactorauthpresent": "the credentials of an instance's role never have it",
    "aws:multifactorauthage": "the credentials of an instance's role never have it",
    "aws:currenttime": "the call was outside the time that the policy sets",
    "aws:epochtime": "the call was outside the time that the policy sets",
    "aws:securetransport": "KMS is reached over TLS alone, so it is always true",
    "kms:calleraccount": "it is the account of the credentials",
    "aws:principalaccount": "it is the account of the credentials",
    "aws:principalarn": "it is the role's own ARN, not that of its session",
    "kms:encryptionalgorithm": "it is the algorithm of the call, SYMMETRIC_DEFAULT unless named",
}
