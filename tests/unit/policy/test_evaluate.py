"""kmstool/policy/evaluate.py: whose statement, which action, which condition, and who wins."""

import json
from typing import Any

import pytest

from kmstool.errors import SettingError
from kmstool.policy.evaluate import (
    Decision,
    Request,
    attestation_keys,
    encryption_context_keys,
    evaluate,
    parse_policy,
)

ACCOUNT = "111122223333"
OTHER = "444455556666"
ROOT = f"arn:aws:iam::{ACCOUNT}:root"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/enclave"
ADMIN = f"arn:aws:iam::{ACCOUNT}:role/admin"
FOREIGN = f"arn:aws:iam::{OTHER}:role/enclave"
SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/enclave/i-1"
KEY = f"arn:aws:kms:eu-central-1:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"
PCR = {0: b"\x11" * 48, 1: b"\x22" * 48, 2: b"\x33" * 48}
PINNED = {"StringEqualsIgnoreCase": {"kms:RecipientAttestation:PCR0": "11" * 48}}


def statement(**changes: Any) -> dict[str, Any]:
    base = {"Effect": "Allow", "Principal": {"AWS": ROLE}, "Action": "kms:*", "Resource": "*"}
    merged = base | changes
    if "NotPrincipal" in changes:
        del merged["Principal"]
    for name in ("Action", "Resource"):
        if f"Not{name}" in changes or merged[name] is None:
            del merged[name]
    return merged


def decide(*statements: dict[str, Any], **changes: Any) -> Decision:
    identity = changes.pop("identity_allows", frozenset())
    defaults: dict[str, Any] = {"action": "kms:Decrypt", "principal": ROLE, "resource": KEY}
    policy = parse_policy(json.dumps({"Version": "2012-10-17", "Statement": list(statements)}))
    return evaluate(policy, Request(**(defaults | changes)), identity_allows=identity)


# --- Principals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "principal", "identity", "allowed"),
    [
        (ROLE, ROLE, (), True),
        ([ADMIN, ROLE], ROLE, (), True),
        (ADMIN, ROLE, ("*",), False),
        (f"arn:aws:iam::{ACCOUNT}:role/ENCLAVE", ROLE, (), False),
        ("*", ROLE, (), True),
        (ACCOUNT, ROLE, (), False),
        (ACCOUNT, ROLE, ("kms:Decrypt",), True),
        (ROOT, ROLE, (), False),
        (ROOT, ROLE, ("kms:*",), True),
        (ROOT, ROLE, ("kms:Encrypt", "s3:*"), False),
        (ROOT, ROLE, "kms:dec*", True),
        ([ROOT, ROLE], ROLE, (), True),
        (ROOT, ROOT, (), True),
        (ROLE, ROOT, ("*",), False),
        (OTHER, ROLE, ("*",), False),
        # Another account's caller needs its own account's IAM policies, however it is named.
        (FOREIGN, FOREIGN, (), False),
        (FOREIGN, FOREIGN, ("kms:*",), True),
        ("*", FOREIGN, (), False),
        ("*", FOREIGN, ("kms:*",), True),
        (OTHER, FOREIGN, ("kms:*",), True),
        (ROOT, FOREIGN, ("kms:*",), False),
        ("AROAEXAMPLE123456789", ROLE, ("*",), False),
    ],
)
def test_principals_of_an_allow(
    named: object, principal: str, identity: object, allowed: bool
) -> None:
    decision = decide(
        statement(Principal={"AWS": named}), principal=principal, identity_allows=identity
    )
    assert decision.allowed is allowed


ALLOW_ALL = statement(Principal="*")


@pytest.mark.parametrize(
    ("named", "denied"),
    [(ROLE, True), (ROOT, True), (ACCOUNT, True), ("*", True), (ADMIN, False), (OTHER, False)],
)
def test_principals_of_a_deny(named: str, denied: bool) -> None:
    """An account as principal of a Deny means everybody in it, whatever IAM policies say."""
    deny = statement(Effect="Deny", Principal={"AWS": named})
    assert decide(ALLOW_ALL, deny, identity_allows=("*",)).allowed is not denied


def test_a_function_may_say_what_iam_allows() -> None:
    asked = []

    def allows(action: str) -> bool:
        asked.append(action)
        return True

    assert decide(statement(Principal={"AWS": ROOT}), identity_allows=allows).allowed
    assert asked == ["kms:Decrypt"]


def test_a_service_is_never_the_caller() -> None:
    assert not decide(statement(Principal={"Service": "logs.amazonaws.com"})).allowed


