"""CloudTrail events: what they tell, what they leave open, and what is refused."""

import base64
import json
from typing import Any

import pytest
from support.denials import ACCOUNT, ENCLAVE, KEY, PCRS, ROLE, but, wanting
from support.events import DENIED, EVENT, RECIPIENT, SESSION

from kmstool.errors import InputError, KmstoolError, SettingError
from kmstool.policy.cloudtrail import NO_RECIPIENT, CloudTrailEvent, parse_events
from kmstool.policy.evaluate import parse_policy
from kmstool.policy.explain import Explanation, Verdict, explain
from kmstool.policy.explain_event import event_advice, event_line


def read(**changes: Any) -> CloudTrailEvent:
    (event,) = parse_events(json.dumps(EVENT | changes).encode())
    return event


def explained(event: CloudTrailEvent, *statements: dict[str, Any]) -> Explanation:
    rules = list(statements or (ENCLAVE,))
    policy = parse_policy(json.dumps({"Version": "2012-10-17", "Statement": rules}))
    return explain(policy, event.request())


def test_an_event_tells_the_whole_call() -> None:
    event = read()
    assert (event.operation, event.principal, event.session) == ("Decrypt", ROLE, SESSION)
    assert (event.key_arn, event.error_code, event.done) == (KEY, None, True)
    assert event.pcrs == {index: PCRS.get(index, bytes(48)) for index in (0, 1, 2, 3, 4, 8)}
    assert explained(event).verdict is Verdict.ALLOWED
    assert event_line(event) == f"Decrypt by {SESSION} at 2026-05-01T12:00:00+00:00: KMS did it"


def test_hexadecimal_as_in_the_older_documentation_is_read_too() -> None:
    recipient = {"attestationDocumentEnclaveImageDigest": "a0" * 48}
    assert read(additionalEventData={"recipient": recipient}).pcrs == {0: b"\xa0" * 48}


def test_without_recipient_data_pcrs_are_unknown_and_not_missing() -> None:
    found = explained(read(**DENIED))
    assert found.verdict is Verdict.UNKNOWN
    assert found.unknown_keys == tuple(f"kms:RecipientAttestation:PCR{index}" for index in range(3))
    keys = "kms:RecipientAttestation:PCR0, kms:RecipientAttestation:PCR1 and"
    assert found.advice == (f"{keys} kms:RecipientAttestation:PCR2 are unknown: {NO_RECIPIENT}",)
    assert not any("missing" in one or "no attestation document" in one for one in found.advice)


def test_a_deny_on_a_missing_document_is_not_decided_either() -> None:
    deny = but(Effect="Deny", Condition={"Null": {"kms:RecipientAttestation:PCR0": "true"}})
    assert explained(read(**DENIED), deny).verdict is Verdict.UNKNOWN


def test_what_is_certain_decides_without_recipient_data() -> None:
    event = read(**DENIED, requestParameters={"encryptionContext": {"tenant": "red"}})
    found = explained(event)
    assert found.verdict is Verdict.DENIED
    assert found.advice[0].startswith('"tenant" of the encryption context is "red"')


def test_pcrs_that_are_given_fill_in_what_the_event_leaves_open() -> None:
    event = read(**DENIED)
    policy = parse_policy(json.dumps({"Version": "2012-10-17", "Statement": [ENCLAVE]}))
    keys = {f"kms:recipientattestation:pcr{i}": (PCRS[i].hex(),) for i in range(3)}
    assert explain(policy, event.request(context=keys)).verdict is Verdict.ALLOWED


def test_registers_that_cloudtrail_does_not_record_are_unknown() -> None:
    found = explained(read(), wanting(StringEquals={"kms:RecipientAttestation:PCR16": "b6" * 48}))
    assert found.verdict is Verdict.UNKNOWN
    assert "CloudTrail records PCR0 to PCR4 and PCR8 alone" in found.reason


def test_without_pcr0_the_image_is_unknown() -> None:
    recipient = {name: value for name, value in RECIPIENT.items() if not name.endswith("Digest")}
    event = read(additionalEventData={"recipient": recipient})
    found = explained(event, wanting(StringEquals={"kms:RecipientAttestation:ImageSha384": "x"}))
    assert found.verdict is Verdict.UNKNOWN


def test_an_operation_without_recipient_has_none() -> None:
    event = read(eventName="Encrypt", additionalEventData=None)
    found = explained(event, but(Action="kms:*"))
    assert found.verdict is Verdict.DENIED
    assert "kms:Encrypt takes no attestation document" in found.advice[0]


