"""SigV4 as the emulator checks it: botocore and kmstool sign, and every change is noticed."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import botocore.auth
import botocore.awsrequest
import botocore.compat
import botocore.credentials
import pytest

from kmstool.emulator.authentication import HttpRequest, authenticate
from kmstool.emulator.principals import Principal, collect_principals
from kmstool.emulator.refusal import Refusal
from kmstool.enclave.credentials import Credentials
from kmstool.enclave.sigv4 import sign

REGION = "eu-west-1"
NOW = 1_790_000_000.0
MOMENT = datetime.fromtimestamp(NOW, UTC)
BODY = b'{"KeyId":"alias/x"}'
TARGET = "TrentService.DescribeKey"
PLAIN = Principal(
    access_key_id="AKIAPLAIN00000000000",
    secret_access_key="plain-secret",
    arn="arn:aws:iam::111122223333:role/plain",
)
TOKEN = Principal(
    access_key_id="ASIATOKEN00000000000",
    secret_access_key="token-secret",
    session_token="session/token+1==",
    arn="arn:aws:iam::111122223333:role/token",
)
PRINCIPALS = collect_principals([PLAIN, TOKEN])


def signed(
    principal: Principal = PLAIN,
    *,
    moment: datetime = MOMENT,
    region: str = REGION,
    host: str = "kms.eu-west-1.amazonaws.com",
) -> HttpRequest:
    """A request as kmstool's own signer makes it."""
    headers = sign(
        host=host,
        region=region,
        target=TARGET,
        body=BODY,
        credentials=Credentials(
            principal.access_key_id, principal.secret_access_key, principal.session_token, None
        ),
        now=moment,
    )
    lowered = {name.lower(): value for name, value in headers.items()}
    return HttpRequest("POST", "/", lowered, BODY)


@pytest.mark.parametrize(
    ("host", "accepted"),
    [
        ("kms.eu-west-1.amazonaws.com", True),
        ("kms-fips.eu-west-1.amazonaws.com", True),
        ("vpce-0a1b-2c3d.kms.eu-west-1.vpce.amazonaws.com:443", True),
        ("localhost:4567", True),
        ("127.0.0.1:4567", True),
        ("kms.us-east-1.amazonaws.com", False),
        ("KMS-FIPS.US-EAST-1.amazonaws.com:443", False),
        ("vpce-0a1b-2c3d.kms.eu-west-2.vpce.amazonaws.com", False),
    ],
)
def test_the_host_of_another_region_is_another_kms(host: str, accepted: bool) -> None:
    # A wrong --host, with the right region in the signature, passed here and failed in AWS.
    request = signed(host=host)
    if accepted:
        assert authenticate(request, PRINCIPALS, region=REGION, now=NOW) is PLAIN
        return
    with pytest.raises(Refusal, match="valid region") as caught:
        authenticate(request, PRINCIPALS, region=REGION, now=NOW)
    assert caught.value.code == "InvalidSignatureException"


def signed_by_botocore(extra: dict[str, str]) -> HttpRequest:
    """A request as botocore signs it, now; with more headers."""
    request = botocore.awsrequest.AWSRequest(
        method="POST",
        url="https://localhost:8443/",
        data=BODY,
        headers={"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": TARGET} | extra,
    )
    credentials = botocore.credentials.Credentials(PLAIN.access_key_id, PLAIN.secret_access_key)
    botocore.auth.SigV4Auth(credentials, "kms", REGION).add_auth(request)
    headers = {name.lower(): value for name, value in request.headers.items()}
    return HttpRequest("POST", "/", {"host": "localhost:8443"} | headers, BODY)


def check(request: HttpRequest, now: float = NOW) -> Principal:
    return authenticate(request, PRINCIPALS, region=REGION, now=now)


def refusal(request: HttpRequest, now: float = NOW) -> Refusal:
    with pytest.raises(Refusal) as caught:
        check(request, now)
    for principal in (PLAIN, TOKEN):
        assert principal.secret_access_key not in caught.value.message
    return caught.value