@pytest.mark.parametrize(
    ("named", "denied"),
    [
        ([ROLE, ROOT], False),
        ([ROLE, ACCOUNT], False),
        ([ROLE, SESSION, ROOT], False),
        ("*", False),
        (ROLE, True),
        (ROOT, True),
        ([ADMIN, ROOT], True),
        ([FOREIGN, OTHER], True),
    ],
)
def test_not_principal(named: object, denied: bool) -> None:
    """IAM's advice: name the role and its account, or the account may be denied with all in it."""
    deny = statement(Effect="Deny", NotPrincipal={"AWS": named})
    assert decide(ALLOW_ALL, deny).allowed is not denied


def test_not_principal_and_the_root_user() -> None:
    deny = statement(Effect="Deny", NotPrincipal={"AWS": ROOT})
    assert decide(ALLOW_ALL, deny, principal=ROOT).allowed


def test_a_session_as_principal() -> None:
    allow = statement(Principal={"AWS": SESSION})
    assert decide(allow, session=SESSION).allowed
    assert not decide(allow, session=SESSION + "2").allowed
    assert decide(allow, statement(), principal=ADMIN).reason.startswith("no statement names")
    unknown = decide(allow, statement())
    assert not unknown.allowed
    assert "session is not known" in unknown.reason
    assert not unknown.statements[0].principal_matched
    assert not unknown.statements[0].matched


# --- Actions and resources ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("kms:Decrypt", True),
        ("KMS:decrypt", True),
        ("kms:D*", True),
        ("kms:?ecrypt", True),
        ("kms:*crypt", True),
        ("*", True),
        ("kms:*", True),
        ("s3:*", False),
        ("kms:Decryp", False),
        ("kms:DecryptX", False),
        ("kms:ReEncrypt*", False),
        (["s3:Get*", "kms:Decrypt"], True),
    ],
)
def test_actions(pattern: object, matches: bool) -> None:
    assert decide(statement(Action=pattern)).allowed is matches
    assert decide(statement(NotAction=pattern)).allowed is not matches


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("*", True),
        (KEY, True),
        (KEY.upper(), False),
        (f"arn:aws:kms:*:{ACCOUNT}:key/*", True),
        (f"arn:aws:kms:*:{OTHER}:key/*", False),
        (["a", KEY], True),
        ("arn:aws:kms:eu-central-1:111122223333:alias/x", False),
    ],
)
def test_resources(pattern: object, matches: bool) -> None:
    assert decide(statement(Resource=pattern)).allowed is matches
    assert decide(statement(NotResource=pattern)).allowed is not matches


@pytest.mark.parametrize("name", ["Action", "Resource"])
def test_a_statement_without_action_or_resource_has_no_effect(name: str) -> None:
    decision = decide(statement(**{name: None}))
    assert not decision.allowed
    deny = statement(Effect="Deny", **{name: None})
    assert decide(statement(), deny).allowed


# --- Conditions --------------------------------------------------------------------------------


def test_keys_of_a_block_are_anded_and_values_ored() -> None:
    wanted = {
        "StringEqualsIgnoreCase": {
            "kms:RecipientAttestation:PCR0": ["aa" * 48, "11" * 48],
            "kms:RecipientAttestation:PCR1": ["22" * 48],
        }
    }
    keys = attestation_keys(PCR)
    assert decide(statement(Condition=wanted), context=keys).allowed
    other = attestation_keys(PCR | {1: b"\x23" * 48})
    assert not decide(statement(Condition=wanted), context=other).allowed


def test_operators_are_anded() -> None:
    wanted = PINNED | {"StringEquals": {"kms:EncryptionContext:app": "payroll"}}
    keys = attestation_keys(PCR)
    assert not decide(statement(Condition=wanted), context=keys).allowed
    keys |= encryption_context_keys({"app": "payroll"})
    assert decide(statement(Condition=wanted), context=keys).allowed


def test_a_deny_on_several_pcrs_fires_only_when_all_differ() -> None:
    """FACTS: keys in one Condition are ANDed, so this Deny is weaker than it looks."""
    deny = statement(
        Effect="Deny",
        Condition={
            "StringNotEqualsIgnoreCase": {
                f"kms:RecipientAttestation:PCR{n}": PCR[n].hex() for n in PCR
            }
        },
    )
    assert decide(statement(), deny, context=attestation_keys(PCR)).allowed
    one_differs = attestation_keys(PCR | {0: b"\x99" * 48})
    assert decide(statement(), deny, context=one_differs).allowed
    all_differ = attestation_keys(dict.fromkeys(PCR, b"\x99" * 48))
    assert not decide(statement(), deny, context=all_differ).allowed
    assert not decide(statement(), deny).allowed  # negated operators match a missing key


