"""The sentences that a person reads: `Decision.reason` and `Decision.explain()`."""

import json
from typing import Any

import pytest

from kmstool.policy.evaluate import (
    Decision,
    Request,
    attestation_keys,
    encryption_context_keys,
    evaluate,
    parse_policy,
)

ACCOUNT = "111122223333"
ROOT = f"arn:aws:iam::{ACCOUNT}:root"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/enclave"
KEY = f"arn:aws:kms:eu-central-1:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"
ENCLAVE: dict[str, Any] = {
    "Sid": "EnclaveDecrypt",
    "Effect": "Allow",
    "Principal": {"AWS": ROLE},
    "Action": "kms:Decrypt",
    "Resource": "*",
    "Condition": {
        "StringEqualsIgnoreCase": {"kms:RecipientAttestation:PCR0": "22" * 48},
        "StringEquals": {"kms:EncryptionContext:App": "payroll"},
    },
}
ADMIN: dict[str, Any] = {
    "Sid": "Account",
    "Effect": "Allow",
    "Principal": {"AWS": ROOT},
    "Action": "kms:Describe*",
    "Resource": "*",
}
CONTEXT = encryption_context_keys({"app": "payroll"})
GOOD = attestation_keys({0: b"\x22" * 48}) | CONTEXT


def decide(*statements: dict[str, Any], **changes: Any) -> Decision:
    defaults: dict[str, Any] = {"action": "kms:Decrypt", "principal": ROLE, "resource": KEY}
    policy = parse_policy(json.dumps({"Version": "2012-10-17", "Statement": list(statements)}))
    return evaluate(policy, Request(**(defaults | changes)))


def pcr0(value: bytes) -> dict[str, tuple[str, ...]]:
    return attestation_keys({0: value}) | CONTEXT


def conditions(block: dict[str, object]) -> dict[str, Any]:
    return ENCLAVE | {"Condition": block}


