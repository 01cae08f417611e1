"""What a role's session may do less than the role: the session policy of AssumeRole. Pure.

A session policy only takes away: what is allowed is what the role's own policies and this one allow
(IAM User Guide, "Session policies"). Source of the bounds: AWS STS API Reference, AssumeRole.
"""

import json
import re
from collections.abc import Collection
from typing import Final

from kmstool import limits
from kmstool.arn import KeyArn
from kmstool.errors import SettingError, quoted
from kmstool.strict_json import read_object

_ROLE = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]{1,576}", re.ASCII)
_SESSION_NAME = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)
_STRANGE = re.compile("[^\t\n\r\u0020-\u00ff]")  # PolicyDocument's pattern

# The operations that take `Recipient` and name a key, and the one that names none.
_ON_KEYS: Final = (
    "kms:Decrypt",
    "kms:DeriveSharedSecret",
    "kms:GenerateDataKey",
    "kms:GenerateDataKeyPair",
)
_ON_NOTHING: Final = "kms:GenerateRandom"
# There is an attestation document that KMS accepted, whatever it says: *which* image may use a key
# is for the key's own policy to say.
_ATTESTED: Final = {"Null": {"kms:RecipientAttestation:ImageSha384": "false"}}


def session_policy_for(keys: Collection[KeyArn]) -> str:
    """The policy behind `--only-kms`: the five attested operations, on these keys, and attested.

    What they are: Decrypt, DeriveSharedSecret, GenerateDataKey and GenerateDataKeyPair on the keys,
    and GenerateRandom, which is about no key. Every one only with a document of some enclave, so
    whoever takes these credentials out of the enclave gets no plaintext with them.

    Returns:
        JSON without white space, at most `SESSION_POLICY_MAX` characters.

    Raises:
        SettingError: no key, or more than fit.
    """
    if not keys:
        raise SettingError("no key was named", hint="name each with --only-kms ARN")
    statements = [
        {"Effect": "Allow", "Action": actions, "Resource": resources, "Condition": _ATTESTED}
        for actions, resources in (
            (list(_ON_KEYS), [str(key) for key in dict.fromkeys(keys)]),
            (_ON_NOTHING, "*"),
        )
    ]
    text = _compact({"Version": "2012-10-17", "Statement": statements})
    if len(text) > limits.SESSION_POLICY_MAX:
        raise SettingError(
            f"{len(keys)} keys make a session policy of {len(text)} characters, and AWS takes"
            f" {limits.SESSION_POLICY_MAX}",
            hint="write a --session-policy with patterns, or run one service for some of the keys",
        )
    return text


def check_session_policy(text: str) -> str:
    """A session policy as it is sent: the same JSON without white space.

    Its elements are AWS' business; this only finds what AssumeRole would refuse for its form, and a
    key policy that was taken for one.

    Raises:
        SettingError: it is no JSON object with a `Statement`, has a `Principal`, or is too long.
    """
    policy, fault = read_object(text.encode("utf-8", "surrogatepass"), limits.INPUT_MAX)
    if policy is None:
        raise SettingError(f"the session policy {fault}", hint=_HINT)
    statements = policy.get("Statement")
    for one in statements if isinstance(statements, list) else [statements]:
        if not isinstance(one, dict) or one.get("Effect") not in ("Allow", "Deny"):
            raise SettingError("the session policy has no statement with an Effect", hint=_HINT)
        if "Principal" in one or "NotPrincipal" in one:
            raise SettingError(
                "the session policy names a Principal, as a key policy does",
                hint="a session policy is about the role that is assumed: leave Principal out",
            )
    compact = _compact(policy)
    if strange := _STRANGE.search(compact):
        raise SettingError(
            f"the session policy holds the character U+{ord(strange[0]):04X}, which AWS refuses"
        )
    if len(compact) > limits.SESSION_POLICY_MAX:
        raise SettingError(
            f"the session policy has {len(compact)} characters without white space, and AWS takes"
            f" {limits.SESSION_POLICY_MAX}"
        )
    return compact


def check_role_arn(text: str) -> str:
    """The same text. Raises `SettingError` where it is not the ARN of a role."""
    if not _ROLE.fullmatch(text):
        raise SettingError(
            f"{quoted(text)} is not the ARN of a role",
            hint="it looks like arn:aws:iam::111122223333:role/NAME",
        )
    return text


def check_role_session_name(text: str) -> str:
    """The same text. Raises `SettingError` where it is not the name of a role's session."""
    if not _SESSION_NAME.fullmatch(text):
        raise SettingError(
            f"{quoted(text)} is not the name of a session",
            hint="2 to 64 letters, digits and any of _ + = , . @ -",
        )
    return text


_HINT: Final = 'it looks like {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", …}]}'


def _compact(policy: object) -> str:
    return json.dumps(policy, separators=(",", ":"), ensure_ascii=False)
