"""HPKE: RFC 9180's own vectors, two implementations by other authors, and a key that is elsewhere.

`cryptography`'s key schedule is held against tests/support/sealed_files.py (ours, for tests only)
and pyhpke. What is pinned besides: which methods of a private key `Suite.decrypt` uses, since
`_AgreedKey` has only those.
"""

from collections.abc import Callable

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.bindings._rust import openssl
from cryptography.hazmat.primitives import hpke as library
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
)
from pyhpke import AEADId, CipherSuite, KDFId, KEMId, KEMKey
from support.sealed_files import KEMS, Suite, point, private_key

from kmstool.errors import NOT_OPENED, InputError, NotOpenedError, SealedFileError
from kmstool.sealing import hpke
from kmstool.sealing.hpke import Kem

CURVES = {Kem.P256: "P-256", Kem.P384: "P-384", Kem.P521: "P-521"}
PYHPKE = {
    Kem.P256: (KEMId.DHKEM_P256_HKDF_SHA256, KDFId.HKDF_SHA256),
    Kem.P384: (KEMId.DHKEM_P384_HKDF_SHA384, KDFId.HKDF_SHA384),
    Kem.P521: (KEMId.DHKEM_P521_HKDF_SHA512, KDFId.HKDF_SHA512),
}
INFO = b"Ode on a Grecian Urn"
PLAINTEXT = b"Beauty is truth, truth beauty"


def agreeing(private: ec.EllipticCurvePrivateKey) -> Callable[[bytes, int], bytes]:
    def agree(der: bytes, length: int) -> bytes:
        peer = load_der_public_key(der)
        assert isinstance(peer, ec.EllipticCurvePublicKey)
        secret = private.exchange(ec.ECDH(), peer)
        assert len(secret) == length
        return secret

    return agree


def opened(private: ec.EllipticCurvePrivateKey, sealed: bytes, info: bytes = INFO) -> bytes:
    length = hpke.PARAMETERS[hpke.kem_of(private.public_key())].point_length
    return hpke.open_with(
        agreeing(private), private.public_key(), sealed[:length], sealed[length:], info
    )


# --- RFC 9180, appendices A.3.1 and A.6.1 (mode base), sequence number 0 -----------------------

# (KEM, KDF and AEAD by their numbers, ikmE, ikmR, enc, ct); info, pt and aad are as above in all.
RFC_9180 = {
    "A.3.1 DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-128-GCM": (
        ("P-256", 1, 1),
        "4270e54ffd08d79d5928020af4686d8f6b7d35dbe470265f1f5aa22816ce860e",
        "668b37171f1072f3cf12ea8a236a45df23fc13b82af3609ad1e354f6ef817550",
        (
            "04a92719c6195d5085104f469a8b9814d5838ff72b60501e2c4466e5e67b325ac98536d7b61a1af4b78e5b7f9"
            "51c0900be863c403ce65c9bfcb9382657222d18c4"
        ),
        (
            "5ad590bb8baa577f8619db35a36311226a896e7342a6d836d8b7bcd2f20b6c7f9076ac232e3ab2523f3951343"
            "4"
        ),
    ),
    "A.6.1 DHKEM(P-521, HKDF-SHA512), HKDF-SHA512, AES-256-GCM": (
        ("P-521", 3, 2),
        (
            "7f06ab8215105fc46aceeb2e3dc5028b44364f960426eb0d8e4026c2f8b5d7e7a986688f1591abf5ab753c357"
            "a5d6f0440414b4ed4ede71317772ac98d9239f70904"
        ),
        (
            "2ad954bbe39b7122529f7dde780bff626cd97f850d0784a432784e69d86eccaade43b6c10a8ffdb94bf943c6d"
            "a479db137914ec835a7e715e36e45e29b587bab3bf1"
        ),
        (
            "040138b385ca16bb0d5fa0c0665fbbd7e69e3ee29f63991d3e9b5fa740aab8900aaeed46ed73a49055758425a"
            "0ce36507c54b29cc5b85a5cee6bae0cf1c21f2731ece2013dc3fb7c8d21654bb161b463962ca19e8c654ff24c"
            "94dd2898de12051f1ed0692237fb02b2f8d1dc1c73e9b366b529eb436e98a996ee522aef863dd5739d2f29b0"
        ),
        (
            "170f8beddfe949b75ef9c387e201baf4132fa7374593dfafa90768788b7b2b200aafcc6d80ea4c795a7c5b841"
            "a"
        ),
    ),
}
LIBRARY = {
    ("P-256", 1, 1): (library.KEM.P256, library.KDF.HKDF_SHA256, library.AEAD.AES_128_GCM),
    ("P-521", 3, 2): (library.KEM.P521, library.KDF.HKDF_SHA512, library.AEAD.AES_256_GCM),
}


