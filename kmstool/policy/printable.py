"""Text from a policy or a request, made fit for a message.

Both come from files and from outside, and messages go to terminals.
"""

from typing import Final

from kmstool.errors import printable

SHOWN_MAX: Final = 80  # characters; whoever reads a message finds the rest in the policy


def shown(text: str) -> str:
    """Quoted, printable, and cut to `SHOWN_MAX`."""
    return f'"{printable(cut(text))}"'


def cut(text: str) -> str:
    return text if len(text) <= SHOWN_MAX else text[: SHOWN_MAX - 1] + "…"
