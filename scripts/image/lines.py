"""How many lines of code stand inside the trust boundary: the table of docs/explanation/image.md.

    python -m image.lines FOLDER [SOURCES]

FOLDER is what scripts/build-enclave-image names: Python is counted in the image itself. SOURCES is
a folder with the unpacked sources of what is compiled (scripts/image/sources fetches them); without
it these rows are left out. Counted are lines that are neither blank nor a comment alone; docstrings
count. What is written in a source and is not compiled in counts as well: it is an upper bound.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

_C = (".c", ".h", ".S", ".s", ".pl", ".inc")
_RUST = (".rs",)
_NOT_BUILT = re.compile(
    r"/(tests?|testing|doc|docs|demos?|fuzz|benches|benchmarks?|apps|Windows|PC|PCbuild|win32|"
    r"contrib|examples|wycheproof|vectors|localedata|manual|po|Lib|oss-fuzz|perf|Doc|Mac|iOS|Android)/"
)


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    what: str
    language: str
    lines: int


def python_rows(root: Path) -> list[Row]:
    """kmstool by room, the three packages, the library: as they are in the image."""
    (packages,) = root.glob("usr/local/lib/python3.*/dist-packages")
    (library,) = root.glob("usr/lib/python3.*")
    ours = packages / "kmstool"
    rooms = sorted(path for path in ours.iterdir() if path.is_dir() and path.name != "__pycache__")
    rows = [Row(f"kmstool, `{room.name}/`", "Python", count(room, (".py",))) for room in rooms]
    rows = [row for row in rows if row.lines > 100]
    top = count(ours, (".py",)) - sum(row.lines for row in rows)
    rows.insert(0, Row("kmstool, the files beside the rooms", "Python", top))
    for name in ("click", "cryptography", "cbor2", "cffi", "pycparser"):
        rows.append(Row(name, "Python", count(packages / name, (".py",))))
    return [
        *rows,
        Row("Python's library, what is in the image", "Python", count(library, (".py",))),
    ]


def compiled_rows(sources: Path) -> list[Row]:
    """A folder for each: its name, and what its language is by what there is more of."""
    rows = []
    for folder in sorted(path for path in sources.iterdir() if path.is_dir()):
        rust, c = count(folder, _RUST), count(folder, _C)
        language, lines = ("Rust", rust) if rust > c else ("C", c)
        rows.append(Row(folder.name, language, lines))
    return rows


def count(folder: Path, suffixes: tuple[str, ...]) -> int:
    """Lines with code in files below a folder."""
    return sum(
        count_text(path.read_text("utf-8", "replace"), path.suffix)
        for path in folder.rglob("*")
        if path.is_file()
        and path.suffix in suffixes
        and not _NOT_BUILT.search(f"/{path.relative_to(folder)}")
    )


def count_text(text: str, suffix: str) -> int:
    """Lines of one file that are neither blank nor a comment alone."""
    if suffix in (".py", ".pl"):
        return sum(1 for line in text.splitlines() if line.strip() and line.strip()[0] != "#")
    text = re.sub(r"/\*.*?\*/", lambda match: "\n" * match[0].count("\n"), text, flags=re.DOTALL)
    return sum(
        1 for line in text.splitlines() if line.strip() and not line.strip().startswith("//")
    )


def rounded(number: int) -> str:
    """Two digits that mean something: 8,432 is `8,400`."""
    digits = len(str(number))
    return f"{round(number, 2 - digits):,}" if digits > 2 else str(number)


def main(arguments: list[str]) -> int:
    """Prints the table."""
    rows = python_rows(Path(arguments[0]) / "rootfs")
    rows += compiled_rows(Path(arguments[1])) if len(arguments) > 1 else []
    print("| what | language | lines |", "|---|---|---|", sep="\n")
    for row in rows:
        print(f"| {row.what} | {row.language} | {rounded(row.lines)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
