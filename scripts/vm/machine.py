"""One enclave VM: QEMU, its vsock, and the agent in it.

The vsock's parent side are Unix sockets in one folder: a listener `vm.vsock_PORT` is the parent's
port PORT, and a connection to `vm.vsock` reaches the enclave after the line `CONNECT PORT`. Nothing
of it is the machine's own vsock.
"""

import base64
import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vm.image import PARENT_ID, PARENT_ROLE, Image
from vm.processes import Processes
from vm.tools import BrokenError, Tools

AGENT_PORT = 5000
GUEST_CID = 16
BOOT_SECONDS = 60.0
BOOTS = 2  # one retry: a loaded host now and then stops an emulated CPU's clock
SOCKET = "vm.vsock"
UNIX_PATH_MAX = 107  # bytes


@dataclass(frozen=True)
class Ran:
    """What a run of kmstool in the guest gave."""

    code: int
    stdout: bytes
    stderr: str
    seconds: float
    lines: tuple[tuple[float, str], ...]  # of stderr, each with the seconds at which it came


class Machine:
    """A VM in `folder`, whose path has to be short: it holds Unix sockets.

    Raises: BrokenError, where it is not.
    """

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.folder = folder
        self._processes = processes
        if len(str(self.parent_socket(65535)).encode()) > UNIX_PATH_MAX:
            raise BrokenError(f"{folder} is too long for Unix sockets: set TMPDIR to a shorter one")

    def parent_socket(self, port: int) -> Path:
        """Where the parent listens for the enclave's connections to this port."""
        return self.folder / f"{SOCKET}_{port}"

    @property
    def serial(self) -> Path:
        """What the guest wrote to its console, of every boot."""
        return self.folder / "serial.log"

    def boot(self, tools: Tools, image: Image, chain: Path) -> float:
        """Boots it until its agent is ready, with one retry; the seconds that took.

        Raises: BrokenError.
        """
        for attempt in range(1, BOOTS + 1):
            try:
                return self._boot(tools, image, chain)
            except BrokenError as error:
                self.stop()
                if attempt == BOOTS:
                    raise BrokenError(f"{error}; the console's log is {self.serial}") from None
                print(f"enclave-vm: the boot failed and is tried once more: {error}", flush=True)
        raise AssertionError

    def stop(self) -> None:
        """Ends the VM and its vsock."""
        for name in ("qemu", "vsock"):
            if name in self._processes.names():
                self._processes.stop(name)
        for name in (SOCKET, "vhost.sock"):
            (self.folder / name).unlink(missing_ok=True)

    def _boot(self, tools: Tools, image: Image, chain: Path) -> float:
        vhost = self.folder / "vhost.sock"
        # Without the buffer's size a send of more than 32 KiB hangs.
        device = f"guest-cid={GUEST_CID},socket={vhost},uds-path={self.folder / SOCKET}"
        device += ",tx-buffer-size=28672"
        command: list[str | Path] = [tools.vsock / "vhost-device-vsock", "--vm", device]
        self._processes.start("vsock", command)
        self._processes.wait_for("vsock", vhost.exists, 10, "its socket")
        start = time.monotonic()
        before = self.serial.stat().st_size if self.serial.exists() else 0
        environ = {"NSM_TEST_DIR": str(chain), "PATH": "/usr/bin:/bin"}
        self._processes.start("qemu", self._command(tools, image, vhost), environ)

        def ready() -> bool:
            if not self.serial.exists():
                return False
            return b"agent: ready" in self.serial.read_bytes()[before:]

        self._processes.wait_for("qemu", ready, BOOT_SECONDS, "the agent of the guest")
        return time.monotonic() - start

    def _command(self, tools: Tools, image: Image, vhost: Path) -> list[str | Path]:
        machine = f"nitro-enclave,vsock=c,id=kmstool-vm,parent-role={PARENT_ROLE}"
        # acpi: Debian's kernel finds the virtio devices by it, and not by its command line.
        machine += f",parent-id={PARENT_ID},acpi=on"
        command: list[str | Path] = [
            tools.qemu / "qemu-system-x86_64",
            *("-M", machine, "-kernel", image.eif, "-L", tools.qemu / "firmware"),
            *("-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1G"),
            *("-display", "none", "-nodefaults", "-no-reboot"),
            *("-chardev", f"socket,id=c,path={vhost}"),
            *("-chardev", f"file,id=s,path={self.serial},append=on", "-serial", "chardev:s"),
        ]
        return command

    def ask(self, request: dict[str, Any], seconds: float = 180) -> dict[str, Any]:
        """One request to the agent. Raises: BrokenError."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(seconds)
            try:
                connection.connect(str(self.folder / SOCKET))
                connection.sendall(f"CONNECT {AGENT_PORT}\n".encode())
                with connection.makefile("rwb") as stream:
                    line = stream.readline(100)
                    if not line.startswith(b"OK "):
                        raise BrokenError("the guest's agent does not take a connection")
                    body = json.dumps(request).encode()
                    stream.write(len(body).to_bytes(4, "big") + body)
                    stream.flush()
                    length = int.from_bytes(stream.read(4), "big")
                    answer: dict[str, Any] = json.loads(stream.read(length))
                    return answer
            except (OSError, ValueError) as error:
                raise BrokenError(f"the guest's agent does not answer: {error}") from None

    def kmstool(
        self, *arguments: str, stdin: bytes = b"", files: dict[str, bytes] | None = None
    ) -> Ran:
        """Runs kmstool in the guest. Raises: BrokenError."""
        given = {name: base64.b64encode(data).decode() for name, data in (files or {}).items()}
        request = {
            "kmstool": list(arguments),
            "stdin": base64.b64encode(stdin).decode(),
            "files": given,
        }
        answer = self.ask(request)
        return Ran(
            answer["code"],
            base64.b64decode(answer["stdout"]),
            answer["stderr"],
            answer["seconds"],
            tuple((seconds, line) for seconds, line in answer["lines"]),
        )

    def nsm(self, request: bytes, capacity: int = 0x3000) -> bytes | int:
        """One raw request to /dev/nsm: the answer, or the driver's errno. Raises: BrokenError."""
        answer = self.ask({"nsm": base64.b64encode(request).decode(), "capacity": capacity})
        return answer["errno"] if "errno" in answer else base64.b64decode(answer["answer"])
