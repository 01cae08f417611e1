"""`kmstool parent up`: everything from one file, in one real process."""

import json
import os
import signal
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from support.emulator import RunningEmulator, running_emulator
from support.parents import ParentProcess, parent_up
from support.processes import run_kmstool

from kmstool.cli.parent_up import _reload
from kmstool.framing import build_credentials_request, build_relay_request, read_frame

if TYPE_CHECKING:
    from kmstool.parent.together import Together

ROLE = "arn:aws:iam::111122223333:role/enclave"
KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
OTHER_KEY = KEY[:-2] + "ff"
FORWARD = '[[forward]]\nlisten = "unix:{here}/direct"\nto = "127.0.0.1:PORT"\n'
CREDENTIALS = '[credentials]\nlisten = "unix:{here}/credentials"\n'
RELAY = f'[relay]\nlisten = "unix:{{here}}/relay"\nallow_keys = ["{KEY}"]\n'
# Session credentials, so that the chain has something and the relay starts; nobody is asked.
SESSION = {
    "AWS_ACCESS_KEY_ID": "ASIAEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "s3cr3t/acc3ss+k3y-Zk81LmQw",
    "AWS_SESSION_TOKEN": "s3ss10n/t0k3n+Xy77PqRs0",
    "AWS_EC2_METADATA_DISABLED": "true",
}
POLICY = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:*", "Resource": "*"}
        ],
    }
)


class Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(65_536):
            self.request.sendall(data)


