"""Real attestation documents: they verify as of their own time, and no changed byte passes.

Sources (shared FACTS): the crate aws-nitro-enclaves-attestation 0.1.0,
evervault/attestation-doc-validation and base/nitro-validator. The fourth is what stock QEMU makes,
unsigned.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
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


ZERO = bytes(48)
EXPECTED = {
    REAL[0]: Expectations(pcrs=dict.fromkeys(range(3), ZERO), allow_debug=True),
    REAL[1]: Expectations(
        pcrs={
            0: bytes.fromhex(
                "f4d48b81a460c9916d1e685119074bf24660afd3e34fae9f"
                "ca0a0d28d9d5599936332687e6f66fc890ac8cf150142d8b"
            ),
            1: bytes.fromhex(
                "bcdf05fefccaa8e55bf2c8d6dee9e79bbff31e34bf28a99a"
                "a19e6b29c37ee80b214a414b7607236edf26fcb78654e63f"
            ),
            2: bytes.fromhex(
                "d8f114da658de5481f8d9ec73907feb553560787522f705c"
                "92d7d96beed8e15e2aa611984e098c576832c292e8dc469a"
            ),
            8: bytes.fromhex(
                "8790eb3cce6c83d07e84b126dc61ca923333d6f66615c4a7"
                "9157de48c5ab2418bdc60746ea7b7afbff03a1c6210201cb"
            ),
        },
    ),
    REAL[2]: Expectations(
        pcrs={
            0: bytes.fromhex(
                "4b8d4cf2a99e05ce1b5bddaf9d21cb446eb0e606c5bebd1e"
                "bf02b473a22165f7b68b0bb0d1ac5a90f0311e493522cfab"
            ),
            1: bytes.fromhex(
                "0343b056cd8485ca7890ddd833476d78460aed2aa161548e"
                "4e26bedf321726696257d623e8805f3f605946b3d8b0c6aa"
            ),
            2: bytes.fromhex(
                "16efcc1d6952c5b9737eb2ab1751a08412835c5125818bfb"
                "55f6367cb3cdca49b13d2a5b6d771de9db1578242e328c6d"
            ),
        },
        user_data=bytes.fromhex("69553adc61d6e9fcdecbe1ea49bb2b52a60238e0"),
    ),
}
NONCE_SHA256 = (
    "6eea661682aa9b36a03f0db5c150a1596687cade6765849b5b74fbbef205a3f8"  # of REAL[1], 256 bytes
)


@pytest.mark.parametrize("name", REAL)
def test_is_what_was_expected_of_it(shared: Path, root: bytes, name: str) -> None:
    data, document = load(shared, name)
    expected = EXPECTED[name]
    if document.nonce is not None:
        assert hashlib.sha256(document.nonce).hexdigest() == NONCE_SHA256
        expected = replace(expected, nonce=document.nonce)
    at = own_time(document)
    verify_document(data, root_der=root, at=at, expectations=replace(expected, max_age=0))
    for other in (
        replace(expected, pcrs={**expected.pcrs, 1: b"\1" * 48}),
        replace(expected, nonce=b"n" * 16),
        replace(expected, user_data=b""),
        replace(expected, public_key=b"k"),
    ):
        with pytest.raises(DocumentError) as caught:
            verify_document(data, root_der=root, at=at, expectations=other)
        assert caught.value.step == "expectations"


def test_debug_mode_is_refused_unless_it_is_allowed(shared: Path, root: bytes) -> None:
    data, document = load(shared, REAL[0])
    with pytest.raises(DocumentError, match="started in debug mode") as caught:
        verify_document(data, root_der=root, at=own_time(document))
    assert caught.value.step == "expectations"


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
