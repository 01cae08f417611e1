"""The relay's decisions, with botocore's client replaced: what it asks, what it hands back."""

import base64
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
)

from kmstool.arn import parse_key_arn
from kmstool.errors import CredentialsError, InputError, SettingError
from kmstool.parent.relay import Relay, kms_clients
from kmstool.protocol import Recipient, build_decrypt, build_derive_shared_secret

ARN = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
OTHER = ARN.replace("1234abcd", "00000000")
ELSEWHERE = ARN.replace("eu-west-1", "us-east-1")
RECIPIENT = Recipient(attestation_document=b"document")
ANSWER: dict[str, Any] = {
    "KeyId": ARN,
    "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
    "KeyMaterialId": "a" * 64,
    "CiphertextForRecipient": b"cms",
    "ResponseMetadata": {"HTTPStatusCode": 200},
}


class Client:
    """What the relay uses of botocore's client."""

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def decrypt(self, **parameters: Any) -> Any:
        return self._call("decrypt", parameters)

    def derive_shared_secret(self, **parameters: Any) -> Any:
        return self._call("derive_shared_secret", parameters)

    def _call(self, name: str, parameters: dict[str, Any]) -> Any:
        self.calls.append((name, parameters))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def request(arn: str = ARN, operation: str = "Decrypt") -> dict[str, object]:
    body = (
        build_decrypt(ciphertext_blob=b"c", key_id=arn, recipient=RECIPIENT)
        if operation == "Decrypt"
        else build_derive_shared_secret(key_id=arn, public_key=b"p", recipient=RECIPIENT)
    )
    return {
        "Version": 1,
        "Request": "Kms",
        "Operation": operation,
        "Region": arn.split(":")[3],
        "Parameters": json.loads(body),
    }


def ask(outcome: Any, message: dict[str, object] | None = None) -> tuple[Any, str, Client]:
    client = Client(outcome)
    relay = Relay([parse_key_arn(ARN)], lambda _region: client, clock=iter([1.0, 1.034]).__next__)
    frame, words = relay(message or request())
    return json.loads(frame[4:]), words, client


def test_decrypt_is_called_and_its_answer_handed_back() -> None:
    answer, words, client = ask(ANSWER)
    ((name, parameters),) = client.calls
    assert name == "decrypt"
    assert parameters["Recipient"]["AttestationDocument"] == b"document"
    assert answer == {
        "Version": 1,
        "Answer": {
            "KeyId": ARN,
            "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
            "KeyMaterialId": "a" * 64,
            "CiphertextForRecipient": base64.b64encode(b"cms").decode(),
        },
    }
    assert words == f"Decrypt {ARN}: answered, 34 ms"


def test_derive_shared_secret_is_called() -> None:
    kms = {"KeyId": ARN, "KeyAgreementAlgorithm": "ECDH", "KeyOrigin": "AWS_KMS"}
    answer, words, client = ask(
        {**kms, "CiphertextForRecipient": b"cms", "SharedSecret": b""},
        request(operation="DeriveSharedSecret"),
    )
    assert client.calls[0][0] == "derive_shared_secret"
    assert answer["Answer"] == kms | {"CiphertextForRecipient": "Y21z"}
    assert words.startswith("DeriveSharedSecret")


def test_a_key_that_is_not_on_the_list_is_not_asked_for() -> None:
    for arn in (OTHER, ELSEWHERE):
        answer, words, client = ask(ANSWER, request(arn))
        assert answer["Error"]["Code"] == "Refused"
        assert words.endswith("refused: not allowed with --allow-key")
        assert client.calls == []


def test_a_request_that_is_none_is_not_asked_for() -> None:
    with pytest.raises(InputError):
        ask(ANSWER, {"Version": 1, "Request": "Credentials"})


@pytest.mark.parametrize("member", ["Plaintext", "SharedSecret"])
def test_an_answer_with_a_plaintext_is_not_passed_on(member: str) -> None:
    for answer_of_kms in (
        ANSWER | {member: b"the secret"},
        {"KeyId": ARN, member: b"the secret"},
    ):
        answer, words, _ = ask(answer_of_kms)
        assert answer["Error"]["Code"] == "Refused"
        assert "ignored Recipient" in answer["Error"]["Message"]
        for text in (json.dumps(answer), words):
            assert "the secret" not in text
            assert base64.b64encode(b"the secret").decode() not in text


