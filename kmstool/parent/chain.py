"""Temporary credentials from botocore's chain, and from AssumeRole on top of it, asked anew.

Each call walks the whole chain with a session of its own: a file that somebody rotates is read
again, and nothing of botocore's own refreshing stays between us and the truth. Two things of it are
not taken over, both held by tests:

- For an instance's role botocore *moves the expiry it was told* to some 20 minutes from now when
  less than that is left (its answer to an outage of the metadata service). An enclave would take
  expired credentials for good ones. Here the expiry stays what EC2 said.
- Within the last 10 minutes botocore raises when it cannot refresh, with credentials at hand that
  still work. `keeping.py` goes on with them.

botocore logs tokens, secrets and whole answers at DEBUG; its loggers are switched off here,
whoever has asked for them. Its exceptions may quote an answer: their types are shown, no texts.
"""

import importlib
import logging
import os
from datetime import datetime
from typing import Any, Final

from kmstool import limits
from kmstool.errors import CredentialsError, SettingError, printable
from kmstool.parent.issued import Issued, LongTermKeysError
from kmstool.parent.settings import CredentialsSettings

# Errors of STS whose text says what to do, and holds names alone.
_TELLING: Final = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "MalformedPolicyDocument",
        "PackedPolicyTooLarge",
        "RegionDisabledException",
        "ValidationError",
    }
)
_NONE_HINT: Final = "give the instance a role, or set AWS_PROFILE or AWS_*"
_IMDS: Final = "iam-role"  # botocore's names of two providers
_CONTAINER: Final = "container-role"


class Chain:
    """Asks for one set of credentials at each call; may be called from one thread at a time.

    Args:
        assume_role: the ARN of a role to assume with what the chain gives; then that role's
            credentials are the result.
        session_policy: JSON text that lessens what they may do.
        region: of STS, where neither environment nor profile names one.

    Raises:
        SettingError: botocore is not installed.
    """

    def __init__(
        self,
        *,
        assume_role: str | None = None,
        session_policy: str | None = None,
        role_session_name: str = "kmstool",
        duration_seconds: int = limits.ROLE_SESSION_SECONDS,
        region: str | None = None,
    ) -> None:
        try:
            importlib.import_module("botocore.session")
        except ModuleNotFoundError:
            raise SettingError(
                "the credentials service needs botocore, which is not installed",
                hint="pip install botocore",
            ) from None
        self._role = assume_role
        self._region = region
        self._request: dict[str, Any] = {
            "RoleArn": assume_role,
            "RoleSessionName": role_session_name,
            "DurationSeconds": duration_seconds,
        }
        if session_policy is not None:
            self._request["Policy"] = session_policy
        self._method: str | None = None

    def __call__(self) -> Issued:
        """A set of credentials, as new as the source has them.

        Raises:
            LongTermKeysError: the source has keys that do not expire, and no role is assumed.
            CredentialsError: it has none, or could not be asked; the message holds no secret.
        """
        silence_botocore()
        reason, hint = "", None
        try:
            return self._ask()
        except CredentialsError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a source does, it is only a source
            reason, hint = explain(error)
        # Outside of the handler: botocore's exception, which may quote an answer, is no context.
        raise CredentialsError(reason, hint=hint)

    def _ask(self) -> Issued:
        from botocore.session import Session  # noqa: PLC0415

        session = Session()
        _keep_expiry(session)
        found = session.get_credentials()
        if found is None:
            raise CredentialsError("no source has credentials", hint=_NONE_HINT)
        self._check_method(found.method)
        if self._role is not None:
            return self._assume(session, found.method)
        values: Any = found.get_frozen_credentials()
        if not values.token:
            raise LongTermKeysError(
                f"the credentials that botocore finds ({found.method}) are long-term keys, which"
                " are not handed out",
                hint="name a role with --assume-role, or use a profile with a role, or give"
                " those of `aws sts get-session-token`",
            )
        return Issued(
            access_key_id=values.access_key,
            secret_access_key=values.secret_key,
            session_token=values.token,
            expiration=_expiry_of(found),
            method=found.method,
        )

    def _check_method(self, method: str) -> None:
        # A profile that is being rewritten must not turn into the instance's own role.
        if self._method is None:
            self._method = method
        elif method != self._method:
            raise CredentialsError(
                f"botocore finds credentials of {method} in the place of {self._method}, and they"
                " are not taken",
                hint="where that is meant, start the service anew",
            )

    def _assume(self, session: Any, method: str) -> Issued:
        region = _region(session, self._region)
        client = session.create_client("sts", region_name=region, config=_sts_config())
        try:
            answer: Any = client.assume_role(**self._request)["Credentials"]
        finally:
            client.close()
        return Issued(
            access_key_id=answer["AccessKeyId"],
            secret_access_key=answer["SecretAccessKey"],
            session_token=answer["SessionToken"],
            expiration=answer["Expiration"],
            method=f"{method}, then {self._role}",
        )


