"""What `policy build` writes, put on keys of an emulator that enforces policies: who gets where.

The policy is what the command wrote to a file, CreateKey is botocore's, and the enclaves are whole
processes or their documents: the right image, one in debug mode, and one for each register, with
that one of another image.
"""

import contextlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support.emulator import RunningEmulator, running_emulator
from support.kms_calls import make_key, refused
from support.processes import Finished, run_kmstool

from kmstool.emulator.pcrs import label_pcrs
from kmstool.emulator.principals import ADMIN_ARN, ENCLAVE_ARN, Principal, collect_principals
from kmstool.emulator.running import SecondEnclave

ACCOUNT = "111122223333"
PCRS = label_pcrs() | {3: b"\xc3" * 48, 8: b"\xc8" * 48}
OTHER = label_pcrs("another image") | {3: b"\xd3" * 48, 8: b"\xd8" * 48}
ROOT = f"arn:aws:iam::{ACCOUNT}:root"
KEEPER = f"arn:aws:iam::{ACCOUNT}:role/keeper"
STRANGER = "arn:aws:iam::444455556666:role/enclave"
ENCLAVES: dict[str, dict[int, bytes]] = {
    "right": PCRS,
    "debug": {3: PCRS[3], 8: PCRS[8]},
    **{f"pcr{index}": PCRS | {index: OTHER[index]} for index in (0, 1, 2, 3, 8)},
}
# Not from a file: an account's root user is none of the principals that those are for.
PRINCIPALS = collect_principals(
    Principal(
        access_key_id=f"AKIAEXAMPLE00000000{number}",
        secret_access_key=f"s3cr3t-0f-numb3r-{number}",
        session_token=None,
        arn=arn,
        iam_allows=("kms:*",),
        trusts=(),
    )
    for number, arn in enumerate([ADMIN_ARN, ENCLAVE_ARN, ROOT, KEEPER, STRANGER])
)
RECIPIENT_KEY = (
    rsa.generate_private_key(65537, 2048)
    .public_key()
    .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
)
IMAGE = [option for index in range(3) for option in ("--pcr", f"{index}={PCRS[index].hex()}")]
ANYTHING = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": {"Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*"},
    }
)


@dataclass
class World:
    """The emulator, the directories of its enclaves, and a folder to work in."""

    emulator: RunningEmulator
    folder: Path
    directories: dict[str, Path] = field(default_factory=dict)
    clients: dict[str, Any] = field(default_factory=dict)

    def run(self, *arguments: str, enclave: str = "right", **options: Any) -> Finished:
        environ = {
            **self.emulator.kmstool_environ(),
            "KMSTOOL_EMULATOR": str(self.directories[enclave]),
        }
        return run_kmstool(*arguments, directory=self.folder, env=environ, **options)

    def client(self, arn: str) -> Any:
        """Kept: making one takes botocore longer than a dozen calls."""
        if arn not in self.clients:
            principal = self.emulator.emulator.principals.named(arn)
            self.clients[arn] = self.emulator.client(principal)
        return self.clients[arn]

    def make(self, *options: str, image: list[str] = IMAGE, enclave: str = "right") -> str:
        """A key with the policy that build writes, which check finds no mistake in."""
        written = ("policy", "build", "--account", ACCOUNT, *image, *options, "-o", "policy.json")
        done = self.run(*written, enclave=enclave)
        assert (done.code, done.stdout) == (0, b""), done.stderr
        policy = (self.folder / "policy.json").read_text()
        arn = make_key(self.client(ADMIN_ARN), Policy=policy, BypassPolicyLockoutSafetyCheck=True)
        # As KMS gives all three back.
        kms = self.client(ADMIN_ARN)
        for name, answer in (
            ("live", kms.get_key_policy(KeyId=arn)),
            ("key", kms.describe_key(KeyId=arn)),
            ("grants", kms.list_grants(KeyId=arn)),
        ):
            answer.pop("ResponseMetadata")
            (self.folder / f"{name}.json").write_text(json.dumps(answer, default=str))
        return arn

    def check(self) -> Finished:
        return self.run(
            *("policy", "check", "live.json", "--key-metadata", "key.json", "--json"),
            *("--grants", "grants.json"),
            may_print=True,
        )

    def seal(self, arn: str) -> None:
        done = self.run(
            *("generate-data-key", "--key-id", arn, "--key-spec", "AES_256"),
            *("--ciphertext-out", "blob", "-o", "key", "--format", "raw"),
        )
        assert done.code == 0, done.stderr

    def lets_in(self, blob: bytes, enclave: str) -> bool:
        """Whether KMS decrypts for a document of the enclave, asked for by botocore: it is fast."""
        document = self.emulator.attest(
            pcrs=dict.fromkeys(range(16), bytes(48)) | ENCLAVES[enclave], public_key=RECIPIENT_KEY
        )
        recipient = {
            "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
            "AttestationDocument": document,
        }
        try:
            answer = self.client(ENCLAVE_ARN).decrypt(CiphertextBlob=blob, Recipient=recipient)
        except ClientError as error:
            if error.response["Error"]["Code"] != "AccessDeniedException":
                raise
            return False
        return bool(answer["CiphertextForRecipient"])

    def let_in(self) -> set[str]:
        """The enclaves that KMS decrypts for, of what `seal` made."""
        blob = (self.folder / "blob").read_bytes()
        return {name for name in ENCLAVES if self.lets_in(blob, name)}

    def opens(self, arn: str, enclave: str) -> int:
        done = self.run("decrypt", "--key-id", arn, "--input", "raw", "blob", enclave=enclave)
        if done.code == 0:
            assert done.stdout == (self.folder / "key").read_bytes()
        return done.code


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        emulator = stack.enter_context(running_emulator(principals=PRINCIPALS, pcrs=PCRS))
        made = World(emulator, tmp_path_factory.mktemp("work"))
        made.directories["right"] = emulator.directory
        for name, pcrs in ENCLAVES.items():
            if name == "right":
                continue
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kmstool-")))
            stack.enter_context(
                SecondEnclave(emulator.directory, directory, pcrs=pcrs, map_form="random")
            )
            made.directories[name] = directory
        yield made


