"""What `policy check` finds, held against the evaluator and against what `policy build` writes.

Two laws. A policy without a mistake lets nobody open anything without the image's PCR0, PCR1 and
PCR2, nor take a way around, whatever IAM policies say: the evaluator is asked. And what build
writes has no mistake but those that its caveats announce.
"""

import json
from hashlib import sha384
from typing import Any

from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from support.births import ACCOUNT, ADMINISTRATOR, IMAGE, KEY_ARN, SUCCESSOR

from kmstool.caveats import MIXED_IMAGES, NOT_LOCKED, OUTSIDERS_MAY_SEAL, PCR0_ALONE
from kmstool.errors import PolicyError
from kmstool.limits import NSM_PCR_COUNT_MAX
from kmstool.policy.actions import OPENING_ACTIONS, WAYS_AROUND
from kmstool.policy.build import KEY_KINDS
from kmstool.policy.check import Weight, check_policy
from kmstool.policy.design import KeyPolicy, Outsiders
from kmstool.policy.evaluate import Request, attestation_keys, evaluate, parse_policy

ROLE = f"arn:aws:iam::{ACCOUNT}:role/enclave"
ROOT = f"arn:aws:iam::{ACCOUNT}:root"
STRANGER = "arn:aws:iam::444455556666:role/enclave"
ATTESTATION = "kms:RecipientAttestation:"
ZEROS = dict.fromkeys(range(3), bytes(48))
PRINCIPALS = ["*", *({"AWS": one} for one in ("*", ROLE, ADMINISTRATOR, ROOT, ACCOUNT, STRANGER))]
ACTIONS = [
    "*", "kms:*", "kms:D*", "kms:De*", "kms:Decrypt", "kms:DeriveSharedSecret", "kms:Encrypt",
    "kms:Generate*", "kms:ReEncrypt*", "kms:?reateGrant", "kms:Describe*", "kms:Put*",
    "kms:PutKeyPolicy", "kms:*Key*", *WAYS_AROUND,
]  # fmt: skip
OPERATORS = [
    "StringEquals", "StringEqualsIgnoreCase", "StringNotEquals", "StringNotEqualsIgnoreCase",
    "StringLike", "StringNotLike",
]  # fmt: skip

# What a policy compares with: mostly the image, so that policies that hold are not rare.
texts = st.sampled_from([*(value.hex() for value in IMAGE.values()), IMAGE[0].hex().upper()])
values = st.one_of(texts, st.sampled_from([SUCCESSOR[0].hex(), "00" * 48, "a1*", "*", "a1" * 47]))
operators = st.one_of(
    st.sampled_from(["StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase"]),
    st.builds(
        lambda before, base, after: before + base + after,
        st.sampled_from(["", "", "ForAllValues:", "ForAnyValue:"]),
        st.sampled_from(OPERATORS),
        st.sampled_from(["", "", "IfExists"]),
    ),
)
registers = st.sampled_from(["PCR0", "PCR1", "PCR2", "pcr0", "PCR3", "ImageSha384", "NitroTPMPCR0"])


def image_condition(operator: str, indexes: tuple[int, ...]) -> dict[str, Any]:
    return {operator: {f"{ATTESTATION}PCR{index}": IMAGE[index].hex() for index in indexes}}


@st.composite
def conditions(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.integers(0, 5))
    if kind == 0:
        return {}
    if kind in (1, 2):
        found = image_condition("StringEqualsIgnoreCase", (0, 1, 2))
    elif kind == 3:
        found = image_condition(draw(operators), draw(st.sampled_from([(0,), (0, 1), (0, 1, 2)])))
    else:
        found = {
            draw(operators): {
                f"{ATTESTATION}{draw(registers)}": draw(
                    st.one_of(values, st.lists(values, min_size=1, max_size=2))
                )
            }
        }
    more = draw(st.sampled_from(["", "", "account", "null", "arn"]))
    if more == "account":
        found.setdefault("StringEquals", {})["kms:CallerAccount"] = ACCOUNT
    elif more == "null":
        found["Null"] = {f"{ATTESTATION}PCR0": draw(st.sampled_from(["true", "false"]))}
    elif more == "arn":
        found["ArnNotEquals"] = {"aws:PrincipalArn": ADMINISTRATOR}
    return found


