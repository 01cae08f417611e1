"""`kmstool policy build` and `policy check`: what is written where, and what cannot be asked."""

import base64
import json
from pathlib import Path

import pytest
from support.births import ACCOUNT, ADMINISTRATOR, CHAIN, IMAGE, SUCCESSOR
from support.documents import document
from support.processes import Finished, InProcess

from kmstool.cli import verify
from kmstool.policy.build import Image, LockedPolicy

SAMPLES = Path(__file__).parents[1] / "unit" / "policy" / "samples"
SIGNED = IMAGE | {8: b"\xa8" * 48}
NAMED = [f"--pcr={index}={value.hex()}" for index, value in IMAGE.items()]
ALSO = "--also-image=" + ",".join(f"{i}={value.hex()}" for i, value in SUCCESSOR.items())
BUILD = ("policy", "build", "--account", ACCOUNT)


def policy_of(*images: dict[int, bytes], key_spec: str = "SYMMETRIC_DEFAULT") -> bytes:
    locked = LockedPolicy(
        account=ACCOUNT, key_spec=key_spec, images=tuple(map(Image, images)), administrator=None
    )
    return locked.text.encode() + b"\n"


@pytest.fixture
def run(in_process: InProcess, monkeypatch: pytest.MonkeyPatch) -> InProcess:
    """kmstool under the test's own root, as if it were AWS'."""
    # Imported before: who imports the name while it is another keeps that one.
    monkeypatch.setattr(verify, "attestation_root", lambda **_: (CHAIN.root.der, ()))
    monkeypatch.setattr("kmstool.session.attestation_root", lambda **_: (CHAIN.root.der, ()))
    return in_process


@pytest.fixture
def sources(work: Path) -> Path:
    """A build's JSON of a signed image, and documents of a running one."""
    measurements = {f"PCR{index}": value.hex() for index, value in SIGNED.items()}
    (work / "image.json").write_text(json.dumps({"Measurements": measurements}))
    running = dict.fromkeys(range(16), bytes(48)) | SIGNED | {3: b"\xc3" * 48, 4: b"\xc4" * 48}
    (work / "document").write_bytes(document(CHAIN, pcrs=running))
    (work / "document.b64").write_bytes(base64.b64encode((work / "document").read_bytes()))
    debug = running | dict.fromkeys(range(3), bytes(48))
    (work / "debug").write_bytes(document(CHAIN, pcrs=debug))
    return work


# --- build -------------------------------------------------------------------------------------


def test_from_values_that_are_typed(run: InProcess) -> None:
    done = run(*BUILD, *NAMED)
    assert (done.code, done.stdout) == (0, policy_of(IMAGE))
    assert "nobody can ever disable or delete" in done.stderr
    done = run(*BUILD, *NAMED, ALSO, "--key-spec", "ECC_NIST_P384")
    assert done.stdout == policy_of(SUCCESSOR, IMAGE, key_spec="ECC_NIST_P384")
    done = run(*BUILD, *NAMED, "--administrator", ADMINISTRATOR)
    assert done.stderr == ""
    assert ADMINISTRATOR in done.stdout.decode()


@pytest.mark.parametrize("source", ["image.json", "document", "document.b64"])
def test_from_a_file(run: InProcess, sources: Path, source: str) -> None:
    assert run(*BUILD, "--pcr-from", source).stdout == policy_of(IMAGE)
    done = run(*BUILD, "--pcr-from", source, "--also-pcr", "8")
    assert done.stdout == policy_of(SIGNED)
    done = run(*BUILD, "--pcr-from", source, "--pcr", f"3={'c3' * 48}")
    assert done.stdout == policy_of(IMAGE | {3: b"\xc3" * 48})
    done = run(*BUILD, "--pcr-from", source, "--also-pcr", "3")
    if source == "image.json":
        assert done.code == 2
        assert "has no PCR3" in done.error
        assert "a running enclave" in done.hint
    else:
        assert done.stdout == policy_of(IMAGE | {3: b"\xc3" * 48})