def test_condition_keys_are_case_insensitive() -> None:
    wanted = {
        "StringEquals": {
            "KMS:recipientATTESTATION:pcr0": PCR[0].hex(),
            "kms:encryptioncontext:APP": "payroll",
        }
    }
    keys: dict[str, tuple[str, ...]] = {"kms:RecipientAttestation:PCR0": (PCR[0].hex(),)}
    keys |= encryption_context_keys({"App": "payroll"})
    assert decide(statement(Condition=wanted), context=keys).allowed


def test_context_names_that_differ_in_case_alone_are_never_guessed() -> None:
    keys = encryption_context_keys({"app": "payroll", "APP": "other"})
    assert keys["kms:encryptioncontext:app"] == ("payroll", "other")
    wanted = {"StringEquals": {"kms:EncryptionContext:app": "payroll"}}
    decision = decide(statement(Condition=wanted), context=keys)
    assert not decision.allowed
    assert "IAM does not define StringEquals" in decision.reason


def test_encryption_context_keys() -> None:
    wanted = {"ForAllValues:StringEquals": {"kms:EncryptionContextKeys": ["a", "b"]}}
    allow = statement(Condition=wanted)
    assert decide(allow, context=encryption_context_keys({"a": "1", "b": "2"})).allowed
    assert not decide(allow, context=encryption_context_keys({"a": "1", "c": "2"})).allowed
    assert not decide(allow, context=encryption_context_keys({"A": "1"})).allowed
    assert decide(allow).allowed  # ForAllValues holds where there is nothing
    assert encryption_context_keys({}) == {}


def test_attestation_keys() -> None:
    keys = attestation_keys({0: b"\xab" * 48, 16: b"\x01" * 48})
    assert keys == {
        "kms:recipientattestation:imagesha384": ("ab" * 48,),
        "kms:recipientattestation:pcr0": ("ab" * 48,),
        "kms:recipientattestation:pcr16": ("01" * 48,),
    }
    assert attestation_keys({}) == {}


@pytest.mark.parametrize("key", ["kms:CallerAccount", "aws:PrincipalAccount", "aws:PrincipalArn"])
def test_keys_of_the_caller_come_from_the_principal(key: str) -> None:
    value = ROLE if key.endswith("Arn") else ACCOUNT
    wanted = {"StringEquals": {key: value}}
    assert decide(statement(Condition=wanted)).allowed
    # and nobody can say otherwise
    lie = {key: ("x",)}
    assert decide(statement(Condition=wanted), context=lie).allowed


# --- What is not known -------------------------------------------------------------------------

UNKNOWN = {"StringEquals": {"kms:ViaService": "s3.eu-central-1.amazonaws.com"}}


@pytest.mark.parametrize(
    "condition",
    [
        UNKNOWN,
        {"StringNotEquals": {"kms:ViaService": "x"}},
        {"StringEqualsIfExists": {"kms:ViaService": "x"}},
        {"ForAllValues:StringEquals": {"kms:ViaService": "x"}},
        {"Null": {"kms:ViaService": "true"}},
        {"Null": {"kms:ViaService": "false"}},
    ],
)
@pytest.mark.parametrize("effect", ["Allow", "Deny"])
def test_an_unknown_key_refuses_the_whole_request(
    condition: dict[str, object], effect: str
) -> None:
    unknown = statement(Sid="Via", Effect=effect, Condition=condition)
    decision = decide(statement(Sid="Sure"), unknown)
    assert not decision.allowed
    assert decision.decided_by is not None
    assert decision.decided_by.sid == "Via"
    assert decision.reason.startswith('statement "Via" cannot be decided')
    assert "kms:ViaService" in decision.reason


@pytest.mark.parametrize(
    "key",
    [
        "kms:ViaService",
        "kms:GrantIsForAWSResource",
        "kms:KeySpec",
        "kms:RecipientAttestation:PCR32",
        "kms:RecipientAttestation:PCR01",
        "kms:RecipientAttestation:",
        "kms:EncryptionContext:",
        "aws:SourceIp",
        "aws:PrincipalTag/team",
        "aws:MultiFactorAuthPresent",
        "s3:prefix",
    ],
)
def test_unknown_keys(key: str) -> None:
    unknown = statement(Condition={"StringNotEquals": {key: "x"}})
    assert "has no value for" in decide(unknown).reason
    assert decide(unknown, context={key: ("y",)}).allowed
    assert decide(unknown, context={key: ()}).allowed  # known to be missing


