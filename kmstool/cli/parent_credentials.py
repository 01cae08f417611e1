"""`kmstool parent credentials`; `kmstool/parent/credentials.py` does the work."""

from typing import NoReturn

import click

from kmstool.arn import parse_key_arn
from kmstool.cli.common import common_options
from kmstool.cli.parent_serving import (
    allow_cid_option,
    listen_option,
    log_format_option,
    reporter,
    serve_until_signal,
)


@click.command()
@listen_option
@allow_cid_option
@click.option(
    "--assume-role",
    metavar="ARN",
    help="Hand out credentials of this role  [default: those that an AWS SDK finds]",
)
@click.option(
    "--only-kms",
    "only_kms",
    metavar="ARN",
    multiple=True,
    help="A key (repeatable): the role's session may make attested calls with these, and nothing"
    " else.",
)
@click.option(
    "--session-policy",
    "policy_file",
    metavar="FILE",
    help="JSON of a policy that lessens what the role's session may do; - is stdin.",
)
@click.option(
    "--role-session-name",
    metavar="NAME",
    default="kmstool",
    show_default=True,
    help="What CloudTrail shows of the role's session.",
)
@click.option(
    "--duration",
    metavar="SECONDS",
    type=click.IntRange(900, 43_200),
    default=3_600,
    show_default=True,
    help="Of the role's session; an instance's role gives 3600 at most.",
)
@log_format_option
@common_options
def credentials(
    *,
    listen: str,
    allowed_cids: tuple[int, ...],
    assume_role: str | None,
    only_kms: tuple[str, ...],
    policy_file: str | None,
    role_session_name: str,
    duration: int,
    log_format: str,
) -> NoReturn:
    """Hand short-lived credentials to enclaves.

    They come from where an AWS SDK finds them (the instance's role, a container's, a profile, the
    environment), are renewed ahead of their end, and never outlive it; long-term keys are not
    handed out. Writes a line for each request to stderr, asks anew on SIGHUP, and ends on SIGTERM
    or Ctrl-C.

    \b
    Examples:
      kmstool parent credentials --listen vsock://:8002
      kmstool parent credentials --listen vsock://:8002 --assume-role "$ROLE" --only-kms "$ARN"
    """
    from kmstool.enclave.process import harden  # noqa: PLC0415
    from kmstool.endpoint import parse_address  # noqa: PLC0415
    from kmstool.parent.credentials import CredentialsService, serve  # noqa: PLC0415
    from kmstool.parent.settings import CredentialsSettings  # noqa: PLC0415

    harden()  # before anything secret is read
    settings = CredentialsSettings(
        listen=parse_address(listen, listening=True),
        assume_role=assume_role,
        session_policy=None if policy_file is None else policy_text(policy_file),
        only_kms=tuple(parse_key_arn(text) for text in only_kms),
        role_session_name=role_session_name,
        duration_seconds=duration,
    )
    report = reporter(log_format)
    serve_until_signal(
        lambda: serve(settings, allowed_cids=allowed_cids, report=report),
        ready=[f"listening on {settings.listen}"],
        report=report,
        reload=CredentialsService.renew,
    )


def policy_text(source: str) -> str:
    """The text of a policy's file, or of stdin for `-`. Raises `LocalFileError`, `InputError`."""
    from kmstool.cli.input import read_bytes  # noqa: PLC0415
    from kmstool.errors import InputError  # noqa: PLC0415

    try:
        return read_bytes(source, what="the session policy").decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError("the session policy is not UTF-8") from None