def test_from_a_real_document(in_process: InProcess, shared: Path) -> None:
    vectors = shared / "vectors"
    options = ("--also-pcr", "3", "--also-pcr", "8")
    done = in_process(*BUILD, "--pcr-from", str(vectors / "attestation-2022-10-13.cbor"), *options)
    assert done.code == 0, done.stderr
    for index in (0, 1, 2, 3, 8):
        assert done.stdout.count(f"kms:RecipientAttestation:PCR{index}".encode()) == 1
    debug = str(vectors / "attestation-debug-2021-03-05.cbor")
    assert in_process(*BUILD, "--pcr-from", debug).code == 8


def test_verify_takes_a_document_for_what_to_expect(run: InProcess, sources: Path) -> None:
    # Of the image only: another instance's document, with another PCR4, is as good.
    elsewhere = dict.fromkeys(range(16), bytes(48)) | SIGNED | {4: b"\xd4" * 48}
    (sources / "elsewhere").write_bytes(document(CHAIN, pcrs=elsewhere))
    (sources / "unsigned").write_bytes(document(CHAIN, pcrs=elsewhere | {8: bytes(48)}))
    expecting = ("verify", "--pcr-from", "document", "--as-of", "own", "--input", "raw")
    assert run(*expecting, "elsewhere").code == 0
    assert run(*expecting, "unsigned").code == 10


def test_a_document_that_is_not_genuine(in_process: InProcess, sources: Path) -> None:
    done = in_process(*BUILD, "--pcr-from", "document")  # AWS' root is asked for
    assert (done.code, done.stdout) == (8, b"")
    assert done.error.startswith("document, taken for an image: the certificate chain does not")


def test_to_a_file(run: InProcess, work: Path) -> None:
    done = run(*BUILD, *NAMED, "-o", "policy.json")
    assert (done.code, done.stdout) == (0, b"")
    assert (work / "policy.json").read_bytes() == policy_of(IMAGE)
    assert run(*BUILD, *NAMED, "-o", "missing/policy.json").code == 11


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ((), 2, "no image was named"),
        ((ALSO,), 2, "no image was named"),
        (NAMED[:1], 2, "the image has no PCR1"),
        ([*NAMED, "--pcr", f"0={'00' * 48}"], 2, "two values are given for PCR0"),
        ([f"--pcr={index}={'00' * 48}" for index in range(3)], 2, "PCR0 is zero"),
        (["--pcr-from", ""], 11, '"" could not be read'),
        (["--pcr-from", "debug"], 8, "PCR0, PCR1 and PCR2 are zero"),
        (["--pcr-from", "image.json", "--this-enclave"], 2, "both name the image"),
        (["--pcr-from", "image.json", "--also-pcr", "5"], 2, "has no PCR5"),
        ([*NAMED, "--also-pcr", "8"], 2, "--also-pcr takes a register from"),
        (["--pcr-from", "image.json", "--also-pcr", "2"], 2, "also-pcr"),
        # The other image would open on every parent, whatever its role.
        ([*NAMED, f"--pcr=3={'c3' * 48}", ALSO], 2, "another image has no PCR3"),
        (["--pcr-from", "image.json", "--pcr0-alone", "--pcr", NAMED[1][6:]], 2, "PCR0 alone"),
        (
            [*NAMED, "--administrator", f"arn:aws:iam::{ACCOUNT}:root"],
            2,
            "is not the ARN of a role",
        ),
        ([*NAMED, "--keep-put-key-policy"], 2, "PutKeyPolicy is only kept"),
        ([*NAMED, "--outsiders-may", "decrypt"], 2, "outsiders-may"),
        ([*NAMED, "--format", "yaml"], 2, "format"),
        ([*NAMED, ALSO, ALSO], 2, "an image is named twice"),
    ],
)
def test_what_builds_no_policy(
    run: InProcess, sources: Path, options: list[str], code: int, message: str
) -> None:
    done = run(*BUILD, *options)
    assert (done.code, done.stdout) == (code, b"")
    assert message in done.error


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--pcr0-alone", NAMED[0]], "pcr0-alone"),
        ([*NAMED, "--outsiders-may", "encrypt"], "outsiders-may-seal"),
        ([*NAMED, "--root-delegation", "--keep-put-key-policy"], "not-locked"),
        ([*NAMED, ALSO, "--root-delegation"], "mixed-images"),
    ],
)
def test_what_weakens_it_is_a_caveat(run: InProcess, options: list[str], code: str) -> None:
    done = run(*BUILD, *options)
    assert done.code == 0
    assert done.stderr.count(f"warning[{code}]") == 1
    refused = run(*BUILD, *options, "--strict")
    assert (refused.code, refused.stdout) == (9, b"")
    assert run(*BUILD, *options, "--strict", "--allow-caveat", code).code == 0


