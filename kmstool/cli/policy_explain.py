"""`kmstool policy explain`: which statement and condition of a key policy decided a call.

`kmstool.policy.explain` decides and explains; here the call is put together from options, an
attestation document or a CloudTrail event, and the outcome is printed.
"""

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from kmstool.cli import console
from kmstool.cli.common import Common, common_options
from kmstool.cli.expectations import PCR
from kmstool.cli.input import parse_base64, read_bytes
from kmstool.cli.options import KEY_ID_VARIABLE, PairType, as_mapping
from kmstool.cli.output import Output, deliver, encode_json
from kmstool.errors import CheckFailedError, DocumentError, InputError, SettingError
from kmstool.policy.actions import action_of
from kmstool.policy.check_key import policy_in
from kmstool.policy.cloudtrail import CloudTrailEvent, parse_events
from kmstool.policy.evaluate import Request, attestation_keys, encryption_context_keys, parse_policy
from kmstool.policy.explain import Explanation, Verdict, explain
from kmstool.policy.explain_event import event_advice, event_line
from kmstool.policy.explain_request import call_keys, is_session, role_of_session
from kmstool.policy.keys import is_attestation
from kmstool.policy.parse import IDENTITY

if TYPE_CHECKING:
    from kmstool.policy.parse import Policy

_COSE: Final = (b"\x84", b"\x9f", b"\xd2")  # the first byte of a document that is not base64
_DOCUMENT_HINT: Final = (
    "kmstool attest writes one, in an enclave; the policy is an argument of its own"
)
_NO_PRINCIPAL: Final = "give --principal, the ARN of the role (aws sts get-caller-identity)"


class _Asked(NamedTuple):
    """The options that make up a call."""

    operation: str | None
    principal: str | None
    key_id: str | None
    encryption_context: tuple[tuple[str, str], ...]
    document: str | None
    pcrs: tuple[tuple[int, bytes], ...]
    pcr_from: str | None
    present: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]


@click.command("explain")
@click.argument("policy_file", metavar="[POLICY]", default="-")
@click.option(
    "--operation", metavar="NAME", help="As the API or the AWS CLI names it  [default: Decrypt]"
)
@click.option(
    "--principal",
    metavar="ARN",
    help="The caller: a role, a user, or a role's session as get-caller-identity shows it.",
)
@click.option(
    "--key-id", metavar="ARN", help=f"The full ARN of the key  [variable: {KEY_ID_VARIABLE}]"
)
@click.option(
    "--encryption-context",
    type=PairType(),
    multiple=True,
    help="Of the call (repeatable).",
)
@click.option(
    "--document",
    metavar="FILE",
    help="The attestation document of the call, base64 or the bytes; - is stdin.",
)
@click.option("--pcr", type=PCR, multiple=True, help="A PCR of the caller (repeatable).")
@click.option(
    "--pcr-from",
    metavar="FILE",
    help="The caller's image (EIF), what nitro-cli build-enclave printed, or a document of it.",
)
@click.option(
    "--log",
    metavar="FILE",
    help="Explain this call in place of one from options: an event, log file or lookup of"
    " CloudTrail, JSON; - is stdin.",
)
@click.option("--event-id", metavar="ID", help="Which event of --log, where it holds several.")
@click.option(
    "--iam-allows",
    metavar="PATTERN",
    multiple=True,
    help="What the caller's own IAM policies allow, such as kms:* (repeatable)  [default: nothing]",
)
@click.option(
    "--condition-key",
    "present",
    type=PairType(),
    multiple=True,
    help="Another condition key of the call and its value (repeatable).",
)
@click.option(
    "--missing-key",
    "missing",
    metavar="NAME",
    multiple=True,
    help="A condition key that the call does not have (repeatable).",
)
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
@common_options
@click.pass_obj
def command(
    common: Common,  # noqa: ARG001 - every command gets it
    /,
    *,
    policy_file: str,
    log: str | None,
    event_id: str | None,
    iam_allows: tuple[str, ...],
    as_json: bool,
    pcr: tuple[tuple[int, bytes], ...],
    **options: Any,
) -> None:
    """Say which statement and condition of a key policy decides a call.

    Reads the policy, or what aws kms get-key-policy printed, from POLICY or stdin. Exit 0 says that
    it allows the call; exit 10, that it denies it, or that something that decides is not known.
    Without --document, --pcr or --pcr-from it is a call without an attestation document.

    \b
    Examples:
      kmstool policy explain policy.json --principal "$ROLE" --key-id "$ARN" --document doc.b64
      kmstool policy explain policy.json --log event.json

    The key policy alone is looked at: an IAM, session, organization or VPC endpoint policy may
    deny what it allows, and a grant may allow what it does not.
    """
    asked = _Asked(pcrs=pcr, **options)
    if [policy_file, log, asked.document, asked.pcr_from].count("-") > 1:
        raise _usage("stdin can be read once")
    policy = parse_policy(policy_in(read_bytes(policy_file, what="the policy")))
    event = None if log is None else _event(log, event_id)
    if event is None:
        if event_id is not None:
            raise _usage("--event-id is for --log")
        request, notes = _request(asked, policy)
    else:
        request, notes = _request_of_event(event, asked, policy)
    explanation = explain(policy, request, identity_allows=iam_allows)
    advice = (*explanation.advice, *(event_advice(event, explanation) if event else ()), *notes)
    text = _json(explanation, advice, event) if as_json else _text(explanation, advice, event)
    deliver([Output(text, None)])
    _raise_unless_allowed(explanation)


