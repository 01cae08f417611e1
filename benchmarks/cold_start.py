"""kmstool decrypt as a whole process, beside benchmarks/straight_line.py, against the emulator."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import Row, at_most, figure, main

HERE = Path(__file__).resolve().parent
PAIRS = 40
SECRET = b"the secret of the cold start benchmark"


def rows() -> list[Row]:
    """Runs itself inside `kmstool emulator run`, which gives the KMS, and collects the figures."""
    if "KMSTOOL_EMULATOR" in os.environ:
        return inside()
    command = ["kmstool", "emulator", "run", "--cms-shape", "primitive", "--"]
    done = subprocess.run(
        [*command, sys.executable, __file__, "--json"], stdout=subprocess.PIPE, check=False
    )
    if not done.stdout:
        sys.exit("the run inside the emulator failed")
    return [Row(**row) for row in json.loads(done.stdout)]


def inside() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        arguments = encrypt(Path(folder))
        ours = [str(Path(sys.executable).with_name("kmstool")), "decrypt", *arguments]
        plain = [sys.executable, str(HERE / "straight_line.py"), *arguments]
        for command in (ours, plain):
            run(command)
        pairs = [
            (run(ours), run(plain)) if number % 2 else (run(plain), run(ours))[::-1]
            for number in range(PAIRS)
        ]
        wall = statistics.median(one.wall for one, _ in pairs)
        plain_wall = statistics.median(two.wall for _, two in pairs)
        memory = statistics.median(one.memory for one, _ in pairs)
        plain_memory = statistics.median(two.memory for _, two in pairs)
        cpu = statistics.median(one.cpu for one, _ in pairs)
        plain_cpu = statistics.median(two.cpu for _, two in pairs)
        return [
            at_most("wall time, ratio of medians", wall / plain_wall, "x", 1.10),
            at_most("peak memory, ratio of medians", memory / plain_memory, "x", 1.15),
            figure("wall time, kmstool", wall * 1000, "ms"),
            figure("wall time, straight line", plain_wall * 1000, "ms"),
            figure("CPU time, kmstool", cpu * 1000, "ms"),
            figure("CPU time, straight line", plain_cpu * 1000, "ms"),
            figure("peak memory, kmstool", memory, "MiB"),
            figure("peak memory, straight line", plain_memory, "MiB"),
            figure("pairs", len(pairs), ""),
            *phases(ours),
        ]


class Run:
    def __init__(self, wall: float, usage: "os.resource.struct_rusage") -> None:  # type: ignore[name-defined]
        self.wall = wall
        self.cpu = usage.ru_utime + usage.ru_stime
        self.memory = usage.ru_maxrss / 1024


def run(command: list[str]) -> Run:
    read, write = os.pipe()
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=write, stderr=subprocess.DEVNULL)
    os.close(write)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    with os.fdopen(read, "rb") as stream:
        output = stream.read()
    if process.returncode != 0 or output != SECRET:
        sys.exit(f"{command[0]} gave {output!r} and exit code {process.returncode}")
    return Run(wall, usage)


# The trace lines of --verbose, by which a process is cut into phases.
MARKS = [
    ("connecting to", "interpreter, imports, options"),
    ("TLSv1.3 to", "TCP and TLS handshake"),
    ("Decrypt: sending", "rest of the key generation, document, signature"),
    ("Decrypt: status", "KMS"),
]


def phases(command: list[str], times: int = 20) -> list[Row]:
    spent: dict[str, list[float]] = {name: [] for _, name in MARKS}
    last = "unwrap, output, exit"
    spent[last] = []
    for _ in range(times):
        started = time.perf_counter()
        process = subprocess.Popen(
            [*command, "--verbose"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        assert process.stderr is not None
        marks = list(MARKS)
        for line in process.stderr:
            if marks and marks[0][0].encode() in line:
                now = time.perf_counter()
                spent[marks.pop(0)[1]].append(now - started)
                started = now
        process.wait()
        spent[last].append(time.perf_counter() - started)
        if marks or process.returncode:
            sys.exit(f"no trace line {marks[:1]} came, exit code {process.returncode}")
    return [
        figure(f"phase: {name}", statistics.median(values) * 1000, "ms")
        for name, values in spent.items()
    ]


# In a process of its own: a child's peak memory counts what its parent had when it was started,
# so this one has to stay smaller than what it measures.
ENCRYPT = """
import base64, json, sys
import botocore.session

statement = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:*", "Resource": "*"}
policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
kms = botocore.session.get_session().create_client("kms")
arn = kms.create_key(Policy=policy)["KeyMetadata"]["Arn"]
blob = kms.encrypt(KeyId=arn, Plaintext=sys.argv[1].encode())["CiphertextBlob"]
print(arn, base64.b64encode(blob).decode())
"""


def encrypt(folder: Path) -> list[str]:
    """Makes a key and a ciphertext of `SECRET`; returns the arguments that open it."""
    command = [sys.executable, "-c", ENCRYPT, SECRET.decode()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    arn, blob = done.stdout.split()
    path = folder / "secret.enc"
    path.write_text(blob)
    return ["--key-id", arn, str(path)]


if __name__ == "__main__":
    sys.exit(main("cold start of kmstool decrypt", rows))