def test_without_parameters_the_encryption_context_is_unknown() -> None:
    event = read(requestParameters=None)
    assert explained(event).verdict is Verdict.UNKNOWN
    assert '"tenant" of the encryption context is unknown' in explained(event).reason
    assert "kms:encryptionalgorithm" not in event.request().context


def test_a_hidden_encryption_context_is_unknown() -> None:
    event = read(requestParameters={"encryptionContext": "HIDDEN_DUE_TO_SECURITY_REASONS"})
    assert explained(event).verdict is Verdict.UNKNOWN


def test_nitrotpm_has_registers_of_its_own() -> None:
    recipient = {"attestationDocumentNitroTPMPCR4": base64.b64encode(b"\xa4" * 48).decode()}
    event = read(additionalEventData={"recipient": recipient})
    context = event.request().context
    assert context["kms:recipientattestation:nitrotpmpcr4"] == ("a4" * 48,)
    assert explained(event).verdict is Verdict.DENIED


@pytest.mark.parametrize(
    ("changes", "key", "values"),
    [
        ({}, "aws:sourceip", ("192.0.2.1",)),
        ({}, "aws:sourcevpce", ()),
        ({"vpcEndpointId": "vpce-1"}, "aws:sourcevpce", ("vpce-1",)),
        ({"vpcEndpointId": "vpce-1"}, "aws:sourceip", ()),
        ({"vpcEndpointId": "vpce-1"}, "aws:vpcsourceip", ("192.0.2.1",)),
        ({"vpcEndpointId": "vpce-1"}, "aws:sourcevpc", None),
        ({"sourceIPAddress": "s3.amazonaws.com"}, "aws:sourceip", None),
        ({}, "kms:viaservice", ()),
        ({}, "aws:viaawsservice", ("false",)),
        ({}, "aws:currenttime", ("2026-05-01T12:00:00+00:00",)),
        ({}, "aws:epochtime", ("1777636800",)),
        ({}, "aws:userid", ("AROAEXAMPLE123456789:i-0123456789abcdef0",)),
        ({}, "aws:principaltype", ("AssumedRole",)),
        ({}, "aws:username", ()),
        ({}, "kms:encryptionalgorithm", ("SYMMETRIC_DEFAULT",)),
        (
            {"requestParameters": {"keyId": "alias/app", "keyPairSpec": "RSA_2048"}},
            "kms:requestalias",
            ("alias/app",),
        ),
        ({"requestParameters": {"keyPairSpec": "RSA_2048"}}, "kms:datakeypairspec", ("RSA_2048",)),
    ],
)
def test_condition_keys(changes: dict[str, Any], key: str, values: tuple[str, ...] | None) -> None:
    assert read(**changes).request().context.get(key) == values


def test_a_service_that_calls_makes_its_keys_unknown() -> None:
    identity = EVENT["userIdentity"] | {"invokedBy": "s3.amazonaws.com"}
    request = read(userIdentity=identity).request()
    assert request.context["aws:viaawsservice"] == ("true",)
    assert "an AWS service made the call" in (request.why_unknown("kms:viaservice") or "")


@pytest.mark.parametrize(
    ("identity", "principal", "session"),
    [
        (
            {"type": "IAMUser", "arn": f"arn:aws:iam::{ACCOUNT}:user/a", "userName": "a"},
            "user/a",
            None,
        ),
        ({"type": "Root", "arn": f"arn:aws:iam::{ACCOUNT}:root"}, "root", None),
        ({"type": "AWSAccount", "accountId": "444455556666"}, None, None),
        ({"type": "AssumedRole", "arn": SESSION}, None, SESSION),
    ],
)
def test_callers(identity: dict[str, Any], principal: str | None, session: str | None) -> None:
    event = read(userIdentity=identity)
    wanted = None if principal is None else f"arn:aws:iam::{ACCOUNT}:{principal}"
    assert (event.principal, event.session) == (wanted, session)
    if wanted is None:
        with pytest.raises(SettingError, match="does not name its caller"):
            event.request()
        assert event.request(principal=ROLE).principal == ROLE


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"resources": []}, KEY),
        ({"resources": None, "requestParameters": {"keyId": KEY.rpartition("/")[2]}}, KEY),
        ({"resources": [{"ARN": KEY}], "requestParameters": {"keyId": "alias/x"}}, KEY),
        ({"resources": [], "requestParameters": {"keyId": "alias/x"}}, None),
        ({"resources": ["x", {"ARN": 1}], "requestParameters": None}, None),
    ],
)
def test_keys(changes: dict[str, Any], key: str | None) -> None:
    event = read(**changes)
    assert event.key_arn == key
    if key is None:
        with pytest.raises(SettingError, match="does not name the key"):
            event.request()
        assert event.request(key_arn=KEY).resource == KEY


