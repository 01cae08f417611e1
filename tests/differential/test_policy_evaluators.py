"""50,000 policies and requests through our evaluator and through one of another author.

The other is the npm package @cloud-copilot/iam-simulate (TypeScript, no code in common with ours).
Where ours decides, both have to say the same of every generated case. What the two are known to
read differently is left out there and stands in `DISPUTED`, row by row, with the sentence of AWS'
documentation that decides; a row fails as soon as one of the two changes its mind.
"""

import json
import random
from collections import Counter
from typing import Any, NamedTuple

import pytest
from support.policy_oracle import ACCOUNT, KEY, ROLE, Case, PolicyOracle, make_case

from kmstool.policy.evaluate import Request, evaluate, parse_policy

COUNT, SEED = 50_000, 8
UNKNOWN = "Unknown"

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def ours(case: Case) -> str:
    decision = evaluate(
        parse_policy(json.dumps(case.policy)), case.request, identity_allows=case.iam
    )
    if decision.allowed:
        return "Allowed"
    if decision.decided_by is None:
        return "ImplicitlyDenied"
    return UNKNOWN if decision.decided_by.undecided else "ExplicitlyDenied"


def test_both_evaluators_say_the_same() -> None:
    rng = random.Random(SEED)
    seen: Counter[str] = Counter()
    with PolicyOracle() as oracle:
        for _ in range(COUNT):
            case = make_case(rng)
            mine = ours(case)
            (theirs,) = oracle.ask([case])
            assert mine in (theirs, UNKNOWN), (theirs, json.dumps(case.policy), case.request)
            seen[mine] += 1
    print(f"{COUNT - seen[UNKNOWN]:,} of {COUNT:,} cases compared: {dict(seen)}")
    # Else the run proves nothing.
    for outcome in ("Allowed", "ImplicitlyDenied", "ExplicitlyDenied"):
        assert seen[outcome] > COUNT / 20, seen
    assert seen[UNKNOWN] < COUNT / 20, seen


class Disputed(NamedTuple):
    """One thing that the two read differently."""

    title: str
    statement: dict[str, Any]
    ours: str
    theirs: str
    because: str
    context: dict[str, tuple[str, ...]] = {}  # noqa: RUF012 - never changed
    version: str = "2012-10-17"
    principal: str = ROLE


def allow(**condition: dict[str, Any]) -> dict[str, Any]:
    return {
        "Effect": "Allow",
        "Principal": {"AWS": ROLE},
        "Action": "kms:Decrypt",
        "Resource": "*",
        "Condition": condition,
    }


YES, NO = "Allowed", "ImplicitlyDenied"
DISPUTED = [
    Disputed(
        "root needs no policy of its own",
        allow() | {"Principal": {"AWS": ACCOUNT}},
        YES,
        NO,
        "AWS KMS Developer Guide, Default key policy: the account's root user has all permissions",
        principal=f"arn:aws:iam::{ACCOUNT}:root",
    ),
    Disputed(
        "the older language has no variables",
        allow(StringEquals={"aws:UserAgent": "${aws:PrincipalAccount}"}),
        NO,
        YES,
        "IAM User Guide, Version: in 2008-10-17 a variable such as ${aws:username} is literal text",
        context={"aws:UserAgent": (ACCOUNT,)},
        version="2008-10-17",
    ),
    Disputed(
        "a negated operator and a variable without a value",
        allow(StringNotEquals={"aws:UserAgent": "${aws:PrincipalTag/team}"}),
        YES,
        NO,
        "IAM User Guide, Policy variables with no value: inverted operators do match a null value",
        context={"aws:UserAgent": ("a",), "aws:PrincipalTag/team": ()},
    ),
    Disputed(
        "a variable in the account of an ARN",
        allow(ArnLike={"aws:SourceArn": "arn:aws:iam::${aws:PrincipalAccount}:role/*"}),
        YES,
        NO,
        "IAM User Guide, ARN condition operators: policy variables are supported; theirs splits the"
        " ARN at the colon inside the braces",
        context={"aws:SourceArn": (ROLE,)},
    ),
    Disputed(
        "the star that is no wildcard, in StringEquals",
        allow(StringEquals={"aws:UserAgent": "x${*}"}),
        YES,
        NO,
        "IAM User Guide, Special characters: ${*} works in any string where variables do",
        context={"aws:UserAgent": ("x*",)},
    ),
    Disputed(
        "the whole Internet",
        allow(IpAddress={"aws:SourceIp": "0.0.0.0/0"}),
        YES,
        NO,
        "RFC 4632: a prefix of length 0 has every address; theirs has none",
        context={"aws:SourceIp": ("203.0.113.7",)},
    ),
    Disputed(
        "an IPv6 address beside a single IPv4 address",
        allow(NotIpAddress={"aws:SourceIp": "203.0.113.7"}),
        YES,
        NO,
        "IAM User Guide, IP address operators: NotIpAddress is all addresses but the range",
        context={"aws:SourceIp": ("2001:db8::1",)},
    ),
    Disputed(
        "seconds since 1970",
        allow(DateEquals={"aws:CurrentTime": "1767225600"}),
        YES,
        NO,
        "IAM User Guide, Date operators: values may be in epoch (Unix) time; theirs reads ms",
        context={"aws:CurrentTime": ("2026-01-01T00:00:00Z",)},
    ),
    Disputed(
        "several values without a set operator",
        allow(StringNotEquals={"kms:EncryptionContextKeys": "c"}),
        UNKNOWN,
        NO,
        "IAM User Guide, Multivalued context keys: they require a set operator; what happens"
        " without one it does not say, so ours refuses by name",
        context={"kms:EncryptionContextKeys": ("a", "b")},
    ),
    Disputed(
        "NotResource and a variable without a value",
        {k: v for k, v in allow().items() if k != "Resource"}
        | {"NotResource": "arn:aws:kms:*:*:key/${aws:PrincipalTag/team}"},
        UNKNOWN,
        NO,
        "IAM User Guide, Policy variables with no value: such a resource matches no resource, which"
        " in NotResource may mean every key or none; ours refuses by name",
        context={"aws:PrincipalTag/team": ()},
    ),
    Disputed(
        "letters beyond A to Z",
        allow(StringEqualsIgnoreCase={"aws:UserAgent": "\u00c9"}),
        UNKNOWN,
        YES,
        "IAM User Guide, String operators: ignoring case, and no word on other alphabets; ours"
        " refuses by name what only such letters decide",
        context={"aws:UserAgent": ("\u00e9",)},
    ),
]


@pytest.mark.parametrize("row", DISPUTED, ids=lambda row: row.title)
def test_what_the_two_read_differently(row: Disputed) -> None:
    request = Request(
        action="kms:Decrypt", principal=row.principal, resource=KEY, context=row.context
    )
    case = Case({"Version": row.version, "Statement": [row.statement]}, request, ())
    with PolicyOracle() as oracle:
        assert (ours(case), oracle.ask([case])[0]) == (row.ours, row.theirs), row.because
