"""`kmstool doctor` on the parent: each check fails once, on real files and sockets."""

import errno
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.emulator import RunningEmulator, running_emulator
from support.loopback import serving
from support.parents import parent_up
from support.patients import Examined

from kmstool.endpoint import Address, Deadline, VsockAddress, parse_address
from kmstool.errors import LocalFileError, TransportError
from kmstool.findings import Verdict, examine
from kmstool.parent import check_outside
from kmstool.parent.check_services import is_listened_on, parse_counts
from kmstool.parent.checks import parent_checks
from kmstool.parent.configuration import Reading, read_configuration
from kmstool.parent.issued import Issued

ROLE = "arn:aws:iam::111122223333:role/enclave"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """`dev` and `sys` of an instance on which the allocator has done its work."""
    folder = tmp_path / "root"
    for name, value in {
        "dev/nitro_enclaves": "",
        "sys/module/nitro_enclaves/parameters/ne_cpus": "1,3\n",
        "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "256\n",
        "sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages": "1\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(value)
    (folder / "dev/vsock").symlink_to("/dev/vsock")
    return folder


def look(
    root: Path,
    text: str | None = None,
    *,
    forwarders: tuple[Address, ...] = (parse_address("unix:/nonexistent/x"),),
    host: str | None = None,
    only: tuple[str, ...] = (),
) -> Examined:
    """Runs the checks, or only some of them and what they need."""

    def read() -> Reading:
        def no_file(name: str) -> bytes:
            raise LocalFileError(f"cannot read {name}")

        return read_configuration((text or "").encode(), read_file=no_file)

    checks = parent_checks(
        read=None if text is None else read,
        forwarders=forwarders,
        host=host,
        region="eu-west-1",
        root=root,
    )
    chosen = [one for one in checks if not only or one.name in only]
    return Examined(list(examine(chosen)))


MACHINE = ("enclaves", "allocator", "vsock")
SERVICES = ("configuration", "forwarder", "services", "metrics")
WAY = ("configuration", "names", "targets")


# --- The machine -------------------------------------------------------------------------------


def vsock_works() -> bool:
    try:
        with Path("/dev/vsock").open("rb"):
            socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True


def test_a_machine_that_runs_enclaves(root: Path) -> None:
    found = look(root, only=MACHINE[:2])
    assert found.with_verdict(Verdict.FINE) == ["enclaves", "allocator"]
    assert found["allocator"].text == "CPUs 1,3 and 1536 MiB in huge pages are set aside"


def test_a_machine_without_the_driver(root: Path) -> None:
    (root / "dev/nitro_enclaves").unlink()
    found = look(root, only=MACHINE[:2])
    assert found.wrong == ["enclaves"]
    assert "modprobe nitro_enclaves" in str(found["enclaves"].advice)
    assert found["allocator"].verdict is Verdict.NOT_TRIED


def test_a_user_who_may_not_run_enclaves(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda _path, _mode: False)  # root may everything
    found = look(root, only=("enclaves",))
    assert found.cautions == ["enclaves"]
    assert "group ne" in str(found["enclaves"].advice)


@pytest.mark.parametrize(
    ("cpus", "pages", "words"),
    [
        ("", "0", "neither CPUs nor memory are set aside"),
        ("\n", "256", "no CPUs are set aside"),
        ("1,3\n", "0", "no memory is set aside"),
    ],
)
def test_nothing_is_set_aside(root: Path, cpus: str, pages: str, words: str) -> None:
    (root / "sys/module/nitro_enclaves/parameters/ne_cpus").write_text(cpus)
    for file in (root / "sys/kernel/mm/hugepages").glob("*/nr_hugepages"):
        file.write_text(pages)
    found = look(root, only=MACHINE[:2])
    assert found.wrong == ["allocator"]
    assert words in found["allocator"].text
    assert "nitro-enclaves-allocator" in str(found["allocator"].advice)


@pytest.mark.skipif(not vsock_works(), reason="this machine has no vsock")
def test_vsock(root: Path) -> None:
    found = look(root, only=("vsock",))["vsock"]
    assert found.verdict is Verdict.FINE
    assert isinstance(found.facts["cid"], int)


def test_no_vsock(root: Path) -> None:
    (root / "dev/vsock").unlink()
    assert look(root, only=("vsock",)).wrong == ["vsock"]
    (root / "dev/vsock").touch()  # a file, not the device
    assert look(root, only=("vsock",)).wrong == ["vsock"]


def test_a_vsock_with_nothing_behind_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module without a transport: the kernel says VMADDR_CID_ANY."""

    def no_cid(_file: object, _request: int, number: bytearray) -> None:
        number[:] = b"\xff" * 4

    monkeypatch.setattr("kmstool.parent.check_machine.fcntl.ioctl", no_cid)
    found = look(root, only=("vsock",))["vsock"]
    assert found.verdict is Verdict.WRONG
    assert "no CID" in found.text


# --- The services ------------------------------------------------------------------------------


def test_no_file_and_no_forwarder(root: Path) -> None:
    found = look(root, only=SERVICES)
    assert found.wrong == ["forwarder"]
    assert "nobody listens on unix:/nonexistent/x" in found["forwarder"].text
    assert found.with_verdict(Verdict.NOT_TRIED) == ["configuration", "services", "metrics"]


def test_no_file_and_a_forwarder(root: Path) -> None:
    with serving(lambda _connection: None) as port:
        address = parse_address(f"tcp://127.0.0.1:{port}")
        found = look(root, forwarders=(address,), only=SERVICES)
    assert found.wrong == []


def test_a_file_with_mistakes(root: Path) -> None:
    one = '[[forward]]\nlisten = "unix:/x"\nto = "127.0.0.1"\n'
    found = look(root, one, only=("configuration",))["configuration"]
    assert found.verdict is Verdict.WRONG
    assert "the port is missing" in found.text
    found = look(root, one + "[relay]\n", only=("configuration",))["configuration"]
    assert "mistakes, the first: [[forward]] 1, to" in found.text
    assert "--check" in str(found.advice)


def test_everything_that_the_file_starts_runs(root: Path) -> None:
    session = {
        "AWS_ACCESS_KEY_ID": "ASIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "s3cr3t/acc3ss+k3y-Zk81LmQw",
        "AWS_SESSION_TOKEN": "s3ss10n/t0k3n+Xy77PqRs0",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    text = (
        'metrics = "unix:{here}/metrics"\n'
        '[[forward]]\nlisten = "unix:{here}/direct"\nto = "127.0.0.1:PORT"\n'
        '[credentials]\nlisten = "unix:{here}/credentials"\n'
    )
    with serving(lambda _connection: None) as port:
        text = text.replace("PORT", str(port))
        with parent_up(text, environ=session) as parent:
            written = text.replace("{here}", str(parent.folder))
            found = look(root, written, only=(*SERVICES, "names", "targets"))
            assert found.wrong == []
            assert set(found.with_verdict(Verdict.FINE)) == {*SERVICES, "names", "targets"}
            assert found["metrics"].text.startswith("1 connections, ")
            (parent.folder / "metrics").unlink()
            (parent.folder / "credentials").unlink()
            found = look(root, written, only=SERVICES)
            assert found.wrong == ["services", "metrics"]
            assert "credentials" in found["services"].text
    assert look(root, written, only=SERVICES).wrong == ["forwarder", "services", "metrics"]


def test_what_serves_no_metrics(root: Path) -> None:
    def handle(connection: socket.socket) -> None:
        connection.recv(1_000)
        connection.sendall(b"SSH-2.0-x\r\n")

    with serving(handle) as port:
        found = look(
            root, f'metrics = "tcp://127.0.0.1:{port}"\n{forward_to("127.0.0.1:9")}', only=SERVICES
        )
    assert "does not serve metrics" in found["metrics"].text


def test_counts_are_summed_over_labels() -> None:
    text = (
        "# TYPE kmstool_forward_refusals_total counter\n"
        'kmstool_forward_refusals_total{listen="a",reason="x"} 2\n'
        'kmstool_forward_refusals_total{listen="b",reason="y"} 3\n'
        'kmstool_forward_bytes_total{listen="a"} 9\n'
        "kmstool_forward_connections_open nonsense\n"
    )
    assert parse_counts(text) == {"kmstool_forward_refusals_total": 5}


def test_a_count_that_no_counter_reaches_is_passed_over() -> None:
    """Whoever holds the metrics' port can write any number of digits."""
    assert parse_counts(f"kmstool_forward_refusals_total {'9' * 5000}\n") == {}


@pytest.mark.skipif(not vsock_works(), reason="this machine has no vsock")
def test_whether_somebody_listens_on_a_vsock() -> None:
    """Nobody is connected to: the port is bound, here as there."""
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as held:
        held.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
        port = held.getsockname()[1]
        address = VsockAddress(socket.VMADDR_CID_ANY, port)
        assert is_listened_on(address, Deadline(5))
    assert not is_listened_on(address, Deadline(5))


def test_a_vsock_of_which_nothing_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: Any) -> socket.socket:
        raise OSError(errno.EACCES, "no")

    monkeypatch.setattr("socket.socket", refuse)
    with pytest.raises(TransportError, match="cannot be told: permission denied"):
        is_listened_on(VsockAddress(socket.VMADDR_CID_ANY, 8000), Deadline(5))


