"""`kmstool seal` on a machine with nothing: no network, no account, no botocore; and its usage.

What is sealed is opened by the library with a local key: tests/e2e/test_sealed_files.py has `open`.
"""

import io
import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from support.births import ACCOUNT, CHAIN, IMAGE, KEY_ARN, birth_certificate
from support.key_holders import LocalHolder
from support.processes import Finished, InProcess, command, environment, run_kmstool
from support.sealed_files import signing_key, stream

from kmstool.arn import ANY_KEY
from kmstool.sealing.files import Expected, open_sealed

ARN = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
OTHER = ARN[:-1] + "c"
SECRET = ec.generate_private_key(ec.SECP384R1())
HOLDER = LocalHolder({ARN: SECRET, OTHER: SECRET})
SIGNER = signing_key("signer")
IMAGE_OPTIONS = [f"--pcr={index}={value.hex()}" for index, value in IMAGE.items()]


def der(key: Any) -> bytes:
    data: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return data


@pytest.fixture
def work(work: Path) -> Path:
    public = SECRET.public_key()
    Path(work, "key.der").write_bytes(der(public))
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    Path(work, "key.pem").write_bytes(pem)
    Path(work, "signer.pem").write_bytes(
        SIGNER.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    Path(work, "plain").write_bytes(b"attack at dawn")
    return work


@pytest.fixture
def run(in_process: InProcess, work: Path) -> InProcess:
    return in_process


def opened(sealed: bytes, **options: Any) -> bytes:
    target = io.BytesIO()
    open_sealed(io.BytesIO(sealed), lambda: target, HOLDER, key=ANY_KEY, **options)
    return target.getvalue()


# --- What it does ------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["key.pem", "key.der"])
def test_a_file_to_stdout(run: InProcess, key: str) -> None:
    done = run("seal", "--to", key, "--key-id", ARN, "plain")
    assert done.code == 0, done.stderr
    assert opened(done.stdout) == b"attack at dawn"
    assert "kmstool: warning[unverified-recipient]: no verified birth cert" in done.stderr


def test_the_warning_comes_before_the_data(work: Path) -> None:
    done = subprocess.run(
        command("seal", "--to", "key.pem", "--key-id", ARN, "plain"),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=work, env=environment(), timeout=60,
        check=True,
    )  # fmt: skip
    assert done.stdout.startswith(b"kmstool: warning[unverified-recipient]")
    assert b"\nkmstool-sealed" in done.stdout


def test_stdin_to_a_file(work: Path) -> None:
    plaintext = stream("large", 3_000_000)
    done = run_kmstool(
        "seal", "--to", "key.pem", "--key-id", ARN, "-o", "out", directory=work, stdin=plaintext
    )
    assert (done.code, done.stdout) == (0, b""), done.stderr
    target = Path(work, "out")
    assert opened(target.read_bytes()) == plaintext
    assert target.stat().st_mode & 0o777 == 0o600


def test_label_counter_signature_and_cipher(run: InProcess) -> None:
    done = run(
        "seal", "--to", "key.pem", "--key-id", ARN, "--label", "ä", "--counter", "3",
        "--sign-with", "signer.pem", "--cipher", "chacha20-poly1305", "plain",
    )  # fmt: skip
    assert done.code == 0, done.stderr
    signer = SIGNER.public_key().public_bytes_raw()
    expected = Expected(signer=signer, label="ä", min_counter=3)
    assert opened(done.stdout, expected=expected) == b"attack at dawn"


def test_the_variable_names_the_key(run: InProcess) -> None:
    done = run("seal", "--to", "key.pem", "plain", env={"KMSTOOL_KEY_ID": ARN})
    assert done.code == 0, done.stderr
    assert ARN.encode() in done.stdout


def test_keys_belong_to_files_in_order(run: InProcess) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    Path("other.der").write_bytes(der(other.public_key()))
    arguments = ("seal", "--to", "key.pem", "--to", "other.der")
    done = run(*arguments, "--key-id", ARN, "--key-id", OTHER, "plain")
    assert opened(done.stdout) == b"attack at dawn"
    swapped = run(*arguments, "--key-id", OTHER, "--key-id", ARN, "plain")
    holder = LocalHolder({ARN: other})
    target = io.BytesIO()
    open_sealed(io.BytesIO(swapped.stdout), lambda: target, holder, key=ANY_KEY)
    assert target.getvalue() == b"attack at dawn"


def test_it_works_without_botocore_and_rich_and_connects_to_nothing(work: Path) -> None:
    before = (
        "import sys, socket; sys.modules.update(dict.fromkeys(('botocore', 'boto3', 'rich')));"
        "socket.socket.connect = None; socket.create_connection = None"
    )
    done = subprocess.run(
        command("seal", "--to", "key.pem", "--key-id", ARN, "plain", before=before),
        capture_output=True,
        cwd=work,
        env=environment({"KMSTOOL_EMULATOR": "/nonexistent"}),
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert opened(done.stdout) == b"attack at dawn"


# --- Birth certificates ------------------------------------------------------------------------


@pytest.fixture
def born(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = birth_certificate(public_key=der(SECRET.public_key()))
    Path(work, "key.cert").write_bytes(certificate)
    monkeypatch.setattr("kmstool.cli.recipients.attestation_root", lambda: (CHAIN.root.der, ()))


@pytest.mark.usefixtures("born")
def test_a_birth_certificate_names_its_key_and_brings_no_caveat(run: InProcess) -> None:
    done = run(
        "seal", "--strict", "--to", "key.cert", "--account", ACCOUNT, *IMAGE_OPTIONS, "plain"
    )
    assert (done.code, done.stderr) == (0, "")
    assert KEY_ARN.encode() in done.stdout
    holder = LocalHolder({KEY_ARN: SECRET})
    target = io.BytesIO()
    open_sealed(io.BytesIO(done.stdout), lambda: target, holder, key=ANY_KEY)
    assert target.getvalue() == b"attack at dawn"


@pytest.mark.usefixtures("born")
def test_a_certificate_and_a_public_key(run: InProcess) -> None:
    done = run(
        "seal", "--to", "key.cert", "--to", "key.pem", "--key-id", OTHER, "--account", ACCOUNT,
        *IMAGE_OPTIONS, "plain",
    )  # fmt: skip
    assert done.code == 0, done.stderr
    assert "warning[unverified-recipient]" in done.stderr
    assert OTHER.encode() in done.stdout


@pytest.mark.usefixtures("born")
@pytest.mark.parametrize("given", [("--account", ACCOUNT), IMAGE_OPTIONS, IMAGE_OPTIONS[1:], ()])
def test_a_certificate_without_image_or_account_is_refused(
    run: InProcess, given: tuple[str, ...]
) -> None:
    done = run("seal", "--to", "key.cert", *given, "plain")
    assert done.code == 2, done.stderr
    assert "a birth certificate needs --account, and PCR0, PCR1 and PCR2" in done.error


@pytest.mark.usefixtures("born")
def test_a_certificate_of_another_image_or_account(run: InProcess) -> None:
    other = IMAGE_OPTIONS[0][:-2] + "99"
    for given in (
        ["--account", "999999999999", *IMAGE_OPTIONS],
        ["--account", ACCOUNT, other, *IMAGE_OPTIONS[1:]],
    ):
        done = run("seal", "--to", "key.cert", *given, "plain")
        assert done.code == 8, done.stderr


def test_a_certificate_under_another_root(run: InProcess) -> None:
    Path("key.cert").write_bytes(birth_certificate(public_key=der(SECRET.public_key())))
    done = run("seal", "--to", "key.cert", "--account", ACCOUNT, *IMAGE_OPTIONS, "plain")
    assert done.code == 8, done.stderr


def test_image_and_account_without_a_certificate(run: InProcess) -> None:
    for given in (("--account", ACCOUNT), IMAGE_OPTIONS):
        done = run("seal", "--to", "key.pem", "--key-id", ARN, *given, "plain")
        assert done.code == 2, done.stderr
        assert "are for a birth certificate" in done.error


# --- Usage and refusals ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plain",), "nobody to seal to"),
        (("--to", "key.pem", "plain"), "each public key of --to needs a --key-id"),
        (("--data-key", "plain"), "--data-key needs one of its own"),
        (("--to", "key.pem", "--data-key", "--key-id", ARN), "--data-key needs one of its own"),
        (("--to", "key.pem", "--key-id", ARN, "--key-id", OTHER), "more --key-id than public keys"),
        (("--to", "key.pem", "--key-id", "alias/x", "plain"), "is an alias"),
        (
            ("--to", "key.pem", "--key-id", ARN, "--encryption-context", "a=b"),
            "--encryption-context is for --data-key",
        ),
        (("--to", "key.pem", "--key-id", ARN, "--outside"), "--outside is for --data-key"),
        (("--to", "key.pem", "--key-id", ARN, "--label", "x" * 257, "plain"), "cannot be sealed"),
        (("--to", "key.pem", "--key-id", ARN, "--counter", str(2**63), "plain"), "cannot be seal"),
        (("--to", "key.pem", "--key-id", ARN, "--counter", "-1", "plain"), "--counter"),
        (("--data-key", "--via", "relay", "--key-id", ARN, "plain"), "the parent chose and knows"),
    ],
)
def test_usage(run: InProcess, arguments: tuple[str, ...], message: str) -> None:
    done = run("seal", *arguments, "-o", "out")
    assert done.code == 2, done.stderr
    assert message in done.error
    assert not Path("out").exists()


@pytest.mark.parametrize("option", ["--to", "--sign-with"])
@pytest.mark.parametrize(
    ("content", "code"), [(b"nonsense", 3), (b"", 3), (b"-----BEGIN PUBLIC KEY-----\n", 3)]
)
def test_files_that_hold_no_key(run: InProcess, option: str, content: bytes, code: int) -> None:
    Path("bad").write_bytes(content)
    done = run("seal", "--to", "key.pem", "--key-id", ARN, option, "bad", "--key-id", OTHER)
    if option == "--sign-with":
        done = run("seal", "--to", "key.pem", "--key-id", ARN, option, "bad", "plain")
    assert done.code == code, done.stderr


def test_other_kinds_of_keys(run: InProcess) -> None:
    rsa = generate_private_key(65537, 2048)
    Path("rsa.der").write_bytes(der(rsa.public_key()))
    done = run("seal", "--to", "rsa.der", "--key-id", ARN, "plain")
    assert (done.code, "not of an elliptic curve" in done.error) == (3, True), done.stderr
    Path("rsa.pem").write_bytes(
        rsa.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    done = run("seal", "--to", "key.pem", "--key-id", ARN, "--sign-with", "rsa.pem", "plain")
    assert (done.code, "another kind than Ed25519" in done.error) == (3, True), done.stderr
    locked = SIGNER.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    Path("locked.pem").write_bytes(locked)
    done = run("seal", "--to", "key.pem", "--key-id", ARN, "--sign-with", "locked.pem", "plain")
    assert (done.code, "under a passphrase" in done.error) == (3, True), done.stderr
    done = run("seal", "--to", "key.pem", "--key-id", ARN, "--sign-with", "key.pem", "plain")
    assert done.code == 3, done.stderr


def test_strict_writes_nothing(run: InProcess) -> None:
    done = run("seal", "--strict", "--to", "key.pem", "--key-id", ARN, "-o", "out", "plain")
    assert done.code == 9, done.stderr
    assert not Path("out").exists()


def test_strict_asks_kms_for_no_data_key_that_it_would_not_use(run: InProcess) -> None:
    """Without the check this would be 4: there is no security module here."""
    done = run(
        "seal", "--strict", "--to", "key.pem", "--key-id", ARN, "--data-key", "--key-id", OTHER,
        "plain",
    )  # fmt: skip
    assert done.code == 9, done.stderr


def test_a_missing_input_leaves_no_output(run: InProcess) -> None:
    done = run("seal", "--to", "key.pem", "--key-id", ARN, "-o", "out", "missing")
    assert done.code == 11, done.stderr
    assert "missing could not be read" in done.error
    assert not Path("out").exists()
    done = run("seal", "--to", "key.pem", "--key-id", ARN, "-o", "out", ".")
    assert done.code == 11, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--to", "-"),
        ("--to", "-", "-"),
        ("--to", "/dev/stdin", "/dev/fd/0"),
        ("--to", "-", "--to", "-", "--key-id", OTHER, "plain"),
        ("--to", "key.der", "--sign-with", "-", "-"),
    ],
)
def test_stdin_is_read_for_one_thing(work: Path, arguments: tuple[str, ...]) -> None:
    """Without the check, what is read second is empty: a sealed file of nothing, with exit 0."""
    given = Path(work, "signer.pem" if "--sign-with" in arguments else "key.pem").read_bytes()
    done = run_kmstool("seal", *arguments, "--key-id", ARN, directory=work, stdin=given)
    assert done.code == 2, done.stderr
    assert "cannot be read from stdin, which had the " in done.error


