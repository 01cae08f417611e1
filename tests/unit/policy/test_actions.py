"""Names of operations, as people write them."""

import pytest

from kmstool.errors import SettingError
from kmstool.policy.actions import (
    OTHER_ACTIONS,
    RECIPIENT_ACTIONS,
    SEALING_ACTIONS,
    WAYS_AROUND,
    action_of,
)


@pytest.mark.parametrize(
    ("name", "action"),
    [
        ("Decrypt", "kms:Decrypt"),
        ("decrypt", "kms:Decrypt"),
        ("kms:decrypt", "kms:Decrypt"),
        ("generate-data-key-pair", "kms:GenerateDataKeyPair"),
        ("ReEncryptFrom", "kms:ReEncryptFrom"),
        ("kms:BrandNew", "kms:BrandNew"),
    ],
)
def test_names(name: str, action: str) -> None:
    assert action_of(name) == action


def test_every_action_of_a_key_is_known() -> None:
    for action in {*RECIPIENT_ACTIONS, *WAYS_AROUND, *SEALING_ACTIONS, *OTHER_ACTIONS}:
        if action != "kms:GenerateRandom":
            assert action_of(action[4:]) == action


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("Decrypto", "is not an operation of KMS", "did you mean Decrypt?"),
        ("ReEncrypt", "is not an operation of KMS", "did you mean ReEncryptFrom or ReEncryptTo?"),
        ("", "is not an operation of KMS", "one that is newer"),
        ("\x1b[31m", r"\?\[31m", "one that is newer"),
        ("GenerateRandom", "no key policy decides it", "the IAM policies"),
        ("kms:CreateKey", "no key policy decides it", "the IAM policies"),
        ("list-keys", "no key policy decides it", "the IAM policies"),
    ],
)
def test_what_no_key_policy_decides(name: str, message: str, hint: str) -> None:
    with pytest.raises(SettingError, match=message) as caught:
        action_of(name)
    assert (caught.value.hint or "").startswith(hint)
    assert str(caught.value).isprintable()