REASONS: list[tuple[list[dict[str, Any]], dict[str, Any], str]] = [
    (
        [ADMIN, ENCLAVE],
        {"context": GOOD},
        f'statement "EnclaveDecrypt" allows kms:Decrypt to {ROLE}',
    ),
    (
        [ADMIN, ENCLAVE],
        {"context": pcr0(b"\x11" * 48)},
        (
            'statement "EnclaveDecrypt" would allow it, but kms:RecipientAttestation:PCR0 is'
            " 11111111…, and the policy wants 22222222…"
        ),
    ),
    (
        [ADMIN, ENCLAVE],
        {"context": pcr0(b"\x22" * 20 + b"\x33" * 28)},
        (
            'statement "EnclaveDecrypt" would allow it, but kms:RecipientAttestation:PCR0 is'
            f" {'22' * 20}3333…, and the policy wants {'22' * 22}…"
        ),
    ),
    (
        [ADMIN, ENCLAVE],
        {"context": pcr0(bytes(48))},
        (
            'statement "EnclaveDecrypt" would allow it, but kms:RecipientAttestation:PCR0 is'
            " all zeros (debug mode), and the policy wants 22222222…"
        ),
    ),
    (
        [ADMIN, ENCLAVE],
        {"context": CONTEXT},
        (
            'statement "EnclaveDecrypt" would allow it, but the request carries no attestation'
            " document (Recipient) with PCR0, and the policy wants 22222222…"
        ),
    ),
    (
        [ADMIN, ENCLAVE],
        {"context": attestation_keys({1: b"\x11" * 48}) | CONTEXT},
        (
            'statement "EnclaveDecrypt" would allow it, but the request\'s attestation has no PCR0,'
            " and the policy wants 22222222…"
        ),
    ),
    (
        [ADMIN, ENCLAVE],
        {"context": attestation_keys({0: b"\x22" * 48})},
        (
            'statement "EnclaveDecrypt" would allow it, but the encryption context has no "App",'
            ' and the policy wants "payroll"'
        ),
    ),
    (
        [ADMIN, ENCLAVE],
        {"context": GOOD | encryption_context_keys({"app": "\x1b[31mx"})},
        (
            'statement "EnclaveDecrypt" would allow it, but "App" of the encryption context is'
            ' "?[31mx", and the policy wants "payroll"'
        ),
    ),
    (
        [ADMIN, ENCLAVE],
        {},
        (
            'statement "EnclaveDecrypt" would allow it, but the request carries no attestation'
            " document (Recipient) with PCR0, and the policy wants 22222222…"
            " (1 more condition did not hold)"
        ),
    ),
    (
        [ENCLAVE],
        {"principal": ROLE + "2"},
        f"no statement names the principal {ROLE}2",
    ),
    (
        [ADMIN, ENCLAVE],
        {"principal": ROLE + "2"},
        (
            f"no statement names the principal {ROLE}2, and none that names its account names the"
            " action kms:Decrypt"
        ),
    ),
    (
        [ADMIN, ENCLAVE],
        {"action": "kms:Encrypt", "context": GOOD},
        f"no statement that names {ROLE} names the action kms:Encrypt",
    ),
    (
        [ADMIN, ENCLAVE],
        {"action": "kms:DescribeKey"},
        (
            f'statement "Account" leaves it to the IAM policies of account {ACCOUNT}, and those do'
            " not allow kms:DescribeKey"
        ),
    ),
    (
        [ENCLAVE | {"Resource": KEY + "x"}],
        {"context": GOOD},
        f'statement "EnclaveDecrypt" would allow it, but {KEY} is not among {KEY}x',
    ),
    (
        [{name: value for name, value in ENCLAVE.items() if name not in ("Resource", "Sid")}],
        {"context": GOOD},
        "statement number 1 would allow it, but it has no Resource, so it applies to no key",
    ),
    (
        [{**ADMIN, "Effect": "Deny", "Principal": "*", "Action": "kms:*"}],
        {},
        'statement "Account" denies it, without any condition',
    ),
    (
        [ENCLAVE, {**ENCLAVE, "Sid": "No", "Effect": "Deny", "Condition": {}, "Action": "*"}],
        {"context": GOOD},
        'statement "No" denies it, without any condition',
    ),
    (
        [{**ADMIN, "Effect": "Deny", "Action": "kms:Encrypt"}],
        {},
        "no statement allows anything",
    ),
    (
        [
            ENCLAVE,
            {
                **ADMIN,
                "Sid": "Only",
                "Effect": "Deny",
                "Action": "*",
                "Condition": {"StringNotEquals": {"kms:RecipientAttestation:PCR0": "44" * 48}},
            },
        ],
        {"context": GOOD},
        (
            'statement "Only" denies it: kms:RecipientAttestation:PCR0 is 22222222…, and the'
            " statement denies anything but 44444444…"
        ),
    ),
    (
        [conditions({"StringEquals": {"kms:ViaService": "x"}})],
        {},
        (
            'statement "EnclaveDecrypt" cannot be decided, so the request is refused:'
            " kms:ViaService is a condition key that this evaluator has no value for"
        ),
    ),
    (
        [conditions({"ForAllValues:StringEquals": {"kms:EncryptionContextKeys": ["a", "b"]}})],
        {"context": encryption_context_keys({"c": "1", "d": "2"})},
        (
            'statement "EnclaveDecrypt" would allow it, but kms:EncryptionContextKeys is "c" and'
            ' "d", and the policy wants each value to be "a" or "b"'
        ),
    ),
    (
        [conditions({"ForAnyValue:StringLike": {"kms:EncryptionContextKeys": "a*"}})],
        {},
        (
            'statement "EnclaveDecrypt" would allow it, but the request has no encryption context,'
            ' and the policy wants some value to be what is like "a*"'
        ),
    ),
    (
        [conditions({"Null": {"kms:EncryptionAlgorithm": "false"}})],
        {},
        (
            'statement "EnclaveDecrypt" would allow it, but kms:EncryptionAlgorithm is missing, and'
            " the policy wants it to be there"
        ),
    ),
    (
        [conditions({"Null": {"kms:EncryptionAlgorithm": "true"}})],
        {"context": {"kms:EncryptionAlgorithm": ("SYMMETRIC_DEFAULT",)}},
        (
            'statement "EnclaveDecrypt" would allow it, but kms:EncryptionAlgorithm is there, and'
            " the policy wants it to be missing"
        ),
    ),
    (
        [conditions({"StringEquals": {"kms:RequestAlias": "alias/a"}})],
        {},
        (
            'statement "EnclaveDecrypt" would allow it, but kms:RequestAlias is missing, and the'
            ' policy wants "alias/a"'
        ),
    ),
    (
        [conditions({"DateLessThan": {"aws:CurrentTime": "2026-01-01"}})],
        {"context": {"aws:CurrentTime": ("2026-02-01T00:00:00Z",)}},
        (
            'statement "EnclaveDecrypt" would allow it, but aws:CurrentTime is'
            ' "2026-02-01T00:00:00Z", and the policy wants before "2026-01-01"'
        ),
    ),
]


