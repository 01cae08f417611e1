"""A policy evaluator of another author, and policies and requests to ask both about.

The other is the npm package @cloud-copilot/iam-simulate, at the version that
tests/oracles/policy/package-lock.json names.
"""

import json
import os
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest

from kmstool.policy.evaluate import Request
from kmstool.policy.operators import OPERATOR_NAMES

ROOT = Path(__file__).resolve().parents[2]
ASK = ROOT / "tests" / "oracles" / "policy" / "ask.mjs"
_UNREACHABLE = 75  # of scripts/npm-oracle: packages cannot be had from here

ACCOUNT = "111122223333"
FOREIGN = "444455556666"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/enclave"
KEY = f"arn:aws:kms:eu-central-1:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"


class Case(NamedTuple):
    """A policy, a request, and what the caller's IAM policies allow."""

    policy: dict[str, Any]
    request: Request
    iam: tuple[str, ...]


class PolicyOracle:
    """The other evaluator, as a process."""

    def __init__(self) -> None:
        done = subprocess.run(
            [ROOT / "scripts" / "npm-oracle", "policy"], capture_output=True, text=True, check=False
        )
        if done.returncode == _UNREACHABLE and not os.environ.get("CI"):
            pytest.skip("the packages of the oracle policy cannot be fetched from here")
        assert done.returncode == 0, done.stderr
        self._process = subprocess.Popen(
            ["node", ASK, done.stdout.strip()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()

    def ask(self, cases: Sequence[Case]) -> list[str]:
        """Allowed, ImplicitlyDenied, ExplicitlyDenied or an error for each case."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        answers: list[str] = []
        for case in cases:
            self._process.stdin.write(_line(case))
            self._process.stdin.flush()
            answers.append(json.loads(self._process.stdout.readline()))
        return answers


def _line(case: Case) -> str:
    # A key without values is one that the request lacks; with one value it is no list.
    context = {
        name: values[0] if len(values) == 1 else list(values)
        for name, values in case.request.context.items()
        if values
    }
    asked = {
        "policy": case.policy,
        "principal": case.request.principal,
        "action": case.request.action,
        "resource": case.request.resource,
        "account": case.request.key_account_id,
        "context": context,
        "iam": list(case.iam),
    }
    return json.dumps(asked) + "\n"


# --- Policies and requests ---------------------------------------------------------------------

_VALUES: dict[str, list[str]] = {
    "String": ["a", "A", "b", "ab", "a*", "?b", "*", "a?", "${aws:PrincipalAccount}",
               "${aws:PrincipalTag/team, 'ab'}", "x*", "\u00e9"],
    "Numeric": ["1", "2", "10", "-3", "2.5", "2.50"],
    "Date": ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-06-30T23:59:59Z"],
    "Bool": ["true", "false", "True"],
    "Binary": ["QQ==", "QUI=", "Qg=="],
    "Ip": ["203.0.113.0/24", "203.0.113.7", "198.51.100.0/25", "192.0.2.0/24"],
    "Arn": [f"arn:aws:iam::{ACCOUNT}:role/*", ROLE, "arn:aws:*:*:*:*", "arn:aws:iam::*:role/en?*",
            f"arn:aws:iam::{ACCOUNT}:role/${{kms:Nobody, 'enclave'}}", f"arn:aws:iam::{FOREIGN}:*"],
    "Null": ["true", "false"],
}  # fmt: skip
_ASKED: dict[str, list[str]] = {
    "String": ["a", "A", "b", "ab", "xb", "", "x*", ACCOUNT, "\u00e9", "abc"],
    "Numeric": ["1", "2", "3", "10", "2.5", "-3"],
    "Date": ["2026-01-01T00:00:00Z", "2026-01-02T12:00:00Z", "2027-01-01T00:00:00Z"],
    "Bool": ["true", "false"],
    "Binary": ["QQ==", "Qg=="],
    "Ip": ["203.0.113.7", "198.51.100.200", "192.0.2.1"],
    "Arn": [ROLE, f"arn:aws:iam::{FOREIGN}:role/enclave", f"arn:aws:sns:eu-central-1:{ACCOUNT}:t"],
}
# One key for each kind of value; the evaluator is told of each, so that none is unknown.
_KEYS = {
    "String": ["kms:EncryptionContext:app", "kms:EncryptionContextKeys", "aws:UserAgent"],
    "Numeric": ["kms:ScheduleKeyDeletionPendingWindowInDays"],
    "Date": ["aws:CurrentTime"],
    "Bool": ["aws:SecureTransport"],
    "Binary": ["aws:Binary"],
    "Ip": ["aws:SourceIp"],
    "Arn": ["aws:SourceArn", "aws:PrincipalArn"],
}
_KINDS = {
    name: next((kind for kind in (*_VALUES, "NotIp") if name.startswith(kind)), "")
    .replace("NotIp", "Ip")
    for name in OPERATOR_NAMES
}  # fmt: skip
_PRINCIPALS: list[Any] = [
    "*",
    {"AWS": "*"},
    {"AWS": ROLE},
    {"AWS": ACCOUNT},
    {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
    {"AWS": [f"arn:aws:iam::{FOREIGN}:root", f"arn:aws:iam::{ACCOUNT}:user/u"]},
    {"AWS": f"arn:aws:iam::{FOREIGN}:role/enclave"},
    {"Service": "s3.amazonaws.com"},
]
_CALLERS = [
    ROLE, ROLE, ROLE, f"arn:aws:iam::{ACCOUNT}:user/u", f"arn:aws:iam::{FOREIGN}:role/enclave",
]  # fmt: skip
_ACTIONS = [
    "kms:Decrypt",
    "kms:*",
    "*",
    "kms:D?crypt",
    "KMS:decrypt",
    "kms:Generate*",
    "kms:Encrypt",
]
_RESOURCES = [
    "*", "*", "*", KEY, KEY[:-3] + "*", KEY.replace("1234abcd", "9999abcd", 1),
    f"arn:aws:kms:eu-central-1:{ACCOUNT}:key/${{kms:KeyName}}", "arn:aws:kms:*:*:key/${kms:Nobody}",
    "arn:aws:kms:*:*:key/${kms:Nobody, '1234abcd'}*",
]  # fmt: skip


def make_case(rng: random.Random) -> Case:
    """A policy and a request, without what `DISPUTED` has."""
    statements = [_statement(rng) for _ in range(rng.randint(1, 4))]
    old = rng.randint(0, 5) == 0 and "${" not in json.dumps(statements)
    version = "2008-10-17" if old else "2012-10-17"
    context: dict[str, tuple[str, ...]] = {}
    for kind, names in _KEYS.items():
        for name in names:
            count = rng.choice([0, 1, 1, 1, 2])
            context[name] = tuple(rng.choice(_ASKED[kind]) for _ in range(count))
    context["aws:PrincipalTag/team"] = rng.choice([(), ("b",)])
    context["kms:Nobody"] = ()
    context["kms:KeyName"] = (rng.choice([KEY.rpartition("/")[2], "x"]),)
    request = Request(
        action=rng.choice(["kms:Decrypt", "kms:Decrypt", "kms:GenerateDataKey", "kms:Encrypt"]),
        principal=rng.choice(_CALLERS),
        resource=KEY,
        context=context,
    )
    iam = rng.choice([(), ("kms:*",), ("kms:Decrypt",)])
    return Case({"Version": version, "Statement": statements}, request, iam)


def _statement(rng: random.Random) -> dict[str, Any]:
    statement: dict[str, Any] = {"Effect": rng.choice(["Allow", "Allow", "Deny"])}
    statement["Principal"] = rng.choice(_PRINCIPALS)
    statement[rng.choice(["Action"] * 6 + ["NotAction"])] = rng.sample(_ACTIONS, rng.randint(1, 2))
    resource = rng.choice(_RESOURCES)
    negated = rng.randint(0, 6) == 0 and "Nobody}" not in resource
    statement["NotResource" if negated else "Resource"] = resource
    block: dict[str, dict[str, list[str]]] = {}
    for _ in range(rng.choice([0, 1, 1, 1, 2])):
        operator, key, values = _condition(rng)
        block.setdefault(operator, {})[key] = values
    if block:
        statement["Condition"] = block
    return statement


def _condition(rng: random.Random) -> tuple[str, str, list[str]]:
    base = rng.choice(sorted(OPERATOR_NAMES))
    kind = _KINDS[base]
    pool = _VALUES[kind] + (["x${*}", "${?}b"] if "Like" in base and kind == "String" else [])
    values = rng.sample(pool, min(len(pool), rng.randint(1, 2)))
    if kind == "Null":
        return base, rng.choice([name for names in _KEYS.values() for name in names]), values
    operator = rng.choice(["", "", "ForAllValues:", "ForAnyValue:"]) + base
    if not operator.startswith("ForAny"):
        operator += rng.choice(["", "IfExists"])
    return operator, rng.choice(_KEYS[kind]), values
