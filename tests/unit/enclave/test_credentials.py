"""Credentials from every source, and that nothing of them can be seen or can split a header."""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kmstool import framing
from kmstool.enclave.credentials import (
    Credentials,
    credentials_from_descriptor,
    credentials_from_environment,
    credentials_from_file,
    fetch_credentials,
    load_credentials,
    parse_credentials,
)
from kmstool.endpoint import Deadline, UnixAddress
from kmstool.errors import CredentialsError, SettingError
from kmstool.limits import CREDENTIALS_MAX, SECRET_ACCESS_KEY_MAX, SESSION_TOKEN_MAX

KEY_ID = "AKIAIOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
TOKEN = "FwoGZXIvYXdzEXAMPLETOKEN/+="
PAST = "2020-01-01T00:00:00Z"
FUTURE = "2999-12-31T23:59:59Z"


def document(**changes: object) -> bytes:
    members: dict[str, object] = {
        "Version": 1,
        "AccessKeyId": KEY_ID,
        "SecretAccessKey": SECRET,
        "SessionToken": TOKEN,
        "Expiration": FUTURE,
    }
    members.update(changes)
    return json.dumps({k: v for k, v in members.items() if v is not ...}).encode()


EXPECTED = Credentials(KEY_ID, SECRET, TOKEN, datetime(2999, 12, 31, 23, 59, 59, tzinfo=UTC))


def no_secret_in(error: BaseException) -> None:
    """Neither the error nor what Python keeps of its causes shows a secret."""
    seen: BaseException | None = error
    while seen is not None:
        shown = repr(seen) + str(seen) + str(getattr(seen, "hint", ""))
        assert SECRET[:12] not in shown
        assert TOKEN[:12] not in shown
        assert not hasattr(seen, "doc"), "json's error holds the whole document"
        seen = seen.__cause__ or seen.__context__


# --- the object --------------------------------------------------------------------------------


def test_repr_shows_nothing_secret() -> None:
    for text in (repr(EXPECTED), str(EXPECTED), f"{EXPECTED}", repr([EXPECTED]), "%s" % EXPECTED):  # noqa: UP031
        assert "…MPLE" in text
        assert KEY_ID not in text
        assert SECRET not in text
        assert TOKEN not in text
    assert repr(Credentials("SHORT", "s")) == "Credentials(access_key_id='…', expiration=None)"


BAD_CHARACTERS = [
    "\r\n",
    "\n",
    "\r",
    "\0",
    "\t",
    " ",
    "\x7f",
    "\x1b",
    "é",
    "\u2028",
    "\ud800",
    "\u0661",
]


@pytest.mark.parametrize("bad", BAD_CHARACTERS, ids=ascii)
@pytest.mark.parametrize("place", ["start", "middle", "end"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_no_value_can_split_a_header(which: int, place: str, bad: str) -> None:
    values = [KEY_ID, SECRET, TOKEN]
    good = values[which]
    values[which] = {"start": bad + good, "middle": good[:5] + bad + good[5:], "end": good + bad}[
        place
    ]
    position = {"start": 1, "middle": 6, "end": len(good) + 1}[place]
    with pytest.raises(CredentialsError, match=f"at position {position} of") as caught:
        Credentials(values[0], values[1], values[2])
    assert "copied" in (caught.value.hint or "")
    no_secret_in(caught.value)


@pytest.mark.parametrize("key_id", ["AKIA/EXAMPLE", "AKIA,EXAMPLE", "AKIA=EXAMPLE", "AKIA-EXAMPLE"])
def test_access_key_id_cannot_change_the_authorization_header(key_id: str) -> None:
    with pytest.raises(CredentialsError, match="access key id holds a character"):
        Credentials(key_id, SECRET)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("", SECRET), "access key id is empty"),
        ((KEY_ID, ""), "secret access key is empty"),
        ((KEY_ID, SECRET, ""), "session token is empty"),
        (("A" * 129, SECRET), "access key id has 129 characters, more than 128"),
        ((KEY_ID, "s" * (SECRET_ACCESS_KEY_MAX + 1)), "secret access key has 1025"),
        ((KEY_ID, SECRET, "t" * (SESSION_TOKEN_MAX + 1)), "session token has 16385"),
        ((KEY_ID, SECRET, TOKEN, datetime(2999, 1, 1)), "no time zone"),  # noqa: DTZ001
    ],
)
def test_values_out_of_bounds(values: tuple[str, ...], message: str) -> None:
    with pytest.raises(CredentialsError, match=message):
        Credentials(*values)  # type: ignore[arg-type]


# --- JSON --------------------------------------------------------------------------------------


