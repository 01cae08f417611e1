"""Recipient as the emulator checks it: what may be wrong with a document."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from kmstool.attestation.chain import ChainCache
from kmstool.emulator.attested import Attested, attest
from kmstool.emulator.cms_writer import Shape
from kmstool.emulator.refusal import Refusal
from kmstool.emulator.signer import SigningChain
from kmstool.roots import nitro_root_der

NOW = 1_790_000_000.0
CHAIN = SigningChain.generate(now=datetime.fromtimestamp(NOW, UTC))
PCRS = {index: bytes([index]) * 48 for index in range(16)}


def spki(key: Any) -> bytes:
    der: bytes = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return der


SPKI = spki(rsa.generate_private_key(public_exponent=65537, key_size=2048))


def document(chain: SigningChain = CHAIN, *, age: float = 0.0, **fields: Any) -> bytes:
    fields.setdefault("public_key", SPKI)
    return chain.sign_document(
        module_id="i-0-enc0", timestamp=int((NOW - age) * 1000), pcrs=PCRS, **fields
    )


def check(data: bytes, root: bytes | None = None) -> Attested:
    return attest(
        {"KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256", "AttestationDocument": data},
        root_der=root or CHAIN.root_der,
        chains=ChainCache(),
        shapes=(Shape.DER,),
        now=NOW,
    )


def refused(data: bytes, root: bytes | None = None) -> str:
    with pytest.raises(Refusal) as caught:
        check(data, root)
    assert caught.value.code == "ValidationException"
    assert caught.value.message.startswith("Recipient: ")
    return caught.value.message


@pytest.mark.parametrize("indefinite", [False, True])
@pytest.mark.parametrize("age", [0.0, 299.0, 300.0, -60.0])
def test_a_good_document(indefinite: bool, age: float) -> None:
    attested = check(document(age=age, indefinite=indefinite))
    assert attested.pcrs == PCRS
    assert attested.spki_der == SPKI
    assert attested.seal(b"x")[:1] == b"\x30"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (lambda: document(age=301.0), "301 seconds old"),
        (lambda: document(age=-61.0), "61 seconds in the future"),
        (lambda: document(public_key=None), "carries no public key"),
        (lambda: document(public_key=b"no key"), "not the DER of a SubjectPublicKeyInfo"),
        (
            lambda: document(public_key=spki(ec.generate_private_key(ec.SECP256R1()))),
            "is no RSA key",
        ),
        (
            lambda: document(
                public_key=spki(rsa.generate_private_key(public_exponent=65537, key_size=1024))
            ),
            "is RSA of 1024 bits",
        ),
        (lambda: document(public_key=SPKI + b"\0"), "not the DER of a SubjectPublicKeyInfo"),
        (lambda: document(SigningChain.generate()), "another root"),
        (lambda: document()[:-1], "(cbor)"),
        (lambda: document()[:-1] + bytes([document()[-1] ^ 1]), "(signature)"),
        (lambda: b"x", "(cbor)"),
    ],
)
def test_what_is_wrong_with_a_document(data: Callable[[], bytes], words: str) -> None:
    assert words in refused(data())


def test_every_part_of_a_document_counts() -> None:
    good = document()
    for index in range(0, len(good), 17):
        bent = bytearray(good)
        bent[index] ^= 0x01
        refused(bytes(bent))


def test_the_simulated_chain_is_nothing_to_the_real_root(shared: Path) -> None:
    assert "another root" in refused(document(), nitro_root_der())
    real = (shared / "vectors" / "attestation-2022-10-13.cbor").read_bytes()
    assert "another root" in refused(real)
    # Its chain is real, and of 2022.
    assert "expired" in refused(real, nitro_root_der())


def test_an_incomplete_recipient() -> None:
    for recipient in (
        {},
        {"KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256"},
        {"AttestationDocument": document()},
    ):
        with pytest.raises(Refusal, match="is required"):
            attest(
                recipient,
                root_der=CHAIN.root_der,
                chains=ChainCache(),
                shapes=(Shape.DER,),
                now=NOW,
            )


def test_shapes_are_chosen_at_random() -> None:
    attested = Attested(PCRS, SPKI, (Shape.KMS_EXPLICIT, Shape.KMS_PRIMITIVE))
    lengths = {len(attested.seal(b"x" * 16)) for _ in range(40)}
    assert len(lengths) == 2
