"""The table of bad input, second half: what answers for KMS. Whole processes where that matters.

The hostile server is support/hostile_server.py; what an in-process run proves as well is run here.
"""

import base64
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.loaders import Loader
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.bent_kms import KEY_ARN
from support.ground import Ground
from support.hostile_server import HostileAuthority, kms_answers
from support.processes import PLAINTEXT, InProcess

from kmstool.arn import parse_key_arn
from kmstool.emulator.cms_writer import Shape, write_enveloped_data
from kmstool.errors import TransportError
from kmstool.session import SessionOptions, open_direct

OPERATIONS = {
    "Decrypt": ("decrypt", "in"),
    "DeriveSharedSecret": ("derive-shared-secret", "--public-key", "peer.pem"),
    "GenerateDataKey": ("generate-data-key",),
    "GenerateDataKeyPair": ("generate-data-key-pair", "--key-pair-spec", "RSA_2048"),
    "GenerateRandom": ("generate-random", "16", "--region", "eu-west-1"),
}


def modelled_errors() -> Iterator[tuple[str, str]]:
    """Every error code that botocore's model of KMS lists for the five operations."""
    model = Loader().load_service_model("kms", "service-2")
    for operation in OPERATIONS:
        for error in model["operations"][operation]["errors"]:
            shape = model["shapes"][error["shape"]]
            yield operation, shape.get("error", {}).get("code", error["shape"])


# Those that every AWS service has and no model lists.
COMMON_ERRORS = (
    "AccessDeniedException",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidSignatureException",
    "ThrottlingException",
    "UnrecognizedClientException",
    "ValidationException",
)


@pytest.fixture
def run(ground: Ground, in_process: InProcess, quick_key: None, one_attempt: None) -> Any:
    Path(ground.work, "in").write_bytes(b"AAAA")
    Path(ground.work, "peer.pem").write_bytes(
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )

    def call(*arguments: str) -> Any:
        return in_process(*(arguments or ("decrypt", "in")), "--verbose", env=ground.env)

    return call


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        *modelled_errors(),
        *(("Decrypt", code) for code in COMMON_ERRORS),
    ],
)
def test_400_with_each_code(run: Any, ground: Ground, operation: str, code: str) -> None:
    said = f"kms says\x1b[31m what {code} means"
    ground.kms.script = [(400, {"__type": f"com.amazonaws.kms#{code}", "message": said})]
    done = run(*OPERATIONS[operation])
    assert done.code == 7, done.stderr
    assert code in done.error
    assert "kms says" in done.error
    assert "\x1b" not in done.stderr
    assert "9a1b2c3d-0000-4000-8000-1234567890ab" in done.stderr


def test_400_as_a_whole_process(ground: Ground) -> None:
    ground.kms.script = [(400, {"__type": "AccessDeniedException", "message": "no"})]
    done = ground.run("decrypt")
    assert done.code == 7
    assert "AccessDeniedException" in done.error
    assert "PCR0" in done.hint


def test_access_denied_in_debug_mode_says_so(run: Any, ground: Ground) -> None:
    ground.name_kms(ground.server.address, nsm="debug.sock")
    ground.kms.script = [(400, {"__type": "AccessDeniedException"})]
    done = run()
    assert "debug mode" in done.hint


def test_500_five_times(ground: Ground) -> None:
    ground.kms.script = [(500, {"__type": "KMSInternalException", "message": "oh"})] * 9
    done = ground.run("decrypt")
    assert done.code == 7, done.stderr
    assert ground.server.requests == 5
    assert "KMSInternalException" in done.error
    assert "after 5 attempts" in done.error
    assert "attempt 4 of 5 failed" in done.stderr


def test_500_once_is_retried(ground: Ground) -> None:
    ground.kms.script = [(500, {"__type": "KMSInternalException"})]
    done = ground.run("decrypt")
    assert (done.code, done.stdout) == (0, PLAINTEXT.encode()), done.stderr


@pytest.mark.parametrize(
    ("context", "message", "hint"),
    [
        (lambda ca: ca.context(version=ssl.TLSVersion.TLSv1_2), "TLS 1.3", "forwarder"),
        (lambda _: HostileAuthority().context(), "not among the roots", "roots"),
        (lambda ca: ca.context(expired=True), "expired", "clock"),
        (lambda ca: ca.context("kms.us-east-1.amazonaws.com"), "not for kms.eu-west-1", "--host"),
    ],
)
def test_tls(
    ground: Ground, authority: HostileAuthority, context: Any, message: str, hint: str
) -> None:
    ground.server.context = context(authority)
    done = ground.run("decrypt")
    assert done.code == 6, done.stderr
    assert message in done.error
    assert hint in done.hint
    assert ground.server.requests == 0