def _raise_unless_allowed(explanation: Explanation) -> None:
    action = explanation.request.action
    if explanation.verdict is Verdict.DENIED:
        raise CheckFailedError(f"the key policy does not allow {action}")
    if explanation.verdict is Verdict.UNKNOWN:
        raise CheckFailedError(
            f"whether the key policy allows {action} cannot be said",
            hint=_what_to_give(explanation),
        )


def _what_to_give(explanation: Explanation) -> str | None:
    keys = explanation.unknown_keys
    # A log that has some registers takes no document beside it.
    whole = not explanation.request.attested
    others = [key for key in keys if not (whole and is_attestation(key))]
    hints = []
    if len(others) < len(keys):
        hints.append("give what the enclave attests: --document FILE, --pcr or --pcr-from")
    if others:
        hints.append(
            "give each key with --condition-key NAME=VALUE, or say with --missing-key NAME that"
            f" the call does not have it: {', '.join(others)}"
        )
    return "; ".join(hints) or None


# --- The call ----------------------------------------------------------------------------------


def _request(asked: _Asked, policy: "Policy") -> tuple[Request, list[str]]:
    if asked.principal is None:
        raise click.UsageError(f"no caller was named: {_NO_PRINCIPAL}", _context())
    key = asked.key_id or os.environ.get(KEY_ID_VARIABLE)
    if not key:
        raise _usage(f"no key was named: give --key-id ARN or {KEY_ID_VARIABLE}")
    action = action_of(asked.operation or "Decrypt")
    attested, notes = _attested(asked)
    now = datetime.now(UTC)
    return (
        Request(
            action=action,
            principal=_role(asked.principal, policy),
            session=asked.principal if is_session(asked.principal) else None,
            resource=key,
            context=call_keys(action, key)
            | {"aws:currenttime": (now.isoformat(),), "aws:epochtime": (str(int(now.timestamp())),)}
            | encryption_context_keys(as_mapping(asked.encryption_context) or {})
            | attested
            | _more_keys(asked),
        ),
        notes,
    )


def _request_of_event(
    event: CloudTrailEvent, asked: _Asked, policy: "Policy"
) -> tuple[Request, list[str]]:
    if asked.operation is not None or asked.encryption_context:
        raise _usage("--operation and --encryption-context are in the event of --log")
    action_of(f"kms:{event.operation}")  # refuses what no key policy decides
    if asked.principal is not None and event.principal is not None:
        raise _usage("the event of --log names its caller: leave --principal out")
    if event.pcrs is not None and (asked.document or asked.pcrs or asked.pcr_from):
        raise _usage("the event of --log has the PCRs of its document: leave others out")
    attested, notes = _attested(asked)
    who = asked.principal or event.session
    return (
        event.request(
            principal=_role(who, policy) if who else None,
            key_arn=asked.key_id or os.environ.get(KEY_ID_VARIABLE),
            context=attested | _more_keys(asked),
        ),
        notes,
    )


def _role(who: str, policy: "Policy") -> str:
    role = role_of_session(who, policy)
    if not IDENTITY.fullmatch(role):
        raise SettingError(
            f"{who!a} is not the ARN of a role, a user or a role's session",
            hint="give what aws sts get-caller-identity prints where the caller's credentials are",
        )
    return role


