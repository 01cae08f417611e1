"""An emulator's directory whose KMS a test bends: where the CLI's tests stand."""

import base64
import json
from pathlib import Path
from typing import Any

from support.bent_kms import KEY_ARN, BentKms
from support.hostile_server import HostileAuthority, HostileServer, kms_answers
from support.processes import PLAINTEXT, Finished, run_kmstool

CIPHERTEXT = base64.b64encode(b"ciphertext of the test")


class Ground:
    """An emulator's directory whose KMS a test bends.

    Attributes:
        directory: KMSTOOL_EMULATOR.
        work: an empty working directory.
        server: the KMS that the directory names.
        kms: what answers there.
    """

    def __init__(self, directory: Path, authority: HostileAuthority, work: Path) -> None:
        self.directory = directory
        self.authority = authority
        self.work = work
        self.kms = BentKms(PLAINTEXT.encode())
        self.server = HostileServer(authority.context(), kms_answers(self.kms))
        self.name_kms(self.server.address)

    @property
    def env(self) -> dict[str, str]:
        """For a process that shall come here."""
        return {"KMSTOOL_EMULATOR": str(self.directory), "KMSTOOL_KEY_ID": KEY_ARN}

    def name_kms(self, address: str, nsm: str = "nsm.sock") -> None:
        """Writes `emulator.json`."""
        settings = {
            "version": 1,
            "nsm": nsm,
            "ca": "ca.pem",
            "kms": address,
            "credentials": "enclave-credentials.json",
        }
        Path(self.directory, "emulator.json").write_text(json.dumps(settings))

    def run(self, *arguments: str, stdin: bytes = CIPHERTEXT, **options: Any) -> Finished:
        """A whole process with everything that it would say."""
        env = {**self.env, **options.pop("env", {})}
        return run_kmstool(
            *arguments, "--verbose", directory=self.work, env=env, stdin=stdin, **options
        )
