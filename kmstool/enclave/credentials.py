"""Where credentials come from: environment, file, open descriptor, or the parent over a socket.

Never printed, never logged, in no message and no `repr`. In the direct setup the parent supplies
them, so they say nothing of *whose* account answers: that is what a key ARN is for. Everything is
checked for characters that could end a header line before it can get near one.

The JSON is that of AWS' `credential_process` ("Sourcing credentials with an external process", AWS
SDKs and Tools Reference Guide).
"""

import errno
import os
import re
import select
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from kmstool.endpoint import Address, Deadline, connect, parse_address
from kmstool.errors import CredentialsError, InputError, SettingError, TransportError, quoted
from kmstool.framing import build_credentials_request, parse_credentials_answer, read_frame
from kmstool.limits import (
    ACCESS_KEY_ID_MAX,
    CREDENTIALS_MAX,
    SECRET_ACCESS_KEY_MAX,
    SESSION_TOKEN_MAX,
)
from kmstool.strict_json import read_object

DEFAULT_SOURCE: Final = "vsock://3:8002"
SOURCE_VARIABLE: Final = "KMSTOOL_CREDENTIALS"

_ACCESS_KEY_ID = re.compile(r"[A-Za-z0-9_]+")  # AWS STS API: [\w]*; it stands in a header's syntax
_PRINTABLE = re.compile(r"[!-~]+")
_PARENT_HINT = (
    "start `kmstool parent credentials --listen vsock://:8002` on the parent instance, or set"
    " AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or give --credentials"
)


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """One set of AWS credentials, fit to sign with.

    Attributes:
        access_key_id: 1 to 128 letters, digits and `_`.
        secret_access_key: printable ASCII without spaces.
        session_token: the same, for temporary credentials; None for others.
        expiration: when they end, with a time zone; None where that was not said.

    Raises:
        CredentialsError: a value is empty, too long, or holds a character that it must not.
    """

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None
    expiration: datetime | None = None

    def __post_init__(self) -> None:
        _check("access key id", self.access_key_id, _ACCESS_KEY_ID, ACCESS_KEY_ID_MAX)
        _check("secret access key", self.secret_access_key, _PRINTABLE, SECRET_ACCESS_KEY_MAX)
        if self.session_token is not None:
            _check("session token", self.session_token, _PRINTABLE, SESSION_TOKEN_MAX)
        if self.expiration is not None and self.expiration.tzinfo is None:
            raise CredentialsError("the credentials' expiration has no time zone")

    def __repr__(self) -> str:
        """Shows the last 4 characters of the access key id, and when it ends: nothing else."""
        tail = self.access_key_id[-4:] if len(self.access_key_id) > 8 else ""
        return f"Credentials(access_key_id='…{tail}', expiration={self.expiration})"


def load_credentials(
    source: str | None, environ: Mapping[str, str], deadline: Deadline
) -> Credentials:
    """The credentials of a source, or of the first place that has some.

    Args:
        source: `env`, `file:PATH`, `fd:N`, or an address. None: the AWS_* variables, then what
            KMSTOOL_CREDENTIALS says, then vsock://3:8002.

    Raises:
        SettingError: the source has none of these forms.
        CredentialsError: it has no usable credentials.
    """
    source = default_source(environ) if source is None else source
    if source == "env":
        found = credentials_from_environment(environ)
        if found is None:
            raise CredentialsError(
                "the environment has no credentials",
                hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_SESSION_TOKEN for"
                " temporary ones",
            )
        return found
    if source.startswith("file:"):
        return credentials_from_file(source.removeprefix("file:"), deadline)
    if source.startswith("fd:"):
        digits = source.removeprefix("fd:")
        if not (digits.isascii() and digits.isdecimal() and len(digits) <= 7):
            raise SettingError(f"{quoted(source)} names no descriptor", hint="write it like fd:3")
        return credentials_from_descriptor(int(digits), deadline)
    return fetch_credentials(_parse_source_address(source), deadline)


