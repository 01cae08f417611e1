"""The signature against botocore's, on generated requests."""

import random
import string
from datetime import UTC, datetime, timedelta, timezone

import botocore.auth
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials

from kmstool.arn import PARTITIONS, kms_host
from kmstool.enclave.credentials import Credentials
from kmstool.enclave.sigv4 import sign
from kmstool.protocol import Operation, target_header

REQUESTS = 10_000
ALPHANUMERIC = string.ascii_letters + string.digits
PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
UNSIGNED = {"authorization", "content-length", "user-agent"}


def word(source: random.Random, alphabet: str, least: int, most: int) -> str:
    return "".join(source.choices(alphabet, k=source.randint(least, most)))


def body(source: random.Random, number: int) -> bytes:
    if number % 1000 == 0:
        return source.randbytes(400_000)
    kind = source.randrange(4)
    if kind == 0:
        return b""
    if kind == 1:
        return '{"EncryptionContext":{"naïve":"日本語 💥"}}'.encode()
    if kind == 2:
        return source.randbytes(source.randint(1, 64))
    return b'{"CiphertextBlob":"' + word(source, ALPHANUMERIC, 0, 300).encode() + b'"}'


def host(source: random.Random, region: str) -> str:
    kind = source.randrange(4)
    if kind == 0:
        return f"vpce-{word(source, '0123456789abcdef', 17, 17)}.kms.{region}.vpce.amazonaws.com"
    if kind == 1:
        return "localhost"
    return kms_host(region, fips=kind == 2)


def test_ten_thousand_requests_sign_as_botocore_signs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    source = random.Random(20_261_124)
    regions = [region for partition in PARTITIONS for region in partition.regions]
    now = datetime.now(UTC)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: now.astimezone(UTC))
    for number in range(REQUESTS):
        now = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=source.randrange(3_000_000_000))
        now = now.astimezone(timezone(timedelta(minutes=source.randrange(-720, 720))))
        region = source.choice(regions)
        name = host(source, region)
        credentials = Credentials(
            word(source, ALPHANUMERIC + "_", 1, 128),
            word(source, PRINTABLE, 1, 80),
            word(source, PRINTABLE, 1, 1500) if source.randrange(2) else None,
        )
        target = target_header(source.choice(list(Operation)))
        data = body(source, number)

        headers = sign(
            host=name, region=region, target=target, body=data, credentials=credentials, now=now
        )

        request = AWSRequest(
            method="POST",
            url=f"https://{name}/",
            data=data,
            headers={"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": target},
        )
        SigV4Auth(
            BotocoreCredentials(
                credentials.access_key_id, credentials.secret_access_key, credentials.session_token
            ),
            "kms",
            region,
        ).add_auth(request)
        expected = {key.lower(): value for key, value in request.headers.items()} | {"host": name}
        found = {key.lower(): value for key, value in headers.items()}
        assert found["authorization"] == expected["authorization"]
        assert {k: v for k, v in found.items() if k not in UNSIGNED} == {
            k: v for k, v in expected.items() if k not in UNSIGNED
        }
        assert found["content-length"] == str(len(data))


def test_all_headers_that_carry_meaning_are_signed() -> None:
    headers = sign(
        host="kms.eu-west-1.amazonaws.com",
        region="eu-west-1",
        target="TrentService.Decrypt",
        body=b"{}",
        credentials=Credentials("AKIDEXAMPLE", "secret", "token"),
        now=datetime(2026, 11, 24, 8, 0, 0, tzinfo=UTC),
    )
    signed = headers["Authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
    assert set(signed) == {name.lower() for name in headers} - UNSIGNED
    assert signed == sorted(signed)
    assert headers["X-Amz-Security-Token"] == "token"
    assert headers["User-Agent"] == "kmstool"


def test_long_lived_credentials_send_no_token() -> None:
    headers = sign(
        host="localhost",
        region="eu-west-1",
        target="TrentService.Decrypt",
        body=b"",
        credentials=Credentials("AKIDEXAMPLE", "secret"),
        now=datetime(2026, 11, 24, 8, 0, 0, tzinfo=UTC),
    )
    assert "X-Amz-Security-Token" not in headers
    assert "x-amz-security-token" not in headers["Authorization"]


def test_the_secret_is_in_no_header() -> None:
    secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    headers = sign(
        host="localhost",
        region="eu-west-1",
        target="TrentService.Decrypt",
        body=b"",
        credentials=Credentials("AKIDEXAMPLE", secret),
        now=datetime(2026, 11, 24, 8, 0, 0, tzinfo=UTC),
    )
    assert secret not in str(headers)
