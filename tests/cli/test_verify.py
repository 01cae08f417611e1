"""`kmstool verify`: what exit 0 has compared, what exit 10 says, and what cannot be asked."""

import base64
import json
import os
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support.births import (
    ACCOUNT,
    ADMINISTRATOR,
    CHAIN,
    IMAGE,
    KEY_ARN,
    SUCCESSOR,
    birth_certificate,
)
from support.documents import NOW, document, make_chain
from support.negatives import Negative
from support.negatives_real import BENT
from support.processes import InProcess

from kmstool.attestation.verify import STEPS
from kmstool.caveats import CATALOGUE

NAMED = [f"--pcr={index}={value.hex()}" for index, value in IMAGE.items()]
OWN = ("--as-of", "own")
MEASUREMENTS = json.dumps(
    {"Measurements": {f"PCR{index}": value.hex() for index, value in IMAGE.items()}}
)
ALSO = "--also-image=" + ",".join(f"{i}={value.hex()}" for i, value in SUCCESSOR.items())


@pytest.fixture
def run(in_process: InProcess, monkeypatch: pytest.MonkeyPatch) -> InProcess:
    """kmstool under the test's own root, as if it were AWS'."""
    monkeypatch.setattr("kmstool.cli.verify.attestation_root", lambda **_: (CHAIN.root.der, ()))
    return in_process


def write(work: Path, name: str, data: bytes) -> str:
    (work / name).write_bytes(data)
    return name


def doc(work: Path, **fields: Any) -> str:
    data = document(CHAIN, **{"pcrs": IMAGE, **fields})
    return write(work, "doc.b64", base64.b64encode(data))


# --- Documents ---------------------------------------------------------------------------------


def test_a_root_that_is_named(in_process: InProcess, work: Path) -> None:
    path = doc(work)
    root = ("--nitro-root", write(work, "root.der", CHAIN.root.der))
    done = in_process("verify", path, *OWN, *NAMED, *root)
    assert done.code == 0
    assert "warning[custom-nitro-root]" in done.stderr
    done = in_process("verify", path, *OWN, *NAMED, *root, "--strict")
    assert (done.code, done.stdout) == (9, b"")
    assert in_process("verify", path, *OWN, *NAMED).code == 10  # AWS' root did not sign it
    other = ("--nitro-root", write(work, "other.der", make_chain().root.der))
    assert in_process("verify", path, *OWN, *NAMED, *other).code == 10


def test_a_document_that_is_as_expected(run: InProcess, work: Path) -> None:
    key = CHAIN.leaf.key.public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    write(work, "key.der", der)
    path = doc(work, nonce=b"n" * 16, user_data=b"hi", public_key=der)
    done = run(
        *("verify", path, *OWN, *NAMED, "--nonce", "utf8:" + "n" * 16, "--user-data", "utf8:hi"),
        *("--public-key", "key.der"),
    )
    assert (done.code, done.stderr) == (0, "")
    text = done.stdout.decode()
    assert "verified: yes" in text
    assert "compared: PCR0, PCR1, PCR2, nonce, user_data, public_key\n" in text
    assert f"time: {NOW.isoformat(timespec='milliseconds')}" in text
    assert f"  0: {IMAGE[0].hex()}" in text


def test_a_document_in_json(run: InProcess, work: Path) -> None:
    done = run("verify", doc(work), *OWN, *NAMED, "--json")
    answer = done.json
    assert (answer["type"], answer["verified"]) == ("attestation-document", True)
    assert answer["compared"] == "PCR0, PCR1, PCR2"
    assert answer["pcrs"] == {str(index): value.hex() for index, value in IMAGE.items()}
    assert (answer["user_data"], answer["caveats"]) == (None, [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pcr", f"0={SUCCESSOR[0].hex()}"], "PCR0 is a1a1"),
        (["--pcr", f"16={IMAGE[0].hex()}"], "it has no PCR16"),
        (["--nonce", "utf8:other"], "its nonce of 16 bytes is not the expected one of 5 bytes"),
        (["--user-data", "utf8:x"], "it has no user_data"),
        (["--as-of", "now"], "(step 3, chain)"),
        (["--as-of", "2026-06-01T14:00:00Z"], "(step 3, chain)"),
        (["--as-of", "2026-06-01T12:30:00Z", "--max-age", "60"], "it is 1800 seconds old, over 60"),
    ],
)
def test_a_check_that_fails(run: InProcess, work: Path, options: list[str], message: str) -> None:
    as_of = [] if "--as-of" in options else OWN
    done = run("verify", doc(work), *as_of, *options)
    assert (done.code, done.stdout) == (10, b"")
    assert message in done.error
    assert "(step " in done.error


