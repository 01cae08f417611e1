"""What the enclave image gets is enough: three packages, and the rooms copied by name.

The environment is a real one, made from requirements/enclave.txt by hash: no botocore, no rich.
"""

import ast
import base64
import io
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from image.context import rooms
from support.emulator import RunningEmulator, running_emulator

from kmstool.arn import parse_key_arn
from kmstool.emulator.pcrs import label_pcrs
from kmstool.sealing.files import seal
from kmstool.sealing.recipients import public_key_recipient

ROOT = Path(__file__).resolve().parents[2]
# The rooms of the image, by name: what enclave.Dockerfile copies, and nothing else of ours.
MODULES, FOLDERS = rooms((ROOT / "enclave.Dockerfile").read_text())
STATEMENT = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:*", "Resource": "*"}
POLICY = json.dumps({"Version": "2012-10-17", "Statement": [STATEMENT]})
TRANSPORT = ("emulator/__init__.py", "emulator/nsm_transport.py")

# What one decrypt imports of ours; a name more is a longer way to the secret, and has to be meant.
DECRYPT_IMPORTS = {
    "arn", "caveats", "cbor", "cli", "cli.commands", "cli.common", "cli.console", "cli.exit_codes",
    "cli.guard", "cli.input", "cli.lazy", "cli.main", "cli.operations", "cli.options",
    "cli.output", "cli.results", "emulator", "emulator.nsm_transport", "enclave",
    "enclave.ber", "enclave.cms", "enclave.credentials", "enclave.direct", "enclave.exchange",
    "enclave.http", "enclave.nsm", "enclave.nsm_answers", "enclave.process",
    "enclave.recipient", "enclave.recipient_key", "enclave.results", "enclave.sigv4",
    "enclave.tls", "endpoint", "errors", "framing", "limits", "protocol", "refusals",
    "session", "strict_json",
}  # fmt: skip
NEVER = {
    "asyncio", "boto3", "botocore", "concurrent", "email", "http", "jmespath", "logging",
    "multiprocessing", "requests", "rich", "sqlite3", "subprocess", "tempfile", "unittest",
    "urllib", "urllib3", "xml",
}  # fmt: skip

# Modules of ours that no image holds, which a room may still name: within a function, or guarded.
ABSENT = {"emulator", "outside", "parent", "pytest_plugin"}


@dataclass(frozen=True)
class Image:
    python: Path
    package: Path

    def run(self, environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
        code = "import sys; from kmstool.cli.main import run; sys.argv[0] = 'kmstool'; run()"
        return self.python_run(environ, code, *arguments)

    def python_run(
        self, environ: dict[str, str], code: str, *arguments: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.python), "-I", "-c", code, *arguments],
            env={"PATH": "/usr/bin:/bin", **environ},
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    folder = tmp_path_factory.mktemp("image") / "venv"
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet",
         "--disable-pip-version-check", "--require-hashes", "--no-deps",
         "-r", str(ROOT / "requirements" / "enclave.txt")],
        check=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )  # fmt: skip
    package = next((folder / "lib").glob("python3*")) / "site-packages" / "kmstool"
    package.mkdir()
    for name in MODULES:
        shutil.copy(ROOT / "kmstool" / f"{name}.py", package)
    for name in FOLDERS:
        shutil.copytree(ROOT / "kmstool" / name, package / name)
    return Image(python, package)


@pytest.fixture(scope="module")
def emulator() -> Iterator[RunningEmulator]:
    with running_emulator() as running:
        yield running


@pytest.fixture(scope="module")
def arguments(emulator: RunningEmulator, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    kms = emulator.admin_client()
    arn = kms.create_key(Policy=POLICY)["KeyMetadata"]["Arn"]
    blob = kms.encrypt(KeyId=arn, Plaintext=b"for the image")["CiphertextBlob"]
    path = tmp_path_factory.mktemp("input") / "secret.enc"
    path.write_bytes(base64.b64encode(blob))
    return ["decrypt", "--key-id", arn, str(path)]


@pytest.fixture
def transport(image: Image) -> Iterator[None]:
    """Lays the one file beside the rooms that only a test may have there."""
    (image.package / "emulator").mkdir()
    for name in TRANSPORT:
        shutil.copy(ROOT / "kmstool" / name, image.package / name)
    yield
    shutil.rmtree(image.package / "emulator")


def test_what_the_rooms_import_of_ours_is_in_the_image() -> None:
    paths = [ROOT / "kmstool" / f"{name}.py" for name in MODULES]
    paths += [path for name in FOLDERS for path in (ROOT / "kmstool" / name).rglob("*.py")]
    imported = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ImportFrom) and node.module == "kmstool":
                imported |= {alias.name for alias in node.names if not alias.name.startswith("_")}
            elif isinstance(node, ast.ImportFrom) and node.module:
                parts = node.module.split(".")
                imported |= {parts[1]} if parts[0] == "kmstool" and len(parts) > 1 else set()
    missing = imported - set(MODULES) - set(FOLDERS) - ABSENT
    assert missing == set(), "name them in enclave.Dockerfile"


