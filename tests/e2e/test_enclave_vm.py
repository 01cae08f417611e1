"""The image boots in a real enclave VM, and the whole chain holds in it: scripts/enclave-vm.

QEMU and vhost-device-vsock are built from source into the user's cache, once. Where that cannot be
done the tests skip, and the closing lines of the run say so.
"""

import os
import re
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.enclave_vm import CANNOT, ROOT, EnclaveVm
from vm.module import CHECKS

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]  # from nothing, under other tests' load

SHOWN = (
    "attest, doctor, decrypt, generate-data-key, decrypt of that, derive-shared-secret, open,"
    " decrypt over the relay, derive-shared-secret over the relay, open over the relay"
)
# The howto shows the emulator in its chroot; where that cannot be had, these lines are otherwise.
IN_CHROOT = "enclave-vm: the emulator runs in a chroot of the image's base, with OpenSSL 3.5…"
OUTSIDE = "enclave-vm: the emulator runs outside, with the OpenSSL of this machine: …"
HYBRID = "   ✓ key-exchange  X25519MLKEM768, which a quantum computer does not open"
CLASSIC = "   ✓ key-exchange  x25519; KMS took no hybrid with ML-KEM here"


@pytest.fixture
def vm() -> Iterator[EnclaveVm]:
    running = EnclaveVm()
    yield running
    assert running.processes() == []
    shutil.rmtree(running.temporary)


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """For a line that tests/conftest.py prints at the end of the whole run."""
    return lambda line: record_property("shown", line)


def test_the_whole_chain(vm: EnclaveVm, report: Callable[[str], None]) -> None:
    start = time.monotonic()
    done = vm("run", report=report)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    text = done.stdout.decode()
    last = text.splitlines()[-1]
    report(f"{last} ({time.monotonic() - start:.0f} s with the builds)")
    page = (ROOT / "docs" / "howto" / "enclave-vm.md").read_text()
    (shown,) = re.findall(r"^```\n(enclave-vm: .*?)^```$", page, re.MULTILINE | re.DOTALL)
    printed_lines = [line for line in text.splitlines() if "tried once more" not in line]
    assert all(f"{line}\n" in shown for line in (IN_CHROOT, HYBRID))
    outside = [line for line in printed_lines if line.startswith(OUTSIDE[:-1])]
    if outside:
        report(f"WITHOUT X25519MLKEM768: {outside[0]}")
        shown = shown.replace(IN_CHROOT, OUTSIDE).replace(HYBRID, CLASSIC)
    for line, printed in zip(shown.splitlines(), printed_lines, strict=True):
        assert re.fullmatch(".*".join(map(re.escape, line.split("…"))), printed), printed
    assert f"shown in a real enclave VM: {SHOWN}; the document verified outside" in last
    for check in CHECKS:
        assert f"   {check.name}" in text
    assert list(vm.temporary.iterdir()) == []


def test_a_vm_that_is_kept_beside_an_emulator_outside(vm: EnclaveVm, tmp_path: Path) -> None:
    """Nothing may be mounted here, so the emulator has the OpenSSL of this machine."""
    refusing = tmp_path / "unshare"
    refusing.write_text("#!/bin/sh\nexit 1\n")
    refusing.chmod(0o755)
    vm.variables["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
    done = vm("up")
    try:
        assert done.returncode == 0, done.stderr.decode()
        said = "the emulator runs outside, with the OpenSSL of this machine: cannot be had here: a"
        assert f"{said} mount namespace\n" in done.stdout.decode()
        words = done.stdout.decode().splitlines()[-1].partition("exec -- ")[2].split()
        secret = Path(words.pop())
        assert words.pop() == "<"
        opened = vm("exec", "--", *words, stdin=secret.read_bytes())
        assert (opened.returncode, opened.stdout) == (0, b"the database password is 4gT9-vm")
        assert b"warning[custom-roots]" in opened.stderr
        doctor = vm("exec", "--", "doctor", *words[words.index("--key-id") :][:2])
        assert doctor.returncode == 0, doctor.stdout.decode()
        group = HYBRID if ssl.OPENSSL_VERSION_INFO >= (3, 5) else CLASSIC
        assert f"{group.strip()}\n" in doctor.stdout.decode()
        failed = vm("exec", "--", "decrypt", "--key-id", "x")
        assert (failed.returncode, failed.stdout) == (2, b"")
        again = vm("up")
        assert again.returncode == 1
        assert b"one is up already" in again.stderr
        assert vm.processes()
    finally:
        assert vm("down").returncode == 0
    assert list(vm.temporary.iterdir()) == []
    assert b"no VM is up" in vm("exec", "--", "doctor").stderr


def test_what_is_ended_leaves_nothing(vm: EnclaveVm) -> None:
    with vm.start("run") as process:
        while process.poll() is None and not any("qemu-system" in one for one in vm.processes()):
            time.sleep(0.1)
        process.terminate()
    if process.returncode == CANNOT:
        pytest.skip("it cannot be had here: test_the_whole_chain says why")
    assert process.returncode == 128 + signal.SIGTERM
    assert list(vm.temporary.iterdir()) == []


def tools(
    *arguments: str, environ: dict[str, str], tmp_path: Path
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(arguments),
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"} | environ,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_an_archive_the_reason_is_said(tmp_path: Path) -> None:
    configuration = tmp_path / "apt.conf"
    configuration.write_text('Dir::Etc::SourceList "/dev/null"; Dir::Etc::SourceParts "/dev/null";')
    environ = {"KMSTOOL_CACHE": str(tmp_path / "cache"), "APT_CONFIG": str(configuration)}
    done = tools("scripts/vm/tools", environ=environ, tmp_path=tmp_path)
    assert (done.returncode, done.stdout) == (75, "")
    assert "tools: error: cannot be had here: apt knows no archive of Debian" in done.stderr


def test_a_version_that_is_gone_is_named(tmp_path: Path) -> None:
    apt = tmp_path / "apt-cache"
    apt.write_text("#!/bin/sh\nprintf 'Version: 1:10.0.14\\nVersion: 1:10.1.0\\n'\n")
    apt.chmod(0o755)
    script = 'say() { echo "$*" >&2; }; . scripts/vm/_cache; APT=(); has_version qemu "$1"'
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    for version, code in (("1:10.0.14", 0), ("1:10.0.13", 75), ("1:10.0.1", 75), ("1:10.0", 75)):
        done = tools("bash", "-c", script, "x", version, environ=environ, tmp_path=tmp_path)
        assert done.returncode == code
        assert ("the mirror has: 1:10.0.14 1:10.1.0" in done.stderr) is (code == 75)
