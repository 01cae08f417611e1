"""kmstool seal and open beside age on 1 GiB, as whole processes: throughput and peak memory.

The plaintext lies in memory (/dev/shm, where there is room). Twice: with the result discarded
(/dev/null), which is the work itself and has the goals, and into a file beside the plaintext, where
both programs wait for the same kernel. `open` includes the call to KMS, here the emulator's; a file
of kmstool's is flushed before it appears, which age's is not.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import botocore.session
from report import Row, at_least, at_most, figure, main

GIB = 1024**3
SIZE = GIB
ROUNDS = 5
KMSTOOL = str(Path(sys.executable).with_name("kmstool"))
STATEMENT = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:*", "Resource": "*"}
POLICY = json.dumps({"Version": "2012-10-17", "Statement": [STATEMENT]})


def rows() -> list[Row]:
    """Runs itself inside `kmstool emulator run`, which gives the KMS, and collects the figures."""
    if shutil.which("age") is None or shutil.which("age-keygen") is None:
        sys.exit("bench: error: age is missing\nbench: hint: apt-get install age, as root")
    if "KMSTOOL_EMULATOR" in os.environ:
        return inside()
    command = [KMSTOOL, "emulator", "run", "--", sys.executable, __file__, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if not done.stdout:
        sys.exit("the run inside the emulator failed")
    return [Row(**row) for row in json.loads(done.stdout)]


def inside() -> list[Row]:
    with tempfile.TemporaryDirectory(dir=roomy_folder()) as name:
        folder = Path(name)
        programs = prepare(folder)
        discarded = measure(programs, Path("/dev/null"))
        written = measure(programs, folder / "output")
        memory = {verb: peak_memory(programs[verb, "kmstool"]) for verb in ("seal", "open")}
        age_memory = {verb: peak_memory(programs[verb, "age"]) for verb in ("seal", "open")}
    interpreter = peak_memory([sys.executable, "-c", "import time; time.sleep(0.2)"])
    found = []
    for verb in ("seal", "open"):
        ours, age = discarded[verb, "kmstool"], discarded[verb, "age"]
        found += [
            at_least(f"{verb}, discarded: throughput against age", age / ours, "x", 1.3),
            at_most(f"{verb}: peak memory above Python's", memory[verb] - interpreter, "MiB", 32),
            figure(f"{verb}, discarded: kmstool", SIZE / GIB / ours, "GiB/s"),
            figure(f"{verb}, discarded: age", SIZE / GIB / age, "GiB/s"),
        ]
        ours, age = written[verb, "kmstool"], written[verb, "age"]
        found += [
            figure(f"{verb}, to a file: throughput against age", age / ours, "x"),
            figure(f"{verb}, to a file: kmstool", SIZE / GIB / ours, "GiB/s"),
            figure(f"{verb}, to a file: age", SIZE / GIB / age, "GiB/s"),
            figure(f"{verb}: peak memory, kmstool", memory[verb], "MiB"),
            figure(f"{verb}: peak memory, age", age_memory[verb], "MiB"),
        ]
    return [*found, figure("peak memory, Python alone", interpreter, "MiB")]


Programs = dict[tuple[str, str], list[str]]


def prepare(folder: Path) -> Programs:
    """Command lines that lack the name of their output; what they open is sealed here."""
    plain = folder / "plain"
    write_plaintext(plain)
    kms: Any = botocore.session.Session().create_client("kms")
    made = kms.create_key(Policy=POLICY, KeySpec="ECC_NIST_P256", KeyUsage="KEY_AGREEMENT")
    arn = made["KeyMetadata"]["Arn"]
    (folder / "public.der").write_bytes(kms.get_public_key(KeyId=arn)["PublicKey"])
    identity, sealed, encrypted = (str(folder / name) for name in ("identity", "sealed", "aged"))
    subprocess.run(["age-keygen", "-o", identity], check=True, stderr=subprocess.DEVNULL)
    recipient = subprocess.check_output(["age-keygen", "-y", identity], text=True).strip()
    to = ["--to", str(folder / "public.der"), "--key-id", arn]
    programs = {
        ("seal", "kmstool"): [KMSTOOL, "seal", *to, str(plain), "-o"],
        ("open", "kmstool"): [KMSTOOL, "open", "--key-id", arn, sealed, "-o"],
        ("seal", "age"): ["age", "-r", recipient, "-o"],
        ("open", "age"): ["age", "-d", "-i", identity, "-o"],
    }
    run([*programs["seal", "kmstool"], sealed])
    run([*programs["seal", "age"], encrypted, str(plain)])
    for opener in ([*programs["open", "kmstool"], "/dev/stdout"],
                   [*programs["open", "age"], "-", encrypted]):  # fmt: skip
        check_same(opener, plain)
    # age takes its input last.
    for (verb, program), command in programs.items():
        if program == "age":
            source = str(plain) if verb == "seal" else encrypted
            programs[verb, program] = ["sh", "-c", 'exec "$@" "$0"', source, *command]
    return programs


def check_same(opener: list[str], plain: Path) -> None:
    with subprocess.Popen(opener, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        subprocess.run(["cmp", "-", str(plain)], stdin=process.stdout, check=True)


def measure(programs: Programs, output: Path) -> dict[tuple[str, str], float]:
    """Median seconds of each program, all of them by turns."""
    seconds: dict[tuple[str, str], list[float]] = {which: [] for which in programs}
    for number in range(ROUNDS + 1):  # the first warms up
        for which in programs if number % 2 else reversed(programs):
            if output.is_file():
                output.unlink()
            start = time.perf_counter()
            run([*programs[which], str(output)])
            if number:
                seconds[which].append(time.perf_counter() - start)
    return {which: statistics.median(values) for which, values in seconds.items()}


def run(command: list[str]) -> None:
    done = subprocess.run(command, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit(f"{command} failed: {done.stderr.decode()}")


def peak_memory(command: list[str]) -> float:
    """MiB: the process' own high-water mark, read while it runs.

    Not from wait4: there a process begins with the peak of the one that started it.
    """
    if command[0] != sys.executable:
        command = [*command, "/dev/null"]
    peak = 0
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                break
            for line in status.splitlines():
                if line.startswith("VmHWM:"):
                    peak = max(peak, int(line.split()[1]))
            time.sleep(0.01)
    return peak / 1024


def write_plaintext(path: Path) -> None:
    block = os.urandom(1024 * 1024)
    with path.open("wb") as file:
        for _ in range(SIZE // len(block)):
            file.write(block)


def roomy_folder() -> str | None:
    """/dev/shm where it has room for plaintext and results, else the usual place."""
    memory = Path("/dev/shm")
    if memory.is_dir() and shutil.disk_usage(memory).free > 6 * SIZE:
        return str(memory)
    return None


if __name__ == "__main__":
    sys.exit(main("kmstool seal and open, and age, on 1 GiB", rows))
