"""Who may sign requests to the emulated KMS: access keys, their secrets, and the role they act as.

The file is TOML:

    [[principal]]
    access_key_id = "AKIAEXAMPLE0ADMIN0000"
    secret_access_key = "…"
    session_token = "…"            # optional; then every request must carry it
    arn = "arn:aws:iam::111122223333:role/admin"
    iam_allows = ["kms:*"]         # what its identity policies allow; default nothing
    trusts = ["arn:…:role/admin"]  # who may assume this role with STS; default nobody

`iam_allows` stands for the role's identity policies: it counts where no key is involved (CreateKey,
ListKeys, GenerateRandom) and where a key policy delegates to the account's root. Patterns may use
`*` and `?`, as in IAM. `trusts` stands for the role's trust policy: ARNs of roles and users of the
same account. No secret is ever part of a `repr` or of a message.
"""

import re
import secrets
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kmstool.emulator.role_sessions import RoleSession, Sessions
from kmstool.errors import LocalFileError, SettingError
from kmstool.policy.operators import glob_matches

ACCOUNT = "111122223333"  # the account that AWS' documentation uses for examples
ADMIN_ARN = f"arn:aws:iam::{ACCOUNT}:role/admin"
ENCLAVE_ARN = f"arn:aws:iam::{ACCOUNT}:role/enclave"

