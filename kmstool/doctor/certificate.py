"""What a TLS session shows of the certificates that it was checked with. It judges nothing.

OpenSSL has verified them, and takes some that `cryptography` does not read: what cannot be read is
None, and nothing is wrong with it.
"""

import ssl
import warnings
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

# TypeError: of a name whose string type does not fit its attribute.
_UNREADABLE: Final = (ValueError, TypeError, x509.InvalidVersion)


def end_of(tls: ssl.SSLSocket) -> datetime | None:
    """When the server's own certificate ends, UTC."""
    der = tls.getpeercert(binary_form=True)
    assert der is not None  # noqa: S101 - the handshake would have failed
    return end_in(der)


def root_of(tls: ssl.SSLSocket) -> str | None:
    """The common name of the root that the verified chain ends in, where this Python can tell."""
    chain = getattr(tls, "get_verified_chain", None)  # public since Python 3.13
    if chain is not None:
        return common_name_in(chain()[-1])
    inner = getattr(getattr(tls, "_sslobj", None), "get_verified_chain", None)
    if inner is None:
        return None
    return common_name_in(ssl.PEM_cert_to_DER_cert(inner()[-1].public_bytes()))


def end_in(der: bytes) -> datetime | None:
    """When a certificate ends, UTC."""
    try:
        return _load(der).not_valid_after_utc
    except _UNREADABLE:
        return None


def common_name_in(der: bytes) -> str | None:
    """The subject's first common name."""
    try:
        names = _load(der).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except _UNREADABLE:
        return None
    return str(names[0].value) if names else None


def _load(der: bytes) -> x509.Certificate:
    with warnings.catch_warnings():  # on stderr they would look like ours
        warnings.simplefilter("ignore")
        return x509.load_der_x509_certificate(der)