# --- The outside -------------------------------------------------------------------------------


def forward_to(target: str) -> str:
    return f'[[forward]]\nlisten = "unix:/nonexistent/x"\nto = "{target}"\n'


def test_a_name_that_is_not_found(root: Path) -> None:
    found = look(root, forward_to("kms.invalid:443"), only=WAY)
    assert found.wrong == ["names"]
    assert "kms.invalid" in found["names"].text
    assert found["targets"].verdict is Verdict.NOT_TRIED


def test_a_target_that_does_not_answer(root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    found = look(root, forward_to(f"127.0.0.1:{port}"), only=WAY)
    assert found.wrong == ["targets"]
    assert "security group" in str(found["targets"].advice)


def test_without_a_file_the_target_is_kms(root: Path) -> None:
    assert look(root, only=WAY)["names"].verdict is Verdict.NOT_TRIED
    assert look(root, host="kms.invalid", only=WAY).wrong == ["names"]


@pytest.fixture
def quiet_chain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of this machine's own gets into botocore's chain."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))


@pytest.fixture(scope="module")
def emulator() -> Iterator[RunningEmulator]:
    with running_emulator() as running:
        yield running


@pytest.mark.usefixtures("quiet_chain")
def test_no_credentials(root: Path) -> None:
    found = look(root, only=("credentials", "role"))
    assert found.wrong == ["credentials"]
    assert "no source has credentials" in found["credentials"].text
    assert found["role"].verdict is Verdict.NOT_TRIED


@pytest.mark.usefixtures("quiet_chain")
def test_long_term_keys(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t/acc3ss+k3y-Zk81LmQw")
    found = look(root, only=("credentials",))
    assert found.wrong == ["credentials"]
    assert "long-term keys" in found["credentials"].text
    assert "s3cr3t" not in found.text


@pytest.mark.usefixtures("quiet_chain")
def test_whose_the_credentials_are(
    root: Path, emulator: RunningEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in emulator.environment().items():
        monkeypatch.setenv(name, value)
    text = f'[credentials]\nlisten = "unix:/nonexistent/x"\nassume_role = "{ROLE}"\n'
    found = look(root, text, only=("configuration", "credentials", "role"))
    assert found.wrong == []
    assert "ASIA…" in found["credentials"].text
    assert "good for 59 min more" in found["credentials"].text
    assert found["role"].facts["arn"] == ("arn:aws:sts::111122223333:assumed-role/enclave/kmstool")
    refused = text.replace("role/enclave", "role/nobody-s")
    found = look(root, refused, only=("configuration", "credentials", "role"))
    assert found.wrong == ["credentials"]
    assert "AWS refused AssumeRole" in found["credentials"].text


@pytest.mark.usefixtures("quiet_chain")
def test_an_sts_that_is_not_reached(
    root: Path, emulator: RunningEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    enclave = emulator.emulator.enclave
    assert enclave is not None
    assert enclave.session_token is not None
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", enclave.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", enclave.secret_access_key)
    monkeypatch.setenv("AWS_SESSION_TOKEN", enclave.session_token)
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1")
    found = look(root, only=("credentials", "role"))
    assert found.wrong == ["role"]
    for secret in (enclave.secret_access_key, enclave.session_token):
        assert secret not in found.text


def test_when_they_end_is_told() -> None:
    issued = Issued(
        access_key_id="ASIAEXAMPLE",
        secret_access_key="x" * 20,
        session_token="y" * 20,
        expiration=datetime.now(UTC) + timedelta(minutes=10, seconds=30),
        method="iam-role",
    )
    assert check_outside._end_of(issued) == "good for 10 min more"
