"""`kmstool`: the way in.

Nothing is imported at the top: while Python reads the rest, Ctrl-C has nothing to clean up and
should end the process at once, without a traceback.
"""

import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

COMPLETION_VARIABLE = "_KMSTOOL_COMPLETE"
# Commands that need a recipient key, which takes longer to make than all imports. This is a guess
# at what Click will find (options may stand before the command); a wrong one costs only time.
KEY_COMMANDS = {
    "decrypt",
    "derive-shared-secret",
    "generate-data-key",
    "generate-data-key-pair",
    "generate-random",
    "open",
}
ASKING_FOR_HELP = {"-h", "--help"}


def main(arguments: Sequence[str]) -> int:
    """Runs one command line, without the program's name, and returns its exit code."""
    from kmstool.cli.commands import cli  # noqa: PLC0415 - see the docstring of the module
    from kmstool.cli.common import Common  # noqa: PLC0415
    from kmstool.cli.guard import guarded  # noqa: PLC0415

    common = Common()

    def body() -> None:
        with cli.make_context("kmstool", list(arguments), obj=common) as context:
            cli.invoke(context)

    return guarded(body, common=common)


def run() -> NoReturn:
    """The console script `kmstool`."""
    die_quietly_on_ctrl_c()
    instruction = os.environ.get(COMPLETION_VARIABLE)
    if instruction:
        complete(instruction)
    if not ASKING_FOR_HELP.intersection(sys.argv) and KEY_COMMANDS.intersection(sys.argv[1:4]):
        from kmstool.enclave.recipient_key import make_key_early  # noqa: PLC0415

        make_key_early()
    code = main(sys.argv[1:])
    from kmstool.cli.guard import leave  # noqa: PLC0415

    leave(code)


def die_quietly_on_ctrl_c() -> None:
    """Until `guarded` takes over, SIGINT does what it does to any program, unless it is ignored."""
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def complete(instruction: str) -> NoReturn:
    """Answers a shell that asks for completions, or for the script that makes it ask."""
    from click.shell_completion import shell_complete  # noqa: PLC0415

    from kmstool.cli.commands import cli  # noqa: PLC0415

    sys.exit(shell_complete(cli, {}, "kmstool", COMPLETION_VARIABLE, instruction))
