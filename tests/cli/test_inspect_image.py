"""Enclave images on the command line: `inspect` measures them, and `--pcr-from` expects them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from support.births import ACCOUNT, ADMINISTRATOR, CHAIN, KEY_ARN
from support.documents import document
from support.eif_images import COMMAND, IDENTITY, Image, Signing, arm64, image, ramdisk, signed
from support.processes import InProcess

from kmstool.attestation.document import parse_document

ROLE = f"arn:aws:iam::{ACCOUNT}:role/enclave"
UNSIGNED = image()
PCRS = {0: UNSIGNED.pcr(0, 1, 3, 4), 1: UNSIGNED.pcr(0, 1, 3), 2: UNSIGNED.pcr(4)}


@pytest.fixture
def run(in_process: InProcess, monkeypatch: pytest.MonkeyPatch) -> InProcess:
    """kmstool under the test's own root, as if it were AWS'."""
    for module in ("kmstool.cli.verify", "kmstool.session"):
        monkeypatch.setattr(f"{module}.attestation_root", lambda **_: (CHAIN.root.der, ()))
    return in_process


def write(work: Path, made: Image = UNSIGNED, name: str = "image.eif") -> str:
    Path(work, name).write_bytes(made.file())
    return name


def sign(work: Path) -> str:
    section = Signing(ec.generate_private_key(ec.SECP384R1())).section(PCRS[0])
    return write(work, signed(UNSIGNED, section), "signed.eif")


def test_inspect_in_json(run: InProcess, work: Path) -> None:
    done = run("inspect", "--json", write(work))
    assert done.code == 0, done.stderr
    assert "note: these are the PCRs of this very file; who made it was not verified" in done.stderr
    answer = done.json
    assert (answer["type"], answer["verified"]) == ("enclave-image", False)
    assert answer["pcrs"] == {str(index): value.hex() for index, value in PCRS.items()}
    assert answer["unattested"] == {"memory_bytes": 2**30, "cpus": 2, "metadata": IDENTITY}
    assert (answer["command_line"], answer["signature"]) == (COMMAND, None)
    assert [part["kind"] for part in answer["sections"]] == [
        *("kernel", "command-line", "metadata", "ramdisk", "ramdisk")
    ]
    first, second, third = answer["not_determined_by_pcrs"]
    assert "kernel and command line" in first
    assert "command line and first ramdisk" in second
    assert "second and later ramdisks" in third


def test_inspect_for_the_eye(run: InProcess, work: Path) -> None:
    text = run("inspect", sign(work)).stdout.decode()
    assert f"  0: {PCRS[0].hex()}\n" in text
    assert "  algorithm: ES384\n" in text
    assert "    subject: CN=release\n" in text
    assert "nobody has checked who issued it" in text
    measured, _, unattested = text.partition("\nunattested:\n")
    assert "ImageName" not in measured
    assert "    ImageName: app\n" in unattested
    bare = write(work, image(ramdisk("a"), kernel=arm64(), flags=1), "bare.eif")
    text = run("inspect", bare).stdout.decode()
    assert "kernel length checked: no\n" in text
    assert "the same in every image of one ramdisk\n" in text


def test_metadata_cannot_pass_for_anything_else(run: InProcess, work: Path) -> None:
    made = image()
    made.sections[2].data = json.dumps({"a": "b\npcrs:\n  0: \u001b[31m"}).encode()
    text = run("inspect", write(work, made)).stdout.decode()
    assert r"    a: b\npcrs:\n  0: \x1b[31m" in text
    assert text.count("\npcrs:\n") == 1


def test_inspect_of_a_pipe() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kmstool", "inspect", "--json"],
        input=image(ramdisk("a"), ramdisk("b", size=3_000_000)).file(),
        capture_output=True,
        check=True,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert json.loads(done.stdout)["sections"][-1] == {"kind": "ramdisk", "bytes": 3_000_000}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (UNSIGNED.file() + b"\n", "bytes follow the last section"),
        (UNSIGNED.file()[:-1], "the file ends after"),
        (b".eif", "the file ends after 4 bytes, within its header"),
        (b".elf", "the CMS or document is not base64"),
    ],
)
@pytest.mark.parametrize("command", [["inspect"], ["verify", "x", "--pcr-from"]])
def test_what_is_no_image(
    run: InProcess, work: Path, data: bytes, message: str, command: list[str]
) -> None:
    Path(work, "image.eif").write_bytes(data)
    done = run(*command, "image.eif")
    assert done.code == 3
    if command == ["inspect"] or data != b".elf":
        assert message in done.error


def test_verify_expects_the_image(run: InProcess, work: Path) -> None:
    expecting = ("verify", "doc", "--as-of", "own", "--input", "raw", "--pcr-from")
    Path(work, "doc").write_bytes(document(CHAIN, pcrs=PCRS))
    assert run(*expecting, write(work)).code == 0
    other = run(*expecting, write(work, image(command="quiet"), "other.eif"))
    assert other.code == 10
    assert "PCR0 is" in other.error
    done = run(*expecting, sign(work))  # the document is of an unsigned image
    assert done.code == 10
    assert "it has no PCR8" in done.error


def test_policies_of_the_image(run: InProcess, work: Path) -> None:
    build = ("policy", "build", "--account", ACCOUNT, "--administrator", ADMINISTRATOR)
    typed = run(*build, *(f"--pcr={index}={value.hex()}" for index, value in PCRS.items()))
    assert typed.code == 0, typed.stderr
    assert run(*build, "--pcr-from", write(work)).stdout == typed.stdout
    assert b"PCR8" in run(*build, "--pcr-from", sign(work), "--also-pcr", "8").stdout
    done = run(*build, "--pcr-from", "image.eif", "--also-pcr", "8")
    assert (done.code, "has no PCR8" in done.error) == (2, True)
    write(work, image(command="quiet"), "other.eif")
    also = run(*build, "--pcr-from", "image.eif", "--also-image", "other.eif")
    assert also.code == 0, also.stderr
    assert all(value.hex().encode() in also.stdout for value in PCRS.values())
    assert image(command="quiet").pcr(0, 1, 3, 4).hex().encode() in also.stdout
    Path(work, "policy.json").write_bytes(typed.stdout)
    explain = ("policy", "explain", "policy.json", "--principal", ROLE, "--key-id", KEY_ARN)
    assert run.reporting(*explain, "--pcr-from", "image.eif").code == 0
    assert run.reporting(*explain, "--pcr-from", "other.eif").code == 10


def test_a_release_key_signs_measurements(run: InProcess, work: Path) -> None:
    done = run(
        *("verify", "x", "--pcr-from", write(work)),
        *("--release-key", "k", "--release-signature", "s"),
    )
    assert done.code == 2
    assert "signs what nitro-cli printed of an image, not the image" in done.error


def test_the_emulator_runs_the_image(work: Path) -> None:
    emulated = ("emulator", "run", "--pcr-from", write(work), "--")
    attest = (sys.executable, "-m", "kmstool", "attest", "--format", "raw")
    done = subprocess.run(
        [sys.executable, "-m", "kmstool", *emulated, *attest],
        cwd=work,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {0: PCRS[0], 1: PCRS[1], 2: PCRS[2]}.items() <= parse_document(done.stdout).pcrs.items()


def test_an_emulator_with_two_values(run: InProcess, work: Path) -> None:
    for other in (["--pcr", f"0={'00' * 48}"], ["--debug-mode"]):
        done = run("emulator", "run", "--pcr-from", write(work), *other, "--", "true")
        assert done.code == 125
        assert "PCR0" in done.error
