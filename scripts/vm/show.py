"""What `scripts/enclave-vm run` shows, step by step; a step that does not hold ends it.

Every line is printed when it is so. The last one says what was shown, and is not printed otherwise.
"""

import json
import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from vm.ground import Ground, policy_for
from vm.image import Image, build_image, second_ramdisk
from vm.machine import Machine, Ran
from vm.module import show_module
from vm.tools import BrokenError, Tools

NONCE = "hex:9f86d081884c7d659a2feaa0c55ad015"
FLIPPED = "usr/local/lib/python3.13/dist-packages/kmstool/caveats.py"
DENIED, CHECK_FAILED = 7, 10
SECRET = b"the database password is 4gT9-vm"
POLICY_PCRS = (0, 1, 2, 3)


@dataclass(frozen=True)
class Keys:
    """Keys of the emulator's KMS, and what was made for them outside."""

    symmetric: str
    agreement: str
    secret: bytes
    data_key: bytes
    data_key_encrypted: bytes
    peer_pem: bytes
    sealed: bytes


def say(text: str) -> None:
    print(text, flush=True)


def make_keys(ground: Ground, folder: Path) -> Keys:
    """Two keys that nobody may use yet, and the inputs of the steps. Raises: BrokenError."""
    kms = ground.kms()
    policy = policy_for({index: bytes(48) for index in POLICY_PCRS})
    given = {"Policy": policy, "BypassPolicyLockoutSafetyCheck": True}
    symmetric = kms.create_key(**given)["KeyMetadata"]["Arn"]
    spec = {"KeySpec": "ECC_NIST_P256", "KeyUsage": "KEY_AGREEMENT"}
    agreement = kms.create_key(**given, **spec)["KeyMetadata"]["Arn"]
    data_key = os.urandom(32)
    blobs = [
        kms.encrypt(KeyId=symmetric, Plaintext=text)["CiphertextBlob"]
        for text in (SECRET, data_key)
    ]
    (folder / "public.der").write_bytes(kms.get_public_key(KeyId=agreement)["PublicKey"])
    (folder / "plain").write_bytes(SECRET)
    peer = ec.generate_private_key(ec.SECP256R1()).public_key()
    peer_pem = peer.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    sealed = outside(
        ground,
        *("seal", "--to", str(folder / "public.der"), "--key-id", agreement, "--label", "vm"),
        str(folder / "plain"),
    )
    return Keys(symmetric, agreement, blobs[0], data_key, blobs[1], peer_pem, sealed)


def outside(ground: Ground, *arguments: str) -> bytes:
    """Runs kmstool on the host and gives its stdout. Raises: BrokenError."""
    done = try_outside(ground, *arguments)
    if done.returncode:
        raise BrokenError(f"outside, kmstool {arguments[0]}: {done.stderr.decode()}")
    return done.stdout


