"""Relays for tests: a real process, and one in memory that a test bends.

with relay_process(emulator, keys) as relay:    # `kmstool parent relay` on a Unix socket
    run_kmstool("decrypt", "--via", f"relay={relay.address}", …)
"""

import base64
import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.bent_kms import KEY_ARN, InProcessNsm, public_key_of
from support.emulator import RunningEmulator
from support.processes import command, environment

from kmstool.emulator.cms_writer import Shape, write_enveloped_data
from kmstool.enclave.nsm import Nsm
from kmstool.enclave.recipient import Recipient
from kmstool.enclave.relayed import RelayedKms
from kmstool.endpoint import Deadline
from kmstool.errors import InputError
from kmstool.framing import build_frame, build_relay_answer, parse_relay_request, read_frame


@dataclass
class RelayProcess:
    """A running `kmstool parent relay`, whose stderr is collected."""

    process: subprocess.Popen[str]
    address: str
    lines: list[str] = field(default_factory=list)

    def said(self, text: str, *, after: int = 0) -> str:
        """The first line with `text`, waited for: the relay logs when the answer is out."""
        for _ in range(500):
            for line in self.lines[after:]:
                if text in line:
                    return line
            time.sleep(0.02)
        raise AssertionError("".join(self.lines[after:]))

    def end(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal and returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=30)


@contextlib.contextmanager
def relay_process(
    emulator: RunningEmulator,
    keys: Sequence[str],
    *options: str,
    environ: Mapping[str, str] | None = None,
) -> Iterator[RelayProcess]:
    """Starts a relay against the emulator and waits until it listens."""
    folder = Path(tempfile.mkdtemp(prefix="kmstool-"))
    address = f"unix:{folder}/relay.sock"
    allowed = [word for key in keys for word in ("--allow-key", key)]
    process = subprocess.Popen(
        command("parent", "relay", "--listen", address, *allowed, *options),
        env=environment(emulator.environment() | dict(environ or {})),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    relay = RelayProcess(process, address)
    reader = threading.Thread(target=lambda: relay.lines.extend(process.stderr or ()))
    try:
        assert select.select([process.stderr], [], [], 30)[0], "the relay says nothing"
        relay.lines.append(process.stderr.readline())
        assert "listening on" in relay.lines[0], relay.lines[0] + process.stderr.read()
        reader.start()
        yield relay
    finally:
        process.kill() if process.poll() is None else None
        process.wait()
        if reader.ident is not None:
            reader.join()
        process.stderr.close()
        shutil.rmtree(folder)


Bend = Callable[[dict[str, Any]], Any]
Envelop = Callable[[bytes], bytes]


class BentRelay:
    """A relay and KMS in memory: `dial` gives a connection to it, which it serves in a thread.

    Args:
        plaintext: what KMS encrypts to the recipient.
        bend: changes KMS' JSON answer; what it returns, if anything, is sent in its place.
        envelop: makes the CMS for a recipient's SubjectPublicKeyInfo, in place of KMS.
        script: messages (or bytes, or None for a connection that closes) that answer the first
            requests instead.
    """

    def __init__(
        self,
        plaintext: bytes = bytes(range(32)),
        *,
        bend: Bend = lambda _answer: None,
        envelop: Envelop | None = None,
        script: Sequence[Mapping[str, object] | bytes | None] = (),
    ) -> None:
        self.plaintext = plaintext
        self.bend = bend
        self.envelop = envelop or (
            lambda spki: write_enveloped_data(self.plaintext, spki, shape=Shape.KMS_PRIMITIVE)
        )
        self.script = list(script)
        self.requests: list[tuple[str, str, dict[str, Any]]] = []
        self.dials = 0

    def dial(self, _deadline: Deadline) -> socket.socket:
        ours, theirs = socket.socketpair()
        self.dials += 1
        threading.Thread(target=self._serve, args=(theirs,)).start()
        return ours

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError, InputError):  # a client may go without asking
            request = parse_relay_request(read_frame(sock.recv))
            self.requests.append(request)
            if self.script:
                scripted = self.script.pop(0)
                if scripted is None:
                    return
                raw = isinstance(scripted, bytes)
                sock.sendall(scripted if raw else build_frame(scripted))  # type: ignore[arg-type]
                return
            sock.sendall(self.answer(*request))

    def answer(self, operation: str, _region: str, parameters: dict[str, Any]) -> bytes:
        sealed = self.envelop(public_key_of(parameters))
        members: dict[str, Any] = {"KeyId": KEY_ARN, "Plaintext": None}
        members |= {
            "Decrypt": {"EncryptionAlgorithm": "SYMMETRIC_DEFAULT"},
            "DeriveSharedSecret": {"KeyAgreementAlgorithm": "ECDH"},
        }[operation]
        members["CiphertextForRecipient"] = base64.b64encode(sealed).decode()
        replaced = self.bend(members)
        return build_relay_answer(replaced if isinstance(replaced, dict) else members)


def relayed_client(
    relay: BentRelay,
    *,
    nsm: InProcessNsm | None = None,
    pauses: list[float] | None = None,
    **options: Any,
) -> RelayedKms:
    """A relayed client of a bent relay that does not really sleep."""
    module = Nsm(nsm or InProcessNsm())
    return RelayedKms(
        relay.dial,
        lambda: Recipient(module),
        sleep=([] if pauses is None else pauses).append,
        **options,
    )


def is_gone(path: str) -> bool:
    """True where no socket stands at `unix:PATH`."""
    return not os.path.exists(path.removeprefix("unix:"))  # noqa: PTH110
