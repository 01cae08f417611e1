"""Runs kmstool as a whole process, or `main` in this one, and looks for what must never be there.

Every run is searched: no secret on stderr, nothing on stdout after a failure, no traceback, no
temporary file in the working directory. Secrets are long and random-looking so that a match means a
leak.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kmstool.cli import compat, main

PLAINTEXT = "pl4in-t3xt-0f-th3-t3st-T9vQ2x"
SECRET_ACCESS_KEY = "s3cr3t/acc3ss+k3y-Zk81LmQw"
SESSION_TOKEN = "s3ss10n/t0k3n+Xy77PqRs0"
SECRETS = (PLAINTEXT, SECRET_ACCESS_KEY, SESSION_TOKEN)
CREDENTIALS_JSON = json.dumps(
    {
        "Version": 1,
        "AccessKeyId": "AKIDEXAMPLE",
        "SecretAccessKey": SECRET_ACCESS_KEY,
        "SessionToken": SESSION_TOKEN,
    }
)


@dataclass(frozen=True)
class Finished:
    """What a run left behind."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def error(self) -> str:
        """The text of the one `kmstool: error:` line."""
        return self._only("error")

    @property
    def hint(self) -> str:
        """The text of the one `kmstool: hint:` line."""
        return self._only("hint")

    @property
    def json(self) -> Any:
        """stdout as JSON."""
        return json.loads(self.stdout)

    def _only(self, kind: str) -> str:
        prefix = f"kmstool: {kind}: "
        found = [line for line in self.stderr.splitlines() if line.startswith(prefix)]
        assert len(found) == 1, self.stderr
        return found[0].removeprefix(prefix)


def checked(finished: Finished, directory: Path, *, may_print: bool = False) -> Finished:
    """Asserts what holds of every run."""
    for secret in SECRETS:
        assert secret not in finished.stderr, "a secret on stderr"
        if secret != PLAINTEXT:
            assert secret.encode() not in finished.stdout, "credentials on stdout"
    assert "Traceback" not in finished.stderr, finished.stderr
    if finished.code != 0 and not may_print:
        assert finished.stdout == b"", finished.stdout
    assert not list(directory.glob(".kmstool*"))
    return finished


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process' environment, in which tests/conftest.py has set the addresses to nowhere."""
    return {**os.environ, "PYTHONWARNINGS": "error", **(extra or {})}


def command(*arguments: str, program: str = "kmstool", before: str = "") -> list[str]:
    """The argument vector of a whole process, from this environment's own Python.

    Args:
        before: a statement that runs right before kmstool does.
    """
    module = {"kmstool": "kmstool.cli.main", "kmstool_enclave_cli": "kmstool.cli.compat"}[program]
    return [
        sys.executable,
        "-c",
        f"from {module} import run; {before}; run()"
        if before
        else f"from {module} import run; run()",
        *arguments,
    ]


def run_kmstool(
    *arguments: str,
    directory: Path,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    program: str = "kmstool",
    may_print: bool = False,
    **options: Any,
) -> Finished:
    """Runs a whole process in `directory` and checks what holds of every run.

    Args:
        may_print: stdout may hold something after a failure, as `open` documents it.
    """
    process = subprocess.run(
        command(*arguments, program=program),
        input=stdin,
        capture_output=True,
        cwd=directory,
        env=environment(env),
        timeout=60,
        check=False,
        **options,
    )
    finished = Finished(process.returncode, process.stdout, process.stderr.decode())
    return checked(finished, directory, may_print=may_print or program != "kmstool")


class InProcess:
    """Runs `kmstool.cli.main.main` in this process, with real descriptors and sockets."""

    def __init__(
        self,
        capfdbinary: pytest.CaptureFixture[bytes],
        monkeypatch: pytest.MonkeyPatch,
        directory: Path,
    ) -> None:
        self._capture = capfdbinary
        self._monkeypatch = monkeypatch
        self._directory = directory
        monkeypatch.chdir(directory)

    def __call__(self, *arguments: str, env: Mapping[str, str] | None = None) -> Finished:
        return self.call(main.main, arguments, env)

    def reporting(self, *arguments: str) -> Finished:
        """The same for a command whose result may say that a check failed."""
        return self.call(main.main, arguments, None, may_print=True)

    def compat(self, *arguments: str, env: Mapping[str, str] | None = None) -> Finished:
        """The same for the drop-in."""
        return self.call(compat.main, arguments, env)

    def call(
        self,
        way_in: Any,
        arguments: Sequence[str],
        env: Mapping[str, str] | None,
        *,
        may_print: bool = False,
    ) -> Finished:
        """Runs one of the two mains."""
        for name, value in (env or {}).items():
            self._monkeypatch.setenv(name, value)
        self._capture.readouterr()
        code = way_in(list(arguments))
        out, err = self._capture.readouterr()
        finished = Finished(int(code), out, err.decode())
        return checked(finished, self._directory, may_print=may_print)
