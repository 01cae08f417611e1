"""A small STS beside the emulated KMS: AssumeRole and GetCallerIdentity, on the same port.

AWS' query protocol: a form in, XML out, signed for the service `sts`. A role is a principal of the
emulator that lists the caller in `trusts`. What AssumeRole takes beyond role, name, duration and
session policy (tags, managed policies, external ids, MFA) is refused by name: passed over it would
hand out more than AWS does.
Source: AWS STS API Reference, API version 2011-06-15; its "Common Errors".
"""

import re
import secrets
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import formatdate
from hashlib import sha256
from typing import Final
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from kmstool.emulator.authentication import HttpRequest, authenticate
from kmstool.emulator.kms import Record
from kmstool.emulator.principals import Principal, Principals
from kmstool.emulator.refusal import Refusal
from kmstool.emulator.role_sessions import POLICY_MAX, RoleSession, SessionPolicy
from kmstool.emulator.server import HttpAnswer
from kmstool.errors import PolicyError

_FORM: Final = "application/x-www-form-urlencoded"
_VERSION: Final = "2011-06-15"
_NAMESPACE: Final = f"https://sts.amazonaws.com/doc/{_VERSION}/"
_FIELDS_MAX: Final = 32
_ROLE = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]{1,512}", re.ASCII)
_NAME = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)
_DURATION: Final = (900, 43_200)
_DURATION_DEFAULT: Final = 3_600
_CHAINED_MAX: Final = 3_600

# How the query protocol calls what `authenticate` refuses, and its status.
_CODES: Final = {
    "ExpiredTokenException": ("ExpiredToken", 403),
    "IncompleteSignatureException": ("IncompleteSignature", 400),
    "InvalidSignatureException": ("SignatureDoesNotMatch", 403),
    "MissingAuthenticationTokenException": ("MissingAuthenticationToken", 403),
    "UnrecognizedClientException": ("InvalidClientTokenId", 403),
    "AccessDenied": ("AccessDenied", 403),
    "InternalFailure": ("InternalFailure", 500),
}
Form = Mapping[str, str]


def is_query(request: HttpRequest) -> bool:
    """Whether a request is in the query protocol, so not for KMS."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == _FORM and "x-amz-target" not in request.headers


class Sts:
    """STS of one region, for the principals of a `Kms`.

    Args:
        principals: who may sign; sessions are put among them.
        report: gets a line for each request.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        *,
        principals: Principals,
        region: str,
        report: Callable[[str], None] = lambda _line: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._principals = principals
        self._region = region
        self._report = report
        self._clock = clock

    def handle(self, request: HttpRequest) -> HttpAnswer:
        """Answers one request; never raises."""
        started = time.perf_counter()
        record = Record(str(uuid.uuid4()))
        now = self._clock()
        try:
            status, body = 200, self._answer(request, record, now)
        except Refusal as refusal:
            code, status = _CODES.get(refusal.code, (refusal.code, 400))
            record.result, record.detail = code, refusal.message
            body = _error(code, refusal.message, status, record.request_id)
        except Exception as error:  # noqa: BLE001 - a bug must not end the connection silently
            record.result, record.detail = "InternalFailure", type(error).__name__
            status = 500
            body = _error("InternalFailure", "a bug of the emulator", status, record.request_id)
        record.milliseconds = (time.perf_counter() - started) * 1000
        self._report(record.line())
        headers = [
            ("content-type", "text/xml"),
            ("x-amzn-requestid", record.request_id),
            ("date", formatdate(now, usegmt=True)),
        ]
        return HttpAnswer(status, headers, body.encode())

    def _answer(self, request: HttpRequest, record: Record, now: float) -> str:
        if request.method != "POST" or request.target != "/":
            raise Refusal("InvalidAction", "This STS takes POST / and nothing else")
        caller = authenticate(
            request, self._principals, region=self._region, now=now, service="sts"
        )
        record.principal = caller.caller_arn
        form = _read_form(request.body)
        action = form.get("Action", "")
        if form.get("Version") != _VERSION:
            raise Refusal("InvalidAction", f"Version has to be {_VERSION}")
        if action == "GetCallerIdentity":
            record.operation = action
            result = _identity(caller)
        elif action == "AssumeRole":
            record.operation = action
            record.key_arn = form.get("RoleArn", "-")[:600]
            result = self._assume_role(caller, form, now)
        else:
            raise Refusal("InvalidAction", f"Could not find operation {action[:64]}")
        metadata = f"<RequestId>{record.request_id}</RequestId>"
        return (
            f'<{action}Response xmlns="{_NAMESPACE}"><{action}Result>{result}</{action}Result>'
            f"<ResponseMetadata>{metadata}</ResponseMetadata></{action}Response>"
        )

    def _assume_role(self, caller: Principal, form: Form, now: float) -> str:
        known = ("Action", "Version", "RoleArn", "RoleSessionName", "DurationSeconds", "Policy")
        if unknown := sorted(set(form) - set(known)):
            raise _invalid(f"The emulator's AssumeRole has no {unknown[0][:64]}")
        arn, name = form.get("RoleArn", ""), form.get("RoleSessionName", "")
        if not _ROLE.fullmatch(arn):
            raise _invalid(f"{arn[:600]} is invalid")
        if not _NAME.fullmatch(name):
            raise _invalid("Value at 'roleSessionName' failed to satisfy constraint: [\\w+=,.@-]*")
        seconds = _duration(form.get("DurationSeconds"), chained=caller.session is not None)
        policy = _session_policy(form.get("Policy"))
        role = next((p for p in self._principals.by_access_key.values() if p.arn == arn), None)
        # As in AWS, a role that does not exist and one that does not trust look the same.
        if role is None or not _trusts(role, caller):
            raise Refusal(
                "AccessDenied",
                f"User: {caller.caller_arn} is not authorized to perform: sts:AssumeRole on"
                f" resource: {arn}",
            )
        made = RoleSession(arn=_session_arn(role.arn, name), expires=now + seconds, policy=policy)
        credentials = replace(
            role,
            access_key_id=f"ASIA{secrets.token_hex(8).upper()}",
            secret_access_key=secrets.token_hex(20),
            session_token=secrets.token_urlsafe(240),
            trusts=(),
            session=made,
        )
        self._principals.sessions.add(credentials)
        return _assumed(credentials, made, form.get("Policy"))


