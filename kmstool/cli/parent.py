"""`kmstool parent`: what runs on the parent instance, outside the enclave.

Each command is in a file of its own and is imported when it is used; `kmstool/parent/`, which does
the work, when a command runs. It brings botocore, and no enclave image has it.
"""

import click

from kmstool.cli.common import common_options
from kmstool.cli.lazy import Entry, LazyGroup

COMMANDS: tuple[Entry, ...] = (
    Entry(
        "credentials",
        "kmstool.cli.parent_credentials",
        "credentials",
        "Hand short-lived credentials to enclaves.",
    ),
    Entry(
        "forward",
        "kmstool.cli.parent_forward",
        "forward",
        "Carry an enclave's connections to KMS, bytes untouched.",
    ),
    Entry(
        "relay",
        "kmstool.cli.parent_relay",
        "relay",
        "Call KMS for enclaves, which alone can open the answers.",
    ),
    Entry(
        "up",
        "kmstool.cli.parent_up",
        "up",
        "Run forwarder, credentials and relay from one file.",
    ),
)


@click.group("parent", cls=LazyGroup, entries=COMMANDS)
@common_options
def group() -> None:
    """Serve an enclave from its parent instance.

    Nothing here is trusted by the enclave.
    """
