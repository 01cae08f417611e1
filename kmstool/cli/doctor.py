"""`kmstool doctor`: runs the checks and writes what they find, for the eye or as JSON.

The library finds (`kmstool/doctor`, and on the parent `kmstool/parent/checks.py`); here findings
become lines and an exit code.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, TextIO

import click
from click.core import ParameterSource

from kmstool.arn import KeyArn, parse_key_arn
from kmstool.caveats import Caveat
from kmstool.cli import console
from kmstool.cli.common import Common
from kmstool.cli.examination import Paper
from kmstool.cli.options import (
    KEY_ID_VARIABLE,
    PairType,
    RequestOptions,
    as_mapping,
    connection_options,
    nitro_root_option,
)
from kmstool.cli.output import Output, deliver, encode_json
from kmstool.cli.results import as_json as caveats_as_json
from kmstool.errors import CheckFailedError, KmsError, LocalFileError
from kmstool.findings import Check, Finding, Verdict, examine
from kmstool.session import DEV_NSM, SessionOptions

_OPERATIONS: Final = ("decrypt", "derive-shared-secret", "generate-data-key")
_FORWARDER: Final = "vsock://:8000"  # as `parent forward` is told to in every example
_OF_THE_OTHER: Final = {
    "inside": {"config_file": "--config"},
    "parent": {
        "operation": "--operation",
        "policy_file": "--policy",
        "encryption_context": "--encryption-context",
        "grant_token": "--grant-token",
        "credentials": "--credentials",
        "roots_file": "--roots",
        "nitro_root": "--nitro-root",
        "timeout": "--timeout",
    },
}


@click.command()
@click.option(
    "--key-id",
    metavar="ARN",
    help=f"Ask KMS by a dry run whether this enclave may use this key  [variable:"
    f" {KEY_ID_VARIABLE}]",
)
@click.option(
    "--operation",
    type=click.Choice(_OPERATIONS),
    default="decrypt",
    show_default=True,
    help="What the dry run asks for.",
)
@click.option(
    "--encryption-context",
    type=PairType(),
    multiple=True,
    help="What the ciphertext is bound to (repeatable).",
)
@click.option("--grant-token", metavar="TOKEN", multiple=True, help="A grant token (repeatable).")
@click.option(
    "--policy",
    "policy_file",
    metavar="FILE",
    help="A copy of the key's policy: if KMS denies the dry run, the advice says what in it fails.",
)
@click.option(
    "--inside",
    "where",
    flag_value="inside",
    help="Look at an enclave  [default: where /dev/nsm or the emulator is]",
)
@click.option(
    "--parent",
    "where",
    flag_value="parent",
    help="Look at a parent instance  [default: elsewhere]",
)
@click.option(
    "--config",
    "config_file",
    metavar="FILE",
    help="On the parent: what `parent up` starts  [default: as there]",
)
@nitro_root_option
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
@connection_options
def doctor(
    common: Common,
    *,
    as_json: bool,
    where: str | None,
    config_file: str | None,
    session: SessionOptions,
    key_id: str | None,
    **values: Any,
) -> None:
    """Check each link of the chain to KMS.

    Says what is fine, what somebody should know, and what is wrong, each with what to do. Exit 10
    says that something is wrong. Changes nothing, and shows no secret.

    Inside an enclave it looks from the security module to a dry run at KMS; on the parent instance
    at what lets enclaves run, at the services for them, and at the way to KMS and credentials.

    \b
    Examples:
      kmstool doctor --key-id "$ARN"
      kmstool doctor --parent --config kmstool-parent.toml
      kmstool emulator run -- kmstool doctor
    """
    if where is None:
        where = "inside" if _is_inside() else "parent"
        if where == "parent":
            console.note("there is no /dev/nsm, so this is taken for a parent (else: --inside)")
    _only_where(where)
    key_id = key_id if key_id is not None else os.environ.get(KEY_ID_VARIABLE)
    key = parse_key_arn(key_id) if key_id else None
    if where == "inside":
        checks = _inside(session, key, **values)
    else:
        checks = _parent(session, key, config_file)
    paper = None if as_json else _paper(checks)
    findings = []
    for finding in examine(
        checks,
        tolerance=session.tolerance,
        begun=(lambda _name: None) if paper is None else paper.begin,
    ):
        findings.append(finding)
        if paper is not None:
            paper.show(finding)
    caveats = _caveats(findings)
    console.warn(caveats)
    if as_json:  # before a caveat may end it: the eye has the whole report by now as well
        deliver([Output(encode_json(_report(where, findings, caveats)), None)])
    common.tolerance().check(caveats)
    failed = [one.check for one in findings if one.outcome.verdict is Verdict.WRONG]
    if failed:
        raise CheckFailedError(f"wrong: {', '.join(failed)}")


def _inside(
    session: SessionOptions,
    key: KeyArn | None,
    *,
    operation: str,
    encryption_context: tuple[tuple[str, str], ...],
    grant_token: tuple[str, ...],
    policy_file: str | None,
    nitro_root: str | None,
) -> tuple[Check, ...]:
    from kmstool.doctor.access import Wish  # noqa: PLC0415 - not for --help
    from kmstool.doctor.inside import inside_checks  # noqa: PLC0415

    context = as_mapping(encryption_context)
    wish = Wish(
        key=key,
        operation=operation,
        encryption_context=context,
        grant_tokens=grant_token,
    )
    if policy_file is not None:
        wish = replace(wish, explain=_explainer(policy_file, key, context))
    return inside_checks(session, wish, nitro_root=nitro_root)


def _explainer(
    policy_file: str, key: KeyArn | None, context: dict[str, str] | None
) -> Callable[[KmsError], None]:
    from kmstool.cli.denied import read_known_policy  # noqa: PLC0415 - not without the option

    if key is None:
        raise click.UsageError("--policy is of a key: give --key-id", click.get_current_context())
    known = read_known_policy(policy_file, key)
    request = RequestOptions(encryption_context=context)
    return lambda error: known.explain(error, request=request, encryption_algorithm=None)


def _parent(
    session: SessionOptions, key: KeyArn | None, config_file: str | None
) -> tuple[Check, ...]:
    from kmstool.arn import kms_host, parse_host  # noqa: PLC0415 - not for --help
    from kmstool.cli.parent_up import find_configuration, read_file  # noqa: PLC0415
    from kmstool.endpoint import parse_address  # noqa: PLC0415
    from kmstool.parent.checks import parent_checks  # noqa: PLC0415

    region = session.region or (key.region if key else os.environ.get("KMSTOOL_REGION")) or None
    host = parse_host(session.host) if session.host else None
    if host is None and region is not None:
        host = kms_host(region, fips=session.fips)
    path = find_configuration(config_file)
    named = [via.partition("=")[2] for via in session.via]
    if any(via.partition("=")[0] != "direct" for via in session.via):
        raise click.UsageError(
            "--via names a forwarder with --parent: direct=ADDRESS", click.get_current_context()
        )
    return parent_checks(
        read=(lambda: read_file(path)) if config_file or path.exists() else None,
        forwarders=tuple(parse_address(text, listening=True) for text in named if text)
        or (parse_address(_FORWARDER, listening=True),),
        host=host,
        region=region,
    )


def _paper(checks: tuple[Check, ...]) -> Paper:
    stdout: TextIO | None = sys.stdout
    if stdout is None:  # it was closed when Python started
        raise LocalFileError("stdout could not be written: it is closed", hint="redirect it")
    return Paper(stdout, [check.name for check in checks])


def _is_inside() -> bool:
    return "KMSTOOL_EMULATOR" in os.environ or os.path.exists(DEV_NSM)  # noqa: PTH110


def _only_where(where: str) -> None:
    """What would be passed over is refused, where it was typed."""
    context = click.get_current_context()
    for name, option in _OF_THE_OTHER[where].items():
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option} means nothing with --{where}", context)


def _caveats(findings: list[Finding]) -> tuple[Caveat, ...]:
    return tuple(dict.fromkeys(caveat for one in findings for caveat in one.outcome.caveats))


def _report(where: str, findings: list[Finding], caveats: tuple[Caveat, ...]) -> dict[str, Any]:
    return {
        "where": where,
        "findings": [
            {
                "check": one.check,
                "verdict": str(one.outcome.verdict),
                "text": one.outcome.text,
                "advice": one.outcome.advice,
                "facts": dict(one.outcome.facts),
            }
            for one in findings
        ],
        "caveats": caveats_as_json(caveats),
    }
