"""A TLS handshake whose bytes pass through our hands, to see which group was chosen.

`ssl.MemoryBIO` in place of a socket; the context is the trusted room's own, so what is offered and
accepted is what `enclave/tls.py` offers and accepts. Nothing is ever sent over the session.
"""

import socket
import ssl
from typing import Final

from kmstool.doctor.server_hello import RECEIVED_MAX, parse_group
from kmstool.enclave.tls import client_context
from kmstool.endpoint import Deadline
from kmstool.errors import TransportError

_RECV: Final = 16_384  # bytes


def key_exchange_group(
    sock: socket.socket, *, host: str, roots_pem: str, deadline: Deadline
) -> int:
    """IANA's number of the group of a handshake with `host`, over a connected socket.

    Raises:
        TransportError: the handshake failed. SettingError: `roots_pem` holds no certificates.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = client_context(roots_pem).wrap_bio(incoming, outgoing, server_hostname=host)
    received = bytearray()
    what = f"the TLS handshake with {host}"
    try:
        while not _done(session):
            sock.settimeout(deadline.remaining(what))
            sock.sendall(outgoing.read())
            piece = sock.recv(_RECV)
            if not piece:
                raise TransportError(f"the connection was closed during {what}")
            received += piece
            if len(received) > RECEIVED_MAX:
                raise TransportError(f"{what} has more than {RECEIVED_MAX} bytes")
            incoming.write(piece)
        sock.sendall(outgoing.read())
    except TimeoutError:
        raise deadline.exceeded(what) from None
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror or type(error).__name__
        raise TransportError(f"{what} failed: {reason}") from None
    return parse_group(bytes(received))


def _done(session: ssl.SSLObject) -> bool:
    try:
        session.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True
