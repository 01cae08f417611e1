"""The life of a key made inside, with whole processes against an emulator that enforces policies.

Two images and a debug enclave of one hypervisor, an administrator whose IAM policies allow
everything, and a machine outside: who gets where.
"""

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)
from support.emulator import RunningEmulator, running_emulator
from support.kms_calls import make_key, refused
from support.processes import Finished, run_kmstool

from kmstool.emulator.directory import credentials_json
from kmstool.emulator.pcrs import label_pcrs
from kmstool.emulator.principals import ADMIN_ARN, ENCLAVE_ARN, parse_principals
from kmstool.emulator.running import SecondEnclave

ACCOUNT = "111122223333"
OTHER_ACCOUNT = "444455556666"
PCRS = label_pcrs()
SUCCESSOR = label_pcrs("the successor") | {3: b"\xc3" * 48}
KEEPER = f"arn:aws:iam::{ACCOUNT}:role/keeper"
PRINCIPALS = "".join(
    f"""
    [[principal]]
    access_key_id = "AKIAEXAMPLE00000000{number}"
    secret_access_key = "s3cr3t-0f-numb3r-{number}"
    arn = "{arn}"
    iam_allows = {json.dumps(allows)}
    """
    for number, (arn, allows) in enumerate(
        [
            (ADMIN_ARN, ["kms:*"]),
            (ENCLAVE_ARN, ["kms:CreateKey"]),
            (KEEPER, ["kms:*"]),
            (f"arn:aws:iam::{OTHER_ACCOUNT}:role/enclave", ["kms:*"]),
        ]
    )
)


def expecting(pcrs: dict[int, bytes] | None = None, account: str = ACCOUNT) -> list[str]:
    options = ["--account", account]
    for index, value in (PCRS if pcrs is None else pcrs).items():
        options += ["--pcr", f"{index}={value.hex()}"]
    return options


def image(pcrs: dict[int, bytes]) -> str:
    return ",".join(f"{index}={value.hex()}" for index, value in pcrs.items() if index < 3)


