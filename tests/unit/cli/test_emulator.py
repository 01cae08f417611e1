"""`kmstool emulator` in this process; tests/e2e/emulator/test_commands.py runs whole processes."""

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.emulator import running_emulator

from kmstool.cli.main import main

PCR = "0=" + "ab" * 48


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short TMPDIR (a Unix socket's path has at most 107 bytes) that is empty afterwards."""
    assert tmp_path.is_dir()  # made before tempfile is told of another place
    with tempfile.TemporaryDirectory(prefix="t") as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield Path(name)
        assert list(Path(name).iterdir()) == []


def python(source: str) -> list[str]:
    return ["--", sys.executable, "-c", source]


def test_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    source = "import os; print(os.environ['KMSTOOL_EMULATOR'], os.environ['AWS_REGION']); exit(3)"
    arguments = ["--region", "us-east-1", "--log", str(log), "--pcr", PCR, "--cms-shape", "der"]
    assert main(["emulator", "run", *arguments, *python(source)]) == 3
    folder, region = capfd.readouterr().out.split()
    assert region == "us-east-1"
    assert not Path(folder).exists()
    assert log.stat().st_mode & 0o777 == 0o600


def test_run_logs_each_request(tmp_path: Path) -> None:
    log = tmp_path / "log"
    source = """
import botocore.session
botocore.session.Session().create_client("kms").list_keys()
"""
    assert main(["emulator", "run", "--log", str(log), *python(source)]) == 0
    assert log.read_text().split()[2] == "ListKeys"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--pcr", "x", "--", "true"], "is not a PCR"),
        (["run", "--pcr", PCR, "--debug-mode", "--", "true"], "in debug mode it is zero"),
        (["run", "--principals", "none", "--", "true"], "principals file"),
        (["run", "--log", "/", "--", "true"], "cannot write the log"),
        (["enclave", "--", "true"], "KMSTOOL_EMULATOR is not set"),
        (["run", "--hostile", "x", "--", "true"], "there is no attack named 'x'"),
        (["run", "--hostile", "file-cut", "--", "true"], "is an attack on a file"),
        (
            ["run", "--hostile", "half-open", "--nitro-root", "aws", "--", "true"],
            "needs the simulated root",
        ),
    ],
)
def test_own_failures(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emulator", *arguments]) == 125
    assert words in capsys.readouterr().err


def test_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emulator", "run"]) == 2
    assert "missing argument 'COMMAND...'" in capsys.readouterr().err


def test_no_temporary_directory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as context:
        context.setattr(tempfile, "tempdir", "/nonexistent")
        assert main(["emulator", "run", "--", "true"]) == 125
    assert "cannot make a temporary directory" in capsys.readouterr().err


def test_enclave(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    with running_emulator() as emulator:
        monkeypatch.setenv("KMSTOOL_EMULATOR", str(emulator.directory))
        source = "import os; print(os.environ['KMSTOOL_EMULATOR'])"
        assert main(["emulator", "enclave", "--debug-mode", *python(source)]) == 0
    folder = capfd.readouterr().out.strip()
    assert folder != str(emulator.directory)


@pytest.mark.parametrize("named", [True, False])
def test_serve(named: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    # To this thread alone, which waits for it: others of this process do not hold it back.
    timer = threading.Timer(1.0, lambda: signal.pthread_kill(main_thread, signal.SIGTERM))
    timer.start()
    arguments = ["--dir", os.path.relpath(tmp_path / "d")] if named else []
    assert main(["emulator", "serve", *arguments]) == 143
    timer.join()
    lines = capfd.readouterr().out.splitlines()
    assert all(line.startswith("export ") for line in lines)
    if named:
        assert f"export KMSTOOL_EMULATOR={(tmp_path / 'd').resolve()}" in lines
        assert list((tmp_path / "d").iterdir()) == []


def test_serve_where_it_cannot(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emulator", "serve", "--dir", "/nonexistent/d"]) == 11
    assert "cannot make /nonexistent/d" in capsys.readouterr().err
