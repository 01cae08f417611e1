"""The ground that the CLI's tests stand on: a simulated module, a CA, a KMS, a directory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from support.bent_kms import _CHAIN, IMAGE
from support.ground import Ground
from support.hostile_server import HostileAuthority
from support.processes import CREDENTIALS_JSON, InProcess

from kmstool.emulator.nsm import SimulatedNsm
from kmstool.emulator.nsm_server import NsmServer


@pytest.fixture(scope="session")
def authority() -> HostileAuthority:
    return HostileAuthority()


@pytest.fixture(scope="session")
def emulator_directory(
    tmp_path_factory: pytest.TempPathFactory, authority: HostileAuthority
) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("emulator")
    Path(directory, "ca.pem").write_text(authority.pem)
    Path(directory, "enclave-credentials.json").write_text(CREDENTIALS_JSON)

    def fail(_request: bytes) -> bytes:
        return cbor2.dumps({"Error": "InternalError"})

    with (
        NsmServer(SimulatedNsm(IMAGE, _CHAIN).handle, directory / "nsm.sock"),
        NsmServer(SimulatedNsm({}, _CHAIN).handle, directory / "debug.sock"),
        NsmServer(fail, directory / "failing.sock"),
    ):
        yield directory


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """An empty working directory."""
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def ground(emulator_directory: Path, authority: HostileAuthority, work: Path) -> Iterator[Ground]:
    ground = Ground(emulator_directory, authority, work)
    yield ground
    ground.server.close()


@pytest.fixture
def in_process(
    capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, work: Path
) -> InProcess:
    return InProcess(capfdbinary, monkeypatch, work)


@pytest.fixture
def one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """No retries, which would only repeat what a test is about."""
    monkeypatch.setattr("kmstool.endpoint.RETRY_ATTEMPTS", 1)


@pytest.fixture(scope="session")
def ready_key() -> Any:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
def quick_key(monkeypatch: pytest.MonkeyPatch, ready_key: Any) -> None:
    """One recipient key for many runs in this process; making it costs more than all the rest."""
    monkeypatch.setattr(
        "kmstool.enclave.recipient.rsa.generate_private_key", lambda *_arguments: ready_key
    )
