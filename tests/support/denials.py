"""Denied calls: the rows of `tests/unit/policy/denials.txt`, which has the sentences.

A row is a title, the statements of the key policy, and what is different about the call. `ENCLAVE`
is an Allow that fits `CALL` in everything; each row spoils one thing, as people do.
"""

from typing import Any, NamedTuple

from kmstool.policy.evaluate import Request, attestation_keys, encryption_context_keys
from kmstool.policy.explain_request import call_keys

ACCOUNT = "111122223333"
ROOT = f"arn:aws:iam::{ACCOUNT}:root"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/enclave"
KEY = f"arn:aws:kms:eu-central-1:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"
PREFIX = "kms:RecipientAttestation:"
PCRS = {0: b"\xa0" * 48, 1: b"\xa1" * 48, 2: b"\xa2" * 48, 3: b"\xa3" * 48, 8: bytes(48)}
DEBUG = {0: bytes(48), 1: bytes(48), 2: bytes(48)}


def pcrs(*indices: int, **changes: str) -> dict[str, str]:
    """Conditions on registers of the enclave; `pcr1="…"` gives one another value."""
    wanted = {f"{PREFIX}PCR{index}": PCRS[index].hex() for index in indices}
    return wanted | {f"{PREFIX}{name.upper()}": value for name, value in changes.items()}


ENCLAVE: dict[str, Any] = {
    "Sid": "Enclave",
    "Effect": "Allow",
    "Principal": {"AWS": ROLE},
    "Action": "kms:Decrypt",
    "Resource": "*",
    "Condition": {
        "StringEqualsIgnoreCase": pcrs(0, 1, 2),
        "StringEquals": {"kms:EncryptionContext:tenant": "blue"},
    },
}


def but(**changes: Any) -> dict[str, Any]:
    return ENCLAVE | changes


def without(element: str) -> dict[str, Any]:
    return {name: value for name, value in ENCLAVE.items() if name != element}


def wanting(**blocks: dict[str, Any]) -> dict[str, Any]:
    """ENCLAVE with other conditions: operator and block."""
    return but(Condition=blocks)


NEVER: dict[str, Any] = {
    "Sid": "Never",
    "Effect": "Deny",
    "Principal": "*",
    "Action": "*",
    "Resource": "*",
}


class Denial(NamedTuple):
    """One row."""

    title: str
    statements: list[dict[str, Any]]
    call: dict[str, Any]


def call(**changes: Any) -> Request:
    """The call that ENCLAVE allows, with what a row changes."""
    attested = changes.pop("pcrs", PCRS)
    context = changes.pop("context", {"tenant": "blue"})
    action = changes.pop("action", "kms:Decrypt")
    more = changes.pop("keys", {})
    given = {"principal": ROLE, "resource": KEY} | changes
    keys = call_keys(action, KEY) | attestation_keys(attested or {})
    keys |= encryption_context_keys(context) | more
    return Request(action=action, context=keys, **given)


