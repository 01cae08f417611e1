"""The hint of an enclave that was refused, from a policy that it was given."""

import json
from typing import Any

import pytest
from support.denials import ACCOUNT, ENCLAVE, KEY, PCRS, ROLE, but, wanting

from kmstool.errors import SettingError
from kmstool.policy.evaluate import parse_policy
from kmstool.policy.explain_denial import denial_hint

SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/enclave/i-1"
SAID = "User: {} is not authorized to perform: kms:Decrypt on this resource"
OTHER = {**PCRS, 0: b"\xb0" * 48}


def hint(*statements: dict[str, Any], **changes: Any) -> str:
    policy = parse_policy(json.dumps({"Version": "2012-10-17", "Statement": list(statements)}))
    given: dict[str, Any] = {
        "action": "kms:Decrypt",
        "key_arn": KEY,
        "pcrs": PCRS,
        "encryption_context": {"tenant": "blue"},
        "encryption_algorithm": None,
        "said": SAID.format(SESSION),
    }
    return denial_hint(policy, **(given | changes))


def test_the_condition_that_failed() -> None:
    assert hint(ENCLAVE, pcrs=OTHER) == (
        "PCR0 is b0b0b0b0…, the policy wants a0a0a0a0…: it is another image, or it was built again"
    )
    assert '"tenant" of the encryption context is "red"' in (
        hint(ENCLAVE, encryption_context={"tenant": "red"})
    )


def test_a_hint_is_a_few_sentences() -> None:
    wants = {f"kms:EncryptionContext:{name}": "x" for name in "abcdef"}
    assert hint(wanting(StringEquals=wants)).count("; ") == 2


@pytest.mark.parametrize("caller", [SESSION, ROLE])
def test_kms_names_the_caller(caller: str) -> None:
    assert hint(ENCLAVE, said=SAID.format(caller)).startswith("this call is allowed: the key has")
    other = but(Principal={"AWS": f"arn:aws:iam::{ACCOUNT}:role/other"})
    assert "the caller is role enclave of account" in hint(other, said=SAID.format(caller))
    session = but(Principal={"AWS": SESSION})
    allowed = hint(session, said=SAID.format(caller)).startswith("this call is allowed")
    assert allowed is (caller == SESSION)


def test_where_kms_names_nobody_it_is_taken_to_be_whom_the_policy_lets_in() -> None:
    assert "PCR0 is b0b0b0b0…" in hint(ENCLAVE, pcrs=OTHER, said="no")
    nobody = "nothing can be said: it names no role, and KMS did not say who called"
    assert hint(but(Effect="Deny"), said="no") == nobody
    assert hint(but(Principal="*"), said="no") == nobody


def test_a_federated_user_is_none_whose_role_is_known() -> None:
    federated = f"arn:aws:sts::{ACCOUNT}:federated-user/x"
    assert hint(ENCLAVE, said=SAID.format(federated)) == (
        f"nothing can be said about the caller {federated}"
    )


def test_the_algorithm_of_the_call_counts() -> None:
    rsa = wanting(StringEquals={"kms:EncryptionAlgorithm": "RSAES_OAEP_SHA_256"})
    assert hint(rsa, encryption_algorithm="RSAES_OAEP_SHA_256").startswith("this call is allowed")
    assert not hint(rsa).startswith("this call is allowed")


def test_what_is_not_known_is_not_called_wrong() -> None:
    said = hint(wanting(StringEquals={"aws:PrincipalOrgID": "o-1"}))
    assert "aws:PrincipalOrgID is a condition key that" in said


def test_a_key_is_named_by_its_arn() -> None:
    with pytest.raises(SettingError):
        hint(ENCLAVE, key_arn="alias/app")
