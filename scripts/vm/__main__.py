"""`scripts/enclave-vm`: see its first lines. Exit 0; 1 failed; 2 usage; 75 cannot be had."""

import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from vm.ground import Ground
from vm.keep import down, execute, up
from vm.machine import Machine
from vm.processes import Processes, last_logs
from vm.show import run_all
from vm.tools import CANNOT, BrokenError, CannotError, find_tools, take_layer

USAGE = "enclave-vm: error: say run, up, down, or exec -- COMMAND OF KMSTOOL"


def main(arguments: Sequence[str]) -> int:
    """Does one of the commands."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    match arguments:
        case ["run"]:
            run()
        case ["up"]:
            up()
        case ["down"]:
            down()
        case ["exec", "--", *words] if words:
            return execute(words)
        case _:
            print(USAGE, file=sys.stderr)
            return 2
    return 0


def run() -> None:
    """Shows everything in a VM of its own, and keeps the logs."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kmstool-vm-") as name:
        folder = Path(name)
        tools, layer = find_tools(), take_layer(folder)
        print(f"enclave-vm: tools and image are there after {time.monotonic() - start:.0f} s")
        processes = Processes(folder)
        ground, machine = Ground(folder, processes), Machine(folder, processes)
        try:
            print(f"enclave-vm: {ground.start_emulator()}")
            print(run_all(tools, layer, ground, machine, folder))
        finally:
            processes.stop_all()
            processes.keep_logs()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except CannotError as error:
        print(f"enclave-vm: error: {error}", file=sys.stderr)
        sys.exit(CANNOT)
    except BrokenError as error:
        print(f"enclave-vm: error: {error}", file=sys.stderr)
        print(f"enclave-vm: hint: the logs of the last run are in {last_logs()}", file=sys.stderr)
        sys.exit(1)
