"""An enclave image of any size is written and measured in the memory of a few pieces.

Measured as the peak resident memory (VmHWM) of a process that does it, less that of one that
imports the same and does nothing. getrusage would not do: a new process starts with the peak of the
one that made it. The ramdisk is sparse, and so is the image.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from support.eif_images import bzimage

MIB = 1024 * 1024
BOUND = 16 * MIB

PROGRAM = """
import os, sys
from pathlib import Path
from kmstool.attestation.eif import read_eif
from kmstool.attestation.eif_writer import write_eif

class Sparse:
    def __init__(self, file):
        self.file, self.seek, self.end = file, file.seek, 0
    def write(self, data):
        if len(data) == 1048576 and not any(data[:64]) and data == bytes(1048576):
            self.file.seek(len(data), os.SEEK_CUR)
        else:
            self.file.write(data)
        self.end = max(self.end, self.file.tell())

step, folder = sys.argv[1], Path(sys.argv[2])
size = 0
if step == "write":
    with open(folder / "image.eif", "wb", 0) as file:
        disks = [folder / "first", folder / "second"]
        output = Sparse(file)
        write_eif(output, kernel=folder / "kernel", command_line="quiet", ramdisks=disks)
        file.truncate(output.end)
if step == "read":
    with open(folder / "image.eif", "rb", 0) as file:
        size = read_eif(file).size
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) * 1024, size)
"""


def run(step: str, folder: Path) -> tuple[int, int]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, step, str(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    peak, size = map(int, done.stdout.split())
    return peak, size


def check(folder: Path, size: int) -> None:
    Path(folder, "kernel").write_bytes(bzimage())
    for name, length in (("first", MIB // 2), ("second", size)):
        with Path(folder, name).open("wb") as file:
            file.write(b"070701")
            file.truncate(length)
    idle, _ = run("nothing", folder)
    peak, _ = run("write", folder)
    assert peak - idle <= BOUND
    peak, read = run("read", folder)
    assert peak - idle <= BOUND
    assert read == Path(folder, "image.eif").stat().st_size > size


def test_64_mib(tmp_path: Path) -> None:
    check(tmp_path, 64 * MIB)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_1_gib(tmp_path: Path) -> None:
    check(tmp_path, 1024 * MIB)
