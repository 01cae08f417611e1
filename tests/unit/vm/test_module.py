"""The VM's requests put to the simulator, held against docs/reference/nsm-differences.md."""

from typing import Any

import cbor2
from vm.module import CHECKS

from kmstool.emulator.nsm import SimulatedNsm
from kmstool.emulator.signer import SigningChain

# Where the simulator is not as QEMU and Linux' driver are. It is stricter, or has no driver.
DIFFERENT = {
    "Attestation: user_data of 3,000 bytes is taken (the real module: 512)": "InputTooLarge",
    "user_data that is text: taken as bytes": "InvalidOperation",
    "a request of 4,097 bytes, to the driver": "InputTooLarge",
    "GetRandom into 100 bytes: cut, and no error": None,
}


def test_the_simulator_answers_as_the_driver_does_but_for_what_the_page_says() -> None:
    nsm = SimulatedNsm({0: b"\x11" * 48}, SigningChain.generate())
    differing: dict[str, Any] = {}
    for check in CHECKS:
        answer = cbor2.loads(nsm.handle(check.request))
        error = answer.get("Error") if isinstance(answer, dict) else None
        same = error == check.want if error is not None else False
        if error is None and callable(check.want):
            same = check.want(answer)
        if not same:
            differing[check.name] = error
    assert differing == DIFFERENT
