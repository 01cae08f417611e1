"""Fuzzes the policy parser with text, and evaluates what parses."""

import json

from kmstool.errors import PolicyError
from kmstool.policy.evaluate import Request, attestation_keys, evaluate, parse_policy

REQUEST = Request(
    action="kms:Decrypt",
    principal="arn:aws:iam::111122223333:role/enclave",
    resource="arn:aws:kms:eu-central-1:111122223333:key/1234abcd",
    context=attestation_keys({0: b"\x11" * 48}),
)


def target(data: bytes) -> None:
    try:
        policy = parse_policy(data.decode("latin-1"))
    except PolicyError as error:
        check_text(str(error))
        return
    decision = evaluate(policy, REQUEST, identity_allows=("kms:Describe*",))
    for line in decision.explain():
        check_text(line)
    assert not decision.allowed or decision.decided_by is not None


def check_text(text: str) -> None:
    assert text.isprintable()


_ROLE = "arn:aws:iam::111122223333:role/enclave"
_PCR0 = {"kms:RecipientAttestation:PCR0": "11" * 48}
_STATEMENTS: list[dict[str, object]] = [
    {
        "Sid": "EnclaveDecrypt",
        "Effect": "Allow",
        "Principal": {"AWS": _ROLE},
        "Action": ["kms:Decrypt", "kms:Generate*"],
        "Resource": "*",
        "Condition": {"StringEqualsIgnoreCase": _PCR0},
    },
    {
        "Effect": "Deny",
        "NotPrincipal": {"AWS": ["111122223333", _ROLE], "Service": "logs.amazonaws.com"},
        "NotAction": "kms:D?s*",
        "NotResource": "arn:aws:kms:*",
        "Condition": {
            "ForAllValues:StringNotLikeIfExists": {"kms:EncryptionContextKeys": ["a*", "b"]},
            "NumericLessThan": {"kms:X": 5},
            "DateGreaterThan": {"aws:CurrentTime": "2026-01-01T00:00:00Z"},
            "Bool": {"aws:SecureTransport": True},
            "NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"},
            "ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/*"},
            "BinaryEquals": {"kms:Y": "QQ=="},
            "Null": {"kms:ViaService": "true"},
        },
    },
]
SEEDS: list[bytes] = [
    json.dumps({"Version": "2012-10-17", "Id": "x", "Statement": _STATEMENTS}).encode(),
    json.dumps({"Version": "2008-10-17", "Statement": _STATEMENTS[0]}).encode(),
    json.dumps({"Statement": _STATEMENTS[1:]}).encode(),
]
