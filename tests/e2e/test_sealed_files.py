"""Sealed files end to end: sealed anywhere, opened in an enclave over TLS and over a relay.

The KMS, its keys and the security module are the emulator's; `seal` runs without any of them.
"""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from support.emulator import RunningEmulator, running_emulator
from support.processes import Finished, command, environment, run_kmstool
from support.relays import RelayProcess, relay_process
from support.sealed_files import signing_key, stream

POLICY = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:*", "Resource": "*"}
        ],
    }
)
CURVES = ("ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521")
PLAINTEXT = stream("end to end", 100_000)
TWO_BATCHES = stream("end to end", 3 * 1024 * 1024)
ALLOWED = ("--strict", "--allow-caveat", "simulated-nsm", "--allow-caveat", "custom-roots")


@dataclass(frozen=True)
class World:
    """A KMS with keys, a relay to it, and two signing keys; everything below `folder`."""

    emulator: RunningEmulator
    relay: RelayProcess
    folder: Path
    arns: dict[str, str]  # by curve, `symmetric` and `foreign`

    def outside(self, *arguments: str, stdin: bytes = b"") -> Finished:
        """A machine with nothing: no emulator, no account, no network."""
        return run_kmstool(*arguments, directory=self.folder, stdin=stdin)

    def inside(self, *arguments: str, stdin: bytes = b"", may_print: bool = False) -> Finished:
        """The enclave."""
        environ = self.emulator.kmstool_environ()
        return run_kmstool(
            *arguments, directory=self.folder, env=environ, stdin=stdin, may_print=may_print
        )

    @property
    def via_relay(self) -> tuple[str, str]:
        return "--via", f"relay={self.relay.address}"

    def public_key(self, name: str) -> str:
        return str(self.folder / f"{name}.der")

    def seal(self, name: str, *options: str, plaintext: bytes = PLAINTEXT) -> bytes:
        to = ("--to", self.public_key(name), "--key-id", self.arns[name])
        done = self.outside("seal", *to, *options, stdin=plaintext)
        assert done.code == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("sealed")
    with running_emulator() as emulator:
        kms = emulator.admin_client()
        arns = {"symmetric": kms.create_key(Policy=POLICY)["KeyMetadata"]["Arn"]}
        for curve in CURVES:
            made = kms.create_key(Policy=POLICY, KeySpec=curve, KeyUsage="KEY_AGREEMENT")
            arns[curve] = made["KeyMetadata"]["Arn"]
            public = kms.get_public_key(KeyId=arns[curve])["PublicKey"]
            Path(folder, f"{curve}.der").write_bytes(public)
        for name in ("signer", "other"):
            key = signing_key(name)
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            Path(folder, f"{name}.pem").write_bytes(pem)
            public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            Path(folder, f"{name}.pub").write_bytes(public)
        with relay_process(emulator, list(arns.values())) as relay:
            yield World(emulator, relay, folder, arns)


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("relayed", [False, True])
def test_sealed_outside_and_opened_inside(world: World, curve: str, relayed: bool) -> None:
    sealed = world.seal(curve, "--sign-with", "signer.pem", "--label", "l", "--counter", "7")
    expected = ("--expect-signer", "signer.pub", "--expect-label", "l", "--min-counter", "7")
    via = world.via_relay if relayed else ()
    done = world.inside(
        "open", *ALLOWED, "--key-id", world.arns[curve], *expected, *via, stdin=sealed
    )
    assert (done.code, done.stdout) == (0, PLAINTEXT), done.stderr
    assert "relayed-answer" not in done.stderr  # the key went straight into an AEAD
    assert "unknown-sealer" not in done.stderr


