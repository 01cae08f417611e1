"""scripts/enclave-vm, run as whoever has a clone runs it; skips where its sources cannot be had.

Its temporary files are in a folder of their own, so that what stays behind is seen.
"""

import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = str(ROOT / "scripts" / "enclave-vm")
CANNOT = 75  # what it is built from cannot be had on this machine


@dataclass
class EnclaveVm:
    """The script with a TMPDIR of its own, short enough for Unix sockets."""

    temporary: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="vm-")))
    variables: dict[str, str] = field(default_factory=dict)

    def __call__(
        self, *arguments: str, stdin: bytes = b"", report: Callable[[str], None] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs it to its end. A skip's reason is reported as well, to be seen in any log."""
        done = subprocess.run(
            [SCRIPT, *arguments],
            input=stdin,
            capture_output=True,
            env=self.environ(),
            check=False,
        )
        if done.returncode == CANNOT:
            reason = done.stderr.decode().strip().splitlines()[-1]
            if report is not None:
                report(f"SKIPPED: {reason}")
            pytest.skip(reason)
        return done

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Starts it, for a test that does not let it end."""
        return subprocess.Popen(
            [SCRIPT, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self.environ(),
        )

    def environ(self) -> dict[str, str]:
        """The environment around, with its own TMPDIR and what a test sets."""
        around = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return around | {"TMPDIR": str(self.temporary)} | self.variables

    def processes(self) -> list[str]:
        """Command lines of processes that still have to do with it."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # it ended meanwhile
                continue
            if str(self.temporary) in command:
                found.append(command)
        return found
