"""What must hold for every policy and every request (hypothesis)."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kmstool.policy.evaluate import Decision, Request, evaluate, parse_policy
from kmstool.policy.operators import OPERATOR_NAMES

ACCOUNT = "111122223333"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/enclave"
KEY = f"arn:aws:kms:eu-central-1:{ACCOUNT}:key/1234abcd"
PRINCIPALS = ["*", ROLE, ROLE + "2", ACCOUNT, "444455556666"]
KEYS = ["kms:RecipientAttestation:PCR0", "kms:EncryptionContext:a", "kms:ViaService"]
VALUES = ["a", "b", "*", "A"]

operators = st.sampled_from(
    sorted(name for name in OPERATOR_NAMES if name.startswith("String"))
).flatmap(
    lambda base: st.sampled_from(
        [base, f"{base}IfExists", f"ForAllValues:{base}", f"ForAnyValue:{base}"]
    )
)
conditions = st.dictionaries(
    operators,
    st.dictionaries(
        st.sampled_from(KEYS),
        st.lists(st.sampled_from(VALUES), min_size=1, max_size=2),
        min_size=1,
        max_size=2,
    ),
    max_size=2,
)
statements = st.fixed_dictionaries(
    {
        "Effect": st.sampled_from(["Allow", "Deny"]),
        "Principal": st.sampled_from(PRINCIPALS).map(lambda text: {"AWS": text}),
        "Action": st.sampled_from(["kms:*", "kms:Decrypt", "kms:Enc*"]),
        "Resource": st.just("*"),
        "Condition": conditions,
    }
)
policies = st.lists(statements, min_size=1, max_size=5)
contexts = st.dictionaries(
    st.sampled_from(KEYS), st.lists(st.sampled_from(VALUES), max_size=2).map(tuple)
)
requests = st.builds(
    Request,
    action=st.just("kms:Decrypt"),
    principal=st.sampled_from([ROLE, "arn:aws:iam::444455556666:user/x"]),
    resource=st.just(KEY),
    context=contexts,
)
identities = st.sampled_from([(), ("kms:*",)])


def decide(rules: list[dict[str, Any]], request: Request, identity: tuple[str, ...]) -> Decision:
    policy = parse_policy(json.dumps({"Version": "2012-10-17", "Statement": rules}))
    return evaluate(policy, request, identity_allows=identity)


@settings(deadline=None)
@given(policies, statements, requests, identities, st.integers(0, 5))
def test_a_further_deny_never_allows(
    rules: list[dict[str, Any]],
    rule: dict[str, Any],
    request: Request,
    identity: tuple[str, ...],
    place: int,
) -> None:
    before = decide(rules, request, identity)
    rules.insert(place, rule | {"Effect": "Deny"})
    assert decide(rules, request, identity).allowed <= before.allowed


@settings(deadline=None)
@given(st.data(), policies, requests, identities)
def test_the_order_of_statements_does_not_matter(
    data: st.DataObject, rules: list[dict[str, Any]], request: Request, identity: tuple[str, ...]
) -> None:
    shuffled = data.draw(st.permutations(rules))
    assert decide(rules, request, identity).allowed is decide(shuffled, request, identity).allowed


@settings(deadline=None)
@given(policies, requests)
def test_what_iam_allows_only_ever_helps_an_allow(
    rules: list[dict[str, Any]], request: Request
) -> None:
    """With certain statements alone, more from IAM never refuses what was allowed."""
    for rule in rules:
        for block in rule["Condition"].values():
            block.pop("kms:ViaService", None)
    less, more = decide(rules, request, ()), decide(rules, request, ("kms:*",))
    if not any(one.undecided for one in more.statements):
        assert less.allowed <= more.allowed


@settings(deadline=None)
@given(policies, requests, identities)
def test_a_decision_agrees_with_its_statements(
    rules: list[dict[str, Any]], request: Request, identity: tuple[str, ...]
) -> None:
    decision = decide(rules, request, identity)
    effects = {one.effect.value for one in decision.statements if one.matched}
    undecided = any(one.undecided for one in decision.statements)
    assert decision.allowed is (effects == {"Allow"} and not undecided)
    assert (decision.decided_by is None) <= (not decision.allowed)
    for one in decision.statements:
        assert not (one.matched and one.undecided)
        if one.matched:
            assert one.applies
            assert not one.unmatched_conditions
        for condition in one.conditions:
            assert not (condition.matched and condition.undecided)


@settings(deadline=None)
@given(policies, requests, identities)
def test_no_attestation_is_allowed_through_a_pinned_statement(
    rules: list[dict[str, Any]], request: Request, identity: tuple[str, ...]
) -> None:
    pin = {"StringEqualsIgnoreCase": {"kms:RecipientAttestation:PCR8": "ab" * 48}}
    pinned = [rule | {"Condition": pin} for rule in rules]
    assert not decide(pinned, request, identity).allowed


@settings(max_examples=200, deadline=None)
@given(policies, requests, identities)
def test_what_is_said_is_printable(
    rules: list[dict[str, Any]], request: Request, identity: tuple[str, ...]
) -> None:
    decision = decide(rules, request, identity)
    for line in decision.explain():
        assert line.isprintable()
        assert not line.endswith(".")


@settings(deadline=None)
@given(st.text(alphabet=st.characters(max_codepoint=255)), st.text(), st.text())
def test_hostile_text_is_printable_too(sid: str, value: str, name: str) -> None:
    rule = {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": {"AWS": ROLE},
        "Action": "kms:Decrypt",
        "Resource": [value.replace("$", "") or "x", "y"],
        "Condition": {"StringEquals": {"kms:EncryptionContext:x": value.replace("$", "")}},
    }
    request = Request(
        action="kms:Decrypt",
        principal=ROLE,
        resource=KEY,
        context={f"kms:EncryptionContext:{name}": (name,), "kms:EncryptionContext:x": (name,)},
    )
    for line in decide([rule], request, ()).explain():
        assert line.isprintable()
