"""The image that scripts/build-enclave-image makes: what is in it, and that it works, confined.

It is built once, into the user's cache. Every file is looked at; kmstool runs in it without any
capability and with a root that it cannot write to. Reproducibility: test_enclave_image_check.py.
"""

import _imp
import base64
import csv
import hashlib
import json
import re
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from image.context import rooms
from image.lines import python_rows
from image.modules import CUT, UNUSED
from support.emulator import RunningEmulator, running_emulator
from support.enclave_image import (
    ROOT,
    Confined,
    EnclaveImage,
    build,
    layer,
    need_bubblewrap,
    python,
    transport,
)

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

MOST_BYTES = 60 * 1024 * 1024
SHELLS = {"sh", "bash", "dash", "ash", "zsh", "busybox", "perl", "awk", "gawk", "mawk", "sed"}
INSTALLERS = {"apt", "apt-get", "dpkg", "dpkg-deb", "pip", "pip3", "curl", "wget", "nc", "ssh"}
NEVER = {"emulator", "parent", "pytest_plugin.py", "outside.py", "boto.py"}
COMMANDS = """
    decrypt derive-shared-secret generate-data-key generate-data-key-pair generate-random seal open
    create-key attest verify inspect doctor policy
"""
PACKAGES = ["cbor2", "cffi", "click", "cryptography", "pycparser"]
STATEMENT = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:*", "Resource": "*"}
POLICY = json.dumps({"Version": "2012-10-17", "Statement": [STATEMENT]})
SECRET = "the password is long and random: 9fK2"


@pytest.fixture(scope="module")
def minimal() -> EnclaveImage:
    return build("minimal")


@pytest.fixture(scope="module")
def shell() -> EnclaveImage:
    return build("shell")


def packages_of(image: EnclaveImage) -> Path:
    (found,) = image.root.glob("usr/local/lib/python3.*/dist-packages")
    return found


def files_of(image: EnclaveImage) -> dict[str, Path]:
    return {
        str(path.relative_to(image.root)): path
        for path in image.root.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def entries(image: EnclaveImage) -> list[tarfile.TarInfo]:
    with tarfile.open(image.folder / "rootfs.tar") as archive:
        return archive.getmembers()


def test_it_is_small(minimal: EnclaveImage) -> None:
    figures = json.loads((minimal.folder / "figures.json").read_text())
    sizes = [path.stat().st_size for path in files_of(minimal).values()]
    assert (figures["bytes"], figures["files"]) == (sum(sizes), len(sizes))
    assert figures["bytes"] <= MOST_BYTES


@pytest.mark.parametrize("target", ["minimal", "shell"])
def test_it_has_not_grown_unnoticed(target: str) -> None:
    figures = json.loads((build(target).folder / "figures.json").read_text())
    recorded = json.loads((ROOT / "requirements" / "image-figures.json").read_text())[target]
    hint = "if it is meant, write the new figures into requirements/image-figures.json"
    assert figures["bytes"] <= recorded["bytes"] + 1_000_000, hint
    assert figures["files"] <= recorded["files"] + 40, hint


@pytest.mark.parametrize("target", ["minimal", "shell"])
def test_modes_owners_and_times(target: str) -> None:
    image = build(target)
    epoch = json.loads((image.folder / "figures.json").read_text())["epoch"]
    found = entries(image)
    assert [entry.name for entry in found] == sorted(entry.name for entry in found)
    for entry in found:
        assert entry.isfile() or entry.isdir() or entry.issym(), entry.name
        assert (entry.uid, entry.gid, entry.uname, entry.gname) == (0, 0, "", ""), entry.name
        assert entry.mtime == epoch, entry.name
        if not entry.issym():
            assert entry.mode in {0o755, 0o644}, f"{entry.name} {entry.mode:o}"
            assert not entry.mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH | stat.S_IWGRP)


def test_no_shell_and_nothing_that_installs(minimal: EnclaveImage) -> None:
    names = {Path(entry.name).name for entry in entries(minimal) if not entry.isdir()}
    assert names & (SHELLS | INSTALLERS) == set()
    programs = {
        entry.name for entry in entries(minimal) if "bin/" in entry.name and not entry.isdir()
    }
    assert programs == {
        "usr/bin/python3",
        "usr/bin/python3.13",
        "usr/local/bin/kmstool",
        "usr/local/bin/kmstool_enclave_cli",
    }


