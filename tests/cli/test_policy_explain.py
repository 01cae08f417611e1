"""`kmstool policy explain`: where a call comes from, what goes where, and the exit codes.

What is said of each denial stands in tests/unit/policy/denials.txt.
"""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from support.denials import ENCLAVE, KEY, PCRS, ROLE, but, wanting
from support.documents import document, make_chain
from support.events import DENIED, EVENT, SESSION
from support.processes import Finished, InProcess, run_kmstool

CHAIN = make_chain()
CALL = ("--principal", ROLE, "--key-id", KEY, "--encryption-context", "tenant=blue")
NAMED = tuple(f"--pcr={index}={PCRS[index].hex()}" for index in range(3))
OTHER_IMAGE = {**PCRS, 0: b"\xb0" * 48, 2: b"\xb2" * 48}


def policy_of(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


@pytest.fixture
def run(in_process: InProcess, monkeypatch: pytest.MonkeyPatch, work: Path) -> InProcess:
    """kmstool in a folder with policies, documents and logs, under the test's own root."""
    monkeypatch.setattr("kmstool.session.attestation_root", lambda: (CHAIN.root.der, ()))
    monkeypatch.delenv("KMSTOOL_KEY_ID", raising=False)
    (work / "policy.json").write_text(policy_of(ENCLAVE))
    (work / "vpc.json").write_text(
        policy_of(wanting(StringEquals={"aws:SourceVpce": "v", "aws:PrincipalOrgID": "o"}))
    )
    (work / "live.json").write_text(json.dumps({"Policy": policy_of(ENCLAVE)}))
    (work / "document").write_bytes(document(CHAIN, pcrs=PCRS))
    (work / "document.b64").write_bytes(base64.encodebytes(document(CHAIN, pcrs=PCRS)))
    (work / "other").write_bytes(document(CHAIN, pcrs=OTHER_IMAGE))
    (work / "forged").write_bytes(document(make_chain(), pcrs=PCRS))
    measurements = {f"PCR{index}": PCRS[index].hex() for index in range(3)}
    (work / "image.json").write_text(json.dumps({"Measurements": measurements}))
    events = {"event": EVENT, "denied": EVENT | DENIED}
    for name, event in events.items():
        (work / f"{name}.json").write_text(json.dumps(event))
    (work / "log.json").write_text(
        json.dumps({"Records": [EVENT, EVENT | DENIED | {"eventID": "second"}]})
    )
    return in_process


def explain(run: InProcess, *arguments: str) -> Finished:
    return run.reporting("policy", "explain", *arguments)


# --- a call from options -------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["policy.json", "live.json"])
@pytest.mark.parametrize(
    "attested",
    [
        NAMED,
        ("--document", "document"),
        ("--document", "document.b64"),
        ("--pcr-from", "image.json"),
        ("--pcr-from", "document"),
        ("--pcr-from", "image.json", f"--pcr=3={'c3' * 48}"),
    ],
    ids=" ".join,
)
def test_allowed(run: InProcess, policy: str, attested: tuple[str, ...]) -> None:
    done = explain(run, policy, *CALL, *attested)
    assert (done.code, done.stderr) == (0, "")
    lines = done.stdout.decode().splitlines()
    assert lines[0] == f'allowed: statement "Enclave" allows kms:Decrypt to {ROLE}'
    taken = [line for line in lines if line.startswith("- the call is taken to attest PCR0, PCR1")]
    assert bool(taken) is (attested[0] != "--document")


def test_denied(run: InProcess) -> None:
    done = explain(run, "policy.json", *CALL, "--document", "other")
    assert done.code == 10
    assert done.error == "the key policy does not allow kms:Decrypt"
    lines = done.stdout.decode().splitlines()
    assert lines[0].startswith('denied: statement "Enclave" would allow it, but kms:Recipient')
    assert lines[1].startswith("- PCR0 is b0b0b0b0…, the policy wants a0a0a0a0…; PCR2 is b2")
    assert "the application in the image is another, on the same kernel" in lines[1]
    assert lines[3] == 'statement "Enclave" does not allow it'
    assert sum(line.startswith("  no   String") for line in lines) == 2
    assert sum(line.startswith("  yes  ") for line in lines) == 5


def test_without_a_document_it_is_a_call_from_outside(run: InProcess) -> None:
    done = explain(run, "policy.json", *CALL)
    assert done.code == 10
    assert "- the call had no attestation document: it came from outside" in done.stdout.decode()


def test_what_is_not_known_is_named_and_can_be_given(run: InProcess) -> None:
    done = explain(run, "vpc.json", *CALL)
    assert done.code == 10
    assert done.stdout.startswith(b"unknown: ")
    assert done.error == "whether the key policy allows kms:Decrypt cannot be said"
    assert done.hint.endswith("the call does not have it: aws:SourceVpce, aws:PrincipalOrgID")
    given = ("--condition-key", "aws:SourceVpce=v", "--condition-key", "aws:PrincipalOrgID=o")
    assert explain(run, "vpc.json", *CALL, *given).code == 0
    done = explain(run, "vpc.json", *CALL, *given[:2], "--missing-key", "AWS:principalorgid")
    assert (done.code, done.error) == (10, "the key policy does not allow kms:Decrypt")


def test_iam_policies_count_where_the_key_policy_leaves_it_to_them(
    run: InProcess, work: Path
) -> None:
    account = but(Principal={"AWS": "111122223333"}, Condition={})
    (work / "account.json").write_text(policy_of(account))
    assert explain(run, "account.json", *CALL).code == 10
    assert explain(run, "account.json", *CALL, "--iam-allows", "kms:D*").code == 0
    assert explain(run, "account.json", *CALL, "--iam-allows", "kms:E*").code == 10


def test_a_session_names_its_role(run: InProcess, work: Path) -> None:
    path = ROLE.replace("role/", "role/prod/")
    (work / "path.json").write_text(policy_of(but(Principal={"AWS": path})))
    done = explain(run, "path.json", *CALL[2:], "--principal", SESSION, *NAMED)
    assert done.code == 0
    assert f"allows kms:Decrypt to {path}" in done.stdout.decode()


def test_the_key_may_be_in_the_environment(run: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("policy.json", "--principal", ROLE, *CALL[4:], *NAMED)
    assert explain(run, *arguments).code == 2
    monkeypatch.setenv("KMSTOOL_KEY_ID", KEY)
    assert explain(run, *arguments).code == 0


def test_a_document_that_kms_would_refuse_is_explained_and_said_to_be_one(run: InProcess) -> None:
    done = explain(run, "policy.json", *CALL, "--document", "forged")
    assert done.code == 0
    assert "- the document does not verify as of its own time, and KMS would" in (
        done.stdout.decode()
    )


def test_json(run: InProcess) -> None:
    done = explain(run, "policy.json", *CALL, "--document", "other", "--json")
    assert done.code == 10
    report = done.json
    assert (report["type"], report["decision"]) == ("policy-explanation", "denied")
    assert report["advice"][0].startswith("PCR0 is b0b0b0b0…")
    (statement,) = report["statements"]
    failed = [one["key"] for one in statement["conditions"] if not one["matched"]]
    assert failed == [f"kms:RecipientAttestation:PCR{index}" for index in (0, 2)]
    assert statement["conditions"][0]["request_values"] == ["b0" * 48]
    assert "event" not in report
    done = explain(run, "vpc.json", *CALL, "--json")
    assert (done.code, done.json["decision"]) == (10, "unknown")
    assert done.json["unknown_keys"] == ["aws:SourceVpce", "aws:PrincipalOrgID"]


def test_in_a_pipe(work: Path) -> None:
    """A whole process: the policy comes from stdin, the explanation goes to stdout alone."""
    text = policy_of(ENCLAVE).encode()
    arguments = ("policy", "explain", *CALL, *NAMED)
    done = run_kmstool(*arguments, directory=work, stdin=text)
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout.startswith(b"allowed: ")
    done = run_kmstool(*arguments[:-1], "--json", directory=work, stdin=text, may_print=True)
    assert (done.code, done.json["decision"]) == (10, "denied")
    (work / "policy.json").write_bytes(text)
    event = json.dumps(EVENT).encode()
    arguments = ("policy", "explain", "policy.json", "--log", "-")
    done = run_kmstool(*arguments, directory=work, stdin=event)
    assert (done.code, done.stdout[:11]) == (0, b"CloudTrail:")
    done = run_kmstool("policy", "explain", *CALL, directory=work, stdin=b"")
    assert (done.code, done.error) == (3, "the policy is empty")
    arguments = ("policy", "explain", "policy.json", *CALL, "--document", "-")
    done = run_kmstool(*arguments, directory=work, stdin=b"")
    assert (done.code, done.error) == (3, "the document is empty")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"Sid": "\x1b]0;x\x07"}, 10),
        ({"Condition": {"StringEquals": {"kms:EncryptionContext:tenant": "\x1b[31m\u009b"}}}, 10),
        ({"Condition": {"StringEquals": {"kms:EncryptionContext:\u009b": "x"}}}, 3),
        ({"\x1b[31m": ""}, 3),
    ],
)
def test_nothing_that_a_policy_says_controls_the_terminal(
    run: InProcess, work: Path, changes: dict[str, Any], code: int
) -> None:
    (work / "hostile.json").write_text(policy_of(but(**changes)))
    done = explain(run, "hostile.json", *CALL)
    assert done.code == code
    text = done.stdout.decode() + done.stderr
    assert all(line.isprintable() for line in text.splitlines())


