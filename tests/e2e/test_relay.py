"""Setup 1 end to end: kmstool in an enclave, a real relay process, the emulator's KMS."""

import base64
import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.emulator import RunningEmulator, running_emulator
from support.processes import Finished, InProcess, run_kmstool
from support.relays import RelayProcess, is_gone, relay_process

from kmstool.arn import KeyArn, parse_key_arn
from kmstool.enclave.hkdf import derive_key
from kmstool.errors import KmsError, TransportError
from kmstool.framing import build_frame, build_relay_request, read_frame
from kmstool.session import SessionOptions, open_relayed

KEY = os.urandom(32)
POLICY = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:*", "Resource": "*"}
        ],
    }
)


@pytest.fixture(scope="module")
def emulator() -> Iterator[RunningEmulator]:
    with running_emulator() as running:
        yield running


@pytest.fixture(scope="module")
def arn(emulator: RunningEmulator) -> str:
    text: str = emulator.admin_client().create_key(Policy=POLICY)["KeyMetadata"]["Arn"]
    return text


@pytest.fixture(scope="module")
def agreement(emulator: RunningEmulator) -> tuple[str, bytes]:
    kms = emulator.admin_client()
    key = kms.create_key(Policy=POLICY, KeySpec="ECC_NIST_P384", KeyUsage="KEY_AGREEMENT")
    text = key["KeyMetadata"]["Arn"]
    return text, kms.get_public_key(KeyId=text)["PublicKey"]


@pytest.fixture(scope="module")
def relay(
    emulator: RunningEmulator, arn: str, agreement: tuple[str, bytes]
) -> Iterator[RelayProcess]:
    with relay_process(emulator, [arn, agreement[0]]) as running:
        yield running


@pytest.fixture(scope="module")
def sealed(emulator: RunningEmulator, arn: str) -> bytes:
    blob: bytes = emulator.admin_client().encrypt(KeyId=arn, Plaintext=KEY)["CiphertextBlob"]
    return blob


class Enclave:
    """Runs kmstool as the enclave does, over the relay, with no credentials at all."""

    def __init__(self, emulator: RunningEmulator, relay: RelayProcess, directory: Path) -> None:
        self.environ = emulator.kmstool_environ()
        self.address = relay.address
        self.directory = directory

    def __call__(self, *arguments: str, stdin: bytes = b"", **options: Any) -> Finished:
        via = ["--via", f"relay={self.address}"]
        return run_kmstool(
            *arguments, *via, directory=self.directory, env=self.environ, stdin=stdin, **options
        )


@pytest.fixture
def enclave(emulator: RunningEmulator, relay: RelayProcess, tmp_path: Path) -> Enclave:
    return Enclave(emulator, relay, tmp_path)


