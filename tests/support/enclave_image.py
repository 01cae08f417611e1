"""The enclave image that `scripts/build-enclave-image` makes, and programs in it, confined.

with layer({"app/entry": …}) as more:             # what an image built on it would add
    Confined(build("shell"), [more]).run("/app/entry")
"""

import contextlib
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_UNREACHABLE = 75  # of scripts/build-enclave-image: what it is built from cannot be had here
_PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True)
class EnclaveImage:
    """What the script left in its folder."""

    folder: Path
    said: str

    @property
    def root(self) -> Path:
        """The root file system, unpacked. Never written to."""
        return self.folder / "rootfs"


@functools.cache
def _run(*options: str) -> tuple[int, str, str]:
    done = subprocess.run(
        ["nice", "-n", "19", str(ROOT / "scripts" / "build-enclave-image"), *options],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def build(target: str, *options: str) -> EnclaveImage:
    """Builds a target, or takes it from the user's cache; skips, but not in CI, without sources."""
    code, stdout, stderr = _run("--target", target, *options)
    if code == _UNREACHABLE and not os.environ.get("CI"):
        pytest.skip(stderr.strip().splitlines()[-1])
    assert code == 0, stderr
    (folder,) = (line.split(" ", 1)[1] for line in stdout.splitlines() if line.startswith("folder"))
    return EnclaveImage(Path(folder), stderr + stdout)


def need_bubblewrap() -> None:
    """Skips without it, but not in CI, where scripts/test installs it."""
    if (shutil.which("bwrap") is None or os.geteuid() != 0) and not os.environ.get("CI"):
        pytest.skip("bubblewrap is not installed, or this is not root")


@contextlib.contextmanager
def layer(files: Mapping[str, bytes | Path]) -> Iterator[Path]:
    """A folder with these files, named from the root; scripts are executable."""
    folder = Path(tempfile.mkdtemp(prefix="kmstool-"))
    try:
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            data = content if isinstance(content, bytes) else content.read_bytes()
            path.write_bytes(data)
            path.chmod(0o755 if data.startswith(b"#!") else 0o644)
        for path in [folder, *folder.rglob("*")]:
            if path.is_dir():
                path.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder)


def transport(image: EnclaveImage) -> dict[str, bytes | Path]:
    """The one file that leads to an emulator, which no image has: for `layer`."""
    (package,) = image.root.glob("usr/local/lib/*/dist-packages/kmstool")
    place = package.relative_to(image.root)
    return {
        str(place / "emulator" / name): ROOT / "kmstool" / "emulator" / name
        for name in ("__init__.py", "nsm_transport.py")
    }


# Root is mounted as nothing but layers to read from: an overlay without an upper folder.
_MOUNT = 'mount -t overlay -o "lowerdir=$1" overlay "$2"; shift 2; exec "$@"'


@dataclass(frozen=True)
class Confined:
    """How to run something in an image: `layers` above its root, folders bound below /run."""

    image: EnclaveImage
    layers: Sequence[Path] = ()
    runs: Mapping[str, Path] | None = None

    @contextlib.contextmanager
    def start(
        self, arguments: Sequence[str], environ: Mapping[str, str] | None = None
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A process with no capability, no new privileges, and a root that nobody can write to."""
        need_bubblewrap()
        folder = Path(tempfile.mkdtemp(prefix="kmstool-"))
        mount = str(folder / "root")
        for name in ("empty", "root"):  # an overlay wants two layers at least
            (folder / name).mkdir()
        lower = ":".join(str(path) for path in (*self.layers, self.image.root, folder / "empty"))
        binds = [
            word
            for name, path in (self.runs or {}).items()
            for word in ("--bind", str(path), f"/run/{name}")
        ]
        settings = {"PATH": _PATH, "HOME": "/run", **(environ or {})}
        names = [word for item in settings.items() for word in ("--setenv", *item)]
        bwrap = [
            "bwrap", "--die-with-parent", "--new-session", "--unshare-pid", "--unshare-ipc",
            "--unshare-user", "--uid", "65534", "--gid", "65534", "--cap-drop", "ALL",
            "--ro-bind", mount, "/", "--proc", "/proc", "--dev", "/dev",
            "--tmpfs", "/run", *binds, "--clearenv", *names, "--chdir", "/", "--",
        ]  # fmt: skip
        process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-euc", _MOUNT, "sh", lower, mount, *bwrap, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            with process:
                try:
                    yield process
                finally:
                    process.kill()
        finally:
            shutil.rmtree(folder)

    def run(
        self, *arguments: str, environ: Mapping[str, str] | None = None, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs it to its end."""
        with self.start(arguments, environ) as process:
            stdout, stderr = process.communicate(stdin, timeout=60)
        return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)


def python(code: str) -> list[str]:
    """The image's own Python, as its programs start it."""
    return ["/usr/bin/python3", "-IB", "-c", code]