@pytest.fixture
def port() -> Iterator[int]:
    """Of a server that gives back what it gets, on many connections at once."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def emulator() -> Iterator[RunningEmulator]:
    with running_emulator() as running:
        yield running


def exchange(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    got = b""
    while len(got) < len(data) and (more := connection.recv(65_536)):
        got += more
    return got


def ask_relay(parent: ParentProcess, key: str) -> str:
    """What the relay says of a key; it is never one that may be used, so KMS is not asked."""
    parameters = {
        "KeyId": key,
        "CiphertextBlob": "AA==",
        "Recipient": {
            "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
            "AttestationDocument": "AA==",
        },
    }
    with parent.connect("relay") as connection:
        connection.sendall(build_relay_request("Decrypt", "eu-west-1", parameters))
        return json.dumps(read_frame(connection.recv))


def test_all_that_an_enclave_needs(emulator: RunningEmulator, tmp_path: Path) -> None:
    kms = emulator.admin_client()
    arn = kms.create_key(Policy=POLICY)["KeyMetadata"]["Arn"]
    secret = os.urandom(32)
    blob = kms.encrypt(KeyId=arn, Plaintext=secret)["CiphertextBlob"]
    text = (
        'metrics = "unix:{here}/metrics"\n'
        + FORWARD.replace("PORT", emulator.kms_address.rpartition(":")[2])
        + CREDENTIALS
        + f'assume_role = "{ROLE}"\nonly_kms = ["{arn}"]\n'
        + RELAY.replace(KEY, arn)
    )
    with parent_up(text, environ=emulator.environment()) as parent:
        direct = run_kmstool(
            *("decrypt", "--via", f"direct={parent.address('direct')}"),
            *("--credentials", parent.address("credentials")),
            *("--key-id", arn, "--input", "raw"),
            directory=tmp_path,
            env=emulator.kmstool_environ(),
            stdin=blob,
        )
        assert (direct.code, direct.stdout) == (0, secret), direct.stderr
        relayed = run_kmstool(
            *("decrypt", "--via", f"relay={parent.address('relay')}", "--accept-unauthenticated"),
            *("--length", "32", "--key-id", arn, "--input", "raw"),
            directory=tmp_path,
            env=emulator.kmstool_environ(),
            stdin=blob,
        )
        assert (relayed.code, relayed.stdout) == (0, secret), relayed.stderr
        assert "bytes there" in parent.said("forward: unix to ")
        assert "handed out" in parent.said("credentials: unix: ")
        assert "answered" in parent.said("relay: unix: Decrypt")
        with parent.connect("metrics") as connection:
            connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            counted = b"".join(iter(lambda: connection.recv(65_536), b""))
        assert b"kmstool_forward" in counted
        assert parent.end() == 143
        assert not [path for path in parent.folder.iterdir() if path.name in ("direct", "relay")]
        said = "".join(parent.lines)
    assert emulator.environment()["AWS_SECRET_ACCESS_KEY"] not in said


def test_systemd_hears_of_it(port: int) -> None:
    forward = FORWARD.replace("PORT", str(port))
    with parent_up(forward) as parent:
        assert parent.told().startswith("READY=1\nSTATUS=serving")
        parent.rewrite(forward.replace("/direct", "/other"))
        assert parent.told().startswith("RELOADING=1\nMONOTONIC_USEC=")
        assert parent.told().startswith("READY=1\nSTATUS=settings read again")
        parent.rewrite("nonsense")
        assert parent.told().startswith("RELOADING=1")
        assert parent.told().startswith("READY=1\nSTATUS=the settings of before are kept")
        assert parent.end() == 143
        assert parent.told() == "STOPPING=1\nSTATUS=ending on SIGTERM"


def test_the_watchdog_is_fed(port: int) -> None:
    environ = {"WATCHDOG_USEC": "400000"}
    with parent_up(FORWARD.replace("PORT", str(port)), environ=environ) as parent:
        assert parent.told().startswith("READY=1")
        assert parent.told() == "WATCHDOG=1"
        assert parent.told() == "WATCHDOG=1"


@pytest.mark.parametrize("taken", ["direct", "credentials", "relay", "metrics"])
def test_one_that_cannot_start_ends_all_before_anything_is_announced(
    taken: str, port: int, tmp_path: Path
) -> None:
    text = (
        'metrics = "unix:{here}/metrics"\n'
        + FORWARD.replace("PORT", str(port))
        + CREDENTIALS
        + RELAY
    ).replace(f"{{here}}/{taken}", str(tmp_path / "taken"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as holder:
        holder.bind(str(tmp_path / "taken"))
        holder.listen()
        with parent_up(text, environ=SESSION, ready=False) as parent:
            assert parent.process.wait(timeout=30) == 6
            parent.said(f"error: cannot listen on unix:{tmp_path / 'taken'}: Address already in")
            left = {path.name for path in parent.folder.iterdir()}
            assert left == {"parent.toml", "notify"}
            parent.notify.setblocking(False)
            with pytest.raises(BlockingIOError):
                parent.told()
    assert "note: ready" not in "".join(parent.lines)


def test_sighup_changes_routes_and_drops_no_connection(port: int) -> None:
    forward = FORWARD.replace("PORT", str(port))
    with parent_up(forward) as parent, parent.connect("direct") as before:
        assert exchange(before, b"one") == b"one"
        both = forward + forward.replace("/direct", "/second")
        assert "settings read again" in parent.rewrite(both)
        assert exchange(before, b"two") == b"two"
        with parent.connect("second") as second:
            assert exchange(second, b"three") == b"three"
            # Both their routes go; what is open goes on.
            assert "settings read again" in parent.rewrite(forward.replace("/direct", "/third"))
            assert exchange(before, b"four") == b"four"
            assert exchange(second, b"five") == b"five"
        assert not (parent.folder / "direct").exists()
        with parent.connect("third") as third:
            assert exchange(third, b"six") == b"six"


def test_sighup_starts_and_ends_services(port: int) -> None:
    forward = FORWARD.replace("PORT", str(port))
    with parent_up(forward, environ=SESSION) as parent, parent.connect("direct") as before:
        parent.rewrite(forward + RELAY + CREDENTIALS)
        assert "is not on the relay's list" in ask_relay(parent, OTHER_KEY)
        # The relay's keys change behind the same socket.
        inode = (parent.folder / "relay").stat().st_ino
        parent.rewrite(forward + RELAY.replace(KEY, OTHER_KEY) + CREDENTIALS)
        assert (parent.folder / "relay").stat().st_ino == inode
        assert f"{KEY} is not on the relay's list" in ask_relay(parent, KEY)
        parent.rewrite('metrics = "unix:{here}/metrics"\n' + forward)
        for _ in range(500):
            if not (parent.folder / "relay").exists():
                break
            time.sleep(0.02)
        names = {path.name for path in parent.folder.iterdir()}
        assert names == {"parent.toml", "notify", "direct", "metrics"}
        assert exchange(before, b"still there") == b"still there"


def test_sighup_hands_out_credentials_of_another_session(emulator: RunningEmulator) -> None:
    def handed_out() -> str:
        with parent.connect("credentials") as connection:
            connection.sendall(build_credentials_request())
            return str(read_frame(connection.recv)["AccessKeyId"])

    text = CREDENTIALS + f'assume_role = "{ROLE}"\n'
    with parent_up(text, environ=emulator.environment()) as parent:
        first, inode = handed_out(), (parent.folder / "credentials").stat().st_ino
        parent.rewrite(text + 'role_session_name = "second"\n')
        second = handed_out()
        assert second != first
        assert (parent.folder / "credentials").stat().st_ino == inode
        kept = parent.rewrite(text + 'only_kms = ["alias/x"]\n')
        assert "the settings of before are kept" in kept
        assert handed_out() == second


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense", "has 1 mistake"),
        (FORWARD.replace("PORT", "99999"), "has 1 mistake"),
        ("unknown = 1\n" + FORWARD.replace("PORT", "1") + RELAY + "x = 1", "has 2 mistakes"),
        (
            FORWARD.replace("PORT", "1").replace("{here}", "/nonexistent"),
            "cannot listen on unix:/n",
        ),
        ('metrics = "unix:{here}/notify"\n' + FORWARD.replace("PORT", "1"), "cannot listen on"),
        (
            FORWARD.replace("PORT", "1").replace("/direct", "/second")
            + RELAY.replace("{here}", "/nonexistent"),
            "cannot listen on unix:/nonexistent",
        ),
    ],
)
def test_a_file_that_cannot_be_had_changes_nothing(text: str, said: str, port: int) -> None:
    forward = FORWARD.replace("PORT", str(port))
    with parent_up(forward, environ=SESSION) as parent, parent.connect("direct") as before:
        line = parent.rewrite(text)
        assert "the settings of before are kept" in line
        assert said in line
        assert exchange(before, b"goes on") == b"goes on"
        with parent.connect("direct") as new:
            assert exchange(new, b"new") == b"new"
        assert not (parent.folder / "second").exists()
        assert "settings read again" in parent.rewrite(forward)


def test_credentials_that_cannot_be_read_change_nothing(port: int, tmp_path: Path) -> None:
    """botocore raises over a file of its own: no reason to drop what is open."""
    forward = FORWARD.replace("PORT", str(port))
    aws = tmp_path / "aws"
    aws.write_text("[default\n")
    with parent_up(forward, environ={"AWS_CONFIG_FILE": str(aws)}) as parent:
        line = parent.rewrite(forward + RELAY)
        assert "the settings of before are kept" in line
        assert "ConfigParseError" in line
        with parent.connect("direct") as new:
            assert exchange(new, b"new") == b"new"


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), RuntimeError("s3cr3t")])
def test_what_nobody_thought_of_changes_nothing_either(error: Exception, tmp_path: Path) -> None:
    """Such as a descriptor or a thread that is not to be had: the others' connections go on."""

    class Broken:
        def change(self, _configuration: object) -> None:
            raise error

    lines: list[str] = []
    file = tmp_path / "parent.toml"
    file.write_text(FORWARD.replace("PORT", "1"))
    said = _reload(file, lines.append)(cast("Together", Broken()))
    assert said == lines[-1] == f"the settings of before are kept: {type(error).__name__}"