def test_the_other_forms_also_let_their_programs_read(run: InProcess) -> None:
    for form, mark in (("terraform", b'resource "aws_kms_key"'), ("cloudformation", b"AWS::KMS")):
        done = run(*BUILD, *NAMED, "--format", form)
        assert done.code == 0
        assert mark in done.stdout
        assert b"kms:ListResourceTags" in done.stdout
    assert b"kms:ListResourceTags" not in run(*BUILD, *NAMED).stdout


# --- check -------------------------------------------------------------------------------------


def check(run: InProcess, *arguments: str) -> Finished:
    return run.reporting("policy", "check", *arguments)


def test_what_build_wrote(run: InProcess, work: Path) -> None:
    assert run(*BUILD, *NAMED, "-o", "policy.json").code == 0
    done = check(run, "policy.json")
    assert (done.code, done.stdout) == (0, b"no known mistake was found\n")
    assert "without --key-metadata and --grants" in done.stderr
    policy = (work / "policy.json").read_text()
    (work / "answer.json").write_text(json.dumps({"Policy": policy, "PolicyName": "default"}))
    key, grants = str(SAMPLES / "good.key.json"), str(SAMPLES / "good.grants.json")
    done = check(run, "answer.json", "--key-metadata", key, "--grants", grants)
    assert (done.code, done.stderr) == (0, "")


def test_a_mistake_for_the_eye(run: InProcess) -> None:
    done = check(run, str(SAMPLES / "pcr0-alone.json"))
    assert done.code == 10
    lines = done.stdout.decode().splitlines()
    assert lines[0].startswith('mistake[pcr0-alone] statement "Use": ')
    assert [line[:8] for line in lines[1:]] == ["  why: P", "  mend: "]
    assert done.error == "1 mistake was found"


def test_a_mistake_in_json(run: InProcess) -> None:
    done = check(run, "--json", str(SAMPLES / "create-grant.json"))
    assert done.code == 10
    (finding,) = done.json["findings"]
    assert (finding["code"], finding["statement"], finding["sid"]) == ("create-grant", 1, "Admin")
    assert (done.json["mistakes"], done.json["notes"]) == (1, 0)
    assert done.json["not_looked_at"] == ["key-metadata", "grants"]


def test_notes_do_not_fail(run: InProcess) -> None:
    done = check(run, "--json", str(SAMPLES / "image-sha384.json"))
    assert (done.code, done.json["notes"]) == (0, 1)


def test_the_key_and_its_grants(run: InProcess) -> None:
    good = str(SAMPLES / "account-principal.json")
    for option, name in (("--key-metadata", "origin.key"), ("--grants", "grant.grants")):
        done = check(run, "--json", good, option, str(SAMPLES / f"{name}.json"))
        assert done.code == 10
        found = done.json["findings"][-1]
        assert found["code"] == name.partition(".")[0]
        assert (found["statement"], found["sid"]) == (None, None)


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("", 3, "the policy is empty"),
        ('{"KeyMetadata": {}}', 3, "is the answer to DescribeKey"),
        ('{"Grants": []}', 3, "is the answer to ListGrants"),
        ("{", 3, "is not JSON"),
        ("{}", 3, "has no Statement"),
        ('{"Policy": "{}"}', 3, "has no Statement"),
        ("\x1b[31m", 3, "is not JSON"),
    ],
)
def test_what_is_no_policy(run: InProcess, work: Path, text: str, code: int, message: str) -> None:
    (work / "bad.json").write_text(text)
    done = run("policy", "check", "bad.json")
    assert (done.code, done.stdout) == (code, b"")
    assert "\x1b" not in done.stderr
    assert message in done.error or "U+001B" in done.error


def test_a_description_that_is_none(run: InProcess, work: Path) -> None:
    (work / "bad.json").write_text("{}")
    for option in ("--key-metadata", "--grants"):
        done = run("policy", "check", str(SAMPLES / "image-sha384.json"), option, "bad.json")
        assert (done.code, done.stdout) == (3, b"")
    assert run("policy", "check", "missing.json").code == 11
