"""What `explain` says: the table of denials, and what an explanation is made of."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.denials import (
    ACCOUNT,
    DENIALS,
    ENCLAVE,
    KEY,
    NEVER,
    PCRS,
    ROLE,
    ROOT,
    Denial,
    but,
    call,
    wanting,
)

from kmstool.policy.evaluate import Policy, evaluate, parse_policy
from kmstool.policy.explain import Explanation, Verdict, explain
from kmstool.policy.explain_request import call_keys, is_session, role_of_session

TABLE = Path(__file__).parent / "denials.txt"


def policy(*statements: dict[str, Any]) -> Policy:
    return parse_policy(json.dumps({"Version": "2012-10-17", "Statement": list(statements)}))


def explained(
    *statements: dict[str, Any], iam: tuple[str, ...] = (), **changes: Any
) -> Explanation:
    return explain(policy(*statements), call(**changes), identity_allows=iam)


def sentences() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for block in TABLE.read_text("utf-8").split("\n\n")[1:]:
        title, *lines = block.strip().splitlines()
        assert title not in found
        found[title] = [line.removeprefix("    ") for line in lines]
    return found


SENTENCES = sentences()


@pytest.mark.parametrize("row", DENIALS, ids=lambda row: row.title)
def test_each_denial_has_the_sentence_that_a_person_needs(row: Denial) -> None:
    explanation = explained(*row.statements, **row.call)
    assert explanation.verdict is not Verdict.ALLOWED
    assert list(explanation.advice) == SENTENCES[row.title]


def test_the_table_and_the_rows_are_one() -> None:
    assert [row.title for row in DENIALS] == list(SENTENCES)
    assert len(DENIALS) >= 25
    distinct = {tuple(found) for found in SENTENCES.values()}
    assert len(distinct) >= 50, "a sentence for everything says nothing"


def test_only_what_a_row_spoils_is_wrong_with_it() -> None:
    explanation = explained(ENCLAVE)
    assert explanation.verdict is Verdict.ALLOWED
    assert explanation.advice == ()


@pytest.mark.parametrize("row", DENIALS, ids=lambda row: row.title)
def test_an_explanation_never_changes_a_decision(row: Denial) -> None:
    request = call(**row.call)
    decision = evaluate(policy(*row.statements), request)
    explanation = explain(policy(*row.statements), request)
    assert (explanation.verdict is Verdict.ALLOWED) is decision.allowed
    decided = decision.reason.replace(" cannot be decided, so the request is refused", " is open")
    assert explanation.reason.replace(" cannot be decided", " is open") == decided


@pytest.mark.parametrize("row", DENIALS, ids=lambda row: row.title)
def test_what_is_said_is_printable_and_has_no_full_stop(row: Denial) -> None:
    for sentence in explained(*row.statements, **row.call).advice:
        assert sentence.isprintable()
        assert sentence[:1].islower() or sentence.startswith(("PCR", "NitroTPM", "String", '"'))
        assert not sentence.endswith(".")


def test_the_nearest_miss_comes_first_then_the_rest() -> None:
    far = but(Sid="Far", Principal={"AWS": f"arn:aws:iam::{ACCOUNT}:role/x"}, Action="kms:Encrypt")
    near = but(Sid="Near", Condition={"StringEquals": {"kms:EncryptionContext:tenant": "red"}})
    middle = wanting(
        StringEquals={"kms:EncryptionContext:tenant": "red", "kms:EncryptionContext:x": "y"}
    )
    found = explained(NEVER | {"Action": "kms:Encrypt"}, far, middle | {"Sid": "Middle"}, near)
    assert [one.sid for one in found.statements] == ["Near", "Middle", "Far", "Never"]
    assert found.advice[0].startswith('"tenant" of the encryption context is "blue"')


def test_a_statement_for_the_caller_is_nearer_than_one_for_the_account() -> None:
    account = but(Sid="Account", Principal={"AWS": ROOT}, Condition={})
    found = explained(account, ENCLAVE, context={})
    assert [one.sid for one in found.statements] == ["Enclave", "Account"]
    assert [*SENTENCES["no encryption context"], *SENTENCES["the account alone"]] == list(
        found.advice
    )
    assert explained(account, ENCLAVE, context={}, iam=("kms:*",)).verdict is Verdict.ALLOWED


def test_of_several_things_that_failed_what_is_certain_comes_first() -> None:
    found = explained(
        wanting(StringEquals={"aws:PrincipalOrgID": "o-1", "kms:EncryptionContext:tenant": "red"})
    )
    assert found.verdict is Verdict.DENIED
    assert '"tenant" of the encryption context is "blue"' in found.reason
    assert "aws:PrincipalOrgID is a condition key that" in found.advice[1]


def test_what_would_decide_is_named() -> None:
    found = explained(wanting(StringEquals={"aws:PrincipalOrgID": "o-1", "aws:SourceVpce": "v"}))
    assert found.verdict is Verdict.UNKNOWN
    assert found.unknown_keys == ("aws:PrincipalOrgID", "aws:SourceVpce")
    assert explained(ENCLAVE, context={}).unknown_keys == ()


def test_the_key_in_a_variable_is_named_and_not_what_is_compared_with_it() -> None:
    variables = {"aws:UserAgent": "${aws:PrincipalOrgID}", "kms:RequestAlias": "${aws:userid}"}
    found = explained(wanting(StringNotEquals=variables), keys={"aws:useragent": ("x",)})
    assert found.unknown_keys == ("aws:PrincipalOrgID", "aws:userid")
    found = explained(but(Resource="arn:aws:kms:*:*:key/${aws:PrincipalTag/key}"))
    assert found.unknown_keys == ("aws:PrincipalTag/key",)
    assert "the policy variable" in found.advice[0]


def test_where_more_knowledge_would_not_help_no_key_is_named() -> None:
    twice = wanting(StringEquals={"kms:EncryptionContextKeys": ["a", "b"]})
    found = explained(twice, context={"a": "1", "b": "2"})
    assert (found.verdict, found.unknown_keys) == (Verdict.UNKNOWN, ())


def test_json_has_every_value_whole() -> None:
    report = explained(ENCLAVE, pcrs=PCRS | {1: b"\xb1" * 48}).as_json()
    assert json.loads(json.dumps(report)) == report
    assert report["decision"] == "denied"
    (statement,) = report["statements"]
    assert statement["takes_effect"] is False
    assert statement["principal"] == {"matched": True, "reason": f"it names {ROLE}"}
    bad = [one for one in statement["conditions"] if not one["matched"]]
    assert bad[0]["policy_values"] == ["a1" * 48]
    assert bad[0]["request_values"] == ["b1" * 48]
    assert report["request"]["context"]["kms:recipientattestation:pcr1"] == ["b1" * 48]
    unknown = explained(wanting(StringEquals={"aws:PrincipalOrgID": "o-1"})).as_json()
    assert unknown["statements"][0]["takes_effect"] is None
    assert unknown["statements"][0]["conditions"][0]["matched"] is None


@pytest.mark.parametrize(
    ("session", "named", "role"),
    [
        (f"arn:aws:sts::{ACCOUNT}:assumed-role/enclave/i-1", ROLE, ROLE),
        (
            f"arn:aws:sts::{ACCOUNT}:assumed-role/enclave/i-1",
            f"arn:aws:iam::{ACCOUNT}:role/prod/enclave",
            f"arn:aws:iam::{ACCOUNT}:role/prod/enclave",
        ),
        (
            f"arn:aws:sts::{ACCOUNT}:assumed-role/other/i-1",
            ROLE,
            f"arn:aws:iam::{ACCOUNT}:role/other",
        ),
        (
            "arn:aws:sts::444455556666:assumed-role/enclave/i-1",
            ROLE,
            "arn:aws:iam::444455556666:role/enclave",
        ),
        (ROLE, ROLE, ROLE),
        (
            f"arn:aws:sts::{ACCOUNT}:federated-user/x",
            ROLE,
            f"arn:aws:sts::{ACCOUNT}:federated-user/x",
        ),
        ("x", ROLE, "x"),
    ],
)
def test_the_role_of_a_session(session: str, named: str, role: str) -> None:
    assert role_of_session(session, policy(but(Principal={"AWS": named}))) == role


def test_of_two_roles_of_one_name_neither_is_guessed() -> None:
    both = [ROLE.replace("enclave", "a/enclave"), ROLE.replace("enclave", "b/enclave")]
    session = f"arn:aws:sts::{ACCOUNT}:assumed-role/enclave/i-1"
    assert role_of_session(session, policy(but(Principal={"AWS": both}))) == ROLE
    assert is_session(session)
    assert not is_session(ROLE)


def test_the_keys_of_a_call_that_nobody_makes_for_another() -> None:
    keys = call_keys("kms:DeriveSharedSecret", KEY)
    assert keys["kms:keyagreementalgorithm"] == ("ECDH",)
    assert keys["kms:viaservice"] == ()
    assert keys["aws:requestedregion"] == ("eu-central-1",)
    assert "kms:encryptionalgorithm" not in keys


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        (
            but(Principal={"AWS": ["AROAEXAMPLE123456789", f"arn:aws:iam::{ACCOUNT}:role/x"]}),
            "AROAEXAMPLE123456789 in the policy is the id of a role or user that was deleted",
        ),
        (
            {name: value for name, value in ENCLAVE.items() if name != "Action"},
            'statement "Enclave" has no Action: KMS takes such a statement, and it has no effect',
        ),
        (
            wanting(StringEquals={"kms:RecipientAttestation:ImageSha384": "b0" * 48}),
            "PCR0 is a0a0a0a0…, the policy wants b0b0b0b0…",
        ),
        (
            wanting(StringLike={"kms:RecipientAttestation:PCR0": "b0*"}),
            'PCR0 is a0a0a0a0…, the policy wants "b0*"',
        ),
        (
            wanting(StringEquals={"kms:RecipientAttestation:PCR0": "${aws:PrincipalAccount}"}),
            "PCR0 is a0a0a0a0…, the policy wants",
        ),
    ],
)
def test_more_sentences(statement: dict[str, Any], says: str) -> None:
    found = explained(statement)
    assert found.verdict is Verdict.DENIED
    assert any(says in one for one in found.advice), found.advice
