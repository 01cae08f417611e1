"""The entry program of the VM's image: does what the test on the parent's side asks, over vsock.

It stands beside the shipped layer in the second ramdisk, runs as process 1, and is measured as all
else there is. Of the standard library it uses what the image has: no subprocess. It knows four
requests, a JSON object each behind its length in 4 bytes:

    {"kmstool": [ARGUMENTS], "stdin": BASE64, "files": {NAME: BASE64}}
                          runs kmstool of the layer; where the command talks TLS, `--roots` is typed
                          here: the emulator's CA is in the image, and no variable can put it there
    {"nsm": BASE64, "capacity": N}   one ioctl of /dev/nsm, with these bytes as they are
    {"manifest": true}    SHA-256 of each file of this root file system
    {"facts": true}       kernel, Python, OpenSSL, the source of random numbers, the clock

An image that does what its parent asks is for tests and for nothing else.
"""

import array
import base64
import fcntl
import hashlib
import json
import os
import platform
import socket
import ssl
import stat
import struct
import time
from pathlib import Path
from typing import Any

PORT = 5000
ROOTS = "/entry/emulator-ca.pem"
NITRO_ROOT = "/entry/nitro-root.der"
# The commands that reach KMS by TLS unless they are told to go over a relay.
TLS_COMMANDS = {
    "decrypt", "generate-data-key", "generate-data-key-pair", "generate-random",
    "derive-shared-secret", "open", "seal", "create-key", "doctor",
}  # fmt: skip
WORK = "/run/work"
ENVIRON = {"PATH": "/usr/bin:/bin", "HOME": WORK, "LC_ALL": "C.UTF-8"}
NSM_IOCTL = 0xC0200A00
KMSTOOL = "/usr/local/bin/kmstool"
WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


def main() -> None:
    Path(WORK).mkdir()
    os.chdir(WORK)
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as listener:
        listener.bind((socket.VMADDR_CID_ANY, PORT))
        listener.listen(8)
        print("agent: ready", flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                try:
                    serve(connection)
                except (OSError, ValueError, KeyError) as error:
                    print(f"agent: {error!r}", flush=True)


def serve(connection: socket.socket) -> None:
    with connection.makefile("rwb") as stream:
        while head := stream.read(4):
            request = json.loads(stream.read(int.from_bytes(head, "big")))
            answer = json.dumps(handle(request)).encode()
            stream.write(len(answer).to_bytes(4, "big") + answer)
            stream.flush()


def handle(request: dict[str, Any]) -> dict[str, Any]:
    if "kmstool" in request:
        return run_kmstool(request)
    if "nsm" in request:
        return call_nsm(base64.b64decode(request["nsm"]), request["capacity"])
    if "manifest" in request:
        return {"manifest": manifest()}
    return facts()


def run_kmstool(request: dict[str, Any]) -> dict[str, Any]:
    for name, content in request.get("files", {}).items():
        Path(WORK, name).write_bytes(base64.b64decode(content))
    command, *arguments = request["kmstool"]
    relayed = any(word.startswith("relay") for word in arguments)
    if command in TLS_COMMANDS and not relayed:
        arguments = ["--roots", ROOTS, *arguments]
    if command == "doctor":
        arguments = ["--nitro-root", NITRO_ROOT, *arguments]
    print("agent: kmstool", command, *arguments, flush=True)
    Path(WORK, ".in").write_bytes(base64.b64decode(request.get("stdin", "")))
    reading, writing = os.pipe()
    start = time.monotonic()
    number = os.posix_spawn(
        KMSTOOL,
        [KMSTOOL, command, *arguments],
        ENVIRON,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, f"{WORK}/.in", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, f"{WORK}/.out", WRITE, 0o600),
            (os.POSIX_SPAWN_DUP2, writing, 2),
        ],
    )
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8", errors="replace") as stream:
        lines = [(time.monotonic() - start, line) for line in stream]
    code = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    return {
        "code": code,
        "stdout": base64.b64encode(Path(WORK, ".out").read_bytes()).decode(),
        "stderr": "".join(line for _, line in lines),
        "lines": lines,
        "seconds": time.monotonic() - start,
    }


def call_nsm(request: bytes, capacity: int) -> dict[str, Any]:
    """One ioctl, past all of kmstool's own checks."""
    if not request:
        raise ValueError("an empty request never returns")
    asked, answer = array.array("B", request), array.array("B", bytes(capacity))
    message = bytearray(struct.pack("@PNPN", *asked.buffer_info(), *answer.buffer_info()))
    descriptor = os.open("/dev/nsm", os.O_RDWR)
    try:
        fcntl.ioctl(descriptor, NSM_IOCTL, message)
    except OSError as error:
        return {"errno": error.errno}
    finally:
        os.close(descriptor)
    length = struct.unpack("@PNPN", message)[3]
    return {"answer": base64.b64encode(answer.tobytes()[:length]).decode()}


def manifest() -> dict[str, str]:
    """Of files the hash, of links the target, of folders nothing; with the mode, by path."""
    found = {}
    device = os.lstat("/").st_dev
    folders = ["/"]
    while folders:
        folder = folders.pop()
        for entry in os.scandir(folder):
            status = entry.stat(follow_symlinks=False)
            name = entry.path.removeprefix("/")
            mode = f"{stat.S_IMODE(status.st_mode):04o} "
            if entry.is_symlink():
                found[name] = "link " + str(Path(entry.path).readlink())
            elif entry.is_dir(follow_symlinks=False):
                if status.st_dev == device:
                    folders.append(entry.path)
                    found[name] = mode + "folder"
            else:
                with Path(entry.path).open("rb") as file:
                    found[name] = mode + hashlib.file_digest(file, "sha256").hexdigest()
    return found


def facts() -> dict[str, Any]:
    def read(path: str) -> str:
        try:
            return Path(path).read_text().strip()
        except OSError as error:
            return f"({error.strerror})"

    return {
        "kernel": platform.release(),
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        "rng_current": read("/sys/class/misc/hw_random/rng_current"),
        "clock_source": read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "time": time.time(),
        "command_line": read("/proc/cmdline"),
        "uid": os.getuid(),
    }


if __name__ == "__main__":
    main()
