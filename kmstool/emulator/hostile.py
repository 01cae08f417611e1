"""The hostile parent: an honest emulator, reached through somebody who attacks.

`HostileParent` puts one attack of `ATTACKS` between an enclave and a running emulator. The enclave
gets a directory of its own, as a second image would, in which one thing is not what it should be.
The emulator itself and the administrator's SDK stay honest.

The attacks stand in the files beside this one: `hostile_network.py` (the way to KMS),
`hostile_direct.py` (credentials, ciphertexts, answers), `hostile_relay.py` and `hostile_oracle.py`
(relayed answers), `hostile_files.py` (sealed files), `hostile_attestation.py` (documents).
docs/reference/attacks.md is compared with the table by a test.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from kmstool.emulator import directory as layout
from kmstool.emulator.hostile_attack import CHOSEN, Attack, Ground, Setup
from kmstool.emulator.hostile_attestation import ATTESTATION_ATTACKS
from kmstool.emulator.hostile_direct import LYING_ATTACKS
from kmstool.emulator.hostile_files import FILE_ATTACKS, FileAttack
from kmstool.emulator.hostile_network import NETWORK_ATTACKS
from kmstool.emulator.hostile_oracle import ORACLE_ATTACKS
from kmstool.emulator.hostile_relay import RELAY_ATTACKS, BentRelay
from kmstool.emulator.nsm_server import NsmServer
from kmstool.emulator.running import Emulator, clear_directory
from kmstool.errors import SettingError

__all__ = [
    "ATTACKS",
    "CHOSEN",
    "Attack",
    "FileAttack",
    "HostileParent",
    "Setup",
    "find_attack",
    "honest_parent",
]

ATTACKS: Final[dict[str, type[Attack]]] = {
    attack.name: attack
    for attack in (
        *NETWORK_ATTACKS,
        *LYING_ATTACKS,
        *RELAY_ATTACKS,
        *ORACLE_ATTACKS,
        *FILE_ATTACKS,
        *ATTESTATION_ATTACKS,
    )
}


def find_attack(name: str) -> type[Attack]:
    """The attack of this name.

    Raises:
        SettingError: there is none.
    """
    if name not in ATTACKS:
        raise SettingError(
            f"there is no attack named {name!r}", hint="`kmstool emulator attacks` lists them"
        )
    return ATTACKS[name]


class NoAttack(BentRelay):
    """An honest parent, who also has a relay."""

    name = "none"
    sentence = "does what it should"


def honest_parent(emulator: Emulator, directory: Path) -> "HostileParent":
    """A parent that attacks nothing, for comparison; arguments as of `HostileParent`."""
    return HostileParent(emulator, directory, NoAttack())


class HostileParent:
    """One attack on whoever uses `environment`, from the moment this is made until `close`.

    Args:
        emulator: a running one, with its simulated root.
        directory: an existing, empty one; what is written there is removed by `close`.
        attack: a name in `ATTACKS`, or an attack of one's own.
        report: gets a line for each request that an attack looked at.

    Attributes:
        attack: the attack, with what it has seen so far.

    Raises:
        SettingError: there is no such attack, or it is one on files, which needs no emulator.
        LocalFileError, TransportError.
    """

    def __init__(
        self,
        emulator: Emulator,
        directory: Path,
        attack: str | Attack,
        *,
        report: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self.attack = find_attack(attack)() if isinstance(attack, str) else attack
        if isinstance(self.attack, FileAttack):
            raise SettingError(
                f"{self.attack.name} is an attack on a file, not on what runs",
                hint="bend the file with `kmstool emulator bend`",
            )
        self.directory = directory
        with contextlib.ExitStack() as stack:
            ground = Ground(emulator, stack, report)
            stack.callback(clear_directory, directory)
            nsm = self.attack.nsm(ground)
            stack.enter_context(NsmServer(nsm, directory / layout.NSM_SOCKET))
            emulator.chain.save(directory / layout.NITRO_FOLDER)
            kms, role = self.attack.front(ground), self.attack.credentials(ground)
            ca_pem = emulator.authority.certificate_pem
            layout.write_directory(directory, kms=kms, ca_pem=ca_pem, enclave=role)
            relay = self.attack.relay(ground)
            self._relay = {} if relay is None else {"KMSTOOL_RELAY": str(relay)}
            self._outer = emulator.environment
            self._inner = layout.environment_of(
                directory, kms=kms, region=emulator.region, admin=role or ground.outsider
            )
            self._stack = stack.pop_all()

    @property
    def environment(self) -> dict[str, str]:
        """As an emulator's, but kmstool meets the attack; an AWS SDK is the administrator's."""
        return self._outer | {"KMSTOOL_EMULATOR": str(self.directory)} | self._relay

    @property
    def enclave_environment(self) -> dict[str, str]:
        """For an enclave program alone: an AWS SDK in it acts as the enclave, and is attacked."""
        return self._inner | self._relay

    def close(self) -> None:
        """Ends the attack and removes the files; the emulator goes on."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