@pytest.mark.parametrize("value", [None, "x"])
def test_an_answer_without_a_ciphertext_is_an_error(value: object) -> None:
    answer, words, _ = ask(ANSWER | {"CiphertextForRecipient": value})
    assert answer["Error"]["Code"] == "InternalError"
    assert "without CiphertextForRecipient" in words


def refused(code: str, message: str = "no", **metadata: Any) -> ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": 400, "RequestId": "1-a"} | metadata,
    }
    return ClientError(response, "Decrypt")


def test_a_refusal_of_kms_is_handed_back() -> None:
    answer, words, _ = ask(refused("AccessDeniedException"))
    assert answer["KmsError"] == {
        "Status": 400,
        "Code": "AccessDeniedException",
        "Message": "no",
        "RequestId": "1-a",
    }
    assert "KMS refused: AccessDeniedException" in words


def test_a_long_message_of_kms_fits_the_frame() -> None:
    answer, _, _ = ask(refused("ValidationException", "é" * 100_000))
    assert len(answer["KmsError"]["Message"]) == 1000


@pytest.mark.parametrize("code", ["SignatureDoesNotMatch", "InvalidSignatureException"])
def test_what_kms_says_of_a_signature_stays_on_the_parent(code: str) -> None:
    """AWS' message is the canonical request, with the session token among its headers."""
    answer, words, _ = ask(refused(code, "x-amz-security-token:SECRET"))
    assert "SECRET" not in json.dumps(answer) + words
    assert answer["KmsError"]["Code"] == code


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NoCredentialsError(), "no credentials"),
        (EndpointConnectionError(endpoint_url="https://secret.example"), "could not reach KMS"),
        (ConnectTimeoutError(endpoint_url="https://secret.example"), "could not reach KMS"),
    ],
)
def test_the_relay_s_own_trouble_may_pass(error: Exception, said: str) -> None:
    answer, words, _ = ask(error)
    assert answer["Error"]["Code"] == "NotAvailable"
    assert said in answer["Error"]["Message"]
    assert type(error).__name__ in words
    assert "secret.example" not in json.dumps(answer) + words


def test_a_client_is_made_once_for_each_region_of_a_key() -> None:
    made: list[str] = []

    def client_for(region: str) -> Client:
        made.append(region)
        return Client(ANSWER)

    relay = Relay([parse_key_arn(ARN), parse_key_arn(ELSEWHERE)], client_for)
    for arn in (ARN, ELSEWHERE, ARN, ELSEWHERE):
        relay(request(arn))
    assert made == ["eu-west-1", "us-east-1"]


def test_a_relay_without_keys_is_a_mistake() -> None:
    with pytest.raises(SettingError, match="no key"):
        Relay([], lambda _region: None)


def test_clients_are_botocore_s_with_one_attempt_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    client = kms_clients("https://localhost:1")("eu-west-1")
    try:
        assert client.meta.endpoint_url == "https://localhost:1"
        assert client.meta.config.retries["total_max_attempts"] == 1
        assert client.meta.region_name == "eu-west-1"
    finally:
        client.close()
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "https://localhost:2")
    client = kms_clients()("eu-west-1")
    client.close()
    assert client.meta.endpoint_url == "https://localhost:2"


def test_without_credentials_it_says_so_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(CredentialsError, match="no credentials"):
        kms_clients()


def test_what_botocore_raises_over_credentials_is_no_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "misspelt")
    with pytest.raises(CredentialsError, match=r"get credentials \(ProfileNotFound\)") as caught:
        kms_clients()
    assert caught.value.__context__ is None  # it may quote an answer


@pytest.mark.parametrize("url", ["kms", "ftp://a", "http://a:b", "https://a b", "https://", ""])
def test_an_endpoint_that_is_no_url_is_a_mistake(url: str) -> None:
    with pytest.raises(SettingError, match="is not a URL"):
        kms_clients(url)


def test_without_botocore_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def without(name: str) -> Any:
        if name.startswith("botocore"):
            raise ModuleNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(SettingError, match="needs botocore") as caught:
        kms_clients()
    assert "pip install" in str(caught.value.hint)


def test_the_module_does_not_import_botocore() -> None:
    """`kmstool parent --help` must not wait for it."""
    code = "import sys, kmstool.parent.relay; print('botocore' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b"False\n"