def test_verbose_shows_the_steps_with_their_numbers(run: InProcess, work: Path) -> None:
    done = run("verify", doc(work), *OWN, *NAMED, "--verbose")
    assert done.code == 0
    steps = [line for line in done.stderr.splitlines() if "(" in line]
    assert [line.partition(" (")[2][:12].partition(":")[0] for line in steps] == [
        "1) cbor",
        "2) document",
        "3) chain",
        "4) signature",
        "5) expectati",
    ]
    assert "4 certificates from the leaf to the trusted root" in steps[2]
    assert "2026-06-01T11:00:00Z to 2026-06-01T13:00:00Z; as of 2026-06-01T12:00:00Z" in steps[2]
    assert steps[4].endswith("as expected: PCR0, PCR1, PCR2")


def test_verbose_stops_at_the_step_that_failed(run: InProcess, work: Path) -> None:
    done = run("verify", doc(work), *OWN, "--nonce", "utf8:other", "--verbose")
    assert done.code == 10
    assert "(4) signature:" in done.stderr
    assert "(5) expectations:" not in done.stderr
    assert "(step 5, expectations)" in done.error


@pytest.mark.parametrize("tag", [b"", b"\xd2"])
@pytest.mark.parametrize("indefinite", [False, True])
@pytest.mark.parametrize("raw", [False, True])
def test_every_form_from_a_file_and_from_stdin(
    run: InProcess, work: Path, tag: bytes, indefinite: bool, raw: bool
) -> None:
    data = tag + document(CHAIN, pcrs=IMAGE, indefinite=indefinite)
    if not raw:
        data = base64.encodebytes(data)
    form = ["--input", "raw"] if raw else []
    path = write(work, "doc", data)
    assert run("verify", path, *form, *OWN, *NAMED).code == 0
    before = os.dup(0)
    try:
        for source in ([], ["-"]):
            with (work / path).open("rb") as file:
                os.dup2(file.fileno(), 0)
                assert run("verify", *source, *form, *OWN, *NAMED).code == 0
    finally:
        os.dup2(before, 0)
        os.close(before)


def test_times(run: InProcess, work: Path) -> None:
    path = doc(work)
    for time in ("2026-06-01T12:30:00Z", "2026-06-01T14:30:00+02:00"):
        done = run("verify", path, *NAMED, "--as-of", time, "--max-age", "1800", "--json")
        assert (done.code, done.json["as_of"]) == (0, "2026-06-01T12:30:00+00:00")
        assert done.json["compared"] == "PCR0, PCR1, PCR2, age"


def test_now_is_the_default(run: InProcess, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC)
    times = {"not_before": now - timedelta(hours=1), "not_after": now + timedelta(hours=1)}
    fresh = make_chain(root=times, ca1=times, ca2=times, leaf=times)
    monkeypatch.setattr("kmstool.cli.verify.attestation_root", lambda **_: (fresh.root.der, ()))
    data = document(fresh, pcrs=IMAGE, timestamp=int(now.timestamp() * 1000))
    path = write(work, "doc.bin", data)
    done = run("verify", path, "--input", "raw", *NAMED, "--max-age", "60")
    assert done.code == 0, done.stderr


@pytest.mark.parametrize("options", [[], ["--nonce", "utf8:" + "n" * 16]])
def test_without_a_pcr_nothing_is_known_of_the_image(
    run: InProcess, work: Path, options: list[str]
) -> None:
    done = run("verify", doc(work), *OWN, *options)
    assert done.code == 0
    assert CATALOGUE["nothing-expected"].sentence in done.stderr
    assert run("verify", doc(work), *OWN, *options, "--strict").code == 9


def test_of_pcr0_alone_another_image_can_be_had(run: InProcess, work: Path) -> None:
    done = run("verify", doc(work), *OWN, NAMED[0])
    assert done.code == 0
    assert CATALOGUE["pcr0-alone"].sentence in done.stderr
    for more in (NAMED[1], NAMED[2]):
        assert run("verify", doc(work), *OWN, NAMED[0], more, "--strict").code == 0


def test_debug_mode_carries_its_caveat(run: InProcess, work: Path) -> None:
    zeros = dict.fromkeys(range(3), bytes(48))
    named = [f"--pcr={index}={'00' * 48}" for index in zeros]
    wanted = ("verify", doc(work, pcrs=zeros), *OWN, *named, "--json")
    refused = run(*wanted)
    assert (refused.code, refused.stdout) == (10, b"")
    assert "started in debug mode (step 5, expectations)" in refused.error
    done = run(*wanted, "--allow-debug")
    assert done.code == 0
    assert [one["code"] for one in done.json["caveats"]] == ["debug-enclave"]


