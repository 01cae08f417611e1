"""The members of a CloudTrail event that say something about condition keys; see `cloudtrail.py`.

Each `read_…` takes what JSON gave and returns keys that are known (no values: known to be missing)
and keys that stay unknown, with the reason. All raise `InputError`.
"""

import base64
import binascii
import ipaddress
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from kmstool.errors import InputError
from kmstool.limits import NSM_PCR_COUNT_MAX, NSM_PCR_LENGTH
from kmstool.policy.actions import takes_recipient
from kmstool.policy.explain_request import no_service
from kmstool.policy.keys import ATTESTATION_PREFIX, attestation_keys, encryption_context_keys
from kmstool.policy.parse import IDENTITY
from kmstool.policy.printable import shown

Keys = dict[str, tuple[str, ...]]
Unknown = dict[str, str]

NO_RECIPIENT: Final = (
    "the event has no recipient data, which CloudTrail records only where KMS took an attestation"
    " document"
)
_NOT_RECORDED: Final = "CloudTrail records PCR0 to PCR4 and PCR8 alone"
_NO_PARAMETERS: Final = "the event has no request parameters"
_NO_CONTEXT: Final = "the event does not tell the encryption context"
_VIA_SERVICE: Final = "an AWS service made the call, and the event does not say all about it"

