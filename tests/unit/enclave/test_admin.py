"""The administrative client: CreateKey once, answers about the right key, grants to their end."""

from typing import Any

import pytest
from support.bent_admin import HOST, BentAdmin, admin_of
from support.births import KEY_ARN

from kmstool import limits
from kmstool.arn import parse_key_arn
from kmstool.enclave.admin import KmsAdmin
from kmstool.errors import KmsError, TransportError, UntrustedAnswerError

KEY = parse_key_arn(KEY_ARN)
OTHER = KEY_ARN.replace("1234abcd", "ffffffff")
DROPPED = TransportError("the connection was closed", retryable=True)


def create(admin: KmsAdmin) -> Any:
    return admin.create_key(key_spec="ECC_NIST_P256", key_usage="KEY_AGREEMENT", policy="{}")


def made() -> BentAdmin:
    kms = BentAdmin()
    create(admin_of(kms))
    return kms


def test_all_five() -> None:
    kms = made()
    with admin_of(kms) as admin:
        assert (admin.host, admin.region) == (HOST, "eu-west-1")
        assert admin.describe_key(KEY).key == KEY
        assert admin.get_key_policy(KEY) == "{}"
        assert admin.get_public_key(KEY).public_key == kms.public_key
        assert admin.list_grants(KEY) == ()
        assert kms.reusable
    assert not kms.reusable
    assert kms.asked() == [
        "CreateKey", "DescribeKey", "GetKeyPolicy", "GetPublicKey", "ListGrants",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "trouble",
    [
        DROPPED,
        (500, "KMSInternalException"),
        (503, "DependencyTimeoutException"),
        (400, "ThrottlingException"),
    ],
)
def test_create_key_is_sent_once(trouble: Any) -> None:
    kms = BentAdmin(troubles={"CreateKey": [trouble]})
    with pytest.raises((TransportError, KmsError)) as error:
        create(admin_of(kms))
    assert kms.asked() == ["CreateKey"]
    said = f"{error.value} {error.value.hint}"
    # KMS' own "no" leaves no key behind; silence and a breakdown may.
    assert ("look for one made just now" in said) is (trouble != (400, "ThrottlingException"))


def test_create_key_is_tried_again_before_it_was_sent() -> None:
    kms = BentAdmin(dials=[DROPPED, DROPPED])
    pauses: list[float] = []
    assert create(admin_of(kms, pauses=pauses)).key == KEY
    assert len(pauses) == 2
    with pytest.raises(TransportError) as error:
        create(admin_of(BentAdmin(dials=[TransportError("no route")])))
    assert (str(error.value), error.value.hint) == ("no route", None)


def test_an_answer_to_create_key_that_cannot_be_read_says_that_a_key_may_exist() -> None:
    kms = BentAdmin({"CreateKey": lambda answer: answer.clear()})
    with pytest.raises(UntrustedAnswerError, match="no KeyMetadata") as error:
        create(admin_of(kms))
    assert "look for one made just now" in str(error.value.hint)


def test_the_others_are_tried_again() -> None:
    kms = made()
    kms.troubles = {"GetKeyPolicy": [DROPPED, (500, "KMSInternalException")]}
    assert admin_of(kms).get_key_policy(KEY) == "{}"
    assert kms.asked()[1:] == ["GetKeyPolicy"] * 3


def test_an_answer_about_another_key_is_refused() -> None:
    kms = made()
    kms.bends = {
        "DescribeKey": lambda answer: answer["KeyMetadata"].update(
            Arn=OTHER, KeyId=OTHER.rpartition("/")[2]
        ),
        "GetPublicKey": lambda answer: answer.update(KeyId=OTHER),
    }
    admin = admin_of(kms)
    for ask in (admin.describe_key, admin.get_public_key):
        with pytest.raises(UntrustedAnswerError, match=r"is about .*ffffffff.* was asked for"):
            ask(KEY)


def test_grants_are_read_to_their_end() -> None:
    kms = made()
    pages = [
        {"Grants": [{"GrantId": "a"}], "Truncated": True, "NextMarker": "one"},
        {"Grants": [], "Truncated": True, "NextMarker": "two"},
        {"Grants": [{"GrantId": "b"}], "Truncated": False},
    ]
    kms.bends = {"ListGrants": lambda answer: answer.update(pages.pop(0))}
    assert admin_of(kms).list_grants(KEY) == ("a", "b")
    assert [request.get("Marker") for _, request in kms.requests[1:]] == [None, "one", "two"]


def test_grants_without_end_are_refused() -> None:
    kms = made()
    kms.bends = {"ListGrants": lambda answer: answer.update(Truncated=True, NextMarker="m")}
    with pytest.raises(UntrustedAnswerError, match="did not end after 16 pages"):
        admin_of(kms).list_grants(KEY)
    assert len(kms.asked()) == 1 + limits.GRANT_PAGES_MAX
