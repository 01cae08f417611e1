"""The service's decisions: who gets credentials, which settings fit, what is said of a failure."""

import json
import logging
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import pytest
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    MetadataRetrievalError,
    NoRegionError,
    SSOTokenLoadError,
)

from kmstool import limits
from kmstool.arn import parse_key_arn
from kmstool.endpoint import TcpAddress, UnixAddress, VsockAddress
from kmstool.errors import CredentialsError, InputError, SettingError
from kmstool.framing import build_credentials_request, read_frame
from kmstool.parent import credentials, listening
from kmstool.parent.chain import Chain, chain_of, explain
from kmstool.parent.credentials import HandOut, check_settings, serve
from kmstool.parent.issued import Issued
from kmstool.parent.keeping import Keeper
from kmstool.parent.settings import CredentialsSettings

SECRET = "s3cr3t/of-the-unit-test"
REQUEST = {"Version": 1, "Request": "Credentials"}
ROLE = "arn:aws:iam::111122223333:role/worker"
KEY = parse_key_arn("arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab")
LISTEN = UnixAddress("/nonexistent/x")


def issued() -> Issued:
    return Issued(
        access_key_id="ASIA0000",
        secret_access_key=SECRET,
        session_token="token",
        expiration=datetime(2100, 1, 1, 12, 30, 1, 999_999, tzinfo=UTC),
        method="test",
    )


def handout(fetch: Callable[[], Issued]) -> HandOut:
    keeper = Keeper(fetch)
    keeper._attempt()
    return HandOut(keeper)


def test_what_is_handed_out() -> None:
    frame, words = handout(issued)(REQUEST)
    assert json.loads(frame[4:]) == {
        "Version": 1,
        "AccessKeyId": "ASIA0000",
        "SecretAccessKey": SECRET,
        "SessionToken": "token",
        "Expiration": "2100-01-01T12:30:01Z",
    }
    assert words == "credentials handed out, valid until 2100-01-01T12:30:01Z"


def test_nothing_to_hand_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Keeper.current, "__defaults__", (0,))

    def fail() -> Issued:
        raise CredentialsError("the source is down")

    frame, words = handout(fail)(REQUEST)
    error = {"Code": "NotAvailable", "Message": "the source is down"}
    assert json.loads(frame[4:]) == {"Error": error}
    assert words == "no credentials: the source is down"


def test_another_request() -> None:
    with pytest.raises(InputError):
        handout(issued)({"Version": 1, "Request": "Kms"})


class Peer:
    """A connection from a CID that this machine cannot have."""

    def __init__(self) -> None:
        self.sent = b""

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_arguments: object) -> None:
        pass

    def setblocking(self, _flag: bool) -> None:
        pass

    def send(self, data: bytes) -> int:
        self.sent += data
        return len(data)

    def recv(self, _count: int) -> bytes:
        return build_credentials_request()


@pytest.mark.parametrize(("cid", "admitted"), [(16, True), (17, False), (3, False)])
def test_another_cid_gets_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cid: int, admitted: bool
) -> None:
    """The accept decision: there is no vsock here to connect over."""
    real = socket.socket(socket.AF_UNIX)
    real.bind(str(tmp_path / "s"))
    real.listen()
    monkeypatch.setattr(listening, "listen", lambda _address: real)
    served: list[str] = []
    monkeypatch.setattr(listening.Service, "_serve", lambda _s, _c, name: served.append(name))
    lines: list[str] = []
    service = listening.Service(
        VsockAddress(0xFFFF_FFFF, 8002), handout(issued), allowed_cids={16}, report=lines.append
    )
    try:
        peer: Any = Peer()
        service._admit(peer, (cid, 1024))
    finally:
        with service._lock:
            threads = list(service._connections.values())
            service._connections.clear()
        for thread in threads:
            thread.join()
        service.close()
    if admitted:
        assert (served, peer.sent) == ([f"vsock CID {cid}"], b"")
        return
    assert served == []
    error = read_frame(iter_bytes(peer.sent))["Error"]
    assert error == {"Code": "Refused", "Message": "this CID may not ask"}
    assert SECRET.encode() not in peer.sent
    assert lines == [f"vsock CID {cid}: refused: this CID may not ask"]


def iter_bytes(data: bytes) -> Callable[[int], bytes]:
    rest = bytearray(data)

    def recv(count: int) -> bytes:
        piece = bytes(rest[:count])
        del rest[:count]
        return piece

    return recv


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"only_kms": (KEY,)}, "no role whose rights"),
        ({"session_policy": "{}"}, "no role whose rights"),
        ({"assume_role": ROLE, "only_kms": (KEY,), "session_policy": "{}"}, "exclude each other"),
        ({"assume_role": "worker"}, "not the ARN of a role"),
        ({"assume_role": ROLE, "session_policy": "{}"}, "no statement"),
        ({"assume_role": ROLE, "role_session_name": "a b"}, "not the name of a session"),
        ({"assume_role": ROLE, "duration_seconds": 899}, "900 to 43200 seconds"),
        ({"assume_role": ROLE, "duration_seconds": 43_201}, "900 to 43200 seconds"),
    ],
)
def test_settings_that_do_not_fit(changes: dict[str, Any], said: str) -> None:
    settings = CredentialsSettings(listen=LISTEN, **changes)
    with pytest.raises(SettingError, match=said):
        check_settings(settings)
    with pytest.raises(SettingError, match=said):
        serve(settings)


