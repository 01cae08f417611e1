"""Fixtures for every test: the shared material, and a guard against real vsock addresses.

What a test records as the property "shown" is printed at the end of the run, passed or skipped: for
tests of which a log has to show that they ran.
"""

import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
NOWHERE = "unix:/nonexistent/kmstool-test"

# Under nohup, or as a script's background job, these arrive ignored, and every process that a test
# starts would inherit that: nothing could be interrupted any more.
for _number, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the checkout with real vectors: required in CI, optional elsewhere."""
    if not SHARED.is_dir():
        if os.environ.get("CI"):
            pytest.fail("../shared is missing, and CI must have it")
        pytest.skip("../shared is not beside this checkout")
    return SHARED


@pytest.fixture(autouse=True)
def no_real_vsock(monkeypatch: pytest.MonkeyPatch) -> None:
    """CID 3 is somebody's real parent: unset variables must not lead a test there."""
    real_connect = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        assert self.family != socket.AF_VSOCK, f"a test connected to vsock {address}"
        real_connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
    for name in ("KMSTOOL_DIRECT", "KMSTOOL_RELAY", "KMSTOOL_CREDENTIALS"):
        monkeypatch.setenv(name, NOWHERE)
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("KMSTOOL_EMULATOR", "KMSTOOL_REGION", "KMSTOOL_KEY_ID"):
        monkeypatch.delenv(name, raising=False)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints what tests recorded as shown."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == "shown" and report.when == "call":
                    terminalreporter.write_line(str(value))