def default_source(environ: Mapping[str, str]) -> str:
    """What `load_credentials` takes where no source is named."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    if any(environ.get(name) for name in names):
        return "env"
    return environ.get(SOURCE_VARIABLE) or DEFAULT_SOURCE


def credentials_from_environment(environ: Mapping[str, str]) -> Credentials | None:
    """Those of AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN (optional) and
    AWS_CREDENTIAL_EXPIRATION (optional); None where neither of the first three is set. An empty
    variable counts as unset.

    Raises:
        CredentialsError: one is missing while another is set, a value is malformed, or they have
            expired.
    """
    key_id = environ.get("AWS_ACCESS_KEY_ID")
    secret = environ.get("AWS_SECRET_ACCESS_KEY")
    token = environ.get("AWS_SESSION_TOKEN")
    if not (key_id or secret or token):
        return None
    for name, value in (("AWS_ACCESS_KEY_ID", key_id), ("AWS_SECRET_ACCESS_KEY", secret)):
        if not value:
            present = "AWS_ACCESS_KEY_ID" if key_id else "AWS_SECRET_ACCESS_KEY"
            present = present if key_id or secret else "AWS_SESSION_TOKEN"
            raise CredentialsError(
                f"{name} is missing, although {present} is set",
                hint="set both, or neither; an empty variable counts as unset",
            )
    return _checked(key_id, secret, token, environ.get("AWS_CREDENTIAL_EXPIRATION"))


def parse_credentials(data: bytes) -> Credentials:
    """Reads the JSON of `credential_process`, 1 to `CREDENTIALS_MAX` bytes.

    `Version` is 1, `AccessKeyId` and `SecretAccessKey` are required, `SessionToken` and
    `Expiration` (ISO 8601 with its zone) optional; other members are ignored, as AWS adds some.

    Raises:
        CredentialsError: it is not that, or the credentials have expired.
    """
    if not data.strip():
        raise CredentialsError(
            "the credentials are empty", hint="the program that writes them may have failed"
        )
    members, fault = read_object(data, CREDENTIALS_MAX)
    if members is None:
        raise CredentialsError(
            f"the credentials' JSON {fault}",
            hint="it looks like the output of `aws configure export-credentials --format process`",
        )
    return credentials_from_message(members)


def credentials_from_message(members: Mapping[str, object]) -> Credentials:
    """Reads the members of a JSON object, as `parse_credentials` says.

    Args:
        members: for instance what `framing.parse_credentials_answer` gave.

    Raises:
        CredentialsError: as `parse_credentials`.
    """
    version = members.get("Version")
    if type(version) is not int or version != 1:
        raise CredentialsError("the credentials' JSON has no Version 1")
    values: list[str | None] = []
    for name in ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration"):
        value = members.get(name)
        if value is not None and not isinstance(value, str):
            raise CredentialsError(f"the credentials' {name} is not a string")
        if not value and name in ("AccessKeyId", "SecretAccessKey"):
            raise CredentialsError(f"the credentials' JSON has no {name}")
        values.append(value)
    return _checked(*values)


def credentials_from_file(path: str, deadline: Deadline) -> Credentials:
    """Reads `parse_credentials`' JSON from a regular file or a named pipe.

    Raises:
        CredentialsError: it cannot be read, or its content is not usable.
    """
    if not path or "\0" in path:
        raise CredentialsError("the path of the credentials file is empty or holds a NUL")
    try:
        # O_NONBLOCK: opening a pipe that nobody writes to would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise CredentialsError(
            f"the credentials file {path!r} could not be opened: {error.strerror}",
            hint="check the path after file: and who may read it",
        ) from None
    try:
        data = _read_descriptor(descriptor, f"the credentials file {path!r}", deadline)
    finally:
        os.close(descriptor)
    return parse_credentials(data)


def credentials_from_descriptor(fd: int, deadline: Deadline) -> Credentials:
    """Reads `parse_credentials`' JSON from an open descriptor, to its end; it stays open.

    A regular file is read from its start each time, so credentials can be loaded again; what came
    through a pipe is gone after the first time.

    Raises:
        CredentialsError: as `credentials_from_file`.
    """
    return parse_credentials(_read_descriptor(fd, f"the descriptor fd:{fd}", deadline))


def fetch_credentials(address: Address, deadline: Deadline) -> Credentials:
    """Asks the parent's credentials service, as docs/formats/framing.md has it.

    Raises:
        CredentialsError: it cannot be reached, refused, or answered something unusable.
    """
    failure: TransportError | InputError
    try:
        sock = connect(address, deadline, hint=_PARENT_HINT)
    except TransportError as error:
        failure = error
    else:
        with sock:

            def recv(count: int) -> bytes:
                sock.settimeout(deadline.remaining("waiting for credentials"))
                return sock.recv(count)

            try:
                sock.settimeout(deadline.remaining("asking for credentials"))
                sock.sendall(build_credentials_request())
                message = read_frame(recv)
            except TimeoutError:
                failure = deadline.exceeded("waiting for credentials")
            except OSError as error:
                failure = TransportError(f"the connection broke: {error.strerror or error}")
            except (TransportError, InputError) as error:
                failure = error
            else:
                return credentials_from_message(parse_credentials_answer(message))
    raise CredentialsError(
        f"could not get credentials from {address}: {failure}", hint=failure.hint or _PARENT_HINT
    )


def _checked(
    key_id: str | None, secret: str | None, token: str | None, expiration: str | None
) -> Credentials:
    until = _parse_expiration(expiration) if expiration else None
    credentials = Credentials(key_id or "", secret or "", token or None, until)
    now = datetime.now(UTC)
    if until is not None and until <= now:
        raise CredentialsError(
            f"the credentials expired at {until:%Y-%m-%dT%H:%M:%SZ}, {_span(now, until)} ago",
            hint="renew them where they come from; if they are new, this machine's clock is wrong",
        )
    return credentials


def _parse_expiration(text: str) -> datetime:
    if len(text) <= 40:  # a date, a time with fractions, a zone
        try:
            until = datetime.fromisoformat(text)
            if until.tzinfo is not None:
                return until.astimezone(UTC)
        except (ValueError, OverflowError):  # overflow: year 1 or 9999, and the zone beyond it
            pass
    raise CredentialsError(
        f"the credentials' expiration {text[:40]!a} is not a date and time with its zone",
        hint="it looks like 2026-01-31T12:00:00Z",
    )


def _span(now: datetime, since: datetime) -> str:
    minutes = int((now - since).total_seconds()) // 60
    return f"{minutes} minutes" if minutes < 120 else f"{minutes // 60} hours"


def _check(what: str, value: str, allowed: "re.Pattern[str]", most: int) -> None:
    """Says where a bad character stands and never which one: it may be part of a secret."""
    if not value:
        raise CredentialsError(f"the {what} is empty")
    if len(value) > most:
        raise CredentialsError(f"the {what} has {len(value)} characters, more than {most}")
    if not allowed.fullmatch(value):
        good = allowed.match(value)
        position = good.end() + 1 if good else 1
        raise CredentialsError(
            f"the {what} holds a character that none may hold, at position {position} of"
            f" {len(value)}",
            hint="a line break or a space may have come along when it was copied",
        )


def _parse_source_address(source: str) -> Address:
    try:
        return parse_address(source)
    except SettingError:
        raise SettingError(
            f"{quoted(source)} is no source of credentials",
            hint="it is env, file:PATH, fd:N, or an address such as vsock://3:8002",
        ) from None


def _read_descriptor(fd: int, what: str, deadline: Deadline) -> bytes:
    data = bytearray()
    try:
        mode = os.fstat(fd).st_mode
        regular = stat.S_ISREG(mode)
        if not (regular or stat.S_ISFIFO(mode)):
            raise CredentialsError(f"{what} is neither a regular file nor a pipe")
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        while len(data) <= CREDENTIALS_MAX:
            wanted = CREDENTIALS_MAX + 1 - len(data)
            if regular:
                piece = os.pread(fd, wanted, len(data))
            else:
                if not poll.poll(deadline.remaining(f"reading {what}") * 1000):
                    raise deadline.exceeded(f"reading {what}")
                piece = os.read(fd, wanted)
            if not piece:
                return bytes(data)
            data += piece
    except TransportError as error:
        raise CredentialsError(
            f"{error}", hint="nothing was written to it, or its other end was not closed"
        ) from None
    except OSError as error:
        hint = "it has to be open for reading when kmstool starts, as in `kmstool … 3< FILE`"
        raise CredentialsError(
            f"{what} could not be read: {error.strerror}",
            hint=hint if error.errno == errno.EBADF else None,
        ) from None
    raise CredentialsError(f"{what} has more than {CREDENTIALS_MAX} bytes")
