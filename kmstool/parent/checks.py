"""`kmstool doctor` on the parent instance: the checks in their order.

No image holds this file; inside, `kmstool/doctor` looks from the other end. It never connects to an
enclave, makes no request but of metrics, the credentials' source and STS, and changes nothing.
"""

from collections.abc import Callable
from pathlib import Path

from kmstool.endpoint import Address
from kmstool.findings import Check
from kmstool.parent.check_machine import machine_checks
from kmstool.parent.check_outside import Outside
from kmstool.parent.check_services import Services
from kmstool.parent.configuration import Reading


def parent_checks(
    *,
    read: Callable[[], Reading] | None,
    forwarders: tuple[Address, ...],
    host: str | None,
    region: str | None,
    root: Path = Path("/"),
) -> tuple[Check, ...]:
    """What `findings.examine` runs on a parent.

    Args:
        read: reads the file of `parent up`; None where there is none.
        forwarders: the addresses to look at where no file names any.
        host: KMS' name where no file names a target.
        region: of STS where environment and profile name none.
        root: the folder in which `dev` and `sys` are.
    """
    services = Services(read, forwarders)
    outside = Outside(lambda: services.configuration, host, region)
    return (*machine_checks(root), *services.checks(), *outside.checks())
