"""Attacks on the way to KMS: a man in the middle, who has no certificate that the enclave trusts.

Some of these need no more than a forwarder that the enclave cannot choose. Others stop, drip or
flood after the handshake: who can do that holds KMS' certificate or is KMS in trouble, and to the
enclave it looks no different.
"""

import select
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.x509.oid import NameOID

from kmstool.arn import kms_host
from kmstool.emulator.authentication import HttpRequest
from kmstool.emulator.certificates import Authority, make_context
from kmstool.emulator.hostile_attack import Attack, Ground, Setup
from kmstool.emulator.server import HttpAnswer
from kmstool.endpoint import TcpAddress

_REQUEST_MAX = 1_048_576  # bytes of a request that these servers read
_HANDSHAKE = 4_096  # bytes that a client may send before its request, which is longer
_DRIP = 0.5  # seconds between two bytes
_FLOOD = 0.02  # seconds between two pieces of an answer without end
_PIECE = b" " * 262_144


class WrongServer(Attack):
    """Somebody who is not KMS answers, with everything that KMS would say."""

    setup = Setup.DIRECT
    sound = "ends the handshake before it sends anything"
    exit_codes = (6,)

    def front(self, ground: Ground) -> TcpAddress:
        return ground.serve_kms(ground.emulator.kms.handle, self.context(ground))

    def context(self, ground: Ground) -> ssl.SSLContext:
        """The TLS side of the impostor."""
        raise NotImplementedError


class AnotherCa(WrongServer):
    name = "another-ca"
    sentence = "answers in place of KMS, with a certificate of its own CA for KMS' name"
    words = "certificate"

    def context(self, ground: Ground) -> ssl.SSLContext:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a CA of the parent's")])
        return make_context(Authority(name).issue(_kms_names(ground)))


class AmazonLookalike(WrongServer):
    name = "amazon-lookalike"
    sentence = (
        "answers in place of KMS, under a root of its own that is named Amazon Root CA 1, and"
        " sends that root along"
    )
    words = "certificate"

    def context(self, ground: Ground) -> ssl.SSLContext:
        authority = Authority(
            x509.Name(
                [
                    x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
                    x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Amazon"),
                    x509.NameAttribute(NameOID.COMMON_NAME, "Amazon Root CA 1"),
                ]
            )
        )
        root = authority.certificate_pem.encode()
        return make_context(authority.issue(_kms_names(ground)) + root)


class AnotherHost(WrongServer):
    name = "another-host"
    sentence = "answers in place of KMS, with a genuine certificate of another host"
    words = "certificate"

    def context(self, ground: Ground) -> ssl.SSLContext:
        name = kms_host(ground.emulator.region).replace("kms.", "s3.", 1)
        return make_context(ground.emulator.authority.issue([x509.DNSName(name)]))


class ExpiredCertificate(WrongServer):
    name = "expired-certificate"
    sentence = "answers in place of KMS, with KMS' own certificate of an earlier year"
    words = "certificate"

    def context(self, ground: Ground) -> ssl.SSLContext:
        end = datetime.now(UTC) - timedelta(days=1)
        return make_context(ground.emulator.authority.issue(_kms_names(ground), end=end))


class OldTls(WrongServer):
    name = "tls-1.2"
    sentence = "leads to a KMS that speaks no newer TLS than 1.2"
    words = "TLS"

    def context(self, ground: Ground) -> ssl.SSLContext:
        pem = ground.emulator.authority.issue(_kms_names(ground))
        return make_context(pem, ssl.TLSVersion.TLSv1_2)


class FlippedRecord(Attack):
    name = "flipped-record"
    sentence = "flips one bit in what KMS sends inside TLS"
    setup = Setup.DIRECT
    sound = "takes nothing of a record whose tag is wrong"
    exit_codes = (6,)
    words = "broke"

    def front(self, ground: Ground) -> TcpAddress:
        kms = (ground.emulator.address.host, ground.emulator.address.port)

        def forward(enclave: socket.socket) -> None:
            with socket.create_connection(kms) as upstream:
                sent = 0
                while True:
                    ready, _, _ = select.select([enclave, upstream], [], [], 30)
                    if not ready:
                        return
                    data = bytearray(ready[0].recv(65_536))
                    if not data:
                        return
                    if ready[0] is enclave:
                        sent += len(data)
                        upstream.sendall(data)
                        continue
                    if sent > _HANDSHAKE:
                        data[-1] ^= 1
                    enclave.sendall(data)

        return ground.serve_streams(forward)


