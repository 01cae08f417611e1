"""Fuzzes what is read of an attestation document, and the chain behind it where it parses."""

from datetime import UTC, datetime

from support.documents import document, make_chain

from kmstool import limits
from kmstool.attestation.document import parse_document
from kmstool.attestation.verify import own_time, verify_document
from kmstool.emulator.cbor_writer import encode
from kmstool.errors import DocumentError

_CHAIN = make_chain()
_NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def target(data: bytes) -> None:
    try:
        parsed = parse_document(data)
    except DocumentError as error:
        check_refusal(error, {"cbor", "document"})
        return
    assert len(parsed.signature) == limits.DOCUMENT_SIGNATURE_LENGTH
    assert 1 <= len(parsed.pcrs) <= limits.NSM_PCR_COUNT_MAX
    assert all(len(value) == limits.NSM_PCR_LENGTH for value in parsed.pcrs.values())
    assert own_time(parsed)
    # The document's own first certificate as the root: bent certificates reach the chain's code.
    try:
        verified = verify_document(data, root_der=parsed.cabundle[0], at=_NOW)
    except DocumentError as error:
        check_refusal(error, {"chain", "signature"})
        return
    assert verified.document == parsed
    # Nobody can make a signature by chance: what verifies is the seed, in another form of CBOR.
    assert verified.chain.certificates[0] == _CHAIN.leaf.der


def check_refusal(error: DocumentError, steps: set[str]) -> None:
    assert str(error).isprintable()
    assert error.step in steps, error.step


SEEDS: list[bytes] = [
    document(_CHAIN),
    document(_CHAIN, indefinite=True),
    b"\xd2" + document(_CHAIN, public_key=b"k", user_data=b"u", nonce=...),
    document(_CHAIN, pcrs={31: bytes(48)}, cabundle=_CHAIN.cabundle[:1]),
    encode([encode({1: -35}), {}, encode({}), bytes(96)]),
]
