"""Names that can only be KMS', and what a statement cannot be made to say."""

import pytest
from support.births import ACCOUNT, IMAGE, KEY_ARN, canonical, spki, statement_members

from kmstool.arn import parse_key_arn
from kmstool.birth_statement import (
    Statement,
    build_certificate,
    is_kms_host,
    parse_certificate,
    parse_statement,
    user_data_of,
)
from kmstool.errors import DocumentError
from kmstool.policy.build import Image, LockedPolicy

POLICY = LockedPolicy(account=ACCOUNT, key_spec="ECC_NIST_P384", images=(Image(IMAGE),))


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("kms.eu-west-1.amazonaws.com", "eu-west-1"),
        ("kms-fips.us-east-1.amazonaws.com", "us-east-1"),
        ("kms.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("vpce-0123456789abcdef0-abcdefgh.kms.eu-west-1.vpce.amazonaws.com", "eu-west-1"),
        ("vpce-0a-b-eu-west-1a.kms.eu-west-1.vpce.amazonaws.com", "eu-west-1"),
        ("vpce-0a-b.kms-fips.us-east-1.vpce.amazonaws.com", "us-east-1"),
    ],
)
def test_hosts_of_kms(host: str, region: str) -> None:
    assert is_kms_host(host, region)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "kms.example.com",
        "kms.eu-west-2.amazonaws.com",
        "kms.eu-west-1.amazonaws.com.cn",
        "kms.eu-west-1.amazonaws.com.example.com",
        "s3.eu-west-1.amazonaws.com",
        "kms.eu-west-1.amazonaws.com.",
        "kmsXeu-west-1.amazonaws.com",
        "vpce-0a-b.kms.eu-west-2.vpce.amazonaws.com",
        "vpce-0a-b.s3.eu-west-1.vpce.amazonaws.com",
        "vpce-0a.example.kms.eu-west-1.vpce.amazonaws.com",
        "x.vpce-0a-b.kms.eu-west-1.vpce.amazonaws.com",
        "vpce-0a-b.kms.eu-west-1.vpce.amazonaws.com.example.com",
        "vpce-0a-bXkms.eu-west-1.vpce.amazonaws.com",
        "vpce-0a-b.kms.eu-west-1.vpceXamazonaws.com",
        "vpce-0a-b.kms.eu-west-1.vpce.amazonawsXcom",
        "vpce-.kms.eu-west-1.vpce.amazonaws.com",
    ],
)
def test_hosts_of_others(host: str) -> None:
    assert not is_kms_host(host, "eu-west-1")


def test_a_statement_says_what_it_was_made_of() -> None:
    der = spki("ECC_NIST_P384")
    statement = Statement(
        key=parse_key_arn(KEY_ARN),
        public_key=der,
        policy=POLICY,
        kms_host="kms.eu-west-1.amazonaws.com",
    )
    assert statement.text == canonical(statement_members(public_key=der))
    assert parse_statement(statement.text) == statement
    assert user_data_of(statement.text).startswith(b"kmstool-birth-1")
    file = build_certificate(statement.text, b"document")
    assert parse_certificate(file).statement == statement.text
    assert parse_certificate(file).document == b"document"
    assert "document" not in repr(parse_certificate(file)).partition("document=")[2]


def test_a_statement_cannot_contradict_itself() -> None:
    with pytest.raises(DocumentError) as error:
        Statement(
            key=parse_key_arn(KEY_ARN.replace(ACCOUNT, "444455556666")),
            public_key=spki("ECC_NIST_P384"),
            policy=POLICY,
            kms_host="kms.eu-west-1.amazonaws.com",
        )
    assert error.value.step == "statement"