def test_a_server_without_tls(run: Any, ground: Ground) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        ground.name_kms(f"tcp://127.0.0.1:{server.getsockname()[1]}")
        done = run()
        thread.join()
    assert done.code == 6, done.stderr
    assert "TLS" in done.error


def test_timeout(ground: Ground) -> None:
    ground.server.hang = True
    done = ground.run("decrypt", "--timeout", "1")
    assert done.code == 6, done.stderr
    assert done.hint


def test_answer_cut_at_every_byte(run: Any, ground: Ground) -> None:
    """Every cut through the client that the CLI uses, every 50th through the CLI itself."""
    whole = kms_answers(ground.kms)
    recorded: list[bytes] = []

    def respond(headers: dict[str, str], body: bytes) -> bytes:
        recorded[:] = recorded or [whole(headers, body)]
        return recorded[0]

    ground.server.respond = respond
    assert run().code == 0
    key = parse_key_arn(KEY_ARN)
    with open_direct(SessionOptions(), key=key, environ=ground.env) as kms:
        for cut in range(len(recorded[0])):
            ground.server.cut = cut
            ground.server.polite = cut % 2 == 0
            with pytest.raises(TransportError):
                kms.decrypt(b"ciphertext", key=key)
            if cut % 50 == 0:
                assert run().code == 6


@pytest.mark.parametrize("cut", [0, 60, 700])
def test_answer_cut_as_a_whole_process(ground: Ground, cut: int) -> None:
    ground.server.cut = cut
    done = ground.run("decrypt")
    assert done.code == 6, done.stderr
    assert "after 5 attempts" in done.error
    assert ground.server.requests == 5


def bend(ground: Ground, **members: Any) -> None:
    """Overwrites members of the answer; None takes one away."""

    def change(answer: dict[str, Any]) -> None:
        for name, value in members.items():
            if value is None:
                answer.pop(name, None)
            else:
                answer[name] = value

    ground.kms.bend = change


OTHER_KEY = KEY_ARN.replace("1234abcd", "9999abcd")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"KeyId": OTHER_KEY}, "KeyId"),
        ({"KeyId": None}, "KeyId"),
        ({"EncryptionAlgorithm": "RSAES_OAEP_SHA_1"}, "EncryptionAlgorithm"),
        ({"Plaintext": base64.b64encode(PLAINTEXT.encode()).decode()}, "Plaintext"),
        (
            {
                "Plaintext": base64.b64encode(PLAINTEXT.encode()).decode(),
                "CiphertextForRecipient": None,
            },
            "Plaintext",
        ),
        ({"CiphertextForRecipient": None}, "CiphertextForRecipient"),
        ({"CiphertextForRecipient": "!"}, "CiphertextForRecipient"),
        ({"CiphertextForRecipient": "AAAA"}, ""),
    ],
)
def test_untrustworthy_answers(
    run: Any, ground: Ground, members: dict[str, Any], message: str
) -> None:
    bend(ground, **members)
    done = run()
    assert done.code == 8, done.stderr
    assert message in done.error


@pytest.mark.parametrize("row", ["key-id", "plaintext", "other-cms"])
def test_untrustworthy_answers_as_whole_processes(ground: Ground, row: str, ready_key: Any) -> None:
    other = write_enveloped_data(
        PLAINTEXT.encode(),
        ready_key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
        shape=Shape.KMS_EXPLICIT,
    )
    members, message = {
        "key-id": ({"KeyId": OTHER_KEY}, OTHER_KEY),
        "plaintext": ({"Plaintext": base64.b64encode(PLAINTEXT.encode()).decode()}, "Plaintext"),
        "other-cms": (
            {"CiphertextForRecipient": base64.b64encode(other).decode()},
            "another recipient key",
        ),
    }[row]
    bend(ground, **members)
    done = ground.run("decrypt")
    assert done.code == 8, done.stderr
    assert message in done.error
    assert base64.b64encode(PLAINTEXT.encode()).decode() not in done.stderr


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"KeyId": 1}', b"\xff"])
def test_answers_that_are_no_json(run: Any, ground: Ground, body: bytes) -> None:
    ground.server.respond = lambda _headers, _body: (
        b"HTTP/1.1 200 OK\r\ncontent-length: " + str(len(body)).encode() + b"\r\n\r\n" + body
    )
    assert run().code == 8


def test_no_answer_is_kept_of_another_request(run: Any, ground: Ground) -> None:
    """An answer to an earlier run, played again: its CMS is for the earlier run's key."""
    recorded = kms_answers(ground.kms)
    first: list[bytes] = []

    def respond(headers: dict[str, str], body: bytes) -> bytes:
        first.append(recorded(headers, body))
        return first[0]

    ground.server.respond = respond
    assert run().code == 0
    # A new process has a new key.
    done = ground.run("decrypt")
    assert done.code == 8, done.stderr
