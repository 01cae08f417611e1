"""Processes that outlive the command that started them, and are stopped by no name but their id.

A folder holds NAME.pid (id and start time, so that a number given to another process later is not
taken for ours) and NAME.log. `run` and `down` stop them alike.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from vm.tools import BrokenError, cache

STOP_SECONDS = 10.0


class Processes:
    """The processes of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._children: list[subprocess.Popen[bytes]] = []

    def start(
        self, name: str, command: Sequence[str | Path], environ: Mapping[str, str] | None = None
    ) -> None:
        """Starts one in a session of its own, its output in NAME.log (stdout alone in NAME.out)."""
        with self.log(name).open("ab") as log, (self.folder / f"{name}.out").open("wb") as out:
            child = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                cwd=self.folder,
                env=None if environ is None else dict(environ),
                start_new_session=True,
            )
        self._children.append(child)
        (self.folder / f"{name}.pid").write_text(f"{child.pid} {_started(child.pid)}\n")

    def log(self, name: str) -> Path:
        """Where stderr of one goes."""
        return self.folder / f"{name}.log"

    def running(self, name: str) -> bool:
        """Whether it is still there."""
        if not (self.folder / f"{name}.pid").exists():
            return False
        number, started = self._read(name)
        return _started(number) == started != ""

    def wait_for(self, name: str, ready: Callable[[], bool], seconds: float, what: str) -> None:
        """Waits until it is ready. Raises: BrokenError when it ends, or the time does."""
        end = time.monotonic() + seconds
        while not ready():
            if not self.running(name):
                raise BrokenError(f"{name} ended before {what}: {self.tail(name)}")
            if time.monotonic() > end:
                raise BrokenError(f"{name}: {seconds:.0f} s without {what}: {self.tail(name)}")
            time.sleep(0.05)

    def tail(self, name: str) -> str:
        """The last lines it wrote."""
        lines = self.log(name).read_text(errors="replace").splitlines()
        return " | ".join(lines[-5:]) or "(it wrote nothing)"

    def names(self) -> list[str]:
        """Of all that were started and not stopped, the newest first."""
        paths = sorted(self.folder.glob("*.pid"), key=lambda path: path.stat().st_mtime_ns)
        return [path.stem for path in reversed(paths)]

    def stop(self, name: str) -> None:
        """Ends one: SIGTERM, and SIGKILL when that is not heard."""
        number, started = self._read(name)
        for sign in (signal.SIGTERM, signal.SIGKILL):
            if _started(number) == started != "":
                os.kill(number, sign)
            end = time.monotonic() + STOP_SECONDS
            while _started(number) == started != "" and time.monotonic() < end:
                self._reap()
                time.sleep(0.02)
        (self.folder / f"{name}.pid").unlink(missing_ok=True)

    def stop_all(self) -> None:
        """Ends all, the newest first."""
        for name in self.names():
            self.stop(name)

    def keep_logs(self) -> None:
        """Copies them to where `last_logs` says, in the place of those before."""
        place = last_logs()
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for path in self.folder.glob("*.log"):
            shutil.copy(path, place)

    def _read(self, name: str) -> tuple[int, str]:
        number, _, started = (self.folder / f"{name}.pid").read_text().strip().partition(" ")
        return int(number), started

    def _reap(self) -> None:
        self._children = [child for child in self._children if child.poll() is None]


def last_logs() -> Path:
    """The folder with the logs of the last run."""
    return cache() / "last-run"


def _started(number: int) -> str:
    """When the process started, in ticks since boot; empty where it is gone or waits to be."""
    try:
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
