"""Enclave images and their PCRs, held to AWS' crate of the format (tests/oracles/eif).

Images that the crate makes on the spot are read by ours, images that ours writes are read by the
crate, and our writer's bytes are the crate's where the parts are the same.
"""

import json
import random
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from support.eif_images import COMMAND, IDENTITY, arm64, bzimage, ramdisk, signing_certificate
from support.oracle import build

from kmstool.attestation.eif import EifMeasurements, read_eif
from kmstool.attestation.eif_writer import write_eif
from kmstool.errors import InputError

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

SIZES = random.Random(1)


class Parts(NamedTuple):
    """What an image is made of, as files; signed where there is a key."""

    kernel: Path
    ramdisks: Sequence[Path]
    flags: int = 0
    command: str = COMMAND
    curve: ec.EllipticCurve | None = None


IMAGES: dict[str, tuple[bytes, list[bytes], int, ec.EllipticCurve | None]] = {
    "two ramdisks": (bzimage(), [ramdisk("init"), ramdisk("app", b"\x1f\x8b\x08")], 0, None),
    "one ramdisk": (bzimage(900), [ramdisk("init", size=70_001)], 0, None),
    "many ramdisks": (
        bzimage(),
        [ramdisk(str(i), size=SIZES.randrange(6, 5000)) for i in range(29)],
        0,
        None,
    ),
    "a megabyte": (
        bzimage(40_000),
        [ramdisk("i", size=1_500_001), ramdisk("a", size=2_000_003)],
        0,
        None,
    ),
    "aarch64": (arm64(), [ramdisk("init"), ramdisk("app")], 1, None),
    "signed on P-256": (bzimage(), [ramdisk("init"), ramdisk("app")], 0, ec.SECP256R1()),
    "signed on P-384": (bzimage(), [ramdisk("init"), ramdisk("app")], 0, ec.SECP384R1()),
    "signed on P-521": (bzimage(), [ramdisk("init")], 0, ec.SECP521R1()),
    "signed aarch64": (
        arm64(),
        [ramdisk("init"), ramdisk("app"), ramdisk("more")],
        1,
        ec.SECP384R1(),
    ),
}


@pytest.fixture(scope="module")
def oracle() -> Callable[..., dict[str, Any]]:
    program = build("eif").program

    def ask(*arguments: object) -> dict[str, Any]:
        done = subprocess.run(
            [program, *map(str, arguments)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    return ask


@pytest.fixture(params=IMAGES)
def parts(request: pytest.FixtureRequest, tmp_path: Path) -> Parts:
    kernel, ramdisks, flags, curve = IMAGES[request.param]
    files = []
    for index, data in enumerate((kernel, *ramdisks)):
        files.append(tmp_path / f"part-{index}")
        files[-1].write_bytes(data)
    return Parts(files[0], files[1:], flags, curve=curve)


def crate_image(
    oracle: Callable[..., dict[str, Any]], parts: Parts, folder: Path
) -> tuple[Path, dict[int, bytes]]:
    path, signer = folder / "theirs.eif", ["", ""]
    if parts.curve is not None:
        key = ec.generate_private_key(parts.curve)
        signer = [str(folder / "certificate.pem"), str(folder / "key.pem")]
        Path(signer[0]).write_bytes(signing_certificate(key).public_bytes(Encoding.PEM))
        Path(signer[1]).write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
    answer = oracle(
        *("build", path, parts.kernel, parts.command, parts.flags, json.dumps(IDENTITY)),
        *(*signer, *parts.ramdisks),
    )
    return path, pcrs_of(answer)


def pcrs_of(answer: dict[str, Any]) -> dict[int, bytes]:
    found = {n: v for n, v in answer["pcrs"].items() if n != "HashAlgorithm"}
    return {int(name.removeprefix("PCR")): bytes.fromhex(value) for name, value in found.items()}


def read(path: Path) -> EifMeasurements:
    with path.open("rb") as file:
        return read_eif(file)


def test_images_of_the_crate_read_by_ours(
    oracle: Callable[..., dict[str, Any]], parts: Parts, tmp_path: Path
) -> None:
    path, built = crate_image(oracle, parts, tmp_path)
    described = oracle("describe", path)
    found = read(path)
    assert found.pcrs == built == pcrs_of(described)
    assert (8 in built) == (parts.curve is not None) == (found.signature is not None)
    assert found.metadata == described["metadata"] == IDENTITY
    assert described["checksum"] is True
    if found.signature is not None:
        assert described["signature"] == {"over_pcr0": True, "valid": True}
        pem = Path(tmp_path, "certificate.pem").read_bytes()
        der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
        assert found.signature.certificate == der


def test_images_of_ours_read_by_the_crate(
    oracle: Callable[..., dict[str, Any]], parts: Parts, tmp_path: Path
) -> None:
    path = tmp_path / "ours.eif"
    with path.open("wb") as file:
        write_eif(
            file,
            kernel=parts.kernel,
            command_line=parts.command,
            ramdisks=parts.ramdisks,
            metadata=IDENTITY,
            architecture="aarch64" if parts.flags else "x86_64",
        )
    described = oracle("describe", path)
    assert described["checksum"] is True
    assert described["metadata"] == IDENTITY
    assert pcrs_of(described) == read(path).pcrs
    theirs, built = crate_image(oracle, parts._replace(curve=None), tmp_path)
    assert built == read(path).pcrs
    # The crate writes the same members in its own order, which moves nothing.
    head, mine = theirs.read_bytes(), path.read_bytes()
    assert head[:544] == mine[:544]
    assert len(head) == len(mine)


def test_a_damaged_image_is_damaged_for_both(
    oracle: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    kernel, disk = tmp_path / "kernel", tmp_path / "ramdisk"
    kernel.write_bytes(bzimage())
    disk.write_bytes(ramdisk("init"))
    path, built = crate_image(oracle, Parts(kernel, [disk]), tmp_path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    described = oracle("describe", path)
    assert described["checksum"] is False
    assert pcrs_of(described) != built
    with pytest.raises(InputError, match="the checksum in the header is"):
        read(path)