@dataclass(frozen=True)
class World:
    """The emulator, the directories of its enclaves, and a folder to work in."""

    emulator: RunningEmulator
    enclaves: dict[str, Path]
    folder: Path

    def inside(self, *arguments: str, enclave: str = "first", **options: Any) -> Finished:
        """In one of the enclaves."""
        environ = {
            **self.emulator.kmstool_environ(),
            "KMSTOOL_EMULATOR": str(self.enclaves[enclave]),
        }
        return run_kmstool(*arguments, directory=self.folder, env=environ, **options)

    def outside(self, *arguments: str) -> Finished:
        """On a machine that knows the emulator's root and has no account."""
        environ = {"KMSTOOL_EMULATOR": str(self.emulator.directory)}
        return run_kmstool(*arguments, directory=self.folder, env=environ)

    def make(
        self, name: str, *options: str, enclave: str = "first", also: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """Makes a key, and gives back what a verifier who expects it sees."""
        made = self.inside(
            *("create-key", "--account", ACCOUNT, "-o", name, *options, *also), enclave=enclave
        )
        assert (made.code, made.stdout) == (0, b""), made.stderr
        pcrs = PCRS if enclave == "first" else SUCCESSOR
        seen = self.outside(
            *("verify", "--birth-certificate", name, "--json", *also),
            *expecting({index: pcrs[index] for index in range(3)}),
        )
        assert seen.code == 0, seen.stderr
        answer: dict[str, Any] = seen.json
        return answer

    def use(self, arn: str, enclave: str = "first") -> int:
        """The exit code of an ECDH with the key, in an enclave."""
        return self.inside(
            *("derive-shared-secret", "--key-id", arn, "--public-key", "peer.der"),
            *("--info", "utf8:test", "--format", "hex"),
            enclave=enclave,
        ).code


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("work")
    peer = ec.generate_private_key(ec.SECP256R1()).public_key()
    (folder / "peer.der").write_bytes(
        peer.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    with contextlib.ExitStack() as stack:
        emulator = stack.enter_context(
            running_emulator(principals=parse_principals(PRINCIPALS), pcrs=PCRS)
        )
        enclaves = {"first": emulator.directory}
        for name, pcrs in (("successor", SUCCESSOR), ("debug", {})):
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kmstool-")))
            second = SecondEnclave(emulator.directory, directory, pcrs=pcrs, map_form="random")
            stack.enter_context(second)
            enclaves[name] = directory
        yield World(emulator, enclaves, folder)


def client(world: World, arn: str) -> Any:
    return world.emulator.client(world.emulator.emulator.principals.named(arn))


def test_a_key_opens_for_its_image_alone(world: World) -> None:
    seen = world.make("one.cert")
    arn = seen["key_arn"]
    assert (seen["type"], seen["verified"], seen["account"]) == ("birth-certificate", True, ACCOUNT)
    assert (seen["key_spec"], seen["key_usage"]) == ("ECC_NIST_P256", "KEY_AGREEMENT")
    assert seen["opens_for"] == [{str(index): value.hex() for index, value in PCRS.items()}]
    assert seen["administrator"] is None
    assert {one["code"] for one in seen["caveats"]} == {"simulated-nsm", "custom-roots"}
    # The public key is the one that botocore sees.
    public_key = client(world, ADMIN_ARN).get_public_key(KeyId=arn)["PublicKey"]
    assert seen["public_key"] == public_key.hex()
    assert load_der_public_key(public_key)

    assert world.use(arn) == 0
    assert world.use(arn, "successor") == 7
    assert world.use(arn, "debug") == 7


def test_the_ways_around_are_closed_to_everybody(world: World) -> None:
    arn = world.make("two.cert", "--key-spec", "SYMMETRIC_DEFAULT")["key_arn"]
    key_id = arn.rpartition("/")[2]
    done = world.inside(
        *("generate-data-key", "--key-id", arn, "--key-spec", "AES_256"),
        *("--ciphertext-out", "two.blob", "-o", "two.key", "--format", "raw"),
    )
    assert done.code == 0, done.stderr
    blob = (world.folder / "two.blob").read_bytes()
    assert (
        world.inside("decrypt", "--key-id", arn, "--input", "raw", "two.blob").stdout
        == (world.folder / "two.key").read_bytes()
    )

    for principal in (ADMIN_ARN, ENCLAVE_ARN, KEEPER):
        kms = client(world, principal)
        other = make_key(client(world, ADMIN_ARN))
        everything = json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": {
                    "Effect": "Allow",
                    "Principal": "*",
                    "Action": "kms:*",
                    "Resource": "*",
                },
            }
        )
        denied: list[tuple[str, dict[str, Any]]] = [
            ("decrypt", {"CiphertextBlob": blob}),
            ("encrypt", {"KeyId": arn, "Plaintext": b"x"}),
            ("generate_data_key", {"KeyId": arn, "KeySpec": "AES_256"}),
            ("generate_data_key_without_plaintext", {"KeyId": arn, "KeySpec": "AES_256"}),
            ("re_encrypt", {"CiphertextBlob": blob, "DestinationKeyId": other}),
            ("put_key_policy", {"KeyId": arn, "Policy": everything}),
            (
                "put_key_policy",
                {"KeyId": arn, "Policy": everything, "BypassPolicyLockoutSafetyCheck": True},
            ),
            (
                "create_grant",
                {"KeyId": arn, "GranteePrincipal": principal, "Operations": ["Decrypt"]},
            ),
            ("create_alias", {"AliasName": f"alias/{key_id}", "TargetKeyId": arn}),
            ("disable_key", {"KeyId": arn}),
            ("enable_key", {"KeyId": arn}),
            ("schedule_key_deletion", {"KeyId": arn}),
        ]
        for method, request in denied:
            refused("AccessDeniedException", getattr(kms, method), **request)
        # Everybody of the account can see that it is locked.
        assert kms.describe_key(KeyId=arn)["KeyMetadata"]["KeyState"] == "Enabled"
        assert "kms:RecipientAttestation:PCR2" in kms.get_key_policy(KeyId=arn)["Policy"]
        assert kms.list_grants(KeyId=arn)["Grants"] == []
    stranger = client(world, f"arn:aws:iam::{OTHER_ACCOUNT}:role/enclave")
    refused("AccessDeniedException", stranger.describe_key, KeyId=arn)
    refused("AccessDeniedException", stranger.decrypt, CiphertextBlob=blob)