def test_log_files_and_lookups() -> None:
    other = EVENT | {"eventSource": "s3.amazonaws.com"}
    log = json.dumps({"Records": [other, EVENT, EVENT]}).encode()
    assert len(parse_events(log)) == 2
    lookup = json.dumps({"Events": [{"CloudTrailEvent": json.dumps(EVENT)}]}).encode()
    assert parse_events(lookup)[0].principal == ROLE


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b"{}", "has no event of KMS"),
        (b'{"Records": 1}', "Records of the CloudTrail log is not a list"),
        (b'{"Records": [1]}', "a record of the CloudTrail log is not a JSON object"),
        (b'{"Records": []}', "has no event of KMS"),
        (b'{"Events": [{}]}', "has no CloudTrailEvent"),
        (b'{"Events": [{"CloudTrailEvent": "x"}]}', "is not JSON"),
        (b'{"a": 1, "a": 1}', "names a member twice"),
        (b" " * 1_048_577, "more than 1048576"),
    ],
)
def test_what_is_no_log_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_events(data)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"eventVersion": "2.0"}, "eventVersion"),
        ({"eventVersion": None}, "has no eventVersion"),
        ({"eventName": "De crypt"}, "is no operation of KMS"),
        ({"eventTime": "2026-05-01"}, "no time with its zone"),
        ({"eventTime": "now"}, "no time with its zone"),
        ({"userIdentity": None}, "userIdentity"),
        ({"requestParameters": "x"}, "requestParameters"),
        ({"additionalEventData": {"recipient": "x"}}, "recipient"),
        (
            {
                "userIdentity": {
                    "arn": SESSION,
                    "sessionContext": {"sessionIssuer": {"arn": "x"}},
                }
            },
            "sessionIssuer",
        ),
        *(
            ({"additionalEventData": {"recipient": {name: value}}}, "is not the base64 of 48 bytes")
            for name in ("attestationDocumentEnclaveImageDigest", "attestationDocumentEnclavePCR8")
            for value in ("<AttestationDocument.PCR0>", "AAAA", "a0" * 47, 1, None)
        ),
    ],
)
def test_what_is_malformed_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        read(**changes)
    assert str(caught.value).isprintable()


def test_members_that_nobody_knows_are_passed_over() -> None:
    recipient = RECIPIENT | {"attestationDocumentEnclavePCR99": 1, "somethingNew": 1}
    assert read(somethingNew=1, additionalEventData={"recipient": recipient}).pcrs == read().pcrs


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ("with an explicit deny in a service control policy", "organization denies it"),
        ("with an explicit deny in an identity-based policy", "IAM policy of the caller denies"),
        ("because no session policy allows the kms:Decrypt action", "session's policy does not"),
        ("because no resource-based policy allows the action", "the key policy does not allow it"),
        (
            "because no identity-based policy allows the action",
            "no IAM policy of the caller allows",
        ),
        ("with an explicit deny in a VPC endpoint policy", "VPC endpoint's policy denies it"),
    ],
)
def test_kms_message_names_the_kind_of_policy(message: str, says: str) -> None:
    event = read(errorCode="AccessDenied", errorMessage=f"User: x is not authorized … {message}")
    (advice,) = event_advice(event, explained(event))
    assert says in advice


def test_event_and_policy_may_disagree() -> None:
    refused = read(errorCode="AccessDenied")
    (advice,) = event_advice(refused, explained(refused))
    assert advice.startswith("KMS refused what this key policy allows: something else denies it")
    allowed = read(requestParameters={"encryptionContext": {}})
    (advice,) = event_advice(allowed, explained(allowed))
    assert advice.startswith("KMS did what this key policy does not allow: a grant allows it")
    other = read(errorCode="DisabledException")
    (advice,) = event_advice(other, explained(other))
    assert advice == "DisabledException is not a matter of permission: no policy changes it"
    assert event_line(other).endswith("KMS refused it with DisabledException")
    assert event_advice(read(), explained(read())) == []
    assert read(errorCode="DryRunOperationException").done


def test_an_event_with_an_arn_that_is_none_is_a_setting_that_is_wrong() -> None:
    with pytest.raises(KmstoolError):
        read(resources=[], requestParameters=None).request(key_arn="x")
