"""TLS against real servers on loopback, each with one fault."""

import json
import socket
import ssl
import subprocess
import sys
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from support.certificates import DAY, Authority
from support.loopback import Handler, over_tls, serving, wait_for_close

from kmstool.enclave.tls import open_tls
from kmstool.endpoint import Deadline
from kmstool.errors import SettingError, TransportError

ROOT = Authority.make()


def server_context(certificate: str, **versions: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    for name, version in versions.items():
        setattr(context, name, version)
    return context


def attempt(handler: Handler, *, host: str = "localhost", seconds: float = 10) -> ssl.SSLSocket:
    """What a client that trusts `ROOT` gets from a server; it is closed by then."""
    with serving(handler) as port:
        sock = socket.create_connection(("127.0.0.1", port), timeout=5)
        try:
            tls = open_tls(sock, host=host, roots_pem=ROOT.pem, deadline=Deadline(seconds))
        except BaseException:
            assert sock.fileno() == -1, "the socket was left open"
            raise
        with tls:
            assert tls.version() == "TLSv1.3"
            assert tls.selected_alpn_protocol() in (None, "http/1.1")
            return tls


def refusal(handler: Handler, *, host: str = "localhost", seconds: float = 10) -> TransportError:
    with pytest.raises(TransportError) as caught:
        attempt(handler, host=host, seconds=seconds)
    assert str(caught.value)[0].islower()
    return caught.value


def presenting(path: str) -> Handler:
    return over_tls(server_context(path), wait_for_close)


def test_good_server(tmp_path: Path) -> None:
    attempt(presenting(ROOT.issue(tmp_path)))


def test_alpn_is_http_1_1(tmp_path: Path) -> None:
    context = server_context(ROOT.issue(tmp_path))
    context.set_alpn_protocols(["h2", "http/1.1"])
    seen: list[str | None] = []

    def handler(connection: socket.socket) -> None:
        assert isinstance(connection, ssl.SSLSocket)
        seen.append(connection.selected_alpn_protocol())
        wait_for_close(connection)

    attempt(over_tls(context, handler))
    assert seen == ["http/1.1"]


def test_names_of_the_server_are_sent_and_checked(tmp_path: Path) -> None:
    name = "kms.eu-west-1.amazonaws.com"
    context = server_context(ROOT.issue(tmp_path, host=name))
    asked: list[str | None] = []
    context.sni_callback = lambda _sock, server_name, _context: asked.append(server_name)
    attempt(over_tls(context, wait_for_close), host=name)
    assert asked == [name]


@pytest.mark.parametrize(
    "authority",
    [Authority.make("Somebody Else"), Authority.make("Test Root")],
    ids=["of another name", "of the same name with another key"],
)
def test_another_ca(authority: Authority, tmp_path: Path) -> None:
    error = refusal(presenting(authority.issue(tmp_path)))
    assert "from a CA that is not among the roots" in str(error)
    assert "ends TLS" in (error.hint or "")
    assert not error.retryable


def test_a_leaf_that_signed_itself(tmp_path: Path) -> None:
    other = Authority.make("localhost")
    key = other.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = tmp_path / "self.pem"
    path.write_text(other.pem + key.decode())
    error = refusal(presenting(str(path)))
    assert "from a CA that is not among the roots" in str(error)


def test_a_chain_with_its_own_root(tmp_path: Path) -> None:
    other = Authority.make("localhost")
    path = tmp_path / "self.pem"
    leaf = Path(other.issue(tmp_path)).read_text()
    path.write_text(leaf + other.pem)
    error = refusal(presenting(str(path)))
    assert "from a CA that is not among the roots" in str(error)


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [(-2 * DAY, -DAY, "has expired"), (DAY, 2 * DAY, "is not valid yet")],
)
def test_dates(start: timedelta, end: timedelta, message: str, tmp_path: Path) -> None:
    error = refusal(presenting(ROOT.issue(tmp_path, not_before=start, not_after=end)))
    assert message in str(error)
    assert f"clock says {time.gmtime().tm_year}-" in (error.hint or "")
    assert not error.retryable


