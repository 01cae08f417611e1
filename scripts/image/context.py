"""What enclave.Dockerfile copies into the image, by its COPY lines; a folder with just that.

    python -m image.context stage FOLDER     copies the sources there, prints the hash of all
    python -m image.context sources          prints the names that are copied

The Dockerfile is the only list: whatever else wants to know what is in the image asks here.
"""

import hashlib
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = "enclave.Dockerfile"
PACKAGE = "kmstool"


def sources(dockerfile: str) -> list[str]:
    """The names in the tree that COPY lines of a Dockerfile take, but for those of other stages."""
    joined = re.sub(r"\\\n", " ", dockerfile)
    names: list[str] = []
    for line in joined.splitlines():
        words = line.split()
        if words[:1] == ["COPY"] and not words[1].startswith("--from"):
            names += [word for word in words[1:-1] if "*" not in word]
    return names


def rooms(dockerfile: str) -> tuple[list[str], list[str]]:
    """Modules (without .py) and folders of kmstool that the image gets, by name."""
    ours = [
        name.removeprefix(f"{PACKAGE}/")
        for name in sources(dockerfile)
        if name.startswith(f"{PACKAGE}/")
    ]
    modules = [name.removesuffix(".py") for name in ours if name.endswith(".py")]
    return modules, [name for name in ours if not name.endswith(".py")]


def files(root: Path) -> list[str]:
    """Every file that a build sees, sorted; bytecode never."""
    found = {DOCKERFILE}
    for name in sources((root / DOCKERFILE).read_text()):
        path = root / name
        inside = path.rglob("*") if path.is_dir() else [path]
        found |= {
            str(item.relative_to(root))
            for item in inside
            if item.is_file() and "__pycache__" not in item.parts
        }
    return sorted(found)


def stage(root: Path, target: Path) -> str:
    """Copies them, modes left to the umask, and returns the SHA-256 over names and contents."""
    digest = hashlib.sha256()
    for name in files(root):
        content = (root / name).read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, target / name)
    return digest.hexdigest()


def main(arguments: list[str]) -> int:
    """The two commands of the module's text."""
    if arguments == ["sources"]:
        print(*sources((ROOT / DOCKERFILE).read_text()), sep="\n")
    else:
        _, target = arguments
        print(stage(ROOT, Path(target)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