def test_json() -> None:
    assert parse_credentials(document()) == EXPECTED
    assert parse_credentials(b"\n " + document() + b"\r\n") == EXPECTED
    assert parse_credentials(document(SessionToken=..., Expiration=...)) == Credentials(
        KEY_ID, SECRET
    )
    assert parse_credentials(document(SessionToken=None, Expiration="")).session_token is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "are empty"),
        (b" \n", "are empty"),
        (b"not json", "is not JSON"),
        (b"[1]", "is not a JSON object"),
        (document()[:-1], "is not JSON"),
        (document() + b"x", "is not JSON"),
        (document() + b" " * CREDENTIALS_MAX, f"more than {CREDENTIALS_MAX}"),
        (document().replace(b"{", b'{"SecretAccessKey": "x", ', 1), "names a member twice"),
        (document()[:-1] + b"\xff}", "is not JSON"),
        (b"\xef\xbb\xbf" + document(), "is not JSON"),
        (b"[" * 60_000, "is not JSON"),
        (document(Version=2), "no Version 1"),
        (document(Version="1"), "no Version 1"),
        (document(Version=True), "no Version 1"),
        (document(Version=...), "no Version 1"),
        (document(AccessKeyId=...), "no AccessKeyId"),
        (document(AccessKeyId=""), "no AccessKeyId"),
        (document(SecretAccessKey=None), "no SecretAccessKey"),
        (document(SecretAccessKey=[SECRET]), "SecretAccessKey is not a string"),
        (document(SessionToken=1), "SessionToken is not a string"),
        (document(Expiration=1), "Expiration is not a string"),
        (document(SecretAccessKey=SECRET + "\n"), "at position 41 of 41"),
        (document(Expiration="tomorrow"), "'tomorrow' is not a date"),
        (document(Expiration="2999-12-31"), "is not a date and time with its zone"),
        (document(Expiration="2999-12-31T00:00:00"), "is not a date and time with its zone"),
        (document(Expiration="0001-01-01T00:00:00+23:00"), "is not a date and time"),
        (document(Expiration="9999-12-31T23:59:59-23:00"), "is not a date and time"),
        (document(Expiration="\x1b[2J" * 50), "is not a date and time"),
    ],
)
def test_json_that_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(CredentialsError, match=message) as caught:
        parse_credentials(data)
    no_secret_in(caught.value)
    assert str(caught.value).isprintable()


def test_expired() -> None:
    with pytest.raises(CredentialsError, match="expired at 2020-01-01T00:00:00Z") as caught:
        parse_credentials(document(Expiration=PAST))
    assert "hours ago" in str(caught.value)
    assert "clock is wrong" in (caught.value.hint or "")
    recent = datetime.now(UTC) - timedelta(minutes=5, seconds=1)
    with pytest.raises(CredentialsError, match="5 minutes ago"):
        parse_credentials(document(Expiration=recent.isoformat()))


def test_not_yet_expired() -> None:
    soon = datetime.now(UTC) + timedelta(seconds=30)
    assert parse_credentials(document(Expiration=soon.isoformat())).expiration == soon


# --- environment -------------------------------------------------------------------------------


def test_environment() -> None:
    environ = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
    assert credentials_from_environment(environ) == Credentials(KEY_ID, SECRET)
    environ |= {"AWS_SESSION_TOKEN": TOKEN, "AWS_CREDENTIAL_EXPIRATION": FUTURE}
    assert credentials_from_environment(environ) == EXPECTED
    environ |= {"AWS_SESSION_TOKEN": "", "AWS_CREDENTIAL_EXPIRATION": ""}
    assert credentials_from_environment(environ) == Credentials(KEY_ID, SECRET)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_SESSION_TOKEN": ""},
        {"AWS_PROFILE": "x", "AWS_CREDENTIAL_EXPIRATION": FUTURE},
    ],
)
def test_environment_without_credentials(environ: dict[str, str]) -> None:
    assert credentials_from_environment(environ) is None


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"AWS_ACCESS_KEY_ID": KEY_ID},
            "AWS_SECRET_ACCESS_KEY is missing, although AWS_ACCESS_KEY",
        ),
        (
            {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": "", "AWS_SESSION_TOKEN": TOKEN},
            "AWS_SECRET_ACCESS_KEY is missing, although AWS_ACCESS_KEY_ID is set",
        ),
        (
            {"AWS_SECRET_ACCESS_KEY": SECRET},
            "AWS_ACCESS_KEY_ID is missing, although AWS_SECRET_ACCESS_KEY is set",
        ),
        (
            {"AWS_SESSION_TOKEN": TOKEN},
            "AWS_ACCESS_KEY_ID is missing, although AWS_SESSION_TOKEN is set",
        ),
        (
            {"AWS_ACCESS_KEY_ID": KEY_ID + "\n", "AWS_SECRET_ACCESS_KEY": SECRET},
            "the access key id holds a character",
        ),
        (
            {
                "AWS_ACCESS_KEY_ID": KEY_ID,
                "AWS_SECRET_ACCESS_KEY": SECRET,
                "AWS_CREDENTIAL_EXPIRATION": PAST,
            },
            "expired at 2020",
        ),
    ],
)
def test_environment_that_is_refused(environ: dict[str, str], message: str) -> None:
    with pytest.raises(CredentialsError, match=message) as caught:
        credentials_from_environment(environ)
    no_secret_in(caught.value)


