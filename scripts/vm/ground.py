"""The parent's side of the VM: an emulator behind real `kmstool parent` services.

The emulator's simulated hypervisor and QEMU are one: `emulator serve` makes a signing chain for
this run (root, intermediates, a P-384 leaf of three hours), QEMU signs with it, and the root of it
is the emulator's KMS' Nitro root. The emulator's own simulated security module is there and is not
used: the guest has no way to it.

Its TLS is that of Debian 13, as the image's is, so that the two agree on X25519MLKEM768: it runs in
a chroot of the image's base. Where that cannot be had it runs outside, on the OpenSSL there.
"""

import json
import os
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import botocore.session

from vm.image import Given
from vm.machine import Machine
from vm.processes import Processes
from vm.tools import SCRIPTS, CannotError, find_emulator_base

FORWARD, RELAY, CREDENTIALS = 8000, 8001, 8002
ENCLAVE_ROLE = "arn:aws:iam::111122223333:role/enclave"
ADMIN_ROLE = "arn:aws:iam::111122223333:role/admin"
# `derive` over the relay is the parent's call, with its own credentials.
CALLERS = [ENCLAVE_ROLE, ADMIN_ROLE]
ATTESTED = ["kms:Decrypt", "kms:DeriveSharedSecret", "kms:GenerateDataKey"]


class Ground:
    """An emulator in `folder`/emulator, and the parents once they are started."""

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.folder = folder
        self.inside = False
        self._processes = processes

    @property
    def chain(self) -> Path:
        """For NSM_TEST_DIR."""
        return self.folder / "emulator" / "nitro"

    @property
    def given(self) -> Given:
        """The roots that this run's image has: of KMS' certificate, and of attestation."""
        folder = self.folder / "emulator"
        return Given((folder / "ca.pem").read_bytes(), self.nitro_root.read_bytes())

    @property
    def nitro_root(self) -> Path:
        """The root of the chain that QEMU signs with, as a file."""
        return self.chain / "ca0.der"

    @property
    def log(self) -> str:
        """What the emulator says of each request."""
        return self._processes.log("emulator").read_text()

    def environ(self) -> dict[str, str]:
        """What leads kmstool and AWS SDKs to the emulator, as `emulator serve` printed it."""
        lines = (self.folder / "emulator.out").read_text().splitlines()
        words = (shlex.split(line.removeprefix("export "))[0] for line in lines)
        return {**_clean(os.environ), **dict(word.split("=", 1) for word in words)}

    def start_emulator(self) -> str:
        """Starts the emulator and waits for it; says where it runs. Raises: BrokenError."""
        command = ["emulator", "serve", "--dir", str(self.folder / "emulator")]
        try:
            base, openssl = find_emulator_base()
        except CannotError as error:
            where = f"the emulator runs outside, with the OpenSSL of this machine: {error}"
            command = ["kmstool", *command]
        else:
            where = f"the emulator runs in a chroot of the image's base, with {openssl}"
            inner = [SCRIPTS / "vm" / "emulator-in", base, self.folder, "-m", "kmstool"]
            command = [*map(str, inner), *command]
            self.inside = True
        self._processes.start("emulator", command, _clean(os.environ))
        output = self.folder / "emulator.out"
        self._processes.wait_for(
            "emulator", lambda: "AWS_DEFAULT_REGION" in output.read_text(), 60, "its environment"
        )
        return where

    def kms(self) -> Any:
        """An AWS SDK's client that acts as the administrator."""
        variables = self.environ()
        return botocore.session.Session().create_client(
            "kms",
            region_name=variables["AWS_REGION"],
            endpoint_url=variables["AWS_ENDPOINT_URL_KMS"],
            verify=variables["AWS_CA_BUNDLE"],
            aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        )

    def start_parents(self, machine: Machine, keys: Iterable[str]) -> None:
        """Forwarder, credentials and relay, on the VM's parent ports. Raises: BrokenError."""
        environ = self.environ()
        kms_port = environ["AWS_ENDPOINT_URL_KMS"].rpartition(":")[2]
        given = {
            "forward": (FORWARD, ["--to", f"127.0.0.1:{kms_port}"]),
            "credentials": (CREDENTIALS, ["--assume-role", ENCLAVE_ROLE]),
            "relay": (RELAY, [word for arn in keys for word in ("--allow-key", arn)]),
        }
        for name, (port, options) in given.items():
            path = machine.parent_socket(port)
            listen = ["kmstool", "parent", name, "--listen", f"unix:{path}"]
            self._processes.start(name, [*listen, *options], environ)
        for name, (port, _) in given.items():
            self._processes.wait_for(name, machine.parent_socket(port).exists, 60, "its socket")


def policy_for(pcrs: Mapping[int, bytes]) -> str:
    """A key policy: the administrator's, and attested calls for one image alone."""
    condition = {
        f"kms:RecipientAttestation:PCR{index}": pcrs[index].hex() for index in sorted(pcrs)
    }
    administer = [
        "kms:DescribeKey",
        "kms:GetKeyPolicy",
        "kms:PutKeyPolicy",
        "kms:GetPublicKey",
        "kms:Encrypt",
    ]
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Sid": "Administer",
                    "Effect": "Allow",
                    "Principal": {"AWS": ADMIN_ROLE},
                    "Action": administer,
                    "Resource": "*",
                },
                {
                    "Sid": "OneImage",
                    "Effect": "Allow",
                    "Principal": {"AWS": CALLERS},
                    "Action": ATTESTED,
                    "Resource": "*",
                    "Condition": {"StringEqualsIgnoreCase": condition},
                },
            ],
        }
    )


def _clean(environ: Mapping[str, str]) -> dict[str, str]:
    """Less what would lead an AWS SDK or kmstool elsewhere."""
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith(("AWS_", "KMSTOOL_")) and name != "PYTHONPATH"
    }
