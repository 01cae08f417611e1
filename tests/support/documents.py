"""Attestation documents with exactly one defect, for tests of `kmstool/attestation`.

Each part is a parameter whose default is right, so a test changes one thing and nothing else. The
certificates and the signature are made here with `cryptography`, the CBOR by the emulator's writer:
neither is what reads them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

from kmstool.emulator.cbor_writer import encode, encode_indefinite_map

NOW = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
HEADER = bytes.fromhex("a1013822")  # {1: -35}

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Link:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: PrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)


def p384() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def usage(*names: str) -> x509.KeyUsage:
    every = [
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
        *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    ]
    return x509.KeyUsage(**{name: name in names for name in every})


def issue(
    name: str,
    issuer: Link | None,
    *,
    ca: bool,
    path_length: int | None = None,
    key: PrivateKey | None = None,
    not_before: datetime = NOW - HOUR,
    not_after: datetime = NOW + HOUR,
    key_usage: x509.KeyUsage | None = None,
    without: type[x509.ExtensionType] | None = None,
    critical: Mapping[type[x509.ExtensionType], bool] | None = None,
    extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
    digest: hashes.SHA256 | hashes.SHA384 | None = None,
) -> Link:
    """Returns a certificate that is right for its place, but for what the parameters say."""
    key = key or p384()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )
    right = key_usage or usage("key_cert_sign" if ca else "digital_signature")
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=ca, path_length=path_length), True),
        (right, ca),
        *extra,
    ]
    for extension, is_critical in extensions:
        if without is None or not isinstance(extension, without):
            builder = builder.add_extension(
                extension, (critical or {}).get(type(extension), is_critical)
            )
    signer = key if issuer is None else issuer.key
    return Link(builder.sign(signer, digest or hashes.SHA384()), key)


@dataclass(frozen=True)
class Chain:
    """Root, intermediates and leaf, in that order."""

    root: Link
    cas: tuple[Link, ...]
    leaf: Link

    @property
    def cabundle(self) -> list[bytes]:
        return [self.root.der, *(ca.der for ca in self.cas)]


def make_chain(
    *,
    root: Mapping[str, Any] | None = None,
    ca1: Mapping[str, Any] | None = None,
    ca2: Mapping[str, Any] | None = None,
    leaf: Mapping[str, Any] | None = None,
) -> Chain:
    """Root, two intermediates (pathLen 1 and 0), leaf; each mapping changes `issue` for one."""
    top = issue("root", None, **{"ca": True, **(root or {})})
    first = issue("ca1", top, **{"ca": True, "path_length": 1, **(ca1 or {})})
    second = issue("ca2", first, **{"ca": True, "path_length": 0, **(ca2 or {})})
    return Chain(top, (first, second), issue("leaf", second, **{"ca": False, **(leaf or {})}))


def fields(chain: Chain, **changes: object) -> dict[object, object]:
    """The payload's fields; a change of `...` (Ellipsis) leaves that field out."""
    content: dict[object, object] = {
        "module_id": "i-00000000000000000-enc0000000000000000",
        "digest": "SHA384",
        "timestamp": int(NOW.timestamp() * 1000),
        "pcrs": {index: bytes([index]) * 48 for index in range(16)},
        "certificate": chain.leaf.der,
        "cabundle": chain.cabundle,
        "public_key": None,
        "user_data": None,
        "nonce": b"n" * 16,
    }
    content.update(changes)
    return {name: value for name, value in content.items() if value is not ...}


def sign(protected: bytes, payload: bytes, key: PrivateKey) -> bytes:
    """ES384 as RFC 9053 says for P-384; for other curves r and s in their own length."""
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    to_sign = encode(["Signature1", protected, b"", payload])
    r, s = decode_dss_signature(key.sign(to_sign, ec.ECDSA(hashes.SHA384())))
    length = 48 if key.curve.name != "secp521r1" else 66
    return r.to_bytes(length, "big") + s.to_bytes(length, "big")


def cose(
    payload: bytes,
    key: PrivateKey,
    *,
    protected: bytes = HEADER,
    unprotected: object = None,
    signature: bytes | None = None,
) -> bytes:
    """COSE_Sign1 without a tag."""
    signature = sign(protected, payload, key) if signature is None else signature
    return encode([protected, {} if unprotected is None else unprotected, payload, signature])


def document(chain: Chain, *, indefinite: bool = False, **changes: object) -> bytes:
    """A document whose payload has these fields."""
    write = encode_indefinite_map if indefinite else encode
    return cose(write(fields(chain, **changes)), chain.leaf.key)
