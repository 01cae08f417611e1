"""kmstool decrypt in the enclave VM, phase by phase, beside the same outside. Ratios only.

The guest's CPU is emulated, so its milliseconds say nothing of Nitro hardware. A phase whose ratio
is far from the others' would be one that does something else in there: waits, retries, looks up.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from cold_start import MARKS
from report import Row, figure, main
from vm.ground import Ground
from vm.image import build_image
from vm.machine import Machine
from vm.processes import Processes
from vm.show import Keys, make_keys
from vm.tools import BrokenError, CannotError, find_tools, take_layer

TIMES = 10
STATEMENT = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:*", "Resource": "*"}
POLICY = json.dumps({"Version": "2012-10-17", "Statement": [STATEMENT]})
LAST = "unwrap, output, exit"
OUTSIDE = """
import subprocess, sys, time
start = time.monotonic()
process = subprocess.Popen(
    sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
)
for line in process.stderr:
    print(time.monotonic() - start, line, end="")
code = process.wait()
print(time.monotonic() - start, "end")
sys.exit(code)
"""


def rows() -> list[Row]:
    """Boots the VM, opens one secret in it and outside, in turn."""
    with tempfile.TemporaryDirectory(prefix="kmstool-vm-") as name:
        folder = Path(name)
        tools, layer = find_tools(), take_layer(folder)
        processes = Processes(folder)
        ground, machine = Ground(folder, processes), Machine(folder, processes)
        try:
            ground.start_emulator()
            keys = make_keys(ground, folder)
            image = build_image(tools, layer, ground.given, folder)
            # For any enclave: outside, it is the emulator's own that attests.
            ground.kms().put_key_policy(
                KeyId=keys.symmetric, Policy=POLICY, BypassPolicyLockoutSafetyCheck=True
            )
            ground.start_parents(machine, [keys.symmetric])
            machine.boot(tools, image, ground.chain)
            (folder / "secret.enc").write_bytes(keys.secret)
            return compare(machine, ground, keys, folder / "secret.enc")
        finally:
            processes.stop_all()


def compare(machine: Machine, ground: Ground, keys: Keys, secret: Path) -> list[Row]:
    """Medians of each phase inside and outside, and what one is of the other."""
    options = ["decrypt", "--verbose", "--key-id", keys.symmetric, "--input", "raw"]
    spent: dict[str, tuple[list[float], list[float]]] = {
        phase: ([], []) for phase in [*(phase for _, phase in MARKS), LAST, "all"]
    }
    for _ in range(TIMES + 1):
        ran = machine.kmstool(*options, stdin=keys.secret)
        inside = [*ran.lines, (ran.seconds, "end")]
        done = subprocess.run(
            [sys.executable, "-c", OUTSIDE, "kmstool", *options, str(secret)],
            env=ground.environ(),
            capture_output=True,
            text=True,
            check=False,
        )
        outside = [line.split(" ", 1) for line in done.stdout.splitlines()]
        if ran.code or done.returncode:
            raise BrokenError(f"decrypt failed: {ran.stderr} {done.stdout}")
        pairs = (inside, [(float(seconds), line) for seconds, line in outside])
        for side, lines in enumerate(pairs):
            for phase, seconds in cut(lines).items():
                spent[phase][side].append(seconds)
    result = []
    for phase, sides in spent.items():
        vm, host = (statistics.median(values[1:]) for values in sides)  # the first warms up
        result.append(figure(f"{phase}: in the VM", vm * 1000, "ms"))
        result.append(figure(f"{phase}: outside", host * 1000, "ms"))
        result.append(figure(f"{phase}: ratio", vm / host, "x"))
    return result


def cut(lines: list[tuple[float, str]]) -> dict[str, float]:
    """The phases of one run by its trace lines."""
    found, before, marks = {}, 0.0, list(MARKS)
    for seconds, line in lines:
        if marks and marks[0][0] in line:
            found[marks.pop(0)[1]] = seconds - before
            before = seconds
    if marks:
        raise BrokenError(f"no trace line {marks[0][0]!r} came")
    return {**found, LAST: lines[-1][0] - before, "all": lines[-1][0]}


if __name__ == "__main__":
    try:
        sys.exit(main("kmstool decrypt in the enclave VM and outside", rows))
    except (CannotError, BrokenError) as error:
        sys.exit(f"vm-start: {error}")
