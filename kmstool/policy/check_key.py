"""What a key's policy does not show: its grants, its kind, its state, from KMS' own JSON.

Reads the answers of GetKeyPolicy, DescribeKey and ListGrants as the AWS CLI prints them. Members
that say nothing about trust are not looked at, so new ones of KMS' do no harm. Bounded, and strict
about what it does look at: a member of another type is an error, never a finding that is missing.

Source: AWS KMS API Reference, KeyMetadata, GrantListEntry, GetKeyPolicy.
"""

from collections.abc import Mapping
from typing import Final

from kmstool.errors import InputError
from kmstool.limits import INPUT_MAX
from kmstool.policy import check_rules as rules
from kmstool.policy.check_rules import Finding
from kmstool.policy.printable import shown
from kmstool.strict_json import read_object

_OTHER_ANSWERS: Final = (
    ("KeyMetadata", "DescribeKey", "--key-metadata"),
    ("Grants", "ListGrants", "--grants"),
)
_USABLE: Final = ("ENCRYPT_DECRYPT", "KEY_AGREEMENT")


def policy_in(data: bytes) -> str:
    """The policy's text, whether it stands alone or in the answer to GetKeyPolicy.

    Args:
        data: up to `INPUT_MAX` bytes.

    Raises:
        InputError: it is no text.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(
            "the policy is not UTF-8", hint="give the key policy's JSON: other files have options"
        ) from None
    if not text.strip():
        raise InputError(
            "the policy is empty", hint="aws kms get-key-policy --key-id ARN prints that of a key"
        )
    members, _ = read_object(data, INPUT_MAX)
    if members is not None and "Statement" not in members:
        inner = members.get("Policy")
        if isinstance(inner, str):
            return inner
        for name, answer, option in _OTHER_ANSWERS:
            if name in members:
                raise InputError(
                    f"the policy is the answer to {answer}",
                    hint="give what `aws kms get-key-policy` printed; `policy check` takes this"
                    f" with {option}",
                )
    return text


def check_metadata(data: bytes) -> tuple[Finding, ...]:
    """What is wrong with a key, by the answer to DescribeKey.

    Args:
        data: up to `INPUT_MAX` bytes of JSON, `{"KeyMetadata": {…}}`.

    Raises:
        InputError: it is not such an answer.
    """
    what = "the key's description"
    members = _read(data, what, "aws kms describe-key")
    inner = members.get("KeyMetadata")
    if not isinstance(inner, dict):
        raise InputError(f"{what} has no KeyMetadata", hint=_hint("aws kms describe-key"))
    found: list[Finding] = []
    origin = _text(inner, "Origin", what)
    if origin != "AWS_KMS":
        found.append(Finding(rules.ORIGIN, f"the key's Origin is {shown(origin)}"))
    # Missing means False in KMS' model.
    multi_region = inner.get("MultiRegion", False)
    if not isinstance(multi_region, bool):
        raise InputError(f"{what} has a MultiRegion that is neither true nor false")
    if multi_region or str(inner.get("KeyId", "")).startswith("mrk-"):
        found.append(Finding(rules.MULTI_REGION, "the key is a multi-Region key"))
    usage = _text(inner, "KeyUsage", what)
    if usage not in _USABLE:
        found.append(Finding(rules.KEY_USAGE, f"the key's KeyUsage is {shown(usage)}"))
    manager = _text(inner, "KeyManager", what)
    if manager != "CUSTOMER":
        found.append(Finding(rules.KEY_MANAGER, f"the key's KeyManager is {shown(manager)}"))
    state = _text(inner, "KeyState", what)
    if state != "Enabled":
        found.append(Finding(rules.KEY_STATE, f"the key's KeyState is {shown(state)}"))
    return tuple(found)


def check_grants(data: bytes) -> tuple[Finding, ...]:
    """A finding for each grant of a key, by the answer to ListGrants.

    Args:
        data: up to `INPUT_MAX` bytes of JSON, `{"Grants": […]}`.

    Raises:
        InputError: it is not such an answer.
    """
    what = "the list of grants"
    members = _read(data, what, "aws kms list-grants")
    grants = members.get("Grants")
    if not isinstance(grants, list):
        raise InputError(f"{what} has no Grants", hint=_hint("aws kms list-grants"))
    found = [Finding(rules.GRANT, _grant(one, what)) for one in grants]
    if members.get("Truncated") or "NextMarker" in members or "NextToken" in members:
        found.append(Finding(rules.GRANTS_TRUNCATED, "there are more grants than were given"))
    return tuple(found)


def _grant(grant: object, what: str) -> str:
    if not isinstance(grant, dict):
        raise InputError(f"{what} has a grant that is not a JSON object")
    operations = grant.get("Operations", [])
    if not isinstance(operations, list) or not all(isinstance(one, str) for one in operations):
        raise InputError(f"{what} has a grant whose Operations are not a list of names")
    name = _text(grant, "GrantId", what)
    grantee = grant.get("GranteePrincipal", "somebody")
    if not isinstance(grantee, str):
        raise InputError(f"{what} has a grant whose GranteePrincipal is not a string")
    may = shown(", ".join(operations))[1:-1] if operations else "nothing"
    return f"the grant {shown(name)} lets {shown(grantee)} use {may}"


def _read(data: bytes, what: str, command: str) -> Mapping[str, object]:
    members, problem = read_object(data, INPUT_MAX)
    if members is None:
        raise InputError(f"{what} {problem}", hint=_hint(command))
    return members


def _text(members: Mapping[str, object], name: str, what: str) -> str:
    value = members.get(name)
    if not isinstance(value, str):
        raise InputError(f"{what} has no {name}")
    return value


def _hint(command: str) -> str:
    return f"give what `{command} --output json` printed"
