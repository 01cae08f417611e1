"""AssumeRole and GetCallerIdentity with unmodified botocore clients, and what a session then may.

The session policy is really an intersection: each row of `POLICIES` is a call of the session, and
what the role alone may do is shown beside it.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import botocore.config
import botocore.session
import pytest
from botocore.exceptions import ClientError
from support.emulator import RunningEmulator, running_emulator

from kmstool.arn import parse_key_arn
from kmstool.emulator.principals import ADMIN_ARN, ENCLAVE_ARN, Principal
from kmstool.emulator.sts import _trusts
from kmstool.parent.session_policy import session_policy_for

SESSION_ARN = "arn:aws:sts::111122223333:assumed-role/enclave/try"


def sts_of(emulator: RunningEmulator, principal: Principal, **options: Any) -> Any:
    return botocore.session.Session().create_client(
        "sts",
        region_name=options.pop("region_name", emulator.region),
        endpoint_url=emulator.endpoint_url,
        verify=str(emulator.ca_file),
        aws_access_key_id=principal.access_key_id,
        aws_secret_access_key=principal.secret_access_key,
        aws_session_token=principal.session_token,
        config=botocore.config.Config(retries={"total_max_attempts": 1}),
    )


class Trial:
    """An emulator with one key for the enclave's role, and sessions of that role."""

    def __init__(self, emulator: RunningEmulator) -> None:
        self.emulator = emulator
        self.admin = sts_of(emulator, emulator.emulator.admin)

    def key(self, principal: str = ENCLAVE_ARN, actions: str = "kms:*") -> str:
        statements = [
            {"Effect": "Allow", "Principal": {"AWS": one}, "Action": allowed, "Resource": "*"}
            for one, allowed in ((ADMIN_ARN, "kms:*"), (principal, actions))
        ]
        policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
        created = self.emulator.admin_client().create_key(Policy=policy)
        arn: str = created["KeyMetadata"]["Arn"]
        return arn

    def assume(self, policy: Any = None, **more: Any) -> Principal:
        if policy is not None:
            more["Policy"] = policy if isinstance(policy, str) else json.dumps(policy)
        request = {"RoleArn": ENCLAVE_ARN, "RoleSessionName": "try", **more}
        given = self.admin.assume_role(**request)["Credentials"]
        return Principal(
            access_key_id=given["AccessKeyId"],
            secret_access_key=given["SecretAccessKey"],
            session_token=given["SessionToken"],
            arn=ENCLAVE_ARN,
        )

    def kms(self, policy: Any = None) -> Any:
        return self.emulator.client(self.assume(policy))


@pytest.fixture(scope="module")
def trial() -> Iterator[Trial]:
    with running_emulator() as emulator:
        yield Trial(emulator)


def statement(action: Any, resource: Any = "*", effect: str = "Allow", **more: Any) -> Any:
    return {"Effect": effect, "Action": action, "Resource": resource, **more}


