"""`kmstool attest` and `kmstool inspect`: documents of the simulated module, and real ones."""

import base64
import json
from pathlib import Path
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives import serialization
from support.ground import Ground
from support.processes import InProcess, run_kmstool


@pytest.fixture
def run(ground: Ground, in_process: InProcess, monkeypatch: pytest.MonkeyPatch) -> InProcess:
    for name, value in ground.env.items():
        monkeypatch.setenv(name, value)
    return in_process


def test_attest_carries_what_it_is_given(run: InProcess, ground: Ground, ready_key: Any) -> None:
    public_key = ready_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    Path(ground.work, "p.pem").write_bytes(public_key)
    done = run(
        *("attest", "--public-key", "p.pem", "--nonce", "hex:0011", "--user-data", "base64:aGk="),
        *("-o", "document"),
    )
    assert (done.code, done.stdout) == (0, b""), done.stderr
    payload = cbor2.loads(cbor2.loads(Path(ground.work, "document").read_bytes())[2])
    der = serialization.load_pem_public_key(public_key).public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert (payload["public_key"], payload["nonce"], payload["user_data"]) == (
        der,
        b"\0\x11",
        b"hi",
    )


def test_attest_in_json(run: InProcess) -> None:
    answer = run("attest", "--format", "json").json
    assert [caveat["code"] for caveat in answer["caveats"]] == ["simulated-nsm"]
    assert cbor2.loads(base64.b64decode(answer["AttestationDocument"]))


def test_attest_in_debug_mode(run: InProcess, ground: Ground) -> None:
    ground.name_kms(ground.server.address, nsm="debug.sock")
    assert "warning[debug-enclave]" in run("attest", "--format", "hex").stderr
    done = run("attest", "--strict", "--allow-caveat", "simulated-nsm")
    assert done.code == 9
    assert "debug-enclave" in done.error


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--nonce", "hex:" + "00" * 513), 3),
        (("--user-data", "hex:" + "00" * 513), 3),
        (("--nonce", "plain"), 2),
        (("--public-key", "missing"), 11),
        (("--strict",), 9),
    ],
)
def test_attest_refusals(run: InProcess, arguments: tuple[str, ...], code: int) -> None:
    assert run("attest", *arguments).code == code


def test_what_attest_wrote_can_be_inspected(run: InProcess, ground: Ground) -> None:
    assert run("attest", "--nonce", "hex:beef", "-o", "document").code == 0
    done = run("inspect", "document", "--input", "raw", "--json")
    assert done.json["nonce"] == "beef"
    assert done.json["verified"] is False
    assert "note: nothing was verified" in done.stderr
    eye = run("inspect", "document", "--input", "raw").stdout.decode()
    assert "verified: no\n" in eye
    assert "nonce: beef\n" in eye


def test_a_real_document(in_process: InProcess, shared: Path) -> None:
    path = shared / "vectors" / "attestation-debug-2021-03-05.cbor"
    done = in_process("inspect", str(path), "--input", "raw", "--json")
    assert done.code == 0, done.stderr
    assert done.json["debug"] is True
    assert done.json["time"].startswith("2021-03-05T")
    assert "aws.nitro-enclaves" in done.json["cabundle"][0]["subject"]


def test_a_real_cms(in_process: InProcess, shared: Path) -> None:
    (vector,) = json.loads((shared / "vectors" / "kms-cms-with-key.json").read_text())
    Path("cms").write_text(vector["cms"])
    done = in_process("inspect", "cms", "--json")
    assert done.json["type"] == "cms-enveloped-data", done.stderr
    assert done.json["verified"] is False
    assert in_process("inspect", "cms").stdout.startswith(b"type: cms-enveloped-data\n")


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (b"0", 8, ""),
        (b"\x84\x00", 8, ""),
        (b"hello", 3, "byte 68 is neither"),
        (b"", 3, "is empty"),
    ],
)
def test_inspect_refusals(in_process: InProcess, data: bytes, code: int, message: str) -> None:
    Path("file").write_bytes(data)
    done = in_process("inspect", "file", "--input", "raw")
    assert (done.code, message in done.error) == (code, True), done.stderr


def test_inspect_as_a_whole_process_needs_no_emulator(work: Path, shared: Path) -> None:
    document = (shared / "vectors" / "attestation-2022-10-13.cbor").read_bytes()
    done = run_kmstool("inspect", "--json", directory=work, stdin=base64.encodebytes(document))
    assert done.code == 0, done.stderr
    assert len(json.loads(done.stdout)["nonce"]) == 512
