"""Keeps secrets from leaving the process by its own memory: no core dump, no ptrace.

A debugger that runs as root inside the enclave can undo this; it stops accidents (a crash that
writes a core file onto a disk of the parent's) and other users of the same enclave.
"""

import ctypes
import resource

from kmstool.errors import SettingError

_PR_SET_DUMPABLE = 4  # linux/prctl.h; 0 forbids core dumps and ptrace by the same user


def harden() -> None:
    """Switches core dumps and ptrace off for this process.

    Raises:
        SettingError: the kernel refused; nothing secret has been read by then.

    Source: prctl(2), PR_SET_DUMPABLE; setrlimit(2), RLIMIT_CORE.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise SettingError(
            f"the kernel does not let core dumps be switched off (errno {ctypes.get_errno()})",
            hint="check the seccomp filter that this process runs under",
        )
