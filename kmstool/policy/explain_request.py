"""What KMS tells a policy about a call that its caller makes itself, beside PCRs and context.

An enclave's call is such a one: no AWS service stands between. Source: AWS KMS Developer Guide,
"AWS KMS condition keys"; IAM User Guide, "AWS global condition context keys".
"""

from kmstool.arn import parse_key_arn
from kmstool.policy.parse import IDENTITY, Policy, PrincipalKind

_SYMMETRIC = ("SYMMETRIC_DEFAULT",)
_BY_ACTION: dict[str, dict[str, tuple[str, ...]]] = {
    "kms:decrypt": {"kms:encryptionalgorithm": _SYMMETRIC},
    "kms:encrypt": {"kms:encryptionalgorithm": _SYMMETRIC},
    "kms:generatedatakey": {"kms:encryptionalgorithm": _SYMMETRIC},
    "kms:generatedatakeywithoutplaintext": {"kms:encryptionalgorithm": _SYMMETRIC},
    "kms:generatedatakeypair": {"kms:encryptionalgorithm": _SYMMETRIC},
    "kms:generatedatakeypairwithoutplaintext": {"kms:encryptionalgorithm": _SYMMETRIC},
    "kms:derivesharedsecret": {"kms:keyagreementalgorithm": ("ECDH",)},
}


def call_keys(action: str, resource: str) -> dict[str, tuple[str, ...]]:
    """Condition keys of a call to a key that is named by its ARN; no values: known to be missing.

    The algorithm is the one that KMS takes where a call names none.

    Raises:
        SettingError: `resource` is not the ARN of a key.
    """
    keys: dict[str, tuple[str, ...]] = {
        "aws:securetransport": ("true",),
        "aws:requestedregion": (parse_key_arn(resource).region,),
    }
    return keys | no_service() | _BY_ACTION.get(action.lower(), {})


def no_service() -> dict[str, tuple[str, ...]]:
    """What is known where no AWS service makes the call for somebody."""
    keys: dict[str, tuple[str, ...]] = {"aws:viaawsservice": ("false",)}
    for name in (
        "kms:viaservice", "aws:calledvia", "aws:calledviafirst", "aws:calledvialast",
        "aws:sourcearn", "aws:sourceaccount",
    ):  # fmt: skip
        keys[name] = ()
    return keys


def role_of_session(session: str, policy: Policy) -> str:
    """The ARN of the role whose session this STS ARN is; other ARNs as they are.

    A session names its role without the path. Where the policy names one role of that name in that
    account with a path, it is taken to be that; a role without a path otherwise.
    """
    parts = session.split(":", 5)
    kind, _, rest = parts[-1].partition("/")
    if len(parts) != 6 or parts[2] != "sts" or kind != "assumed-role":
        return session
    name = rest.partition("/")[0]
    start = f"arn:{parts[1]}:iam::{parts[4]}:role/"
    named = {
        principal.text
        for statement in policy.statements
        for principal in statement.principals
        if principal.kind is PrincipalKind.IDENTITY
        and principal.text.startswith(start)
        and principal.text.rpartition("/")[2] == name
    }
    if len(named) == 1:
        return named.pop()
    return start + name


def is_session(arn: str) -> bool:
    """Whether an ARN is of an STS session rather than of a role or user."""
    return not IDENTITY.fullmatch(arn) and ":sts:" in arn