# --- a call from CloudTrail ----------------------------------------------------------------------


def test_an_event(run: InProcess) -> None:
    done = explain(run, "policy.json", "--log", "event.json")
    assert (done.code, done.stderr) == (0, "")
    first, second, *_ = done.stdout.decode().splitlines()
    assert first == (f"CloudTrail: Decrypt by {SESSION} at 2026-05-01T12:00:00+00:00: KMS did it")
    assert second.startswith('allowed: statement "Enclave" allows')


def test_an_event_without_recipient_data_is_unknown_and_not_missing(run: InProcess) -> None:
    done = explain(run, "policy.json", "--log", "denied.json")
    assert done.code == 10
    assert done.error == "whether the key policy allows kms:Decrypt cannot be said"
    assert done.hint == "give what the enclave attests: --document FILE, --pcr or --pcr-from"
    text = done.stdout.decode()
    assert '\nunknown: statement "Enclave" cannot be decided: kms:Recipient' in text
    assert "PCR0 is unknown: the event has no recipient data" in text
    assert "no attestation document" not in text
    # What somebody knows from elsewhere decides.
    done = explain(run, "policy.json", "--log", "denied.json", "--document", "other", "--json")
    assert (done.code, done.json["decision"]) == (10, "denied")
    done = explain(run, "policy.json", "--log", "denied.json", *NAMED)
    assert done.code == 0
    assert "- KMS refused what this key policy allows: something else denies it" in (
        done.stdout.decode()
    )