@pytest.fixture
def run(
    capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> InProcess:
    return InProcess(capfdbinary, monkeypatch, tmp_path)


ACCEPT = "--accept-unauthenticated"


def test_a_key_comes_through_the_relay(
    enclave: Enclave, relay: RelayProcess, arn: str, sealed: bytes
) -> None:
    done = enclave(
        "decrypt", "--key-id", arn, "--input", "raw", "--length", "32", ACCEPT, stdin=sealed
    )
    assert (done.code, done.stdout) == (0, KEY), done.stderr
    assert "kmstool: warning[relayed-answer]: the answer came through the parent" in done.stderr
    assert relay.said(f"unix: Decrypt {arn}: answered, ")


def test_json_holds_the_caveats(enclave: Enclave, arn: str, sealed: bytes) -> None:
    done = enclave(
        "decrypt", "--key-id", arn, "--length", "32", ACCEPT, "--format", "json",
        stdin=base64.b64encode(sealed),
    )  # fmt: skip
    assert done.json["Plaintext"] == base64.b64encode(KEY).decode()
    assert done.json["KeyId"] == arn
    assert [one["code"] for one in done.json["caveats"]] == ["relayed-answer", "simulated-nsm"]


def test_a_shared_secret_comes_through_the_relay(
    enclave: Enclave, agreement: tuple[str, bytes], tmp_path: Path
) -> None:
    arn, public_der = agreement
    ours = ec.generate_private_key(ec.SECP384R1())
    (tmp_path / "peer.pem").write_bytes(
        ours.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    public = serialization.load_der_public_key(public_der)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    secret = ours.exchange(ec.ECDH(), public)
    arguments = ["derive-shared-secret", "--key-id", arn, "--public-key", "peer.pem", ACCEPT]
    done = enclave(*arguments, "--length", "48", "--raw-secret")
    assert (done.code, done.stdout) == (0, secret), done.stderr
    assert "warning[raw-shared-secret]" in done.stderr
    done = enclave(*arguments, "--length", "24", "--info", "utf8:x")
    assert done.stdout == derive_key(secret, length=24, info=b"x"), done.stderr
    done = enclave(*arguments, "--length", "32", "--raw-secret")
    assert (done.code, done.stdout) == (2, b"")
    assert "a raw secret on this curve has 48 bytes" in done.error


def test_a_plaintext_of_another_length_is_told_by_nothing(
    enclave: Enclave, emulator: RunningEmulator, arn: str
) -> None:
    """40 bytes take three blocks as 32 do: random bytes come out, and exit 0."""
    blob = emulator.admin_client().encrypt(KeyId=arn, Plaintext=b"x" * 40)["CiphertextBlob"]
    arguments = ["decrypt", "--key-id", arn, "--input", "raw", "--length", "32", ACCEPT]
    first, second = (enclave(*arguments, stdin=blob) for _ in range(2))
    assert (first.code, len(first.stdout)) == (0, 32)
    assert first.stdout != second.stdout
    assert b"x" * 8 not in first.stdout
    assert first.stderr == second.stderr


def test_a_plaintext_that_cannot_have_the_length_is_an_error(
    enclave: Enclave, arn: str, sealed: bytes
) -> None:
    done = enclave(
        "decrypt", "--key-id", arn, "--input", "raw", "--length", "16", ACCEPT, stdin=sealed
    )
    assert (done.code, done.stdout) == (8, b"")
    assert "encryptedContent has 48 bytes, and a plaintext of 16 takes 32" in done.error


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ([], 2, "the parent may have chosen this secret"),
        (["--length", "32"], 2, "the parent may have chosen this secret"),
        ([ACCEPT], 2, "the length of the secret has to be stated"),
        (["--length", "20", ACCEPT], 2, "'20' is not one of"),
        (["--length", "32", ACCEPT, "--strict"], 9, "[relayed-answer]"),
        (["--length", "32", ACCEPT, "--via", "direct"], 2, "a relay and another way"),
        (["--length", "32", ACCEPT, "--credentials", "env"], 2, "--credentials means nothing"),
        (["--length", "32", ACCEPT, "--host", "x.example"], 2, "--host means nothing"),
        (["--length", "32", ACCEPT, "--fips"], 2, "--fips means nothing"),
        (["--length", "32", ACCEPT, "--roots", "x"], 2, "--roots means nothing"),
        (["--length", "32", ACCEPT, "--dry-run"], 2, "--dry-run does not exist"),
        (["--length", "32", ACCEPT, "--region", "us-east-1"], 2, "the region 'us-east-1'"),
    ],
)
def test_what_is_refused(
    run: InProcess,
    emulator: RunningEmulator,
    arn: str,
    options: list[str],
    code: int,
    said: str,
    tmp_path: Path,
) -> None:
    """Before anything is sent: nobody listens here, and that would be exit code 6."""
    (tmp_path / "secret.enc").write_bytes(b"YQ==")
    done = run(
        "decrypt", "--key-id", arn, "--via", "relay=unix:/nowhere", *options, "secret.enc",
        env=emulator.kmstool_environ(),
    )  # fmt: skip
    assert (done.code, done.stdout) == (code, b"")
    assert said in done.error


def test_any_key_is_refused(enclave: Enclave) -> None:
    done = enclave("decrypt", "--any-key", "--length", "32", ACCEPT, stdin=b"YQ==")
    assert (done.code, done.error) == (2, "--any-key does not exist over a relay")


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate-data-key", "--key-id", "ARN"],
        ["generate-data-key-pair", "--key-id", "ARN", "--key-pair-spec", "ECC_NIST_P256"],
        ["generate-random", "16"],
    ],
)
def test_what_a_relay_could_choose_does_not_exist(
    enclave: Enclave, arn: str, arguments: list[str]
) -> None:
    done = enclave(*[arn if word == "ARN" else word for word in arguments])
    assert (done.code, done.stdout) == (2, b"")
    assert "does not exist over a relay: whoever carries the answer could put" in done.error
    assert "--via direct" in done.hint


@pytest.mark.parametrize("option", [[ACCEPT], ["--length", "32"]])
def test_the_relay_s_options_mean_nothing_without_it(
    emulator: RunningEmulator, arn: str, option: list[str], tmp_path: Path
) -> None:
    done = run_kmstool(
        "decrypt", "--key-id", arn, *option,
        directory=tmp_path, env=emulator.kmstool_environ(), stdin=b"YQ==",
    )  # fmt: skip
    assert done.code == 2
    assert "is for --via relay" in done.error


