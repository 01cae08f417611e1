"""The image that the VM boots: two ramdisks and an EIF around them, with the PCRs they give.

The first ramdisk holds busybox and a script, in the place of the init that AWS ships with
nitro-cli; the second the shipped layer as it is, and beside it `/entry`: the agent and the
roots that it types. The same layer and roots give the same bytes.
"""

from dataclasses import dataclass
from pathlib import Path

from kmstool.attestation.eif import extend, read_eif
from kmstool.attestation.eif_writer import write_eif
from vm.archive import Entry, file, folder, tree, write_archive
from vm.tools import SCRIPTS, BrokenError, Tools

# Without the last five, the guest's clock waits for a timer that a loaded host serves too late.
COMMAND_LINE = (
    "reboot=t panic=-1 pci=off console=ttyS0 i8042.noaux i8042.nomux i8042.nopnp i8042.dumbkbd"
    " random.trust_cpu=on tsc_early_khz=2500000 lpj=10000000 no_timer_check tsc=reliable"
)
PARENT_ROLE = "arn:aws:iam::111122223333:role/parent"
PARENT_ID = "i-0123456789abcdef0"


@dataclass(frozen=True)
class Image:
    """An EIF on disk with what it measures."""

    eif: Path
    pcrs: dict[int, bytes]


@dataclass(frozen=True)
class Given:
    """What the entry program types as `--roots` and `--nitro-root`: of the emulator, of QEMU."""

    ca_pem: bytes
    nitro_root: bytes


def build_image(
    tools: Tools, layer: Path, given: Given, work: Path, *, flip: str | None = None
) -> Image:
    """Writes the ramdisks and the EIF into `work`.

    Args:
        layer: the folder of the shipped root file system.
        given: the roots that the entry program types.
        flip: a file of the layer in which one bit of the last byte is turned over.
    """
    first, second, eif = (work / name for name in ("first.cpio", "second.cpio", "image.eif"))
    with first.open("wb") as output:
        write_archive(output, first_ramdisk(tools, layer))
    with second.open("wb") as output:
        write_archive(output, second_ramdisk(layer, given, flip))
    with eif.open("wb") as output:
        write_eif(
            output,
            kernel=tools.kernel / "vmlinuz",
            command_line=COMMAND_LINE,
            ramdisks=[first, second],
        )
    with eif.open("rb") as stream:
        pcrs = dict(read_eif(stream).pcrs)
    # Not of the image, but of what starts it: here QEMU is told both.
    for index, text in ((3, PARENT_ROLE), (4, PARENT_ID)):
        pcrs[index] = extend(text.encode())  # the text itself, not its hash
    first.unlink()
    second.unlink()
    return Image(eif, pcrs)


def first_ramdisk(tools: Tools, layer: Path) -> dict[str, Entry]:
    """busybox, the modules in the order they need, and the script that goes on to the second."""
    script = (SCRIPTS / "vm" / "guest" / "init").read_text().replace("@PYTHON@", python_of(layer))
    modules = (tools.kernel / "modules").iterdir()
    return {
        "init": file(script.encode(), 0o755),
        "bin/busybox": file(tools.kernel / "busybox", 0o755),
        **{f"modules/{path.name}": file(path) for path in modules},
        **{name: folder() for name in ("dev", "proc", "sys")},
    }


def second_ramdisk(layer: Path, given: Given, flip: str | None) -> dict[str, Entry]:
    """The layer, and what this VM adds to it."""
    entries = tree(layer, "rootfs/")
    if flip is not None:
        entry = entries[f"rootfs/{flip}"]
        content = entry.read()
        changed = content[:-1] + bytes([content[-1] ^ 1])
        entries[f"rootfs/{flip}"] = Entry(entry.mode, changed)
    return {
        **entries,
        "rootfs/entry/agent.py": file(SCRIPTS / "vm" / "guest" / "agent.py"),
        "rootfs/entry/emulator-ca.pem": file(given.ca_pem),
        "rootfs/entry/nitro-root.der": file(given.nitro_root),
    }


def python_of(layer: Path) -> str:
    """Where the layer has its Python."""
    for name in ("usr/bin/python3", "usr/bin/python3.13", "usr/local/bin/python3"):
        if (layer / name).is_symlink() or (layer / name).exists():
            return f"/{name}"
    raise BrokenError(f"there is no Python in {layer}")
