"""PCR values for simulated enclaves: fixed ones by default, zeros for debug mode, or chosen.

The default PCR0, PCR1 and PCR2 are SHA-384 of a label, so that a test can name them in a policy;
they are those of no image. An enclave in debug mode attests these three as zeros.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Final

from kmstool.errors import SettingError
from kmstool.limits import NSM_PCR_COUNT_MAX, NSM_PCR_LENGTH

DEFAULT_LABEL: Final = "kmstool emulator image"
_IMAGE_PCRS = (0, 1, 2)  # what `nitro-cli build-enclave` prints


def label_pcrs(label: str = DEFAULT_LABEL) -> dict[int, bytes]:
    """PCR0 to PCR2 of an imaginary image with this label."""
    return {index: hashlib.sha384(f"{label} PCR{index}".encode()).digest() for index in _IMAGE_PCRS}


def choose_pcrs(given: Mapping[int, bytes], *, debug_mode: bool = False) -> dict[int, bytes]:
    """The defaults (or zeros in debug mode), and over them what was given.

    Raises:
        SettingError: debug mode together with a value for PCR0, PCR1 or PCR2.
    """
    if debug_mode and (clash := sorted(set(given) & set(_IMAGE_PCRS))):
        raise SettingError(
            f"PCR{clash[0]} was given, but in debug mode it is zero",
            hint="leave out either --debug-mode or --pcr",
        )
    zeros = dict.fromkeys(_IMAGE_PCRS, bytes(NSM_PCR_LENGTH))
    return (zeros if debug_mode else label_pcrs()) | dict(given)


def parse_pcrs(texts: Iterable[str]) -> dict[int, bytes]:
    """Reads `N=HEX` with 96 hexadecimal digits, as often as given.

    Raises:
        SettingError: the text is not of that form, or an index comes twice.
    """
    result: dict[int, bytes] = {}
    for text in texts:
        name, _, digits = text.partition("=")
        try:
            index, value = int(name), bytes.fromhex(digits)
        except ValueError:
            index, value = -1, b""
        if not 0 <= index < NSM_PCR_COUNT_MAX or len(value) != NSM_PCR_LENGTH:
            raise SettingError(
                f"{text[:120]!r} is not a PCR",
                hint=f"give N=HEX with N from 0 to {NSM_PCR_COUNT_MAX - 1} and"
                f" {2 * NSM_PCR_LENGTH} hexadecimal digits",
            )
        if index in result:
            raise SettingError(f"PCR{index} was given twice")
        result[index] = value
    return result