@pytest.mark.parametrize("name", RFC_9180)
def test_the_vectors_of_the_rfc(name: str) -> None:
    """By the tests' own implementation and by the library's, through a key that is elsewhere."""
    (curve, kdf, aead), ikm_e, ikm_r, enc, ciphertext = RFC_9180[name]
    suite = Suite(KEMS[curve], kdf=kdf, aead=aead)
    ephemeral = suite.derive_key_pair(bytes.fromhex(ikm_e))
    recipient = suite.derive_key_pair(bytes.fromhex(ikm_r))
    made = suite.seal(ephemeral, recipient.public_key(), INFO, PLAINTEXT, b"Count-0")
    assert made == (bytes.fromhex(enc), bytes.fromhex(ciphertext))

    # The library's public interface has no aad, and the RFC has no vector without one.
    secret = recipient.exchange(ec.ECDH(), ephemeral.public_key())
    plaintext = openssl.hpke._decrypt_with_aad(
        library.Suite(*LIBRARY[curve, kdf, aead]),
        bytes.fromhex(enc + ciphertext),
        hpke._AgreedKey(recipient.public_key(), bytes.fromhex(enc), secret),
        INFO,
        b"Count-0",
    )
    assert plaintext == PLAINTEXT


# --- Other authors -----------------------------------------------------------------------------


@pytest.mark.parametrize("kem", list(Kem))
def test_the_tests_own_implementation_opens_ours_and_we_open_its(kem: Kem) -> None:
    suite = Suite(KEMS[CURVES[kem]])
    private = private_key("recipient", suite.kem)
    sealed = hpke.seal_to(private.public_key(), PLAINTEXT, INFO)
    length = hpke.PARAMETERS[kem].point_length
    assert suite.open(private, sealed[:length], INFO, sealed[length:]) == PLAINTEXT
    made = suite.seal(private_key("e", suite.kem), private.public_key(), INFO, PLAINTEXT)
    assert opened(private, b"".join(made)) == PLAINTEXT


@pytest.mark.parametrize("kem", list(Kem))
def test_pyhpke_opens_ours_and_we_open_its(kem: Kem) -> None:
    suite = CipherSuite.new(*PYHPKE[kem], AEADId.AES256_GCM)
    private = ec.generate_private_key(hpke.PARAMETERS[kem].curve)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public_pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    sealed = hpke.seal_to(private.public_key(), PLAINTEXT, INFO)
    length = hpke.PARAMETERS[kem].point_length
    receiver = suite.create_recipient_context(sealed[:length], KEMKey.from_pem(pem), INFO)
    assert receiver.open(sealed[length:]) == PLAINTEXT
    enc, sender = suite.create_sender_context(KEMKey.from_pem(public_pem), INFO)
    assert opened(private, enc + sender.seal(PLAINTEXT)) == PLAINTEXT


# --- A key that is elsewhere -------------------------------------------------------------------


class Recorder(hpke._AgreedKey):
    """Remembers which of its methods the library uses."""

    used: list[str]

    def __getattribute__(self, name: str) -> object:
        if not name.startswith("_"):
            object.__getattribute__(self, "__dict__").setdefault("seen", []).append(name)
        return object.__getattribute__(self, name)


def test_what_the_library_asks_of_a_private_key() -> None:
    private = private_key("recipient", KEMS["P-256"])
    sealed = hpke.seal_to(private.public_key(), PLAINTEXT, INFO)
    peer = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), sealed[:65])
    key = Recorder(private.public_key(), sealed[:65], private.exchange(ec.ECDH(), peer))
    suite = hpke.PARAMETERS[Kem.P256].suite
    assert suite.decrypt(sealed, key, INFO) == PLAINTEXT
    assert set(vars(key)["seen"]) == {"curve", "exchange", "public_key"}


