"""CreateGrant and ListGrants: the way around a key policy that needs no change of it.

A grant gives its grantee operations on a key where no statement allows them and none denies them.
It knows nothing of attestation, which is why a locked key gives CreateGrant to nobody. The emulator
has grants to show that: without constraints, grant tokens, retiring and revoking.
Source: KMS developer guide, "Grants in AWS KMS".
"""

import re
import secrets
from dataclasses import replace
from typing import Any

from kmstool.emulator.call import Call, check_usable
from kmstool.emulator.keys import Grant
from kmstool.emulator.operations_keys import paginate
from kmstool.emulator.refusal import Refusal, invalid
from kmstool.emulator.validation import Parameters

_GRANTEE = re.compile(
    r"arn:aws[a-z-]*:iam::[0-9]{12}:(?:root|(?:role|user)/[\w+=,.@/-]+)", re.ASCII
)
_NOT_EMULATED = ("Constraints", "GranteeServicePrincipal", "RetiringServicePrincipal")


def create_grant(call: Call) -> Parameters:
    """CreateGrant."""
    parameters = call.parameters
    key = call.find_key(parameters["KeyId"])
    call.authorise(
        key,
        extra={"kms:GranteePrincipal": parameters.get("GranteePrincipal", "")},
    )
    check_usable(key)
    for member in _NOT_EMULATED:
        if member in parameters:
            raise Refusal(
                "UnsupportedOperationException", f"The emulator makes no grants with {member}"
            )
    grantee = parameters.get("GranteePrincipal", "")
    if not _GRANTEE.fullmatch(grantee):
        raise invalid("GranteePrincipal is not the ARN of a role, user or account root")
    call.check_dry_run()
    grant = Grant(
        grant_id=secrets.token_hex(32),
        grantee=grantee,
        operations=tuple(dict.fromkeys(parameters["Operations"])),
        name=parameters.get("Name"),
        created=round(call.now, 3),
        issuer=f"arn:{call.partition}:iam::{call.account_id}:root",
    )
    call.store.put_key(replace(key, grants=(*key.grants, grant)))
    return {"GrantToken": secrets.token_urlsafe(96), "GrantId": grant.grant_id}


def list_grants(call: Call) -> Parameters:
    """ListGrants."""
    key = call.find_key(call.parameters["KeyId"])
    call.authorise(key)
    wanted = (call.parameters.get("GrantId"), call.parameters.get("GranteePrincipal"))

    def write(grant: Grant) -> Parameters:
        entry: dict[str, Any] = {
            "KeyId": key.arn,
            "GrantId": grant.grant_id,
            "CreationDate": grant.created,
            "GranteePrincipal": grant.grantee,
            "IssuingAccount": grant.issuer,
            "Operations": list(grant.operations),
        }
        return entry if grant.name is None else entry | {"Name": grant.name}

    return paginate(
        call,
        sorted(
            (
                grant
                for grant in key.grants
                if wanted[0] in (None, grant.grant_id) and wanted[1] in (None, grant.grantee)
            ),
            key=lambda grant: grant.grant_id,
        ),
        name=lambda grant: grant.grant_id,
        default=50,
        member="Grants",
        write=write,
    )
