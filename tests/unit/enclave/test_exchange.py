"""Retries, deadline, connection and credentials of one exchange with KMS."""

import time
from datetime import UTC, datetime, timedelta
from email.utils import formatdate

import pytest
from support.bent_kms import CREDENTIALS, KEY_ARN, SECRET, BentKms, client

from kmstool import limits
from kmstool.arn import parse_key_arn
from kmstool.enclave.credentials import Credentials
from kmstool.enclave.direct import DirectKms
from kmstool.enclave.exchange import parse_http_date
from kmstool.enclave.results import Decrypted
from kmstool.endpoint import Deadline
from kmstool.errors import CredentialsError, KmsError, TransportError

KEY = parse_key_arn(KEY_ARN)
DROPPED = TransportError("the connection was closed", retryable=True)
BAD_TLS = TransportError("the certificate has expired")

# FACTS: what AWS documents as passing, and what is not.
RETRYABLE = [
    (500, "KMSInternalException"),
    (503, "DependencyTimeoutException"),
    (500, "KeyUnavailableException"),
    (400, "ThrottlingException"),
]
FINAL = [
    "AccessDeniedException",
    "InvalidCiphertextException",
    "IncorrectKeyException",
    "ExpiredTokenException",
    "InvalidSignatureException",
    "ValidationException",
    "NotFoundException",
    "DisabledException",
]


def open_secret(kms: DirectKms) -> bytes:
    result = kms.decrypt(b"ciphertext", key=KEY)
    assert isinstance(result, Decrypted)
    return result.plaintext


@pytest.mark.parametrize(("status", "code"), RETRYABLE)
def test_a_passing_error_is_tried_again(status: int, code: str) -> None:
    kms = BentKms(script=((status, {"__type": code}),) * 2)
    pauses: list[float] = []
    lines: list[str] = []
    assert open_secret(client(kms, pauses=pauses, lines=lines)) == SECRET
    assert len(kms.requests) == 3
    assert len(pauses) == 2
    assert sum(code in line and "trying again" in line for line in lines) == 2


@pytest.mark.parametrize("code", FINAL)
def test_a_final_error_is_not_tried_again(code: str) -> None:
    kms = BentKms(script=((400, {"__type": code, "message": "no"}),))
    with pytest.raises(KmsError) as caught:
        open_secret(client(kms))
    assert len(kms.requests) == 1
    assert caught.value.code == code
    assert caught.value.request_id == "9a1b2c3d-0000-4000-8000-1234567890ab"


def test_a_refusal_that_repeats_the_session_token_does_not_show_it() -> None:
    # AWS answers a wrong signature with the canonical request, in which the token is a header.
    # It used to come out on stderr, and whole in `kms_message`.
    token = "IQoJb3JpZ2luX2VjE" * 90  # as long as real ones: a cut message held the half of it
    credentials = Credentials("AKIDEXAMPLE", "secret", token)
    echo = (
        "The request signature we calculated does not match the signature you provided.\n\nThe"
        " Canonical String for this request should have been\n'POST\n/\n\nhost:localhost\n"
        f"x-amz-security-token:{token}\nx-amz-target:TrentService.Decrypt\n"
    )
    script = ((400, {"__type": "InvalidSignatureException", "message": echo}),)
    lines: list[str] = []
    kms = client(BentKms(script=script), load_credentials=lambda _: credentials, lines=lines)
    with pytest.raises(KmsError) as caught:
        open_secret(kms)
    for text in (str(caught.value), caught.value.kms_message, *lines):
        assert token[:100] not in text
    assert "x-amz-security-token:… x-amz-target:TrentService" in caught.value.kms_message


@pytest.mark.parametrize(
    "code", ["ExpiredTokenException", "ExpiredToken", "UnrecognizedClientException"]
)
def test_credentials_that_kms_refuses_are_not_kept(code: str) -> None:
    # Credentials without an expiration were held for ever: a client that lives long refused to
    # work, although the parent had had fresh ones for hours.
    kms = BentKms(script=((400, {"__type": code}),))
    loaded: list[Credentials] = []

    def load(_deadline: Deadline) -> Credentials:
        loaded.append(CREDENTIALS)
        return CREDENTIALS

    direct = client(kms, load_credentials=load)
    with pytest.raises(KmsError, match=code):
        open_secret(direct)
    assert len(loaded) == 1
    assert open_secret(direct) == SECRET
    assert len(loaded) == 2


def test_a_dropped_connection_is_opened_again() -> None:
    kms = BentKms(script=(DROPPED,))
    assert open_secret(client(kms)) == SECRET
    assert kms.dials == 2


