"""What a TLS session shows of the certificates that it was checked with. It judges nothing."""

import ssl
from datetime import datetime

from cryptography import x509
from cryptography.x509.oid import NameOID


def end_of(tls: ssl.SSLSocket) -> datetime:
    """When the server's own certificate ends, UTC."""
    der = tls.getpeercert(binary_form=True)
    assert der is not None  # noqa: S101 - the handshake would have failed
    return x509.load_der_x509_certificate(der).not_valid_after_utc


def root_of(tls: ssl.SSLSocket) -> str | None:
    """The common name of the root that the verified chain ends in, where this Python can tell."""
    chain = getattr(tls, "get_verified_chain", None)  # public since Python 3.13
    if chain is not None:
        der = chain()[-1]
    else:
        inner = getattr(getattr(tls, "_sslobj", None), "get_verified_chain", None)
        if inner is None:
            return None
        der = ssl.PEM_cert_to_DER_cert(inner()[-1].public_bytes())
    names = x509.load_der_x509_certificate(der).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else None