def try_outside(ground: Ground, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Runs kmstool on the host, beside no emulator but the KMS of this one."""
    environ = ground.environ()
    environ.pop("KMSTOOL_EMULATOR")  # its simulated security module has no part in this
    return subprocess.run(["kmstool", *arguments], env=environ, capture_output=True, check=False)


def open_keys_for(ground: Ground, keys: Keys, pcrs: Mapping[int, bytes]) -> None:
    """From here on the keys are this image's."""
    policy = policy_for({index: pcrs[index] for index in POLICY_PCRS})
    for arn in (keys.symmetric, keys.agreement):
        ground.kms().put_key_policy(KeyId=arn, Policy=policy, BypassPolicyLockoutSafetyCheck=True)


def show_boot(machine: Machine, tools: Tools, image: Image, layer: Path, ground: Ground) -> None:
    """Boots, and holds what is in the guest against what was put in."""
    say("1. The image:")
    size = image.eif.stat().st_size / 2**20
    say(f"   EIF of {size:.1f} MiB; PCR0 {image.pcrs[0].hex()[:32]}…")
    seconds = machine.boot(tools, image, ground.chain)
    facts = machine.ask({"facts": True})
    say(f"   booted in {seconds:.1f} s: Linux {facts['kernel']}, Python {facts['python']},")
    say(f"   {facts['openssl']}; random numbers from {facts['rng_current']}")
    if facts["rng_current"] != "nsm-hwrng":
        raise BrokenError("the guest's kernel does not take random numbers from the NSM")
    count = compare_files(machine, layer, ground)
    say(f"   {count} files and links of the shipped layer are there, by mode and SHA-256, no other")


def compare_files(machine: Machine, layer: Path, ground: Ground) -> int:
    """How many names of the layer are in the guest; all of them, alike. Raises: BrokenError."""
    there = machine.ask({"manifest": True})["manifest"]
    here = {name: text for name, text in there.items() if not text.endswith("folder")}
    wanted = {
        name.removeprefix("rootfs/"): entry.described()
        for name, entry in second_ramdisk(layer, ground.given, None).items()
    }
    wanted = {name: text for name, text in wanted.items() if not text.endswith("folder")}
    if here != wanted:
        differing = sorted({*here.items()} ^ {*wanted.items()})
        raise BrokenError(f"the guest's files are not those of the layer: {differing[:5]}")
    return sum(not name.startswith("entry/") for name in here)


def show_document(machine: Machine, image: Image, ground: Ground, folder: Path) -> None:
    """A document from the guest, verified outside against the PCRs predicted from the EIF."""
    say("2. A document of /dev/nsm, verified outside with what the EIF predicts:")
    ran = expect(machine.kmstool("attest", "--nonce", NONCE), "attest")
    path = folder / "document.cbor"
    path.write_bytes(ran.stdout)
    options = ["--input", "raw", "--pcr-from", str(image.eif), "--nonce", NONCE]
    for index in (3, 4):
        options += ["--pcr", f"{index}={image.pcrs[index].hex()}"]
    root = ["--nitro-root", str(ground.nitro_root)]
    outside(ground, "verify", *root, *options, str(path))
    say(f"   {len(ran.stdout)} bytes: genuine under this run's root, PCR0 to PCR4 as predicted")
    wrong = ["--pcr", "0=" + "11" * 48]
    for what, changed, place in (
        ("under AWS' root", options, "chain"),
        ("with another PCR0", [*root, *options[:2], *wrong], "pcr"),
    ):
        done = try_outside(ground, "verify", *changed, str(path))
        if done.returncode != CHECK_FAILED or place not in done.stderr.decode().lower():
            raise BrokenError(f"{what} the document was not refused: {done.stderr.decode()}")
        say(f"   {what}: refused, exit code {done.returncode}")


def expect(ran: Ran, what: str, stdout: bytes | None = None) -> Ran:
    """A run that succeeded, with this output. Raises: BrokenError."""
    if ran.code:
        raise BrokenError(f"in the guest, {what}: exit code {ran.code}: {ran.stderr.strip()}")
    if stdout is not None and ran.stdout != stdout:
        raise BrokenError(f"in the guest, {what}: not what was expected")
    return ran


def show_setups(machine: Machine, keys: Keys) -> list[str]:
    """The operations over TLS and over the relay; the names of what was shown."""
    shown = []

    def step(name: str, *arguments: str, want: bytes | None = None, **given: object) -> bytes:
        ran = expect(machine.kmstool(*arguments, **given), name, want)  # type: ignore[arg-type]
        caveats = [
            line.split("[", 1)[1].split("]", 1)[0]
            for line in ran.stderr.splitlines()
            if "warning[" in line
        ]
        note = f"; warns: {', '.join(caveats)}" if caveats else ""
        say(f"   {name}: {len(ran.stdout)} bytes in {ran.seconds:.1f} s{note}")
        shown.append(name)
        if not name.endswith("relay") and "custom-roots" not in caveats:
            raise BrokenError(f"in the guest, {name}: no caveat custom-roots")
        return ran.stdout

    symmetric = ("--key-id", keys.symmetric, "--input", "raw")
    agreement = ("--key-id", keys.agreement)
    relay = ("--via", "relay", "--accept-unauthenticated")
    say("3. Setup 2: TLS ends in the guest; AF_VSOCK, CID 3, port 8000; credentials from 8002:")
    step("decrypt", "decrypt", *symmetric, stdin=keys.secret, want=SECRET)
    made = json.loads(step("generate-data-key", "generate-data-key", *symmetric[:2]))
    sent = made["CiphertextBlob"].encode()
    step("decrypt of that", "decrypt", *symmetric[:2], "--format", "base64", stdin=sent,
         want=made["Plaintext"].encode() + b"\n")  # fmt: skip
    derive = ("derive-shared-secret", *agreement, "--public-key", "peer.pem", "--length", "32")
    derived = step("derive-shared-secret", *derive, files={"peer.pem": keys.peer_pem})
    step("open", "open", *agreement, "--expect-label", "vm", stdin=keys.sealed, want=SECRET)
    say("4. Setup 1: the parent's relay calls KMS; CID 3, port 8001:")
    step("decrypt over the relay", "decrypt", *symmetric, *relay, "--length", "32",
         stdin=keys.data_key_encrypted, want=keys.data_key)  # fmt: skip
    step("derive-shared-secret over the relay", *derive, *relay, want=derived)
    step("open over the relay", "open", *agreement, *relay[:2], stdin=keys.sealed, want=SECRET)
    return shown


def show_doctor(machine: Machine, ground: Ground, keys: Keys) -> None:
    """`kmstool doctor` in the guest finds nothing wrong, and the key exchange that there can be."""
    say("5. kmstool doctor in the guest:")
    ran = expect(machine.kmstool("doctor", "--key-id", keys.symmetric), "doctor")
    for line in ran.stdout.decode().splitlines():
        say(f"   {line}")
    (exchange,) = [line for line in ran.stdout.decode().splitlines() if "key-exchange" in line]
    if ground.inside and "X25519MLKEM768" not in exchange:
        raise BrokenError(f"the emulator has X25519MLKEM768, and it was not chosen: {exchange}")


def show_refusal(
    machine: Machine, tools: Tools, layer: Path, ground: Ground, keys: Keys, folder: Path
) -> None:
    """One bit of one file of the layer turned over: the key stays shut, and it is said why."""
    say(f"7. One bit of {FLIPPED} turned over:")
    machine.stop()
    other = folder / "flipped"
    other.mkdir()
    image = build_image(tools, layer, ground.given, other, flip=FLIPPED)
    machine.boot(tools, image, ground.chain)
    policy = ground.kms().get_key_policy(KeyId=keys.symmetric)["Policy"].encode()
    before = len(ground.log)
    ran = machine.kmstool(
        *("decrypt", "--key-id", keys.symmetric, "--input", "raw", "--policy", "policy.json"),
        stdin=keys.secret,
        files={"policy.json": policy},
    )
    if ran.code != DENIED or ran.stdout or "AccessDeniedException" not in ran.stderr:
        raise BrokenError(f"the altered image was not refused: {ran.code}, {ran.stderr}")
    reason = [line for line in ground.log[before:].splitlines() if "Decrypt" in line]
    if "kms:RecipientAttestation:PCR0" not in "".join(reason):
        raise BrokenError(f"the emulator does not name the condition: {reason}")
    say(f"   PCR0 {image.pcrs[0].hex()[:32]}…; decrypt: exit code {ran.code}, nothing on stdout")
    say(f"   the emulator: {reason[-1]}")
    for line in ran.stderr.splitlines():
        if "hint" in line:
            say(f"   the guest: {line}")


def run_all(tools: Tools, layer: Path, ground: Ground, machine: Machine, folder: Path) -> str:
    """All steps; the line that says what was shown. Raises: BrokenError."""
    start = time.monotonic()
    keys = make_keys(ground, folder)
    image = build_image(tools, layer, ground.given, folder)
    open_keys_for(ground, keys, image.pcrs)
    ground.start_parents(machine, [keys.symmetric, keys.agreement])
    show_boot(machine, tools, image, layer, ground)
    show_document(machine, image, ground, folder)
    shown = show_setups(machine, keys)
    show_doctor(machine, ground, keys)
    say("6. The seven requests, past kmstool, to the real driver:")
    checks = show_module(machine)
    for line in checks:
        say(f"   {line}")
    show_refusal(machine, tools, layer, ground, keys, folder)
    return (
        f"enclave-vm: shown in a real enclave VM: attest, doctor, {', '.join(shown)}; the document"
        f" verified outside with the predicted PCRs; {len(checks)} answers of the driver; an image"
        f" with one bit changed refused; {time.monotonic() - start:.0f} s"
    )