def test_shell_is_minimal_and_busybox(minimal: EnclaveImage, shell: EnclaveImage) -> None:
    small, large = files_of(minimal), files_of(shell)
    assert all(large[name].read_bytes() == path.read_bytes() for name, path in small.items())
    more = set(large) - set(small)
    assert {name for name in more if not name.startswith(("usr/share/doc", "var/lib/dpkg"))} == {
        "usr/bin/busybox"
    }
    links = {path.name for path in (shell.root / "usr/bin").iterdir() if path.is_symlink()}
    assert {"sh", "cat", "mount", "setpriv", "su"} <= links
    assert links & INSTALLERS == set()


def test_of_ours_what_the_dockerfile_names(minimal: EnclaveImage) -> None:
    modules, folders = rooms((ROOT / "enclave.Dockerfile").read_text())
    package = packages_of(minimal) / "kmstool"
    there = {path.name for path in package.iterdir() if path.name != "__pycache__"}
    assert there == {f"{name}.py" for name in modules} | set(folders)
    assert there & NEVER == set()
    for path in package.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            ours = ROOT / "kmstool" / path.relative_to(package)
            assert path.read_bytes() == ours.read_bytes(), path


def test_wheels_are_as_their_authors_published_them(minimal: EnclaveImage) -> None:
    packages = packages_of(minimal)
    names = set()
    for record in packages.glob("*.dist-info/RECORD"):
        names.add(record.parent.name.partition("-")[0])
        for name, digest, _ in csv.reader(record.read_text().splitlines()):
            path = packages / name
            if digest and not name.startswith(".."):
                said = base64.urlsafe_b64decode(digest.removeprefix("sha256=") + "=")
                assert hashlib.sha256(path.read_bytes()).digest() == said, name
    assert sorted(names) == PACKAGES
    tops = {path.name for path in packages.iterdir() if not path.name.endswith(".dist-info")}
    binding = next(name for name in tops if name.startswith("_cffi_backend"))
    assert tops == {*PACKAGES, "kmstool", binding}


def test_bytecode_is_that_of_its_source(minimal: EnclaveImage) -> None:
    count = 0
    for path in minimal.root.rglob("*.py"):
        (compiled,) = (path.parent / "__pycache__").glob(f"{path.stem}.cpython-*.pyc")
        head = compiled.read_bytes()[:16]
        key = int.from_bytes(head[:4], "little")
        assert int.from_bytes(head[4:8], "little") == 1, f"{compiled}: not an unchecked hash"
        assert head[8:] == _imp.source_hash(key, path.read_bytes()), compiled
        count += 1
    assert count == len(list(minimal.root.rglob("*.pyc")))
    assert str(minimal.root).encode() not in b"".join(
        path.read_bytes() for path in minimal.root.rglob("*.pyc")
    )


