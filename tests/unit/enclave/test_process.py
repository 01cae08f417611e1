"""Hardening, in a process of its own since it cannot be undone."""

import subprocess
import sys

import pytest

from kmstool.enclave import process
from kmstool.errors import SettingError

PROGRAM = """
import ctypes, resource
from kmstool.enclave.process import harden
before = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
harden()
print(before, ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE))
"""


def test_core_dumps_and_ptrace_are_off() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["1", "0", "0", "0"]


def test_a_kernel_that_refuses_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def prctl(self, *_arguments: int) -> int:
            return -1

    monkeypatch.setattr("resource.setrlimit", lambda *_arguments: None)
    monkeypatch.setattr("ctypes.CDLL", lambda *_arguments, **_options: Refusing())
    with pytest.raises(SettingError, match="core dumps"):
        process.harden()
