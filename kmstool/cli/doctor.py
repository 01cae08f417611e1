"""`kmstool doctor`: runs the checks and writes what they find, for the eye or as JSON.

The library finds (`kmstool/doctor`, and on the parent `kmstool/parent/checks.py`); here findings
become lines and an exit code.
"""

import os
import sys
from typing import Any, Final

import click

from kmstool.arn import parse_key_arn
from kmstool.caveats import Caveat
from kmstool.cli import console
from kmstool.cli.common import Common
from kmstool.cli.examination import Paper
from kmstool.cli.options import KEY_ID_VARIABLE, PairType, as_mapping, connection_options
from kmstool.cli.output import Output, deliver, encode_json
from kmstool.cli.results import as_json as caveats_as_json
from kmstool.errors import CheckFailedError
from kmstool.findings import Check, Finding, Verdict, examine
from kmstool.session import SessionOptions

_OPERATIONS: Final = ("decrypt", "derive-shared-secret", "generate-data-key")


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
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
@connection_options
def doctor(
    common: Common,
    *,
    as_json: bool,
    session: SessionOptions,
    **values: Any,
) -> None:
    """Check each link of the chain to KMS.

    Says what is fine, what somebody should know, and what is wrong, each with what to do. Exit 10
    says that something is wrong. Changes nothing, and shows no secret.

    \b
    Examples:
      kmstool doctor --key-id "$ARN"
      kmstool emulator run -- kmstool doctor
    """
    checks = _inside(session, **values)
    paper = None if as_json else Paper(sys.stdout)
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
    common.tolerance().check(caveats)
    if as_json:
        deliver([Output(encode_json(_report(findings, caveats)), None)])
    failed = [one.check for one in findings if one.outcome.verdict is Verdict.WRONG]
    if failed:
        raise CheckFailedError(f"wrong: {', '.join(failed)}")


def _inside(
    session: SessionOptions,
    *,
    key_id: str | None,
    operation: str,
    encryption_context: tuple[tuple[str, str], ...],
    grant_token: tuple[str, ...],
) -> tuple[Check, ...]:
    from kmstool.doctor.access import Wish  # noqa: PLC0415 - not for --help
    from kmstool.doctor.inside import inside_checks  # noqa: PLC0415

    key_id = key_id if key_id is not None else os.environ.get(KEY_ID_VARIABLE)
    wish = Wish(
        key=parse_key_arn(key_id) if key_id else None,
        operation=operation,
        encryption_context=as_mapping(encryption_context),
        grant_tokens=grant_token,
    )
    return inside_checks(session, wish)


def _caveats(findings: list[Finding]) -> tuple[Caveat, ...]:
    return tuple(dict.fromkeys(caveat for one in findings for caveat in one.outcome.caveats))


def _report(findings: list[Finding], caveats: tuple[Caveat, ...]) -> dict[str, Any]:
    return {
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