def test_a_certificate_that_fails_is_not_tried_again() -> None:
    kms = BentKms(script=(BAD_TLS,))
    with pytest.raises(TransportError, match="expired"):
        open_secret(client(kms))
    assert kms.dials == 1


def test_the_attempts_end_and_say_how_many_they_were() -> None:
    kms = BentKms(script=((500, {"__type": "KMSInternalException"}),) * 9)
    with pytest.raises(KmsError, match="after 5 attempts"):
        open_secret(client(kms))
    assert len(kms.requests) == limits.RETRY_ATTEMPTS == 5


def test_the_pauses_grow_and_stay_under_their_cap() -> None:
    kms = BentKms()
    pauses: list[float] = []
    direct = client(kms, pauses=pauses)
    longest = [0.0] * (limits.RETRY_ATTEMPTS - 1)
    for _ in range(100):
        kms.script = [DROPPED] * (limits.RETRY_ATTEMPTS - 1)
        pauses.clear()
        open_secret(direct)
        longest = [max(pair) for pair in zip(longest, pauses, strict=True)]
    for number, pause in enumerate(longest, 1):
        bound = min(limits.RETRY_CAP, limits.RETRY_BASE * 2**number)
        assert 0.8 * bound < pause <= bound


def test_no_pause_goes_beyond_the_deadline() -> None:
    kms = BentKms(script=(DROPPED,) * 4)
    pauses: list[float] = []
    with pytest.raises(TransportError, match="connection was closed"):
        open_secret(client(kms, pauses=pauses, timeout=1e-9))
    assert pauses == []


def test_one_connection_serves_many_requests() -> None:
    kms = BentKms()
    with client(kms) as direct:
        for _ in range(3):
            open_secret(direct)
        assert kms.dials == 1
    assert not kms.reusable


def test_a_connection_that_kms_closed_is_replaced() -> None:
    kms = BentKms()
    direct = client(kms)
    open_secret(direct)
    kms.reusable = False
    open_secret(direct)
    assert kms.dials == 2


def test_a_retry_carries_a_document_of_its_own_when_the_old_one_is_too_old(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "DOCUMENT_AGE_RENEW", -1.0)
    kms = BentKms(script=(DROPPED,))
    open_secret(client(kms))
    first, second = (request["Recipient"]["AttestationDocument"] for request in kms.requests)
    assert first != second


def test_credentials_are_loaded_once_and_again_before_they_expire() -> None:
    loaded: list[Credentials] = []

    def load(_deadline: Deadline) -> Credentials:
        # The first expire within the margin, the second much later.
        life = 30 if not loaded else 3600
        loaded.append(
            Credentials("AKID", "secret", None, datetime.now(UTC) + timedelta(seconds=life))
        )
        return loaded[-1]

    direct = client(BentKms(), load_credentials=load)
    for _ in range(3):
        open_secret(direct)
    assert len(loaded) == 2


def test_credentials_without_expiration_are_kept() -> None:
    loaded = []

    def load(_deadline: Deadline) -> Credentials:
        loaded.append(1)
        return CREDENTIALS

    direct = client(BentKms(), load_credentials=load)
    open_secret(direct)
    open_secret(direct)
    assert len(loaded) == 1


def test_missing_credentials_stop_before_a_connection() -> None:
    def load(_deadline: Deadline) -> Credentials:
        raise CredentialsError("none")

    kms = BentKms()
    with pytest.raises(CredentialsError):
        open_secret(client(kms, load_credentials=load))
    assert kms.dials == 0


def test_no_trace_line_holds_a_secret() -> None:
    lines: list[str] = []
    kms = BentKms(script=(DROPPED, (500, {"__type": "KMSInternalException"})))
    open_secret(client(kms, lines=lines))
    text = "\n".join(lines)
    assert lines
    for secret in (CREDENTIALS.secret_access_key, CREDENTIALS.session_token, SECRET.decode()):
        assert secret is not None
        assert secret not in text


def test_http_dates_are_read() -> None:
    now = int(time.time())
    assert parse_http_date(formatdate(now, usegmt=True)) == now
    # RFC 9110, section 5.6.7
    assert parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT") == 784111777


@pytest.mark.parametrize(
    "text",
    ["", "now", "Sun, 06 Nov 1994 08:49:37 CET", "Sun, 06 Foo 1994 08:49:37 GMT",
     "Sun, 40 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT",
     f"Sun, 06 Nov {2**64} 08:49:37 GMT", f"Sun, {2**31} Nov 1994 08:49:37 GMT"],
)  # fmt: skip
def test_other_dates_are_none(text: str) -> None:
    assert parse_http_date(text) is None
