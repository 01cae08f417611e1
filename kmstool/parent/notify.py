"""Tells systemd how a service is (sd_notify(3)): a datagram to the socket in `NOTIFY_SOCKET`.

Whoever was not asked says nothing, and nobody fails because systemd did not hear it.
"""

import os
import socket
import time
from collections.abc import Mapping
from typing import Final

_STATUS_MAX: Final = 500  # characters; it is one line of `systemctl status`


class Notifier:
    """The service manager that started this process, or nobody.

    Args:
        environment: `NOTIFY_SOCKET` is a path, or `@` and a name in the abstract namespace;
            `WATCHDOG_USEC` and `WATCHDOG_PID` are sd_watchdog_enabled(3)'s.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        name = environment.get("NOTIFY_SOCKET", "")
        # Other forms (vsock:, since systemd 254) are for virtual machines.
        self._address = "\0" + name[1:] if name.startswith("@") else name
        self._enabled = name.startswith(("/", "@"))
        self.watchdog_seconds = _watchdog_seconds(environment)

    def ready(self, status: str) -> bool:
        """It serves, or serves again after `reloading`."""
        return self._send("READY=1", _status(status))

    def reloading(self) -> bool:
        """It reads its settings again."""
        microseconds = time.monotonic_ns() // 1_000  # wanted by Type=notify-reload
        return self._send("RELOADING=1", f"MONOTONIC_USEC={microseconds}")

    def stopping(self, status: str) -> bool:
        """It ends."""
        return self._send("STOPPING=1", _status(status))

    def alive(self) -> bool:
        """It is well; to be said more often than every `watchdog_seconds`."""
        return self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> bool:
        """Whether somebody was told."""
        if not self._enabled:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(1.0)  # a full queue must not hold the service up
                sender.sendto("\n".join(lines).encode(), self._address)
        except (OSError, ValueError):  # ValueError: a NUL in the name
            return False
        return True


def _status(text: str) -> str:
    shown = "".join(character if character.isprintable() else "?" for character in text)
    return f"STATUS={shown[:_STATUS_MAX]}"


def _watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    pid = environment.get("WATCHDOG_PID", "")
    if pid and pid != str(os.getpid()):
        return None  # meant for another process
    digits = environment.get("WATCHDOG_USEC", "")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 18):
        return None
    return int(digits) / 1_000_000 or None
