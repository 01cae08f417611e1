"""Real attestation documents: they verify as of their own time, and no changed byte passes.

Sources (shared FACTS): the crate aws-nitro-enclaves-attestation 0.1.0,
evervault/attestation-doc-validation and base/nitro-validator. The fourth is what stock QEMU makes,
unsigned.
"""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from kmstool.attestation.chain import ChainCache
from kmstool.attestation.document import AttestationDocument, parse_document
from kmstool.attestation.verify import Expectations, own_time, verify_document
from kmstool.errors import DocumentError

REAL = [
    "attestation-debug-2021-03-05.cbor",
    "attestation-2022-10-13.cbor",
    "attestation-2026-01-03-indefinite-map.cbor",
]


ALLOW_DEBUG = Expectations(allow_debug=True)  # the oldest is of an enclave in debug mode


@pytest.fixture(scope="module")
def root() -> bytes:
    pem = Path(__file__).parents[2] / "kmstool" / "roots" / "aws-nitro-enclaves-root-g1.pem"
    return x509.load_pem_x509_certificate(pem.read_bytes()).public_bytes(Encoding.DER)


def load(shared: Path, name: str) -> tuple[bytes, AttestationDocument]:
    data = (shared / "vectors" / name).read_bytes()
    return data, parse_document(data)


@pytest.mark.parametrize("name", REAL)
def test_verifies_as_of_its_own_time(shared: Path, root: bytes, name: str) -> None:
    data, document = load(shared, name)
    verified = verify_document(data, root_der=root, at=own_time(document), expectations=ALLOW_DEBUG)
    assert verified.document == document
    assert len(verified.chain.certificates) == 5


@pytest.mark.parametrize("name", REAL)
def test_has_expired_four_hours_later(shared: Path, root: bytes, name: str) -> None:
    data, document = load(shared, name)
    with pytest.raises(DocumentError, match="expired") as caught:
        verify_document(data, root_der=root, at=own_time(document) + timedelta(hours=4))
    assert caught.value.step == "chain"


def test_what_the_real_documents_say(shared: Path) -> None:
    debug, image, newer = (load(shared, name)[1] for name in REAL)
    assert [not any(debug.pcrs[index]) for index in range(3)] == [True] * 3
    assert debug.public_key is None
    assert all(any(image.pcrs[index]) for index in (0, 1, 2, 3, 4, 8))
    assert image.nonce is not None
    assert len(image.nonce) == 256
    assert newer.payload[:1] == b"\xbf"
    assert newer.user_data is not None
    assert len(newer.user_data) == 20
    assert newer.nonce is None


def places(data: bytes, document: AttestationDocument) -> Iterator[tuple[str, int]]:
    """Every byte offset of the protected header, the payload and the signature in `data`."""
    for part in ("protected", "payload", "signature"):
        content: bytes = getattr(document, part)
        assert data.count(content) == 1
        start = data.index(content)
        for offset in range(start, start + len(content)):
            yield part, offset


@pytest.mark.parametrize("name", REAL)
def test_one_flipped_bit_at_every_byte_fails(shared: Path, root: bytes, name: str) -> None:
    """The chain cache spares the chain where the flip left it alone; it is never trusted here.

    Which bit is flipped changes with the offset, so that all eight are.
    """
    data, document = load(shared, name)
    cache = ChainCache()
    at = own_time(document)
    verify_document(data, root_der=root, at=at, chain_cache=cache, expectations=ALLOW_DEBUG)
    steps: dict[str, set[str]] = {"protected": set(), "payload": set(), "signature": set()}
    tried = 0
    for part, offset in places(data, document):
        bent = bytearray(data)
        bent[offset] ^= 1 << offset % 8
        with pytest.raises(DocumentError) as caught:
            verify_document(
                bytes(bent), root_der=root, at=at, chain_cache=cache, expectations=ALLOW_DEBUG
            )
        steps[part].add(caught.value.step)
        tried += 1
    assert tried == len(document.protected) + len(document.payload) + len(document.signature)
    assert steps["protected"] == {"cbor"}
    assert steps["payload"] == {"document", "chain", "signature"}
    assert steps["signature"] == {"signature"}
    assert len(cache) == 1


def test_a_flipped_bit_of_every_certificate_fails_without_the_cache(
    shared: Path, root: bytes
) -> None:
    data, document = load(shared, REAL[1])
    for certificate in (document.certificate, *document.cabundle):
        for offset in range(0, len(certificate), 97):
            bent = bytearray(data)
            bent[data.index(certificate) + offset] ^= 1
            with pytest.raises(DocumentError):
                verify_document(bytes(bent), root_der=root, at=own_time(document))


def test_what_stock_qemu_makes_never_verifies(shared: Path, root: bytes) -> None:
    data = (shared / "vectors" / "attestation-qemu-unsigned.cbor").read_bytes()
    with pytest.raises(DocumentError, match="the algorithm is -1, not -35") as caught:
        parse_document(data)
    assert caught.value.step == "cbor"
    # Nor with the header of a signed one, with its signature's length, or under its own "root".
    header = data.replace(bytes.fromhex("43a10120"), bytes.fromhex("44a1013822"), 1)
    longer = header[: -64 - 2] + b"\x58\x60" + bytes(96)
    at = own_time(parse_document(longer))
    for bent, step in ((header, "cbor"), (longer, "chain")):
        for trusted in (root, bytes(64)):
            with pytest.raises(DocumentError) as caught:
                verify_document(bent, root_der=trusted, at=at)
            assert caught.value.step == step
