"""`kmstool policy check`: the known mistakes in a key policy, each with what to do."""

from typing import Any

import click

from kmstool.cli import console
from kmstool.cli.common import Common, common_options
from kmstool.cli.input import read_bytes
from kmstool.cli.output import Output, deliver, encode_json
from kmstool.errors import CheckFailedError
from kmstool.policy.check import Finding, Weight, check_policy
from kmstool.policy.check_key import check_grants, check_metadata, policy_in


@click.command("check")
@click.argument("source", metavar="[FILE]", default="-")
@click.option(
    "--key-metadata",
    metavar="FILE",
    help="What aws kms describe-key printed of the key: look at its origin, state and kind too.",
)
@click.option(
    "--grants",
    metavar="FILE",
    help="What aws kms list-grants printed of the key: look at its grants too.",
)
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
@common_options
@click.pass_obj
def check(
    common: Common,
    *,
    source: str,
    key_metadata: str | None,
    grants: str | None,
    as_json: bool,
) -> None:
    """Find known mistakes in a key policy.

    Reads the policy, or what aws kms get-key-policy printed, from FILE or stdin. Exit 0: no mistake
    was found (notes do not count); 10: one was. stdout has the findings in both cases.

    \b
    Example:
      kmstool policy check live.json --key-metadata key.json --grants grants.json
    """
    text = policy_in(read_bytes(source, what="the policy"))
    findings = list(check_policy(text))
    common.trace("read the policy")
    if key_metadata is not None:
        findings += check_metadata(read_bytes(key_metadata, what="the key's description"))
    if grants is not None:
        findings += check_grants(read_bytes(grants, what="the list of grants"))
    missing = [
        name
        for name, given in (("--key-metadata", key_metadata), ("--grants", grants))
        if given is None
    ]
    if missing:
        console.note(
            f"without {' and '.join(missing)} only the policy is looked at, and a grant or a"
            " replica is not in it"
        )
    mistakes = sum(one.rule.weight is Weight.MISTAKE for one in findings)
    data = _as_json(findings, mistakes, missing) if as_json else _for_the_eye(findings)
    deliver([Output(data, None)])
    if mistakes:
        raise CheckFailedError(
            f"{mistakes} mistake{'s were' if mistakes > 1 else ' was'} found",
            hint="each is described in docs/reference/policy-check.md",
        )


def _for_the_eye(findings: list[Finding]) -> bytes:
    lines = []
    for one in findings:
        where = "" if one.statement is None else f"{one.statement.name}: "
        lines.append(f"{one.rule.weight}[{one.rule.code}] {where}{one.sentence}")
        lines.append(f"  why: {one.rule.meaning}")
        lines.append(f"  mend: {one.rule.mend}")
    if not findings:
        lines.append("no known mistake was found")
    return "\n".join([*map(console.printable, lines), ""]).encode("utf-8")


def _as_json(findings: list[Finding], mistakes: int, missing: list[str]) -> bytes:
    listed: list[dict[str, Any]] = [
        {
            "code": one.rule.code,
            "weight": str(one.rule.weight),
            "statement": None if one.statement is None else one.statement.index,
            "sid": None if one.statement is None else one.statement.sid,
            "sentence": one.sentence,
            "meaning": one.rule.meaning,
            "mend": one.rule.mend,
        }
        for one in findings
    ]
    return encode_json(
        {
            "type": "policy-check",
            "mistakes": mistakes,
            "notes": len(findings) - mistakes,
            "findings": listed,
            "not_looked_at": [name.removeprefix("--") for name in missing],
        }
    )
