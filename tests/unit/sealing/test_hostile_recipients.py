"""What one of several recipients, or a sealer, can do to the others; and what a signature ends."""

import io
from typing import Any

import pytest
from support.key_holders import LocalHolder, data_key_pair, hpke_pair
from support.sealed_files import signing_key

from kmstool import limits
from kmstool.arn import ANY_KEY
from kmstool.errors import KmsError, NotOpenedError
from kmstool.sealing import format as layout
from kmstool.sealing.files import Expected, open_sealed, seal
from kmstool.sealing.format import BodyCipher
from kmstool.sealing.header import build_header, read_head
from kmstool.sealing.recipients import unwrap
from kmstool.sealing.stream import encrypt_body

ALICE, ALICES = hpke_pair("alice")
MALLORY, MALLORYS = data_key_pair("mallory")
CONTENT, OTHER = b"attack at dawn", b"retreat at once"


def sealed(**options: Any) -> bytes:
    target = io.BytesIO()
    seal(io.BytesIO(CONTENT), target, [ALICE, MALLORY], **options)
    return target.getvalue()


def opened_by_alice(data: bytes, **options: Any) -> bytes:
    target = io.BytesIO()
    open_sealed(io.BytesIO(data), lambda: target, ALICES, key=ALICE.key, **options)
    return target.getvalue()


def with_another_body(data: bytes, *, alone: bool = False) -> bytes:
    """What mallory makes of a file that she can open: her content, for alice or for herself."""
    stream = io.BytesIO(data)
    head = read_head(stream.read)
    file_key = unwrap(head.header.recipients[1], head.header.salt, MALLORYS)
    covered = head.covered
    if alone:
        object.__setattr__(head.header, "recipients", head.header.recipients[1:])
        header = build_header(head.header)
        covered = layout.prefix(len(header)) + header
    mac = layout.header_mac(file_key, head.header.salt, covered)
    target = io.BytesIO()
    target.write(covered + mac)
    key = layout.body_key(file_key, head.header.salt, mac)
    encrypt_body(io.BytesIO(OTHER), target, key, BodyCipher.AES_256_GCM)
    if head.header.signer is not None:
        target.write(data[-layout.SIGNATURE_LENGTH :])
    return target.getvalue()


def test_whoever_opened_a_file_can_seal_another_body_under_its_header() -> None:
    """As docs/formats/sealed-file.md says: only a signature tells who sealed."""
    assert opened_by_alice(with_another_body(sealed())) == OTHER


@pytest.mark.parametrize("alone", [False, True])
def test_not_under_a_signature(alone: bool) -> None:
    key = signing_key("signer")
    expected = Expected(signer=key.public_key().public_bytes_raw())
    forged = with_another_body(sealed(signing_key=key), alone=alone)
    target = io.BytesIO()
    with pytest.raises(NotOpenedError):
        open_sealed(io.BytesIO(forged), lambda: target, MALLORYS, key=ANY_KEY, expected=expected)


def test_entries_for_one_key_cost_one_question_each_and_no_more() -> None:
    """A hostile sealer names alice's key in every entry, and KMS refuses each."""
    target = io.BytesIO()
    seal(io.BytesIO(CONTENT), target, [ALICE] * limits.SEALED_RECIPIENTS_MAX)
    holder = LocalHolder()
    with pytest.raises(KmsError):
        open_sealed(io.BytesIO(target.getvalue()), io.BytesIO, holder, key=ALICE.key)
    assert holder.asked == [str(ALICE.key)] * limits.SEALED_RECIPIENTS_MAX


def test_the_entries_of_other_keys_are_not_asked_for() -> None:
    holder = LocalHolder(ALICES.agreeing)
    open_sealed(io.BytesIO(sealed()), io.BytesIO, holder, key=ALICE.key)
    assert holder.asked == [str(ALICE.key)]
