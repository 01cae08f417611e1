"""The EIF that the VM's kernel and init make of an image, and what it measures to.

    python -m image.eif FOLDER KERNEL     writes FOLDER/image.eif; prints `PCR0 HEX` and so on

KERNEL is the folder that scripts/vm/tools names: kernel, modules, busybox. The layout is that of
nitro-cli's images (a first ramdisk with an init, a second with the root file system below rootfs/),
but kernel and init are not AWS': the PCRs are those of this image under scripts/enclave-vm, never
those that nitro-cli prints.
"""

import sys
import tempfile
from pathlib import Path

from vm.archive import tree, write_archive
from vm.image import COMMAND_LINE, first_ramdisk
from vm.tools import Tools

from kmstool.attestation.eif import read_eif
from kmstool.attestation.eif_writer import write_eif


def write(root: Path, kernel: Path, target: Path) -> dict[int, bytes]:
    """Writes the EIF of the tree at `root`, and returns the PCRs that kmstool reads from it."""
    nowhere = Path("unused")
    with tempfile.TemporaryDirectory() as name:
        first, second = Path(name, "first"), Path(name, "second")
        with first.open("wb") as output:
            write_archive(output, first_ramdisk(Tools(nowhere, nowhere, kernel), root))
        with second.open("wb") as output:
            write_archive(output, tree(root, "rootfs/"))
        with target.open("wb") as output:
            write_eif(
                output,
                kernel=kernel / "vmlinuz",
                command_line=COMMAND_LINE,
                ramdisks=[first, second],
            )
    with target.open("rb") as stream:
        return dict(read_eif(stream).pcrs)


def main(arguments: list[str]) -> int:
    """Writes it, and prints its registers."""
    folder, kernel = Path(arguments[0]), Path(arguments[1])
    for index, value in sorted(write(folder / "rootfs", kernel, folder / "image.eif").items()):
        print(f"PCR{index} {value.hex()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