class HalfOpen(Attack):
    name = "half-open"
    sentence = "accepts the connection and never says a word"
    setup = Setup.DIRECT
    sound = "stops at its own deadline"
    exit_codes = (6,)
    words = "was used up"

    def front(self, ground: Ground) -> TcpAddress:
        def wait(enclave: socket.socket) -> None:
            while enclave.recv(65_536):
                pass

        return ground.serve_streams(wait)


class BadAnswer(Attack):
    """After a good handshake and a genuine request, something is wrong with how the answer comes.

    A subclass gives the pieces that are sent; after the last one the connection is torn down.
    """

    setup = Setup.DIRECT
    exit_codes = (6,)

    def front(self, ground: Ground) -> TcpAddress:
        context = make_context(ground.emulator.authority.issue(_kms_names(ground)))

        def serve(enclave: socket.socket) -> None:
            with context.wrap_socket(enclave, server_side=True) as tls:
                answer = ground.emulator.kms.handle(_read_request(tls))
                for pause, piece in self.pieces(_written(answer)):
                    tls.sendall(piece)
                    if pause and select.select([tls], [], [], pause)[0]:
                        return  # it left

        return ground.serve_streams(serve)

    def pieces(self, answer: bytes) -> Iterator[tuple[float, bytes]]:
        """Pieces of the answer, each with the seconds to wait after it."""
        raise NotImplementedError


class AnswerCut(BadAnswer):
    name = "answer-cut"
    sentence = "ends the connection in the middle of the answer"
    sound = "takes nothing of an answer that is not whole"
    words = "cut off"

    def pieces(self, answer: bytes) -> Iterator[tuple[float, bytes]]:
        yield 0, answer[: -len(answer) // 4]


class SlowDrip(BadAnswer):
    name = "slow-drip"
    sentence = "lets the answer through byte by byte, so that no single wait is long"
    sound = "has one deadline for the whole exchange"
    words = "was used up"

    def pieces(self, answer: bytes) -> Iterator[tuple[float, bytes]]:
        for index in range(len(answer)):
            yield _DRIP, answer[index : index + 1]


class EndlessAnswer(BadAnswer):
    name = "endless-answer"
    sentence = "sends an answer that never ends"
    sound = "has a bound on what it reads"
    words = "Content-Length"

    def pieces(self, answer: bytes) -> Iterator[tuple[float, bytes]]:
        status_line = answer.partition(b"\r\n")[0]
        yield 0, status_line + b"\r\ncontent-length: 999999999999\r\n\r\n{"
        while True:
            yield _FLOOD, _PIECE


NETWORK_ATTACKS: tuple[type[Attack], ...] = (
    AnotherCa,
    AmazonLookalike,
    AnotherHost,
    ExpiredCertificate,
    OldTls,
    FlippedRecord,
    HalfOpen,
    AnswerCut,
    SlowDrip,
    EndlessAnswer,
)


def _kms_names(ground: Ground) -> list[x509.GeneralName]:
    return [x509.DNSName(kms_host(ground.emulator.region)), x509.DNSName("localhost")]


def _read_request(tls: ssl.SSLSocket) -> HttpRequest:
    """One request, trusting its form: a client that sends another meets no attack here."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(tls, len(data))
    head, _, body = data.partition(b"\r\n\r\n")
    line, *fields = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (f.partition(":") for f in fields)}
    while len(body) < int(headers.get("content-length", 0)):
        body += _some(tls, len(body))
    method, target, _version = line.split(" ")
    return HttpRequest(method, target, headers, body)


def _some(tls: ssl.SSLSocket, held: int) -> bytes:
    piece = tls.recv(65_536)
    if not piece or held > _REQUEST_MAX:
        raise ConnectionError
    return piece


def _written(answer: HttpAnswer) -> bytes:
    fields = [*answer.headers, ("content-length", str(len(answer.body)))]
    lines = [f"HTTP/1.1 {answer.status} OK", *(f"{name}: {value}" for name, value in fields)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + answer.body
