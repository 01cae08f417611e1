"""HKDF-SHA-256 against RFC 5869's own vectors (appendix A.1 to A.3)."""

import pytest

from kmstool.enclave.hkdf import derive_key
from kmstool.errors import SettingError

VECTORS = [
    (
        "0b" * 22, "000102030405060708090a0b0c", "f0f1f2f3f4f5f6f7f8f9", 42,
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    (
        "".join(f"{n:02x}" for n in range(0x50)),
        "".join(f"{n:02x}" for n in range(0x60, 0xB0)),
        "".join(f"{n:02x}" for n in range(0xB0, 0x100)),
        82,
        (
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c"
            "59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71"
            "cc30c58179ec3e87c14c01d5c1f3434f1d87"
        ),
    ),
    (
        "0b" * 22, "", "", 42,
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("ikm", "salt", "info", "length", "okm"), VECTORS)
def test_rfc_5869(ikm: str, salt: str, info: str, length: int, okm: str) -> None:
    derived = derive_key(
        bytes.fromhex(ikm), length=length, salt=bytes.fromhex(salt), info=bytes.fromhex(info)
    )
    assert derived.hex() == okm


@pytest.mark.parametrize("length", [-1, 0, 8161])
def test_a_length_beyond_the_rfc_is_refused(length: int) -> None:
    with pytest.raises(SettingError, match=f"a key of {length} bytes") as caught:
        derive_key(b"x" * 32, length=length)
    assert "1 to 8160" in str(caught.value.hint)


def test_the_longest_key_can_be_derived() -> None:
    assert len(derive_key(b"x" * 32, length=8160)) == 8160
