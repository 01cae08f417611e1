"""`--policy` of `decrypt`: if KMS refuses, the hint says what a given key policy makes of the call.

Imported only where the option is given: a plain decrypt does not pay for it.
"""

import os
from typing import NamedTuple

from kmstool.arn import AnyKey, KeyArn
from kmstool.cli.input import read_bytes
from kmstool.cli.options import RequestOptions
from kmstool.errors import KmsError, KmstoolError, SettingError
from kmstool.policy.check_key import policy_in
from kmstool.policy.evaluate import Policy, parse_policy
from kmstool.policy.explain_denial import denial_hint
from kmstool.session import open_nsm


class KnownPolicy(NamedTuple):
    """A key policy as somebody handed it over, and the file it was in."""

    policy: Policy
    source: str
    key: KeyArn

    def explain(
        self, error: KmsError, *, request: RequestOptions, encryption_algorithm: str | None
    ) -> None:
        """Puts the hint into an AccessDeniedException; any other error stays as it is."""
        if error.code != "AccessDeniedException":
            return
        try:
            hint = denial_hint(
                self.policy,
                action=f"kms:{error.operation}",
                key_arn=str(self.key),
                pcrs=_own_pcrs(),
                encryption_context=request.encryption_context or {},
                encryption_algorithm=encryption_algorithm,
                said=error.kms_message,
            )
        except KmstoolError:  # KMS' refusal is what the user has to see, not this
            return
        error.hint = f"by the policy in {self.source}, {hint}"


def read_known_policy(source: str, key: KeyArn | AnyKey) -> KnownPolicy:
    """Reads the policy before anything is sent, so that a wrong one does not hide KMS' answer.

    Raises:
        SettingError: no key is named. LocalFileError, InputError, PolicyError: of the file.
    """
    if not isinstance(key, KeyArn):
        raise SettingError(
            "--policy is of one key, and --any-key names none", hint="give --key-id in its place"
        )
    text = policy_in(read_bytes(source, what="the policy"))
    return KnownPolicy(parse_policy(text), source, key)


def _own_pcrs() -> dict[int, bytes]:
    """What this enclave attests, from a document of its own security module."""
    from kmstool.attestation.document import parse_document  # noqa: PLC0415 - only when refused

    nsm, _caveats = open_nsm(os.environ)
    with nsm:
        return dict(parse_document(nsm.attestation()).pcrs)
