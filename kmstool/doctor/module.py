"""The Nitro Security Module: is it there, does it sign, and what does it say of this enclave?

The document that it signs here is verified as anybody else would verify it, so a module that is
none, or a driver that garbles, shows before KMS says a word.
"""

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from kmstool.attestation.document import AttestationDocument, parse_document
from kmstool.attestation.verify import Expectations, is_debug, own_time, verify_document
from kmstool.caveats import CUSTOM_NITRO_ROOT, DEBUG_ENCLAVE, SIMULATED_NSM
from kmstool.endpoint import Deadline
from kmstool.findings import Check, Outcome, caution, fine, wrong
from kmstool.session import attestation_root, open_nsm

if TYPE_CHECKING:
    from kmstool.enclave.nsm import Nsm

_SECONDS: Final = 5.0  # the module answers in milliseconds
_IMAGE_PCRS: Final = (0, 1, 2)
_NONCE: Final = 32  # bytes
_DRIVER: Final = "see dmesg for the word of the driver nsm, or start the emulator again"
_GENUINE: Final = (
    "do not rely on this enclave: what answers is not AWS' security module, or not one under"
    " the root that was given"
)


class Module:
    """The checks of the security module, and what later ones want to know of it.

    Attributes:
        simulated: it is the emulator's, so this machine is no enclave.
        clock_offset: the document's timestamp less this machine's clock, in seconds, or None.
    """

    def __init__(self, environ: Mapping[str, str], nitro_root: str | None = None) -> None:
        self.simulated = "KMSTOOL_EMULATOR" in environ
        self.clock_offset: float | None = None
        self._environ = environ
        self._nitro_root = nitro_root
        self._nsm: Nsm | None = None
        self._document: AttestationDocument | None = None

    def checks(self) -> tuple[Check, ...]:
        """In their order."""
        return (
            Check("nsm", _SECONDS, self._describe, mend=_DRIVER),
            Check("nsm-random", _SECONDS, self._random, needs=("nsm",), mend=_DRIVER),
            Check("attestation", _SECONDS, self._attest, needs=("nsm",), mend=_GENUINE),
            Check("pcrs", _SECONDS, self._pcrs, needs=("attestation",)),
        )

    def _describe(self, _deadline: Deadline) -> Outcome:
        nsm, caveats = open_nsm(self._environ)
        found = nsm.describe_nsm()
        self._nsm = nsm
        version = ".".join(map(str, found.version))
        kind = "the emulator's, simulated" if SIMULATED_NSM in caveats else "/dev/nsm"
        return fine(
            f"{kind}, version {version}, {found.module_id}, {found.max_pcrs} PCRs of which"
            f" {len(found.locked_pcrs)} are locked",
            caveats=caveats,
            facts={
                "version": version,
                "module_id": found.module_id,
                "max_pcrs": found.max_pcrs,
                "locked_pcrs": len(found.locked_pcrs),
                "simulated": SIMULATED_NSM in caveats,
            },
        )

    def _random(self, _deadline: Deadline) -> Outcome:
        assert self._nsm is not None  # noqa: S101 - `needs`
        first, second = self._nsm.get_random(), self._nsm.get_random()
        if first == second:
            return wrong(
                "GetRandom gave the same bytes twice",
                "do not make keys here: the security module, its driver or an emulator is broken",
            )
        return fine(f"two calls gave {len(first)} and {len(second)} bytes, which differ")

    def _attest(self, _deadline: Deadline) -> Outcome:
        assert self._nsm is not None  # noqa: S101 - `needs`
        root, caveats = attestation_root(self._environ, root_file=self._nitro_root)
        nonce = os.urandom(_NONCE)
        asked = time.time()
        data = self._nsm.attestation(nonce=nonce)
        at = own_time(parse_document(data))
        expected = Expectations(nonce=nonce, allow_debug=True)
        verified = verify_document(data, root_der=root, at=at, expectations=expected)
        self.clock_offset = at.timestamp() - asked
        self._document = verified.document
        given = CUSTOM_NITRO_ROOT in caveats
        named = "the given root" if given else "the emulator's root" if caveats else "AWS' root"
        return fine(
            f"a document of {len(data)} bytes, genuine under {named}, with our nonce in it",
            caveats=(CUSTOM_NITRO_ROOT,) if given else (),
            facts={"bytes": len(data), "time": at.isoformat(timespec="milliseconds")},
        )

    def _pcrs(self, _deadline: Deadline) -> Outcome:
        assert self._document is not None  # noqa: S101 - `needs`
        shown = {
            f"PCR{index}": value.hex()
            for index, value in sorted(self._document.pcrs.items())
            if index in _IMAGE_PCRS or any(value)
        }
        lines = tuple(f"{name} {value}" for name, value in shown.items())
        if is_debug(self._document):
            return caution(
                "PCR0, PCR1 and PCR2 are zero: the enclave runs in debug mode",
                "start it without --debug-mode: a policy that names an image refuses it, and the"
                " parent reads its console",
                caveats=(DEBUG_ENCLAVE,),
                facts={"debug": True, **shown},
            )
        names = ", ".join(shown)
        return fine(f"{names}; not in debug mode", lines=lines, facts={"debug": False, **shown})
