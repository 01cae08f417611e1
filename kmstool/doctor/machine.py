"""This machine: the kernel's random numbers and where they come from, its version, its clock.

Reads files below /sys and asks the kernel; it never writes. What is expected is Trail of Bits'
advice for enclaves ("Notes on AWS Nitro Enclaves: attack surface", 2024): random numbers of the
security module (`nsm-hwrng`), `kvm-clock`, and a kernel of at least 5.17.12, whose generator mixes
what a hardware source gives as it should.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from kmstool.findings import Check, Outcome, caution, fine, wrong

_SECONDS: Final = 5.0
_RNG: Final = "sys/class/misc/hw_random/rng_current"
_CLOCK: Final = "sys/devices/system/clocksource/clocksource0/current_clocksource"
_FILE_MAX: Final = 256  # bytes; a name of a driver
_GOOD_RNG: Final = "nsm-hwrng"
_GOOD_CLOCK: Final = "kvm-clock"
_GOOD_KERNEL: Final = (5, 17, 12)
_RELEASE: Final = re.compile(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,6}))?")


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the checks look.

    Attributes:
        root: the folder in which `sys` is.
        release: of the kernel, as uname(2) has it.
        get_random: `os.getrandom`.
    """

    root: str = "/"
    release: str = field(default_factory=lambda: os.uname().release)
    get_random: Callable[[int, int], bytes] = os.getrandom

    def read(self, path: str) -> str | None:
        """The one line of a file; None where there is none."""
        try:
            with open(os.path.join(self.root, path), "rb") as file:  # noqa: PTH118, PTH123
                line = file.read(_FILE_MAX).decode("ascii", "replace").strip()
        except OSError:
            return None
        return line if line.isprintable() else None


def machine_checks(machine: Machine, *, simulated: bool) -> tuple[Check, ...]:
    """The checks in their order.

    Args:
        simulated: the security module is the emulator's, so this machine is no enclave, and what
            an enclave would have is told without being asked for.
    """
    return (
        Check("entropy", _SECONDS, lambda _deadline: _entropy(machine)),
        Check("random-source", _SECONDS, lambda _deadline: _rng(machine, simulated=simulated)),
        Check("kernel", _SECONDS, lambda _deadline: _kernel(machine)),
        Check("clock-source", _SECONDS, lambda _deadline: _clock(machine, simulated=simulated)),
    )


def _entropy(machine: Machine) -> Outcome:
    try:
        machine.get_random(1, os.GRND_NONBLOCK)
    except BlockingIOError:
        return wrong(
            "the kernel's random number generator is not ready: whatever needs it waits",
            "give the kernel a source of entropy: CONFIG_HW_RANDOM and the nsm driver, and"
            " random.trust_cpu=on on its command line",
        )
    return fine("the kernel's random number generator is ready")


def _rng(machine: Machine, *, simulated: bool) -> Outcome:
    name = machine.read(_RNG) or "none"
    facts = {"rng_current": name}
    if name == _GOOD_RNG:
        return fine("the kernel takes random numbers from nsm-hwrng", facts=facts)
    text = f"the kernel's hardware source is {name}; that of an enclave is nsm-hwrng"
    if simulated:
        return caution(f"{text}, and this machine is none", None, facts=facts)
    return wrong(
        text,
        "build the image's kernel with the nsm driver and CONFIG_HW_RANDOM, or write nsm-hwrng to"
        f" /{_RNG} when it starts",
        facts=facts,
    )


def _kernel(machine: Machine) -> Outcome:
    match = _RELEASE.match(machine.release)
    facts = {"release": machine.release}
    version = tuple(int(part or 0) for part in match.groups()) if match else (0,)
    if version < _GOOD_KERNEL:
        return caution(
            f"Linux {machine.release} is older than 5.17.12, whose random number generator mixes"
            " in what a hardware source gives",
            "build the image with a newer kernel",
            facts=facts,
        )
    return fine(f"Linux {machine.release}", facts=facts)


def _clock(machine: Machine, *, simulated: bool) -> Outcome:
    name = machine.read(_CLOCK) or "unknown"
    facts = {"clock_source": name}
    if name == _GOOD_CLOCK:
        return fine("kvm-clock, which the hypervisor keeps", facts=facts)
    text = f"the clock source is {name}; that of an enclave is kvm-clock"
    if simulated:
        return caution(f"{text}, and this machine is none", None, facts=facts)
    return caution(
        text,
        f"write kvm-clock to /{_CLOCK} when the enclave starts: the hypervisor keeps that one, and"
        " others drift",
        facts=facts,
    )