@st.composite
def statements(draw: st.DrawFn) -> dict[str, Any]:
    found: dict[str, Any] = {
        "Effect": draw(st.sampled_from(["Allow", "Allow", "Deny"])),
        draw(st.sampled_from(["Principal"] * 6 + ["NotPrincipal"])): draw(
            st.sampled_from(PRINCIPALS)
        ),
        draw(st.sampled_from(["Action"] * 6 + ["NotAction"])): draw(
            st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=3)
        ),
        draw(st.sampled_from(["Resource"] * 6 + ["NotResource"])): draw(
            st.sampled_from(["*", "*", KEY_ARN, "arn:aws:kms:eu-west-1:*:key/*"])
        ),
    }
    condition = draw(conditions())
    return found | {"Condition": condition} if condition else found


def fences() -> list[dict[str, Any]]:
    """Denies that make a delegation hold."""
    deny = {"Effect": "Deny", "Principal": "*", "Resource": "*"}
    return [
        deny | {"Action": list(WAYS_AROUND)},
        *(
            deny
            | {
                "Action": list(OPENING_ACTIONS),
                "Condition": image_condition("StringNotEqualsIgnoreCase", (index,)),
            }
            for index in IMAGE
        ),
    ]


@st.composite
def policies(draw: st.DrawFn) -> str:
    found = draw(st.lists(statements(), min_size=1, max_size=3))
    if draw(st.booleans()):
        fence = fences()
        left_out = draw(st.sets(st.integers(0, len(fence) - 1), max_size=1))
        found += [one for number, one in enumerate(fence) if number not in left_out]
    return json.dumps({"Version": "2012-10-17", "Statement": found})


# These mistakes let nobody in.
SHUT_OUT = {"nobody-opens", "deny-too-wide", "case-sensitive-hex", "not-a-pcr"}
ATTACKS = [
    {},
    attestation_keys(ZEROS),
    *(
        attestation_keys(IMAGE | {index: SUCCESSOR[index]})
        for index in IMAGE
    ),
    attestation_keys(SUCCESSOR),
    attestation_keys(SUCCESSOR | {3: b"\xaa" * 48}),
]  # fmt: skip


@settings(max_examples=250, deadline=None)
@given(policies())
def test_a_policy_without_a_mistake_lets_nobody_past_the_attestation(text: str) -> None:
    try:
        policy = parse_policy(text)
    except PolicyError:
        assume(False)
    findings = check_policy(text)
    # Several images are a note, and then a mix of them is let in, as it says.
    codes = {one.rule.code for one in findings}
    if "nobody-opens" in codes:
        assert not opens_for_the_image(text)
    mistakes = {one.rule.code for one in findings if one.rule.weight is Weight.MISTAKE}
    if mistakes - SHUT_OUT or "mixed-images" in codes:
        event("a mistake")
        return
    event("no mistake")
    if opens_for_the_image(text):
        event("no mistake, and the image is let in")
    successor_named = SUCCESSOR[0].hex() in text
    for principal in (ROLE, ADMINISTRATOR, ROOT, STRANGER):
        for action in OPENING_ACTIONS:
            for context in ATTACKS:
                if successor_named and context.get(f"{ATTESTATION.lower()}pcr0") == (
                    SUCCESSOR[0].hex(),
                ):
                    continue  # PCR0 of two images, with PCR1 and PCR2 of one: what the policy says
                assert not allowed(policy, principal, action, context)
        for action in WAYS_AROUND:
            assert not allowed(policy, principal, action, {})


caller_keys = st.sampled_from(["kms:CallerAccount", "aws:PrincipalAccount", "aws:PrincipalArn"])
account_texts = st.sampled_from(
    [ACCOUNT, "*", "?*", "????????????", "4*", f"*{ACCOUNT}", f"?{ACCOUNT[1:]}",
     "${kms:CallerAccount}", "${aws:PrincipalAccount}"]
)  # fmt: skip
arns = st.builds(
    "arn:{}:iam::{}:role/{}".format,
    st.sampled_from(["aws", "*", "aws*"]), account_texts, st.sampled_from(["*", "enclave"]),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([*OPERATORS, "ArnLike", "ArnEquals"]), caller_keys, account_texts | arns)
def test_a_star_without_a_mistake_lets_in_no_stranger(operator: str, key: str, value: str) -> None:
    condition = image_condition("StringEqualsIgnoreCase", tuple(IMAGE))
    condition.setdefault(operator, {})[key] = value
    statement = {"Effect": "Allow", "Principal": "*", "Action": "kms:Decrypt", "Resource": "*"}
    text = json.dumps({"Version": "2012-10-17", "Statement": statement | {"Condition": condition}})
    try:
        policy = parse_policy(text)
    except PolicyError:
        assume(False)
    if any(one.rule.weight is Weight.MISTAKE for one in check_policy(text)):
        event("a mistake")
        return
    event("no mistake")
    assert not allowed(policy, STRANGER, "kms:Decrypt", attestation_keys(IMAGE))


