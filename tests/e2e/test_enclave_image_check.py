"""The image is the same byte for byte when it is built again, otherwise; and its bill is CycloneDX.

The second build has a base made anew, another folder, umask, home and time zone. The EIFs are
compared as well, where the kernel of scripts/enclave-vm can be had.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.enclave_image import ROOT, build

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]

VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read())
sys.exit(str(error)[:2000] if error else 0)
"""


def kernels() -> list[str]:
    cache = os.environ.get("KMSTOOL_CACHE")
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "kmstool"
    found = (Path(cache) if cache else default).glob("vm/kernel-*/vmlinuz")
    return [str(path.parent) for path in sorted(found, key=lambda path: path.stat().st_mtime)]


def test_two_builds_are_the_same() -> None:
    kernel = [word for path in kernels()[-1:] for word in ("--kernel", path)]
    image = build("minimal", "--check", *kernel)
    assert "check: two builds are the same, byte for byte" in image.said
    if kernel:
        assert ", and so are their EIFs" in image.said
        assert image.said.count("\nPCR") == 3


@pytest.fixture(scope="module")
def validator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sbom")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         "--require-hashes", "--no-deps", "--target", str(folder),
         "-r", str(ROOT / "requirements" / "sbom.txt")],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    if done.returncode != 0 and not os.environ.get("CI"):
        pytest.skip("the packages of requirements/sbom.txt cannot be had from here")
    assert done.returncode == 0, done.stderr
    return folder


def validate(validator: Path, text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", VALIDATE],
        input=text,
        env={"PYTHONPATH": str(validator), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("target", ["minimal", "shell"])
def test_the_bill_is_cyclonedx(validator: Path, target: str) -> None:
    text = (build(target).folder / "sbom.json").read_text()
    done = validate(validator, text)
    assert done.returncode == 0, done.stderr
    bent = text.replace('"type": "file"', '"type": "leaf"', 1)
    assert validate(validator, bent).returncode == 1