_EXAMPLE = "docs/reference/emulator.md shows such a file"
_ARN = re.compile(r"arn:aws[a-z-]*:iam::([0-9]{12}):(?:role|user)/[\w+=,.@/-]{1,512}", re.ASCII)
_ACCESS_KEY_ID = re.compile(r"[\w]{16,128}", re.ASCII)
_ACTION = re.compile(r"(?:\*|kms:[A-Za-z*?]+)")
_FIELDS = {"access_key_id", "secret_access_key", "session_token", "arn", "iam_allows", "trusts"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """One access key and the role it acts as.

    Attributes:
        arn: of the IAM role or user, as a key policy names it.
        iam_allows: patterns of the actions that its identity policies allow.
        trusts: the ARNs of who may assume this role.
        session: of credentials that AssumeRole gave; None of those in the file.
    """

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    arn: str
    iam_allows: tuple[str, ...] = ()
    trusts: tuple[str, ...] = ()
    session: RoleSession | None = None

    @property
    def account_id(self) -> str:
        return self.arn.split(":")[4]

    @property
    def caller_arn(self) -> str:
        """How AWS' messages call it: a session by its own ARN."""
        return self.arn if self.session is None else self.session.arn

    def identity_allows(self, action: str) -> bool:
        """Whether its identity policies allow the action, such as `kms:CreateKey`."""
        return any(glob_matches(one.lower(), action.lower()) for one in self.iam_allows)


@dataclass(frozen=True, slots=True)
class Principals:
    """All principals of one emulator, by access key."""

    by_access_key: Mapping[str, Principal]
    sessions: Sessions = field(default_factory=Sessions)

    def find(self, access_key_id: str) -> Principal | None:
        """Who signs with this access key, sessions of roles included."""
        return self.by_access_key.get(access_key_id) or self.sessions.find(access_key_id)

    def named(self, arn: str) -> Principal:
        """The first principal that acts as this role.

        Raises:
            SettingError: there is none.
        """
        for principal in self.by_access_key.values():
            if principal.arn == arn:
                return principal
        raise SettingError(
            f"no principal acts as {arn}",
            hint="add a [[principal]] with this arn to the file given with --principals",
        )


def default_principals(partition: str = "aws") -> Principals:
    """An administrator and an enclave role, with secrets made now.

    The administrator's identity policies allow `kms:*`. The enclave's allow CreateKey and
    GenerateRandom, which concern no key that exists: whatever it may do with a key, the key's own
    policy has to say. The administrator may assume the enclave's role, and so may that role itself.
    """
    trusted = tuple(_in_partition(arn, partition) for arn in (ADMIN_ARN, ENCLAVE_ARN))
    return collect_principals(
        Principal(
            access_key_id=f"AKIA{secrets.token_hex(8).upper()}",
            secret_access_key=secrets.token_hex(20),  # 40 characters, as AWS' have
            session_token=token,
            arn=_in_partition(arn, partition),
            iam_allows=allows,
            trusts=trusts,
        )
        for arn, allows, token, trusts in (
            (ADMIN_ARN, ("kms:*",), None, ()),
            (
                ENCLAVE_ARN,
                ("kms:CreateKey", "kms:GenerateRandom"),
                secrets.token_urlsafe(60),
                trusted,
            ),
        )
    )


def collect_principals(
    principals: Iterable[Principal], *, sessions: Sessions | None = None
) -> Principals:
    """Raises `SettingError` where an access key stands twice."""
    result: dict[str, Principal] = {}
    for principal in principals:
        if principal.access_key_id in result:
            raise SettingError(f"the access key {principal.access_key_id} stands twice")
        result[principal.access_key_id] = principal
    return Principals(result, Sessions() if sessions is None else sessions)


def load_principals(path: Path) -> Principals:
    """Reads the file described above.

    Raises:
        LocalFileError: it cannot be read.
        SettingError: it is not such a file; the message names the entry, never a secret.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise LocalFileError(
            f"cannot read the principals file {path}: {reason}", hint=_EXAMPLE
        ) from None
    return parse_principals(text)


def parse_principals(text: str) -> Principals:
    """As `load_principals`, from the text."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingError(f"the principals file is not TOML: {error}", hint=_EXAMPLE) from None
    entries = document.get("principal")
    if set(document) != {"principal"} or not isinstance(entries, list) or not entries:
        raise SettingError(
            "the principals file has to hold [[principal]] entries and nothing else",
            hint=_EXAMPLE,
        )
    return collect_principals(_read_entry(entry, index) for index, entry in enumerate(entries, 1))


def _read_entry(entry: Any, index: int) -> Principal:
    if not isinstance(entry, dict):
        raise _wrong(index, "it is not a table")
    if unknown := sorted(set(entry) - _FIELDS):
        raise _wrong(index, f"unknown field {unknown[0]!r}")
    access_key_id = _text(entry, "access_key_id", index)
    if not _ACCESS_KEY_ID.fullmatch(access_key_id):
        raise _wrong(index, "access_key_id has to be 16 to 128 letters and digits")
    arn = _text(entry, "arn", index)
    if not _ARN.fullmatch(arn):
        raise _wrong(index, f"{arn!r} is not the ARN of a role or user")
    return Principal(
        access_key_id=access_key_id,
        secret_access_key=_text(entry, "secret_access_key", index),
        session_token=_text(entry, "session_token", index) if "session_token" in entry else None,
        arn=arn,
        iam_allows=_actions(entry.get("iam_allows", []), index),
        trusts=_arns(entry.get("trusts", []), index),
    )


def _text(entry: dict[str, Any], name: str, index: int) -> str:
    value = entry.get(name)
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or not value:
        raise _wrong(index, f"{name} has to be a text of printable ASCII that is not empty")
    return value


def _actions(patterns: Any, index: int) -> tuple[str, ...]:
    if not isinstance(patterns, list):
        raise _wrong(index, "iam_allows has to be a list")
    for pattern in patterns:
        if not isinstance(pattern, str) or not _ACTION.fullmatch(pattern):
            raise _wrong(index, f"iam_allows holds {pattern!r}, not an action like 'kms:Decrypt'")
    return tuple(patterns)


def _arns(arns: Any, index: int) -> tuple[str, ...]:
    if not isinstance(arns, list):
        raise _wrong(index, "trusts has to be a list")
    for arn in arns:
        if not isinstance(arn, str) or not _ARN.fullmatch(arn):
            raise _wrong(index, f"trusts holds {arn!r}, not the ARN of a role or user")
    return tuple(arns)


def _in_partition(arn: str, partition: str) -> str:
    return arn.replace("arn:aws:", f"arn:{partition}:", 1)


def _wrong(index: int, what: str) -> SettingError:
    return SettingError(
        f"principal {index} of the principals file: {what}",
        hint=_EXAMPLE,
    )