def opens_for_the_image(text: str) -> bool:
    return allowed(parse_policy(text), ROLE, "kms:Decrypt", attestation_keys(IMAGE))


def allowed(policy: Any, principal: str, action: str, context: dict[str, tuple[str, ...]]) -> bool:
    request = Request(action=action, principal=principal, resource=KEY_ARN, context=context)
    return evaluate(policy, request, identity_allows=("kms:*",)).allowed


# --- What build writes --------------------------------------------------------------------------

pcr = st.integers(1, 2**384 - 1).map(lambda number: number.to_bytes(48, "big"))
more_registers = st.sets(st.integers(3, NSM_PCR_COUNT_MAX - 1), max_size=3)


@st.composite
def designs(draw: st.DrawFn) -> KeyPolicy:
    alone = draw(st.booleans())
    indexes = {0} if alone else {0, 1, 2}
    indexes |= draw(more_registers)
    image = st.fixed_dictionaries(dict.fromkeys(sorted(indexes), pcr))
    images = draw(st.lists(image, min_size=1, max_size=3, unique_by=lambda one: one[0]))
    spec = draw(st.sampled_from(sorted(KEY_KINDS)))
    outsiders: frozenset[Outsiders] = frozenset()
    if spec == "SYMMETRIC_DEFAULT":
        outsiders = draw(st.frozensets(st.sampled_from(Outsiders)))
    elif spec.startswith("RSA"):
        outsiders = draw(
            st.frozensets(st.sampled_from([Outsiders.ENCRYPT, Outsiders.RE_ENCRYPT_TO]))
        )
    delegation = draw(st.booleans())
    return KeyPolicy(
        account=ACCOUNT,
        key_spec=spec,
        images=tuple(images),
        administrator=draw(st.sampled_from([None, ADMINISTRATOR])),
        pcr0_alone=alone,
        outsiders=outsiders,
        root_delegation=delegation,
        keep_put_key_policy=delegation and draw(st.booleans()),
        tools=draw(st.booleans()),
    )


@settings(max_examples=100, deadline=None)
@given(designs())
def test_what_build_writes_has_the_mistakes_that_its_caveats_announce_and_no_other(
    design: KeyPolicy,
) -> None:
    mistakes: set[str] = set()
    notes: set[str] = set()
    for one in check_policy(design.text):
        (mistakes if one.rule.weight is Weight.MISTAKE else notes).add(one.rule.code)
    announced = {
        PCR0_ALONE: {"pcr0-alone" if set(design.images[0]) == {0} else "pcrs-missing"},
        NOT_LOCKED: {"put-key-policy"},
    }
    caveats = set(design.caveats)
    assert mistakes == set().union(*(announced.get(one, set()) for one in caveats))
    assert ("outsiders-may-seal" in notes) is (OUTSIDERS_MAY_SEAL in caveats)
    assert ("account-principal" in notes) is design.root_delegation
    registers = len(design.images[0])
    assert ("mixed-images" in notes) is (MIXED_IMAGES in caveats and registers > 1)
    if not caveats:
        assert mistakes == set()


@settings(max_examples=40, deadline=None)
@given(designs())
def test_what_build_writes_lets_in_its_images_and_nobody_without_one(design: KeyPolicy) -> None:
    policy = parse_policy(design.text)
    opening = [one for one in KEY_KINDS[design.key_spec].actions if one in OPENING_ACTIONS]
    context: dict[str, tuple[str, ...]]
    for action in opening:
        for image in design.images:
            for principal in (ROLE, ADMINISTRATOR, ROOT):
                context = attestation_keys(image)
                assert allowed(policy, principal, action, context)
                for index in image:
                    wrong = {**image, index: sha384(image[index]).digest()}
                    assert not allowed(policy, principal, action, attestation_keys(wrong))
                    lacking = {one: value for one, value in image.items() if one != index}
                    assert not allowed(policy, principal, action, attestation_keys(lacking))
            assert not allowed(policy, STRANGER, action, attestation_keys(image))
        for principal in (ROLE, ADMINISTRATOR, ROOT, STRANGER):
            assert not allowed(policy, principal, action, {})
            assert not allowed(policy, principal, action, attestation_keys(ZEROS))
    for action in WAYS_AROUND:
        for principal in (ROLE, ADMINISTRATOR, ROOT):
            open_to = design.keep_put_key_policy and action == "kms:PutKeyPolicy"
            assert allowed(policy, principal, action, {}) is open_to
