"""What OpenSSL has verified is shown, and no bug where `cryptography` cannot read it."""

import ssl

import pytest
from support.odd_certificates import with_a_latin_1_name, with_a_negative_serial

from kmstool.doctor.certificate import common_name_in, end_in


def test_a_certificate_that_cryptography_warns_of() -> None:
    der = with_a_negative_serial()
    assert end_in(der) is not None
    assert common_name_in(der) == "QQQQ"


def test_a_name_that_cryptography_cannot_read() -> None:
    der = with_a_latin_1_name()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(der))
    assert "Café" in repr(context.get_ca_certs())  # as a root it would do
    assert common_name_in(der) is None
    assert end_in(der) is not None


@pytest.mark.parametrize("der", [b"", b"\x30\x00"])
def test_no_certificate_at_all(der: bytes) -> None:
    assert common_name_in(der) is None
    assert end_in(der) is None
