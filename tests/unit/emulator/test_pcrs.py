"""PCR values on the command line, and the defaults."""

import pytest

from kmstool.emulator.pcrs import choose_pcrs, label_pcrs, parse_pcrs
from kmstool.errors import SettingError

VALUE = "0F" * 48


def test_defaults() -> None:
    pcrs = choose_pcrs({})
    assert pcrs == label_pcrs() == choose_pcrs({})
    assert sorted(pcrs) == [0, 1, 2]
    assert all(len(value) == 48 and any(value) for value in pcrs.values())
    assert len(set(pcrs.values())) == 3
    assert label_pcrs("other") != pcrs


def test_given_values() -> None:
    given = parse_pcrs([f"0={VALUE}", f"31={VALUE.lower()}"])
    assert given == {0: b"\x0f" * 48, 31: b"\x0f" * 48}
    assert choose_pcrs(given) == label_pcrs() | given


def test_debug_mode() -> None:
    assert choose_pcrs({8: b"\1" * 48}, debug_mode=True) == {
        0: bytes(48),
        1: bytes(48),
        2: bytes(48),
        8: b"\1" * 48,
    }
    with pytest.raises(SettingError, match="PCR1"):
        choose_pcrs({1: bytes(48)}, debug_mode=True)


@pytest.mark.parametrize(
    "texts",
    [
        ["0"],
        ["=" + VALUE],
        ["x=" + VALUE],
        ["32=" + VALUE],
        ["-1=" + VALUE],
        ["0=" + VALUE[:-2]],
        ["0=" + VALUE + "00"],
        ["0=" + "x" * 96],
        ["0=" + VALUE, "0=" + VALUE],
    ],
)
def test_what_is_no_pcr(texts: list[str]) -> None:
    with pytest.raises(SettingError):
        parse_pcrs(texts)
