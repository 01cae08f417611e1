"""Each link of the chain breaks once, in the way it breaks in life; and once nothing is broken."""

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cbor2
import pytest
from support.emulator import RunningEmulator, running_emulator
from support.patients import bent_directory, enclave_machine, examined

from kmstool.arn import KeyArn, parse_key_arn
from kmstool.caveats import (
    CLOCK_SKEW,
    CUSTOM_NITRO_ROOT,
    CUSTOM_ROOTS,
    DEBUG_ENCLAVE,
    SIMULATED_NSM,
    Tolerance,
)
from kmstool.doctor.machine import Machine
from kmstool.emulator.nsm import SimulatedNsm
from kmstool.emulator.pcrs import label_pcrs
from kmstool.emulator.signer import SigningChain
from kmstool.findings import Verdict

ANYBODY: dict[str, Any] = {
    "Effect": "Allow",
    "Principal": {"AWS": "*"},
    "Action": "kms:*",
    "Resource": "*",
}
ADMIN = {**ANYBODY, "Principal": {"AWS": "arn:aws:iam::111122223333:root"}}


@pytest.fixture(scope="module")
def emulator() -> Iterator[RunningEmulator]:
    with running_emulator() as running:
        yield running


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return enclave_machine(tmp_path / "machine")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "emulator").mkdir()
    return tmp_path / "emulator"


def make_key(emulator: RunningEmulator, *statements: dict[str, Any], **options: Any) -> KeyArn:
    policy = json.dumps({"Version": "2012-10-17", "Statement": list(statements or (ANYBODY,))})
    made = emulator.admin_client().create_key(Policy=policy, **options)
    return parse_key_arn(made["KeyMetadata"]["Arn"])


def locked_to(pcr0: bytes) -> dict[str, Any]:
    name = "kms:RecipientAttestation:PCR0"
    return {
        **ANYBODY,
        "Action": "kms:Decrypt",
        "Condition": {"StringEqualsIgnoreCase": {name: pcr0.hex()}},
    }


# --- Everything is as it should be -------------------------------------------------------------


def test_where_nothing_is_wrong_everything_is_fine(
    emulator: RunningEmulator, machine: Machine, folder: Path
) -> None:
    ends = datetime.now(UTC) + timedelta(hours=1)
    given = json.loads((emulator.directory / "enclave-credentials.json").read_text())
    given["Expiration"] = ends.isoformat()
    key = make_key(emulator, ADMIN, locked_to(label_pcrs()[0]))
    with bent_directory(
        folder, emulator, handle=emulator.emulator.nsm.handle, credentials=given
    ) as environ:
        found = examined(environ, machine, key=key)
    assert found.with_verdict(Verdict.FINE) == [
        "nsm", "nsm-random", "attestation", "pcrs", "entropy", "random-source", "kernel",
        "clock-source", "settings", "forwarder", "tls", "key-exchange", "kms", "clock",
        "credentials", "permission",
    ]  # fmt: skip
    assert len(found.findings) == 16
    assert found["nsm"].caveats == (SIMULATED_NSM,)
    assert found["settings"].caveats == (CUSTOM_ROOTS,)
    assert found["pcrs"].facts["PCR0"] == label_pcrs()[0].hex()
    assert found["tls"].facts["version"] == "TLSv1.3"
    assert found["tls"].facts["root"] == "kmstool emulator CA"
    assert found["credentials"].facts["expiration"] == ends.isoformat()
    assert "59 min" in found["credentials"].text
    for secret in (given["SecretAccessKey"], given["SessionToken"], given["AccessKeyId"]):
        assert secret not in found.text


# --- The security module -----------------------------------------------------------------------


def test_no_security_module(machine: Machine) -> None:
    found = examined({"KMSTOOL_CREDENTIALS": "unix:/nonexistent/x"}, machine)
    assert "there is no /dev/nsm" in found["nsm"].text
    assert "nsm" in found.wrong
    for name in ("nsm-random", "attestation", "pcrs", "permission"):
        assert found[name].verdict is Verdict.NOT_TRIED