def test_the_administrator_switches_off_and_nothing_else(world: World) -> None:
    seen = world.make("three.cert", "--administrator", KEEPER)
    arn = seen["key_arn"]
    assert seen["administrator"] == KEEPER
    keeper = client(world, KEEPER)
    keeper.disable_key(KeyId=arn)
    assert world.use(arn) == 7
    refused("AccessDeniedException", keeper.enable_key, KeyId=arn)
    refused("AccessDeniedException", keeper.put_key_policy, KeyId=arn, Policy="{}")
    refused("AccessDeniedException", client(world, ADMIN_ARN).enable_key, KeyId=arn)
    keeper.schedule_key_deletion(KeyId=arn, PendingWindowInDays=7)
    refused("AccessDeniedException", keeper.cancel_key_deletion, KeyId=arn)
    # The certificate is as good as it was: it says how the key was born, not that it lives.
    assert world.outside("verify", "--birth-certificate", "three.cert", *expecting()).code == 0


def test_a_successor_that_is_known(world: World) -> None:
    seen = world.make("four.cert", also=("--also-image", image(SUCCESSOR)))
    assert world.use(seen["key_arn"]) == 0
    assert world.use(seen["key_arn"], "successor") == 0
    assert world.use(seen["key_arn"], "debug") == 7
    # Who expects one image alone has to hear of the other.
    done = world.outside("verify", "--birth-certificate", "four.cert", *expecting())
    assert done.code == 10
    assert "also opens for an image whose PCR0 is " in done.error


def test_a_register_more(world: World) -> None:
    seen = world.make("five.cert", "--lock-pcr", "3", enclave="successor")
    assert seen["opens_for"][0]["3"] == "c3" * 48
    assert world.use(seen["key_arn"], "successor") == 0
    directory = Path(tempfile.mkdtemp(prefix="kmstool-"))
    moved = SUCCESSOR | {3: b"\xdd" * 48}
    with SecondEnclave(world.emulator.directory, directory, pcrs=moved, map_form="random"):
        world.enclaves["moved"] = directory
        assert world.use(seen["key_arn"], "moved") == 7
    directory.rmdir()


@pytest.mark.parametrize(
    ("enclave", "options", "message"),
    [
        ("debug", (), "PCR0 of this enclave is zero"),
        ("first", ("--lock-pcr", "3"), "PCR3 of this enclave is zero"),
        ("first", ("--lock-pcr", "16"), "PCR16 of this enclave is not locked"),
        ("first", ("--host", "kms.example.com"), "kms.example.com is not one of KMS"),
        ("first", ("--administrator", f"arn:aws:iam::{ACCOUNT}:root"), "not the ARN of a role"),
        ("first", ("--also-image", image(PCRS)), "an image is named twice"),
        ("first", ("--via", "relay=unix:x"), "relay"),
    ],
)
def test_what_makes_no_key(
    world: World, enclave: str, options: tuple[str, ...], message: str
) -> None:
    before = len(world.emulator.log)
    done = world.inside("create-key", "--account", ACCOUNT, *options, enclave=enclave)
    assert done.code == 2
    assert message in done.error
    assert world.emulator.log[before:] == []


def test_a_certificate_that_cannot_be_written(world: World) -> None:
    before = len(world.emulator.log)
    make = ("create-key", "--account", ACCOUNT, "--administrator", KEEPER)
    done = world.inside(*make, "-o", "missing/key.cert")
    assert done.code == 11
    assert world.emulator.log[before:] == []
    done = world.inside(*make, "-o", "/dev/full")
    assert done.code == 11
    assert "/dev/full could not be written" in done.error
    assert "exists now, without a birth certificate" in done.error
    assert "aws kms schedule-key-deletion" in done.hint


def test_credentials_of_another_account_make_a_key_that_nobody_certifies(world: World) -> None:
    stranger = world.emulator.emulator.principals.named(
        f"arn:aws:iam::{OTHER_ACCOUNT}:role/enclave"
    )
    (world.folder / "stranger.json").write_text(credentials_json(stranger))
    done = world.inside(
        *("create-key", "--account", ACCOUNT, "--credentials", "file:stranger.json"),
        *("-o", "stranger.cert", "--administrator", KEEPER),
    )
    assert done.code == 8
    assert f"the new key's account is {OTHER_ACCOUNT}, not {ACCOUNT}; the key arn:aws:kms:" in (
        done.error
    )
    assert "exists now, without a birth certificate" in done.error
    assert "aws kms schedule-key-deletion" in done.hint
    assert not (world.folder / "stranger.cert").exists()
    # Even so it is of no use to them: the policy speaks of another account.
    arn = next(word for word in done.error.split() if word.startswith("arn:aws:kms"))
    kms = world.emulator.client(stranger)
    refused("AccessDeniedException", kms.describe_key, KeyId=arn)