_REGISTER = re.compile(r"attestationDocumentEnclavePCR(0|[1-9][0-9]?)")
_TPM_REGISTER = re.compile(r"attestationDocumentNitroTPMPCR(0|[1-9][0-9]?)")
_HEX = re.compile(rf"[0-9a-fA-F]{{{2 * NSM_PCR_LENGTH}}}")
_BARE_KEY = re.compile(r"mrk-[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KEY = re.compile(r"arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+")
_REGION = re.compile(r"[a-z0-9-]{1,32}")


def object_of(value: object, what: str) -> dict[str, object]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise InputError(f"{what} of the CloudTrail log is not a JSON object")
    return value


def text_of(members: Mapping[str, object], name: str) -> str:
    """A string that has to be there."""
    value = members.get(name)
    if not isinstance(value, str) or not value:
        raise InputError(f"the event has no {name}")
    return value


def optional_text(members: Mapping[str, object], name: str) -> str | None:
    """A string, or None where there is none."""
    value = members.get(name)
    return value if isinstance(value, str) and value else None


def read_time(text: str) -> datetime:
    """`eventTime`, ISO 8601 with its zone."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise InputError(f"the event's eventTime is {shown(text)}, no time with its zone")
    return time


# --- Who ---------------------------------------------------------------------------------------


def read_caller(identity: Mapping[str, object]) -> tuple[str | None, str | None, Keys]:
    """The ARN of the role, user or root, or None; that of the session, or None; and its keys."""
    kind = optional_text(identity, "type")
    arn = optional_text(identity, "arn")
    keys: Keys = {}
    if user_id := optional_text(identity, "principalId"):
        keys["aws:userid"] = (user_id,)
    if kind in _PRINCIPAL_TYPES:
        keys["aws:principaltype"] = (_PRINCIPAL_TYPES[kind],)
        name = optional_text(identity, "userName") if kind == "IAMUser" else None
        keys["aws:username"] = (name,) if name else ()
    if arn is None or IDENTITY.fullmatch(arn):
        return arn, None, keys
    session_context = identity.get("sessionContext")
    issuer = session_context.get("sessionIssuer") if isinstance(session_context, dict) else None
    role = optional_text(issuer, "arn") if isinstance(issuer, dict) else None
    if role is not None and not IDENTITY.fullmatch(role):
        raise InputError(f"the event's sessionIssuer is {shown(role)}, no role or user")
    return role, arn, keys


_PRINCIPAL_TYPES: Final = {
    "Root": "Account",
    "IAMUser": "User",
    "AssumedRole": "AssumedRole",
    "FederatedUser": "FederatedUser",
}


def read_key(
    members: Mapping[str, object], parameters: Mapping[str, object] | None, caller: str | None
) -> str | None:
    """The ARN of the key, or None."""
    resources = members.get("resources")
    named = [
        one.get("ARN", one.get("arn"))
        for one in (resources if isinstance(resources, list) else ())
        if isinstance(one, dict)
    ]
    given = optional_text(parameters or {}, "keyId")
    for candidate in (*named, given):
        if isinstance(candidate, str) and _KEY.fullmatch(candidate):
            return candidate
    region = optional_text(members, "awsRegion") or ""
    if given and caller and _BARE_KEY.fullmatch(given) and _REGION.fullmatch(region):
        parts = caller.split(":")  # a bare id is of the caller's own account
        return f"arn:{parts[1]}:kms:{region}:{parts[4]}:key/{given}"
    return None


# --- What --------------------------------------------------------------------------------------


def read_parameters(parameters: Mapping[str, object] | None) -> tuple[Keys, Unknown]:
    """Encryption context, algorithms and alias."""
    if parameters is None:
        names = (
            "kms:encryptioncontext:", "kms:encryptioncontextkeys", "kms:encryptionalgorithm",
            "kms:keyagreementalgorithm", "kms:datakeypairspec", "kms:requestalias",
        )  # fmt: skip
        return {}, dict.fromkeys(names, _NO_PARAMETERS)
    keys: Keys = {}
    unknown: Unknown = {}
    for member, key in _PARAMETER_KEYS.items():
        if value := optional_text(parameters, member):
            keys[key] = (value,)
    named = optional_text(parameters, "keyId") or ""
    if "alias/" in named:
        keys["kms:requestalias"] = ("alias/" + named.partition("alias/")[2],)
    context = parameters.get("encryptionContext", {})
    if isinstance(context, dict) and all(isinstance(value, str) for value in context.values()):
        keys |= encryption_context_keys(context)
    else:
        # CloudTrail writes a text in place of what it hides.
        unknown = dict.fromkeys(
            ("kms:encryptioncontext:", "kms:encryptioncontextkeys"), _NO_CONTEXT
        )
    return keys, unknown


_PARAMETER_KEYS: Final = {
    "encryptionAlgorithm": "kms:encryptionalgorithm",
    "keyAgreementAlgorithm": "kms:keyagreementalgorithm",
    "keyPairSpec": "kms:datakeypairspec",
}


# --- From where --------------------------------------------------------------------------------


def read_origin(
    members: Mapping[str, object], identity: Mapping[str, object]
) -> tuple[Keys, Unknown]:
    """Whether a service made the call, and which way it came."""
    keys: Keys = {}
    unknown: Unknown = {}
    if optional_text(identity, "invokedBy"):
        keys["aws:viaawsservice"] = ("true",)
        unknown = {name: _VIA_SERVICE for name in no_service() if name != "aws:viaawsservice"}
    else:
        keys |= no_service()
    address = _address(optional_text(members, "sourceIPAddress") or "")
    if endpoint := optional_text(members, "vpcEndpointId"):
        keys |= {"aws:sourcevpce": (endpoint,), "aws:sourceip": ()}
        if address:
            keys["aws:vpcsourceip"] = (address,)
    else:
        keys |= {"aws:sourcevpce": (), "aws:sourcevpc": (), "aws:vpcsourceip": ()}
        if address:
            keys["aws:sourceip"] = (address,)
    return keys, unknown


def _address(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None  # the name of a service


# --- The attestation document ------------------------------------------------------------------


def read_recipient(
    operation: str, additional: object
) -> tuple[Mapping[int, bytes] | None, Keys, Unknown]:
    """PCRs where the event has them; unknown, or truly missing, otherwise."""
    recipient = additional.get("recipient") if isinstance(additional, dict) else None
    if recipient is None:
        if not takes_recipient(f"kms:{operation}"):
            return None, {}, {}
        return None, {}, {ATTESTATION_PREFIX: NO_RECIPIENT}
    members = object_of(recipient, "recipient")
    pcrs: dict[int, bytes] = {}
    tpm: Keys = {}
    for name, value in members.items():
        if name == "attestationDocumentEnclaveImageDigest":
            pcrs[0] = _register(name, value)
        elif (match := _REGISTER.fullmatch(name)) and int(match[1]) < NSM_PCR_COUNT_MAX:
            pcrs[int(match[1])] = _register(name, value)
        elif match := _TPM_REGISTER.fullmatch(name):
            tpm[f"{ATTESTATION_PREFIX}nitrotpmpcr{match[1]}"] = (_register(name, value).hex(),)
    if tpm:
        return pcrs, attestation_keys(pcrs) | tpm, {}
    unknown = {
        f"{ATTESTATION_PREFIX}pcr{index}": _NOT_RECORDED
        for index in range(NSM_PCR_COUNT_MAX)
        if index not in pcrs
    }
    if 0 not in pcrs:
        unknown[f"{ATTESTATION_PREFIX}imagesha384"] = _NOT_RECORDED
    return pcrs, attestation_keys(pcrs), unknown


def _register(name: str, value: object) -> bytes:
    """48 bytes: base64 in real events, hexadecimal in older examples of the documentation."""
    raw = b""
    if isinstance(value, str) and _HEX.fullmatch(value):
        raw = bytes.fromhex(value)
    elif isinstance(value, str):
        try:
            raw = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raw = b""
    if len(raw) != NSM_PCR_LENGTH:
        raise InputError(
            f"{name} of the event is not the base64 of {NSM_PCR_LENGTH} bytes",
            hint="AWS' documentation prints placeholders there: give a real event",
        )
    return raw