def with_header(request: HttpRequest, name: str, value: str | None) -> HttpRequest:
    headers = {key: old for key, old in request.headers.items() if key != name}
    return replace(request, headers=headers | ({} if value is None else {name: value}))


def in_authorization(request: HttpRequest, old: str, new: str) -> HttpRequest:
    text = request.headers["authorization"]
    assert old in text
    return with_header(request, "authorization", text.replace(old, new))


@pytest.mark.parametrize("principal", [PLAIN, TOKEN])
def test_our_own_signature(principal: Principal) -> None:
    assert check(signed(principal)) is principal


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"User-Agent": "x"},  # botocore leaves it unsigned
        {"X-Amz-Content-SHA256": hashlib.sha256(BODY).hexdigest()},
        {"amz-sdk-request": "attempt=1", "X-Extra": "  a   b  "},
        {"X-Amzn-Trace-Id": "Root=1"},
    ],
)
def test_botocores_signature(extra: dict[str, str]) -> None:
    now = datetime.now(UTC).timestamp()
    assert check(signed_by_botocore(extra), now) is PLAIN


def test_a_client_may_sign_what_botocore_never_does() -> None:
    # Other SDKs sign user-agent; botocore's signer would leave it out of what it computes.
    class Signer(botocore.auth.SigV4Auth):
        def headers_to_sign(self, request: Any) -> Any:
            headers = botocore.compat.HTTPHeaders()
            for name, value in request.headers.items():
                headers[name.lower()] = value
            return headers

    request = botocore.awsrequest.AWSRequest(
        method="POST",
        url="https://localhost/",
        data=BODY,
        headers={"Host": "localhost", "X-Amz-Target": TARGET, "User-Agent": "other-sdk/1"},
    )
    credentials = botocore.credentials.Credentials(PLAIN.access_key_id, PLAIN.secret_access_key)
    Signer(credentials, "kms", REGION).add_auth(request)
    headers = {name.lower(): value for name, value in request.headers.items()}
    now = datetime.now(UTC).timestamp()
    assert check(HttpRequest("POST", "/", headers, BODY), now) is PLAIN
    assert (
        refusal(HttpRequest("POST", "/", headers | {"user-agent": "x"}, BODY), now).code
        == "InvalidSignatureException"
    )


def test_no_authorization() -> None:
    for value in (None, ""):
        request = with_header(signed(), "authorization", value)
        assert refusal(request).code == "MissingAuthenticationTokenException"


@pytest.mark.parametrize(
    "bend",
    [
        lambda r: in_authorization(r, "AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"),
        lambda r: in_authorization(r, "Credential=", "Kredential="),
        lambda r: in_authorization(r, "Signature=", "Zignature="),
        lambda r: in_authorization(r, "SignedHeaders=", "SignedHeaders=host, SignedHeaders="),
        lambda r: in_authorization(r, "/aws4_request", ""),
        lambda r: in_authorization(r, "content-type;host", "host;content-type"),
        lambda r: in_authorization(r, "content-type;host", "content-type;host;host"),
        lambda r: in_authorization(r, "content-type;host", "Content-Type;host"),
        lambda r: with_header(r, "x-amz-date", None),
        lambda r: with_header(r, "x-amz-date", "yesterday"),
        lambda r: with_header(r, "authorization", "Bearer x"),
    ],
)
def test_incomplete_signatures(bend: Callable[[HttpRequest], HttpRequest]) -> None:
    assert refusal(bend(signed())).code == "IncompleteSignatureException"


