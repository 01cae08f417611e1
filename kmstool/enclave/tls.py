"""TLS 1.3 to KMS, checked against given roots and against KMS' name: nothing else is accepted.

The bytes travel through the parent instance, which is the adversary: this file is where its power
ends. So: TLS 1.3 alone (RFC 8446), certificates that chain to the given roots alone (never those
of the system; neither SSL_CERT_FILE nor SSLKEYLOGFILE is read), the host in subjectAltName (RFC
6125; no common name), and one deadline for the whole handshake. It never retries.
"""

import socket
import ssl
import time
from typing import Final

from kmstool.endpoint import Deadline
from kmstool.errors import SettingError, TransportError

ALPN: Final = "http/1.1"


def open_tls(
    sock: socket.socket, *, host: str, roots_pem: str, deadline: Deadline
) -> ssl.SSLSocket:
    """A TLS 1.3 stream whose other end has proved to be `host`.

    Args:
        sock: connected; it belongs to this function and is closed when it fails.
        host: DNS name that the certificate must bear, whatever address `sock` leads to.
        roots_pem: the only roots to trust, as PEM.

    Raises:
        SettingError: `roots_pem` holds no certificates.
        TransportError: the handshake failed; the message says at what.
    """
    try:
        context = client_context(roots_pem)
        sock.settimeout(deadline.remaining("the TLS handshake"))
        # As bytes: a str would draw in encodings.idna and stringprep. The name is ASCII.
        tls = context.wrap_socket(
            sock, server_hostname=host.encode("ascii"), do_handshake_on_connect=False
        )
    except BaseException:
        sock.close()
        raise
    try:
        # The timeout bounds the whole of do_handshake, not each read inside it.
        tls.do_handshake()
    except OSError as error:
        tls.close()
        raise _handshake_error(error, host, deadline) from None
    except BaseException:
        tls.close()
        raise
    return tls


def client_context(roots_pem: str) -> ssl.SSLContext:
    """What `open_tls` offers and accepts. Raises `SettingError` where PEM holds no certificates."""
    # PROTOCOL_TLS_CLIENT: certificate required, host name checked, no roots loaded.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.hostname_checks_common_name = False
    context.set_alpn_protocols([ALPN])
    try:
        context.load_verify_locations(cadata=roots_pem)
    except (ssl.SSLError, ValueError, TypeError):  # not PEM, empty, not ASCII
        raise SettingError(
            "the roots to trust are not certificates in PEM",
            hint="give a file with one root or more, each between BEGIN and END CERTIFICATE",
        ) from None
    return context


# OpenSSL's X509_V_ERR numbers (openssl/x509_vfy.h).
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_WRONG_NAME: Final = frozenset({62, 64})
# No issuer found, self-signed, leaf alone, signature of a namesake of our root, key ids differ.
_UNKNOWN_CA: Final = frozenset({2, 7, 18, 19, 20, 21, 30})

_NO_TLS_13: Final = (
    "the server that answers for {} does not speak TLS 1.3",
    "KMS does, in every region: the forwarder leads to something else",
)
_NO_TLS: Final = (
    "the server that answers for {} does not speak TLS",
    "the forwarder must lead to port 443 of KMS, not to port 80 and not to another service",
)
_NOT_SERVED: Final = (
    "the server that was reached does not serve {}",
    "the forwarder leads to another host, or --host names the wrong one",
)
# OpenSSL's reasons, of 3.0 to 3.5.
_REASONS: Final = {
    "TLSV1_ALERT_PROTOCOL_VERSION": _NO_TLS_13,
    "UNSUPPORTED_PROTOCOL": _NO_TLS_13,
    "WRONG_SSL_VERSION": _NO_TLS_13,
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "PACKET_LENGTH_TOO_LONG": _NO_TLS,
    "RECORD_LAYER_FAILURE": _NO_TLS,
    "TLSV1_UNRECOGNIZED_NAME": _NOT_SERVED,
}


def _handshake_error(error: OSError, host: str, deadline: Deadline) -> TransportError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate_error(error, host)
    if isinstance(error, TimeoutError):
        return deadline.exceeded(f"the TLS handshake with {host}")
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError)):
        return TransportError(
            f"the connection was closed during the TLS handshake with {host}",
            hint="the forwarder was reached and let go: its log on the parent says why (its target"
            " cannot be reached or its name not be found, a limit, a CID that may not connect)",
            retryable=True,
        )
    reason = getattr(error, "reason", None) or error.strerror or "unknown reason"
    if reason in _REASONS:
        message, hint = _REASONS[reason]
        return TransportError(message.format(host), hint=hint)
    return TransportError(f"the TLS handshake with {host} failed: {reason}")


def _certificate_error(error: ssl.SSLCertVerificationError, host: str) -> TransportError:
    clock = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    code = error.verify_code
    if code == _EXPIRED:
        return TransportError(
            f"a certificate in the chain of {host} has expired",
            hint=f"this machine's clock says {clock}: if that is wrong, set it",
        )
    if code == _NOT_YET_VALID:
        return TransportError(
            f"a certificate in the chain of {host} is not valid yet",
            hint=f"this machine's clock says {clock}: if that is wrong, set it",
        )
    if code in _WRONG_NAME:
        return TransportError(
            f"the certificate is not for {host}",
            hint="the forwarder leads to another host; for a VPC endpoint or a FIPS one, give the"
            " name with --host",
        )
    if code in _UNKNOWN_CA:
        return TransportError(
            f"the certificate of {host} comes from a CA that is not among the roots",
            hint="only Amazon's roots are trusted: something that ends TLS stands between here and"
            " KMS, or the forwarder leads elsewhere, or this partition has other roots",
        )
    return TransportError(f"the certificate of {host} was refused: {error.verify_message}")
