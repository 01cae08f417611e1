"""`scripts/enclave-vm`: see its first lines. Exit 0, 1 (something failed), 75 (cannot be had)."""

import sys
import tempfile
from pathlib import Path

from vm.ground import Ground
from vm.image import build_image
from vm.machine import Machine
from vm.processes import Processes
from vm.tools import CANNOT, Broken, Cannot, find_layer, find_tools


def boot_only() -> None:
    """Boots the image and asks the agent what it sees."""
    tools, layer = find_tools(), find_layer()
    with tempfile.TemporaryDirectory(prefix="kmstool-vm-") as name:
        folder = Path(name)
        processes = Processes(folder)
        try:
            ground = Ground(folder, processes)
            ground.start_emulator()
            image = build_image(tools, layer, ground.ca_pem, folder)
            machine = Machine(folder, processes)
            print(f"booted in {machine.boot(tools, image, ground.chain):.1f} s")
            print(machine.ask({"facts": True}))
        finally:
            processes.stop_all()


if __name__ == "__main__":
    try:
        boot_only()
    except Cannot as error:
        print(error, file=sys.stderr)
        sys.exit(CANNOT)
    except Broken as error:
        print(f"enclave-vm: error: {error}", file=sys.stderr)
        sys.exit(1)
