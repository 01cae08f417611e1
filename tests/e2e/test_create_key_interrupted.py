"""Ctrl-C during `create-key`: it ends kmstool and no key, and whoever typed it is told so."""

import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.emulator import RunningEmulator, running_emulator
from support.processes import command, environment

from kmstool.arn import KeyArn, parse_key_arn
from kmstool.cli.main import main
from kmstool.emulator.hostile import HostileParent

ACCOUNT = "111122223333"
KEEPER = f"arn:aws:iam::{ACCOUNT}:role/keeper"
MAKE = ("create-key", "--account", ACCOUNT, "--region", "eu-west-1", "--administrator", KEEPER)


@pytest.fixture(scope="module")
def running() -> Iterator[RunningEmulator]:
    with running_emulator() as emulator:
        yield emulator


def test_before_the_answer_it_says_that_there_may_be_a_key(
    running: RunningEmulator, tmp_path: Path
) -> None:
    def keys() -> int:
        return len(running.admin_client().list_keys()["Keys"])

    before = keys()
    with (
        tempfile.TemporaryDirectory(prefix="kmstool-") as place,
        HostileParent(running.emulator, Path(place), "slow-drip") as parent,
        subprocess.Popen(
            command(*MAKE, "-o", "late.cert"),
            cwd=tmp_path,
            env=environment(parent.environment),
            stderr=subprocess.PIPE,
            # As a shell in the foreground starts it, whatever started the tests.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
        ) as process,
    ):
        end = time.monotonic() + 30
        while keys() == before:
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[1].decode()
    assert process.returncode == 130, said
    assert "kmstool: note: kms may have made a key by now: look for one" in said
    assert list(tmp_path.iterdir()) == []


def test_after_the_answer_it_names_the_key(
    running: RunningEmulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = parse_key_arn(f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab")

    def make(*_arguments: object, created: Callable[[KeyArn], None], **_options: object) -> None:
        created(key)
        raise KeyboardInterrupt

    monkeypatch.setattr("kmstool.cli.create_key.make_key", make)
    for name, value in running.kmstool_environ().items():
        monkeypatch.setenv(name, value)
    assert main(list(MAKE)) == 130
    said = capsys.readouterr().err
    assert f"note: the key {key} exists now, without a birth certificate" in said
    assert "aws kms schedule-key-deletion" in said