def ways_around(arn: str, blob: bytes, other: str, grantee: str) -> list[tuple[str, Any]]:
    return [
        ("decrypt", {"CiphertextBlob": blob}),
        ("generate_data_key", {"KeyId": arn, "KeySpec": "AES_256"}),
        ("re_encrypt", {"CiphertextBlob": blob, "DestinationKeyId": other}),
        ("put_key_policy", {"KeyId": arn, "Policy": ANYTHING}),
        (
            "put_key_policy",
            {"KeyId": arn, "Policy": ANYTHING, "BypassPolicyLockoutSafetyCheck": True},
        ),
        ("create_grant", {"KeyId": arn, "GranteePrincipal": grantee, "Operations": ["Decrypt"]}),
    ]


@pytest.mark.parametrize("delegation", [False, True])
def test_the_right_enclave_alone_and_nobody_around_it(world: World, delegation: bool) -> None:
    options = ["--administrator", KEEPER, *(["--root-delegation"] if delegation else [])]
    arn = world.make(*options)
    checked = world.check()
    assert checked.code == 0, checked.stdout
    notes = {one["code"] for one in checked.json["findings"]}
    assert notes == ({"account-principal"} if delegation else set())

    world.seal(arn)
    assert world.opens(arn, "right") == 0
    for name in ("debug", "pcr0", "pcr1", "pcr2"):
        assert world.opens(arn, name) == 7, name
    assert world.opens(arn, "pcr3") == 0  # which was not asked for

    blob = (world.folder / "blob").read_bytes()
    other = make_key(world.client(ADMIN_ARN))
    for me in (ROOT, ADMIN_ARN, KEEPER, ENCLAVE_ARN):
        kms = world.client(me)
        for method, request in ways_around(arn, blob, other, ENCLAVE_ARN):
            refused("AccessDeniedException", getattr(kms, method), **request)
        refused("AccessDeniedException", kms.encrypt, KeyId=arn, Plaintext=b"x")
        refused(
            "AccessDeniedException",
            kms.generate_data_key_without_plaintext,
            KeyId=arn,
            KeySpec="AES_256",
        )
        assert kms.describe_key(KeyId=arn)["KeyMetadata"]["Arn"] == arn
    stranger = world.client(STRANGER)
    refused("AccessDeniedException", stranger.decrypt, CiphertextBlob=blob)
    refused("AccessDeniedException", stranger.describe_key, KeyId=arn)

    # The administrator switches it off; back on again only where IAM keeps a say.
    world.client(KEEPER).disable_key(KeyId=arn)
    assert world.opens(arn, "right") == 7
    if delegation:
        world.client(ROOT).enable_key(KeyId=arn)
        assert world.opens(arn, "right") == 0
    else:
        for me in (ROOT, KEEPER):
            refused("AccessDeniedException", world.client(me).enable_key, KeyId=arn)


def test_registers_on_request_from_the_enclave_and_its_document(world: World) -> None:
    attested = world.run("attest", "-o", "document")
    assert attested.code == 0, attested.stderr
    by_nsm = world.make("--also-pcr", "3", "--also-pcr", "8", image=["--this-enclave"])
    policy = (world.folder / "policy.json").read_text()
    by_document = world.make("--also-pcr", "3", "--also-pcr", "8", image=["--pcr-from", "document"])
    assert (world.folder / "policy.json").read_text() == policy
    for arn in (by_nsm, by_document):
        world.seal(arn)
        assert world.let_in() == {"right"}


