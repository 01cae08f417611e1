"""Certificates that OpenSSL takes and `cryptography` does not, or only with a warning."""

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_ECDSA_WITH_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")


def with_a_negative_serial() -> bytes:
    """DER; readable, with a warning."""
    return _altered(b"\x02\x01\x07", b"\x02\x01\xf9")


def with_a_latin_1_name() -> bytes:
    """DER; its common name is a T61String of Latin-1, which is no UTF-8."""
    return _altered(b"\x0c\x04QQQQ", b"\x14\x04Caf\xe9")


def _altered(before: bytes, after: bytes) -> bytes:
    """A root with these bytes of it exchanged, and signed again."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "QQQQ")])
    now = datetime.now(UTC)
    whole = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    ).tbs_certificate_bytes
    altered = whole.replace(before, after)
    assert altered != whole
    signature = b"\0" + key.sign(altered, ec.ECDSA(hashes.SHA256()))
    return _tlv(0x30, altered + _ECDSA_WITH_SHA256 + _tlv(0x03, signature))


def _tlv(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    return bytes([tag, 0x82]) + length.to_bytes(2, "big") + content