@pytest.mark.parametrize(
    ("host", "common_name"),
    [("kms.us-east-1.amazonaws.com", "leaf"), (None, "localhost"), ("*", "leaf")],
    ids=["another host", "only a common name", "a wildcard for everything"],
)
def test_wrong_host(host: str | None, common_name: str, tmp_path: Path) -> None:
    error = refusal(presenting(ROOT.issue(tmp_path, host=host, common_name=common_name)))
    assert str(error) == "the certificate is not for localhost"
    assert "--host" in (error.hint or "")


def test_certificate_for_clients(tmp_path: Path) -> None:
    path = ROOT.issue(tmp_path, usage=ExtendedKeyUsageOID.CLIENT_AUTH)
    error = refusal(presenting(path))
    assert str(error).startswith("the certificate of localhost was refused: un")
    assert "purpose" in str(error)


def test_tls_1_2_server(tmp_path: Path) -> None:
    context = server_context(ROOT.issue(tmp_path), maximum_version=ssl.TLSVersion.TLSv1_2)
    error = refusal(over_tls(context, wait_for_close))
    assert str(error) == "the server that answers for localhost does not speak TLS 1.3"
    assert "forwarder leads to something else" in (error.hint or "")
    assert not error.retryable


def after_hello(answer: bytes) -> Handler:
    def handle(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(answer)
        wait_for_close(connection)

    return handle


def test_server_hello_of_tls_1_2() -> None:
    """A server so old that it does not read supported_versions, and just answers with 1.2."""
    hello = bytes.fromhex("0303") + bytes(32) + b"\0" + bytes.fromhex("c02f00")
    record = bytes.fromhex("160303") + (len(hello) + 4).to_bytes(2, "big") + b"\x02\0\0"
    error = refusal(after_hello(record + bytes([len(hello)]) + hello))
    assert "does not speak TLS 1.3" in str(error)


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n"],
)
def test_server_without_tls(answer: bytes) -> None:
    error = refusal(after_hello(answer))
    assert str(error) == "the server that answers for localhost does not speak TLS"
    assert "port 443" in (error.hint or "")
    assert not error.retryable


def test_name_that_the_server_does_not_serve() -> None:
    error = refusal(after_hello(bytes.fromhex("15030300020270")))
    assert str(error) == "the server that was reached does not serve localhost"


def test_any_other_alert_has_its_name() -> None:
    error = refusal(after_hello(bytes.fromhex("15030300020250")))
    assert "TLSV1_ALERT_INTERNAL_ERROR" in str(error)


@pytest.mark.parametrize("read_first", [False, True], ids=["reset", "closed"])
def test_server_that_closes(read_first: bool) -> None:
    def handle(connection: socket.socket) -> None:
        if read_first:
            connection.recv(65_536)

    error = refusal(handle)
    assert "was closed during the TLS handshake" in str(error)
    assert "its log on the parent says why" in (error.hint or "")
    assert error.retryable


def test_server_that_is_silent() -> None:
    start = time.monotonic()
    error = refusal(wait_for_close, seconds=0.5)
    assert "0.5 seconds was used up during the TLS handshake with localhost" in str(error)
    assert time.monotonic() - start < 3
    assert not error.retryable


def test_server_that_dribbles_meets_the_deadline() -> None:
    """A byte now and then must not extend the time: the deadline is one for the whole."""

    def handle(connection: socket.socket) -> None:
        connection.recv(65_536)
        for byte in bytes.fromhex("1603030100") + bytes(100):
            connection.sendall(bytes([byte]))
            time.sleep(0.2)

    start = time.monotonic()
    error = refusal(handle, seconds=1)
    assert "was used up during the TLS handshake" in str(error)
    assert time.monotonic() - start < 2.5


def test_deadline_that_is_over_before() -> None:
    error = refusal(wait_for_close, seconds=0)
    assert "used up during the TLS handshake" in str(error)


@pytest.mark.parametrize("roots", ["", "nonsense", "-----BEGIN CERTIFICATE-----\n", "é"])
def test_roots_that_are_none(roots: str) -> None:
    ours, theirs = socket.socketpair()
    with closing(theirs):
        with pytest.raises(SettingError, match="not certificates in PEM"):
            open_tls(ours, host="localhost", roots_pem=roots, deadline=Deadline(5))
        assert ours.fileno() == -1