def test_only_the_enclave_s_packages_are_there(image: Image) -> None:
    code = "import importlib.metadata as m; print(*sorted(d.name for d in m.distributions()))"
    done = image.python_run({}, code)
    assert done.stdout.split() == ["cbor2", "cffi", "click", "cryptography", "pycparser"]


@pytest.mark.usefixtures("transport")
def test_decrypt_works_in_the_image(
    image: Image, emulator: RunningEmulator, arguments: list[str]
) -> None:
    done = image.run(emulator.kmstool_environ(), *arguments)
    assert (done.returncode, done.stdout) == (0, "for the image"), done.stderr
    assert "warning[simulated-nsm]" in done.stderr
    assert "warning[custom-roots]" in done.stderr


@pytest.mark.usefixtures("transport")
def test_open_works_in_the_image(image: Image, emulator: RunningEmulator, tmp_path: Path) -> None:
    kms = emulator.admin_client()
    made = kms.create_key(Policy=POLICY, KeySpec="ECC_NIST_P256", KeyUsage="KEY_AGREEMENT")
    arn = made["KeyMetadata"]["Arn"]
    public_key = kms.get_public_key(KeyId=arn)["PublicKey"]
    recipient = public_key_recipient(parse_key_arn(arn), public_key)
    with (tmp_path / "sealed").open("wb") as file:
        seal(io.BytesIO(b"for the image"), file, [recipient])
    arguments = ("open", "--key-id", arn, str(tmp_path / "sealed"))
    done = image.run(emulator.kmstool_environ(), *arguments)
    assert (done.returncode, done.stdout) == (0, "for the image"), done.stderr


def test_without_the_transport_the_emulator_is_an_error(
    image: Image, emulator: RunningEmulator, arguments: list[str]
) -> None:
    done = image.run(emulator.kmstool_environ(), *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "KMSTOOL_EMULATOR is set, and this installation has no emulator" in done.stderr


@pytest.mark.usefixtures("transport")
def test_a_key_is_made_and_its_certificate_checked_in_the_image(
    image: Image, emulator: RunningEmulator, tmp_path: Path
) -> None:
    path = str(tmp_path / "key.cert")
    account = ("--account", "111122223333")
    done = image.run(emulator.kmstool_environ(), "create-key", *account, "-o", path)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    expected = [f"--pcr={index}={value.hex()}" for index, value in label_pcrs().items()]
    verify = ("verify", "--birth-certificate", path, *account, *expected)
    done = image.run(emulator.kmstool_environ(), *verify)
    assert done.returncode == 0, done.stderr
    assert "key arn: arn:aws:kms:" in done.stdout
    # An image that verifies its successor's certificate does so against AWS' root alone.
    assert image.run({}, *verify).returncode == 10


@pytest.mark.usefixtures("transport")
def test_the_modules_that_decrypt_imports(
    image: Image, emulator: RunningEmulator, arguments: list[str]
) -> None:
    code = (
        "import os, sys; from kmstool.cli.main import main; code = main(sys.argv[1:]);"
        "print('\\n', *sorted(sys.modules), file=sys.stderr, flush=True); os._exit(code)"
    )
    done = image.python_run(emulator.kmstool_environ(), code, *arguments)
    assert done.returncode == 0, done.stderr
    modules = done.stderr.splitlines()[-1].split()
    ours = {name.removeprefix("kmstool.") for name in modules if name.startswith("kmstool.")}
    assert ours == DECRYPT_IMPORTS
    assert NEVER & {name.partition(".")[0] for name in modules} == set()


INSIDE = "decrypt derive-shared-secret generate-data-key generate-data-key-pair generate-random"
INSIDE += " seal open create-key attest verify inspect doctor"


@pytest.mark.parametrize("command", ["", *INSIDE.split()])
def test_help_works_in_the_image(image: Image, command: str) -> None:
    done = image.run({}, *command.split(), "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_emulator_s_command_says_that_it_is_not_there(image: Image) -> None:
    done = image.run({}, "emulator", "run", "--", "true")
    assert done.returncode == 2
    assert "kmstool: error:" in done.stderr
    assert "emulator" in done.stderr


@pytest.mark.usefixtures("transport")
def test_the_doctor_works_in_the_image(
    image: Image, emulator: RunningEmulator, arguments: list[str]
) -> None:
    done = image.run(emulator.kmstool_environ(), "doctor", *arguments[1:3])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "permission    KMS would carry out decrypt" in done.stdout
    done = image.run({}, "doctor", "--parent")
    assert done.returncode == 2
    assert "this needs kmstool.parent" in done.stderr


def test_the_parent_s_command_says_that_it_is_not_there(image: Image) -> None:
    done = image.run({}, "parent", "relay", "--listen", "unix:x", "--allow-key", "x")
    assert done.returncode == 2
    assert "this needs kmstool.parent" in done.stderr
