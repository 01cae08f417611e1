"""Fuzzes birth certificates: the file, its statement and document, and what KMS says of a key.

The fuzzer cannot sign, so statements reach their own reader directly too: every byte of input is
tried as a file, as a statement, as a live policy, and as each answer of KMS' administration.
"""

from support.births import (
    ACCOUNT,
    ADMINISTRATOR,
    CHAIN,
    IMAGE,
    SUCCESSOR,
    birth_certificate,
    canonical,
    locked_policy,
    statement_members,
)

from kmstool import administration, limits
from kmstool.birth import verify_birth_certificate
from kmstool.birth_statement import build_certificate, parse_certificate, parse_statement
from kmstool.errors import DocumentError, KmstoolError, PolicyError, UntrustedAnswerError
from kmstool.policy.build import read_locked_policy

_GOOD = (
    birth_certificate(administrator=ADMINISTRATOR),
    birth_certificate(key_spec="SYMMETRIC_DEFAULT"),
)
_STEPS = {"certificate", "cbor", "document", "chain", "signature", "expectations", "statement"}


def target(data: bytes) -> None:
    whole(data)
    file(data)
    text = data.decode("latin-1")
    statement(text)
    policy(text)
    answers(data)


def whole(data: bytes) -> None:
    try:
        born = verify_birth_certificate(data, pcrs=IMAGE, account=ACCOUNT, root_der=CHAIN.root.der)
    except DocumentError as error:
        check_step(error, _STEPS)
        return
    assert born.account == ACCOUNT
    assert data in _GOOD, "nobody can make a signature by chance, and a file has one form"


def file(data: bytes) -> None:
    try:
        parsed = parse_certificate(data)
    except DocumentError as error:
        check_step(error, {"certificate"})
        return
    assert build_certificate(parsed.statement, parsed.document) == data
    assert len(parsed.statement) <= limits.BIRTH_STATEMENT_MAX


def statement(text: str) -> None:
    try:
        parsed = parse_statement(text)
    except DocumentError as error:
        check_step(error, {"statement"})
        return
    assert parsed.text == text
    assert parsed.policy.account == parsed.key.account_id


def policy(text: str) -> None:
    for spec in ("ECC_NIST_P384", "SYMMETRIC_DEFAULT"):
        try:
            locked = read_locked_policy(text, key_spec=spec)
        except PolicyError as error:
            check(error)
            continue
        assert read_locked_policy(locked.text, key_spec=spec) == locked
        assert all(any(value) for image in locked.images for value in image.pcrs.values())


def answers(data: bytes) -> None:
    for parse in (
        administration.parse_create_key,
        administration.parse_get_key_policy,
        administration.parse_get_public_key,
        administration.parse_list_grants,
    ):
        try:
            parse(data)
        except UntrustedAnswerError as error:
            check(error)


def check_step(error: DocumentError, steps: set[str]) -> None:
    check(error)
    assert error.step in steps, error.step


def check(error: KmstoolError) -> None:
    assert str(error).isprintable()


SEEDS: list[bytes] = [
    *_GOOD,
    canonical(statement_members(images=(IMAGE, SUCCESSOR))).encode(),
    canonical(statement_members(key_spec="SYMMETRIC_DEFAULT")).encode(),
    canonical(locked_policy(IMAGE, administrator=ADMINISTRATOR)).encode(),
    canonical(locked_policy(IMAGE, SUCCESSOR, key_spec="SYMMETRIC_DEFAULT")).encode(),
    b'{"Grants":[{"GrantId":"a"}],"Truncated":true,"NextMarker":"m"}',
    b'{"KeyMetadata":{"AWSAccountId":"111122223333","MultiRegion":false}}',
]
