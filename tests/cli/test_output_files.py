"""The table of bad input: where the result cannot be written. Nothing is left behind."""

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ground import CIPHERTEXT, Ground
from support.processes import (
    PLAINTEXT,
    SECRETS,
    Finished,
    checked,
    command,
    environment,
    run_kmstool,
)

ROOT = pytest.mark.skipif(
    os.geteuid() != 0 and not os.environ.get("CI"), reason="needs root to mount a tmpfs"
)


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of one page."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=8", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        if os.environ.get("CI"):
            pytest.fail(f"a tmpfs could not be mounted: {mounted.stderr.decode()}")
        pytest.skip("a tmpfs could not be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@ROOT
def test_full_disk(ground: Ground, full_disk: Path) -> None:
    Path(full_disk, "filler").write_bytes(bytes(4096))
    done = ground.run("decrypt", "-o", str(full_disk / "out"))
    assert done.code == 11, done.stderr
    assert "no space left on device" in done.error
    assert "free some space" in done.hint
    assert names_in(full_disk) == ["filler"]


@ROOT
def test_full_disk_keeps_the_old_file_and_both_new_ones_away(
    ground: Ground, full_disk: Path
) -> None:
    ground.kms.plaintext = bytes(32)
    Path(full_disk, "filler").write_bytes(bytes(4096))
    Path(ground.work, "key").write_bytes(b"old")
    done = ground.run("generate-data-key", "-o", "key", "--ciphertext-out", str(full_disk / "blob"))
    assert done.code == 11, done.stderr
    assert Path(ground.work, "key").read_bytes() == b"old"
    assert names_in(full_disk) == ["filler"]
    assert names_in(ground.work) == ["key"]


def without_privilege() -> None:
    """In the child: root that may no longer pass over permissions (capabilities(7)).

    Another user could not even read this checkout's Python on many machines.
    """
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None)
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        assert libc.prctl(24, capability, 0, 0, 0) == 0  # PR_CAPBSET_DROP


@pytest.mark.parametrize("exists", [False, True])
def test_no_permission(ground: Ground, exists: bool) -> None:
    closed = ground.work / "closed"
    closed.mkdir()
    if exists:
        Path(closed, "out").write_bytes(b"old")
    closed.chmod(0o555)
    done = ground.run("decrypt", "-o", str(closed / "out"), preexec_fn=without_privilege)
    assert done.code == 11, done.stderr
    assert "permission denied" in done.error
    assert "this user may write to" in done.hint
    assert names_in(closed) == (["out"] if exists else [])


def test_missing_directory_is_seen_before_the_request(ground: Ground) -> None:
    done = ground.run("decrypt", "-o", "missing/out")
    assert done.code == 11, done.stderr
    assert "there is no such directory" in done.error
    assert ground.server.connections == 0


def test_a_file_in_place_of_the_directory(ground: Ground) -> None:
    Path(ground.work, "plain").write_bytes(b"")
    done = ground.run("decrypt", "-o", "plain/out")
    assert done.code == 11, done.stderr
    assert done.error.endswith("plain is not a directory")
    assert ground.server.connections == 0


def test_directory_as_target(ground: Ground) -> None:
    done = ground.run("decrypt", "-o", str(ground.work))
    assert done.code == 11, done.stderr
    assert "it is a directory" in done.error


def with_stdout(ground: Ground, stdout: int, *arguments: str) -> Finished:
    """A whole process whose stdout is that descriptor."""
    process = subprocess.run(
        command("decrypt", "--verbose", *arguments),
        input=CIPHERTEXT,
        stdout=stdout,
        stderr=subprocess.PIPE,
        cwd=ground.work,
        env=environment(ground.env),
        timeout=60,
        check=False,
    )
    return checked(Finished(process.returncode, b"", process.stderr.decode()), ground.work)


@contextlib.contextmanager
def opened(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def test_closed_stdout_pipe(ground: Ground) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = with_stdout(ground, writing)
    finally:
        os.close(writing)
    assert done.code == 11, done.stderr
    assert "stdout could not be written: broken pipe" in done.error
    assert done.hint


def test_full_stdout(ground: Ground) -> None:
    with opened("/dev/full") as full:
        done = with_stdout(ground, full)
    assert done.code == 11, done.stderr
    assert "no space left" in done.error


@pytest.mark.parametrize("arguments", [["--version"], ["decrypt", "--help"]])
def test_full_stdout_for_what_click_writes(arguments: list[str]) -> None:
    with opened("/dev/full") as full:
        done = subprocess.run(
            command(*arguments), stdout=full, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert done.returncode == 11
    assert done.stderr == b"kmstool: error: output could not be written: no space left on device\n"


def test_closed_stdout(ground: Ground) -> None:
    """Descriptor 1 is free: no socket may get it, and the secret goes nowhere."""
    process = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *command("decrypt", "--verbose")],
        input=CIPHERTEXT,
        capture_output=True,
        cwd=ground.work,
        env=environment(ground.env),
        timeout=60,
        check=False,
    )
    stderr = process.stderr.decode()
    assert process.returncode == 11, stderr
    assert "stdout is closed" in stderr
    assert not any(secret in stderr for secret in SECRETS)


def test_help_into_a_closed_pipe_says_nothing(work: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.run(
        command("--help"), stdout=writing, stderr=subprocess.PIPE, cwd=work, timeout=60, check=False
    )
    os.close(writing)
    assert (process.returncode, process.stderr) == (11, b"")


def test_fifo_is_written_to_and_stays(ground: Ground) -> None:
    fifo = ground.work / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen(["cat", str(fifo)], stdout=subprocess.PIPE) as reader:
        done = ground.run("decrypt", "-o", "fifo")
        assert reader.communicate(timeout=10)[0] == PLAINTEXT.encode()
    assert done.code == 0, done.stderr
    assert fifo.is_fifo()


def test_dev_stdout_appends_where_the_shell_is(ground: Ground) -> None:
    done = run_shell(ground, '{ echo one; "$@" -o /dev/stdout; echo; echo two; } >out')
    assert done.code == 0, done.stderr
    assert Path(ground.work, "out").read_text() == f"one\n{PLAINTEXT}\ntwo\n"


def run_shell(ground: Ground, script: str) -> Finished:
    """A shell script in which "$@" is `kmstool decrypt`."""
    process = subprocess.run(
        ["bash", "-c", script, "bash", *command("decrypt", "--verbose")],
        input=CIPHERTEXT,
        capture_output=True,
        cwd=ground.work,
        env=environment(ground.env),
        timeout=60,
        check=False,
    )
    finished = Finished(process.returncode, process.stdout, process.stderr.decode())
    return checked(finished, ground.work)


def test_process_substitution(ground: Ground) -> None:
    done = run_shell(ground, '"$@" <(base64 <<<abc) -o >(cat >out); sleep 0.2')
    assert done.code == 0, done.stderr
    assert Path(ground.work, "out").read_text() == PLAINTEXT


def test_input_file_that_needs_no_stdin(ground: Ground) -> None:
    Path(ground.work, "in").write_bytes(CIPHERTEXT)
    done = run_kmstool("decrypt", "in", directory=ground.work, env=ground.env, stdin=b"")
    assert (done.code, done.stdout) == (0, PLAINTEXT.encode()), done.stderr