def test_a_full_disk(run: InProcess) -> None:
    done = run("seal", "--to", "key.pem", "--key-id", ARN, "-o", "/dev/full", "plain")
    assert done.code == 11, done.stderr
    assert "/dev/full could not be written: no space left" in done.error


def test_a_terminal_gets_no_sealed_file(work: Path) -> None:
    done, printed = on_a_terminal(work, "seal", "--to", "key.pem", "--key-id", ARN, "plain")
    assert done.code == 11, done.stderr
    assert "binary, and stdout is a terminal" in done.error
    assert printed == b""


def test_a_terminal_gets_it_by_force(work: Path) -> None:
    arguments = ("seal", "--to", "key.pem", "--key-id", ARN, "-o", "-", "plain")
    done, printed = on_a_terminal(work, *arguments)
    assert done.code == 0, done.stderr
    assert printed.startswith(b"kmstool-sealed")


def on_a_terminal(work: Path, *arguments: str) -> tuple[Finished, bytes]:
    terminal, other = pty.openpty()
    try:
        process = subprocess.run(
            command(*arguments), stdin=subprocess.DEVNULL, stdout=other, stderr=subprocess.PIPE,
            cwd=work, env=environment(), timeout=60, check=False,
        )  # fmt: skip
        os.set_blocking(terminal, False)
        try:
            printed = os.read(terminal, 100_000)
        except BlockingIOError:
            printed = b""
    finally:
        os.close(terminal)
        os.close(other)
    return Finished(process.returncode, b"", process.stderr.decode()), printed


