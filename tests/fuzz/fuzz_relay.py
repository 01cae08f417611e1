"""Fuzzes the relay's messages, as the parent and as the enclave read them."""

import io
import json

from kmstool.errors import InputError, TransportError, UntrustedAnswerError
from kmstool.framing import (
    build_error_answer,
    build_frame,
    build_relay_answer,
    build_relay_refusal,
    build_relay_request,
    parse_relay_answer,
    read_frame,
)
from kmstool.parent.request import parse_relayed_call
from kmstool.protocol import Operation, parse_answer
from kmstool.refusals import parse_error

ARN = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
RECIPIENT = {"KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256", "AttestationDocument": "ZG9j"}
DECRYPT = {
    "CiphertextBlob": "AQID",
    "KeyId": ARN,
    "EncryptionContext": {"app": "web"},
    "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
    "GrantTokens": ["token"],
    "Recipient": RECIPIENT,
}
DERIVE = {
    "KeyId": ARN,
    "KeyAgreementAlgorithm": "ECDH",
    "PublicKey": "MFk=",
    "Recipient": RECIPIENT,
}
ANSWER = {
    "KeyId": ARN,
    "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
    "Plaintext": None,
    "CiphertextForRecipient": "MIA=",
}

SEEDS: list[bytes] = [
    build_relay_request("Decrypt", "eu-west-1", DECRYPT),
    build_relay_request("DeriveSharedSecret", "eu-west-1", DERIVE),
    build_relay_answer(ANSWER),
    build_relay_answer({**ANSWER, "Plaintext": "c2VjcmV0"}),
    build_relay_refusal(status=400, code="AccessDeniedException", message="no", request_id="1-a"),
    build_error_answer("NotAvailable", "no role\x1b[2J"),
    build_frame({"Version": 1, "Request": "Kms"}),
]


def target(data: bytes) -> None:
    try:
        message = read_frame(io.BytesIO(data).read)
    except InputError:
        return
    try:
        call = parse_relayed_call(message)
    except InputError as error:
        check_text(str(error))
    else:
        assert call.operation in (Operation.DECRYPT, Operation.DERIVE_SHARED_SECRET)
        assert call.parameters["KeyId"] == str(call.key)
        assert call.parameters["Recipient"]["KeyEncryptionAlgorithm"] == "RSAES_OAEP_SHA_256"
        assert call.parameters["Recipient"]["AttestationDocument"]
    try:
        members, refusal = parse_relay_answer(message)
    except (TransportError, UntrustedAnswerError) as error:
        check_text(str(error))
        return
    if refusal is not None:
        check_text(str(parse_error("Decrypt", *refusal)))
        return
    try:
        answer = parse_answer(Operation.DECRYPT, json.dumps(members).encode())
    except UntrustedAnswerError as error:
        check_text(str(error))
    else:
        assert members is not None
        assert not members.get("Plaintext")
        assert answer.ciphertext_for_recipient


def check_text(text: str) -> None:
    assert text.isprintable(), text
    assert len(text) < 2000