def test_a_certificate_is_worth_what_its_verifier_expects(world: World) -> None:
    world.make("six.cert")
    verify = ("verify", "--birth-certificate", "six.cert")
    assert world.outside(*verify, *expecting(SUCCESSOR)).code == 10
    done = world.outside(*verify, *expecting(account=OTHER_ACCOUNT))
    assert (done.code, done.stdout) == (10, b"")
    assert f"the key is of account {ACCOUNT}, not {OTHER_ACCOUNT}" in done.error
    # Without the emulator AWS' root is asked for, and no simulated document leads there.
    done = run_kmstool(*verify, *expecting(), directory=world.folder)
    assert done.code == 10
    assert "(step 3, chain)" in done.error
    # Another image of the same account makes genuine ones too: only the PCRs tell.
    world.make("theirs.cert", enclave="successor")
    assert world.outside("verify", "--birth-certificate", "theirs.cert", *expecting()).code == 10
    strict = world.outside("--strict", *verify, *expecting())
    assert strict.code == 9


def test_strict_stops_before_a_key_is_made(world: World) -> None:
    before = len(world.emulator.log)
    done = world.inside("create-key", "--account", ACCOUNT, "--strict")
    assert done.code == 9
    assert world.emulator.log[before:] == []


def test_attest_does_not_sign_a_birth_certificate_on_request(world: World) -> None:
    for user_data in ("kmstool-birth-1", "kmstool-birth-9" + "x" * 48, "kmstool-"):
        done = world.inside("attest", "--user-data", f"utf8:{user_data}")
        assert (done.code, done.stdout) == (3, b"")
        assert "is reserved" in done.error
    done = world.inside(
        *("decrypt", "--any-key", "--input", "raw", "peer.der"),
        *("--user-data", "utf8:kmstool-birth-1"),
    )
    assert done.code == 3
    assert "is reserved" in done.error


def test_the_old_image_hands_over_to_a_release_that_it_never_saw(world: World) -> None:
    """docs/howto/upgrade-an-image.md, with all that the parent may exchange on the way."""
    old = world.make("old.cert")["key_arn"]
    world.make("new.cert", enclave="successor")
    new = json.loads(json.loads((world.folder / "new.cert").read_text())["statement"])["key_arn"]
    (world.folder / "app1.json").write_text(measurements(PCRS))
    (world.folder / "app2.json").write_text(measurements(SUCCESSOR))
    for command in (
        "genpkey -algorithm ed25519 -out release-key.pem",
        "pkey -in release-key.pem -pubout -out release-key.pub",
        "pkeyutl -sign -rawin -inkey release-key.pem -in app2.json -out app2.sig",
    ):
        subprocess.run(["openssl", *command.split()], check=True, cwd=world.folder)
    (world.folder / "data").write_bytes(b"what has to survive")
    to_old = ("--to", "old.cert", "--account", ACCOUNT, "--pcr-from", "app1.json")
    assert world.outside("seal", *to_old, "-o", "data.sealed", "data").code == 0

    assert world.inside("open", "--key-id", old, "-o", "opened", "data.sealed").code == 0
    release = ("--release-key", "release-key.pub", "--release-signature", "app2.sig")
    to_new = ("seal", "-o", "data2.sealed", "opened", "--account", ACCOUNT)
    for wrong in (
        ("--to", "new.cert", "--pcr-from", "app1.json", *release),  # a file nobody signed
        ("--to", "old.cert", "--pcr-from", "app2.json", *release),  # a key of another image
        ("--to", "new.cert", "--pcr-from", "app1.json"),  # the image that it is not
    ):
        refusal = world.inside(*to_new, *wrong)
        assert refusal.code == 8, refusal.stderr
        assert not (world.folder / "data2.sealed").exists()
    right = ("--to", "new.cert", "--pcr-from", "app2.json", *release)
    assert world.inside(*to_new, *right).code == 0

    handed = ("open", "--key-id", new, "data2.sealed")
    assert world.inside(*handed, enclave="successor").stdout == b"what has to survive"
    assert world.inside(*handed).code == 7


def measurements(pcrs: dict[int, bytes]) -> str:
    """As `nitro-cli build-enclave` prints them."""
    inner = {f"PCR{index}": value.hex() for index, value in pcrs.items() if index < 3}
    return json.dumps({"Measurements": {"HashAlgorithm": "Sha384 { ... }", **inner}}, indent=2)