def test_interruption_closes_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: ssl.SSLSocket) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ssl.SSLSocket, "do_handshake", interrupt)
    ours, theirs = socket.socketpair()
    with closing(theirs):
        with pytest.raises(KeyboardInterrupt):
            open_tls(ours, host="localhost", roots_pem=ROOT.pem, deadline=Deadline(5))
        assert theirs.recv(1) == b""


CLIENT = """
import json, ssl, socket, sys
from kmstool.enclave.tls import open_tls
from kmstool.endpoint import Deadline
from kmstool.errors import TransportError
roots, port = open(sys.argv[1]).read(), int(sys.argv[2])
control = ssl.create_default_context().cert_store_stats()["x509_ca"]
highest = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).maximum_version
sock = socket.create_connection(("127.0.0.1", port))
try:
    open_tls(sock, host="localhost", roots_pem=roots, deadline=Deadline(10)).close()
    outcome = "connected"
except TransportError as error:
    outcome = str(error)
print(json.dumps({"outcome": outcome, "default_cas": control, "highest": int(highest)}))
"""

OPENSSL_CONFIGURATION = """
openssl_conf = start
[start]
ssl_conf = sections
[sections]
system_default = defaults
[defaults]
MaxProtocol = TLSv1.2
VerifyCAFile = {roots}
VerifyMode = Once
"""


@pytest.mark.parametrize("trusted", [False, True], ids=["server of another CA", "our server"])
def test_no_environment_variable_changes_whom_we_trust(
    trusted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSL_CERT_FILE, SSL_CERT_DIR, SSLKEYLOGFILE and OPENSSL_CONF, with controls that they work.

    OpenSSL itself reads OPENSSL_CONF, which can lower the versions of TLS and, in a section of its
    own, name CA files.
    """
    other = Authority.make("Somebody Else")
    (tmp_path / "other.pem").write_text(other.pem)
    (tmp_path / "roots.pem").write_text(ROOT.pem)
    configuration = tmp_path / "openssl.cnf"
    configuration.write_text(OPENSSL_CONFIGURATION.format(roots=tmp_path / "other.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "other.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys.log"))
    monkeypatch.setenv("OPENSSL_CONF", str(configuration))
    authority = ROOT if trusted else other
    with serving(presenting(authority.issue(tmp_path))) as port:
        done = subprocess.run(
            [sys.executable, "-c", CLIENT, str(tmp_path / "roots.pem"), str(port)],
            capture_output=True,
            text=True,
            check=True,
        )
    found = json.loads(done.stdout)
    assert found["default_cas"] == 1, "control: SSL_CERT_FILE is read by a default context"
    assert found["highest"] == ssl.TLSVersion.TLSv1_2, "control: OPENSSL_CONF is read"
    if trusted:
        assert found["outcome"] == "connected"
    else:
        assert "not among the roots" in found["outcome"]
    # The control above made the file by create_default_context; we must not have written into it.
    assert (tmp_path / "keys.log").read_text().count("SECRET") == 0


def test_handshake_needs_no_idna_codec(tmp_path: Path) -> None:
    """A str as server_hostname would load three modules into every cold start."""
    with serving(presenting(ROOT.issue(tmp_path))) as port:
        (tmp_path / "roots.pem").write_text(ROOT.pem)
        script = CLIENT.replace("socket.create_connection((", "connect_plainly((")
        script = script.replace(
            "roots, port =",
            "def connect_plainly(address):\n"
            "    sock = socket.socket()\n"
            "    sock.connect((address[0].encode(), address[1]))\n"
            "    return sock\n"
            "roots, port =",
        )
        script = script.replace(
            '{"outcome": outcome', '{"idna": "encodings.idna" in sys.modules, "outcome": outcome'
        )
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "roots.pem"), str(port)],
            capture_output=True,
            text=True,
            check=True,
        )
    assert json.loads(done.stdout)["outcome"] == "connected"
    assert json.loads(done.stdout)["idna"] is False
