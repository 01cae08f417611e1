"""The catalogue of known mistakes in the policies of enclave keys: code, weight, meaning, mend.

Pure data. `check.py`, `check_pcrs.py` and `check_key.py` find them; docs/reference/policy-check.md
is compared with this file by a test. Codes are stable.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from kmstool.policy.actions import WAYS_AROUND
from kmstool.policy.parse import Statement


class Weight(StrEnum):
    """Whether a finding lets somebody in or shuts somebody out, or is only worth knowing."""

    MISTAKE = "mistake"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Rule:
    """One known mistake.

    Attributes:
        code: stable, lower case, with hyphens.
        meaning: what is wrong with such a policy, without a full stop.
        mend: what to do about it, without a full stop.
    """

    code: str
    weight: Weight
    meaning: str
    mend: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A mistake that was found.

    Attributes:
        sentence: what was found, printable, without a full stop.
        statement: where it was found; None where it is about the whole policy or the key.
    """

    rule: Rule
    sentence: str
    statement: Statement | None = None


def _mistake(code: str, meaning: str, mend: str) -> Rule:
    return Rule(code, Weight.MISTAKE, meaning, mend)


def _note(code: str, meaning: str, mend: str) -> Rule:
    return Rule(code, Weight.NOTE, meaning, mend)


# --- What the conditions on an attestation say ---------------------------------------------------
NO_ATTESTATION = _mistake(
    "no-attestation",
    "somebody may decrypt or derive without any attestation",
    "name PCR0, PCR1 and PCR2 in this statement's Condition, with StringEqualsIgnoreCase",
)
PCR0_ALONE = _mistake(
    "pcr0-alone",
    "PCR0 alone hashes kernel, command line and ramdisks without their lengths: another image can"
    " have the same",
    "name PCR1 and PCR2 beside it, in the same statement",
)
PCRS_MISSING = _mistake(
    "pcrs-missing",
    "registers are named, but not all of PCR0, PCR1 and PCR2, so the image is not",
    "name PCR0, PCR1 and PCR2; PCR3 and PCR8 are for use beside them",
)
ZERO_PCR = _mistake(
    "zero-pcr",
    "zeros are a value that is let in: every enclave in debug mode has them in PCR0, PCR1 and PCR2,"
    " and its parent reads its console",
    "take the values of the image's build; give debug enclaves a key of their own",
)
NOT_A_PCR = _mistake(
    "not-a-pcr",
    "a value is compared with a PCR that no PCR can have",
    "write 96 hexadecimal digits (SHA-384)",
)
PCR_WILDCARD = _mistake(
    "pcr-wildcard",
    "a pattern or a policy variable is compared with a PCR, so other images match as well",
    "write the whole value, with StringEqualsIgnoreCase",
)
PCR_OPERATOR = _mistake(
    "pcr-operator",
    "a PCR is compared by an operator that is not for text",
    "use StringEqualsIgnoreCase in an Allow, StringNotEqualsIgnoreCase in a Deny",
)
CASE_SENSITIVE_HEX = _mistake(
    "case-sensitive-hex",
    "hex in capitals is compared case-sensitively with what KMS writes in small letters: it never"
    " matches",
    "use StringEqualsIgnoreCase (in a Deny StringNotEqualsIgnoreCase)",
)
CASE_SENSITIVE_OPERATOR = _note(
    "case-sensitive-operator",
    "a PCR is compared case-sensitively: it holds as long as KMS writes small letters",
    "use StringEqualsIgnoreCase (in a Deny StringNotEqualsIgnoreCase)",
)
PASSES_WHEN_MISSING = _mistake(
    "passes-when-missing",
    "a condition of an Allow holds where the request has no such key (IfExists, ForAllValues)",
    "use the plain operator, without IfExists and ForAllValues",
)
NEGATED_IN_ALLOW = _mistake(
    "negated-in-allow",
    "a negated operator in an Allow holds where the request has no such key, so also without an"
    " attestation",
    "say what is let in (StringEqualsIgnoreCase), or put the negated operator into a Deny",
)
NULL_IN_ALLOW = _mistake(
    "null-in-allow",
    'an Allow holds only where a key is missing ("Null": "true")',
    "name the values that are let in",
)
IMAGE_SHA384 = _note(
    "image-sha384",
    "ImageSha384 is another name of PCR0, and says no more",
    "write kms:RecipientAttestation:PCR0, with PCR1 and PCR2 beside it",
)
NOT_A_REGISTER = _note(
    "not-a-register",
    "a key of kms:RecipientAttestation that no enclave's document fills (NitroTPM's are of another"
    " platform)",
    "an enclave has PCR0 to PCR31: kms:RecipientAttestation:PCR0 and so on",
)
PCR_ON_OTHER_ACTION = _note(
    "pcr-on-other-action",
    "an Allow asks for an attestation where KMS takes none, so it never holds",
    "leave these actions out of the statement; Decrypt, DeriveSharedSecret, GenerateDataKey,"
    " GenerateDataKeyPair and GenerateRandom alone take a Recipient",
)
MIXED_IMAGES = _note(
    "mixed-images",
    "several values of several registers: PCR0 of one image passes with PCR1 or PCR2 of another",
    "write one Allow for each image, with one value for each register",
)

# --- Denies --------------------------------------------------------------------------------------
DENY_MIXES_PCRS = _mistake(
    "deny-mixes-pcrs",
    "conditions of one statement are ANDed: this Deny fires only where all of these registers"
    " differ",
    "write one Deny for each register",
)
DENY_TOO_WIDE = _mistake(
    "deny-too-wide",
    "what holds where the key is missing (a negated operator, IfExists, Null) makes this Deny"
    " always fire for operations that take no attestation, for everybody",
    "let it speak of Decrypt, DeriveSharedSecret, GenerateDataKey and GenerateDataKeyPair alone",
)

