"""What the VM is made of: the tools of `scripts/vm/tools`, and the image's root file system.

Both are scripts that cache what they make and print where it is. `CannotError` is raised where they
say, by exit code 75, that it cannot be had on this machine: a reason to skip, and no failure.
"""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1]
CANNOT = 75  # EX_TEMPFAIL, as scripts/oracle has it


class CannotError(Exception):
    """Something cannot be had on this machine; the reason, in one line."""


class BrokenError(Exception):
    """Something did not work that has to; what, in one line."""


@dataclass(frozen=True)
class Tools:
    """Where the VM's parts are."""

    qemu: Path
    vsock: Path
    kernel: Path


def cache() -> Path:
    """The VM's folder in the user's cache, as scripts/vm/_cache has it."""
    around = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("KMSTOOL_CACHE") or Path(around, "kmstool"), "vm")


def find_tools() -> Tools:
    """Builds the tools or finds them in the cache. Raises: CannotError, BrokenError."""
    found = dict(line.split(" ", 1) for line in run_script("vm/tools").splitlines())
    return Tools(*(Path(found[name]) for name in ("qemu", "vsock", "kernel")))


def find_emulator_base() -> tuple[Path, str]:
    """The folder in which the emulator has an OpenSSL with X25519MLKEM768, and its version.

    Raises: CannotError, BrokenError.
    """
    found = dict(line.split(" ", 1) for line in run_script("vm/emulator-base").splitlines())
    return Path(found["folder"]), found["openssl"]


def take_layer(folder: Path) -> Path:
    """The image's root file system as shipped, copied into `folder`: a cache may be cleared.

    Raises: CannotError, BrokenError.
    """
    lines = run_script("build-enclave-image").splitlines()
    folders = [line.removeprefix("folder ") for line in lines if line.startswith("folder ")]
    layer = folder / "layer"
    shutil.copytree(Path(folders[0], "rootfs"), layer, symlinks=True)
    return layer


def run_script(name: str) -> str:
    """What a script prints; its stderr is passed on. Raises: CannotError, BrokenError."""
    with subprocess.Popen(
        [SCRIPTS / name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said = []
        try:
            for line in process.stderr:
                sys.stderr.write(line)
                said.append(line.strip())
            output = process.stdout.read()
        except BaseException:  # we are being ended: so is what it builds
            os.killpg(process.pid, signal.SIGTERM)
            raise
    if process.returncode == CANNOT:
        reasons = [line.partition(": error: ")[2] for line in said if ": error: " in line]
        raise CannotError(reasons[-1] if reasons else f"scripts/{name} does not say why")
    if process.returncode:
        raise BrokenError(f"scripts/{name} failed, exit code {process.returncode}")
    return output
