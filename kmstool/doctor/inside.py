"""The checks inside an enclave, in the order of the chain."""

import os
from collections.abc import Mapping
from typing import Final

from kmstool.doctor.access import Access, Wish
from kmstool.doctor.clock import clock_check
from kmstool.doctor.machine import Machine, machine_checks
from kmstool.doctor.module import Module
from kmstool.doctor.relay import relay_checks
from kmstool.doctor.way import Way
from kmstool.findings import Check
from kmstool.session import SessionOptions, is_relayed

_DOCUMENT: Final = "the document's timestamp"


def inside_checks(
    options: SessionOptions,
    wish: Wish,
    *,
    environ: Mapping[str, str] = os.environ,
    machine: Machine | None = None,
    nitro_root: str | None = None,
) -> tuple[Check, ...]:
    """What `findings.examine` runs inside an enclave. Raises `SettingError` for mixed setups.

    Args:
        options: as operations take them; its `timeout` is that of each check that goes outside.
        wish: what the enclave is to be allowed.
        machine: where the kernel's files are.
        nitro_root: file of the root of attestation, in the place of AWS'.
    """
    module = Module(environ, nitro_root)
    here = (
        *module.checks(),
        *machine_checks(machine or Machine(), simulated=module.simulated),
    )
    if is_relayed(options):
        clock = clock_check(lambda: {_DOCUMENT: module.clock_offset})
        return (*here, clock, *relay_checks(options, environ))
    way = Way(options, wish.key, environ)
    access = Access(options, wish, way, environ)
    credentials, permission = access.checks()
    return (
        *here,
        *way.checks(),
        clock_check(lambda: {_DOCUMENT: module.clock_offset, "KMS' Date": way.clock_offset}),
        credentials,
        permission,
    )