def test_the_module_s_socket_is_gone(
    emulator: RunningEmulator, machine: Machine, folder: Path
) -> None:
    with bent_directory(folder, emulator) as environ:
        found = examined(environ, machine)
    assert found.wrong == ["nsm"]
    assert "does not answer" in found["nsm"].text


def test_an_emulator_beside_a_real_module(
    emulator: RunningEmulator, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nsm").touch()
    monkeypatch.setattr("kmstool.session.DEV_NSM", str(tmp_path / "nsm"))
    found = examined(emulator.kmstool_environ(), machine)
    assert found["credentials"].verdict is Verdict.NOT_TRIED  # not asked of a real parent
    assert "this machine has a real /dev/nsm" in found["nsm"].text


def test_a_root_of_attestation_that_is_given(
    emulator: RunningEmulator, machine: Machine, tmp_path: Path
) -> None:
    path = tmp_path / "root.der"
    path.write_bytes(emulator.emulator.chain.root_der)
    found = examined(emulator.kmstool_environ(), machine, nitro_root=path)
    assert "genuine under the given root" in found["attestation"].text
    assert found["attestation"].caveats == (CUSTOM_NITRO_ROOT,)
    path.write_bytes(SigningChain.generate().root_der)
    found = examined(emulator.kmstool_environ(), machine, nitro_root=path)
    assert found.wrong == ["attestation"]


def repeating(handle: Callable[[bytes], bytes], kind: str) -> Callable[[bytes], bytes]:
    """A module that gives the answer of before to requests of this kind."""
    answers: list[bytes] = []

    def repeat(request: bytes) -> bytes:
        asked = cbor2.loads(request)
        if kind != asked and not (isinstance(asked, dict) and kind in asked):
            return handle(request)
        answers.append(handle(request))
        return answers[0]

    return repeat


def test_random_numbers_that_repeat(
    emulator: RunningEmulator, machine: Machine, folder: Path
) -> None:
    handle = repeating(emulator.emulator.nsm.handle, "GetRandom")
    with bent_directory(folder, emulator, handle=handle) as environ:
        found = examined(environ, machine)
    assert found.wrong == ["nsm-random"]


def test_a_document_of_before(emulator: RunningEmulator, machine: Machine, folder: Path) -> None:
    handle = repeating(emulator.emulator.nsm.handle, "Attestation")
    with bent_directory(folder, emulator, handle=handle) as environ:
        assert examined(environ, machine).wrong == []
        found = examined(environ, machine)
    assert found.wrong == ["attestation"]
    assert "nonce" in found["attestation"].text
    assert found["pcrs"].verdict is Verdict.NOT_TRIED


def test_a_document_under_another_root(
    emulator: RunningEmulator, machine: Machine, folder: Path
) -> None:
    module = SimulatedNsm(label_pcrs(), SigningChain.generate())
    with bent_directory(folder, emulator, handle=module.handle) as environ:
        found = examined(environ, machine)
    assert found.wrong == ["attestation"]


def test_debug_mode_is_a_caveat_and_explains_why_kms_refuses(
    emulator: RunningEmulator, machine: Machine, folder: Path
) -> None:
    module = SimulatedNsm({}, emulator.emulator.chain)
    key = make_key(emulator, ADMIN, locked_to(label_pcrs()[0]))
    with bent_directory(folder, emulator, handle=module.handle) as environ:
        found = examined(environ, machine, key=key)
    assert found["pcrs"].verdict is Verdict.CAUTION
    assert found["pcrs"].caveats == (DEBUG_ENCLAVE,)
    assert found.wrong == ["permission"]
    assert "debug mode" in str(found["permission"].advice)


# --- The machine -------------------------------------------------------------------------------


def test_a_kernel_whose_generator_is_not_ready(emulator: RunningEmulator, machine: Machine) -> None:
    def not_ready(_size: int, flags: int) -> bytes:
        assert flags == os.GRND_NONBLOCK
        raise BlockingIOError

    found = examined(emulator.kmstool_environ(), replace(machine, get_random=not_ready))
    assert found.wrong == ["entropy"]


@pytest.mark.parametrize("rng", ["tpm-rng-0", None])
def test_another_source_of_random_numbers(tmp_path: Path, rng: str | None) -> None:
    machine = enclave_machine(tmp_path, rng=rng)
    environ = {"KMSTOOL_CREDENTIALS": "unix:/nonexistent/x"}
    found = examined(environ, machine)["random-source"]
    assert found.verdict is Verdict.WRONG
    assert found.facts["rng_current"] == (rng or "none")
    assert "nsm-hwrng" in str(found.advice)


def test_another_source_under_the_emulator_is_only_told(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    machine = enclave_machine(tmp_path, rng="virtio_rng.0", clock="tsc")
    found = examined(emulator.kmstool_environ(), machine)
    assert found.wrong == []
    assert found.cautions == ["random-source", "clock-source"]


@pytest.mark.parametrize(
    ("release", "verdict"),
    [
        ("4.14.246-198.474.amzn2.x86_64", Verdict.CAUTION),
        ("5.17.11", Verdict.CAUTION),
        ("5.17.12-custom", Verdict.FINE),
        ("6.1", Verdict.FINE),
        ("unreadable", Verdict.CAUTION),
    ],
)
def test_the_kernel_s_version(
    emulator: RunningEmulator, machine: Machine, release: str, verdict: Verdict
) -> None:
    found = examined(emulator.kmstool_environ(), replace(machine, release=release))
    assert found["kernel"].verdict is verdict


def test_another_clock_source(tmp_path: Path) -> None:
    environ = {"KMSTOOL_CREDENTIALS": "unix:/nonexistent/x"}
    found = examined(environ, enclave_machine(tmp_path, clock="tsc"))["clock-source"]
    assert found.verdict is Verdict.CAUTION
    assert "kvm-clock" in str(found.advice)


@pytest.mark.parametrize(
    ("seconds", "verdict"),
    [(30, Verdict.FINE), (-120, Verdict.CAUTION), (120, Verdict.CAUTION), (400, Verdict.WRONG)],
)
def test_a_document_of_another_time(
    emulator: RunningEmulator, machine: Machine, folder: Path, seconds: int, verdict: Verdict
) -> None:
    module = SimulatedNsm(
        label_pcrs(), emulator.emulator.chain, clock=lambda: time.time() + seconds
    )
    with bent_directory(folder, emulator, handle=module.handle) as environ:
        found = examined(environ, machine)["clock"]
    assert found.verdict is verdict
    assert found.caveats == ((CLOCK_SKEW,) if verdict is not Verdict.FINE else ())
    assert ("ahead" if seconds > 0 else "behind") in found.text


# --- Credentials and permission ----------------------------------------------------------------


def credentials(**changes: object) -> dict[str, object]:
    return {
        "Version": 1,
        "AccessKeyId": "ASIAEXAMPLEEXAMPLE12",
        "SecretAccessKey": "s3cr3t/acc3ss+k3y-Zk81LmQw",
        "SessionToken": "s3ss10n/t0k3n+Xy77PqRs0",
        **changes,
    }


@pytest.mark.parametrize(
    ("given", "verdict", "words"),
    [
        (credentials(Expiration="2026-01-01T00:00:00Z"), Verdict.WRONG, "expired"),
        (credentials(SecretAccessKey=""), Verdict.WRONG, "no SecretAccessKey"),
        (credentials(SessionToken=None), Verdict.CAUTION, "long-term"),
        (credentials(), Verdict.FINE, "ASIA…LE12, without a word of when they end"),
        (credentials(AccessKeyId="ASIAEXAMPLE"), Verdict.FINE, "a short one"),
    ],
)
def test_credentials(
    emulator: RunningEmulator,
    machine: Machine,
    folder: Path,
    given: dict[str, object],
    verdict: Verdict,
    words: str,
) -> None:
    with bent_directory(folder, emulator, credentials=given) as environ:
        found = examined(environ, machine)
    assert found["credentials"].verdict is verdict
    assert words in found["credentials"].text
    for name in ("SecretAccessKey", "SessionToken", "AccessKeyId"):
        assert not given[name] or str(given[name]) not in found.text


def test_credentials_that_end_soon(
    emulator: RunningEmulator, machine: Machine, folder: Path
) -> None:
    ends = (datetime.now(UTC) + timedelta(seconds=100)).isoformat()
    with bent_directory(folder, emulator, credentials=credentials(Expiration=ends)) as environ:
        found = examined(environ, machine)["credentials"]
    assert found.verdict is Verdict.CAUTION
    assert "1 min" in found.text


def test_nobody_hands_out_credentials(emulator: RunningEmulator, machine: Machine) -> None:
    found = examined(emulator.kmstool_environ(), machine, credentials="unix:/nonexistent/x")
    assert found.wrong == ["credentials"]
    assert "kmstool parent credentials" in str(found["credentials"].advice)


def test_credentials_that_kms_does_not_know(
    emulator: RunningEmulator, machine: Machine, folder: Path
) -> None:
    with bent_directory(
        folder, emulator, handle=emulator.emulator.nsm.handle, credentials=credentials()
    ) as environ:
        found = examined(environ, machine, key=make_key(emulator))
    assert found.wrong == ["permission"]
    assert "UnrecognizedClientException" in found["permission"].text


def test_a_policy_that_denies(emulator: RunningEmulator, machine: Machine) -> None:
    key = make_key(emulator, ADMIN, locked_to(b"\x11" * 48))
    found = examined(emulator.kmstool_environ(), machine, key=key)
    assert found.wrong == ["permission"]
    assert "AccessDeniedException" in found["permission"].text
    assert label_pcrs()[0].hex() in str(found["permission"].advice)


def test_an_encryption_context_goes_along(emulator: RunningEmulator, machine: Machine) -> None:
    statement = {**ANYBODY, "Condition": {"StringEquals": {"kms:EncryptionContext:app": "demo"}}}
    key = make_key(emulator, ADMIN, statement)
    environ = emulator.kmstool_environ()
    assert examined(environ, machine, key=key).wrong == ["permission"]
    assert examined(environ, machine, key=key, encryption_context={"app": "demo"}).wrong == []


def test_a_key_that_is_disabled(emulator: RunningEmulator, machine: Machine) -> None:
    key = make_key(emulator)
    emulator.admin_client().disable_key(KeyId=str(key))
    found = examined(emulator.kmstool_environ(), machine, key=key)
    assert found.wrong == ["permission"]
    assert "DisabledException" in found["permission"].text


@pytest.mark.parametrize("spec", ["ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521"])
def test_a_key_for_agreement(emulator: RunningEmulator, machine: Machine, spec: str) -> None:
    key = make_key(emulator, KeySpec=spec, KeyUsage="KEY_AGREEMENT")
    environ = emulator.kmstool_environ()
    assert examined(environ, machine, key=key, operation="derive-shared-secret").wrong == []
    found = examined(environ, machine, key=key)["permission"]
    assert found.verdict is Verdict.WRONG
    assert "InvalidKeyUsageException" in found.text


def test_a_data_key(emulator: RunningEmulator, machine: Machine) -> None:
    environ = emulator.kmstool_environ()
    key = make_key(emulator, ADMIN, locked_to(label_pcrs()[0]))
    assert (
        examined(environ, machine, key=make_key(emulator), operation="generate-data-key").wrong
        == []
    )
    assert examined(environ, machine, key=key, operation="generate-data-key").wrong == [
        "permission"
    ]


def test_without_a_key_nothing_is_asked(emulator: RunningEmulator, machine: Machine) -> None:
    asked = len(emulator.log)
    found = examined(emulator.kmstool_environ(), machine)["permission"]
    assert found.verdict is Verdict.NOT_TRIED
    assert "--key-id" in str(found.advice)
    assert not any("Recipient" in line for line in emulator.log[asked:])


# --- Caveats that are not accepted --------------------------------------------------------------


def test_under_strict_nothing_depends_on_a_refused_caveat(
    emulator: RunningEmulator, machine: Machine
) -> None:
    tolerance = Tolerance(strict=True, allowed=frozenset({"simulated-nsm"}))
    key = make_key(emulator)
    found = examined(emulator.kmstool_environ(), machine, key=key, tolerance=tolerance)
    assert found.wrong == ["settings"]
    assert found["permission"].verdict is Verdict.NOT_TRIED
    both = Tolerance(strict=True, allowed=frozenset({"simulated-nsm", "custom-roots"}))
    assert examined(emulator.kmstool_environ(), machine, key=key, tolerance=both).wrong == []
