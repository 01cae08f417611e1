"""Programs of other authors that ours are compared with: built by `scripts/oracle`, asked here."""

import os
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

import pytest

ROOT = Path(__file__).resolve().parents[2]
_UNREACHABLE = 75  # of scripts/oracle: crates cannot be had from here


class Built(NamedTuple):
    """A program, and the folder with the sources of the crates that its Cargo.lock names."""

    program: Path
    crates: Path


def build(name: str) -> Built:
    """Builds tests/oracles/NAME where it is not built yet; skips, but not in CI, without crates."""
    done = subprocess.run(
        [ROOT / "scripts" / "oracle", name], capture_output=True, text=True, check=False
    )
    if done.returncode == _UNREACHABLE and not os.environ.get("CI"):
        pytest.skip(f"the crates of the oracle {name} cannot be fetched from here")
    assert done.returncode == 0, done.stderr
    program, crates = done.stdout.splitlines()
    return Built(Path(program), Path(crates))


class Case(NamedTuple):
    """A document, the index of the root to trust, and the time as of which, in seconds."""

    root: int
    time: int
    document: bytes


class VerifyOracle:
    """The verifier of tests/oracles/verify, as a process; `ask` it batch by batch."""

    def __init__(self, program: Path, roots: Sequence[bytes]) -> None:
        self._process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=False
        )
        self._send(struct.pack(">I", len(roots)) + b"".join(map(_framed, roots)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()

    def begin(self, cases: Sequence[Case]) -> None:
        """Hands it a batch, on which it works while the caller does something else."""
        content = [struct.pack(">I", len(cases))]
        for case in cases:
            content.append(struct.pack(">IQ", case.root, case.time) + _framed(case.document))
        self._send(b"".join(content))

    def end(self, count: int) -> list[str]:
        """What it says of each document of the batch: `accepted`, or why not."""
        assert self._process.stdout is not None
        lines = [self._process.stdout.readline().decode().rstrip("\n") for _ in range(count)]
        assert all(lines), "the oracle has ended"
        return lines

    def _send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()


def _framed(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data
