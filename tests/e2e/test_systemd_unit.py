"""contrib/: the unit is one that systemd takes, and as closed as it says; the example is right.

`systemd-analyze` reads files only; no service manager has to run.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import run_kmstool

from kmstool import limits
from kmstool.cli.exit_codes import ExitCode
from kmstool.parent.configuration import parse_configuration

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "contrib" / "systemd" / "kmstool-parent.service"
EXAMPLE = ROOT / "contrib" / "kmstool-parent.toml"
EXPOSURE_MAX = 2.0


@pytest.fixture
def analyze() -> str:
    """systemd-analyze: scripts/test installs it where it may."""
    program = shutil.which("systemd-analyze")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("systemd-analyze is missing, and CI must have it")
        pytest.skip("systemd-analyze is not on this machine; apt-get install systemd")
    return program


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, with a program that exists: `verify` looks for it."""
    text = UNIT.read_text()
    assert text.count("/opt/kmstool/bin/kmstool ") == 1
    path = tmp_path / UNIT.name
    path.write_text(text.replace("/opt/kmstool/bin/kmstool ", f"{sys.executable} "))
    return path


def settings(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)


def analyzed(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_it_is_one_that_systemd_takes(analyze: str, unit: Path) -> None:
    assert analyzed(analyze, "verify", "--man=no", str(unit)) == ""


def test_a_mistake_in_it_would_be_seen(analyze: str, unit: Path) -> None:
    unit.write_text(unit.read_text().replace("ProtectClock=yes", "ProtectClocks=yes"))
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert "ProtectClocks" in done.stderr


def test_it_is_closed(analyze: str, unit: Path) -> None:
    threshold = f"--threshold={round(EXPOSURE_MAX * 10)}"
    said = analyzed(analyze, "security", "--offline=true", "--no-pager", threshold, str(unit))
    (exposure,) = re.findall(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert float(exposure) <= EXPOSURE_MAX


def test_what_it_needs_is_left_open() -> None:
    (families,) = settings("RestrictAddressFamilies")
    assert set(families.split()) == {"AF_VSOCK", "AF_INET", "AF_INET6", "AF_UNIX"}
    assert settings("CapabilityBoundingSet") == [""]
    assert settings("LimitCORE") == ["0"]
    # systemd's SIGKILL comes after our own time to drain, and descriptors suffice.
    (stop,) = settings("TimeoutStopSec")
    assert float(stop) > limits.FORWARD_DRAIN_SECONDS + limits.PARENT_GRACE
    (descriptors,) = settings("LimitNOFILE")
    assert int(descriptors) > 2 * limits.FORWARD_CONNECTIONS_MAX


def test_a_wrong_file_is_not_tried_every_two_seconds() -> None:
    """Nothing gets better by that: it waits for whoever mends the file. An address may get free."""
    (never,) = settings("RestartPreventExitStatus")
    assert [int(code) for code in never.split()] == [ExitCode.SETTING, ExitCode.INPUT]


def test_its_command_exists(tmp_path: Path) -> None:
    (start,) = settings("ExecStart")
    program, *arguments = start.split()
    assert program == "/opt/kmstool/bin/kmstool"
    arguments[arguments.index("--config") + 1] = str(EXAMPLE)
    done = run_kmstool(*arguments, "--check", directory=tmp_path)
    assert done.code == 0, done.stderr
    assert "fine   forward: vsock://:8000 to kms.eu-west-1" in done.stdout.decode()


def test_the_example_is_right_with_all_that_it_leaves_out() -> None:
    text = EXAMPLE.read_text()
    names = ("allowlist", "assume_role", "only_kms", r"\[relay\]", "listen", "allow_keys")
    commented = re.sub(rf"^# (?={'|'.join(names)})", "", text, flags=re.MULTILINE)
    assert commented.count("\n#") < text.count("\n#")
    listed = b"allowlist: [{address: kms.eu-west-1.amazonaws.com, port: 443}]"
    whole = parse_configuration(commented.encode(), read_file=lambda _name: listed)
    assert whole.relay is not None
    assert whole.credentials is not None
    assert whole.credentials.only_kms
    assert whole.limits.connections == limits.FORWARD_CONNECTIONS
    assert whole.limits.connections_per_cid == limits.FORWARD_CONNECTIONS_PER_CID
    assert whole.limits.idle_seconds == limits.FORWARD_IDLE_SECONDS
