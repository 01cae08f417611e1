"""`kmstool parent forward`: options, log, metrics, its end, and a call that goes through it."""

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.forwarding import PATIENCE, TestTarget, ends, take
from support.ground import Ground
from support.processes import InProcess, command, environment, run_kmstool

LISTEN = ("--listen", "unix:f.sock", "--to", "127.0.0.1:443")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--listen", "unix:x", *LISTEN), "there are 2 --listen and 1 --to"),
        ((*LISTEN, *LISTEN), "cannot both be listened on"),
        (("--listen", "unix:x", "--to", "https://kms.test"), "is not a target"),
        (("--listen", "unix:x", "--to", "kms.test:65979"), "is not a target"),
        (("--listen", "nowhere", "--to", "kms.test:443"), "is not an address"),
        ((*LISTEN, "--allow-cid", "16"), "has no CIDs that could be allowed"),
        ((*LISTEN, "--metrics", "vsock://:9000"), "metrics are not served at"),
        ((*LISTEN, "--metrics", "tcp://0.0.0.0:9000"), "metrics are not served at"),
        ((*LISTEN, "--connections", "0"), "--connections"),
        ((*LISTEN, "--idle-seconds", "0"), "--idle-seconds"),
        ((*LISTEN, "--idle-seconds", "nan"), "--idle-seconds"),
    ],
)
def test_settings_that_make_no_sense(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    done = run_kmstool("parent", "forward", *options, directory=tmp_path)
    assert done.code == 2, done.stderr
    assert words in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_target_must_be_on_vsock_proxy_s_list(in_process: InProcess, work: Path) -> None:
    pytest.importorskip("yaml")
    (work / "list.yaml").write_text("allowlist:\n- {address: 127.0.0.1, port: 444}\n")
    done = in_process("parent", "forward", *LISTEN, "--allowlist", "list.yaml")
    assert done.code == 2
    assert "127.0.0.1:443 is not on the list" in done.error


def test_an_address_that_is_taken(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "f.sock"))
        other.listen()
        done = run_kmstool("parent", "forward", *LISTEN, directory=tmp_path)
    assert done.code == 6, done.stderr
    assert "cannot listen on unix:f.sock" in done.error


class Process:
    def __init__(self, folder: Path, port: int, *options: str) -> None:
        self.path = folder / "forward.sock"
        self.running = subprocess.Popen(
            command(
                *("parent", "forward", "--listen", f"unix:{self.path}"),
                *("--to", f"127.0.0.1:{port}", *options),
            ),
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=environment(),
        )
        assert self.running.stderr is not None
        self.lines = self.running.stderr

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        sock.connect(str(self.path))
        return sock

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.running.send_signal(number)
        return self.running.wait(PATIENCE)


@contextlib.contextmanager
def process(folder: Path, port: int, *options: str) -> Iterator[Process]:
    one = Process(folder, port, *options)
    try:
        yield one
    finally:
        one.running.kill()
        one.running.wait()
        one.lines.close()


def test_a_line_of_json_for_each_connection_and_metrics(tmp_path: Path) -> None:
    options = ("--log-format", "json", "--metrics", f"unix:{tmp_path}/m.sock")
    with TestTarget() as target, process(tmp_path, target.port, *options) as forwarder:

        def line() -> Any:
            return json.loads(forwarder.lines.readline())

        assert line()["message"] == f"forwarding unix:{forwarder.path} to {target.target}"
        assert line()["message"] == f"metrics at unix:{tmp_path}/m.sock"
        with forwarder.connect() as client, target.accept() as far:
            client.sendall(b"12345")
            assert take(far, 5) == b"12345"
        ended = line()
        assert ended["bytes_to_target"] == 5
        assert ended["ended"] == "closed"
        assert ended["cid"] is None
        with socket.socket(socket.AF_UNIX) as scraper:
            scraper.connect(str(tmp_path / "m.sock"))
            scraper.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            text = b""
            while piece := scraper.recv(65_536):
                text += piece
        labels = f'listen="unix:{forwarder.path}"'
        assert f"kmstool_forward_connections_total{{{labels}}} 1\n" in text.decode()
        assert forwarder.end() == 143
        assert line()["message"] == "ending on SIGTERM"
        assert not forwarder.path.exists()


def test_it_drains_and_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    with (
        TestTarget() as target,
        process(tmp_path, target.port, "--drain-seconds", "600") as forwarder,
    ):
        forwarder.lines.readline()
        with forwarder.connect() as client, target.accept() as far:
            forwarder.running.send_signal(signal.SIGTERM)
            assert "ending on SIGTERM" in forwarder.lines.readline()
            client.sendall(b"still")
            assert take(far, 5) == b"still"
            deadline = time.monotonic() + PATIENCE
            while forwarder.path.exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            forwarder.running.send_signal(signal.SIGTERM)
            forwarder.running.wait(PATIENCE)
            assert ends(client) == "closed"


@pytest.mark.parametrize(
    ("limit", "first_line"),
    [("-Sn 64", "forwarding"), ("-n 300", "there are descriptors for 86 connections only")],
)
def test_the_soft_limit_on_descriptors_is_raised_and_a_hard_one_is_told(
    tmp_path: Path, limit: str, first_line: str
) -> None:
    with TestTarget() as target:
        arguments = command(
            *("parent", "forward", "--listen", f"unix:{tmp_path}/f.sock"),
            *("--to", f"127.0.0.1:{target.port}"),
        )
        script = f"ulimit {limit}; exec {shlex.join(arguments)}"
        with subprocess.Popen(
            ["bash", "-c", script], stderr=subprocess.PIPE, text=True, env=environment()
        ) as running:
            assert running.stderr is not None
            first = running.stderr.readline()
            running.terminate()
        assert first.startswith(f"kmstool: note: {first_line}")


def test_a_call_goes_through_it_where_the_first_address_is_dead(
    ground: Ground, tmp_path: Path
) -> None:
    port = int(ground.server.address.rpartition(":")[2])
    with process(tmp_path, port) as forwarder:
        forwarder.lines.readline()
        done = ground.run(
            *("decrypt", "--via", f"direct=unix:{tmp_path}/dead.sock"),
            *("--via", f"direct=unix:{forwarder.path}"),
        )
        assert done.code == 0, done.stderr
        assert "trying the next address" in done.stderr
        assert f"unix to 127.0.0.1:{port}: " in forwarder.lines.readline()


def test_where_nobody_listens_the_hint_is_this_command(ground: Ground, tmp_path: Path) -> None:
    done = ground.run("decrypt", "--via", f"direct=unix:{tmp_path}/dead.sock")
    assert done.code == 6
    assert "kmstool parent forward --listen" in done.hint
    assert os.fspath(tmp_path) in done.hint
