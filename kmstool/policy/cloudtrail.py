"""A KMS event from CloudTrail: what it tells of a request, and what it leaves open.

Source: AWS CloudTrail User Guide, "CloudTrail record contents" and "userIdentity element"; AWS KMS
Developer Guide, "Monitoring requests for Nitro enclaves". PCR0 to PCR4 and PCR8 stand under
`additionalEventData.recipient` in base64, and only where KMS took the document: without `recipient`
nobody can tell whether a refused call carried one. What an event leaves open is unknown in the
`Request`, never missing. Members that this reader does not know are passed over: CloudTrail adds
new ones. It never opens a file.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from kmstool.errors import InputError, SettingError
from kmstool.limits import INPUT_MAX
from kmstool.policy.cloudtrail_fields import (
    NO_RECIPIENT,
    object_of,
    optional_text,
    read_caller,
    read_key,
    read_origin,
    read_parameters,
    read_recipient,
    read_time,
    text_of,
)
from kmstool.policy.explain_request import call_keys
from kmstool.policy.printable import shown
from kmstool.policy.request import Request
from kmstool.strict_json import read_object

__all__ = ["NO_RECIPIENT", "CloudTrailEvent", "parse_events"]

_NAME = re.compile(r"[A-Za-z]{1,64}")
_DENIED: Final = frozenset({"AccessDenied", "AccessDeniedException"})
_DONE: Final = frozenset({None, "DryRunOperationException"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudTrailEvent:
    """One call to KMS, as CloudTrail recorded it.

    Attributes:
        operation: the API's name, such as `Decrypt`.
        principal: the ARN of the role, user or root; None where the event does not say (callers of
            another account).
        session: the STS ARN of the session, or None.
        key_arn: of the key, or None where the event does not say.
        error_code, error_message: why KMS refused, or None.
        pcrs: of the attestation document, or None where there is no recipient data.
        context: condition keys that the event tells.
        unknown: those that it leaves open, each with the reason (`Request.unknown`).
    """

    event_id: str
    time: datetime
    operation: str
    principal: str | None
    session: str | None
    key_arn: str | None
    error_code: str | None
    error_message: str | None
    pcrs: Mapping[int, bytes] | None
    context: Mapping[str, tuple[str, ...]] = field(repr=False)
    unknown: Mapping[str, str] = field(repr=False)

    @property
    def denied(self) -> bool:
        """Whether KMS refused for want of permission."""
        return self.error_code in _DENIED

    @property
    def done(self) -> bool:
        """Whether KMS did it, or would have in a dry run."""
        return self.error_code in _DONE

    def request(
        self,
        *,
        principal: str | None = None,
        key_arn: str | None = None,
        context: Mapping[str, tuple[str, ...]] | None = None,
    ) -> Request:
        """The request of the event; the arguments fill in what it leaves open.

        Raises:
            SettingError: principal or key are not known.
        """
        who, key = self.principal or principal, self.key_arn or key_arn
        if who is None:
            raise SettingError(
                f"the event {self.event_id} does not name its caller's ARN",
                hint="CloudTrail leaves it out for callers of another account: give --principal",
            )
        if key is None:
            raise SettingError(
                f"the event {self.event_id} does not name the key's ARN", hint="give --key-id"
            )
        action = f"kms:{self.operation}"
        usual = {n: v for n, v in call_keys(action, key).items() if n not in self.unknown}
        return Request(
            action=action,
            principal=who,
            resource=key,
            context=usual | dict(self.context) | dict(context or {}),
            session=self.session,
            unknown=self.unknown,
        )


def parse_events(data: bytes) -> tuple[CloudTrailEvent, ...]:
    """Reads KMS events: one alone, a log file (`Records`), or `aws cloudtrail lookup-events`.

    Args:
        data: JSON of at most 1 MiB. Events of other services are left out.

    Raises:
        InputError: it is not that, holds no KMS event, or one of them is malformed.
    """
    members, wrong = read_object(data, INPUT_MAX)
    if members is None:
        raise InputError(f"the CloudTrail log {wrong}", hint=_HINT)
    events = [_event(one) for one in _records(members) if one.get("eventSource") == _KMS]
    if not events:
        raise InputError("the CloudTrail log has no event of KMS", hint=_HINT)
    return tuple(events)


_KMS: Final = "kms.amazonaws.com"
_HINT: Final = (
    "give one event, a log file with Records, or what aws cloudtrail lookup-events printed"
)


def _records(members: dict[str, object]) -> list[dict[str, object]]:
    if "Records" in members:
        return [object_of(one, "a record") for one in _list(members, "Records")]
    if "Events" not in members:
        return [members]
    found = []
    for one in _list(members, "Events"):
        text = text_of(object_of(one, "an entry of Events"), "CloudTrailEvent")
        inner, wrong = read_object(text.encode("utf-8", "surrogatepass"), INPUT_MAX)
        if inner is None:
            raise InputError(f"the CloudTrailEvent of an entry of Events {wrong}")
        found.append(inner)
    return found


def _list(members: dict[str, object], name: str) -> list[object]:
    value = members[name]
    if not isinstance(value, list):
        raise InputError(f"{name} of the CloudTrail log is not a list", hint=_HINT)
    return value


def _event(members: dict[str, object]) -> CloudTrailEvent:
    version = text_of(members, "eventVersion")
    if not version.startswith("1."):
        raise InputError(
            f"the event's eventVersion is {shown(version)}", hint="this reader knows version 1"
        )
    operation = text_of(members, "eventName")
    if not _NAME.fullmatch(operation):
        raise InputError(f"the event's eventName {shown(operation)} is no operation of KMS")
    time = read_time(text_of(members, "eventTime"))
    identity = object_of(members.get("userIdentity"), "userIdentity")
    principal, session, caller_keys = read_caller(identity)
    raw = members.get("requestParameters")
    parameters = None if raw is None else object_of(raw, "requestParameters")
    pcrs, attested, unknown_pcrs = read_recipient(operation, members.get("additionalEventData"))
    asked, unknown_parameters = read_parameters(parameters)
    origin, unknown_origin = read_origin(members, identity)
    at = {"aws:currenttime": (time.isoformat(),), "aws:epochtime": (str(int(time.timestamp())),)}
    return CloudTrailEvent(
        event_id=optional_text(members, "eventID") or "without an id",
        time=time,
        operation=operation,
        principal=principal,
        session=session,
        key_arn=read_key(members, parameters, principal),
        error_code=optional_text(members, "errorCode"),
        error_message=optional_text(members, "errorMessage"),
        pcrs=pcrs,
        context=caller_keys | attested | asked | origin | at,
        unknown=unknown_pcrs | unknown_parameters | unknown_origin,
    )