def _more_keys(asked: _Asked) -> dict[str, tuple[str, ...]]:
    keys: dict[str, tuple[str, ...]] = dict.fromkeys(asked.missing, ())
    for name, value in asked.present:
        if name in asked.missing:
            raise _usage(f"--condition-key and --missing-key both name {name}")
        keys[name] = (*keys.get(name, ()), value)
    if wrong := next((name for name in keys if ":" not in name), None):
        raise SettingError(
            f"{wrong!r} is not a condition key", hint="write it whole, such as kms:ViaService"
        )
    return {name.lower(): values for name, values in keys.items()}


def _attested(asked: _Asked) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Condition keys of the attestation, and what there is to say about it."""
    if asked.document is not None:
        if asked.pcrs or asked.pcr_from:
            raise _usage("--document has the PCRs: leave --pcr and --pcr-from out")
        return _document(asked.document)
    pcrs: dict[int, bytes] = {}
    notes = []
    if asked.pcr_from is not None:
        from kmstool.cli.measured import read_measured  # noqa: PLC0415 - brings cryptography

        measured = read_measured(asked.pcr_from)
        pcrs = {**measured.image, **measured.enclave}
    for index, value in asked.pcrs:
        if pcrs.setdefault(index, value) != value:
            raise SettingError(
                f"two values are given for PCR{index}", hint="a register has one: leave one out"
            )
    if pcrs:
        known = ", ".join(f"PCR{index}" for index in sorted(pcrs))
        notes.append(f"the call is taken to attest {known} and no other register")
    return attestation_keys(pcrs), notes if pcrs else []


def _document(source: str) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    from kmstool.attestation.document import parse_document  # noqa: PLC0415 - brings cryptography
    from kmstool.attestation.verify import own_time, verify_document  # noqa: PLC0415
    from kmstool.session import attestation_root  # noqa: PLC0415

    data = read_bytes(source, what="the document")
    if not data.strip():
        raise InputError("the document is empty", hint=_DOCUMENT_HINT)
    if not data.startswith(_COSE):
        data = parse_base64(data, what="the document", hint=_DOCUMENT_HINT)
    document = parse_document(data)
    root, caveats = attestation_root()
    console.warn(caveats)
    try:
        verify_document(data, root_der=root, at=own_time(document))
    except DocumentError as error:
        note = f"the document does not verify as of its own time, and KMS would refuse it: {error}"
        return attestation_keys(document.pcrs), [note]
    return attestation_keys(document.pcrs), []


def _event(source: str, event_id: str | None) -> CloudTrailEvent:
    events = parse_events(read_bytes(source, what="the CloudTrail log"))
    found = [one for one in events if event_id in (None, one.event_id)]
    found.sort(key=lambda one: not one.denied)  # what was refused is what people ask about
    if not found:
        raise InputError(f"the CloudTrail log has no KMS event {event_id!a}")
    if len(found) > 1:
        some = "; ".join(f"{one.event_id} ({event_line(one)})" for one in found[:5])
        raise SettingError(
            f"the CloudTrail log has {len(found)} KMS events"
            f" ({sum(one.denied for one in found)} refused)",
            hint=f"choose with --event-id: {some}",
        )
    return found[0]


# --- The outcome -------------------------------------------------------------------------------


def _text(explanation: Explanation, advice: Iterable[str], event: CloudTrailEvent | None) -> bytes:
    head = [f"{explanation.verdict}: {explanation.reason}", *(f"- {one}" for one in advice)]
    if event is not None:
        head.insert(0, f"CloudTrail: {event_line(event)}")
    lines = head + [line for one in explanation.statements for line in ("", *one.lines())]
    return "".join(f"{console.printable(line)}\n" for line in lines).encode("utf-8")


def _json(explanation: Explanation, advice: Iterable[str], event: CloudTrailEvent | None) -> bytes:
    report = {"type": "policy-explanation"} | explanation.as_json() | {"advice": list(advice)}
    if event is not None:
        report["event"] = {
            "id": event.event_id,
            "time": event.time.isoformat(),
            "error_code": event.error_code,
            "error_message": event.error_message,
            "done": event.done,
        }
    return encode_json(report)


def _context() -> click.Context:
    return click.get_current_context()


def _usage(message: str) -> click.UsageError:
    return click.UsageError(message, _context())