def policy(*statements: Any) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def refusal(call: Any, **parameters: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def test_what_assume_role_gives(trial: Trial) -> None:
    answer = trial.admin.assume_role(
        RoleArn=ENCLAVE_ARN,
        RoleSessionName="try",
        DurationSeconds=900,
        Policy=json.dumps(policy(statement("kms:*"))),
    )
    assert answer["AssumedRoleUser"]["Arn"] == SESSION_ARN
    assert answer["AssumedRoleUser"]["AssumedRoleId"].endswith(":try")
    assert 1 <= answer["PackedPolicySize"] <= 100
    left = answer["Credentials"]["Expiration"] - datetime.now(UTC)
    assert timedelta(seconds=890) < left <= timedelta(seconds=900)
    assert answer["Credentials"]["AccessKeyId"].startswith("ASIA")
    log = "".join(trial.emulator.log)
    assert answer["Credentials"]["SecretAccessKey"] not in log
    assert answer["Credentials"]["SessionToken"] not in log


def test_who_one_is(trial: Trial) -> None:
    assert trial.admin.get_caller_identity()["Arn"] == ADMIN_ARN
    identity = sts_of(trial.emulator, trial.assume()).get_caller_identity()
    assert (identity["Arn"], identity["Account"]) == (SESSION_ARN, "111122223333")
    assert identity["UserId"].endswith(":try")


def test_a_session_may_what_its_role_may(trial: Trial) -> None:
    arn = trial.key()
    kms = trial.kms()
    blob = kms.encrypt(KeyId=arn, Plaintext=b"x")["CiphertextBlob"]
    assert kms.decrypt(CiphertextBlob=blob)["Plaintext"] == b"x"
    assert f" {SESSION_ARN} Decrypt {arn} OK " in trial.emulator.log[-1]


@pytest.mark.parametrize(
    ("statements", "allowed"),
    [
        ([statement("kms:*")], True),
        ([statement("kms:Encrypt", "KEY")], True),
        ([statement(["kms:Decrypt", "kms:Enc*"], ["OTHER", "KEY"])], True),
        ([statement("kms:Encrypt", "OTHER")], False),
        ([statement("kms:Decrypt", "KEY")], False),
        ([statement("s3:*")], False),
        ([statement("kms:*"), statement("kms:Encrypt", "KEY", "Deny")], False),
        ([statement("kms:*", Condition={"Null": {"kms:RequestAlias": "true"}})], True),
        ([statement("kms:*", Condition={"Null": {"kms:RequestAlias": "false"}})], False),
        ([statement("kms:*", Condition={"StringEquals": {"aws:SourceVpc": "vpc-1"}})], False),
        ([{"Effect": "Allow", "NotAction": "kms:Decrypt", "NotResource": "OTHER"}], True),
        ([{"Effect": "Allow", "NotAction": "kms:Encrypt", "Resource": "*"}], False),
    ],
)
def test_a_session_policy_takes_away(trial: Trial, statements: Any, allowed: bool) -> None:
    arn, other = trial.key(), trial.key()
    text = json.dumps(policy(*statements)).replace("KEY", arn).replace("OTHER", other)
    kms = trial.kms(text)
    if allowed:
        assert kms.encrypt(KeyId=arn, Plaintext=b"x")["KeyId"] == arn
        return
    code, message = refusal(kms.encrypt, KeyId=arn, Plaintext=b"x")
    assert code == "AccessDeniedException"
    assert f"{SESSION_ARN} is not authorized" in message
    assert "no session policy allows kms:Encrypt: " in message


def test_it_adds_nothing(trial: Trial) -> None:
    arn = trial.key(actions="kms:Decrypt")
    code, message = refusal(
        trial.kms(policy(statement("kms:*"))).encrypt, KeyId=arn, Plaintext=b"x"
    )
    assert code == "AccessDeniedException"
    assert "session policy" not in message


def test_a_grant_is_lessened_too(trial: Trial) -> None:
    arn = trial.key(actions="kms:DescribeKey")
    trial.emulator.admin_client().create_grant(
        KeyId=arn, GranteePrincipal=ENCLAVE_ARN, Operations=["Encrypt"]
    )
    assert trial.kms().encrypt(KeyId=arn, Plaintext=b"x")
    lessened = trial.kms(policy(statement("kms:DescribeKey")))
    assert refusal(lessened.encrypt, KeyId=arn, Plaintext=b"x")[0] == "AccessDeniedException"


def test_a_key_policy_that_names_the_session_stands_alone(trial: Trial) -> None:
    arn = trial.key(SESSION_ARN)
    assert trial.kms(policy(statement("s3:*"))).encrypt(KeyId=arn, Plaintext=b"x")
    denied = trial.kms(policy(statement("kms:*", effect="Deny")))
    assert refusal(denied.encrypt, KeyId=arn, Plaintext=b"x")[0] == "AccessDeniedException"


@pytest.mark.parametrize(
    ("statements", "allowed"),
    [
        ([statement("kms:*")], True),
        ([statement("kms:GenerateRandom")], True),
        ([statement("kms:*", "arn:aws:kms:*:*:key/*")], False),
        ([{"Effect": "Allow", "Action": "kms:*", "NotResource": "arn:aws:kms:*:*:key/*"}], True),
        ([statement("kms:*"), statement("kms:GenerateRandom", effect="Deny")], False),
    ],
)
def test_what_is_about_no_key(trial: Trial, statements: Any, allowed: bool) -> None:
    kms = trial.kms(policy(*statements))
    if allowed:
        assert kms.generate_random(NumberOfBytes=8)["Plaintext"]
    else:
        assert (
            "no session policy allows kms:GenerateRandom"
            in refusal(kms.generate_random, NumberOfBytes=8)[1]
        )


def test_what_only_kms_writes(trial: Trial) -> None:
    """The attested calls with these keys, and no call that is not attested."""
    arn, other = trial.key(), trial.key()
    blobs = {
        key: trial.emulator.admin_client().encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
        for key in (arn, other)
    }
    kms = trial.kms(session_policy_for([parse_key_arn(arn)]))
    assert refusal(kms.decrypt, CiphertextBlob=blobs[arn])[0] == "AccessDeniedException"
    assert refusal(kms.generate_random, NumberOfBytes=8)[0] == "AccessDeniedException"
    assert refusal(kms.encrypt, KeyId=arn, Plaintext=b"x")[0] == "AccessDeniedException"
    assert refusal(kms.describe_key, KeyId=arn)[0] == "AccessDeniedException"


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"RoleArn": "arn:aws:iam::111122223333:role/none"}, "AccessDenied", "sts:AssumeRole on"),
        ({"RoleArn": ADMIN_ARN}, "AccessDenied", "is not authorized to perform: sts:AssumeRole"),
        ({"RoleArn": "arn:aws:iam::111122223333:user/x"}, "ValidationError", "is invalid"),
        ({"RoleSessionName": "a b"}, "ValidationError", "roleSessionName"),
        ({"DurationSeconds": 43_201}, "ValidationError", "durationSeconds"),
        ({"Policy": "{}"}, "MalformedPolicyDocument", "not an object"),
        ({"Policy": "x"}, "MalformedPolicyDocument", "is not JSON"),
        ({"Policy": "x" * 2_049}, "ValidationError", "2048"),
        (
            {"Policy": json.dumps(policy({**statement("kms:*"), "Principal": "*"}))},
            "MalformedPolicyDocument",
            "Principal",
        ),
        (
            {"Policy": json.dumps(policy({"Effect": "Allow", "Action": "kms:*"}))},
            "MalformedPolicyDocument",
            "no Resource",
        ),
        ({"ExternalId": "one"}, "ValidationError", "has no ExternalId"),
        ({"Tags": [{"Key": "a", "Value": "b"}]}, "ValidationError", "has no Tags.member.1"),
        (
            {"PolicyArns": [{"arn": "arn:aws:iam::aws:policy/ReadOnlyAccess"}]},
            "ValidationError",
            "has no PolicyArns",
        ),
    ],
)
def test_what_assume_role_refuses(
    trial: Trial, changes: dict[str, Any], code: str, said: str
) -> None:
    request = {"RoleArn": ENCLAVE_ARN, "RoleSessionName": "try", **changes}
    found = refusal(trial.admin.assume_role, **request)
    assert found[0] == code
    assert said in found[1]


