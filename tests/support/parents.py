"""`kmstool parent up` as a real process, with what systemd would hear of it.

with parent_up(text, environ) as parent:      # `{here}` in the text is a folder of its own
    parent.address("direct"), parent.said("ready"), parent.rewrite(other), parent.end()
"""

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from support.processes import command, environment


@dataclass
class ParentProcess:
    """A running `kmstool parent up`, whose stderr is collected."""

    process: subprocess.Popen[str]
    folder: Path
    notify: socket.socket
    lines: list[str] = field(default_factory=list)

    def address(self, name: str) -> str:
        """Of a Unix socket in its folder."""
        return f"unix:{self.folder / name}"

    def connect(self, name: str) -> socket.socket:
        """A connection to it, with a time limit."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(20)
        sock.connect(str(self.folder / name))
        return sock

    def said(self, text: str, *, after: int = 0) -> str:
        """The first line with `text`, waited for."""
        for _ in range(1_000):
            for line in self.lines[after:]:
                if text in line:
                    return line
            if self.process.poll() is not None and not self._growing():
                break
            time.sleep(0.02)
        raise AssertionError("".join(self.lines[after:]))

    def _growing(self) -> bool:
        before = len(self.lines)
        time.sleep(0.2)
        return len(self.lines) > before

    def told(self) -> str:
        """The next message to systemd, waited for."""
        return self.notify.recv(4_096).decode()

    def rewrite(self, text: str) -> str:
        """Writes another file, has it read, and returns what the log then says of it."""
        (self.folder / "parent.toml").write_text(text.replace("{here}", str(self.folder)))
        after = len(self.lines)
        self.process.send_signal(signal.SIGHUP)
        for _ in range(1_000):
            for line in self.lines[after:]:
                if "settings" in line:
                    return line
            time.sleep(0.02)
        raise AssertionError("".join(self.lines[after:]))

    def end(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal and returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=30)


@contextlib.contextmanager
def parent_up(
    text: str, *options: str, environ: Mapping[str, str] | None = None, ready: bool = True
) -> Iterator[ParentProcess]:
    """Starts it, and waits until it says that it is ready."""
    folder = Path(tempfile.mkdtemp(prefix="kmstool-"))
    file = folder / "parent.toml"
    file.write_text(text.replace("{here}", str(folder)))
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(folder / "notify"))
    notify.settimeout(20)
    process = subprocess.Popen(
        command("parent", "up", "--config", str(file), *options),
        env=environment({"NOTIFY_SOCKET": str(folder / "notify"), **(environ or {})}),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    parent = ParentProcess(process, folder, notify)
    reader = threading.Thread(target=lambda: parent.lines.extend(process.stderr or ()))
    reader.start()
    try:
        if ready:
            parent.said("note: ready")
        yield parent
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join()
        process.stderr.close()
        notify.close()
        shutil.rmtree(folder)
