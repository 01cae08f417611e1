"""Fuzzes what is read from KMS: the first byte chooses the operation, the rest is the body."""

import json

from kmstool.errors import UntrustedAnswerError
from kmstool.protocol import Operation, parse_answer
from kmstool.refusals import parse_error

OPERATIONS = tuple(Operation)
UNATTESTED = ("Plaintext", "PrivateKeyPlaintext", "SharedSecret")


def target(data: bytes) -> None:
    operation = OPERATIONS[data[0] % len(OPERATIONS)] if data else Operation.DECRYPT
    body = data[1:]
    error = parse_error(operation, 400, {"x-amzn-errortype": body.decode("latin-1")}, body)
    assert str(error).isprintable()
    try:
        answer = parse_answer(operation, body)
    except UntrustedAnswerError as untrusted:
        check_refusal(untrusted)
        return
    members = json.loads(body)
    assert not any(members.get(name) for name in UNATTESTED)
    assert answer.ciphertext_for_recipient
    if operation is not Operation.GENERATE_RANDOM:
        assert answer.key_id


def check_refusal(error: Exception) -> None:
    assert str(error).isprintable()
    assert error.__context__ is None  # json's own exception holds the document


_KEY = '"KeyId":"arn:aws:kms:eu-west-1:111122223333:key/1"'
_CMS = '"CiphertextForRecipient":"MIAGCQ=="'
SEEDS: list[bytes] = [
    f'\0{{{_KEY},"EncryptionAlgorithm":"SYMMETRIC_DEFAULT","Plaintext":"",{_CMS}}}'.encode(),
    f'\1{{{_KEY},"KeyAgreementAlgorithm":"ECDH","SharedSecret":null,{_CMS}}}'.encode(),
    f'\2{{{_KEY},"CiphertextBlob":"AQID",{_CMS}}}'.encode(),
    (
        f'\3{{{_KEY},"PrivateKeyCiphertextBlob":"AQID","PublicKey":"MFkw",'
        f'"KeyPairSpec":"ECC_NIST_P256",{_CMS}}}'
    ).encode(),
    f"\4{{{_CMS}}}".encode(),
    b'\0{"__type":"com.amazonaws.kms#NotFoundException:http://x","message":"no such key"}',
    b'\0{"KeyId":"x","Plaintext":"c2VjcmV0","CiphertextForRecipient":"MIAGCQ=="}',
]