def test_the_caveats_of_a_plain_seal_and_open(world: World) -> None:
    to = ("--to", world.public_key(CURVES[0]), "--key-id", world.arns[CURVES[0]])
    sealed = world.outside("seal", *to, stdin=PLAINTEXT)
    assert "warning[unverified-recipient]" in sealed.stderr
    opened = world.inside("open", "--any-key", stdin=sealed.stdout)
    assert (opened.code, opened.stdout) == (0, PLAINTEXT), opened.stderr
    assert "warning[unknown-sealer]" in opened.stderr
    assert "warning[unpinned-key]" in opened.stderr


def test_a_data_key_is_made_inside_and_opened_over_both_ways(world: World) -> None:
    key = ("--key-id", world.arns["symmetric"])
    context = ("--encryption-context", "app=web", "--encryption-context", "stage=é")
    sealed = world.inside("seal", *ALLOWED, "--data-key", *key, *context, stdin=PLAINTEXT)
    assert sealed.code == 0, sealed.stderr
    assert "unverified-recipient" not in sealed.stderr
    for via in ((), world.via_relay):
        opened = world.inside("open", *key, *via, stdin=sealed.stdout)
        assert (opened.code, opened.stdout) == (0, PLAINTEXT), opened.stderr


def test_no_data_key_over_a_relay(world: World) -> None:
    key = ("--key-id", world.arns["symmetric"])
    done = world.inside("seal", "--data-key", *key, *world.via_relay, stdin=PLAINTEXT)
    assert done.code == 2, done.stderr
    assert "one that the parent chose and knows" in done.error


def test_either_of_two_recipients_opens_it(world: World) -> None:
    first, second = CURVES[0], CURVES[2]
    sealed = world.seal(first, "--to", world.public_key(second), "--key-id", world.arns[second])
    for curve in (first, second):
        done = world.inside("open", "--key-id", world.arns[curve], stdin=sealed)
        assert (done.code, done.stdout) == (0, PLAINTEXT), done.stderr
    done = world.inside("open", "--key-id", world.arns["symmetric"], stdin=sealed)
    assert done.code == 8, done.stderr
    assert "the file is not sealed to the key" in done.error


def test_a_public_key_and_a_data_key_in_one_file(world: World) -> None:
    sealed = world.inside(
        "seal", "--to", world.public_key(CURVES[1]), "--key-id", world.arns[CURVES[1]],
        "--data-key", "--key-id", world.arns["symmetric"], stdin=PLAINTEXT,
    )  # fmt: skip
    assert sealed.code == 0, sealed.stderr
    for name in (CURVES[1], "symmetric"):
        done = world.inside("open", "--key-id", world.arns[name], stdin=sealed.stdout)
        assert (done.code, done.stdout) == (0, PLAINTEXT), done.stderr


@pytest.mark.parametrize("relayed", [False, True])
def test_an_altered_file_has_one_message(world: World, relayed: bool) -> None:
    sealed = world.seal(CURVES[0])
    via = world.via_relay if relayed else ()
    messages = set()
    in_wrapped_key = sealed.index(b"\x03\x58\x30") + 5
    in_mac = len(sealed) - len(PLAINTEXT) - 50
    for index in (in_wrapped_key, in_mac, len(sealed) - 1):
        changed = bytearray(sealed)
        changed[index] ^= 1
        done = world.inside("open", "--any-key", *via, "-o", "out", stdin=bytes(changed))
        messages.add((done.code, done.error))
        assert not Path(world.folder, "out").exists()
    assert messages == {
        (8, "it could not be opened: the key is not the right one, or it was altered")
    }


def test_to_stdout_what_is_authenticated_goes_out_and_a_late_failure_says_so(world: World) -> None:
    sealed = world.seal(CURVES[0], plaintext=TWO_BATCHES)
    key = ("--key-id", world.arns[CURVES[0]])
    done = world.inside("open", *key, stdin=sealed[:-1], may_print=True)
    assert done.code == 8, done.stderr
    assert done.stdout
    assert TWO_BATCHES.startswith(done.stdout)
    assert len(done.stdout) < len(TWO_BATCHES)
    assert done.hint == "the output is incomplete: nothing of it may be used"