def test_the_stand_in_answers_one_question_only() -> None:
    private, other = (private_key(name, KEMS["P-256"]) for name in ("recipient", "other"))
    key = hpke._AgreedKey(private.public_key(), point(other.public_key()), bytes(32))
    assert key.exchange(ec.ECDH(), other.public_key()) == bytes(32)
    with pytest.raises(AssertionError):
        key.exchange(ec.ECDH(), private.public_key())
    assert (key.key_size, key.curve.name) == (256, "secp256r1")
    with pytest.raises(NotImplementedError):
        key.private_numbers()
    with pytest.raises(NotImplementedError):
        key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    assert "0000" not in repr(key)


def test_what_is_wrong_inside_the_library_s_exchange_is_an_invalid_tag() -> None:
    """Why KMS is asked first: whatever `exchange` raised would be lost."""
    private, other = (private_key(name, KEMS["P-256"]) for name in ("recipient", "other"))
    sealed = hpke.seal_to(private.public_key(), PLAINTEXT, INFO)
    key = hpke._AgreedKey(private.public_key(), point(other.public_key()), bytes(32))
    with pytest.raises(InvalidTag):
        hpke.PARAMETERS[Kem.P256].suite.decrypt(sealed, key, INFO)


# --- Refusals ----------------------------------------------------------------------------------


def test_another_info_secret_or_ciphertext_does_not_open() -> None:
    private = private_key("recipient", KEMS["P-384"])
    sealed = hpke.seal_to(private.public_key(), PLAINTEXT, INFO)
    changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    attempts: list[Callable[[], bytes]] = [
        lambda: opened(private, sealed, b"another info"),
        lambda: opened(private, changed),
        lambda: opened(private_key("other", KEMS["P-384"]), sealed),
    ]
    for attempt in attempts:
        with pytest.raises(NotOpenedError) as caught:
            attempt()
        assert str(caught.value) == NOT_OPENED


@pytest.mark.parametrize("secret", [b"", bytes(31), bytes(33), bytes(66)])
def test_a_secret_of_another_length_does_not_open(secret: bytes) -> None:
    private = private_key("recipient", KEMS["P-256"])
    sealed = hpke.seal_to(private.public_key(), PLAINTEXT, INFO)
    with pytest.raises(NotOpenedError):
        hpke.open_with(
            lambda _der, _length: secret, private.public_key(), sealed[:65], sealed[65:], INFO
        )


@pytest.mark.parametrize(
    "enc",
    [b"", b"\0", b"\4" + bytes(64), b"\2" + bytes(32), bytes(65), b"\4" + b"\xff" * 64],
)
def test_a_false_enc_is_refused_before_anyone_is_asked(enc: bytes) -> None:
    def never(_der: bytes, _length: int) -> bytes:
        raise AssertionError("asked")

    private = private_key("recipient", KEMS["P-256"])
    with pytest.raises(SealedFileError, match="is no point on secp256r1"):
        hpke.open_with(never, private.public_key(), enc, bytes(48), INFO)


def test_the_hybrid_form_of_a_point_is_refused() -> None:
    """X9.62 has it, SEC 1 and RFC 9180 do not; it would be a second form of the same point."""
    uncompressed = point(private_key("recipient", KEMS["P-256"]).public_key())
    hybrid = bytes([6 + uncompressed[-1] % 2]) + uncompressed[1:]
    with pytest.raises(SealedFileError, match="is no point"):
        hpke.parse_point(Kem.P256, hybrid)
    assert hpke.encode_point(hpke.parse_point(Kem.P256, uncompressed)) == uncompressed


def test_a_curve_without_a_kem() -> None:
    key = ec.generate_private_key(ec.SECP256K1()).public_key()
    with pytest.raises(InputError, match="the curve secp256k1"):
        hpke.kem_of(key)


def test_two_messages_differ() -> None:
    key = private_key("recipient", KEMS["P-256"]).public_key()
    assert hpke.seal_to(key, PLAINTEXT, INFO) != hpke.seal_to(key, PLAINTEXT, INFO)