def test_a_document_that_is_none(run: InProcess, work: Path) -> None:
    assert run("verify", write(work, "x", b"AAAA"), *NAMED).code == 10
    assert run("verify", write(work, "x", b"not base64"), *NAMED).code == 3
    for form in ("base64", "raw"):
        done = run("verify", write(work, "x", b' {"Statement": []}'), *NAMED, "--input", form)
        assert (done.code, done.error) == (3, "this is JSON, not a document")
    assert run("verify", "missing", *NAMED).code == 11


def test_a_real_document_leads_to_aws(in_process: InProcess, shared: Path) -> None:
    path = str(shared / "vectors" / "attestation-2022-10-13.cbor")
    done = in_process("verify", path, "--input", "raw", *OWN)
    assert done.code == 0, done.stderr
    assert "verified: yes" in done.stdout.decode()
    assert in_process("verify", path, "--input", "raw").code == 10  # its certificates have expired


BENT_AS_OF_ITS_TIME = [one for one in BENT if "another root" not in one.name]


@pytest.mark.parametrize("negative", BENT_AS_OF_ITS_TIME, ids=lambda negative: negative.name)
def test_a_bent_real_document(
    in_process: InProcess, work: Path, shared: Path, negative: Negative
) -> None:
    made = negative.make()
    path = write(work, "doc.cbor", made.data)
    done = in_process("verify", path, "--input", "raw", "--as-of", made.at.isoformat())
    assert (done.code, done.stdout) == (10, b"")
    assert f"(step {STEPS.index(negative.step) + 1}, {negative.step})" in done.error
    assert re.search(negative.says, done.error)


# --- What can be expected ----------------------------------------------------------------------


def test_measurements_from_the_build(run: InProcess, work: Path) -> None:
    write(work, "image.json", MEASUREMENTS.encode())
    done = run("verify", doc(work), *OWN, "--pcr-from", "image.json", "--json")
    assert (done.code, done.json["compared"]) == (0, "PCR0, PCR1, PCR2")
    other = run("verify", doc(work), *OWN, "--pcr-from", "image.json", f"--pcr=0={'0b' * 48}")
    assert other.code == 2
    assert "two values are expected of PCR0" in other.error
    same = run("verify", doc(work), *OWN, "--pcr-from", "image.json", NAMED[0])
    assert same.code == 0
    write(work, "image.json", b"{}")
    assert run("verify", doc(work), *OWN, "--pcr-from", "image.json").code == 3


def test_measurements_under_a_release_key(run: InProcess, work: Path) -> None:
    write(work, "image.json", MEASUREMENTS.encode())
    for command in (
        "genpkey -algorithm ed25519 -out release.key",
        "pkey -in release.key -pubout -out release.pem",
        "pkeyutl -sign -rawin -inkey release.key -in image.json -out image.sig",
    ):
        subprocess.run(["openssl", *command.split()], check=True, capture_output=True, cwd=work)
    release = ("--pcr-from", "image.json", "--release-key", "release.pem")
    signed = (*release, "--release-signature", "image.sig")
    assert run("verify", doc(work), *OWN, *signed).code == 0
    write(work, "image.json", MEASUREMENTS.encode() + b"\n")
    done = run("verify", doc(work), *OWN, *signed)
    assert done.code == 10
    assert "did not sign" in done.error
    for options in (release, signed[2:], signed[:2] + signed[4:]):
        done = run("verify", doc(work), *OWN, *options)
        assert done.code == 2
        assert "belong together" in done.error


@pytest.mark.parametrize(
    "option",
    [
        "--pcr=0=00",
        "--pcr=32=" + "00" * 48,
        "--pcr=x=" + "00" * 48,
        "--pcr=00=" + "00" * 48,
        "--pcr=" + "00" * 48,
        "--pcr=0=" + "0g" * 48,
        "--as-of=yesterday",
        "--as-of=2026-06-01T12:00:00",
        "--max-age=-1",
        "--max-age=nan",  # no age is over it
    ],
)
def test_options_that_are_wrong(run: InProcess, work: Path, option: str) -> None:
    done = run("verify", doc(work), option)
    assert done.code == 2
    assert done.error


# --- Birth certificates ------------------------------------------------------------------------

BIRTH = ("verify", "--birth-certificate", "key.cert")


def cert(work: Path, **changes: Any) -> None:
    write(work, "key.cert", birth_certificate(**changes))