def test_cids_are_looked_at_before_a_source_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def never(*_arguments: object, **_options: object) -> NoReturn:
        raise AssertionError

    monkeypatch.setattr(credentials, "keeper_of", never)
    settings = CredentialsSettings(listen=UnixAddress(str(tmp_path / "s")))
    with pytest.raises(SettingError, match="has no CIDs"):
        serve(settings, allowed_cids=[16])


def test_settings_that_fit() -> None:
    assert check_settings(CredentialsSettings(listen=LISTEN)) is None
    assert check_settings(CredentialsSettings(listen=LISTEN, assume_role=ROLE)) is None
    settings = CredentialsSettings(listen=LISTEN, assume_role=ROLE, only_kms=(KEY,))
    text = check_settings(settings)
    assert text is not None
    assert str(KEY) in text
    chain = chain_of(settings, session_policy=text)
    assert chain._region == "us-east-1", "where nothing else names the region of STS"
    assert chain._request["Policy"] == text


@pytest.mark.parametrize("name", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_the_region_of_sts_from_the_environment(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """botocore reads the second name alone; every other SDK, and our hint, has the first."""
    for variable in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ASIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1")
    with pytest.raises(CredentialsError, match="the region of STS is not known"):
        Chain(assume_role=ROLE)()
    monkeypatch.setenv(name, "eu-west-1")
    with pytest.raises(CredentialsError, match="EndpointConnectionError"):
        Chain(assume_role=ROLE)()


def client_error(code: str, message: str = f"the token is {SECRET}") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "AssumeRole")


@pytest.mark.parametrize(
    ("error", "said", "hint"),
    [
        (
            client_error("SignatureDoesNotMatch"),
            "AWS refused AssumeRole: SignatureDoesNotMatch",
            "trust",
        ),
        (client_error("ExpiredToken"), "AWS refused AssumeRole: ExpiredToken", "trust"),
        (
            client_error("AccessDenied", "User: x may\x1b not"),
            "AWS refused AssumeRole: AccessDenied: User: x may? not",
            "trust",
        ),
        (NoRegionError(), "the region of STS is not known", "AWS_REGION"),
        (
            MetadataRetrievalError(error_msg=SECRET),
            "no source has credentials, and the instance's metadata service gives none",
            "a role",
        ),
        (
            SSOTokenLoadError(error_msg=SECRET),
            "botocore could not get credentials (SSOTokenLoadError)",
            "aws sso login",
        ),
        (
            EndpointConnectionError(endpoint_url=SECRET),
            "botocore could not get credentials (EndpointConnectionError)",
            None,
        ),
        (KeyError(SECRET), "botocore could not get credentials (KeyError)", None),
        (RuntimeError(SECRET), "the source gave credentials that have expired", None),
    ],
)  # fmt: skip
def test_what_is_said_of_a_failure(error: Exception, said: str, hint: str | None) -> None:
    text, found = explain(error)
    assert text == said
    assert (hint is None) is (found is None)
    assert found is None or (hint or "") in found


def test_no_context_holds_what_botocore_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = Chain()

    def fail() -> Issued:
        raise KeyError(SECRET)

    monkeypatch.setattr(chain, "_ask", fail)
    with pytest.raises(CredentialsError) as caught:
        chain()
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


@pytest.fixture
def loud() -> Iterator[list[str]]:
    """Somebody has asked for everything that botocore logs."""
    names = ("botocore", "botocore.credentials", "botocore.parsers")
    before = {name: logging.getLogger(name).level for name in names}
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler = Handler(logging.DEBUG)
    for name in names:
        logging.getLogger(name).setLevel(logging.DEBUG)
        logging.getLogger(name).addHandler(handler)
    yield lines
    for name in names:
        logging.getLogger(name).removeHandler(handler)
        logging.getLogger(name).setLevel(before[name])


def test_botocore_s_loggers_are_off(loud: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "ASIA0000"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_SESSION_TOKEN", "token"),
    ):
        monkeypatch.setenv(name, value)
    logging.getLogger("botocore.parsers").debug("before")
    assert Chain()().secret_access_key == SECRET
    logging.getLogger("botocore.parsers").critical(SECRET)
    assert loud == ["before", "before"]


def test_bounds_that_belong_together() -> None:
    assert limits.CREDENTIALS_WAIT_SECONDS < limits.DEADLINE / 2
    assert limits.ROLE_SESSION_SECONDS_MIN <= limits.ROLE_SESSION_SECONDS


def test_an_address_of_the_network_is_refused() -> None:
    with pytest.raises(SettingError, match="the network could take them"):
        check_settings(CredentialsSettings(listen=TcpAddress("0.0.0.0", 8002)))