def test_the_role_may_assume_itself_for_an_hour_at_most(trial: Trial) -> None:
    sts = sts_of(trial.emulator, trial.assume())
    request = {"RoleArn": ENCLAVE_ARN, "RoleSessionName": "again"}
    assert sts.assume_role(**request)
    code, message = refusal(sts.assume_role, DurationSeconds=3_601, **request)
    assert (code, "role chaining" in message) == ("ValidationError", True)


@pytest.mark.parametrize(
    ("statements", "allowed"),
    [
        ([statement("kms:*")], False),
        ([statement("kms:*"), statement("sts:AssumeRole", ENCLAVE_ARN)], True),
        ([statement("*")], True),
        ([statement("sts:AssumeRole", ADMIN_ARN)], False),
        ([statement("*"), statement("sts:*", effect="Deny")], False),
    ],
)
def test_a_lessened_session_does_not_get_rid_of_its_policy(
    trial: Trial, statements: Any, allowed: bool
) -> None:
    """A trust policy that names the role is no way around the session's own policy."""
    sts = sts_of(trial.emulator, trial.assume(policy(*statements)))
    request = {"RoleArn": ENCLAVE_ARN, "RoleSessionName": "again"}
    if allowed:
        assert sts.assume_role(**request)
    else:
        code, message = refusal(sts.assume_role, **request)
        assert (code, "perform: sts:AssumeRole on" in message) == ("AccessDenied", True)


def test_a_trust_policy_that_names_the_session_stands_alone(trial: Trial) -> None:
    """As in a key policy: then only an explicit Deny counts."""
    principals = trial.emulator.emulator.principals
    role = principals.named(ENCLAVE_ARN)
    named = replace(role, trusts=(SESSION_ARN,))
    sessions = {
        name: principals.find(trial.assume(policy(*statements)).access_key_id)
        for name, statements in (
            ("silent", [statement("kms:*")]),
            ("deny", [statement("kms:*"), statement("sts:*", effect="Deny")]),
        )
    }
    assert sessions["silent"] is not None
    assert sessions["deny"] is not None
    assert _trusts(named, sessions["silent"])
    assert not _trusts(named, sessions["deny"])


@pytest.mark.parametrize(
    ("change", "region", "code"),
    [
        ({"secret_access_key": "wrong"}, "eu-west-1", "SignatureDoesNotMatch"),
        ({"access_key_id": "AKIANOBODY0000000000"}, "eu-west-1", "InvalidClientTokenId"),
        ({"session_token": "another"}, "eu-west-1", "InvalidClientTokenId"),
        ({}, "us-east-1", "SignatureDoesNotMatch"),
    ],
)
def test_who_may_not_sign(trial: Trial, change: dict[str, Any], region: str, code: str) -> None:
    sts = sts_of(
        trial.emulator, replace(trial.emulator.emulator.admin, **change), region_name=region
    )
    assert refusal(sts.get_caller_identity)[0] == code


def test_other_operations_are_not_there(trial: Trial) -> None:
    code, message = refusal(trial.admin.get_session_token)
    assert (code, message) == ("InvalidAction", "Could not find operation GetSessionToken")


def test_an_expired_session(trial: Trial) -> None:
    session = trial.assume(DurationSeconds=900)
    kms, sts = trial.emulator.client(session), sts_of(trial.emulator, session)
    assert kms.generate_random(NumberOfBytes=8)
    sessions = trial.emulator.emulator.principals.sessions
    found = sessions.find(session.access_key_id)
    assert found is not None
    assert found.session is not None
    # AWS' shortest session has 15 minutes, and a clock moved that far has no valid signatures.
    now = datetime.now(UTC).timestamp()
    sessions.add(replace(found, session=replace(found.session, expires=now)))
    assert refusal(kms.generate_random, NumberOfBytes=8) == (
        "ExpiredTokenException",
        "The security token included in the request is expired",
    )
    assert refusal(sts.get_caller_identity)[0] == "ExpiredToken"
