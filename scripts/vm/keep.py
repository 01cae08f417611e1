"""`up`, `exec` and `down`: a VM that stays, for whoever wants to try things in it.

Everything of it is in one folder under the temporary directory, the user's alone, since the paths
of its Unix sockets have to be short. What runs is stopped by the ids in that folder.
"""

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from vm.ground import Ground
from vm.image import build_image
from vm.machine import Machine
from vm.processes import Processes
from vm.show import make_keys, open_keys_for
from vm.tools import BrokenError, find_tools, take_layer

LIFE = "QEMU signs with a certificate of three hours: after that, `down` and `up` again"


def up() -> None:
    """Starts one. Raises: BrokenError, CannotError."""
    folder = place()
    if folder.exists():
        if Processes(folder).running("qemu"):
            raise BrokenError(f"one is up already, in {folder}: `down` ends it")
        down()
    tools = find_tools()
    folder.mkdir(mode=0o700)
    processes = Processes(folder)
    ground, machine = Ground(folder, processes), Machine(folder, processes)
    try:
        layer = take_layer(folder)
        print(ground.start_emulator())
        keys = make_keys(ground, folder)
        image = build_image(tools, layer, ground.given, folder)
        open_keys_for(ground, keys, image.pcrs)
        ground.start_parents(machine, [keys.symmetric, keys.agreement])
        seconds = machine.boot(tools, image, ground.chain)
        (folder / "secret.enc").write_bytes(keys.secret)
        (folder / "file.sealed").write_bytes(keys.sealed)
    except BaseException:
        processes.keep_logs()
        down()
        raise
    print(f"up in {folder} after a boot of {seconds:.1f} s; {LIFE}")
    print(f"symmetric key: {keys.symmetric}")
    print(f"key-agreement key: {keys.agreement}")
    print(f"attests: PCR0 {image.pcrs[0].hex()}")
    print(f"AWS clients reach its KMS with: . {folder}/emulator.out")
    decrypt = f"decrypt --key-id {keys.symmetric} --input raw < {folder}/secret.enc"
    print(f"try: scripts/enclave-vm exec -- {decrypt}")


def execute(arguments: Sequence[str]) -> int:
    """kmstool in the guest, with our stdin; its exit code. Raises: BrokenError."""
    processes = Processes(place())
    if not processes.running("qemu"):
        raise BrokenError("no VM is up: scripts/enclave-vm up starts one")
    machine = Machine(place(), processes)
    ran = machine.kmstool(*arguments, stdin=b"" if sys.stdin.isatty() else sys.stdin.buffer.read())
    sys.stderr.write(ran.stderr)
    sys.stdout.buffer.write(ran.stdout)
    sys.stdout.flush()
    return ran.code


def down() -> None:
    """Ends it, and takes its folder away."""
    folder = place()
    if folder.exists():
        Processes(folder).stop_all()
        shutil.rmtree(folder)


def place() -> Path:
    """The folder, which nobody else may have made. Raises: BrokenError."""
    folder = Path(tempfile.gettempdir(), f"kmstool-vm-{os.getuid()}")
    if folder.is_symlink() or folder.exists():
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            raise BrokenError(f"{folder} is not ours: look at it, and take it away")
    return folder
