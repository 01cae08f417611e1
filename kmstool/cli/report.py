"""A report as lines for the eye: names and values, with nothing that steers a terminal."""

from collections.abc import Iterator
from typing import Any

from kmstool.cli import console


def for_the_eye(report: dict[str, Any]) -> bytes:
    """One line for each text, number, boolean and None in dictionaries and lists."""
    lines = [console.printable(line) for line in _lines(report, indent="")]
    return "\n".join([*lines, ""]).encode("utf-8", "backslashreplace")


def in_hex(data: bytes | None) -> str | None:
    """How bytes stand in a report."""
    return None if data is None else data.hex()


def _lines(report: dict[str, Any], indent: str) -> Iterator[str]:
    for name, value in report.items():
        label = f"{indent}{name.replace('_', ' ')}:"
        if isinstance(value, dict):
            yield label
            yield from _lines(value, indent + "  ")
        elif isinstance(value, list):
            yield label
            yield from _lines(
                {str(number): item for number, item in enumerate(value)}, indent + "  "
            )
        elif value is None:
            yield f"{label} none"
        elif isinstance(value, bool):
            yield f"{label} {'yes' if value else 'no'}"
        else:
            yield f"{label} {value}"
