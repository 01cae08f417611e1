"""What the VM is made of: the tools that `scripts/vm/tools` built, and the image's root file system.

Both are scripts that cache what they make and print where it is. `Cannot` is raised where they say,
by exit code 75, that it cannot be had on this machine: a reason to skip, and no failure.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CANNOT = 75  # EX_TEMPFAIL, as scripts/oracle has it


class Cannot(Exception):
    """Something cannot be had on this machine; the reason, in one line."""


class Broken(Exception):
    """Something did not work that has to; what, in one line."""


@dataclass(frozen=True)
class Tools:
    """Where the VM's parts are."""

    qemu: Path
    vsock: Path
    kernel: Path


def find_tools() -> Tools:
    """Builds the tools or finds them in the cache. Raises: Cannot, Broken."""
    found = dict(line.split(" ", 1) for line in run_script("tools").splitlines())
    return Tools(*(Path(found[name]) for name in ("qemu", "vsock", "kernel")))


def find_layer() -> Path:
    """The folder of the image's root file system, as it is shipped. Raises: Cannot, Broken."""
    return Path(run_script("layer").splitlines()[-1])


def run_script(name: str) -> str:
    """What a script of this folder prints; its stderr is passed on. Raises: Cannot, Broken."""
    with subprocess.Popen(
        [HERE / name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            sys.stderr.write(line)
            said.append(line.strip())
        output = process.stdout.read()
    if process.returncode == CANNOT:
        reasons = [line for line in said if ": error: " in line]
        raise Cannot(reasons[-1] if reasons else f"scripts/vm/{name} does not say why")
    if process.returncode:
        raise Broken(f"scripts/vm/{name} failed, exit code {process.returncode}")
    return output