@pytest.mark.parametrize(
    "bend",
    [
        lambda r: replace(r, body=BODY + b" "),
        lambda r: replace(r, method="GET"),
        lambda r: with_header(r, "host", "kms.us-east-1.amazonaws.com"),
        lambda r: with_header(r, "x-amz-target", "TrentService.Decrypt"),
        lambda r: with_header(r, "content-type", "text/plain"),
        lambda r: with_header(r, "content-type", None),
        lambda r: with_header(r, "x-amz-meta", "unsigned"),
        lambda r: in_authorization(r, "content-type;host;", "content-type;"),
        lambda r: in_authorization(r, ";x-amz-target", ""),
        lambda r: in_authorization(r, "aws4_request", "aws5_request"),
        lambda r: in_authorization(r, "/kms/", "/s3/"),
        lambda r: in_authorization(r, "/eu-west-1/", "/us-east-1/"),
        lambda r: in_authorization(r, "Signature=", "Signature=0"),
        lambda r: with_header(r, "authorization", r.headers["authorization"][:-1]),
        lambda r: with_header(r, "x-amz-content-sha256", hashlib.sha256(b"other").hexdigest()),
    ],
)
def test_wrong_signatures(bend: Callable[[HttpRequest], HttpRequest]) -> None:
    assert refusal(bend(signed())).code == "InvalidSignatureException"


def test_a_claimed_hash_does_not_hide_another_body() -> None:
    # botocore's signer takes the body's hash from this header; a server must not.
    honest = signed_by_botocore({"X-Amz-Content-SHA256": hashlib.sha256(BODY).hexdigest()})
    now = datetime.now(UTC).timestamp()
    assert check(honest, now) is PLAIN
    assert refusal(replace(honest, body=b"{}"), now).code == "InvalidSignatureException"
    unsigned = signed_by_botocore({"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"})
    assert refusal(unsigned, now).code == "InvalidSignatureException"


def test_every_character_of_the_signature_counts() -> None:
    request = signed()
    text = request.headers["authorization"]
    for index in range(len(text) - 64, len(text)):
        flipped = "0" if text[index] != "0" else "1"
        bent = with_header(request, "authorization", text[:index] + flipped + text[index + 1 :])
        assert refusal(bent).code == "InvalidSignatureException"


@pytest.mark.parametrize(
    ("difference", "words"),
    [(300, None), (301, "Signature expired"), (-300, None), (-301, "Signature not yet current")],
)
def test_the_clock(difference: float, words: str | None) -> None:
    if words is None:
        assert check(signed(), NOW + difference) is PLAIN
    else:
        refused = refusal(signed(), NOW + difference)
        assert refused.code == "InvalidSignatureException"
        assert words in refused.message


def test_scope_of_another_day() -> None:
    date = f"{MOMENT:%Y%m%d}"
    request = in_authorization(signed(), f"/{date}/", "/20200101/")
    assert "Date in Credential scope" in refusal(request).message


def test_a_date_that_does_not_exist() -> None:
    request = with_header(signed(), "x-amz-date", "20260230T000000Z")
    bent = in_authorization(request, f"/{MOMENT:%Y%m%d}/", "/20260230/")
    assert refusal(bent).code == "IncompleteSignatureException"


def test_unknown_access_key() -> None:
    request = in_authorization(signed(), PLAIN.access_key_id, "AKIAUNKNOWN000000000")
    assert refusal(request).code == "UnrecognizedClientException"


def test_session_tokens() -> None:
    wrong = replace(TOKEN, session_token="session/token+2==")
    missing = replace(TOKEN, session_token=None)
    surplus = replace(PLAIN, session_token="surplus")
    for principal in (wrong, missing, surplus):
        assert refusal(signed(principal)).code == "UnrecognizedClientException"
    foreign = replace(TOKEN, session_token="größe".encode().decode("latin-1"))
    assert (
        refusal(with_header(signed(TOKEN), "x-amz-security-token", foreign.session_token)).code
        == "InvalidSignatureException"
    )


def test_a_request_without_host() -> None:
    request = in_authorization(with_header(signed(), "host", None), ";host;", ";")
    assert "'Host' must be" in refusal(request).message


def test_a_signed_header_that_is_not_there() -> None:
    request = in_authorization(signed(), "content-type;host;", "content-type;host;if-match;")
    assert "if-match" in refusal(request).message


def test_no_secret_in_the_request_s_repr() -> None:
    text = repr(signed(TOKEN)) + repr(TOKEN) + repr(PRINCIPALS)
    for secret in ("token-secret", "plain-secret", "session/token", "Signature"):
        assert secret not in text
