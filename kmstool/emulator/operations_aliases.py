"""Operations on aliases: names of an account that point to its keys."""

from dataclasses import replace

from kmstool.emulator.call import Call, check_not_pending_deletion
from kmstool.emulator.keys import Key
from kmstool.emulator.operations_keys import paginate
from kmstool.emulator.refusal import Refusal, invalid
from kmstool.emulator.store import Alias
from kmstool.emulator.validation import Parameters


def create_alias(call: Call) -> Parameters:
    """CreateAlias: the identity policies decide on the alias, the key policy on the key."""
    name = _alias_name(call)
    key = _target(call)
    arn = call.arn_of(call.account_id, name)
    if call.store.alias(call.account_id, name):
        raise Refusal("AlreadyExistsException", f"An alias with the name {arn} already exists")
    call.store.put_alias(
        Alias(
            account_id=call.account_id,
            name=name,
            target=key.key_id,
            created=round(call.now, 3),
            updated=round(call.now, 3),
        )
    )
    return {}


def update_alias(call: Call) -> Parameters:
    """UpdateAlias: both keys have to be of one type and usage."""
    name = _alias_name(call)
    alias, old = _find(call, name)
    call.authorise(old)
    key = _target(call)
    if (old.is_symmetric, old.usage) != (key.is_symmetric, key.usage):
        raise invalid("The current and the new KMS key must be of the same type and key usage.")
    call.store.put_alias(replace(alias, target=key.key_id, updated=round(call.now, 3)))
    return {}


def delete_alias(call: Call) -> Parameters:
    """DeleteAlias: the key itself stays."""
    alias, key = _find(call, _alias_name(call))
    call.authorise(key)
    call.store.delete_alias(alias)
    return {}


def list_aliases(call: Call) -> Parameters:
    """ListAliases, of the account or of one of its keys."""
    call.authorise_identity("*")
    aliases = call.store.aliases(call.account_id)
    if "KeyId" in call.parameters:
        key = call.find_own_key(call.parameters["KeyId"])
        aliases = [alias for alias in aliases if alias.target == key.key_id]
    return paginate(
        call,
        aliases,
        name=lambda alias: alias.name,
        default=50,
        member="Aliases",
        write=lambda alias: {
            "AliasName": alias.name,
            "AliasArn": call.arn_of(alias.account_id, alias.name),
            "TargetKeyId": alias.target,
            "CreationDate": alias.created,
            "LastUpdatedDate": alias.updated,
        },
    )


def _alias_name(call: Call) -> str:
    name: str = call.parameters["AliasName"]
    if not name.startswith("alias/") or name == "alias/":
        raise invalid('Alias must start with the prefix "alias/" and have a name after it.')
    if name.startswith("alias/aws/"):
        raise Refusal("InvalidAliasNameException", "Alias names with 'alias/aws/' are reserved")
    call.authorise_identity(call.arn_of(call.account_id, name))
    return name


def _find(call: Call, name: str) -> tuple[Alias, Key]:
    alias = call.store.alias(call.account_id, name)
    key = None if alias is None else call.store.key(alias.target, call.now)
    if alias is None or key is None:  # deleted by now, and its aliases with it
        arn = call.arn_of(call.account_id, name)
        raise Refusal("NotFoundException", f"Alias {arn} is not found.")
    return alias, key


def _target(call: Call) -> Key:
    name: str = call.parameters["TargetKeyId"]
    if name.startswith("alias/") or ":alias/" in name:
        raise invalid("Aliases must refer to keys. Not aliases")
    key = call.find_key(name)
    if key.account_id != call.account_id:
        raise Refusal("NotFoundException", f"{key.arn} is a key of another account")
    call.authorise(key)
    check_not_pending_deletion(key)
    return key