@pytest.mark.parametrize(("statements", "changes", "reason"), REASONS)
def test_reasons(statements: list[dict[str, Any]], changes: dict[str, Any], reason: str) -> None:
    assert decide(*statements, **changes).reason == reason


def test_two_long_values_are_never_shown_alike() -> None:
    """PCRs that differ in the last byte alone must not look the same in a refusal."""
    decision = decide(ENCLAVE, context=pcr0(b"\x22" * 47 + b"\x23"))
    assert "2223, and the policy wants" in decision.reason
    near = decide(ENCLAVE, context=pcr0(b"\x22" * 46 + b"\x32\x22"))
    assert "…" not in near.reason


def test_the_zeros_of_other_pcrs_are_no_debug_mode() -> None:
    wanted = conditions({"StringEquals": {"kms:RecipientAttestation:PCR8": "22" * 48}})
    decision = decide(wanted, context=attestation_keys({8: bytes(48)}))
    assert "debug" not in decision.reason


def test_explain_puts_the_nearest_miss_first() -> None:
    far = ENCLAVE | {"Sid": "Far", "Action": "kms:Encrypt", "Principal": {"AWS": ROLE + "2"}}
    deny = {**ADMIN, "Sid": "Never", "Effect": "Deny", "Action": "kms:PutKeyPolicy"}
    decision = decide(far, deny, ADMIN, ENCLAVE, context=pcr0(b"\x11" * 48))
    lines = decision.explain()
    assert lines == [
        f"denied: {decision.reason}",
        'statement "EnclaveDecrypt" does not allow it',
        f"  yes  principal: it names {ROLE}",
        "  yes  action: kms:Decrypt is among kms:Decrypt",
        f"  yes  resource: {KEY} is among *",
        (
            "  no   StringEqualsIgnoreCase: kms:RecipientAttestation:PCR0 is 11111111…, and the"
            " policy wants 22222222…"
        ),
        (
            '  yes  StringEquals: "App" of the encryption context is "payroll", and the policy'
            ' wants "payroll"'
        ),
        'statement "Account" does not allow it',
        (
            f"  yes  principal: it names {ROOT}, which leaves it to the IAM policies of account"
            f" {ACCOUNT}"
        ),
        "  no   action: kms:Decrypt is not among kms:Describe*",
        f"  yes  resource: {KEY} is among *",
        "  no   IAM policies of the caller: as far as is known, they do not allow it",
        'statement "Far" does not allow it',
        f"  no   principal: it names {ROLE}2, and the caller is {ROLE}",
        "  no   action: kms:Decrypt is not among kms:Encrypt",
        f"  yes  resource: {KEY} is among *",
        (
            "  no   StringEqualsIgnoreCase: kms:RecipientAttestation:PCR0 is 11111111…, and the"
            " policy wants 22222222…"
        ),
        (
            '  yes  StringEquals: "App" of the encryption context is "payroll", and the policy'
            ' wants "payroll"'
        ),
        'statement "Never" does not deny it',
        f"  yes  principal: it names {ROOT}",
        "  no   action: kms:Decrypt is not among kms:PutKeyPolicy",
        f"  yes  resource: {KEY} is among *",
    ]


def test_explain_puts_what_decided_first() -> None:
    deny = {**ADMIN, "Sid": "Never", "Effect": "Deny", "Action": "*"}
    lines = decide(ENCLAVE, deny, context=GOOD).explain()
    assert lines[1] == 'statement "Never" does deny it'
    allowed = decide(ADMIN, ENCLAVE, context=GOOD).explain()
    assert allowed[0].startswith("allowed: ")
    assert allowed[1] == 'statement "EnclaveDecrypt" does allow it'


def test_explain_marks_what_is_not_known() -> None:
    lines = decide(conditions({"StringEquals": {"kms:ViaService": "x"}})).explain()
    assert lines[1] == 'statement "EnclaveDecrypt" may allow it or not, which cannot be decided'
    assert lines[-1].startswith("   ?   StringEquals: kms:ViaService is a condition key")


def test_not_forms_say_so() -> None:
    deny = {
        "Effect": "Deny",
        "NotPrincipal": {"AWS": ROLE},
        "NotAction": "kms:Describe*",
        "NotResource": "x",
    }
    decision = decide(deny)
    (one,) = decision.statements
    assert one.principal_reason == (
        "NotPrincipal names the caller but not its account, and IAM may then deny it"
    )
    assert one.action_reason == "kms:Decrypt is not among kms:Describe* (NotAction)"
    assert one.resource_reason == f"{KEY} is not among x (NotResource)"