def test_the_relay_is_never_taken_from_the_environment(
    emulator: RunningEmulator, relay: RelayProcess, arn: str, sealed: bytes, tmp_path: Path
) -> None:
    before = len(relay.lines)
    environ = emulator.kmstool_environ() | {"KMSTOOL_RELAY": relay.address}
    arguments = ["decrypt", "--key-id", arn, "--input", "raw"]
    done = run_kmstool(*arguments, directory=tmp_path, env=environ, stdin=sealed)
    assert (done.code, done.stdout) == (0, KEY)
    assert "relayed-answer" not in done.stderr
    assert len(relay.lines) == before
    done = run_kmstool(
        *arguments, "--via", "relay", "--length", "32", ACCEPT,
        directory=tmp_path, env=environ, stdin=sealed,
    )  # fmt: skip
    assert (done.code, done.stdout) == (0, KEY)
    assert relay.said("answered", after=before)


def test_kms_refusal_comes_out_with_its_hint(
    enclave: Enclave, emulator: RunningEmulator, arn: str, sealed: bytes
) -> None:
    done = enclave(
        "decrypt", "--key-id", arn, "--input", "raw", "--length", "32", ACCEPT,
        "--encryption-context", "app=other", stdin=sealed,
    )  # fmt: skip
    assert done.code == 7
    assert "KMS refused Decrypt: InvalidCiphertextException" in done.error
    assert "another encryption context" in done.hint


def test_a_key_that_is_not_allowed(
    enclave: Enclave, relay: RelayProcess, emulator: RunningEmulator
) -> None:
    other = emulator.admin_client().create_key(Policy=POLICY)["KeyMetadata"]["Arn"]
    done = enclave(
        "decrypt", "--key-id", other, "--input", "raw", "--length", "32", ACCEPT, stdin=b"c"
    )
    assert done.code == 6
    assert f"Refused: the key {other} is not on the relay's list" in done.error
    assert relay.said(f"{other}: refused: not allowed with --allow-key")


def test_access_denied_names_what_the_enclave_attests(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    policy = json.loads(POLICY)
    policy["Statement"][0]["Action"] = ["kms:DescribeKey", "kms:PutKeyPolicy"]
    kms = emulator.admin_client()
    arn = kms.create_key(Policy=json.dumps(policy))["KeyMetadata"]["Arn"]
    with relay_process(emulator, [arn]) as relay:
        done = Enclave(emulator, relay, tmp_path)(
            "decrypt", "--key-id", arn, "--input", "raw", "--length", "32", ACCEPT, stdin=b"c"
        )
        assert relay.said("KMS refused: AccessDeniedException")
    assert done.code == 7
    assert "this enclave attests PCR0" in done.hint


def test_a_library_user(
    emulator: RunningEmulator, relay: RelayProcess, arn: str, sealed: bytes
) -> None:
    options = SessionOptions(via=(f"relay={relay.address}",))
    key = parse_key_arn(arn)
    with open_relayed(options, key=key, environ=emulator.kmstool_environ()) as kms:
        results = [kms.decrypt(sealed, key=key, key_length=32) for _ in range(3)]
        revealed = {one.reveal_bytes_the_parent_may_have_chosen() for one in results}
        assert revealed == {KEY}
        with pytest.raises(KmsError, match="InvalidCiphertextException"):
            kms.decrypt(sealed[:-1] + b"\0", key=key, key_length=32)


# --- The process on the parent ------------------------------------------------------------------


def test_its_credentials_are_in_no_core_file(relay: RelayProcess) -> None:
    folder = Path("/proc") / str(relay.process.pid)
    assert (folder / "environ").stat().st_uid == 0  # PR_SET_DUMPABLE 0 gives it to root
    limits = (folder / "limits").read_text() if os.geteuid() == 0 else ""
    assert not limits or re.search(r"Max core file size +0 +0 ", limits)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_and_its_socket_goes(
    emulator: RunningEmulator, arn: str, number: int, code: int
) -> None:
    with relay_process(emulator, [arn]) as relay:
        with socket.socket(socket.AF_UNIX) as idle:
            idle.connect(relay.address.removeprefix("unix:"))
            started = time.monotonic()
            assert relay.end(number) == code
            assert time.monotonic() - started < 4, "it waited for a peer that asks nothing"
        assert is_gone(relay.address)
    assert f"ending on {signal.Signals(number).name}" in "".join(relay.lines)
    assert "Traceback" not in "".join(relay.lines)


def test_the_socket_is_for_its_user_alone_and_a_stale_one_is_replaced(
    emulator: RunningEmulator, arn: str, tmp_path: Path
) -> None:
    path = tmp_path / "relay.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with relay_process(emulator, [arn], "--listen", f"unix:{path}"):
        assert path.stat().st_mode & 0o777 == 0o600
        done = run_kmstool(
            "parent", "relay", "--listen", f"unix:{path}", "--allow-key", arn,
            directory=tmp_path, env=emulator.environment(),
        )  # fmt: skip
        assert done.code == 6
        assert "Address already in use" in done.error


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--listen", "unix:x"], 2, "Missing option '--allow-key'".lower()),
        (["--listen", "unix:x", "--allow-key", "alias/x"], 2, "alias"),
        (["--listen", "vsock://:x", "--allow-key", "ARN"], 2, "port"),
        (["--listen", "unix:x", "--allow-key", "ARN", "--allow-cid", "16"], 2, "no CIDs"),
        (["--listen", "unix:/nonexistent/x", "--allow-key", "ARN"], 6, "cannot listen"),
        (["--listen", "tcp://0.0.0.0:1", "--allow-key", "ARN"], 2, "the network could use its"),
        (["--listen", "unix:x", "--allow-key", "ARN", "--endpoint-url", "kms"], 2, "is not a url"),
    ],
)
def test_what_the_relay_refuses_to_start_with(
    emulator: RunningEmulator, arn: str, options: list[str], code: int, said: str, tmp_path: Path
) -> None:
    done = run_kmstool(
        "parent", "relay", *[arn if word == "ARN" else word for word in options],
        directory=tmp_path, env=emulator.environment(),
    )  # fmt: skip
    assert done.code == code
    assert said in done.error.lower() or said in done.error


