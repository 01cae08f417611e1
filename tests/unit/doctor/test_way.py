"""The way to KMS, with something else than KMS at its end, or nothing; and the other setup."""

import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.emulator import RunningEmulator, running_emulator
from support.hostile_server import KMS_HOST, HostileAuthority, HostileServer, http_bytes
from support.loopback import serving
from support.patients import Examined, bent_directory, enclave_machine, examined

from kmstool.doctor.machine import Machine
from kmstool.enclave.http import HttpAnswer
from kmstool.errors import SettingError
from kmstool.findings import Verdict

AUTHORITY = HostileAuthority()
BEHIND_FORWARDER = ["tls", "key-exchange", "kms"]


@pytest.fixture(scope="module")
def emulator() -> Iterator[RunningEmulator]:
    with running_emulator() as running:
        yield running


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return enclave_machine(tmp_path / "machine")


@pytest.fixture
def look(emulator: RunningEmulator, machine: Machine, tmp_path: Path) -> Callable[[str], Examined]:
    """Examines an enclave whose KMS is at an address, under the hostile authority's root."""
    folder = tmp_path / "emulator"
    folder.mkdir()

    def look_at(address: str) -> Examined:
        nsm = emulator.emulator.nsm.handle
        with bent_directory(folder, emulator, handle=nsm, kms=address, ca=AUTHORITY.pem) as environ:
            return examined(environ, machine, timeout=3.0)

    return look_at


