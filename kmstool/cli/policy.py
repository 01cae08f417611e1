"""`kmstool policy`: key policies that hold, and why one refused.

Each command is in a file of its own and is imported when it is used.
"""

import click

from kmstool.cli.common import common_options
from kmstool.cli.lazy import Entry, LazyGroup

COMMANDS: tuple[Entry, ...] = (
    Entry(
        "build",
        "kmstool.cli.policy_build",
        "build",
        "Write a key policy that lets in these images alone.",
    ),
    Entry("check", "kmstool.cli.policy_check", "check", "Find known mistakes in a key policy."),
    Entry(
        "explain",
        "kmstool.cli.policy_explain",
        "command",
        "Say which statement and condition of a key policy decides a call.",
    ),
)


@click.group("policy", cls=LazyGroup, entries=COMMANDS)
@common_options
def group() -> None:
    """Write, check and explain key policies.

    Works offline: nothing here talks to KMS or to a security module, unless asked for its PCRs.
    """