# --- Who may what --------------------------------------------------------------------------------
ROOT_DELEGATION = _mistake(
    "root-delegation",
    "everything is left to the account's IAM policies, the ways around the conditions as well",
    "leave the statement out; or deny the ways around to everybody, and each other PCR"
    " (policy build --root-delegation)",
)
ACCOUNT_PRINCIPAL = _note(
    "account-principal",
    "IAM policies of an account decide who uses this statement",
    "mind who may write IAM policies there; or name a role, or * with kms:CallerAccount",
)
WILDCARD_ACTION = _mistake(
    "wildcard-action",
    "a pattern covers ways around the conditions",
    "name each action",
)
NOT_ACTION = _mistake(
    "not-action",
    "NotAction speaks of every action that it does not name, those that KMS will have tomorrow"
    " among them",
    "name the actions with Action",
)
NOT_PRINCIPAL = _mistake(
    "not-principal",
    "NotPrincipal speaks of everybody whom it does not name; a role's sessions are hard to name",
    "name the principals, or use a condition on aws:PrincipalArn",
)
OPEN_TO_ANYONE = _mistake(
    "open-to-anyone",
    "the principal is *, and nothing says of which account: callers of every account are let in",
    'add "StringEquals": {"kms:CallerAccount": "ACCOUNT"}',
)
OUTSIDERS_MAY_SEAL = _note(
    "outsiders-may-seal",
    "somebody may encrypt under the key without an attestation, so what the enclave decrypts says"
    " nothing of who wrote it",
    "if that is not wanted, take these actions away",
)
DELETED_PRINCIPAL = _note(
    "deleted-principal",
    "a unique id stands in a principal's place: the role or user was deleted, and a new one of that"
    " name is another",
    "name the new one, or * with kms:CallerAccount and the PCRs",
)
NO_EFFECT = _note(
    "no-effect",
    "a statement without Action or without Resource has no effect",
    'write "Resource": "*" and the actions',
)
UNKNOWN_ACTION = _note(
    "unknown-action",
    "no action of KMS that is known here has this name: it was mistyped, or is newer than this"
    " kmstool",
    "correct it; of a newer one look up what it lets somebody do",
)
NOBODY_OPENS = _mistake(
    "nobody-opens",
    "nobody can decrypt or derive: no Allow speaks of it, or Denies take it from everybody",
    "allow kms:Decrypt or kms:DeriveSharedSecret; let one Deny list all values of a register",
)
_WAY_CODES: Final = {
    "kms:CreateGrant": "create-grant",
    "kms:Decapsulate": "decapsulate",
    "kms:ImportKeyMaterial": "import-key-material",
    "kms:PutKeyPolicy": "put-key-policy",
    "kms:ReEncryptFrom": "re-encrypt-from",
    "kms:ReplicateKey": "replicate-key",
    "kms:UpdatePrimaryRegion": "update-primary-region",
}
# A rule for each way around, by its action.
WAY_RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        action: _mistake(
            _WAY_CODES[action],
            f"{action} {why}",
            f"give {action} to nobody, and deny it where IAM policies have a say",
        )
        for action, why in WAYS_AROUND.items()
    }
)

# --- The key itself, which its policy does not show ----------------------------------------------
GRANT = _mistake(
    "grant",
    "a grant adds to the policy, and knows nothing of attestation",
    "revoke it (aws kms revoke-grant), and give kms:CreateGrant to nobody",
)
GRANTS_TRUNCATED = _mistake(
    "grants-truncated",
    "the list of grants is not complete",
    "list all of them",
)
MULTI_REGION = _mistake(
    "multi-region",
    "a multi-Region key has replicas, or may get them, and each has a policy of its own",
    "make a key of one Region: an existing one cannot be changed",
)
ORIGIN = _mistake(
    "origin",
    "the key material is not KMS' own, so somebody may have it outside of KMS",
    "make a key with the origin AWS_KMS",
)
KEY_USAGE = _mistake(
    "key-usage",
    "a key for signing or MACs cannot be locked: none of its operations takes an attestation",
    "make a key for ENCRYPT_DECRYPT or KEY_AGREEMENT",
)
KEY_MANAGER = _mistake(
    "key-manager",
    "AWS manages the key and its policy",
    "make a key of your own",
)
KEY_STATE = _mistake(
    "key-state",
    "the key is not enabled, so nobody can use it",
    "see what was meant: aws kms enable-key, aws kms cancel-key-deletion, or another key",
)

RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        rule.code: rule
        for rule in (
            NO_ATTESTATION, PCR0_ALONE, PCRS_MISSING, ZERO_PCR, NOT_A_PCR, PCR_WILDCARD,
            PCR_OPERATOR, CASE_SENSITIVE_HEX, CASE_SENSITIVE_OPERATOR, PASSES_WHEN_MISSING,
            NEGATED_IN_ALLOW, NULL_IN_ALLOW, IMAGE_SHA384, NOT_A_REGISTER, PCR_ON_OTHER_ACTION,
            MIXED_IMAGES, DENY_MIXES_PCRS, DENY_TOO_WIDE, ROOT_DELEGATION, ACCOUNT_PRINCIPAL,
            WILDCARD_ACTION, *WAY_RULES.values(), NOT_ACTION, NOT_PRINCIPAL, OPEN_TO_ANYONE,
            OUTSIDERS_MAY_SEAL, DELETED_PRINCIPAL, NO_EFFECT, UNKNOWN_ACTION, NOBODY_OPENS, GRANT,
            GRANTS_TRUNCATED, MULTI_REGION, ORIGIN, KEY_USAGE, KEY_MANAGER, KEY_STATE,
        )
    }
)  # fmt: skip