def test_the_warnings_come_before_the_data(world: World) -> None:
    done = subprocess.run(
        command("open", "--any-key"),
        input=world.seal(CURVES[0]), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
        env=environment(world.emulator.kmstool_environ()), check=True,
    )  # fmt: skip
    warnings, data = done.stdout[: -len(PLAINTEXT)], done.stdout[-len(PLAINTEXT) :]
    assert data == PLAINTEXT
    for code in (b"unpinned-key", b"unknown-sealer", b"simulated-nsm"):
        assert warnings.count(b"warning[" + code) == 1


def test_to_a_file_nothing_appears_and_the_old_one_stays(world: World) -> None:
    sealed = world.seal(CURVES[0], plaintext=TWO_BATCHES)
    key = ("--key-id", world.arns[CURVES[0]])
    target = Path(world.folder, "kept")
    target.write_bytes(b"old")
    done = world.inside("open", *key, "-o", "kept", stdin=sealed[:-1])
    assert done.code == 8, done.stderr
    assert target.read_bytes() == b"old"
    done = world.inside("open", *key, "-o", "kept", stdin=sealed)
    assert (done.code, done.stdout) == (0, b""), done.stderr
    assert target.read_bytes() == TWO_BATCHES
    assert target.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--expect-signer", "other.pub"), "the file is signed by "),
        (("--expect-label", "x"), "the file has the label 'l', and 'x' was expected"),
        (("--min-counter", "8"), "the file has the counter 7, and at least 8 was expected"),
    ],
)
def test_another_file_than_expected(world: World, options: tuple[str, str], message: str) -> None:
    sealed = world.seal(CURVES[0], "--sign-with", "signer.pem", "--label", "l", "--counter", "7")
    before = len(world.emulator.log)
    done = world.inside("open", "--any-key", *options, stdin=sealed)
    assert done.code == 8, done.stderr
    assert message in done.error
    assert len(world.emulator.log) == before  # KMS was not asked


def test_strict_open_without_a_signer_asks_nobody(world: World) -> None:
    sealed = world.seal(CURVES[0])
    before = len(world.emulator.log)
    done = world.inside("open", *ALLOWED, "--key-id", world.arns[CURVES[0]], stdin=sealed)
    assert done.code == 9, done.stderr
    assert "[unknown-sealer]" in done.error
    assert len(world.emulator.log) == before


def test_a_key_that_kms_does_not_know(world: World) -> None:
    arn = world.arns[CURVES[0]][:-12] + "0" * 12
    sealed = world.outside(
        "seal", "--to", world.public_key(CURVES[0]), "--key-id", arn, stdin=PLAINTEXT
    )
    done = world.inside("open", "--key-id", arn, stdin=sealed.stdout)
    assert done.code == 7, done.stderr
    assert "NotFoundException" in done.error


def test_a_key_of_another_curve_than_the_file_says(world: World) -> None:
    """The sealer gave another key's ARN: KMS refuses the point, or the answer has no room."""
    sealed = world.outside(
        "seal", "--to", world.public_key(CURVES[0]), "--key-id", world.arns[CURVES[1]],
        stdin=PLAINTEXT,
    )  # fmt: skip
    done = world.inside("open", "--key-id", world.arns[CURVES[1]], stdin=sealed.stdout)
    assert done.code in {7, 8}, done.stderr


def test_inspect_reads_it_without_any_key(world: World) -> None:
    sealed = world.seal(CURVES[2], "--label", "l", "--cipher", "chacha20-poly1305")
    done = world.outside("inspect", "--json", stdin=sealed)
    assert done.code == 0, done.stderr
    assert done.json["recipients"][0]["key"] == world.arns[CURVES[2]]
    assert (done.json["type"], done.json["verified"]) == ("sealed-file", False)
    assert (done.json["cipher"], done.json["label"]) == ("ChaCha20-Poly1305", "l")
