"""Runs fuzz targets under atheris, each in a process of its own, two at a time.

A target is tests/fuzz/fuzz_NAME.py with `target(data: bytes) -> None`, which may raise nothing, and
`SEEDS`, valid inputs to start from.
"""

import argparse
import importlib.util
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/fuzz")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--seconds", type=int, default=600, help="for each target")
    parser.add_argument("--quiet", action="store_true", help="print findings only")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        return run_inside(options.one, options.seconds)

    known = sorted(path.stem.removeprefix("fuzz_") for path in HERE.glob("fuzz_*.py"))
    unknown = set(options.names) - set(known)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda n: run_target(n, options.seconds), options.names or known))
    failed = [name for name, code, _log in outcomes if code]
    for name, code, log in outcomes:
        runs = re.findall(r"stat::number_of_executed_units:\s+(\d+)", log)
        if code:
            print(log, file=sys.stderr)
        if code or not runs:
            failed = sorted({*failed, name})
            print(f"{name}: FAILED", file=sys.stderr)
        elif not options.quiet:
            print(f"{name}: {int(runs[0]):,} inputs, no finding")
    if not failed and not options.quiet:
        print(f"{len(outcomes)} targets, {options.seconds} s each, no finding")
    return 1 if failed else 0


def run_target(name: str, seconds: int) -> tuple[str, int, str]:
    done = subprocess.run(
        [sys.executable, __file__, "--one", name, "--seconds", str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    return name, done.returncode, done.stdout


def run_inside(name: str, seconds: int) -> int:
    import atheris  # noqa: PLC0415

    sys.path.insert(0, str(HERE.parent))
    with atheris.instrument_imports(include=["kmstool"]):
        spec = importlib.util.spec_from_file_location(f"fuzz_{name}", HERE / f"fuzz_{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(module.SEEDS):
            module.target(seed)
            (Path(corpus) / f"seed-{number}").write_bytes(seed)
        longest = max((len(seed) for seed in module.SEEDS), default=4096)
        atheris.Setup(
            [
                sys.argv[0],
                corpus,
                f"-max_total_time={seconds}",
                f"-max_len={2 * longest + 64}",
                f"-artifact_prefix=crash-{name}-",
                "-print_final_stats=1",
                "-timeout=10",
                "-rss_limit_mb=2048",
            ],
            module.target,
        )
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