def test_a_register_that_cloudtrail_does_not_record(run: InProcess, work: Path) -> None:
    key = "kms:RecipientAttestation:PCR16"
    (work / "pcr16.json").write_text(policy_of(wanting(StringEquals={key: "b6" * 48})))
    done = explain(run, "pcr16.json", "--log", "event.json")
    assert done.code == 10
    assert done.hint.endswith(f"the call does not have it: {key}")
    given = ("--condition-key", f"{key}={'b6' * 48}")
    assert explain(run, "pcr16.json", "--log", "event.json", *given).code == 0
    assert explain(run, "pcr16.json", "--log", "event.json", "--missing-key", key).code == 10


def test_one_event_of_many(run: InProcess) -> None:
    done = explain(run, "policy.json", "--log", "log.json")
    assert (done.code, done.stdout) == (2, b"")
    assert done.error == "the CloudTrail log has 2 KMS events (1 refused)"
    assert done.hint.startswith("choose with --event-id: second (Decrypt by ")
    done = explain(run, "policy.json", "--log", "log.json", "--event-id", "second", "--json")
    assert (done.code, done.json["event"]["id"]) == (10, "second")
    assert (done.json["event"]["error_code"], done.json["event"]["done"]) == ("AccessDenied", False)
    done = explain(run, "policy.json", "--log", "log.json", "--event-id", "third")
    assert (done.code, done.error) == (3, "the CloudTrail log has no KMS event 'third'")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--operation", "Encrypt"), "--operation and --encryption-context are in the event"),
        (CALL[4:], "--operation and --encryption-context are in the event"),
        (("--principal", ROLE), "the event of --log names its caller"),
        (NAMED, "the event of --log has the PCRs of its document"),
        (("--document", "document"), "the event of --log has the PCRs of its document"),
    ],
)
def test_what_the_event_says_is_not_said_again(
    run: InProcess, options: tuple[str, ...], says: str
) -> None:
    done = explain(run, "policy.json", "--log", "event.json", *options)
    assert (done.code, done.stdout) == (2, b"")
    assert says in done.error


