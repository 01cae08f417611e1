"""A file of any size is sealed and opened in the memory of a few chunks.

Measured as the peak resident memory (getrusage) of a process that seals and opens, less that of one
that imports the same and does nothing.
"""

import subprocess
import sys
from pathlib import Path

import pytest

MIB = 1024 * 1024
BOUND = 32 * MIB

PROGRAM = """
import os, resource, sys
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kmstool.arn import parse_key_arn
from kmstool.sealing.files import open_sealed, seal
from kmstool.sealing.recipients import DataKeyRecipient

class Holder:
    caveats = ()
    def unwrap(self, *_arguments):
        return bytes(32)

arn = parse_key_arn("arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab")
recipient = DataKeyRecipient(key=arn, data_key=bytes(32), ciphertext_blob=b"x")
signing_key = Ed25519PrivateKey.generate()
step, folder = sys.argv[1:]
if step == "seal":
    with open(folder + "/plain", "rb", 0) as source, open(folder + "/sealed", "wb", 0) as target:
        seal(source, target, [recipient], signing_key=signing_key, read_ahead=True)
if step == "open":
    with open(folder + "/sealed", "rb", 0) as source, open(os.devnull, "wb", 0) as target:
        open_sealed(source, lambda: target, Holder(), key=arn, read_ahead=True)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def peak(step: str, folder: Path) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, step, str(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


def check(folder: Path, size: int) -> None:
    with Path(folder, "plain").open("wb") as file:
        file.truncate(size)
    idle = peak("nothing", folder)
    assert peak("seal", folder) - idle <= BOUND
    assert Path(folder, "sealed").stat().st_size > size
    assert peak("open", folder) - idle <= BOUND


def test_256_mib(tmp_path: Path) -> None:
    check(tmp_path, 256 * MIB)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_4_gib(tmp_path: Path) -> None:
    check(tmp_path, 4096 * MIB)