def test_without_credentials_it_says_so(arn: str, tmp_path: Path) -> None:
    done = run_kmstool(
        "parent", "relay", "--listen", "unix:x", "--allow-key", arn,
        directory=tmp_path, env={"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.code == 5
    assert done.error == "botocore finds no credentials"


def ask(relay: RelayProcess, data: bytes) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(relay.address.removeprefix("unix:"))
        sock.sendall(data)
        return read_frame(sock.recv)


def test_another_operation_and_a_stripped_recipient_are_refused(
    relay: RelayProcess, arn: str
) -> None:
    key = parse_key_arn(arn)
    for operation, parameters in (
        ("GenerateDataKey", {"KeyId": arn}),
        ("Decrypt", {"KeyId": arn, "CiphertextBlob": "YQ=="}),
        ("PutKeyPolicy", {"KeyId": arn, "Policy": "{}"}),
    ):
        before = len(relay.lines)
        answer = ask(relay, build_relay_request(operation, key.region, parameters))
        assert answer["Error"]["Code"] == "BadRequest", answer
        assert relay.said("refused: ", after=before)


def test_other_protocols_get_an_answer_at_once(relay: RelayProcess) -> None:
    answer = ask(relay, b"GET / HTTP/1.1\r\n\r\n" + b"x" * 100_000)
    assert answer["Error"]["Code"] == "BadRequest"
    assert "1195725856 bytes" in answer["Error"]["Message"]
    assert ask(relay, build_frame({"Version": 1, "Request": "Credentials"}))["Error"]


def test_a_relay_that_is_not_there(emulator: RunningEmulator, arn: str, tmp_path: Path) -> None:
    done = run_kmstool(
        "decrypt", "--key-id", arn, "--via", f"relay=unix:{tmp_path}/none", "--length", "32",
        ACCEPT, directory=tmp_path, env=emulator.kmstool_environ(), stdin=b"YQ==",
    )  # fmt: skip
    assert done.code == 6
    assert "kmstool parent relay" in done.hint


def test_the_parent_s_trouble_is_said_without_secrets(
    emulator: RunningEmulator, arn: str, sealed: bytes
) -> None:
    """The relay signs with a wrong secret: AWS would repeat the session token in its message."""
    secret = "wrong/s3cr3t+Zk81LmQw000000000000000000"
    environ = {"AWS_SECRET_ACCESS_KEY": secret}
    with relay_process(emulator, [arn], environ=environ) as relay:
        options = SessionOptions(via=(f"relay={relay.address}",))
        key: KeyArn = parse_key_arn(arn)
        with (
            open_relayed(options, key=key, environ=emulator.kmstool_environ()) as kms,
            pytest.raises(KmsError, match="the credentials or the clock of the relay") as caught,
        ):
            kms.decrypt(sealed, key=key, key_length=32)
    assert "Signature" in caught.value.code
    assert secret not in "".join(relay.lines)


def test_a_kms_that_cannot_be_reached_is_tried_again(
    emulator: RunningEmulator, arn: str, sealed: bytes
) -> None:
    with relay_process(emulator, [arn], "--endpoint-url", "https://127.0.0.1:1") as relay:
        options = SessionOptions(via=(f"relay={relay.address}",), timeout=3)
        key = parse_key_arn(arn)
        with (
            open_relayed(options, key=key, environ=emulator.kmstool_environ()) as kms,
            pytest.raises(TransportError, match="NotAvailable: the relay could not reach KMS"),
        ):
            kms.decrypt(sealed, key=key, key_length=32)
    assert len([line for line in relay.lines if "could not reach KMS" in line]) > 1
