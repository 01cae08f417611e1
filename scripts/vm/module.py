"""The Nitro Security Module's seven requests and its errors, put to Linux' own driver in the VM.

The requests are written here byte by byte, past everything that kmstool checks before it asks. What
is expected is what QEMU's device and Linux' driver do; where the real module is known to differ, or
our simulator does, docs/reference/nsm-differences.md says so. The empty request is not among them:
it never returns.
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kmstool.cbor import decode
from kmstool.emulator.cbor_writer import encode
from vm.machine import Machine
from vm.tools import BrokenError

LOCKED = 16  # PCR0 to PCR15 are locked at boot
REQUEST_MAX = 4096


@dataclass(frozen=True)
class Check:
    """One request and what has to come back.

    Attributes:
        want: an error's name, an errno, what an answer holds, or None where it is cut short.
        capacity: bytes for the answer.
    """

    name: str
    request: bytes
    want: str | int | Callable[[Any], bool] | None
    capacity: int = 0x3000


def call(name: str, **fields: object) -> bytes:
    return encode({name: fields}) if fields else encode(name)


CHECKS = (
    Check("DescribeNSM: version 1.0.0, 32 PCRs, 0 to 15 locked", call("DescribeNSM"), lambda answer:
          answer["DescribeNSM"]["version_major"] == 1
          and answer["DescribeNSM"]["max_pcrs"] == 32
          and answer["DescribeNSM"]["locked_pcrs"] == list(range(LOCKED))),
    Check("GetRandom: 256 bytes", call("GetRandom"),
          lambda answer: len(set(answer["GetRandom"]["random"])) > 100
          and len(answer["GetRandom"]["random"]) == 256),
    Check("Attestation: a document",
          call("Attestation", user_data=b"u", nonce=b"n", public_key=None),
          lambda answer: len(answer["Attestation"]["document"]) > 2000),
    Check("Attestation: user_data of 3,000 bytes is taken (the real module: 512)",
          call("Attestation", user_data=bytes(3000), nonce=None, public_key=None),
          lambda answer: len(answer["Attestation"]["document"]) > 5000),
    Check("DescribePCR 0: locked, 48 bytes that are not zero", call("DescribePCR", index=0),
          lambda answer: answer["DescribePCR"]["lock"] and any(answer["DescribePCR"]["data"])),
    Check("DescribePCR 16: not locked, zeros", call("DescribePCR", index=16),
          lambda answer: answer["DescribePCR"] == {"lock": False, "data": bytes(48)}),
    Check("ExtendPCR 16", call("ExtendPCR", index=16, data=b"x"),
          lambda answer: len(answer["ExtendPCR"]["data"]) == 48),
    Check("LockPCR 16: a bare string", call("LockPCR", index=16),
          lambda answer: answer == "LockPCR"),
    Check("LockPCRs 18: a bare string", call("LockPCRs", range=18),
          lambda answer: answer == "LockPCRs"),
    Check("ExtendPCR 16, now locked", call("ExtendPCR", index=16, data=b"x"), "ReadOnlyIndex"),
    Check("LockPCR 16, now locked", call("LockPCR", index=16), "ReadOnlyIndex"),
    Check("ExtendPCR 0", call("ExtendPCR", index=0, data=b"x"), "ReadOnlyIndex"),
    Check("LockPCR 0", call("LockPCR", index=0), "ReadOnlyIndex"),
    Check("DescribePCR 32", call("DescribePCR", index=32), "InvalidIndex"),
    Check("ExtendPCR 32", call("ExtendPCR", index=32, data=b"x"), "InvalidIndex"),
    Check("LockPCR 32", call("LockPCR", index=32), "InvalidIndex"),
    Check("LockPCRs 33", call("LockPCRs", range=33), "InvalidIndex"),
    Check("DescribePCR 300", call("DescribePCR", index=300), "InvalidOperation"),
    Check("an unknown command", call("Reboot"), "InvalidOperation"),
    Check("garbage", b"\xff\x00\x17garbage", "InvalidOperation"),
    Check("user_data that is a number",
          call("Attestation", user_data=7, nonce=None, public_key=None), "InvalidOperation"),
    Check("user_data that is text: taken as bytes",
          call("Attestation", user_data="text", nonce=None, public_key=None),
          lambda answer: b"iuser_dataDtext" in answer["Attestation"]["document"]),
    Check("a request of 4,097 bytes, to the driver", bytes(REQUEST_MAX + 1),
          errno.EMSGSIZE),
    Check("GetRandom into 100 bytes: cut, and no error", call("GetRandom"), None, 100),
)  # fmt: skip


def show_module(machine: Machine) -> list[str]:
    """Puts each to the driver; what came of it. Raises: BrokenError, if it is another answer."""
    return [_show(machine, check) for check in CHECKS]


def _show(machine: Machine, check: Check) -> str:
    answer = machine.nsm(check.request, check.capacity)
    if isinstance(answer, int):
        return _line(check, errno.errorcode[answer], holds=answer == check.want)
    if len(answer) == check.capacity:  # cut short, so no CBOR that could be read
        return _line(check, f"{len(answer)} bytes", holds=check.want is None)
    value = decode(answer, max_depth=8)
    if isinstance(value, dict) and "Error" in value:
        return _line(check, value["Error"], holds=value["Error"] == check.want)
    return _line(check, "", holds=callable(check.want) and bool(check.want(value)))


def _line(check: Check, came: str, *, holds: bool) -> str:
    if not holds:
        raise BrokenError(f"the NSM, {check.name}: {came or 'an answer that was not expected'}")
    return f"{check.name}: {came}" if came else check.name