def _trusts(role: Principal, caller: Principal) -> bool:
    """Whether the trust policy lets the caller in, and the session policy that it may have does.

    A session that assumes its own role again would otherwise be rid of what lessens it. Where the
    session itself is named, only an explicit Deny counts (IAM User Guide, "Session policies").
    """
    named = caller.caller_arn in role.trusts
    if caller.account_id != role.account_id or not (named or caller.arn in role.trusts):
        return False
    if caller.session is None or caller.session.policy is None:
        return True
    decision = caller.session.policy.decide("sts:AssumeRole", caller, role.arn, {})
    return decision.allowed or (named and decision.decided_by is None)


def _duration(text: str | None, *, chained: bool) -> int:
    if text is None:
        return _DURATION_DEFAULT
    low, high = _DURATION
    if not (text.isascii() and text.isdecimal() and len(text) < 9 and low <= int(text) <= high):
        raise _invalid(f"Value at 'durationSeconds' has to be from {low} to {high}")
    if chained and int(text) > _CHAINED_MAX:
        raise _invalid(
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by"
            " role chaining"
        )
    return int(text)


def _session_policy(text: str | None) -> SessionPolicy | None:
    if text is None:
        return None
    if not 1 <= len(text) <= POLICY_MAX:
        raise _invalid(f"Value at 'policy' has to have 1 to {POLICY_MAX} characters")
    try:
        return SessionPolicy(text)
    except PolicyError as error:
        raise Refusal("MalformedPolicyDocument", str(error)) from None


def _assumed(credentials: Principal, session: RoleSession, policy: str | None) -> str:
    until = datetime.fromtimestamp(session.expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    packed = ""
    if policy is not None:
        packed = f"<PackedPolicySize>{-(-len(policy) * 100 // POLICY_MAX)}</PackedPolicySize>"
    return (
        "<AssumedRoleUser>"
        f"<AssumedRoleId>{_user_id(credentials)}</AssumedRoleId>"
        f"<Arn>{escape(session.arn)}</Arn></AssumedRoleUser>"
        f"<Credentials><AccessKeyId>{credentials.access_key_id}</AccessKeyId>"
        f"<SecretAccessKey>{credentials.secret_access_key}</SecretAccessKey>"
        f"<SessionToken>{credentials.session_token}</SessionToken>"
        f"<Expiration>{until}</Expiration></Credentials>{packed}"
    )


def _identity(caller: Principal) -> str:
    return (
        f"<Arn>{escape(caller.caller_arn)}</Arn><UserId>{_user_id(caller)}</UserId>"
        f"<Account>{caller.account_id}</Account>"
    )


def _session_arn(role: str, name: str) -> str:
    """A session names its role without the path."""
    partition, account = role.split(":")[1], role.split(":")[4]
    return f"arn:{partition}:sts::{account}:assumed-role/{role.rpartition('/')[2]}/{name}"


def _user_id(caller: Principal) -> str:
    kind = "AROA" if ":role/" in caller.arn else "AIDA"
    unique = kind + sha256(caller.arn.encode()).hexdigest()[:17].upper()
    session = caller.session.arn.rpartition("/")[2] if caller.session else ""
    return escape(f"{unique}:{session}" if session else unique)


def _read_form(body: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=_FIELDS_MAX,
        )
    except ValueError:
        raise Refusal("MalformedQueryString", "The body is no form of UTF-8") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise Refusal("MalformedQueryString", "The body names a parameter twice")
    return form


def _invalid(message: str) -> Refusal:
    return Refusal("ValidationError", message)


def _error(code: str, message: str, status: int, request_id: str) -> str:
    kind = "Receiver" if status >= 500 else "Sender"
    return (
        f'<ErrorResponse xmlns="{_NAMESPACE}"><Error><Type>{kind}</Type><Code>{code}</Code>'
        f"<Message>{escape(message)}</Message></Error><RequestId>{request_id}</RequestId>"
        "</ErrorResponse>"
    )
