"""One set of credentials on its way from a source to an enclave. Never in a `repr` or a message."""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime

from kmstool.errors import CredentialsError
from kmstool.framing import build_credentials_answer
from kmstool.limits import ACCESS_KEY_ID_MAX, SECRET_ACCESS_KEY_MAX, SESSION_TOKEN_MAX

_ACCESS_KEY_ID = re.compile(r"[A-Za-z0-9_]+")
_PRINTABLE = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """Temporary credentials as a source gave them.

    Attributes:
        expiration: when they really end; None where the source does not say.
        method: botocore's name of the source, such as `iam-role`.

    Raises:
        CredentialsError: a value is not one that an enclave takes (docs/formats/framing.md).
    """

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expiration: datetime | None
    method: str

    def __post_init__(self) -> None:
        for what, value, allowed, most in (
            ("access key id", self.access_key_id, _ACCESS_KEY_ID, ACCESS_KEY_ID_MAX),
            ("secret access key", self.secret_access_key, _PRINTABLE, SECRET_ACCESS_KEY_MAX),
            ("session token", self.session_token, _PRINTABLE, SESSION_TOKEN_MAX),
        ):
            # Types too: it comes out of somebody's JSON.
            if not isinstance(value, str) or len(value) > most or not allowed.fullmatch(value):
                raise CredentialsError(f"the source gave no usable {what}")
        if self.expiration is not None and self.expiration.tzinfo is None:
            raise CredentialsError("the source gave an expiration without a time zone")

    @property
    def until(self) -> str:
        """When they end, for a person."""
        if self.expiration is None:
            return "a time that their source does not say"
        return _iso(self.expiration)

    def frame(self) -> bytes:
        """The frame that carries them to an enclave: the one place where they leave as text."""
        return build_credentials_answer(
            access_key_id=self.access_key_id,
            secret_access_key=self.secret_access_key,
            session_token=self.session_token,
            expiration=None if self.expiration is None else _iso(self.expiration),
        )

    def left(self, now: float) -> float | None:
        """Seconds that they last from `now` (since 1970), or None where nobody knows."""
        return None if self.expiration is None else self.expiration.timestamp() - now


class LongTermKeysError(CredentialsError):
    """The source has long-term keys, which are never handed out."""


def _iso(moment: datetime) -> str:
    # Cut, not rounded: never later than the truth.
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
