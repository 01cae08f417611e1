"""Fuzzes explanations: a policy, a NUL, and perhaps a CloudTrail event of the call."""

import json

from support.denials import DENIALS, ENCLAVE, KEY, PCRS, ROLE, Denial, call
from support.events import DENIED, EVENT

from kmstool.errors import InputError, PolicyError, SettingError
from kmstool.policy.cloudtrail import CloudTrailEvent, parse_events
from kmstool.policy.evaluate import Policy, Request, evaluate, parse_policy
from kmstool.policy.explain import Verdict, explain
from kmstool.policy.explain_denial import denial_hint
from kmstool.policy.explain_event import event_advice

CALL = call()


def target(data: bytes) -> None:
    text, _, log = data.partition(b"\0")
    try:
        policy = parse_policy(text.decode("latin-1"))
    except PolicyError as error:
        check_text(str(error))
        return
    event = read_event(log)
    check(policy, CALL, None)
    if event is not None:
        try:
            check(policy, event.request(principal=ROLE, key_arn=KEY), event)
        except SettingError as error:
            check_text(str(error))
    hint = denial_hint(
        policy,
        action="kms:Decrypt",
        key_arn=KEY,
        pcrs=PCRS,
        encryption_context={"tenant": "red"},
        encryption_algorithm=None,
        said=log.decode("latin-1"),
    )
    assert hint.isprintable()


def read_event(log: bytes) -> CloudTrailEvent | None:
    try:
        return parse_events(log)[0]
    except InputError:
        return None


def check(policy: Policy, request: Request, event: CloudTrailEvent | None) -> None:
    explanation = explain(policy, request)
    decision = evaluate(policy, request)
    assert (explanation.verdict is Verdict.ALLOWED) is decision.allowed
    undecided = decision.decided_by is not None and decision.decided_by.undecided
    assert (explanation.verdict is Verdict.UNKNOWN) is undecided
    said = [explanation.reason, *explanation.advice]
    said += [line for one in explanation.statements for line in one.lines()]
    said += event_advice(event, explanation) if event is not None else []
    assert all(line and line.isprintable() for line in said)
    assert bool(explanation.advice) is not decision.allowed
    assert sorted(one.index for one in explanation.statements) == list(
        range(len(policy.statements))
    )
    json.dumps(explanation.as_json())


def check_text(text: str) -> None:
    assert text.isprintable()


def seed(row: Denial) -> bytes:
    return json.dumps({"Version": "2012-10-17", "Statement": row.statements}).encode()


SEEDS: list[bytes] = [
    *(seed(row) for row in DENIALS[::3]),
    *(
        json.dumps({"Version": "2012-10-17", "Statement": [ENCLAVE]}).encode() + b"\0" + log
        for log in (
            json.dumps(EVENT).encode(),
            json.dumps(EVENT | DENIED).encode(),
            f"User: {ROLE} is not authorized to perform: kms:Decrypt".encode(),
        )
    ),
]
