"""Where a parent gets credentials: the instance's metadata service and a container's, on loopback.

with FakeMetadata() as imds:                     # IMDSv2: a token by PUT first, or 401
    with credentials_process(imds.environ()) as parent:
        parent.ask()                             # the message that an enclave would read

The process may connect to loopback alone: whatever else it tries ends it at once, and says so.
"""

import contextlib
import json
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support.processes import command, environment

from kmstool.framing import build_credentials_request, read_frame

ELSEWHERE = "a connection to elsewhere"
DEBUG = "import logging; logging.basicConfig(level=logging.DEBUG)"  # for `before`
_GUARD = (
    "import os, socket; real = socket.socket.connect; socket.socket.connect = lambda self, to:"
    " real(self, to) if self.family == socket.AF_UNIX or to[0] in ('127.0.0.1', '::1')"
    f" else os._exit(os.write(2, b'{ELSEWHERE}') and 99)"
)
SSO_TOKEN = "sso-b3arer-t0ken"
_TOKEN = "imds-session-t0ken"
_PATH = "/latest/meta-data/iam/security-credentials/"


@dataclass(frozen=True)
class Given:
    """One set of credentials that a source has given; its secrets are in no output."""

    number: int
    expiration: datetime
    secret: str = field(default_factory=lambda: f"imds/s3cret+{secrets.token_hex(12)}")
    token: str = field(default_factory=lambda: f"imds/t0ken+{secrets.token_hex(24)}")

    @property
    def access_key_id(self) -> str:
        return f"ASIAMETADATA{self.number:08}"

    @property
    def until(self) -> str:
        return self.expiration.strftime("%Y-%m-%dT%H:%M:%SZ")


class _Quiet(BaseHTTPRequestHandler):
    source: "FakeMetadata"

    def log_message(self, *_arguments: Any) -> None:
        pass

    def do_PUT(self) -> None:
        self.source.answer(self, "PUT")

    def do_GET(self) -> None:
        self.source.answer(self, "GET")


class FakeMetadata:
    """IMDSv2, a container's endpoint at `/ecs`, and SSO's portal; the same credentials from all.

    Attributes:
        down: refuses every request while it is True.
        given: all sets, the current one last.
        body: what is answered in place of the credentials.
    """

    def __init__(self, seconds: float = 3600) -> None:
        self.down = False
        self.body: bytes | None = None
        self.given: list[Given] = []
        self.requests: list[str] = []
        self.give(seconds)
        handler = type("Handler", (_Quiet,), {"source": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def environ(self) -> dict[str, str]:
        """Leads botocore to the fake metadata service and nowhere else."""
        return {"AWS_EC2_METADATA_SERVICE_ENDPOINT": self.url}

    def container_environ(self, token: str = "ecs-auth-t0ken") -> dict[str, str]:
        return {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{self.url}/ecs",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": token,
        }

    def give(self, seconds: float) -> Given:
        """A new set, valid for so many seconds."""
        until = (datetime.now(UTC) + timedelta(seconds=seconds)).replace(microsecond=0)
        self.given.append(Given(len(self.given), until))
        return self.given[-1]

    def answer(self, request: _Quiet, method: str) -> None:
        self.requests.append(f"{method} {request.path}")
        status, body = self._choose(request, method)
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def _choose(self, request: _Quiet, method: str) -> tuple[int, bytes]:
        header = request.headers.get
        if self.down:
            return 503, b""
        if request.path == "/ecs":
            known = header("Authorization") == "ecs-auth-t0ken"
            return (200, self.body or self._document()) if known else (403, b"{}")
        if request.path.startswith("/federation/credentials?"):
            known = header("x-amz-sso_bearer_token") == SSO_TOKEN
            return (200, self._portal_document()) if known else (401, b"{}")
        if method == "PUT" and request.path == "/latest/api/token":
            asked = header("x-aws-ec2-metadata-token-ttl-seconds")
            return (200, _TOKEN.encode()) if asked else (400, b"")
        if header("x-aws-ec2-metadata-token") != _TOKEN:
            return 401, b""
        if request.path == _PATH:
            return 200, b"instance-role"
        if request.path == f"{_PATH}instance-role":
            return 200, self.body or self._document()
        return 404, b""

    def _document(self) -> bytes:
        one = self.given[-1]
        return json.dumps(
            {
                "Code": "Success",
                "Type": "AWS-HMAC",
                "AccessKeyId": one.access_key_id,
                "SecretAccessKey": one.secret,
                "Token": one.token,
                "Expiration": one.until,
            }
        ).encode()

    def _portal_document(self) -> bytes:
        one = self.given[-1]
        return json.dumps(
            {
                "roleCredentials": {
                    "accessKeyId": one.access_key_id,
                    "secretAccessKey": one.secret,
                    "sessionToken": one.token,
                    "expiration": int(one.expiration.timestamp() * 1000),
                }
            }
        ).encode()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@dataclass
class CredentialsProcess:
    """A running `kmstool parent credentials`, whose output is collected."""

    process: subprocess.Popen[str]
    path: str
    lines: list[str]
    reader: threading.Thread

    @property
    def address(self) -> str:
        return f"unix:{self.path}"

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def send(self, data: bytes) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(30)
            sock.connect(self.path)
            sock.sendall(data)
            return read_frame(sock.recv)

    def ask(self) -> dict[str, Any]:
        """The answer to an enclave's request."""
        return self.send(build_credentials_request())

    def said(self, text: str, *, after: int = 0, seconds: float = 20) -> str:
        """The first line with `text`, waited for."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            ended = not self.reader.is_alive()  # so all that it wrote is here
            for line in self.lines[after:]:
                if text in line:
                    return line
            if ended:
                break
            time.sleep(0.02)
        raise AssertionError(self.output)

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=30)


@contextlib.contextmanager
def credentials_process(
    environ: Mapping[str, str], *options: str, before: str = "pass"
) -> Iterator[CredentialsProcess]:
    """Starts the service with these AWS settings and waits until it listens; ends it in the end.

    Args:
        before: a statement that runs before kmstool does.
    """
    folder = Path(tempfile.mkdtemp(prefix="kmstool-"))
    address = f"unix:{folder}/credentials.sock"
    settings = {"HOME": str(folder), "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:9"}
    process = subprocess.Popen(
        command(
            "parent", "credentials", "--listen", address, *options, before=f"{_GUARD}; {before}"
        ),
        env=environment({**settings, **environ}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()))
    running = CredentialsProcess(process, address.removeprefix("unix:"), lines, reader)
    try:
        reader.start()
        running.said("listening on")
        yield running
        code = running.end() if process.poll() is None else process.returncode
        assert code in (128 + signal.SIGTERM, 128 + signal.SIGINT), (code, running.output)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if reader.ident is not None:
            reader.join()
        process.stdout.close()
        shutil.rmtree(folder)