# --- files and descriptors ---------------------------------------------------------------------


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    path.write_bytes(document())
    for _ in range(2):
        assert credentials_from_file(str(path), Deadline(5)) == EXPECTED


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "could not be opened: No such file"),
        ("folder", "neither a regular file nor a pipe"),
        ("socket", "could not be opened: No such device"),
        ("large", f"more than {CREDENTIALS_MAX} bytes"),
        ("empty", "are empty"),
        ("link-to-itself", "could not be opened: Too many levels"),
    ],
)
def test_file_that_is_refused(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "large").write_bytes(document() + b" " * CREDENTIALS_MAX)
    (tmp_path / "empty").touch()
    (tmp_path / "link-to-itself").symlink_to("link-to-itself")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        with pytest.raises(CredentialsError, match=message):
            credentials_from_file(str(tmp_path / name), Deadline(5))


@pytest.mark.parametrize("path", ["", "a\0b", "/dev/null", "/dev/zero"])
def test_path_that_is_refused(path: str) -> None:
    with pytest.raises(CredentialsError, match=r"empty or holds a NUL|neither a regular file"):
        credentials_from_file(path, Deadline(5))


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    path.write_bytes(b"nonsense")
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    with pytest.raises(CredentialsError):
        credentials_from_file(str(path), Deadline(5))
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208


