"""Fuzzes the simulated module: whatever is asked, it answers as the ABI does."""

import cbor2

from kmstool import limits
from kmstool.emulator.cbor_writer import encode
from kmstool.emulator.nsm import SimulatedNsm
from kmstool.emulator.signer import SigningChain

_PCR0 = bytes(range(48))
_CHAIN = SigningChain.generate()
_KINDS = {
    *("DescribeNSM", "GetRandom", "Attestation", "DescribePCR"),
    *("ExtendPCR", "LockPCR", "LockPCRs", "Error"),
}
_ERRORS = {"ReadOnlyIndex", "InvalidIndex", "InputTooLarge", "InvalidOperation"}
_DESCRIBE = encode({"DescribePCR": {"index": 0}})


def target(data: bytes) -> None:
    module = SimulatedNsm({0: _PCR0}, _CHAIN, "definite")
    encoded = module.handle(data)
    assert 1 <= len(encoded) <= limits.NSM_RESPONSE_MAX
    answer = cbor2.loads(encoded)
    kind = answer if isinstance(answer, str) else next(iter(answer))
    assert kind in _KINDS
    if kind == "Error":
        assert answer["Error"] in _ERRORS
    # PCR0 is locked at boot: nothing changes it.
    assert cbor2.loads(module.handle(_DESCRIBE))["DescribePCR"] == {"lock": True, "data": _PCR0}


SEEDS: list[bytes] = [
    encode("DescribeNSM"),
    encode("GetRandom"),
    encode({"Attestation": {"user_data": b"u", "nonce": None, "public_key": b"k"}}),
    encode({"DescribePCR": {"index": 31}}),
    encode({"ExtendPCR": {"index": 16, "data": b"x"}}),
    encode({"ExtendPCR": {"index": 0, "data": b"x"}}),
    encode({"LockPCR": {"index": 16}}),
    encode({"LockPCRs": {"range": 20}}),
]