def test_a_file_that_is_gone_changes_nothing(port: int) -> None:
    with parent_up(FORWARD.replace("PORT", str(port))) as parent:
        (parent.folder / "parent.toml").unlink()
        parent.process.send_signal(signal.SIGHUP)
        assert "no such file or directory" in parent.said("settings of before are kept")
        assert parent.end() == 143


def test_sigterm_drains(port: int) -> None:
    with parent_up(FORWARD.replace("PORT", str(port))) as parent:
        with parent.connect("direct") as connection:
            assert exchange(connection, b"one") == b"one"
            parent.process.send_signal(signal.SIGTERM)
            parent.said("ending on SIGTERM")
            time.sleep(0.3)
            assert exchange(connection, b"two") == b"two"
        assert parent.process.wait(timeout=10) == 143


def test_draining_has_an_end_and_a_second_signal_does_not_wait_for_it(port: int) -> None:
    forward = FORWARD.replace("PORT", str(port))
    short = forward + "[limits]\ndrain_seconds = 0.5\n"
    with parent_up(short) as parent, parent.connect("direct") as connection:
        exchange(connection, b"one")
        started = time.monotonic()
        assert parent.end() == 143
        assert 0.4 < time.monotonic() - started < 5
    with parent_up(forward) as parent, parent.connect("direct") as connection:
        exchange(connection, b"one")
        parent.process.send_signal(signal.SIGTERM)
        parent.said("ending on SIGTERM")
        started = time.monotonic()
        assert parent.end(signal.SIGINT) == 130
        assert time.monotonic() - started < 5


def test_lines_for_programs(port: int) -> None:
    with parent_up(
        FORWARD.replace("PORT", str(port)), "--log-format", "json", ready=False
    ) as parent:
        parent.said("ready")
        with parent.connect("direct") as connection:
            exchange(connection, b"one")
        parent.said("forward: unix to ")
        assert parent.end() == 143
        lines = [json.loads(line) for line in parent.lines]
    assert all({"time", "message"} <= set(line) for line in lines)
    (carried,) = [line for line in lines if "service" in line]
    assert carried["service"] == "forward"
    assert carried["message"].startswith("forward: unix to ")