@contextlib.contextmanager
def running(work: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join(10)
        assert not thread.is_alive()


def test_named_pipe_whose_writer_comes_late_and_slowly(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)

    def write() -> None:
        time.sleep(0.1)
        with path.open("wb", buffering=0) as pipe:
            for start in range(0, len(document()), 50):
                pipe.write(document()[start : start + 50])
                time.sleep(0.01)

    with running(write):
        assert credentials_from_file(str(path), Deadline(5)) == EXPECTED


def test_named_pipe_without_a_writer_meets_the_deadline(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(CredentialsError, match=r"0\.2 seconds was used up during reading"):
        credentials_from_file(str(path), Deadline(0.2))


def test_descriptor_of_a_pipe_is_read_to_its_end_and_stays_open() -> None:
    reader, writer = os.pipe()
    os.write(writer, document())
    os.close(writer)
    assert credentials_from_descriptor(reader, Deadline(5)) == EXPECTED
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_descriptor_of_a_file_can_be_read_again(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    path.write_bytes(document())
    with path.open("rb") as file:
        for _ in range(2):
            assert load_credentials(f"fd:{file.fileno()}", {}, Deadline(5)) == EXPECTED


def test_endless_pipe_is_bounded() -> None:
    reader, writer = os.pipe()

    def write() -> None:
        with contextlib.suppress(OSError):
            while True:
                os.write(writer, b" " * 65_536)

    with running(write):
        with pytest.raises(CredentialsError, match=f"more than {CREDENTIALS_MAX} bytes"):
            credentials_from_descriptor(reader, Deadline(5))
        os.close(reader)
    os.close(writer)


def test_descriptor_that_is_not_open() -> None:
    with pytest.raises(CredentialsError, match="could not be read: Bad file descriptor") as caught:
        credentials_from_descriptor(9999, Deadline(5))
    assert "3< FILE" in str(caught.value.hint)


# --- the parent --------------------------------------------------------------------------------


@contextlib.contextmanager
def parent(path: Path, answer: Callable[[socket.socket], None]) -> Iterator[UnixAddress]:
    """A credentials service for one connection, on a Unix socket in the place of the vsock."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)

        def serve() -> None:
            connection, _peer = listener.accept()
            with connection:
                connection.settimeout(5)
                framing.parse_credentials_request(framing.read_frame(connection.recv))
                answer(connection)

        with running(serve):
            yield UnixAddress(str(path))


ANSWER = framing.build_credentials_answer(
    access_key_id=KEY_ID, secret_access_key=SECRET, session_token=TOKEN, expiration=FUTURE
)


def test_parent(tmp_path: Path) -> None:
    with parent(tmp_path / "s", lambda connection: connection.sendall(ANSWER)) as address:
        assert fetch_credentials(address, Deadline(5)) == EXPECTED


def test_parent_that_sends_byte_by_byte(tmp_path: Path) -> None:
    def dribble(connection: socket.socket) -> None:
        for byte in ANSWER:
            connection.sendall(bytes([byte]))

    with parent(tmp_path / "s", dribble) as address:
        assert fetch_credentials(address, Deadline(5)) == EXPECTED


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            framing.build_error_answer("NotAvailable", "no role"),
            "gave no credentials: NotAvailable",
        ),
        (b"", "the stream ended after 0 of the 4 bytes"),
        (ANSWER[:-1], "the stream ended after"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "a frame announces"),
        (framing.build_frame({"Version": 1}), "no AccessKeyId"),
        (ANSWER.replace(b"2999", b"2020"), "expired at 2020"),
        (ANSWER.replace(TOKEN[:1].encode(), b"\x01", 1), "is not JSON|holds a character"),
    ],
)
def test_parent_whose_answer_is_refused(answer: bytes, message: str, tmp_path: Path) -> None:
    with (
        parent(tmp_path / "s", lambda connection: connection.sendall(answer)) as address,
        pytest.raises(CredentialsError, match=message) as caught,
    ):
        fetch_credentials(address, Deadline(5))
    no_secret_in(caught.value)


def test_parent_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match="could not get credentials from unix:") as caught:
        fetch_credentials(UnixAddress(str(tmp_path / "nobody")), Deadline(5))
    assert "kmstool parent credentials" in (caught.value.hint or "")


def test_parent_that_resets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reset(self: socket.socket, data: bytes) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        monkeypatch.setattr(socket.socket, "sendall", reset)
        with pytest.raises(CredentialsError, match="the connection broke: Broken pipe"):
            fetch_credentials(UnixAddress(str(path)), Deadline(5))


def test_parent_that_is_silent_or_slow_meets_the_deadline(tmp_path: Path) -> None:
    def slow(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for byte in ANSWER:
                connection.sendall(bytes([byte]))
                time.sleep(0.1)

    for name, behaviour in (("silent", lambda c: c.recv(1)), ("slow", slow)):
        with (
            parent(tmp_path / name, behaviour) as address,
            pytest.raises(CredentialsError, match=r"0\.3 seconds was used up during waiting"),
        ):
            fetch_credentials(address, Deadline(0.3))


# --- which source ------------------------------------------------------------------------------

ENVIRON = {"AWS_ACCESS_KEY_ID": "FROMENVIRONMENT", "AWS_SECRET_ACCESS_KEY": "s"}


def test_the_option_comes_first_then_aws_then_kmstool_credentials(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    path.write_bytes(document())
    by_variable = {"KMSTOOL_CREDENTIALS": f"file:{path}"}
    for source, environ, key_id in [
        (f"file:{path}", ENVIRON, KEY_ID),
        ("env", ENVIRON | by_variable, "FROMENVIRONMENT"),
        (None, ENVIRON | by_variable, "FROMENVIRONMENT"),
        (None, by_variable, KEY_ID),
    ]:
        assert load_credentials(source, environ, Deadline(5)).access_key_id == key_id


def test_a_half_set_environment_is_not_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    path.write_bytes(document())
    environ = {"AWS_ACCESS_KEY_ID": "A", "KMSTOOL_CREDENTIALS": f"file:{path}"}
    with pytest.raises(CredentialsError, match="AWS_SECRET_ACCESS_KEY is missing"):
        load_credentials(None, environ, Deadline(5))


def test_the_default_is_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fetch(address: object, _deadline: Deadline) -> Credentials:
        asked.append(str(address))
        return EXPECTED

    monkeypatch.setattr("kmstool.enclave.credentials.fetch_credentials", fetch)
    for environ in ({}, {"KMSTOOL_CREDENTIALS": ""}):
        assert load_credentials(None, environ, Deadline(5)) == EXPECTED
    load_credentials("tcp://localhost:8002", {}, Deadline(5))
    assert asked == ["vsock://3:8002", "vsock://3:8002", "tcp://localhost:8002"]


def test_env_without_credentials() -> None:
    with pytest.raises(CredentialsError, match="environment has no credentials") as caught:
        load_credentials("env", {}, Deadline(5))
    assert "AWS_ACCESS_KEY_ID" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "source", ["", "ENV", "fd:", "fd:-1", "fd:x", "fd:١", "fd:99999999", "/path", "vsock://3"]
)
def test_no_source(source: str) -> None:
    with pytest.raises(SettingError, match=r"is no source of credentials|names no descriptor"):
        load_credentials(source, {}, Deadline(5))