@pytest.mark.parametrize("source", ["-", "large"])
def test_a_signal_leaves_no_file(work: Path, source: str) -> None:
    """A pipe, which the signal finds waiting, and a file, which a thread reads ahead."""
    with Path(work, "large").open("wb") as file:
        file.truncate(1 << 40)
    process = subprocess.Popen(
        command("seal", "--to", "key.pem", "--key-id", ARN, "-o", "out", source),
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=work, env=environment(),
    )  # fmt: skip
    assert process.stdin is not None
    with process:
        if source == "-":
            process.stdin.write(bytes(3_000_000))
            process.stdin.flush()
        for _ in range(500):
            if list(work.glob(".kmstool-*")):
                break
            time.sleep(0.02)
        assert list(work.glob(".kmstool-*"))
        process.terminate()
        _, stderr = process.communicate()
    assert process.returncode == 143, stderr
    assert not list(work.glob(".kmstool-*"))
    assert not Path(work, "out").exists()


# --- The bar -----------------------------------------------------------------------------------


def run_with_bar(work: Path, *, rich: bool, length: int) -> bytes:
    """stderr of a seal whose stderr is a terminal."""
    with Path(work, "large").open("wb") as file:
        file.truncate(length)
    before = "pass" if rich else "import sys; sys.modules['rich'] = None"
    terminal, other = pty.openpty()
    process = subprocess.Popen(
        command("seal", "--to", "key.pem", "--key-id", ARN, "-o", "/dev/null", "large",
                before=before),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=other, cwd=work,
        env=environment({"TERM": "xterm", "COLUMNS": "100"}),
    )  # fmt: skip
    os.close(other)
    seen = b""
    with process:
        while True:
            try:
                piece = os.read(terminal, 65_536)
            except OSError:  # the other side is closed
                break
            if not piece:
                break
            seen += piece
        assert process.wait() == 0, seen
    os.close(terminal)
    return seen


def test_a_large_file_has_a_bar_on_a_terminal_and_needs_none(work: Path) -> None:
    assert b"sealing" in run_with_bar(work, rich=True, length=64 * 1024 * 1024)
    assert b"sealing" not in run_with_bar(work, rich=False, length=64 * 1024 * 1024)
    assert b"sealing" not in run_with_bar(work, rich=True, length=64 * 1024 * 1024 - 1)


def test_rich_is_imported_on_a_terminal_only(work: Path) -> None:
    with Path(work, "large").open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    code = (
        "import sys; from kmstool.cli.main import main; code = main(sys.argv[1:]);"
        "assert 'rich' not in sys.modules; sys.exit(code)"
    )
    arguments = ["seal", "--to", "key.pem", "--key-id", ARN, "-o", "/dev/null", "large"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, cwd=work, check=False
    )
    assert done.returncode == 0, done.stderr
