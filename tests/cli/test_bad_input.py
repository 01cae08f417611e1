"""The table of bad input, first half: what kmstool is given. Each row is a whole process.

`support/processes.py` checks of every run: nothing on stdout, no secret at any verbosity, no
traceback, no temporary file.
"""

import base64
import socket
from pathlib import Path

import pytest
from support.bent_kms import KEY_ARN
from support.ground import Ground
from support.processes import InProcess, run_kmstool

NO_NSM = pytest.mark.skipif(Path("/dev/nsm").exists(), reason="this machine is an enclave")


@pytest.mark.parametrize(
    ("stdin", "message", "hint"),
    [
        (b"not base64!", "the ciphertext is not base64", "--input raw"),
        (b"QUJD=RA==", "the ciphertext is not base64", "--input raw"),
        (b"\x01\x02\xff\xfe", "the ciphertext is not base64", "--input raw"),
        (b"", "the ciphertext is empty", "pipe the data to stdin"),
        (b" \n", "the ciphertext is empty", "pipe the data to stdin"),
        (base64.b64encode(bytes(6145)), "6145", "6144"),
        (b"A" * 1_100_000, "the ciphertext is longer than 1048576 bytes", "the file"),
    ],
)
def test_ciphertext(ground: Ground, stdin: bytes, message: str, hint: str) -> None:
    done = ground.run("decrypt", stdin=stdin)
    assert done.code == 3, done.stderr
    assert message in done.error
    assert hint in done.stderr
    assert ground.server.connections == 0


def test_wrapped_base64_is_base64(ground: Ground, quick_key: None, in_process: InProcess) -> None:
    Path(ground.work, "in").write_bytes(base64.encodebytes(bytes(100)))
    assert in_process("decrypt", "in", env=ground.env).code == 0


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (("--any-key", "--region", "mars-north-1"), "'mars-north-1'", "region"),
        (("--any-key", "--region", "../x"), "'../x'", ""),
        (("--key-id", "arn:aws:kms:eu-west-1:12:key/x"), "", "arn:"),
        (("--key-id", "alias/database"), "alias", ""),
        (("--key-id", "1234abcd-12ab-34cd-56ef-1234567890ab"), "", "arn:"),
        (("--region", "us-east-1"), "'us-east-1'", "--region"),
        (("--via", "relais"), "'relais'", "direct"),
        (("--via", "direct=http://x"), "http://x", "vsock://"),
        (("--via", "direct=vsock://3"), "vsock://3", ""),
        (("--host", "https://kms.example"), "https://kms.example", ""),
        (("--roots", "missing.pem"), "'missing.pem' could not be read: No such file", ""),
        (("--roots", "."), "'.' could not be read: Is a directory", ""),
        (("--user-data", "file:/dev/zero"), "'/dev/zero' is longer than", ""),
        (("--nonce", "hex:00"), "1 byte", "16"),
        (("--nonce", "00112233445566778899"), "--nonce", "hex:00FF"),
        (("--user-data", "hex:0g"), "0g", ""),
        (("--encryption-context", "novalue"), "novalue", ""),
        (("--encryption-context", "a=1", "--encryption-context", "a=2"), "twice", ""),
        (("--timeout", "0"), "--timeout", ""),
        (("--timeout", "nan"), "--timeout", ""),
        (("--format", "pem"), "pem", ""),
        (("--allow-caveat", "no-such"), "'no-such'", "simulated-nsm"),
        (("--any-key", "--key-id", KEY_ARN), "exclude each other", "--help"),
        (("--kye-id", KEY_ARN), "--kye-id", "--key-id"),
        (("a", "b"), "extra argument", "--help"),
    ],
)
def test_settings(
    ground: Ground, in_process: InProcess, arguments: tuple[str, ...], message: str, hint: str
) -> None:
    Path(ground.work, "-").write_bytes(b"AAAA")
    if "--any-key" in arguments and "--key-id" not in arguments:
        arguments = (*arguments, "-")
    source = () if arguments[0] == "a" else ("in",)
    Path(ground.work, "in").write_bytes(b"AAAA")
    done = in_process("decrypt", *source, *[a for a in arguments if a != "-"], env=ground.env)
    assert done.code == 2, done.stderr
    assert message in done.error, done.stderr
    assert hint in done.stderr, done.stderr
    assert done.error[0].islower() or not done.error[0].isalpha()
    assert not done.error.endswith(".")
    assert ground.server.connections == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("generate-data-key", "--key-spec", "AES_256", "--number-of-bytes", "3"), "exclude"),
        (("generate-data-key", "--format", "raw"), "--ciphertext-out"),
        (("generate-data-key", "-o", "x", "--ciphertext-out", "x"), "two results"),
        (("generate-data-key", "--ciphertext-out", "-"), "two results"),
        (("generate-data-key", "-o", "out", "--ciphertext-out", "./out"), "two results"),
        (("generate-data-key", "-o", "/dev/stdout", "--ciphertext-out", "-"), "two results"),
        (("generate-data-key-pair",), "--key-pair-spec', choose from: RSA_2048, RSA_3072, "),
        (("generate-random", "0"), "0"),
        (("generate-random", "16"), "region"),
        (("derive-shared-secret",), "--public-key"),
        (
            ("derive-shared-secret", "--public-key", "p", "--raw-secret", "--length", "1"),
            "takes no",
        ),
        (("decryptt",), "decryptt"),
        (("--frobnicate",), "--frobnicate"),
    ],
)
def test_usage(
    ground: Ground, in_process: InProcess, arguments: tuple[str, ...], message: str
) -> None:
    done = in_process(*arguments, env=ground.env)
    assert done.code == 2, done.stderr
    assert message in done.error


