"""examples/enclave-app runs in the image `shell` as it stands, but for its keys and caveats.

Unix sockets stand in the place of the vsock; a relay and the emulator are the parent's side.
"""

import base64
import hashlib
import hmac
import json
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support.emulator import RunningEmulator, running_emulator
from support.enclave_image import ROOT, Confined, EnclaveImage, build, layer, transport
from support.processes import run_kmstool
from support.relays import relay_process

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

APP = ROOT / "examples" / "enclave-app"
PRICES = json.dumps({"teapot": 1250})
SECRET = b"shared with whoever checks the prices"
STATEMENT = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:*", "Resource": "*"}
POLICY = json.dumps({"Version": "2012-10-17", "Statement": [STATEMENT]})
# An emulator is no KMS, and says so with every result: the one thing that the settings change.
CHECKS = '"--strict --allow-caveat simulated-nsm --allow-caveat custom-roots"'


@pytest.fixture(scope="module")
def image() -> EnclaveImage:
    return build("shell")


@pytest.fixture(scope="module")
def emulator() -> Iterator[RunningEmulator]:
    with running_emulator() as running:
        yield running


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    key = Ed25519PrivateKey.generate()
    folder = tmp_path_factory.mktemp("release")
    (folder / "release.pub").write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    (folder / "release.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder


class Parts:
    """What somebody outside prepares: two keys, a ciphertext, a sealed file."""

    def __init__(self, emulator: RunningEmulator, folder: Path) -> None:
        kms = emulator.admin_client()
        self.secret_key = kms.create_key(Policy=POLICY)["KeyMetadata"]["Arn"]
        made = kms.create_key(Policy=POLICY, KeySpec="ECC_NIST_P256", KeyUsage="KEY_AGREEMENT")
        self.prices_key = made["KeyMetadata"]["Arn"]
        context = {"app": "shop"}
        blob = kms.encrypt(KeyId=self.secret_key, Plaintext=SECRET, EncryptionContext=context)
        self.ciphertext = base64.b64encode(blob["CiphertextBlob"])
        (folder / "key.der").write_bytes(kms.get_public_key(KeyId=self.prices_key)["PublicKey"])
        self.folder = folder

    def sealed(self, *more: str) -> bytes:
        where = ("--to", "key.der", "--key-id", self.prices_key, "-o", "prices.sealed")
        arguments = ("seal", *where, "--sign-with", "release.key", *more)
        done = run_kmstool(*arguments, directory=self.folder, stdin=PRICES.encode())
        assert done.code == 0, done.stderr
        return (self.folder / "prices.sealed").read_bytes()

    def files(self, sealed: bytes) -> dict[str, bytes | Path]:
        settings = (APP / "settings").read_text()
        for name, value in (
            ("CHECKS", CHECKS),
            ("SECRET_KEY", self.secret_key),
            ("PRICES_KEY", self.prices_key),
        ):
            settings, count = re.subn(rf"(?m)^{name}=.*$", f"{name}={value}", settings)
            assert count == 1
        return {
            "app/entry": APP / "entry",
            "app/serve.py": APP / "serve.py",
            "app/settings": settings.encode(),
            "app/secret.enc": self.ciphertext,
            "app/prices.sealed": sealed,
            "app/release.pub": self.folder / "release.pub",
        }


@pytest.fixture(scope="module")
def parts(emulator: RunningEmulator, signer: Path) -> Parts:
    return Parts(emulator, signer)


@pytest.fixture
def outside() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="kmstool-"))
    yield folder
    shutil.rmtree(folder)


def ask(path: Path, question: str, process: subprocess.Popen[bytes]) -> str:
    for _ in range(500):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(20)
            try:
                sock.connect(str(path))
            except OSError:
                assert process.poll() is None, process.stderr and process.stderr.read()
                time.sleep(0.05)
                continue
            sock.sendall(question.encode())
            return sock.makefile().read()
    raise AssertionError("it does not listen")


def test_it_gets_its_secret_and_answers(
    image: EnclaveImage, emulator: RunningEmulator, parts: Parts, outside: Path
) -> None:
    files = transport(image) | parts.files(parts.sealed("--label", "prices"))
    with ExitStack() as stack:
        relay = stack.enter_context(relay_process(emulator, [parts.prices_key]))
        more = stack.enter_context(layer(files))
        there = Path(relay.address.removeprefix("unix:")).parent
        runs = {"emulator": emulator.directory, "parent": there, "vsock": outside}
        environ = emulator.kmstool_environ() | {
            "KMSTOOL_EMULATOR": "/run/emulator",
            "KMSTOOL_RELAY": "unix:/run/parent/relay.sock",
        }
        start = ("/app/entry", "unix:/run/vsock/shop")
        process = stack.enter_context(Confined(image, [more], runs).start(start, environ))
        quoted, _, mac = ask(outside / "shop", "teapot\n", process).strip().rpartition(" ")
        assert quoted == "teapot 1250"
        assert mac == hmac.new(SECRET, quoted.encode(), hashlib.sha256).hexdigest()
        assert ask(outside / "shop", "kettle\n", process) == "?\n"
        assert ask(outside / "shop", "x" * 256, process) == "?\n"
        relay.said("DeriveSharedSecret")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("--label", "discounts"), "label"),
        (("--label", "prices", "--sign-with", "other.key"), "sign"),
    ],
)
def test_it_does_not_start_with_another_s_prices(
    image: EnclaveImage, emulator: RunningEmulator, parts: Parts, change: tuple[str, ...], said: str
) -> None:
    other = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (parts.folder / "other.key").write_bytes(other)
    files = transport(image) | parts.files(parts.sealed(*change))
    with layer(files) as more:
        confined = Confined(image, [more], {"emulator": emulator.directory})
        environ = emulator.kmstool_environ() | {"KMSTOOL_EMULATOR": "/run/emulator"}
        done = confined.run("/app/entry", "unix:/run/shop", environ=environ)
    assert done.returncode == 8, done.stderr
    assert said in done.stderr.decode().splitlines()[-2] + done.stderr.decode().splitlines()[-1]
    assert done.stdout == b""


def test_the_image_of_the_example_takes_these_files() -> None:
    taken = re.search(r"^COPY (.*) /app/$", (APP / "Dockerfile").read_text(), re.MULTILINE)
    assert taken
    assert set(taken[1].split()) == {
        "entry",
        "settings",
        "serve.py",
        "secret.enc",
        "prices.sealed",
        "release.pub",
    }


def test_the_readme_shows_the_entry_script() -> None:
    readme = (ROOT / "README.md").read_text()
    assert f"```sh\n{(APP / 'entry').read_text()}```" in readme
