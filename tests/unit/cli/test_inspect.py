"""Text from a file that anyone can write reaches a terminal only after it was neutralised."""

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.odd_certificates import with_a_negative_serial

from kmstool.attestation.document import AttestationDocument
from kmstool.cli.inspect import _describe_certificate, _describe_document
from kmstool.cli.report import for_the_eye
from kmstool.limits import DOCUMENT_TIMESTAMP_MAX


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
    text = for_the_eye({"verified": False, "certificate": described}).decode()
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\nverified: yes" not in text
    assert "\\x1b]0" in text


def test_an_unreadable_certificate_is_said_to_be_one() -> None:
    assert _describe_certificate(b"\x30\x00") == {"unreadable": "ValueError", "bytes": 2}


def test_an_odd_certificate_is_described_without_a_warning_of_python_s() -> None:
    described = _describe_certificate(with_a_negative_serial())
    assert described["subject"] == "CN=QQQQ"


def test_the_last_moment_that_the_reader_takes() -> None:
    document = AttestationDocument(
        protected=b"",
        payload=b"",
        signature=b"",
        module_id="i-0-enc0",
        digest="SHA384",
        timestamp=DOCUMENT_TIMESTAMP_MAX,
        pcrs={},
        certificate=b"",
        cabundle=(),
        public_key=None,
        user_data=None,
        nonce=None,
    )
    assert _describe_document(document)["time"] == "9999-12-31T23:59:59.999+00:00"


def test_what_is_missing_is_none() -> None:
    assert for_the_eye({"nonce": None}) == b"nonce: none\n"
