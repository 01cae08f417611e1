"""May this principal do this with this key? Asked of `kmstool.policy.evaluate`, never decided here.

This file gathers what KMS tells a policy about a request (its condition keys), and turns a decision
into KMS' AccessDeniedException, with the evaluator's reason behind AWS' usual sentence: to say
which condition failed is what an emulator is for. Condition keys that it does not know (such as
`kms:ViaService`) make the evaluator deny and say so.

Identity policies are `Principal.iam_allows`, without conditions. A session policy takes away from
all that (`role_sessions.py`).
"""

import json
from collections.abc import Mapping
from functools import lru_cache

from kmstool.emulator.attested import Attested
from kmstool.emulator.keys import Key
from kmstool.emulator.principals import Principal
from kmstool.emulator.refusal import Refusal
from kmstool.errors import PolicyError
from kmstool.limits import POLICY_MAX
from kmstool.policy.evaluate import (
    Decision,
    Policy,
    Request,
    attestation_keys,
    encryption_context_keys,
    evaluate,
    parse_policy,
)
from kmstool.policy.parse import Effect, PrincipalKind


def authorise_key(
    principal: Principal,
    action: str,
    key: Key,
    *,
    policy: str,
    attested: Attested | None = None,
    encryption_context: Mapping[str, str],
    extra: Mapping[str, str],
    aliases: list[str],
    named: str | None,
) -> None:
    """Raises `AccessDeniedException` unless the policy, as text, or a grant allows the action.

    Args:
        extra: condition keys that only some operations have.
        aliases: all aliases of the key.
        named: how the request names the key.
    """
    context: dict[str, tuple[str, ...]] = {
        "aws:securetransport": ("true",),
        "kms:keyspec": (key.spec,),
        "kms:keyusage": (key.usage,),
        "kms:keyorigin": ("AWS_KMS",),
        "kms:multiregion": ("false",),
        "kms:resourcealiases": tuple(aliases),  # without a value: known to be missing
    }
    if named is not None and (alias := _alias_in(named)):
        context["kms:requestalias"] = (alias,)
    context |= {name.lower(): (value,) for name, value in extra.items()}
    context |= encryption_context_keys(encryption_context)
    if attested is not None:
        context |= attestation_keys(attested.pcrs)
    parsed = _parse(policy)
    decision = _evaluate(principal, action, key.arn, parsed, context)
    # A grant adds to the policy, and only an explicit Deny takes away from both.
    granted = decision.decided_by is None and key.grants_to(
        principal.arn, action.removeprefix("kms:")
    )
    if not decision.allowed and not granted:
        raise _denied(principal, action, key.arn, decision.reason)
    alone = _names_session(principal, parsed, decision)
    _authorise_session(principal, action, key.arn, context, alone=alone)


def authorise_identity(
    principal: Principal, action: str, resource: str, *, attested: Attested | None = None
) -> None:
    """Raises `AccessDeniedException` unless the principal's identity policies allow the action."""
    if not principal.identity_allows(action):
        raise _denied(
            principal,
            action,
            resource,
            f"no identity-based policy allows {action} (no key policy has a say in it)",
        )
    context: dict[str, tuple[str, ...]] = {"aws:securetransport": ("true",)}
    if attested is not None:
        context |= attestation_keys(attested.pcrs)
    _authorise_session(principal, action, resource, context, alone=False)


def default_policy(partition: str, account_id: str) -> str:
    """The policy of a key that was made without one: all power to the account's IAM policies."""
    root = f"arn:{partition}:iam::{account_id}:root"
    statement = {
        "Sid": "Enable IAM User Permissions",
        "Effect": "Allow",
        "Principal": {"AWS": root},
        "Action": "kms:*",
        "Resource": "*",
    }
    document = {"Version": "2012-10-17", "Id": "key-default-1", "Statement": [statement]}
    return json.dumps(document, indent=2)


def check_policy(policy: str) -> None:
    """Raises `MalformedPolicyDocumentException`, or `LimitExceededException` beyond 32 KiB."""
    if len(policy.encode()) > POLICY_MAX:
        raise Refusal("LimitExceededException", f"A key policy has at most {POLICY_MAX} bytes")
    try:
        _parse(policy)
    except PolicyError as error:
        raise Refusal(
            "MalformedPolicyDocumentException", f"The policy is not valid: {error}"
        ) from None


def check_lockout(principal: Principal, key: Key, policy: str) -> None:
    """KMS' safety check: whoever puts a policy must be able to put the next one.

    Raises:
        Refusal: `MalformedPolicyDocumentException`.
    """
    try:
        authorise_key(
            principal,
            "kms:PutKeyPolicy",
            key,
            policy=policy,
            encryption_context={},
            extra={"kms:BypassPolicyLockoutSafetyCheck": "false"},
            aliases=[],
            named=None,
        )
    except Refusal as refusal:
        raise Refusal(
            "MalformedPolicyDocumentException",
            "The new key policy will not allow you to update the key policy in the future."
            f" ({refusal.message})",
        ) from None


@lru_cache(maxsize=256)
def _parse(policy: str) -> Policy:
    return parse_policy(policy)


def _evaluate(
    principal: Principal,
    action: str,
    resource: str,
    policy: Policy,
    context: Mapping[str, tuple[str, ...]],
) -> Decision:
    request = Request(
        action=action,
        principal=principal.arn,
        resource=resource,
        context=context,
        session=principal.session.arn if principal.session else None,
    )
    return evaluate(policy, request, identity_allows=principal.identity_allows)


def _authorise_session(
    principal: Principal,
    action: str,
    resource: str,
    context: Mapping[str, tuple[str, ...]],
    *,
    alone: bool,
) -> None:
    """Raises `AccessDeniedException` where a session policy does not allow the action.

    Args:
        alone: the key's policy names the session itself; then only an explicit Deny counts.
    """
    if principal.session is None or principal.session.policy is None:
        return
    decision = principal.session.policy.decide(action, principal, resource, context)
    if not decision.allowed and not (alone and decision.decided_by is None):
        raise _denied(
            principal, action, resource, f"no session policy allows {action}: {decision.reason}"
        )


def _names_session(principal: Principal, policy: Policy, decision: Decision) -> bool:
    return principal.session is not None and any(
        result.matched
        and result.effect is Effect.ALLOW
        and any(
            named.kind is PrincipalKind.SESSION and named.text == principal.session.arn
            for named in policy.statements[result.index].principals
        )
        for result in decision.statements
    )


def _denied(principal: Principal, action: str, resource: str, reason: str) -> Refusal:
    return Refusal(
        "AccessDeniedException",
        f"User: {principal.caller_arn} is not authorized to perform: {action}"
        f" on resource: {resource} because {reason}",
    )


def _alias_in(name: str) -> str | None:
    if name.startswith("alias/"):
        return name
    _, found, alias = name.partition(":alias/")
    return f"alias/{alias}" if found else None