@pytest.mark.parametrize(
    "key",
    [
        "kms:RecipientAttestation:ImageSha384",
        "kms:RecipientAttestation:PCR0",
        "kms:RecipientAttestation:PCR31",
        "kms:RecipientAttestation:NitroTPMPCR4",
        "kms:EncryptionContext:anything at all",
        "kms:EncryptionContextKeys",
        "kms:EncryptionAlgorithm",
        "kms:KeyAgreementAlgorithm",
        "kms:DataKeyPairSpec",
        "kms:RequestAlias",
    ],
)
def test_keys_that_count_as_missing(key: str) -> None:
    assert decide(statement(Condition={"Null": {key: "true"}})).allowed


def test_an_unknown_key_does_not_matter_where_the_statement_cannot_apply() -> None:
    for other in (
        {"Principal": {"AWS": ADMIN}},
        {"Action": "kms:Encrypt"},
        {"Resource": "arn:aws:kms:x"},
        {"Condition": UNKNOWN | PINNED},
        {"Principal": {"AWS": ROOT}},  # leaves it to IAM policies, and those allow nothing
    ):
        assert decide(statement(), statement(**({"Condition": UNKNOWN} | other))).allowed


def test_a_deny_that_is_certain_is_said_before_what_is_not_known() -> None:
    deny = statement(Sid="No", Effect="Deny")
    decision = decide(statement(Condition=UNKNOWN), deny)
    assert decision.decided_by is not None
    assert decision.decided_by.sid == "No"


def test_a_value_that_cannot_be_compared_is_not_known() -> None:
    deny = statement(Effect="Deny", Condition={"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}})
    decision = decide(statement(), deny, context={"aws:SourceIp": ("vpce",)})
    assert not decision.allowed
    assert "IAM does not define NotIpAddress" in decision.reason


# --- Who wins ----------------------------------------------------------------------------------


def test_nothing_allows_by_default() -> None:
    assert not decide(statement(Effect="Deny", Action="kms:Encrypt")).allowed


def test_an_explicit_deny_beats_every_allow() -> None:
    deny = statement(Sid="No", Effect="Deny", Action="kms:Decrypt")
    for order in ((statement(), deny), (deny, statement())):
        decision = decide(*order)
        assert not decision.allowed
        assert decision.decided_by is not None
        assert decision.decided_by.sid == "No"


def test_results_name_what_matched() -> None:
    decision = decide(
        statement(Sid="Enclave", Condition=PINNED),
        statement(Effect="Deny", Action="kms:Encrypt"),
        context=attestation_keys(PCR),
    )
    enclave, deny = decision.statements
    assert decision.allowed
    assert decision.decided_by is enclave
    assert (enclave.sid, enclave.index, enclave.effect) == ("Enclave", 0, "Allow")
    assert enclave.matched
    assert enclave.principal_matched
    assert enclave.action_matched
    assert enclave.resource_matched
    (condition,) = enclave.conditions
    assert condition.operator == "StringEqualsIgnoreCase"
    assert condition.key == "kms:RecipientAttestation:PCR0"
    assert condition.policy_values == ("11" * 48,)
    assert condition.request_values == ("11" * 48,)
    assert condition.matched
    assert not condition.undecided
    assert (deny.sid, deny.index, deny.matched, deny.action_matched) == (None, 1, False, False)


# --- Requests ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"action": "Decrypt"}, "is not an action"),
        ({"action": "kms:*"}, "is not an action"),
        ({"principal": "enclave"}, "is not the ARN of a role or user"),
        ({"principal": SESSION}, "is not the ARN of a role or user"),
        ({"principal": "*"}, "is not the ARN of a role or user"),
        ({"resource": "*"}, "is not the ARN of a key"),
        ({"resource": "1234abcd"}, "is not the ARN of a key"),
        ({"resource": KEY.replace("key/", "alias/")}, "is not the ARN of a key"),
    ],
)
def test_requests_that_are_refused(changes: dict[str, str], says: str) -> None:
    good: dict[str, Any] = {"action": "kms:Decrypt", "principal": ROLE, "resource": KEY}
    with pytest.raises(SettingError, match=says):
        Request(**(good | changes))


def test_a_request_merges_keys_that_are_the_same() -> None:
    request = Request(
        action="kms:Decrypt", principal=ROLE, resource=KEY, context={"A:b": ("1",), "a:B": ("2",)}
    )
    assert request.context["a:b"] == ("1", "2")
    assert not request.attested
