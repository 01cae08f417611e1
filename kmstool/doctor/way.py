"""The way to KMS: its name, the forwarder, TLS, the key exchange, and an answer of KMS' own.

The request that KMS is sent here is not signed and asks for nothing: KMS refuses it, and what
counts is that it does, and its Date.
"""

import socket
import ssl
import time
from collections.abc import Mapping

from kmstool.arn import KeyArn
from kmstool.caveats import CUSTOM_ROOTS
from kmstool.doctor.certificate import end_of, root_of
from kmstool.doctor.handshake import key_exchange_group
from kmstool.doctor.server_hello import GROUPS, HYBRID
from kmstool.enclave.exchange import parse_http_date
from kmstool.enclave.http import HttpConnection
from kmstool.enclave.tls import open_tls
from kmstool.endpoint import Deadline, connect, forwarder_hint, parse_address
from kmstool.errors import TransportError
from kmstool.findings import Check, Fact, Outcome, caution, fine, wrong
from kmstool.protocol import target_header
from kmstool.refusals import parse_error
from kmstool.session import DirectWay, SessionOptions, direct_way

_ASKED = "Decrypt"
# What KMS says to a request without a signature. Other services have other codes, and an answer of
# status 5xx says nothing of whether KMS is there.
_UNSIGNED = frozenset({"MissingAuthenticationToken", "MissingAuthenticationTokenException"})
_ELSEWHERE = "check where the forwarder leads, and --host"


class Way:
    """The checks of the way, and what later ones want to know.

    Attributes:
        found: what options and environment say of it, once the first check has read them.
        clock_offset: KMS' Date less this machine's clock, in seconds, or None.
    """

    def __init__(
        self, options: SessionOptions, key: KeyArn | None, environ: Mapping[str, str]
    ) -> None:
        self.found: DirectWay | None = None
        self.clock_offset: float | None = None
        self._options = options
        self._key = key
        self._environ = environ

    def checks(self) -> tuple[Check, ...]:
        """In their order."""
        seconds = self._options.timeout
        return (
            Check("settings", seconds, self._settings),
            Check("forwarder", seconds, self._forwarder, needs=("settings",)),
            Check("tls", seconds, self._tls, ("forwarder",), _ELSEWHERE),
            Check("key-exchange", seconds, self._key_exchange, ("tls",), _ELSEWHERE),
            Check("kms", seconds, self._kms, ("tls",), _ELSEWHERE),
        )

    def _settings(self, _deadline: Deadline) -> Outcome:
        way = self.found = direct_way(self._options, key=self._key, environ=self._environ)
        roots = "roots that were given" if CUSTOM_ROOTS in way.caveats else "Amazon's roots"
        return fine(
            f"{way.host} by way of {' or '.join(way.addresses)}, under {roots}",
            caveats=way.caveats,
            facts={
                "host": way.host,
                "region": way.region,
                "addresses": " ".join(way.addresses),
                "custom_roots": CUSTOM_ROOTS in way.caveats,
            },
        )

    def _forwarder(self, deadline: Deadline) -> Outcome:
        way = self._known()
        failures: list[TransportError] = []
        for text in way.addresses:
            started = time.monotonic()
            try:
                self._connect(text, deadline).close()
            except TransportError as error:
                failures.append(error)
                continue
            milliseconds = (time.monotonic() - started) * 1000
            facts: dict[str, Fact] = {"address": text, "milliseconds": round(milliseconds, 1)}
            words = f"{text} answers, in {milliseconds:.1f} ms"
            if failures:
                return caution(f"{words}; before it, {failures[0]}", failures[0].hint, facts=facts)
            return fine(words, facts=facts)
        return wrong("; ".join(map(str, failures)), failures[-1].hint)

    def _tls(self, deadline: Deadline) -> Outcome:
        way = self._known()
        with self._open_tls(deadline) as tls:
            version = tls.version()
            cipher = (tls.cipher() or ("unknown",))[0]
            ends = end_of(tls)
            root = root_of(tls)
        end = "at a time that cannot be read" if ends is None else f"{ends:%Y-%m-%d}"
        return fine(
            f"{version}, {cipher}; the certificate for {way.host} ends {end}, and"
            f" its chain leads to {root or 'one of the roots'}",
            facts={
                "version": version,
                "cipher": cipher,
                "certificate_ends": None if ends is None else ends.isoformat(),
                "root": root,
            },
        )

    def _key_exchange(self, deadline: Deadline) -> Outcome:
        way = self._known()
        with self._first(deadline) as sock:
            number = key_exchange_group(
                sock, host=way.host, roots_pem=way.roots_pem, deadline=deadline
            )
        name = GROUPS.get(number, f"group {number}")
        facts: dict[str, Fact] = {"group": name, "hybrid": number in HYBRID}
        if number in HYBRID:
            return fine(f"{name}, which a quantum computer does not open", facts=facts)
        library = ssl.OPENSSL_VERSION.partition(" ")[2].partition(" ")[0]
        words = f"{name}; the OpenSSL here, {library}, has no hybrid with ML-KEM, which 3.5 brings"
        if ssl.OPENSSL_VERSION_INFO >= (3, 5):
            words = f"{name}; KMS took no hybrid with ML-KEM here"
        return fine(words, facts=facts)

    def _kms(self, deadline: Deadline) -> Outcome:
        connection = HttpConnection(self._open_tls(deadline), self._known().host)
        try:
            headers = {
                "Content-Type": "application/x-amz-json-1.1",
                "X-Amz-Target": target_header(_ASKED),
            }
            answer = connection.post(headers, b"{}", deadline)
        finally:
            connection.close()
        now = time.time()
        if answer.status == 200:
            return wrong(
                "what answers carried out a request that was not signed: it is not KMS",
                _ELSEWHERE,
            )
        error = parse_error(_ASKED, answer.status, answer.headers, answer.body)
        date = parse_http_date(answer.headers.get("date", ""))
        self.clock_offset = None if date is None else date - now
        words = f"answers; a request without a signature it refuses ({error.code})"
        facts: dict[str, Fact] = {
            "status": answer.status,
            "code": error.code,
            "request_id": error.request_id,
        }
        if error.request_id is None:
            return caution(
                f"{words}, without a request id, which KMS always gives",
                "check where the forwarder leads",
                facts=facts,
            )
        if error.code not in _UNSIGNED:
            return caution(
                f"answers with status {answer.status} ({error.code}), where KMS says that the"
                " signature is missing",
                error.hint or _ELSEWHERE,
                facts=facts,
            )
        return fine(words, facts=facts)

    def _known(self) -> DirectWay:
        assert self.found is not None  # noqa: S101 - `needs`
        return self.found

    def _connect(self, text: str, deadline: Deadline) -> socket.socket:
        address = parse_address(text)
        return connect(address, deadline, hint=forwarder_hint(address, self._known().host))

    def _first(self, deadline: Deadline) -> socket.socket:
        *others, last = self._known().addresses
        for text in others:
            try:
                return self._connect(text, deadline)
            except TransportError:
                continue
        return self._connect(last, deadline)

    def _open_tls(self, deadline: Deadline) -> ssl.SSLSocket:
        way = self._known()
        return open_tls(
            self._first(deadline), host=way.host, roots_pem=way.roots_pem, deadline=deadline
        )