def test_a_birth_certificate(run: InProcess, work: Path) -> None:
    cert(work, administrator=ADMINISTRATOR, images=(IMAGE, SUCCESSOR))
    done = run(*BIRTH, *NAMED, "--account", ACCOUNT, ALSO)
    assert (done.code, done.stderr) == (0, "")
    text = done.stdout.decode()
    for line in (
        "type: birth-certificate",
        "verified: yes",
        f"as of: {NOW.isoformat(timespec='milliseconds')}",
        f"key arn: {KEY_ARN}",
        f"account: {ACCOUNT}",
        "key spec: ECC_NIST_P384",
        "key usage: KEY_AGREEMENT",
        f"administrator: {ADMINISTRATOR}",
        f"    0: {SUCCESSOR[0].hex()}",
    ):
        assert f"{line}\n" in text
    answer = run(*BIRTH, *NAMED, "--account", ACCOUNT, ALSO, "--json").json
    assert answer["key_arn"] == KEY_ARN
    assert [one["0"] for one in answer["opens_for"]] == ["a1" * 48, "b1" * 48]


def test_the_caveats_of_a_birth_certificate(run: InProcess, work: Path) -> None:
    cert(work, caveats=["custom-roots"])
    done = run(*BIRTH, *NAMED, "--account", ACCOUNT)
    assert done.code == 0
    assert "warning[custom-roots]" in done.stderr
    assert run(*BIRTH, *NAMED, "--account", ACCOUNT, "--strict").code == 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([*NAMED, "--account", "444455556666"], "the key is of account"),
        ([*NAMED, "--account", ACCOUNT, ALSO], "does not open for the image"),
        (
            [*(f"--pcr={i}={v.hex()}" for i, v in SUCCESSOR.items()), "--account", ACCOUNT],
            "PCR0 is a1a1",
        ),
        ([*NAMED, f"--pcr=8={'08' * 48}", "--account", ACCOUNT], "it has no PCR8"),
    ],
)
def test_a_birth_certificate_that_is_not_as_expected(
    run: InProcess, work: Path, options: list[str], message: str
) -> None:
    cert(work)
    done = run(*BIRTH, *options)
    assert (done.code, done.stdout) == (10, b"")
    assert message in done.error
    assert "(step 5, expectations)" in done.error


def test_a_birth_certificate_in_the_place_of_a_document(run: InProcess, work: Path) -> None:
    cert(work)
    for options in ([], ["--input", "raw"]):
        done = run("verify", *options, "key.cert")
        assert done.code == 3
        assert done.error == "this is a birth certificate, not a document"
        assert done.hint == "name it with --birth-certificate"


def test_a_file_that_is_no_birth_certificate(run: InProcess, work: Path) -> None:
    write(work, "key.cert", b"{}")
    done = run(*BIRTH, *NAMED, "--account", ACCOUNT)
    assert done.code == 10
    assert "(step certificate)" in done.error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([*NAMED], "needs --account"),
        (["--account", ACCOUNT], "needs PCR0, PCR1 and PCR2"),
        ([*NAMED[:2], "--account", ACCOUNT], "needs PCR0, PCR1 and PCR2"),
        ([*NAMED, "--account", ACCOUNT, "doc.b64"], "one command verifies one"),
        ([*NAMED, "--account", ACCOUNT, "--nonce", "utf8:n"], "--nonce is for a document alone"),
        ([*NAMED, "--account", ACCOUNT, "--user-data", "utf8:"], "--user-data is for a document"),
        ([*NAMED, "--account", ACCOUNT, "--public-key", "x"], "--public-key is for a document"),
        ([*NAMED, "--account", ACCOUNT, "--max-age", "1"], "--max-age is for a document alone"),
        ([*NAMED, "--account", ACCOUNT, "--as-of", "own"], "--as-of is for a document alone"),
        ([*NAMED, "--account", ACCOUNT, "--input", "raw"], "--input is for a document alone"),
        ([*NAMED, "--account", ACCOUNT, "--allow-debug"], "--allow-debug is for a document alone"),
        ([*NAMED, "--account", ACCOUNT, "--also-image", "0=00"], "is not of the form N=HEX"),
        (
            [*NAMED, "--account", ACCOUNT, f"--also-image=0={'00' * 48},0={'00' * 48}"],
            "names a PCR twice",
        ),
    ],
)
def test_what_cannot_be_asked_of_a_birth_certificate(
    run: InProcess, work: Path, options: list[str], message: str
) -> None:
    cert(work)
    doc(work)
    done = run(*BIRTH, *options)
    assert (done.code, done.stdout) == (2, b"")
    assert message in done.error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--account", ACCOUNT], "--account is for --birth-certificate alone"),
        ([ALSO], "--also-image is for --birth-certificate alone"),
        ([*OWN, "--max-age", "1"], "--max-age means nothing as of the document's own time"),
    ],
)
def test_what_cannot_be_asked_of_a_document(
    run: InProcess, work: Path, options: list[str], message: str
) -> None:
    done = run("verify", doc(work), *options)
    assert done.code == 2
    assert message in done.error
