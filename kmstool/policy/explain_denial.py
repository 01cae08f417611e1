"""A refused call as the enclave that made it sees it, beside a key policy that it was given.

The enclave knows its PCRs, its encryption context and the key. Who it is to KMS it learns from KMS'
own message ("User: ARN is not authorized to perform …"). The policy is what somebody handed over:
whether the key has it is not known in here, so this makes a hint and never a decision.
"""

import re
from collections.abc import Mapping

from kmstool.arn import parse_key_arn
from kmstool.errors import SettingError
from kmstool.policy.evaluate import Request, attestation_keys, encryption_context_keys
from kmstool.policy.explain import Verdict, explain
from kmstool.policy.explain_request import call_keys, is_session, role_of_session
from kmstool.policy.parse import IDENTITY, Effect, Policy, PrincipalKind

_CALLER = re.compile(r"User: (arn:aws[a-z-]*:(?:iam|sts)::[0-9]{12}:[\w+=,.@/-]{1,600})", re.ASCII)
_SENTENCES = 3  # a hint is one line


def denial_hint(
    policy: Policy,
    *,
    action: str,
    key_arn: str,
    pcrs: Mapping[int, bytes],
    encryption_context: Mapping[str, str],
    encryption_algorithm: str | None,
    said: str,
) -> str:
    """What this policy makes of the call, to follow "by the policy in FILE, ".

    Args:
        pcrs: of the enclave's attestation document, index to 48 bytes.
        said: KMS' message.
    """
    caller = _caller(said) or _somebody(policy)
    if caller is None:
        return "nothing can be said: it names no role, and KMS did not say who called"
    keys = call_keys(action, str(parse_key_arn(key_arn)))
    if encryption_algorithm is not None:
        keys["kms:encryptionalgorithm"] = (encryption_algorithm,)
    try:
        request = Request(
            action=action,
            principal=role_of_session(caller, policy),
            session=caller if is_session(caller) else None,
            resource=key_arn,
            context=keys | attestation_keys(pcrs) | encryption_context_keys(encryption_context),
        )
    except SettingError:  # a federated user: KMS knows whose, and the enclave does not
        return f"nothing can be said about the caller {caller}"
    explanation = explain(policy, request)
    if explanation.verdict is Verdict.ALLOWED:
        return (
            "this call is allowed: the key has another policy, or an IAM, session, organization or"
            " VPC endpoint policy denies it"
        )
    return "; ".join(explanation.advice[:_SENTENCES] or (explanation.reason,))


def _caller(said: str) -> str | None:
    found = _CALLER.search(said)
    return found[1] if found else None


def _somebody(policy: Policy) -> str | None:
    """Whom the policy lets in, where KMS does not say who called."""
    for statement in policy.statements:
        for principal in statement.principals:
            if statement.effect is Effect.ALLOW and principal.kind is PrincipalKind.IDENTITY:
                return principal.text if IDENTITY.fullmatch(principal.text) else None
    return None
