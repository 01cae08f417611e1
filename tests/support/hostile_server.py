"""A TLS server that answers for KMS as a test tells it: the other end of bad connections.

It has a CA of its own, serves one answer to each connection, can stop at any point, and counts. It
knows nothing of KMS; `kms_answers` lends it the bent KMS of `bent_kms.py`.
"""

import contextlib
import ipaddress
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.bent_kms import BentKms

from kmstool.enclave.http import HttpAnswer
from kmstool.endpoint import Deadline

KMS_HOST = "kms.eu-west-1.amazonaws.com"
Respond = Callable[[dict[str, str], bytes], bytes]


class HostileAuthority:
    """A CA that issues what it is told to, expired or for any name."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        self._root = (
            self._builder(
                "hostile CA", self._key, now - timedelta(days=30), now + timedelta(days=1)
            )
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def pem(self) -> str:
        """The root certificate."""
        return self._root.public_bytes(serialization.Encoding.PEM).decode("ascii")

    def context(
        self,
        host: str = KMS_HOST,
        *,
        expired: bool = False,
        version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    ) -> ssl.SSLContext:
        """A server context with a certificate for `host`, speaking exactly `version`."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        end = now - timedelta(days=1) if expired else now + timedelta(hours=1)
        names: list[x509.GeneralName] = [
            x509.DNSName(host),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        ]
        certificate = (
            self._builder("hostile server", key, now - timedelta(days=2), end)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = context.maximum_version = version
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "server.pem")
            file.write_bytes(
                certificate.public_bytes(serialization.Encoding.PEM)
                + key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
            context.load_cert_chain(file)
        return context

    def _builder(
        self, subject: str, key: ec.EllipticCurvePrivateKey, start: datetime, end: datetime
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name("hostile CA"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
        )


class HostileServer:
    """Answers each connection once, or hangs where it is told to; a context manager.

    Args:
        context: the TLS side, or None for a server that never answers the handshake.
        respond: from headers (lower-case names) and body of a request to the bytes of the answer.
        cut: send this many bytes of the answer, then close; None sends all.
        polite: whether the TLS stream ends with close_notify.
        hang: read the request and never answer.

    Attributes:
        context, respond, cut, polite, hang: may be changed between connections.
        connections, requests: how many there were.
        accepted, asked: set when a connection, or a request, has arrived.
    """

    def __init__(
        self,
        context: ssl.SSLContext | None,
        respond: Respond = lambda _headers, _body: b"",
        *,
        cut: int | None = None,
        polite: bool = True,
        hang: bool = False,
    ) -> None:
        self.context = context
        self.respond = respond
        self.cut = cut
        self.polite = polite
        self.hang = hang
        self.connections = 0
        self.requests = 0
        self.accepted = threading.Event()
        self.asked = threading.Event()
        self._closing = threading.Event()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    @property
    def address(self) -> str:
        """As `--via direct=…` and `emulator.json` take it."""
        return f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends every connection and waits for the threads."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                # On the raw descriptor: SSLSocket.shutdown would take the TLS state from the
                # thread that is about to say goodbye with it.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.add(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(30)
        # Session tickets and answer are two writes; Nagle would hold the second back for 40 ms.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tls: socket.socket = connection
        try:
            self.accepted.set()
            if self.context is None:
                self._closing.wait(30)
                return
            tls = self.context.wrap_socket(connection, server_side=True)
            self._open.add(tls)
            headers, body = _read_request(tls)
            self.requests += 1
            self.asked.set()
            if self.hang:
                self._closing.wait(30)
                return
            answer = self.respond(headers, body)
            tls.sendall(answer if self.cut is None else answer[: self.cut])
            if self.polite:
                assert isinstance(tls, ssl.SSLSocket)
                tls.unwrap().close()
        except OSError:
            pass  # the client refused or left, which is what most tests are about
        finally:
            tls.close()
            connection.close()


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _read_request(tls: socket.socket) -> tuple[dict[str, str], bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = tls.recv(65_536)
        if not piece:
            raise ConnectionError
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("ascii").split("\r\n")[1:]
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    while len(body) < int(headers["content-length"]):
        body += tls.recv(65_536)
    return headers, body


def kms_answers(kms: BentKms) -> Respond:
    """Answers as `kms` does, written out as HTTP/1.1."""

    def respond(headers: dict[str, str], body: bytes) -> bytes:
        named = {"X-Amz-Target": headers["x-amz-target"]}
        return http_bytes(kms.post(named, body, Deadline(30)))

    return respond


def http_bytes(answer: HttpAnswer) -> bytes:
    """An HTTP/1.1 answer that ends the connection."""
    headers = {**answer.headers, "content-length": str(len(answer.body)), "connection": "close"}
    lines = [f"HTTP/1.1 {answer.status} whatever"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + answer.body
