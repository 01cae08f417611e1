"""Session policies: what `--only-kms` writes, and what of a file is taken."""

import json
from typing import Any

import pytest

from kmstool import limits
from kmstool.arn import KeyArn, parse_key_arn
from kmstool.emulator.role_sessions import SessionPolicy
from kmstool.errors import SettingError
from kmstool.parent.session_policy import (
    check_role_arn,
    check_role_session_name,
    check_session_policy,
    session_policy_for,
)


def key(number: int = 0) -> KeyArn:
    return parse_key_arn(
        f"arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-{number:012x}"
    )


def test_what_only_kms_writes() -> None:
    text = session_policy_for([key(1), key(2), key(1)])
    condition = {"Null": {"kms:RecipientAttestation:ImageSha384": "false"}}
    assert json.loads(text) == {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": [
                    "kms:Decrypt",
                    "kms:DeriveSharedSecret",
                    "kms:GenerateDataKey",
                    "kms:GenerateDataKeyPair",
                ],
                "Resource": [str(key(1)), str(key(2))],
                "Condition": condition,
            },
            {
                "Effect": "Allow",
                "Action": "kms:GenerateRandom",
                "Resource": "*",
                "Condition": condition,
            },
        ],
    }
    assert " " not in text
    SessionPolicy(text)
    assert check_session_policy(text) == text


def test_as_many_keys_as_fit() -> None:
    assert len(session_policy_for([key(n) for n in range(20)])) <= limits.SESSION_POLICY_MAX
    with pytest.raises(SettingError, match=r"30 keys make a session policy of 2[0-9]{3}"):
        session_policy_for([key(n) for n in range(30)])
    with pytest.raises(SettingError, match="no key"):
        session_policy_for([])


STATEMENT = {"Effect": "Allow", "Action": "kms:Decrypt", "Resource": "*"}


def policy(*statements: Any, **more: Any) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements), **more}, indent=4)


def test_white_space_is_not_sent() -> None:
    assert check_session_policy(policy(STATEMENT)) == (
        '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"kms:Decrypt",'
        '"Resource":"*"}]}'
    )
    assert check_session_policy(json.dumps({"Statement": STATEMENT}))
    assert "é" in check_session_policy(policy({**STATEMENT, "Sid": "é"}))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"Statement": 1, "Statement": 2}', "names a member twice"),
        ("{}", "no statement"),
        (policy(1), "no statement"),
        (policy({"Effect": "Maybe"}), "no statement"),
        (policy(STATEMENT, {**STATEMENT, "Principal": "*"}), "names a Principal"),
        (policy({**STATEMENT, "NotPrincipal": "*"}), "names a Principal"),
        (policy({**STATEMENT, "Sid": "\u20ac"}), "U\\+20AC"),
        (policy({**STATEMENT, "Resource": "x" * 2000}), "20[0-9]{2} characters"),
        ('{"a": "\ud800"}', "is not JSON"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        check_session_policy(text)


def test_names() -> None:
    assert check_role_arn("arn:aws-cn:iam::111122223333:role/a/path/x")
    assert check_role_session_name("i-0123@host")
    for text in ("arn:aws:iam::111122223333:user/x", "role/x", "arn:aws:iam::1:role/x", ""):
        with pytest.raises(SettingError, match="not the ARN of a role"):
            check_role_arn(text)
    for text in ("x", "a b", "x" * 65, "é" * 3, ""):
        with pytest.raises(SettingError, match="not the name of a session"):
            check_role_session_name(text)
