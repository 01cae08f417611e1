"""What nitro-cli prints of an image, and a release key's signature over it made by openssl."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kmstool import limits
from kmstool.attestation.measurements import parse_measurements, verify_release
from kmstool.errors import DocumentError, InputError, SettingError

HEX = {0: "a" * 96, 1: "b" * 96, 2: "c" * 96, 8: "d" * 96}
PCRS = {index: bytes.fromhex(text) for index, text in HEX.items()}
BUILD: dict[str, Any] = {
    "Measurements": {
        "HashAlgorithm": "Sha384 { ... }",
        **{f"PCR{index}": text for index, text in HEX.items()},
    }
}


def printed(**change: object) -> bytes:
    inner = {name: v for name, v in (BUILD["Measurements"] | change).items() if v is not ...}
    return json.dumps({"Measurements": inner}, indent=2).encode() + b"\n"


def test_what_build_enclave_and_describe_eif_print() -> None:
    assert parse_measurements(printed()) == PCRS
    described = {"EifVersion": 4, "IsSigned": True, "CheckCRC": True, **BUILD}
    assert parse_measurements(json.dumps(described).encode()) == PCRS
    upper = printed(PCR0=HEX[0].upper())
    assert parse_measurements(upper) == PCRS
    assert list(parse_measurements(printed(PCR8=...))) == [0, 1, 2]
    with pytest.raises(TypeError):
        parse_measurements(printed())[0] = b""  # type: ignore[index]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b"{}", "has no Measurements"),
        (b'{"Measurements":[]}', "has no Measurements"),
        (b'{"Measurements":{},"Measurements":{}}', "names a member twice"),
        (printed(PCR1=...), "has no PCR1"),
        (printed(PCR0=HEX[0][:-1]), "PCR0 in the file of measurements is not 96"),
        (printed(PCR8="x" * 96), "PCR8 in the file"),
        (printed(PCR2=7), "PCR2 in the file"),
        (printed() + b" " * limits.MEASUREMENTS_MAX, "more than 65536"),
    ],
)
def test_what_is_no_file_of_measurements(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        parse_measurements(data)
    assert "nitro-cli" in str(error.value.hint)


def spki(key: Any) -> bytes:
    der: bytes = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return der


def test_a_release_signed_by_openssl(tmp_path: Path) -> None:
    data, signature = tmp_path / "image.json", tmp_path / "image.sig"
    key, public = tmp_path / "release.key", tmp_path / "release.der"
    data.write_bytes(printed())
    for command in (
        f"genpkey -algorithm ed25519 -out {key}",
        f"pkey -in {key} -pubout -outform DER -out {public}",
        f"pkeyutl -sign -rawin -inkey {key} -in {data} -out {signature}",
    ):
        subprocess.run(["openssl", *command.split()], check=True, capture_output=True)
    found = verify_release(data.read_bytes(), signature.read_bytes(), public.read_bytes())
    assert found == PCRS


def test_a_release_that_is_not() -> None:
    key, data = Ed25519PrivateKey.generate(), printed()
    signature = key.sign(data)
    assert verify_release(data, signature, spki(key)) == PCRS
    for file, signed, public in (
        (data + b"\n", signature, spki(key)),
        (data, signature[:-1] + bytes([signature[-1] ^ 1]), spki(key)),
        (data, b"", spki(key)),
        (data, signature + b"\0", spki(key)),
        (data, signature, spki(Ed25519PrivateKey.generate())),
    ):
        with pytest.raises(DocumentError, match="did not sign") as error:
            verify_release(file, signed, public)
        assert error.value.step == "release"
    with pytest.raises(InputError):  # signed, and still no such file
        verify_release(b"{}", key.sign(b"{}"), spki(key))
    for public in (b"", b"\x30\x00", spki(ec.generate_private_key(ec.SECP256R1()))):
        with pytest.raises(SettingError, match="not an Ed25519 key"):
            verify_release(data, signature, public)
