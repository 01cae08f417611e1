"""docs/howto/attack-your-own-program finds the bug of its program, and none in the fixed one.

In a process of its own, as a user's pytest would: the plugin comes by its entry point.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kmstool.emulator.hostile import ATTACKS

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "attack-your-own-program"
DIRECT = sum(attack.setup == "direct" for attack in ATTACKS.values())


def attacked(folder: Path, program: str, *arguments: str) -> str:
    """What pytest says of a program."""
    for file in EXAMPLE.glob("*.py"):
        shutil.copy(file, folder)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "error", *arguments]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "APP_PROGRAM": program},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def test_the_plugin_finds_the_bug(tmp_path: Path) -> None:
    said = attacked(tmp_path, "program.py", "-k", "works or another or stripped or key-id")
    failed = re.findall(
        r"^FAILED test_program.py::test_it_is_not_fooled\[(.*)\]", said, re.MULTILINE
    )
    assert failed == ["wrong-key-id", "another-account"], said
    assert "it took something else" in said
    assert "bytes that the parent has chosen" in said


@pytest.mark.long
def test_the_plugin_finds_nothing_in_the_fixed_program(tmp_path: Path) -> None:
    said = attacked(tmp_path, "program_fixed.py")
    assert f"{DIRECT + 1} passed" in said, said


def test_the_how_to_quotes_the_example() -> None:
    page = EXAMPLE.with_suffix(".md").read_text("utf-8")
    quoted = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[:3]
    sources = [file.read_text("utf-8") for file in sorted(EXAMPLE.glob("*.py"))]
    assert all(any(block in source for source in sources) for block in quoted)


MORE = '''
import base64, sys, threading, time
from pathlib import Path

KMSTOOL = [sys.executable, "-c", "from kmstool.cli.main import run; run()"]
SECRET = b"0123456789abcdef0123456789abcdef"
SDK = """
import botocore.session
kms = botocore.session.Session().create_client("kms")
print(kms.generate_random(NumberOfBytes=8)["Plaintext"].hex())
kms.list_keys()
"""


def relayed(kms_emulator, place):
    key = kms_emulator.make_key()
    blob = base64.b64encode(kms_emulator.encrypt(key, SECRET))
    options = ["--via", "relay", "--length", "32", "--accept-unauthenticated"]
    return place.run(*KMSTOOL, "decrypt", "--key-id", key, *options, input=blob).stdout


def test_an_honest_relay(kms_emulator, enclave):
    assert relayed(kms_emulator, enclave) == SECRET


def test_a_lying_relay(kms_emulator, hostile_parent):
    assert relayed(kms_emulator, hostile_parent("relay-forged-answer")) != SECRET


def test_an_sdk_acts_as_the_enclave(enclave):
    done = enclave.run(sys.executable, "-c", SDK)
    assert len(done.stdout.strip()) == 16
    assert b"role/enclave is not authorized to perform: kms:ListKeys" in done.stderr


def test_an_sdk_is_attacked(hostile_parent):
    done = hostile_parent("another-ca").run(sys.executable, "-c", SDK)
    assert b"CERTIFICATE_VERIFY_FAILED" in done.stderr


def test_what_does_not_end_is_ended(enclave):
    program = "print(1, flush=True); import time; time.sleep(60)"
    done = enclave.run(sys.executable, "-c", program, timeout=3)
    assert (done.code, done.stdout) == (None, b"1\\n")


def test_what_it_started_is_ended_too(enclave, tmp_path):
    done = enclave.run("sh", "-c", f"sleep 60 & echo $! >{tmp_path}/pid; wait", timeout=2)
    stat = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/stat")
    assert done.code is None
    for _ in range(100):  # it is whoever adopted it that takes note of its end
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    raise AssertionError(stat.read_text())


def test_two_attacks_at_once(hostile_parent):
    one, other = hostile_parent("half-open"), hostile_parent("padding-oracle-one-key")
    assert one.environment["KMSTOOL_EMULATOR"] != other.environment["KMSTOOL_EMULATOR"]
    assert other.attack.recover(lambda: "same", 1) == b""


def test_nothing_is_left():
    assert threading.active_count() == 1
'''


@pytest.mark.long
def test_what_else_the_fixtures_do(tmp_path: Path) -> None:
    (tmp_path / "test_more.py").write_text(MORE)
    said = attacked(tmp_path, "program.py", "test_more.py")
    assert "8 passed" in said, said


def test_the_fixtures_are_documented(tmp_path: Path) -> None:
    said = attacked(tmp_path, "program.py", "--fixtures")
    for fixture in ("kms_emulator", "enclave", "hostile_parent"):
        assert re.search(rf"^{fixture}\b.*\n    \S", said, re.MULTILINE), said
