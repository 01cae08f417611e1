"""Fuzzes `policy check` with policies, descriptions of keys and lists of grants.

Nothing but the documented errors may come, every sentence is printable, and a policy without a
mistake lets nobody decrypt without an attestation, says the evaluator.
"""

import contextlib
import json
from pathlib import Path

from kmstool.errors import InputError, PolicyError
from kmstool.policy.check import Weight, check_policy
from kmstool.policy.check_key import check_grants, check_metadata, policy_in
from kmstool.policy.evaluate import Request, evaluate, parse_policy

SAMPLES = Path(__file__).parents[1] / "unit" / "policy" / "samples"
REQUESTS = [
    Request(
        action=action,
        principal=principal,
        resource="arn:aws:kms:eu-central-1:111122223333:key/1234abcd",
    )
    for action in ("kms:Decrypt", "kms:DeriveSharedSecret", "kms:CreateGrant", "kms:PutKeyPolicy")
    for principal in (
        "arn:aws:iam::111122223333:role/enclave",
        "arn:aws:iam::444455556666:role/enclave",
    )
]


def target(data: bytes) -> None:
    for read in (check_metadata, check_grants):
        with contextlib.suppress(InputError):
            assert all(one.sentence.isprintable() for one in read(data))
    try:
        text = policy_in(data)
        findings = check_policy(text)
    except (InputError, PolicyError) as error:
        check_text(str(error))
        return
    assert all(one.sentence.isprintable() for one in findings)
    if any(one.rule.weight is Weight.MISTAKE for one in findings):
        return
    try:
        policy = parse_policy(text)
    except PolicyError:
        return
    for request in REQUESTS:
        assert not evaluate(policy, request, identity_allows=("*",)).allowed


def check_text(text: str) -> None:
    assert text.isprintable()


SEEDS: list[bytes] = [
    # In one line and without spaces: what a fuzzer changes then matters more often.
    json.dumps(json.loads(path.read_text()), separators=(",", ":")).encode()
    for path in sorted(SAMPLES.glob("*.json"))
]
