"""The parent instance: may it run enclaves, and is something set aside for them?

Reads files below /dev and /sys and asks two drivers; it starts, loads and writes nothing. Sources:
AWS' nitro-enclaves-allocator (what it leaves in /sys), ioctl(2) of vsock(7).
"""

import fcntl
import os
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from kmstool.endpoint import VSOCK_CID_ANY
from kmstool.findings import Check, Fact, Outcome, caution, fine, wrong

_SECONDS: Final = 5.0
_LOCAL_CID: Final = 0x7B9  # linux/vm_sockets.h, IOCTL_VM_SOCKETS_GET_LOCAL_CID
_DEVICE: Final = "dev/nitro_enclaves"
_CPUS: Final = "sys/module/nitro_enclaves/parameters/ne_cpus"
_FILE_MAX: Final = 4_096  # bytes; a list of CPUs


def machine_checks(root: Path) -> tuple[Check, ...]:
    """The checks in their order; `root` is the folder in which `dev` and `sys` are."""
    return (
        Check("enclaves", _SECONDS, lambda _deadline: _driver(root)),
        Check("allocator", _SECONDS, lambda _deadline: _allocator(root), needs=("enclaves",)),
        Check("vsock", _SECONDS, lambda _deadline: _vsock(root)),
    )


def _driver(root: Path) -> Outcome:
    device = root / _DEVICE
    if not device.exists():
        return wrong(
            "there is no /dev/nitro_enclaves: this machine cannot run enclaves",
            "start the instance with enclaves enabled (EnclaveOptions), and load the module:"
            " modprobe nitro_enclaves",
        )
    if not os.access(device, os.R_OK | os.W_OK):
        return caution(
            "/dev/nitro_enclaves is there, and not for this user",
            "to run enclaves as this user put it into the group ne; kmstool's services need it not",
        )
    return fine("/dev/nitro_enclaves is there")


def _allocator(root: Path) -> Outcome:
    cpus = _line(root / _CPUS)
    memory = sum(_huge_pages(root))
    facts: dict[str, Fact] = {"cpus": cpus, "memory_mib": memory}
    if not cpus or not memory:
        missing = "neither CPUs nor memory are" if not (cpus or memory) else "no memory is"
        missing = missing if cpus or not memory else "no CPUs are"
        return wrong(
            f"{missing} set aside for enclaves",
            "systemctl enable --now nitro-enclaves-allocator; what it sets aside stands in"
            " /etc/nitro_enclaves/allocator.yaml, and its log says what it could not",
            facts=facts,
        )
    return fine(f"CPUs {cpus} and {memory} MiB in huge pages are set aside", facts=facts)


def _huge_pages(root: Path) -> Iterable[int]:
    """MiB of each size of page."""
    for folder in sorted((root / "sys/kernel/mm/hugepages").glob("hugepages-*kB")):
        kilobytes = folder.name.removeprefix("hugepages-").removesuffix("kB")
        count = _line(folder / "nr_hugepages")
        if kilobytes.isdecimal() and count.isdecimal():
            yield int(kilobytes) * int(count) // 1024


def _vsock(root: Path) -> Outcome:
    try:
        socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()
        with (root / "dev/vsock").open("rb") as device:
            number = bytearray(4)
            fcntl.ioctl(device, _LOCAL_CID, number)
    except OSError as error:
        return wrong(
            f"this machine has no vsock that works: {os.strerror(error.errno or 0).lower()}",
            "modprobe vsock, and read /dev/vsock as this user",
        )
    cid = int.from_bytes(number, sys.byteorder)
    if cid == VSOCK_CID_ANY:  # what the kernel says without a transport
        return wrong(
            "there is vsock with nothing behind it: this machine has no CID",
            "on an instance load its transport (modprobe vmw_vsock_virtio_transport), on a host of"
            " VMs vhost_vsock",
        )
    return fine(f"there is vsock; this machine's CID is {cid}", facts={"cid": cid})


def _line(path: Path) -> str:
    try:
        with path.open("rb") as file:
            text = file.read(_FILE_MAX).decode("ascii", "replace").strip()
    except OSError:
        return ""
    return text if text.isprintable() else ""
