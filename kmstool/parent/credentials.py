"""The credentials service: hands the short-lived credentials of the instance to its enclaves.

Where they come from is `chain.py`'s business, that something valid is at hand `keeping.py`'s, and
connections are `listening.py`'s. What is handed out is what the enclave may do: `assume_role` with
a session policy makes it less than the instance has. Never long-term keys, never expired ones, and
never a secret in a log or a message. The enclave does not trust any of it
(docs/explanation/two-setups.md): whose account it is, only a key's ARN says.
"""

from collections.abc import Callable, Collection, Mapping

from kmstool import limits
from kmstool.endpoint import Address
from kmstool.errors import CredentialsError, SettingError
from kmstool.framing import NOT_AVAILABLE, build_error_answer, parse_credentials_request
from kmstool.parent.addresses import check_credentials_address
from kmstool.parent.chain import chain_of
from kmstool.parent.keeping import Keeper
from kmstool.parent.listening import Service, check_cids
from kmstool.parent.session_policy import (
    check_role_arn,
    check_role_session_name,
    check_session_policy,
    session_policy_for,
)
from kmstool.parent.settings import CredentialsSettings

_NOT_LESS = (
    "only the session of a role can be given less: name the role with --assume-role; an instance's"
    " role may assume itself, where its trust policy names it"
)


class HandOut:
    """Answers the messages of enclaves; fit for `Service`, and called from its threads."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    def __call__(self, message: Mapping[str, object]) -> tuple[bytes, str]:
        """The frame of the answer to one message, and words for the log. Raises `InputError`."""
        parse_credentials_request(message)
        try:
            issued = self._keeper.current()
        except CredentialsError as error:
            return build_error_answer(NOT_AVAILABLE, str(error)), f"no credentials: {error}"
        return issued.frame(), f"credentials handed out, valid until {issued.until}"


class CredentialsService(Service):
    """A running service of credentials; `close` ends it and what keeps them."""

    def __init__(
        self,
        address: Address,
        keeper: Keeper,
        *,
        allowed_cids: Collection[int],
        report: Callable[[str], None],
    ) -> None:
        self._keeper = keeper
        super().__init__(address, HandOut(keeper), allowed_cids=allowed_cids, report=report)

    def close(self, grace: float = limits.PARENT_GRACE) -> None:
        """As `Service.close`."""
        self._keeper.stop()  # whoever waits for credentials is answered now
        super().close(grace)

    def take(self, keeper: Keeper) -> None:
        """Hands out those of another keeper from now on; the one before is stopped."""
        before, self._keeper = self._keeper, keeper
        self.change(HandOut(keeper))
        before.stop()

    def renew(self) -> None:
        """Has the source asked anew, such as after `aws sso login`."""
        self._keeper.renew()


def serve(
    settings: CredentialsSettings,
    *,
    allowed_cids: Collection[int] = (),
    report: Callable[[str], None] = lambda _line: None,
) -> CredentialsService:
    """A running service, after one attempt to get credentials; `close` ends it.

    A source that fails at the start is asked again: requests are answered with `NotAvailable` until
    then.

    Raises:
        SettingError: the settings do not fit together, or botocore is missing.
        LongTermKeysError: the source has nothing else (a `CredentialsError`). TransportError.
    """
    check_cids(allowed_cids, settings.listen)  # first: a source may take its time
    keeper = keeper_of(settings, report=report)
    try:
        return CredentialsService(settings.listen, keeper, allowed_cids=allowed_cids, report=report)
    except BaseException:
        keeper.stop()
        raise


def keeper_of(
    settings: CredentialsSettings, *, report: Callable[[str], None] = lambda _line: None
) -> Keeper:
    """What the service is made over, running. Raises as `serve`."""
    policy = check_settings(settings)
    keeper = Keeper(chain_of(settings, session_policy=policy), report=report)
    try:
        keeper.start()
    except BaseException:
        keeper.stop()
        raise
    return keeper


def check_settings(settings: CredentialsSettings) -> str | None:
    """The session policy of the settings as it is sent, or None for a role that is not lessened.

    Raises:
        SettingError: one of them is malformed, or they do not fit together.
    """
    check_credentials_address(settings.listen)
    if settings.session_policy is not None and settings.only_kms:
        raise SettingError(
            "a session policy and --only-kms, which writes one, exclude each other",
            hint="write all of it into the policy",
        )
    lessened = settings.session_policy is not None or bool(settings.only_kms)
    if settings.assume_role is None:
        if lessened:
            raise SettingError("there is no role whose rights could be lessened", hint=_NOT_LESS)
        return None
    check_role_arn(settings.assume_role)
    check_role_session_name(settings.role_session_name)
    low, high = limits.ROLE_SESSION_SECONDS_MIN, limits.ROLE_SESSION_SECONDS_MAX
    if not low <= settings.duration_seconds <= high:
        raise SettingError(f"a role's session lasts {low} to {high} seconds")
    if settings.only_kms:
        return session_policy_for(settings.only_kms)
    if settings.session_policy is not None:
        return check_session_policy(settings.session_policy)
    return None