DENIALS: list[Denial] = [
    # --- the image -----------------------------------------------------------------------------
    Denial("debug mode", [ENCLAVE], {"pcrs": DEBUG}),
    Denial("no document", [ENCLAVE], {"pcrs": None}),
    Denial("PCR0 alone differs", [wanting(StringEquals=pcrs(pcr0="b0" * 48))], {}),
    Denial("another image", [ENCLAVE], {"pcrs": dict.fromkeys(range(3), b"\xb0" * 48)}),
    Denial("another application", [ENCLAVE], {"pcrs": PCRS | {0: b"\xb0" * 48, 2: b"\xb2" * 48}}),
    Denial("another kernel", [ENCLAVE], {"pcrs": PCRS | {0: b"\xb0" * 48, 1: b"\xb1" * 48}}),
    Denial("a policy from a debug enclave", [wanting(StringEquals=pcrs(pcr0="00" * 48))], {}),
    Denial("PCRs under wrong names", [wanting(StringEquals=pcrs(pcr1="a2" * 48))], {}),
    Denial("hex too short", [wanting(StringEquals=pcrs(pcr0="a0" * 32))], {}),
    Denial("base64 in place of hex", [wanting(StringEquals=pcrs(pcr0="oKCg" * 16))], {}),
    Denial("no hex at all", [wanting(StringEquals=pcrs(pcr0="<PCR0>"))], {}),
    Denial("capital letters", [wanting(StringEquals=pcrs(pcr0="A0" * 48))], {}),
    Denial("another role on the parent", [wanting(StringEquals=pcrs(pcr3="b3" * 48))], {}),
    Denial(
        "no role on the parent", [wanting(StringEquals=pcrs(3))], {"pcrs": PCRS | {3: bytes(48)}}
    ),
    Denial(
        "another instance",
        [wanting(StringEquals=pcrs(pcr4="b4" * 48))],
        {"pcrs": PCRS | {4: b"\xa4" * 48}},
    ),
    Denial("not signed", [wanting(StringEquals=pcrs(pcr8="b8" * 48))], {}),
    Denial(
        "signed by another",
        [wanting(StringEquals=pcrs(pcr8="b8" * 48))],
        {"pcrs": PCRS | {8: b"\xa8" * 48}},
    ),
    Denial(
        "a register of the application's own",
        [wanting(StringEquals=pcrs(pcr16="b6" * 48))],
        {"pcrs": PCRS | {16: b"\xa6" * 48}},
    ),
    Denial("a register that is not locked", [wanting(StringEquals=pcrs(pcr16="b6" * 48))], {}),
    Denial("NitroTPM's key", [wanting(StringEquals={PREFIX + "NitroTPMPCR4": "a4" * 48})], {}),
    Denial(
        "an operation without Recipient",
        [but(Action="kms:*")],
        {"action": "kms:Encrypt", "pcrs": None},
    ),
    # --- the encryption context ----------------------------------------------------------------
    Denial("no encryption context", [ENCLAVE], {"context": {}}),
    Denial("a name is missing", [ENCLAVE], {"context": {"app": "x"}}),
    Denial("another value", [ENCLAVE], {"context": {"tenant": "red"}}),
    Denial("another case", [ENCLAVE], {"context": {"tenant": "Blue"}}),
    Denial(
        "other names",
        [wanting(**{"ForAllValues:StringEquals": {"kms:EncryptionContextKeys": ["tenant"]}})],
        {"context": {"tenant": "blue", "App": "x"}},
    ),
    # --- the caller ----------------------------------------------------------------------------
    Denial("another role", [ENCLAVE], {"principal": f"arn:aws:iam::{ACCOUNT}:role/parent"}),
    Denial(
        "the same name, another case",
        [ENCLAVE],
        {"principal": f"arn:aws:iam::{ACCOUNT}:role/Enclave"},
    ),
    Denial(
        "the same name, another account",
        [ENCLAVE],
        {"principal": "arn:aws:iam::444455556666:role/enclave"},
    ),
    Denial(
        "the same name, another path",
        [ENCLAVE],
        {"principal": f"arn:aws:iam::{ACCOUNT}:role/prod/enclave"},
    ),
    Denial("a user of that name", [ENCLAVE], {"principal": f"arn:aws:iam::{ACCOUNT}:user/enclave"}),
    Denial(
        "another partition", [ENCLAVE], {"principal": f"arn:aws-cn:iam::{ACCOUNT}:role/enclave"}
    ),
    Denial("a role that was deleted", [but(Principal={"AWS": "AROAEXAMPLE123456789"})], {}),
    Denial(
        "one session of the role",
        [but(Principal={"AWS": f"arn:aws:sts::{ACCOUNT}:assumed-role/enclave/i-1"})],
        {"session": f"arn:aws:sts::{ACCOUNT}:assumed-role/enclave/i-2"},
    ),
    Denial("an AWS service", [but(Principal={"Service": "logs.amazonaws.com"})], {}),
    Denial("the account alone", [but(Sid="Account", Principal={"AWS": ROOT})], {}),
    Denial(
        "another account without IAM",
        [but(Principal={"AWS": "arn:aws:iam::444455556666:role/x"})],
        {"principal": "arn:aws:iam::444455556666:role/x"},
    ),
    # --- action and resource -------------------------------------------------------------------
    Denial("another operation", [ENCLAVE], {"action": "kms:GenerateDataKey"}),
    Denial("a NotAction", [without("Action") | {"NotAction": "kms:Decrypt"}], {}),
    Denial(
        "an alias as Resource",
        [but(Resource="arn:aws:kms:eu-central-1:111122223333:alias/app")],
        {},
    ),
    Denial("another key as Resource", [but(Resource=KEY.replace("1234abcd", "99999999", 1))], {}),
    Denial("no Resource", [without("Resource")], {}),
    # --- other conditions ----------------------------------------------------------------------
    Denial(
        "a service has to call",
        [wanting(StringEquals={"kms:ViaService": "s3.eu-central-1.amazonaws.com"})],
        {},
    ),
    Denial(
        "an alias has to be named", [wanting(StringEquals={"kms:RequestAlias": "alias/app"})], {}
    ),
    Denial(
        "a VPC endpoint",
        [wanting(StringEquals={"aws:SourceVpce": "vpce-1"})],
        {"keys": {"aws:sourcevpce": ()}},
    ),
    Denial(
        "an address",
        [wanting(IpAddress={"aws:SourceIp": "203.0.113.0/24"})],
        {"keys": {"aws:sourceip": ("198.51.100.7",)}},
    ),
    Denial(
        "a time that is over",
        [wanting(DateLessThan={"aws:CurrentTime": "2026-01-01"})],
        {"keys": {"aws:currenttime": ("2026-05-01T00:00:00Z",)}},
    ),
    Denial(
        "another algorithm",
        [wanting(StringEquals={"kms:EncryptionAlgorithm": "RSAES_OAEP_SHA_256"})],
        {},
    ),
    Denial("what nobody knows", [wanting(StringEquals={"aws:PrincipalOrgID": "o-1"})], {}),
    # --- a Deny --------------------------------------------------------------------------------
    Denial("a Deny without conditions", [ENCLAVE, NEVER], {}),
    Denial(
        "a Deny on the image",
        [ENCLAVE, {**NEVER, "Condition": {"StringNotEquals": pcrs(pcr0="b0" * 48)}}],
        {},
    ),
    Denial(
        "a Deny without a document",
        [ENCLAVE, {**NEVER, "Condition": {"StringNotEquals": pcrs(0)}}],
        {"pcrs": None},
    ),
    Denial(
        "a Deny for all but",
        [
            ENCLAVE,
            {
                "Sid": "Never",
                "Effect": "Deny",
                "NotPrincipal": {"AWS": ROLE},
                "Action": "*",
                "Resource": "*",
            },
        ],
        {},
    ),
    Denial(
        "a Deny for other contexts",
        [
            ENCLAVE,
            {**NEVER, "Condition": {"StringNotEquals": {"kms:EncryptionContext:env": "prod"}}},
        ],
        {},
    ),
    Denial(
        "no Allow at all",
        [
            {
                "Sid": "Never",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "kms:Encrypt",
                "Resource": "*",
            }
        ],
        {},
    ),
    Denial(
        "a variable",
        [wanting(ArnLike={"aws:PrincipalArn": "arn:aws:iam::${aws:PrincipalAccount}:role/prod/*"})],
        {},
    ),
    Denial(
        "a session that is not known",
        [but(Principal={"AWS": f"arn:aws:sts::{ACCOUNT}:assumed-role/enclave/i-1"})],
        {},
    ),
]
