"""Which modules of Python's standard library the image needs, from the code that is in it.

Follows every import statement, also within functions, from the rooms and packages in the image to
the standard library and on through it: more than any run imports, so no error path misses one.
Left out are imports for type checkers, blocks that only run as a program, and what CUT and UNUSED
name, each with its reason. It runs under the image's own Python, in the build, and only reads.

    python3 modules.py ROOMS PACKAGES      prints the names, one a line, sorted
"""

import ast
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

# What is not in the image though a statement names it, and why nothing misses it. A cut module is
# cut for every importer; each import of it stands in a function or a `try`.
CUT = {
    "_aix_support": "another system",
    "_ios_support": "another system",
    "_osx_support": "another system",
    "_pydatetime": "the C module is there",
    "_pydecimal": "the C module is there",
    "_py_abc": "the C module is there",
    "_pyrepl": "the interactive prompt",
    "asyncio": "nothing of ours is asynchronous",
    "bz2": "shutil, for archives",
    "code": "the interactive prompt",
    "concurrent": "nothing of ours uses executors",
    "ctypes._aix": "another system",
    "ctypes.util": "libraries are named, never searched for with a compiler",
    "ctypes.wintypes": "another system",
    "doctest": "tests",
    "getopt": "base64 as a program",
    "getpass": "prompts: no command asks",
    "http": "no HTTP but kmstool/enclave/http.py",
    "importlib.metadata": "click, for versions of packages: it is told ours",
    "importlib.readers": "nobody asks for a package's resources",
    "importlib.resources": "nobody asks for a package's resources",
    "lzma": "shutil, for archives",
    "logging": "hashlib, when an algorithm that every Python has is missing",
    "multiprocessing": "one process",
    "pdb": "a debugger",
    "pickle": "runs what it reads; only tracemalloc's files use it",
    "plistlib": "another system",
    "pprint": "for people at a prompt",
    "pydoc": "for people at a prompt",
    "readline": "the interactive prompt",
    "rlcompleter": "the interactive prompt",
    "runpy": "python -m: the image has one program",
    "sitecustomize": "Debian's hook for its crash reports",
    "subprocess": "no program is started from inside",
    "tarfile": "shutil, for archives",
    "test": "tests",
    "tracemalloc": "a debugger",
    "unittest": "tests",
    "urllib.request": "no HTTP but kmstool/enclave/http.py",
    "webbrowser": "click.launch",
    "xml": "another system",
    "zipfile": "code is imported from folders",
    "zipimport": "code is imported from folders",
}

# Modules of the image that are not followed: they are there because their package is there whole.
UNUSED = {
    "cbor2.tool": "a program of its own",
    "click._termui_impl": "pagers, progress bars and editors: no command uses them",
    "click._winconsole": "another system",
    "click.testing": "tests",
    "cffi": "cryptography needs _cffi_backend alone",
    "pycparser": "cffi as a compiler",
    "kmstool.cli.emulator": "says that the emulator is not there",
    "kmstool.cli.hostile": "says that the emulator is not there",
    "kmstool.cli.parent": "says that the parent's side is not there",
}

# Imported by C code or by name, so no statement shows it.
HIDDEN = (
    "codecs",  # by the interpreter, before anything else
    "encodings.aliases",
    "encodings.ascii",
    "encodings.idna",  # socket and ssl, for names of hosts
    "encodings.latin_1",
    "encodings.utf_8",
    "io",
    "site",
)


def needed(starts: list[tuple[str, Path]], library: Path) -> dict[str, str]:
    """The modules of `library` that `starts` (name, file) need: name to who imported it first."""
    found: dict[str, str] = {}
    queue = [(name, path, True) for name, path in starts]
    queue = [item for item in queue if not _under(item[0], UNUSED)]
    known = {name for name, _ in starts}
    for name in HIDDEN:
        queue += _take(name, "the interpreter", library, found)
    while queue:
        name, path, _ = queue.pop(0)
        if path.suffix != ".py":
            continue
        for wanted in _imports(name, path):
            if wanted in known:
                continue
            queue += _take(wanted, name, library, found)
    return found


def _take(
    name: str, importer: str, library: Path, found: dict[str, str]
) -> list[tuple[str, Path, bool]]:
    """Adds `name` and the packages it is in; returns what has to be read because of it."""
    new = []
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        module = ".".join(parts[:count])
        if module in CUT:
            break
        path = find(module, library)
        if path is None:
            break
        if module not in found:
            found[module] = importer
            new.append((module, path, True))
    return new


def _under(name: str, names: Iterable[str]) -> bool:
    return any(name == other or name.startswith(other + ".") for other in names)


def find(module: str, library: Path) -> Path | None:
    """The file of a module of the standard library; None for a built-in one or another's."""
    base = library.joinpath(*module.split("."))
    for candidate in (base / "__init__.py", base.with_name(base.name + ".py")):
        if candidate.is_file():
            return candidate
    found = sorted((library / "lib-dynload").glob(f"{module}.*.so"))
    return found[0] if found else None


def _imports(name: str, path: Path) -> Iterator[str]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in _statements(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                parts = parts[: len(parts) - node.level + 1]
                base = ".".join([*parts, base] if base else parts)
            yield base
            for alias in node.names:
                yield f"{base}.{alias.name}"


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and _never_here(node.test):
            for other in node.orelse:
                yield other
                yield from _statements(other)
            continue
        yield node
        yield from _statements(node)


def _never_here(test: ast.expr) -> bool:
    """TYPE_CHECKING, typing.TYPE_CHECKING, __name__ == "__main__", sys.platform == "win32"."""
    text = ast.unparse(test)
    return text in {
        "TYPE_CHECKING",
        "t.TYPE_CHECKING",
        "typing.TYPE_CHECKING",
        "__name__ == '__main__'",
        "sys.platform == 'win32'",
        "sys.platform.startswith('win')",
        "os.name == 'nt'",
        "WIN",
    }


def modules_in(folder: Path) -> list[tuple[str, Path]]:
    """Every module below a folder that is on sys.path."""
    result = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        result.append((".".join(parts), path))
    return result


def main(arguments: list[str]) -> int:
    """Prints the list; with `--why` also who imports each."""
    why = "--why" in arguments
    folders = [Path(argument) for argument in arguments if not argument.startswith("--")]
    starts = [item for folder in folders for item in modules_in(folder)]
    library = Path(sysconfig.get_paths()["stdlib"])
    found = needed(starts, library)
    for name in sorted(found):
        print(f"{name}  # {found[name]}" if why else name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
