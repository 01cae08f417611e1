"""One authenticated request on its way through an operation: finding its key, asking its policy.

The order is KMS': the key is found, then the policy is asked, then the key's state and usage are
looked at. So a caller who may not use a key learns nothing about it but that it exists.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from kmstool.emulator.attested import Attested
from kmstool.emulator.authorisation import authorise_identity, authorise_key
from kmstool.emulator.keys import ENCRYPT_DECRYPT, SYMMETRIC, Key
from kmstool.emulator.principals import Principal
from kmstool.emulator.refusal import Refusal, invalid
from kmstool.emulator.store import Store
from kmstool.emulator.validation import Parameters
from kmstool.limits import ENCRYPTION_CONTEXT_MAX

_ARN = re.compile(
    r"arn:([a-z-]+):kms:([a-z0-9-]+):([0-9]{12}):(?:key/([\w-]+)|(alias/.+))", re.ASCII
)


@dataclass(slots=True, kw_only=True)
class Call:
    """What an operation works with.

    Attributes:
        now: seconds since 1970, one value for the whole request.
        attested: what the attestation document in `Recipient` says, verified; None without one.
        key_arn: the key that was found, for the log.
    """

    operation: str
    principal: Principal
    parameters: Parameters = field(repr=False)
    attested: Attested | None
    now: float
    store: Store
    partition: str
    region: str
    key_arn: str | None = None

    @property
    def account_id(self) -> str:
        return self.principal.account_id

    def arn_of(self, account_id: str, resource: str) -> str:
        """The ARN of `key/…` or `alias/…` in this region."""
        return f"arn:{self.partition}:kms:{self.region}:{account_id}:{resource}"

    def find_key(self, name: str) -> Key:
        """The key of an id, ARN, alias name or alias ARN.

        Raises:
            Refusal: `NotFoundException`, also for other regions' ARNs.
        """
        account_id, key_id, alias = self.account_id, name, None
        if name.startswith("arn:"):
            match = _ARN.fullmatch(name)
            if match is None or (match[1], match[2]) != (self.partition, self.region):
                raise _not_found(f"Invalid arn {name!r}: this KMS is in {self.region}")
            account_id, key_id, alias = match[3], match[4], match[5]
        elif name.startswith("alias/"):
            alias = name
        if alias is not None:
            found = self.store.alias(account_id, alias)
            if found is None:
                raise _not_found(f"Alias {self.arn_of(account_id, alias)} is not found.")
            key_id = found.target
        key = self.store.key(key_id, self.now)
        if key is None or key.account_id != account_id:
            raise _not_found(f"Key '{self.arn_of(account_id, f'key/{key_id}')}' does not exist")
        self.key_arn = key.arn
        return key

    def find_own_key(self, name: str) -> Key:
        """As `find_key`, for the operations on keys of the caller's account, by id or ARN.

        Raises:
            Refusal: also `InvalidArnException` for an alias, and `AccessDeniedException` for a key
                of another account, whatever its policy says.
        """
        if name.startswith("alias/") or ":alias/" in name:
            raise Refusal("InvalidArnException", f"{self.operation} takes no alias, but {name!r}")
        key = self.find_key(name)
        if key.account_id != self.account_id:
            raise Refusal(
                "AccessDeniedException",
                f"User: {self.principal.caller_arn} is not authorized to perform:"
                f" kms:{self.operation} on resource: {key.arn} because it does not work"
                " on a key of another account",
            )
        return key

    def authorise(
        self,
        key: Key,
        *,
        action: str | None = None,
        named: str = "KeyId",
        context: Mapping[str, str] | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        """Asks the key's policy (and the identity policies to which it may delegate).

        Args:
            action: the IAM action, where it is not named like the operation.
            named: the member of the request that names the key, perhaps by an alias.
            context: the encryption context of the request.
            extra: condition keys that only this operation has, with their values.

        Raises:
            Refusal: `AccessDeniedException`, with the evaluator's reason.
        """
        authorise_key(
            self.principal,
            action or f"kms:{self.operation}",
            key,
            policy=key.policy,
            attested=self.attested,
            encryption_context=context or {},
            extra=extra or {},
            aliases=[a.name for a in self.store.aliases(key.account_id) if a.target == key.key_id],
            named=self.parameters.get(named),
        )

    def authorise_identity(self, resource: str) -> None:
        """Asks the identity policies alone, where no key's policy has a say."""
        authorise_identity(
            self.principal, f"kms:{self.operation}", resource, attested=self.attested
        )

    def context_of(self, key: Key, member: str) -> dict[str, str]:
        """The encryption context in a member of the request, within KMS' limits.

        Raises:
            Refusal: `ValidationException` where it is too long or the key is asymmetric.
        """
        context: dict[str, str] = self.parameters.get(member, {})
        if context and not key.is_symmetric:
            raise invalid(f"{member} is supported only with symmetric encryption KMS keys")
        size = sum(len(name.encode()) + len(value.encode()) for name, value in context.items())
        if size > ENCRYPTION_CONTEXT_MAX:
            raise invalid(
                f"{member} has {size} bytes of names and values, more than {ENCRYPTION_CONTEXT_MAX}"
            )
        return context

    def check_dry_run(self) -> None:
        """Ends a request with DryRun whose real counterpart would now succeed."""
        if self.parameters.get("DryRun"):
            raise Refusal(
                "DryRunOperationException",
                "The request would have succeeded, but the DryRun option is set.",
            )


def check_usable(key: Key) -> None:
    """Raises `DisabledException` or `KMSInvalidStateException` unless the key is enabled."""
    if key.state == "Disabled":
        raise Refusal("DisabledException", f"{key.arn} is disabled.")
    check_not_pending_deletion(key)


def check_not_pending_deletion(key: Key) -> None:
    """Raises `KMSInvalidStateException` while the key's deletion is pending."""
    if key.state == "PendingDeletion":
        raise Refusal("KMSInvalidStateException", f"{key.arn} is pending deletion.")


def check_usage(key: Key, operation: str, usage: str = ENCRYPT_DECRYPT) -> None:
    """Raises `InvalidKeyUsageException` unless the key is made for this usage."""
    if key.usage != usage:
        raise Refusal(
            "InvalidKeyUsageException",
            f"{key.arn} key usage is {key.usage} which is not valid for {operation}.",
        )


def check_symmetric(key: Key, operation: str) -> None:
    """Raises `InvalidKeyUsageException` unless this is a symmetric encryption key."""
    if key.spec != SYMMETRIC:
        raise Refusal(
            "InvalidKeyUsageException",
            f"{key.arn} key spec is {key.spec} which is not valid for {operation}.",
        )


def _not_found(message: str) -> Refusal:
    return Refusal("NotFoundException", message)
