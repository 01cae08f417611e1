"""Attestation documents verified a second, beside the straight use of the same libraries.

The yardstick is what a careful person would write in an afternoon with cbor2 and cryptography: it
reads the document, lets the library verify the chain with the same extension policy in plain form,
and checks the signature. It has none of the rules of docs/reference/attestation-document.md, no
strict CBOR, no expectations. Documents of one issuer: whole, and with the chain verified before,
where ours is `ChainCache` and the yardstick a dictionary. Both in turns, in one process, in CPU
time, so that others on this machine disturb neither alone.
"""

import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509 import verification as v

sys.path.insert(0, str(Path(__file__).resolve().parent))
from report import Row, at_least, figure, main

from kmstool.attestation.chain import ChainCache
from kmstool.attestation.verify import Expectations, verify_document
from kmstool.emulator.signer import SigningChain

DOCUMENTS, WHOLE, KNOWN, ROUNDS = 50, 10, 50, 61
PCRS = {index: bytes([index + 1]) * 48 for index in range(16)}


def rows() -> list[Row]:
    chain = SigningChain.generate()
    now = datetime.now(UTC)
    documents = [
        chain.sign_document(
            module_id="i-0123456789abcdef0-enc0123456789abcdef",
            timestamp=int(now.timestamp() * 1000),
            pcrs=PCRS,
            public_key=bytes(294),
            nonce=number.to_bytes(16, "big"),
            indefinite=bool(number % 2),
        )
        for number in range(DOCUMENTS)
    ]
    expected = Expectations(pcrs={index: PCRS[index] for index in (0, 1, 2)}, max_age=300)
    cache = ChainCache()
    keys: dict[Any, Any] = {}

    def ours(data: bytes) -> None:
        verify_document(data, root_der=chain.root_der, at=now, expectations=expected)

    def ours_known(data: bytes) -> None:
        verify_document(
            data, root_der=chain.root_der, at=now, expectations=expected, chain_cache=cache
        )

    whole = compare(ours, lambda data: straight(data, chain.root_der, now, None), documents, WHOLE)
    known = compare(
        ours_known, lambda data: straight(data, chain.root_der, now, keys), documents, KNOWN
    )
    return [
        figure("whole, straight use", 1 / whole[1], "documents/s"),
        figure("whole, kmstool", 1 / whole[0], "documents/s"),
        at_least("whole, kmstool : straight", whole[2], "x", 0.9),
        figure("chain known, straight use", 1 / known[1], "documents/s"),
        at_least("chain known, kmstool", 1 / known[0], "documents/s a core", 1500),
        at_least("chain known, kmstool : straight", known[2], "x", 0.9),
    ]


def compare(
    ours: Callable[[bytes], object],
    theirs: Callable[[bytes], object],
    documents: list[bytes],
    count: int,
) -> tuple[float, float, float]:
    """The best CPU seconds a document of either, and the median of the rounds' ratios."""
    measured = []
    for number in range(ROUNDS + 1):
        # In turns: whoever comes first may find colder caches.
        pair = (ours, theirs) if number % 2 else (theirs, ours)
        first, second = (seconds(work, documents, count) for work in pair)
        measured.append((first, second) if number % 2 else (second, first))
    measured = measured[1:]
    ratio = statistics.median(their / our for our, their in measured)
    return min(our for our, _ in measured), min(their for _, their in measured), ratio


def seconds(work: Callable[[bytes], object], documents: list[bytes], count: int) -> float:
    began = time.process_time()
    for number in range(count):
        work(documents[number % len(documents)])
    return (time.process_time() - began) / count


def straight(
    data: bytes, root_der: bytes, at: datetime, keys: dict[Any, Any] | None
) -> dict[str, Any]:
    """The yardstick; with `keys`, a chain that was seen is not verified again."""
    protected, _, payload, signature = cbor2.loads(data)
    fields: dict[str, Any] = cbor2.loads(payload)
    name = (fields["certificate"], *fields["cabundle"])
    key = None if keys is None else keys.get(name)
    if key is None:
        leaf, *others = (x509.load_der_x509_certificate(each) for each in name)
        policy = v.ExtensionPolicy.permit_all()
        verifier = (
            v.PolicyBuilder()
            .store(v.Store([x509.load_der_x509_certificate(root_der)]))
            .time(at)
            .max_chain_depth(len(others) - 1)
            .extension_policies(
                ee_policy=policy.require_present(
                    x509.KeyUsage, v.Criticality.AGNOSTIC, None
                ).require_present(x509.BasicConstraints, v.Criticality.CRITICAL, None),
                ca_policy=policy.require_present(
                    x509.KeyUsage, v.Criticality.CRITICAL, None
                ).require_present(x509.BasicConstraints, v.Criticality.CRITICAL, None),
            )
            .build_client_verifier()
        )
        verifier.verify(leaf, others[1:])
        key = leaf.public_key()
        if keys is not None:
            keys[name] = key
    assert isinstance(key, ec.EllipticCurvePublicKey)
    r, s = (int.from_bytes(half, "big") for half in (signature[:48], signature[48:]))
    signed = cbor2.dumps(["Signature1", protected, b"", payload])
    key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA384()))
    return fields


if __name__ == "__main__":
    sys.exit(main("Verifying attestation documents", rows))
