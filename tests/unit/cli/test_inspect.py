"""Text from a file that anyone can write reaches a terminal only after it was neutralised."""

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kmstool.cli.inspect import _describe_certificate, _for_the_eye, _time


def certificate(common_name: str) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )


def test_a_certificate_s_names_are_neutralised() -> None:
    described = _describe_certificate(certificate("a\x1b]0;owned\x07\nverified: yes"))
    text = _for_the_eye({"verified": False, "certificate": described}).decode()
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\nverified: yes" not in text
    assert "\\x1b]0" in text


def test_an_unreadable_certificate_is_said_to_be_one() -> None:
    assert _describe_certificate(b"\x30\x00") == {"unreadable": "ValueError", "bytes": 2}


def test_a_time_beyond_the_calendar_is_none() -> None:
    assert _time(0) == "1970-01-01T00:00:00.000+00:00"
    assert _time(2**63) is None
    assert _for_the_eye({"time": None}) == b"time: none\n"