def answer(status: int, **headers: str) -> Callable[[dict[str, str], bytes], bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _headers, _body: http_bytes(HttpAnswer(status, named, b"{}", keep_alive=False))


def test_no_forwarder(emulator: RunningEmulator, machine: Machine) -> None:
    found = examined(emulator.kmstool_environ(), machine, via=("direct=unix:/nonexistent/x",))
    assert found.wrong == ["forwarder"]
    assert "kmstool parent forward" in str(found["forwarder"].advice)
    for name in BEHIND_FORWARDER:
        assert found[name].verdict is Verdict.NOT_TRIED
    assert found["clock"].verdict is Verdict.FINE  # by the document alone


def test_the_first_of_two_forwarders_is_gone(emulator: RunningEmulator, machine: Machine) -> None:
    via = ("direct=unix:/nonexistent/x", "direct")
    found = examined(emulator.kmstool_environ(), machine, via=via)
    assert (found.wrong, found.cautions) == ([], ["forwarder"])
    assert "unix:/nonexistent/x" in found["forwarder"].text


def test_a_forwarder_that_hangs_up(look: Callable[[str], Examined]) -> None:
    with serving(lambda _connection: None) as port:
        found = look(f"tcp://127.0.0.1:{port}")
    assert found.wrong == ["tls"]
    assert "its log on the parent says why" in str(found["tls"].advice)


def test_a_forwarder_that_says_nothing(look: Callable[[str], Examined]) -> None:
    with HostileServer(None) as server:
        found = look(server.address)
    assert found.wrong == ["tls"]
    assert "3 seconds" in found["tls"].text


def test_a_server_of_tls_1_2(look: Callable[[str], Examined]) -> None:
    with HostileServer(AUTHORITY.context(version=ssl.TLSVersion.TLSv1_2)) as server:
        found = look(server.address)
    assert found.wrong == ["tls"]
    assert "TLS 1.3" in found["tls"].text
    assert found["kms"].verdict is Verdict.NOT_TRIED


def test_another_ca(look: Callable[[str], Examined]) -> None:
    with HostileServer(HostileAuthority().context()) as server:
        found = look(server.address)
    assert found.wrong == ["tls"]
    assert "not among the roots" in found["tls"].text


def test_another_host(look: Callable[[str], Examined]) -> None:
    with HostileServer(AUTHORITY.context("kms.us-east-1.amazonaws.com")) as server:
        found = look(server.address)
    assert found.wrong == ["tls"]
    assert f"not for {KMS_HOST}" in found["tls"].text


def test_a_certificate_that_has_expired(look: Callable[[str], Examined]) -> None:
    with HostileServer(AUTHORITY.context(expired=True)) as server:
        found = look(server.address)
    assert found.wrong == ["tls"]
    assert "clock" in str(found["tls"].advice)


def test_a_handshake_that_breaks_the_second_time(look: Callable[[str], Examined]) -> None:
    context = AUTHORITY.context()
    connections = 0

    def handle(connection: socket.socket) -> None:
        nonlocal connections
        connections += 1
        if connections == 3:  # after that of the forwarder's check, and the first handshake
            return
        with context.wrap_socket(connection, server_side=True) as tls:
            tls.recv(65_536)

    with serving(handle) as port:
        found = look(f"tcp://127.0.0.1:{port}")
    assert "key-exchange" in found.wrong
    assert found["tls"].verdict is Verdict.FINE


@pytest.mark.parametrize(
    ("respond", "verdict", "words"),
    [
        (answer(200, x_amzn_requestid="0a1b-2c3d"), Verdict.WRONG, "it is not KMS"),
        (answer(403), Verdict.CAUTION, "without a request id"),
        (answer(400, x_amzn_requestid="0a1b-2c3d"), Verdict.CAUTION, "HTTP400"),
        (answer(503, x_amzn_requestid="0a1b-2c3d"), Verdict.CAUTION, "HTTP503"),
        (
            answer(404, x_amzn_requestid="0a1b-2c3d", x_amzn_errortype="UnknownOperationException"),
            Verdict.CAUTION,
            "status 404 (UnknownOperationException)",
        ),
        (
            answer(
                400,
                x_amzn_requestid="0a1b-2c3d",
                x_amzn_errortype="MissingAuthenticationTokenException",
            ),
            Verdict.FINE,
            "it refuses (MissingAuthenticationTokenException)",
        ),
        (lambda _headers, _body: b"SSH-2.0-x\r\n", Verdict.WRONG, "status line"),
    ],
)
def test_something_that_is_not_kms(
    look: Callable[[str], Examined],
    respond: Callable[[dict[str, str], bytes], bytes],
    verdict: Verdict,
    words: str,
) -> None:
    with HostileServer(AUTHORITY.context(), respond) as server:
        found = look(server.address)
    assert found["kms"].verdict is verdict
    assert words in found["kms"].text


def test_the_request_without_a_signature_carries_nothing(look: Callable[[str], Examined]) -> None:
    seen: list[tuple[dict[str, str], bytes]] = []

    def respond(headers: dict[str, str], body: bytes) -> bytes:
        seen.append((headers, body))
        return answer(400)(headers, body)

    with HostileServer(AUTHORITY.context(), respond) as server:
        look(server.address)
    ((headers, body),) = seen
    assert body == b"{}"
    assert set(headers) == {"host", "content-length", "content-type", "x-amz-target"}


@pytest.mark.parametrize(
    ("date", "verdict"),
    [
        ("Tue, 24 Nov 2020 08:00:00 GMT", Verdict.WRONG),
        ("yesterday", Verdict.FINE),
    ],
)
def test_kms_lives_in_another_time(
    look: Callable[[str], Examined], date: str, verdict: Verdict
) -> None:
    with HostileServer(AUTHORITY.context(), answer(400, date=date)) as server:
        found = look(server.address)["clock"]
    assert found.verdict is verdict
    assert ("KMS' Date" in found.text) == (verdict is Verdict.WRONG)


def test_no_region(machine: Machine) -> None:
    found = examined({"KMSTOOL_CREDENTIALS": "unix:/nonexistent/x"}, machine)
    assert "the region is not known" in found["settings"].text
    assert found["forwarder"].verdict is Verdict.NOT_TRIED


def test_roots_that_are_none(emulator: RunningEmulator, machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "roots.pem").write_text("nothing")
    roots = str(tmp_path / "roots.pem")
    found = examined(emulator.kmstool_environ(), machine, roots_file=roots)
    assert "tls" in found.wrong
    roots = str(tmp_path / "gone.pem")
    found = examined(emulator.kmstool_environ(), machine, roots_file=roots)
    assert found.wrong == ["settings"]


# --- Over a relay ------------------------------------------------------------------------------


def test_a_relay_that_is_there_and_one_that_is_not(
    emulator: RunningEmulator, machine: Machine, tmp_path: Path
) -> None:
    with serving(lambda _connection: None) as port:
        address = f"tcp://127.0.0.1:{port}"
        found = examined(emulator.kmstool_environ(), machine, via=(f"relay={address}",))
    assert found.wrong == []
    assert address in found["relay"].text
    assert found["permission"].verdict is Verdict.NOT_TRIED
    assert not any(one.check in ("tls", "credentials") for one in found.findings)
    found = examined(emulator.kmstool_environ(), machine, via=("relay=unix:/nonexistent/x",))
    assert found.wrong == ["relay"]
    assert "kmstool parent relay" in str(found["relay"].advice)


def test_both_setups_at_once_are_refused(emulator: RunningEmulator, machine: Machine) -> None:
    with pytest.raises(SettingError, match="--via names a relay"):
        examined(emulator.kmstool_environ(), machine, via=("relay", "direct"))
