"""An emulator in the test's own process, and clients of its KMS by other authors.

with running_emulator() as emulator:
    kms = emulator.admin_client()          # an unmodified boto3 client
    environ = emulator.kmstool_environ()   # for session.open_direct or a child process
"""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import botocore.config
import botocore.session

from kmstool.emulator.pcrs import label_pcrs
from kmstool.emulator.principals import Principal
from kmstool.emulator.running import Emulator, EmulatorOptions


@dataclass
class RunningEmulator:
    """A running emulator with what tests ask of it."""

    emulator: Emulator
    log: list[str] = field(default_factory=list)
    _clients: list[Any] = field(default_factory=list)

    @property
    def directory(self) -> Path:
        """What KMSTOOL_EMULATOR has to name."""
        return self.emulator.directory

    @property
    def kms_address(self) -> str:
        """tcp://127.0.0.1:PORT"""
        return self.emulator.kms_address

    @property
    def ca_file(self) -> Path:
        """The root of the simulated KMS' certificate."""
        return self.emulator.ca_file

    @property
    def endpoint_url(self) -> str:
        """For endpoint_url of an AWS SDK."""
        return f"https://localhost:{self.emulator.address.port}"

    @property
    def region(self) -> str:
        return self.emulator.region

    def environment(self) -> dict[str, str]:
        """What `emulator run` sets for its command."""
        return self.emulator.environment

    def kmstool_environ(self) -> dict[str, str]:
        """The two variables that kmstool itself reads."""
        return {
            "KMSTOOL_EMULATOR": str(self.directory),
            "KMSTOOL_REGION": self.region,
        }

    def admin_client(self, **options: Any) -> Any:
        """A boto3 KMS client that acts as the administrator."""
        return self.client(self.emulator.admin, **options)

    def enclave_client(self, **options: Any) -> Any:
        """A boto3 KMS client that acts as the enclave's role."""
        assert self.emulator.enclave is not None
        return self.client(self.emulator.enclave, **options)

    def client(self, principal: Principal, **options: Any) -> Any:
        """A boto3 KMS client for any principal; without retries, so that errors show at once."""
        config = botocore.config.Config(retries={"total_max_attempts": 1})
        client = botocore.session.Session().create_client(
            "kms",
            region_name=options.pop("region_name", self.region),
            endpoint_url=options.pop("endpoint_url", self.endpoint_url),
            verify=options.pop("verify", str(self.ca_file)),
            aws_access_key_id=principal.access_key_id,
            aws_secret_access_key=principal.secret_access_key,
            aws_session_token=principal.session_token,
            config=config,
            **options,
        )
        self._clients.append(client)
        return client

    def attest(self, **fields: Any) -> bytes:
        """A document of the emulator's own security module, signed now; fields as sign_document."""
        fields.setdefault("module_id", "i-0123456789abcdef0-enc0123456789abcdef")
        fields.setdefault("timestamp", int(time.time() * 1000))
        fields.setdefault("pcrs", dict.fromkeys(range(16), bytes(48)) | label_pcrs())
        return self.emulator.chain.sign_document(**fields)

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.emulator.close()


@contextlib.contextmanager
def running_emulator(
    options: EmulatorOptions | None = None, **changes: Any
) -> Iterator[RunningEmulator]:
    """Starts an emulator; `changes` are fields of `EmulatorOptions` (pcrs=…, shapes=…, clock=…)."""
    log: list[str] = []
    chosen = replace(options or EmulatorOptions(), report=log.append)
    # Not pytest's tmp_path: the path of a Unix socket has at most 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="kmstool-"))
    try:
        running = RunningEmulator(Emulator(directory, replace(chosen, **changes)), log)
        try:
            yield running
        finally:
            running.close()
    finally:
        shutil.rmtree(directory)