def test_debug_mode_makes_no_policy(world: World) -> None:
    attested = world.run("attest", "-o", "debug.document", enclave="debug")
    assert attested.code == 0
    for image in (
        ["--this-enclave"],
        ["--pcr-from", "debug.document"],
        ["--pcr", "0=" + "00" * 48],
    ):
        done = world.run("policy", "build", "--account", ACCOUNT, *image, enclave="debug")
        assert done.code in (2, 8), done.stderr
        assert done.stdout == b""


def test_several_images_and_each_mix_of_them(world: World) -> None:
    other = ",".join(f"{index}={OTHER[index].hex()}" for index in range(3))
    arn = world.make("--also-image", other)
    assert world.check().code == 0
    world.seal(arn)
    # One Allow for each image: PCR0 of the one with PCR1 and PCR2 of the other is neither.
    assert world.let_in() == {"right", "pcr3", "pcr8"}
    # In Denies there are lists alone, and this mix gets past them, as the caveat says.
    arn = world.make("--also-image", other, "--root-delegation")
    assert [one["code"] for one in world.check().json["findings"]] == [
        "account-principal",
        "mixed-images",
    ]
    world.seal(arn)
    assert world.let_in() == set(ENCLAVES) - {"debug"}


def test_who_keeps_put_key_policy_can_unlock_and_both_commands_say_so(world: World) -> None:
    arn = world.make("--root-delegation", "--keep-put-key-policy")
    checked = world.check()
    assert checked.code == 10
    assert [one["code"] for one in checked.json["findings"] if one["weight"] == "mistake"] == [
        "put-key-policy"
    ]
    world.seal(arn)
    blob = (world.folder / "blob").read_bytes()
    admin = world.client(ADMIN_ARN)
    refused("AccessDeniedException", admin.decrypt, CiphertextBlob=blob)
    admin.put_key_policy(KeyId=arn, Policy=ANYTHING)
    assert admin.decrypt(CiphertextBlob=blob)["Plaintext"] == (world.folder / "key").read_bytes()


def test_outsiders_seal_and_open_nothing(world: World) -> None:
    arn = world.make(
        *("--outsiders-may", "encrypt", "--outsiders-may", "generate-data-key"),
        *("--outsiders-may", "generate-data-key-without-plaintext"),
        *("--outsiders-may", "re-encrypt-to"),
    )
    assert world.check().code == 0
    kms = world.client(KEEPER)
    blobs = [
        kms.encrypt(KeyId=arn, Plaintext=b"x" * 32)["CiphertextBlob"],
        kms.generate_data_key(KeyId=arn, KeySpec="AES_256")["CiphertextBlob"],
        kms.generate_data_key_without_plaintext(KeyId=arn, KeySpec="AES_256")["CiphertextBlob"],
    ]
    other = make_key(kms)
    mine = kms.encrypt(KeyId=other, Plaintext=b"y")["CiphertextBlob"]
    blobs.append(kms.re_encrypt(CiphertextBlob=mine, DestinationKeyId=arn)["CiphertextBlob"])
    for blob in blobs:
        refused("AccessDeniedException", kms.decrypt, CiphertextBlob=blob)
        refused(
            "AccessDeniedException", kms.re_encrypt, CiphertextBlob=blob, DestinationKeyId=other
        )
        assert world.lets_in(blob, "right")
        assert not world.lets_in(blob, "debug")


def test_the_policy_of_a_key_that_was_made_inside_has_no_mistake(world: World) -> None:
    done = world.run("create-key", "--account", ACCOUNT, "-o", "key.cert")
    assert done.code == 0, done.stderr
    certificate = json.loads((world.folder / "key.cert").read_text())
    policy = json.loads(certificate["statement"])["policy"]
    checked = world.run("policy", "check", "--json", stdin=policy.encode())
    assert (checked.code, checked.json["findings"]) == (0, [])


def test_a_grant_is_found(world: World) -> None:
    kms = world.client(ADMIN_ARN)
    arn = make_key(kms)  # with the default policy, which gives the account everything
    kms.create_grant(KeyId=arn, GranteePrincipal=ENCLAVE_ARN, Operations=["Decrypt"])
    (world.folder / "live.json").write_text(kms.get_key_policy(KeyId=arn)["Policy"])
    for name, answer in (
        ("key", kms.describe_key(KeyId=arn)),
        ("grants", kms.list_grants(KeyId=arn)),
    ):
        (world.folder / f"{name}.json").write_text(json.dumps(answer, default=str))
    checked = world.check()
    assert checked.code == 10
    assert {one["code"] for one in checked.json["findings"]} == {"root-delegation", "grant"}