def listed_modules() -> list[str]:
    lines = (ROOT / "requirements" / "python-modules.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_library_is_what_the_list_names(minimal: EnclaveImage) -> None:
    (library,) = minimal.root.glob("usr/lib/python3.*")
    there = set()
    for path in library.rglob("*"):
        if path.suffix == ".py":
            parts = path.relative_to(library).with_suffix("").parts
            there.add(".".join(part for part in parts if part != "__init__"))
        elif path.suffix == ".so":
            there.add(path.name.partition(".")[0])
    assert there == set(listed_modules())
    assert there & set(CUT) == set()
    # What the build found differs from the list: see scripts/image/modules.py.
    assert (minimal.folder / "modules-differ").read_text() == ""


def test_every_module_in_it_can_be_imported(minimal: EnclaveImage) -> None:
    packages = packages_of(minimal)
    names = listed_modules()
    for path in sorted(packages.rglob("*.py")):
        parts = path.relative_to(packages).with_suffix("").parts
        names.append(".".join(part for part in parts if part != "__init__"))
    unused = tuple(UNUSED)
    names = [
        name
        for name in names
        if not any(name == other or name.startswith(f"{other}.") for other in unused)
        and not name.endswith("__main__")
    ]
    code = (
        "import importlib, sys\n"
        "for name in sys.stdin.read().split():\n"
        "    try: importlib.import_module(name)\n"
        "    except ImportError as error: print(name, error)\n"
    )
    done = Confined(minimal).run(*python(code), stdin=" ".join(names).encode())
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode() == ""


def test_no_file_is_without_an_entry_in_the_bill(minimal: EnclaveImage) -> None:
    bill = json.loads((minimal.folder / "sbom.json").read_text())
    listed = {
        file["name"]: file["hashes"][0]["content"]
        for component in bill["components"]
        for file in component["components"]
    }
    there = {
        f"/{name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in files_of(minimal).items()
    }
    assert listed == there
    lines = (minimal.folder / "image.lock").read_text().splitlines()
    hashes = {item["content"] for part in bill["components"] for item in part.get("hashes", [])}
    assert hashes == {line.split()[-1] for line in lines}
    ours = next(part for part in bill["components"] if part["name"] == "kmstool")
    outside = [
        file["name"] for file in ours["components"] if "dist-packages/kmstool/" not in file["name"]
    ]
    assert sorted(outside) == [
        "/etc/group",
        "/etc/passwd",
        "/usr/local/bin/kmstool",
        "/usr/local/bin/kmstool_enclave_cli",
    ]


def test_every_debian_package_has_its_copyright(shell: EnclaveImage) -> None:
    records = shell.root / "var/lib/dpkg/status.d"
    names = [path.name for path in records.iterdir() if not path.name.endswith(".md5sums")]
    assert {"libc6", "libssl3t64", "python3.13-minimal", "busybox-static"} <= set(names)
    for name in names:
        assert (shell.root / "usr/share/doc" / name / "copyright").exists() or name in {
            # Their folder is a link to that of another package of the same source.
            "libgcc-s1",
            "libpython3.13-stdlib",
            "python3.13-minimal",
        }, name


@pytest.fixture(scope="module")
def emulator() -> Iterator[RunningEmulator]:
    with running_emulator() as running:
        yield running


@pytest.fixture(scope="module")
def confined(minimal: EnclaveImage, emulator: RunningEmulator) -> Iterator[Confined]:
    with ExitStack() as stack:
        more = stack.enter_context(layer(transport(minimal)))
        yield Confined(minimal, [more], {"emulator": emulator.directory})


def environ(emulator: RunningEmulator) -> dict[str, str]:
    return emulator.kmstool_environ() | {"KMSTOOL_EMULATOR": "/run/emulator"}


def test_decrypt_without_capabilities_on_a_root_that_cannot_be_written(
    confined: Confined, emulator: RunningEmulator
) -> None:
    kms = emulator.admin_client()
    arn = kms.create_key(Policy=POLICY)["KeyMetadata"]["Arn"]
    blob = kms.encrypt(KeyId=arn, Plaintext=SECRET.encode())["CiphertextBlob"]
    given = base64.b64encode(blob)
    done = confined.run(
        "kmstool", "decrypt", "--key-id", arn, environ=environ(emulator), stdin=given
    )
    assert (done.returncode, done.stdout) == (0, SECRET.encode()), done.stderr
    # And to a file, below the one folder that can be written to.
    output = ("decrypt", "--key-id", arn, "-o", "/run/secret")
    code = (
        "import sys; from kmstool.cli.main import main; code = main(sys.argv[1:]);"
        "print(code, oct(__import__('os').stat('/run/secret').st_mode & 0o777))"
    )
    done = confined.run(*python(code), *output, environ=environ(emulator), stdin=given)
    assert done.stdout.decode().split() == ["0", "0o600"], done.stderr


def test_it_is_confined_as_the_other_tests_say(confined: Confined) -> None:
    code = (
        "import os\n"
        "print(open('/proc/self/status').read())\n"
        "for name in ('/x', '/usr/x', '/tmp/x', '/etc/passwd'):\n"
        "    try: open(name, 'w')\n"
        "    except OSError as error: print(name, error.strerror)\n"
    )
    done = confined.run(*python(code))
    assert done.returncode == 0, done.stderr
    said = done.stdout.decode()
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert re.search(rf"^{name}:\s+0+$", said, re.MULTILINE), said
    assert re.search(r"^NoNewPrivs:\s+1$", said, re.MULTILINE)
    assert said.count("Read-only file system") == 4, said


GIVEN_UP = b"""#!/bin/sh
id -u
grep -E 'CapEff|CapPrm|NoNewPrivs' /proc/self/status
stat -c %U /dev/nsm >/run/owner && cat /run/owner
kmstool --version
touch /x /tmp/x
"""
# What an init has done when it starts an entry point: everything mounted, root, and writable.
INIT = """
mount -t tmpfs tmpfs "$2" && mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" overlay "$2/root"
mount -t tmpfs tmpfs "$2/root/dev" && touch "$2/root/dev/nsm" "$2/root/dev/null"
mount -t proc proc "$2/root/proc"
exec chroot "$2/root" /bin/sh -euc "$3"
"""


def test_a_script_gives_up_what_the_page_says(shell: EnclaveImage, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "howto" / "build-the-image.md").read_text()
    (script,) = re.findall(r"^```sh\n(chown nobody .*?)^```", page, re.MULTILINE | re.DOTALL)
    with layer({"app/entry": GIVEN_UP}) as more:
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-euc", INIT, "sh", f"{more}:{shell.root}", str(tmp_path),
             script],
            env={"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
    assert done.returncode == 1, done.stderr  # touch: the last of all
    assert done.stderr.count("Read-only file system") == 2, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "65534"
    assert [line.split() for line in lines[1:4]] == [
        ["CapPrm:", "0" * 16],
        ["CapEff:", "0" * 16],
        ["NoNewPrivs:", "1"],
    ]
    assert lines[4] == "nobody"
    assert lines[5].startswith("kmstool ")


def test_bubblewrap_as_the_page_has_it(minimal: EnclaveImage) -> None:
    need_bubblewrap()
    page = (ROOT / "docs" / "howto" / "build-the-image.md").read_text()
    (script,) = re.findall(r"^```sh\n(bwrap .*?)^```", page, re.MULTILINE | re.DOTALL)
    script = script.replace("image/rootfs", str(minimal.root))
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("kmstool ")


DOCUMENTED = re.compile(r"^\| (?P<what>[^|]+) \| Python \| (?P<lines>[\d,]+) \|$", re.MULTILINE)


def test_the_table_of_trusted_lines_is_of_this_image(minimal: EnclaveImage) -> None:
    page = (ROOT / "docs" / "explanation" / "image.md").read_text()
    said = {
        match["what"]: int(match["lines"].replace(",", "")) for match in DOCUMENTED.finditer(page)
    }
    counted = {row.what: row.lines for row in python_rows(minimal.root)}
    assert set(said) == set(counted)
    for what, lines in counted.items():
        assert abs(said[what] - lines) <= max(lines / 10, 60), f"{what}: {lines} lines"


def test_its_openssl_offers_the_hybrid_group(minimal: EnclaveImage) -> None:
    code = "import ssl; print(*ssl.OPENSSL_VERSION_INFO[:2])"
    done = Confined(minimal).run(*python(code))
    assert tuple(map(int, done.stdout.split())) >= (3, 5), done.stderr


@pytest.mark.parametrize("command", COMMANDS.split())
def test_every_command_is_there(minimal: EnclaveImage, command: str) -> None:
    done = Confined(minimal).run("kmstool", command, "--help")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("command", ["emulator run -- true", "parent relay --listen unix:x"])
def test_what_is_not_there_says_so(minimal: EnclaveImage, command: str) -> None:
    done = Confined(minimal).run("kmstool", *command.split())
    assert done.returncode == 2, done.stderr
    assert b"kmstool: error:" in done.stderr
    assert b"Traceback" not in done.stderr


def test_without_the_transport_no_variable_leads_to_an_emulator(
    minimal: EnclaveImage, emulator: RunningEmulator
) -> None:
    confined = Confined(minimal, runs={"emulator": emulator.directory})
    arguments = ("kmstool", "generate-random", "8")
    done = confined.run(*arguments, environ=environ(emulator))
    assert done.returncode == 2
    assert b"this installation has no emulator" in done.stderr