@pytest.mark.parametrize(
    ("changes", "options", "code", "says"),
    [
        ({"userIdentity": {"type": "AWSAccount"}}, (), 2, "does not name its caller's ARN"),
        ({"userIdentity": {"type": "AWSAccount"}}, ("--principal", ROLE), 0, ""),
        ({"resources": [], "requestParameters": {}}, (), 2, "does not name the key's ARN"),
        ({"resources": []} | {"eventName": "GenerateRandom"}, (), 2, "no key policy decides it"),
        ({"eventTime": "yesterday"}, (), 3, "no time with its zone"),
    ],
)
def test_events_that_leave_something_out(
    run: InProcess,
    work: Path,
    changes: dict[str, Any],
    options: tuple[str, ...],
    code: int,
    says: str,
) -> None:
    (work / "some.json").write_text(json.dumps(EVENT | changes))
    done = explain(run, "policy.json", "--log", "some.json", *options)
    assert done.code == code
    assert says in done.stderr


# --- what cannot be asked ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("policy.json",), 2, "no caller was named"),
        (("policy.json", "--principal", ROLE), 2, "no key was named"),
        (("policy.json", *CALL[2:], "--principal", "enclave"), 2, "is not the ARN of a role, a us"),
        (("policy.json", *CALL[:2], "--key-id", "alias/app"), 2, "is an alias"),
        (("policy.json", *CALL, "--operation", "Decrypto"), 2, "is not an operation of KMS"),
        (("policy.json", *CALL, "--operation", "GenerateRandom"), 2, "no key policy decides it"),
        (("policy.json", *CALL, "--pcr", "0=00"), 2, "96 hexadecimal digits"),
        (("policy.json", *CALL, *NAMED, "--document", "document"), 2, "--document has the PCRs"),
        (
            ("policy.json", *CALL, f"--pcr=0={'00' * 48}", "--pcr-from", "image.json"),
            2,
            "two values are given for PCR0",
        ),
        (("policy.json", *CALL, "--condition-key", "x=1"), 2, "'x' is not a condition key"),
        (
            ("policy.json", *CALL, "--condition-key", "a:b=1", "--missing-key", "a:b"),
            2,
            "--condition-key and --missing-key both name a:b",
        ),
        (("policy.json", *CALL, "--event-id", "x"), 2, "--event-id is for --log"),
        (("-", "--log", "-"), 2, "stdin can be read once"),
        (("document", *CALL), 3, "the policy is not UTF-8"),
        (("image.json", *CALL), 3, "the policy has an unknown element"),
        (("policy.json", *CALL, "--document", "policy.json"), 3, "the document is not base64"),
        (("policy.json", *CALL, "--pcr-from", "policy.json"), 3, "measurements"),
        (("policy.json", "--log", "policy.json"), 3, "the CloudTrail log has no event of KMS"),
        (("policy.json", "--log", "document"), 3, "the CloudTrail log"),
        (("missing.json", *CALL), 11, "missing.json could not be read"),
        (("policy.json", "--log", "missing.json"), 11, "missing.json could not be read"),
    ],
)
def test_what_cannot_be_asked(
    run: InProcess, arguments: tuple[str, ...], code: int, says: str
) -> None:
    done = run("policy", "explain", *arguments)
    assert (done.code, done.stdout) == (code, b"")
    assert says in done.error
