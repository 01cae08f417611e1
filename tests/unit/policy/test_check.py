"""One sample for each known mistake, and what must not be taken for one.

The samples are policies and answers of KMS' as the AWS CLI prints them; a sample's name is the code
of its mistake.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from botocore.session import Session
from support.births import ACCOUNT, ADMINISTRATOR, IMAGE, SUCCESSOR

from kmstool.errors import InputError, PolicyError
from kmstool.limits import INPUT_MAX
from kmstool.policy import check_rules
from kmstool.policy.actions import (
    KEYLESS_ACTIONS,
    OTHER_ACTIONS,
    RECIPIENT_ACTIONS,
    SEALING_ACTIONS,
    WAYS_AROUND,
)
from kmstool.policy.check import Weight, check_policy
from kmstool.policy.check_key import check_grants, check_metadata, policy_in
from kmstool.policy.check_rules import RULES, WAY_RULES, Finding

SAMPLES = Path(__file__).parent / "samples"
POLICIES = sorted(path for path in SAMPLES.glob("*.json") if path.name.count(".") == 1)
KEYS = sorted(SAMPLES.glob("*.key.json"))
GRANTS = sorted(SAMPLES.glob("*.grants.json"))
ROLE = f"arn:aws:iam::{ACCOUNT}:role/enclave"
ROOT = f"arn:aws:iam::{ACCOUNT}:root"
ATTESTATION = "kms:RecipientAttestation:"
CALLER = {"StringEquals": {"kms:CallerAccount": ACCOUNT}}


def code_of(path: Path) -> str:
    return path.name.partition(".")[0]


def codes(findings: tuple[Finding, ...]) -> list[str]:
    return sorted({one.rule.code for one in findings})


def expected(path: Path) -> list[str]:
    return [] if code_of(path) == "good" else [code_of(path)]


@pytest.mark.parametrize("path", POLICIES, ids=code_of)
def test_each_mistake_is_found_in_its_sample_and_no_other_is(path: Path) -> None:
    findings = check_policy(path.read_text())
    assert codes(findings) == expected(path)
    for one in findings:
        assert one.sentence.isprintable()
        assert one.rule is RULES[one.rule.code]


@pytest.mark.parametrize("path", KEYS, ids=code_of)
def test_mistakes_of_the_key(path: Path) -> None:
    assert codes(check_metadata(path.read_bytes())) == expected(path)


@pytest.mark.parametrize("path", GRANTS, ids=code_of)
def test_mistakes_of_its_grants(path: Path) -> None:
    assert codes(check_grants(path.read_bytes())) == expected(path)


def test_there_is_a_sample_for_each_rule() -> None:
    assert {code_of(path) for path in (*POLICIES, *KEYS, *GRANTS)} == {*RULES, "good"}
    assert len({id(rule) for rule in RULES.values()}) == len(RULES)
    ours = {one for one in vars(check_rules).values() if isinstance(one, check_rules.Rule)}
    assert ours | set(WAY_RULES.values()) == set(RULES.values())


def test_a_grant_is_named_with_what_it_gives() -> None:
    (finding,) = check_grants((SAMPLES / "grant.grants.json").read_bytes())
    assert "role/other" in finding.sentence
    assert "Decrypt, DescribeKey" in finding.sentence


# --- Policies of one statement ------------------------------------------------------------------


def pcrs(values: dict[int, bytes] | None = None) -> dict[str, str]:
    return {f"{ATTESTATION}PCR{i}": value.hex() for i, value in (values or IMAGE).items()}


def allow(action: object = "kms:Decrypt", condition: object = None, **more: Any) -> dict[str, Any]:
    statement = {"Effect": "Allow", "Principal": {"AWS": ROLE}, "Action": action, "Resource": "*"}
    if condition is None:
        condition = {"StringEqualsIgnoreCase": pcrs()}
    return statement | {"Condition": condition} | more


def deny(action: object, condition: object = None, **more: Any) -> dict[str, Any]:
    statement = {"Effect": "Deny", "Principal": "*", "Action": action, "Resource": "*"}
    return (statement if condition is None else statement | {"Condition": condition}) | more


def denies_of_each(action: object, *indexes: int, **more: Any) -> list[dict[str, Any]]:
    return [
        deny(
            action,
            {"StringNotEqualsIgnoreCase": {f"{ATTESTATION}PCR{index}": IMAGE[index].hex()}},
            **more,
        )
        for index in indexes
    ]


def found(*statements: dict[str, Any]) -> list[str]:
    return codes(check_policy(json.dumps({"Version": "2012-10-17", "Statement": statements})))


def test_a_plain_allow_has_no_mistake() -> None:
    assert found(allow()) == []
    assert found(allow("kms:decrypt")) == []
    for look in ("kms:DescribeKey", "kms:Get*", "kms:List*", "kms:ScheduleKeyDeletion"):
        assert found(allow(), allow(look, {})) == []


@pytest.mark.parametrize("action", WAYS_AROUND)
@pytest.mark.parametrize("length", [3, 5, -1])
def test_every_wildcard_that_covers_a_way_around(action: str, length: int) -> None:
    name = action.removeprefix("kms:")
    for pattern in (f"kms:{name[:length]}*", f"KMS:{name[:length]}*", f"*:*{name[1:]}"):
        if pattern.startswith("*"):
            continue  # no action: a service stands before the colon
        assert "wildcard-action" in found(allow(pattern, {})), pattern
    assert "wildcard-action" in found(allow(f"kms:?{name[1:]}", {}))
    assert found(allow(), allow(action.upper().replace("KMS:", "kms:"), {})) == [
        WAY_RULES[action].code
    ]


@pytest.mark.parametrize("everything", ["*", "kms:*"])
@pytest.mark.parametrize("principal", [{"AWS": ROOT}, {"AWS": ACCOUNT}])
def test_root_delegation(everything: str, principal: object) -> None:
    assert found(allow(everything, {}, Principal=principal)) == ["root-delegation"]
    assert found(allow(everything, {}))[-1] == "wildcard-action"
    some = allow("kms:Create*", {}, Principal=principal)
    assert found(allow(), some) == ["account-principal", "wildcard-action"]


def test_what_everybody_is_denied_is_no_finding() -> None:
    root = allow("kms:*", {}, Principal={"AWS": ROOT})
    around = deny(list(WAYS_AROUND))
    sealing = deny([one for one in SEALING_ACTIONS if one not in RECIPIENT_ACTIONS])
    pinned = denies_of_each(list(RECIPIENT_ACTIONS), 0, 1, 2)
    assert found(root, around, sealing, *pinned) == ["account-principal"]
    # Each of these is needed, and each has to hold for everybody, always and for this key.
    assert "pcrs-missing" in found(root, around, sealing, *pinned[1:])
    assert "pcr0-alone" in found(root, around, sealing, pinned[0])
    assert "no-attestation" in found(root, around, sealing)
    assert "outsiders-may-seal" in found(root, around, *pinned)
    assert "root-delegation" in found(root, sealing, *pinned)
    for weaker in (
        {"Principal": {"AWS": ROLE}},
        {"Condition": {"Bool": {"aws:SecureTransport": "false"}}},
        {"Resource": f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/*"},
    ):
        assert "root-delegation" in found(root, around | weaker, sealing, *pinned)
    for name in ("Principal", "Resource"):
        turned = {key: value for key, value in around.items() if key != name}
        assert "root-delegation" in found(root, turned | {f"Not{name}": "*"}, sealing, *pinned)
    beside = {"StringNotEquals": {"aws:PrincipalArn": ADMINISTRATOR}}
    narrowed = [one | {"Condition": one["Condition"] | beside} for one in pinned]
    assert "no-attestation" in found(root, around, sealing, *narrowed)
    # Neither of these fires for a request without an attestation.
    for operator in ("StringEqualsIgnoreCase", "ForAnyValue:StringNotEqualsIgnoreCase"):
        sleeping = [
            one | {"Condition": {operator: one["Condition"]["StringNotEqualsIgnoreCase"]}}
            for one in pinned
        ]
        assert "no-attestation" in found(root, around, sealing, *sleeping)
    others = denies_of_each(list(RECIPIENT_ACTIONS), 0, 1, 2, Principal={"AWS": ROLE})
    assert "no-attestation" in found(root, around, sealing, *others)


def test_one_way_that_is_left_open_is_named() -> None:
    root = allow("kms:*", {}, Principal={"AWS": ROOT})
    for left in WAYS_AROUND:
        around = deny([one for one in WAYS_AROUND if one != left])
        assert WAY_RULES[left].code in found(root, around)


def test_lists_in_denies_mix_images() -> None:
    lists = [
        deny(
            "kms:Decrypt",
            {
                "StringNotEqualsIgnoreCase": {
                    f"{ATTESTATION}PCR{index}": [IMAGE[index].hex(), SUCCESSOR[index].hex()]
                }
            },
        )
        for index in IMAGE
    ]
    assert found(allow(), *lists) == ["mixed-images"]
    assert found(allow(), lists[0]) == []


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        ({"ForAllValues:StringEqualsIgnoreCase": pcrs()}, "passes-when-missing"),
        ({"ForAnyValue:StringEqualsIgnoreCaseIfExists": pcrs()}, "passes-when-missing"),
        ({"ForAllValues:StringNotLike": pcrs()}, "passes-when-missing"),
        ({"StringNotLike": pcrs()}, "negated-in-allow"),
        ({"Null": {f"{ATTESTATION}PCR0": "true"}}, "null-in-allow"),
        ({"Null": {f"{ATTESTATION}PCR0": "false"}}, "no-attestation"),
        ({"StringEqualsIgnoreCase": {f"{ATTESTATION}PCR0": "*"}}, "not-a-pcr"),
        ({"StringEqualsIgnoreCase": {f"{ATTESTATION}PCR0": ["a1" * 48, "A1" * 32]}}, "not-a-pcr"),
        ({"StringEqualsIgnoreCase": {f"{ATTESTATION}PCR0": "00" * 48}}, "zero-pcr"),
        ({"StringEqualsIgnoreCase": {f"{ATTESTATION}ImageSha384": "00" * 48}}, "zero-pcr"),
        ({"StringEqualsIgnoreCase": {f"{ATTESTATION}ImageSha384": "a1" * 48}}, "pcr0-alone"),
        ({"StringEqualsIgnoreCase": {f"{ATTESTATION}PCR32": "a1" * 48}}, "no-attestation"),
        ({"StringEqualsIgnoreCase": {f"{ATTESTATION}PCR01": "a1" * 48}}, "no-attestation"),
        ({"StringEqualsIgnoreCase": {f"{ATTESTATION}NitroTPMPCR0": "a1" * 48}}, "no-attestation"),
        ({"StringEquals": {f"{ATTESTATION}PCR0": "A1" * 48}}, "case-sensitive-hex"),
        ({"StringLike": {f"{ATTESTATION}PCR0": "?" * 96}}, "pcr-wildcard"),
        ({"StringEquals": {f"{ATTESTATION}PCR0": f"${{{ATTESTATION}PCR0}}"}}, "pcr-wildcard"),
        ({"ArnLike": {f"{ATTESTATION}PCR0": "arn:aws:iam::*:role/*"}}, "pcr-operator"),
        ({"StringEquals": {"kms:ViaService": "s3.eu-west-1.amazonaws.com"}}, "no-attestation"),
        # To IAM U+212A is no letter K, so this is no key of KMS'.
        ({"StringEqualsIgnoreCase": {"\u212ams:RecipientAttestation:PCR0": "a1" * 48}},
         "no-attestation"),
    ],
)  # fmt: skip
def test_conditions(condition: object, code: str) -> None:
    assert code in found(allow(condition=condition))


@pytest.mark.parametrize(
    "operator",
    [
        "ForAllValues:StringEqualsIgnoreCase",
        "StringEqualsIgnoreCaseIfExists",
        "StringNotEqualsIgnoreCase",
    ],
)
def test_a_condition_that_needs_no_attestation_hides_no_way_around(operator: str) -> None:
    assert "create-grant" in found(allow("kms:CreateGrant", {operator: pcrs()}))
    for missing, code in (("true", "create-grant"), ("false", "pcr-on-other-action")):
        condition = {"Null": {f"{ATTESTATION}PCR0": missing}}
        assert code in found(allow("kms:CreateGrant", condition))
    assert found(allow(), allow("kms:CreateGrant")) == ["pcr-on-other-action"]


def test_small_letters_may_be_compared_case_sensitively() -> None:
    (finding,) = check_policy(json.dumps({"Statement": allow(condition={"StringEquals": pcrs()})}))[
        :1
    ]
    assert finding.rule.weight is Weight.NOTE


@pytest.mark.parametrize(
    ("condition", "open_to_anyone"),
    [
        ({"StringEquals": {"kms:CallerAccount": ACCOUNT}}, False),
        ({"StringEquals": {"KMS:calleraccount": ACCOUNT}}, False),
        ({"StringEquals": {"aws:PrincipalOrgID": "o-example"}}, False),
        ({"StringEquals": {"\u212ams:CallerAccount": ACCOUNT}}, True),
        ({"ArnLike": {"aws:PrincipalArn": ROLE}}, False),
        ({"StringEqualsIfExists": {"kms:CallerAccount": ACCOUNT}}, True),
        ({"StringNotEquals": {"kms:CallerAccount": ACCOUNT}}, True),
        ({"StringLike": {"kms:CallerAccount": "*"}}, True),
        ({"ForAllValues:StringEquals": {"kms:CallerAccount": ACCOUNT}}, True),
        ({"Null": {"kms:CallerAccount": "false"}}, True),
        ({"StringEquals": {"kms:ViaService": ACCOUNT}}, True),
        # Patterns that more than one account fits, and strangers make roles of any name.
        ({"StringLike": {"kms:CallerAccount": "?*"}}, True),
        ({"StringLike": {"kms:CallerAccount": "?" * 12}}, True),
        ({"StringLike": {"aws:PrincipalAccount": "1*"}}, True),
        ({"StringLike": {"aws:PrincipalOrgID": "o-*"}}, True),
        ({"StringEquals": {"kms:CallerAccount": [ACCOUNT, "*"]}}, True),
        ({"StringEquals": {"kms:CallerAccount": int(ACCOUNT)}}, False),
        ({"NumericGreaterThan": {"kms:CallerAccount": "0"}}, True),
        ({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/enclave"}}, True),
        ({"ForAnyValue:ArnEquals": {"aws:PrincipalArn": "arn:aws:iam::????????????:role/e"}}, True),
        ({"StringLike": {"aws:PrincipalArn": "arn:*:role/enclave"}}, True),
        ({"StringLike": {"aws:PrincipalArn": f"arn:aws:iam::{ACCOUNT}*"}}, True),
        ({"StringLike": {"aws:PrincipalArn": f"arn:aws:iam::{ACCOUNT}:role/*"}}, False),
        # A path may hold ":iam::ACCOUNT:role/", and this star reaches over colons; ArnLike's not.
        ({"StringLike": {"aws:PrincipalArn": f"arn:*:iam::{ACCOUNT}:role/enclave"}}, True),
        ({"ArnLike": {"aws:PrincipalArn": f"arn:*:iam::{ACCOUNT}:role/enclave"}}, False),
        # Variables that are equal to themselves, whoever calls.
        ({"StringEquals": {"kms:CallerAccount": "${aws:PrincipalAccount}"}}, True),
        ({"StringEquals": {"aws:PrincipalOrgID": "${aws:PrincipalOrgID}"}}, True),
        ({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::${aws:PrincipalAccount}:role/e"}}, True),
    ],
)
def test_whom_a_star_lets_in(condition: dict[str, Any], open_to_anyone: bool) -> None:
    conditions = condition | {"StringEqualsIgnoreCase": pcrs()}
    for star in ("*", {"AWS": "*"}, {"AWS": [ROLE, "*"]}):
        assert ("open-to-anyone" in found(allow(condition=conditions, Principal=star))) is (
            open_to_anyone
        )


def test_a_deny_that_lets_debug_enclaves_past_it() -> None:
    zeros = {f"{ATTESTATION}PCR0": [IMAGE[0].hex(), "00" * 48]}
    assert found(allow(), deny("kms:Decrypt", {"StringNotEqualsIgnoreCase": zeros})) == ["zero-pcr"]
    stops = {f"{ATTESTATION}PCR0": "00" * 48}
    assert found(allow(), deny("kms:Decrypt", {"StringEqualsIgnoreCase": stops})) == []


def test_a_deny_over_two_registers_fires_where_both_differ() -> None:
    two = pcrs({index: IMAGE[index] for index in (0, 1)})
    mixed = deny("kms:Decrypt", {"StringNotEqualsIgnoreCase": two})
    assert found(allow(), mixed) == ["deny-mixes-pcrs"]


def test_a_deny_over_more_than_takes_a_recipient() -> None:
    assert found(allow(), *denies_of_each(list(RECIPIENT_ACTIONS), 0)) == []
    assert found(allow(), *denies_of_each("kms:GenerateDataKey*", 0)) == ["deny-too-wide"]
    # Somebody is exempt, so it does not fire for everybody.
    one = denies_of_each("kms:*", 0)[0]
    one["Condition"]["ArnNotEquals"] = {"aws:PrincipalArn": ADMINISTRATOR}
    assert found(allow(), one) == []


@pytest.mark.parametrize(
    ("condition", "too_wide"),
    [
        ({"Null": {f"{ATTESTATION}PCR0": "true"}}, True),
        ({"Null": {f"{ATTESTATION}PCR0": "false"}}, False),
        ({"StringEqualsIgnoreCaseIfExists": {f"{ATTESTATION}PCR0": "00" * 48}}, True),
        ({"ForAllValues:StringEqualsIgnoreCase": {f"{ATTESTATION}PCR0": "00" * 48}}, True),
        ({"StringEqualsIgnoreCase": {f"{ATTESTATION}PCR0": "00" * 48}}, False),
        ({"ForAnyValue:StringNotEqualsIgnoreCase": {f"{ATTESTATION}PCR0": "a1" * 48}}, False),
    ],
)
def test_a_deny_of_what_has_no_attestation(condition: object, too_wide: bool) -> None:
    assert ("deny-too-wide" in found(allow(), deny("kms:*", condition))) is too_wide
    assert found(allow(), deny("kms:Decrypt", condition)) == []


def test_a_key_that_opens_for_nobody() -> None:
    assert found(allow("kms:DescribeKey", {})) == ["nobody-opens"]
    assert found(allow("kms:Decrpyt")) == ["nobody-opens", "unknown-action"]
    assert found(allow(), deny("kms:*")) == ["nobody-opens"]
    # A Deny for each image, as if they were Allows: a register would need two values at once.
    successor = {"StringNotEqualsIgnoreCase": {f"{ATTESTATION}PCR0": SUCCESSOR[0].hex()}}
    assert found(allow(), *denies_of_each("kms:Decrypt", 0)) == []
    assert found(allow(), deny("kms:Decrypt", successor)) == ["nobody-opens"]
    both = [*denies_of_each("kms:Decrypt", 0), deny("kms:Decrypt", successor)]
    assert found(allow(), *both) == ["nobody-opens"]
    # Another statement, or another action, still opens.
    assert (
        found(allow(condition={"StringEqualsIgnoreCase": pcrs(SUCCESSOR)}), allow(), both[1]) == []
    )
    assert found(allow(), allow("kms:DeriveSharedSecret"), *both) == []
    # Of patterns nobody can say so, and they are mistakes of their own.
    likes = {"StringNotLike": {f"{ATTESTATION}PCR0": "a*"}}
    assert "nobody-opens" not in found(allow(), deny("kms:Decrypt", likes))


@pytest.mark.parametrize("action", ["kms:Decrpyt", "kms:Dcrypt*", "s3:GetObject", "kms:Tomorrow"])
def test_actions_that_nobody_knows(action: str) -> None:
    assert found(allow(), allow(action, {})) == ["unknown-action"]
    assert "unknown-action" in found(allow(), deny(action))
    refusal = deny("")
    del refusal["Action"]
    assert "unknown-action" in found(allow(), refusal | {"NotAction": action})


def test_what_iam_would_not_take_is_looked_at_all_the_same() -> None:
    statement = allow()
    del statement["Principal"]
    assert found(statement | {"NotPrincipal": {"AWS": ROLE}}) == ["not-principal"]
    refusal = deny("")
    del refusal["Action"]
    assert found(allow(), refusal | {"NotAction": "kms:Decrypt"}) == ["not-action"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"Statement": []}', "\x00", '{"Statement": 1}'])
def test_what_is_no_policy(text: str) -> None:
    with pytest.raises(PolicyError):
        check_policy(text)


def test_what_the_console_writes_and_an_enclave_added_by_hand() -> None:
    root = allow("kms:*", {}, Principal={"AWS": ROOT}, Sid="Enable IAM User Permissions")
    verbs = "Create Describe Enable List Put Update Revoke Disable Get Delete"
    rest = ["kms:TagResource", "kms:UntagResource", "kms:ScheduleKeyDeletion"]
    actions = [*(f"kms:{verb}*" for verb in verbs.split()), *rest, "kms:CancelKeyDeletion"]
    manage = allow(actions, {}, Principal={"AWS": ADMINISTRATOR})
    use = allow(
        ["kms:Decrypt", "kms:GenerateDataKey*"],
        {"StringEqualsIgnoreCase": {f"{ATTESTATION}ImageSha384": IMAGE[0].hex()}},
    )
    assert found(root, manage, use) == [
        "image-sha384",
        "pcr-on-other-action",
        "pcr0-alone",
        "root-delegation",
        "wildcard-action",
    ]


# --- Around the policy --------------------------------------------------------------------------


def test_the_policy_may_stand_in_the_answer_to_get_key_policy() -> None:
    policy = json.dumps({"Version": "2012-10-17", "Statement": allow()})
    assert policy_in(policy.encode()) == policy
    answer = json.dumps({"Policy": policy, "PolicyName": "default"})
    assert policy_in(answer.encode()) == policy
    assert policy_in(b'{"Policy": 1}') == '{"Policy": 1}'
    assert policy_in(b"no JSON") == "no JSON"
    with pytest.raises(InputError, match="UTF-8"):
        policy_in(b"\xff")


@pytest.mark.parametrize("read", [check_metadata, check_grants])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"KeyMetadata": [], "Grants": {}}',
        b'{"KeyMetadata": {}, "Grants": [1]}',
        b'{"KeyMetadata": {"Origin": 1}, "Grants": [{}]}',
        b'{"KeyMetadata": {"Origin": "AWS_KMS", "MultiRegion": "no"}, "Grants": [{"GrantId": 1}]}',
        b'{"KeyMetadata": {"Origin": "AWS_KMS"}, "Grants": [{"GrantId": "x", "Operations": "y"}]}',
        b'{"KeyMetadata": {"Origin": "AWS_KMS", "KeyUsage": "ENCRYPT_DECRYPT"}}',
        b'{"Grants": [{"GrantId": "x", "Operations": [], "GranteePrincipal": 1}]}',
        b'{"Grants": [], "Grants": [], "KeyMetadata": {}, "KeyMetadata": {}}',
        b" " * (INPUT_MAX + 1),
    ],
)
def test_answers_that_are_none(read: Any, data: bytes) -> None:
    with pytest.raises(InputError):
        read(data)


def test_a_replica_is_told_by_its_id_alone() -> None:
    answer = json.loads((SAMPLES / "multi-region.key.json").read_text())
    del answer["KeyMetadata"]["MultiRegion"]
    assert codes(check_metadata(json.dumps(answer).encode())) == ["multi-region"]


# --- The lists of actions -----------------------------------------------------------------------


def test_the_actions_are_those_of_the_service_model() -> None:
    model = Session().get_service_model("kms")
    every = [
        *RECIPIENT_ACTIONS,
        *WAYS_AROUND,
        *(one for one in SEALING_ACTIONS if one not in RECIPIENT_ACTIONS),
        *OTHER_ACTIONS,
        *KEYLESS_ACTIONS,
    ]
    assert len(set(every)) == len(every)
    names = {f"kms:{name}" for name in model.operation_names} - {"kms:ReEncrypt"}
    assert set(every) == names | {"kms:ReEncryptFrom", "kms:ReEncryptTo"}
    shapes = {name: model.operation_model(name).input_shape for name in model.operation_names}
    with_recipient = {
        f"kms:{name}" for name, shape in shapes.items() if shape and "Recipient" in shape.members
    }
    assert set(RECIPIENT_ACTIONS) == with_recipient
