"""kmstool works in the image, without any capability and with a root that it cannot write to.

Against the emulator, by way of the one file that no image has; and as docs/howto/build-the-image.md
says that it is confined. What is in the image: test_enclave_image.py.
"""

import base64
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
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

COMMANDS = """
    decrypt derive-shared-secret generate-data-key generate-data-key-pair generate-random seal open
    create-key attest verify inspect doctor policy
"""
STATEMENT = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:*", "Resource": "*"}
POLICY = json.dumps({"Version": "2012-10-17", "Statement": [STATEMENT]})
SECRET = "the password is long and random: 9fK2"


@pytest.fixture(scope="module")
def minimal() -> EnclaveImage:
    return build("minimal")


@pytest.fixture(scope="module")
def shell() -> EnclaveImage:
    return build("shell")


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