def test_no_key_was_named(in_process: InProcess) -> None:
    done = in_process("decrypt")
    assert done.code == 2
    assert "--key-id ARN or KMSTOOL_KEY_ID" in done.error


@pytest.mark.parametrize("row", ["region", "arn"])
def test_settings_as_whole_processes(ground: Ground, row: str) -> None:
    arguments = {
        "region": ("--any-key", "--region", "mars-north-1"),
        "arn": ("--key-id", "arn:aws:kms:eu-west-1:12:key/x"),
    }[row]
    done = ground.run("decrypt", *arguments)
    assert done.code == 2, done.stderr
    assert done.hint


@NO_NSM
def test_no_nsm(work: Path) -> None:
    done = run_kmstool("decrypt", "--verbose", "--key-id", KEY_ARN, directory=work, stdin=b"AAAA")
    assert done.code == 4
    assert done.error == "there is no /dev/nsm"
    assert "Nitro Enclave" in done.hint


def test_nsm_error(ground: Ground) -> None:
    ground.name_kms(ground.server.address, nsm="failing.sock")
    done = ground.run("decrypt")
    assert done.code == 4, done.stderr
    assert "InternalError" in done.error


def test_nsm_is_gone(ground: Ground) -> None:
    ground.name_kms(ground.server.address, nsm="missing.sock")
    done = ground.run("decrypt")
    assert done.code == 4, done.stderr


def test_emulator_directory_is_wrong(ground: Ground) -> None:
    done = ground.run("decrypt", env={"KMSTOOL_EMULATOR": "/nonexistent"})
    assert done.code == 2, done.stderr
    assert "KMSTOOL_EMULATOR" in done.error


def test_refused_socket(ground: Ground) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    done = ground.run("decrypt", "--via", f"direct=tcp://127.0.0.1:{port}", "--timeout", "3")
    assert done.code == 6, done.stderr
    assert f"tcp://127.0.0.1:{port}" in done.error
    assert done.hint


def test_the_second_address_is_tried(ground: Ground) -> None:
    done = ground.run(
        *("decrypt", "--via", "direct=unix:/nonexistent/socket"),
        *("--via", f"direct={ground.server.address}"),
    )
    assert done.code == 0, done.stderr
    assert "trying the next address" in done.stderr


def test_no_credentials(ground: Ground) -> None:
    done = ground.run("decrypt", "--credentials", "env")
    assert done.code == 5, done.stderr
    assert done.hint


def test_credentials_that_are_none(ground: Ground) -> None:
    Path(ground.work, "c.json").write_text('{"Version": 1, "SecretAccessKey": "x"}')
    done = ground.run("decrypt", "--credentials", "file:c.json")
    assert done.code == 5, done.stderr


@pytest.mark.parametrize(
    ("source", "message"),
    [("missing", "no such file"), (".", "it is a directory"), ("a\udcffb", "")],
)
def test_input_that_cannot_be_read(
    ground: Ground, in_process: InProcess, source: str, message: str
) -> None:
    done = in_process("decrypt", source, env=ground.env)
    assert done.code == 11, done.stderr
    assert message in done.error.lower()
    assert "the ciphertext" in done.hint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"-----BEGIN PRIVATE KEY-----\n", "holds a private key"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "SubjectPublicKeyInfo"),
        (b"", "SubjectPublicKeyInfo"),
    ],
)
def test_public_key(ground: Ground, in_process: InProcess, content: bytes, message: str) -> None:
    Path(ground.work, "p").write_bytes(content)
    done = in_process("derive-shared-secret", "--public-key", "p", env=ground.env)
    assert done.code == 3, done.stderr
    assert message in done.error