def chain_of(settings: CredentialsSettings, *, session_policy: str | None) -> Chain:
    """The chain that the settings describe."""
    return Chain(
        assume_role=settings.assume_role,
        session_policy=session_policy,
        role_session_name=settings.role_session_name,
        duration_seconds=settings.duration_seconds,
        region=settings.only_kms[0].region if settings.only_kms else None,
    )


def caller_identity(issued: Issued, *, region: str | None) -> str:
    """The ARN of whom the credentials are, as STS says it (GetCallerIdentity needs no permission).

    Raises:
        CredentialsError: STS refused or could not be asked; the message holds no secret.
    """
    from botocore.session import Session  # noqa: PLC0415

    silence_botocore()
    reason, hint = "", None
    try:
        session = Session()
        client: Any = session.create_client(
            "sts",
            region_name=_region(session, region),
            aws_access_key_id=issued.access_key_id,
            aws_secret_access_key=issued.secret_access_key,
            aws_session_token=issued.session_token,
            config=_sts_config(),
        )
        try:
            arn = client.get_caller_identity()["Arn"]
            return printable(str(arn)[: limits.PEER_MESSAGE_PRINT_MAX])
        finally:
            client.close()
    except Exception as error:  # noqa: BLE001 - as in `Chain`
        reason, hint = explain(error)
    raise CredentialsError(reason, hint=hint)


def _region(session: Any, otherwise: str | None) -> str | None:
    """Of STS. botocore reads AWS_DEFAULT_REGION alone; every other SDK reads AWS_REGION first."""
    return os.environ.get("AWS_REGION") or session.get_config_variable("region") or otherwise


def _sts_config() -> Any:
    from botocore.config import Config  # noqa: PLC0415

    return Config(
        retries={"total_max_attempts": 1},  # whoever keeps them tries again
        connect_timeout=limits.CONNECT_TIMEOUT,
        read_timeout=limits.STS_SECONDS,
    )


def _keep_expiry(session: Any) -> None:
    """Puts a provider for the instance's role that repeats what EC2 said, and asks by IMDSv2."""
    from botocore import utils  # noqa: PLC0415
    from botocore.credentials import InstanceMetadataProvider  # noqa: PLC0415

    class Fetcher(utils.InstanceMetadataFetcher):
        def _evaluate_expiration(self, credentials: Any) -> None:
            """botocore's moves the expiry."""

    name = session.get_config_variable
    fetcher = Fetcher(
        timeout=name("metadata_service_timeout"),
        num_attempts=name("metadata_service_num_attempts"),
        user_agent=session.user_agent(),
        config={
            "ec2_metadata_service_endpoint": name("ec2_metadata_service_endpoint"),
            "ec2_metadata_service_endpoint_mode": utils.resolve_imds_endpoint_mode(session),
            "ec2_metadata_v1_disabled": True,
        },
    )
    resolver = session.get_component("credential_provider")
    resolver.remove(_IMDS)
    resolver.insert_after(_CONTAINER, InstanceMetadataProvider(iam_role_fetcher=fetcher))


def _expiry_of(found: Any) -> datetime | None:
    # botocore has no public name for it; the AWS CLI's `export-credentials` reads the same one.
    expiry: datetime | None = getattr(found, "_expiry_time", None)
    return expiry


def explain(error: Exception) -> tuple[str, str | None]:
    """What is shown of an exception of a source: its type, and for some errors of STS its text."""
    from botocore.exceptions import ClientError, NoRegionError  # noqa: PLC0415

    kind = type(error).__name__
    if isinstance(error, ClientError):
        said = error.response.get("Error", {})
        code = str(said.get("Code", ""))[: limits.PEER_MESSAGE_PRINT_MAX]
        text = f"AWS refused {error.operation_name}: {printable(code)}"
        if code in _TELLING:
            message = str(said.get("Message", ""))[: limits.HTTP_MESSAGE_PRINT_MAX]
            text += f": {printable(message)}"
        return text, "look at the role's trust policy, and at what the caller may do"
    if isinstance(error, NoRegionError):
        return "the region of STS is not known", "set AWS_REGION"
    if isinstance(error, RuntimeError):  # of botocore's refreshing
        return "the source gave credentials that have expired", None
    if kind == "MetadataRetrievalError":  # a container's comes as another one
        return (
            "no source has credentials, and the instance's metadata service gives none",
            _NONE_HINT,
        )
    hint = "run `aws sso login` on this machine" if "SSO" in kind or "Token" in kind else None
    return f"botocore could not get credentials ({kind})", hint


def silence_botocore() -> None:
    for name in list(logging.Logger.manager.loggerDict):
        if name.startswith("botocore."):
            logging.getLogger(name).setLevel(logging.NOTSET)
    logging.getLogger("botocore").setLevel(logging.CRITICAL + 1)
