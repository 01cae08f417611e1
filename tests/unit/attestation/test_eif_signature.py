"""attestation/eif_signature.py: PCR8 of a signed image, and each defect of a signature."""

import hashlib
from collections.abc import Callable
from io import BytesIO

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from support.eif_images import Signing, image, signed, signing_certificate

from kmstool.attestation.eif import EifMeasurements, read_eif
from kmstool.emulator.cbor_writer import encode
from kmstool.errors import InputError

KEY = ec.generate_private_key(ec.SECP384R1())
CERTIFICATE = signing_certificate(KEY)
UNSIGNED = image()
PCR0 = UNSIGNED.pcr(0, 1, 3, 4)


def read(section: bytes) -> EifMeasurements:
    return read_eif(BytesIO(signed(UNSIGNED, section).file()))


@pytest.mark.parametrize(
    ("curve", "algorithm"),
    [(ec.SECP256R1(), "ES256"), (ec.SECP384R1(), "ES384"), (ec.SECP521R1(), "ES512")],
)
def test_a_signed_image(curve: ec.EllipticCurve, algorithm: str) -> None:
    signing = Signing(ec.generate_private_key(curve))
    signing.certificate = signing_certificate(signing.key)
    found = read(signing.section(PCR0))
    der = signing.certificate.public_bytes(Encoding.DER)
    assert found.signature is not None
    assert (found.signature.algorithm, found.signature.certificate) == (algorithm, der)
    assert found.pcrs[8] == hashlib.sha384(bytes(48) + hashlib.sha384(der).digest()).digest()
    assert found.pcrs[0] == PCR0
    assert list(found.pcrs) == [0, 1, 2, 8]


def test_text_before_the_certificate_does_not_count() -> None:
    """As `openssl x509 -text` writes it; OpenSSL, and so the crate, passes over it."""
    plain = read(Signing(KEY, certificate=CERTIFICATE).section(PCR0))
    text = Signing(KEY, certificate=CERTIFICATE, pem=lambda pem: b"Certificate:\n" + pem)
    assert read(text.section(PCR0)).pcrs == plain.pcrs


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def swapped(**change: object) -> Callable[[], bytes]:
    return lambda: Signing(KEY, certificate=CERTIFICATE, **change).section(PCR0)  # type: ignore[arg-type]


def pieces(*values: object) -> bytes:
    return encode([{"signing_certificate": list(_PEM), "signature": list(encode(values))}])


_PEM = CERTIFICATE.public_bytes(Encoding.PEM)
_RSA = signing_certificate(rsa.generate_private_key(65537, 2048))
_P384 = encode({1: -35})
GOOD = Signing(KEY, certificate=CERTIFICATE).section(PCR0)

DEFECTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "another PCR0": (
        lambda: Signing(KEY, certificate=CERTIFICATE).section(bytes(48)),
        "over another PCR0 than that of this image",
    ),
    "PCR1": (swapped(index=1), "the signature is not over PCR0"),
    "index false": (swapped(index=False), "the signature is not over PCR0"),
    "a flipped bit": (swapped(bend=flipped), "not by the key of the signing certificate"),
    "zeros": (swapped(bend=lambda _: bytes(96)), "not by the key of the signing certificate"),
    "a short signature": (swapped(bend=lambda s: s[:-1]), "has 95 bytes, not 96"),
    "DER": (swapped(bend=lambda s: b"\x30" + s), "has 97 bytes, not 96"),
    "someone else's certificate": (
        lambda: Signing(
            KEY, certificate=signing_certificate(ec.generate_private_key(ec.SECP384R1()))
        ).section(PCR0),
        "not by the key of the signing certificate",
    ),
    "another algorithm": (swapped(algorithm=-7), "algorithm is -7, and .* signs with -35 .ES384."),
    "no integer": (swapped(algorithm="ES384"), "protected header holds anything but"),
    "unprotected header": (swapped(unprotected={4: b"kid"}), "unprotected header is not an empty"),
    "RSA certificate": (
        lambda: Signing(KEY, certificate=_RSA).section(PCR0),
        "certificate's key is not on P-256, P-384 or P-521",
    ),
    "secp256k1 certificate": (
        lambda: Signing(
            KEY, certificate=signing_certificate(ec.generate_private_key(ec.SECP256K1()))
        ).section(PCR0),
        "certificate's key is not on P-256, P-384 or P-521",
    ),
    "two certificates": (swapped(pem=lambda pem: pem + pem), "is not one PEM block"),
    "DER certificate": (
        swapped(pem=lambda _: CERTIFICATE.public_bytes(Encoding.DER)),
        "is not one PEM block",
    ),
    "a broken certificate": (
        swapped(pem=lambda pem: pem.replace(b"MII", b"AAA", 1)),
        "the signing certificate cannot be read",
    ),
    "no CBOR": (lambda: b"\xff", "signature section is not one CBOR item"),
    "bytes after the CBOR": (lambda: GOOD + b"\0", "signature section is not one CBOR item"),
    "a map": (lambda: GOOD[1:], "signature section does not hold one signature"),
    "no signature": (lambda: encode([]), "signature section does not hold one signature"),
    "two signatures": (
        lambda: b"\x82" + GOOD[1:] + GOOD[1:],
        "signature section does not hold one signature",
    ),
    "no certificate": (
        lambda: encode([{"signature": [1]}]),
        "signature section is not a map of signature and signing_certificate",
    ),
    "certificate as a byte string": (
        lambda: encode([{"signing_certificate": _PEM, "signature": [1]}]),
        "the signing certificate is not an array of octets",
    ),
    "an octet of 256": (
        lambda: encode([{"signing_certificate": [256], "signature": [1]}]),
        "the signing certificate is not an array of octets",
    ),
    "true as an octet": (
        lambda: encode([{"signing_certificate": [True], "signature": [1]}]),
        "the signing certificate is not an array of octets",
    ),
    "COSE of three": (lambda: pieces(_P384, {}, b""), "is not a COSE_Sign1, an array of four"),
    "payload nil": (lambda: pieces(_P384, {}, None, bytes(96)), "a part is not a byte string"),
    "protected header empty": (
        lambda: pieces(b"", {}, b"", bytes(96)),
        "protected header is not one CBOR item",
    ),
    "protected header with more": (
        lambda: pieces(encode({1: -35, 4: b""}), {}, b"", bytes(96)),
        "protected header holds anything but the algorithm",
    ),
    "protected header with the key true": (
        lambda: pieces(encode({True: -35}), {}, b"", bytes(96)),
        "protected header holds anything but the algorithm",
    ),
    "tagged COSE": (
        lambda: encode(
            [{"signing_certificate": list(_PEM), "signature": [0xD2, *encode([b"", {}, b"", b""])]}]
        ),
        "the signature is not one CBOR item",
    ),
    "arrays as keys": (
        lambda: b"\x81\xa1\x81\x81\x01\x01",
        "signature section is not one CBOR item",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_one_defect_each(defect: str) -> None:
    make, message = DEFECTS[defect]
    with pytest.raises(InputError, match=message) as error:
        read(make())
    assert str(error.value).startswith("not an enclave image (EIF) to be measured: ")
    assert "sign the image again" in str(error.value.hint)


def test_a_second_signature_section() -> None:
    with pytest.raises(InputError, match="it has a second signature"):
        read_eif(BytesIO(signed(signed(UNSIGNED, GOOD), GOOD).file()))


def test_a_signature_does_not_move_to_another_image() -> None:
    other = signed(image(command="quiet"), GOOD)
    with pytest.raises(InputError, match="over another PCR0"):
        read_eif(BytesIO(other.file()))
