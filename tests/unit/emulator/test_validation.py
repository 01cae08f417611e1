"""Requests against the KMS model: every kind of constraint has a request that breaks it."""

import base64
import json
from typing import Any

import pytest
from botocore.session import Session

from kmstool.emulator.kms import OPERATIONS
from kmstool.emulator.refusal import Refusal
from kmstool.emulator.validation import load_service_model, write_answer

B64 = base64.b64encode(b"x").decode()


def parse(operation: str, request: Any) -> dict[str, Any]:
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    return load_service_model().parse_request(operation, body)


def refused(operation: str, request: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        parse(operation, request)
    return caught.value


def test_a_whole_request() -> None:
    request = {
        "KeyId": "alias/x",
        "CiphertextBlob": B64,
        "EncryptionContext": {"a": "b"},
        "GrantTokens": ["t"],
        "DryRun": False,
        "EncryptionAlgorithm": None,  # null is as good as absent
        "Recipient": {"KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256", "AttestationDocument": B64},
    }
    parsed = parse("Decrypt", request)
    assert parsed["CiphertextBlob"] == b"x"
    assert parsed["Recipient"]["AttestationDocument"] == b"x"
    assert parsed["EncryptionContext"] == {"a": "b"}
    assert parsed["GrantTokens"] == ["t"]
    assert parsed["DryRun"] is False
    assert "EncryptionAlgorithm" not in parsed


@pytest.mark.parametrize(
    ("operation", "request_", "words"),
    [
        ("DescribeKey", {}, "Value null at 'keyId' failed to satisfy constraint: Member must not"),
        ("DescribeKey", {"KeyId": None}, "Value null at 'keyId'"),
        ("DescribeKey", {"KeyId": ""}, "length greater than or equal to 1"),
        ("DescribeKey", {"KeyId": "x" * 2049}, "length less than or equal to 2048"),
        ("DescribeKey", {"KeyId": "x", "Keyid": "x"}, "'keyid' is not known"),
        ("ListKeys", {"Limit": 0}, "value greater than or equal to 1"),
        ("ListKeys", {"Limit": 1001}, "value less than or equal to 1000"),
        ("GenerateRandom", {"NumberOfBytes": 1025}, "value less than or equal to 1024"),
        ("CreateKey", {"KeySpec": "AES"}, "enum value set: [RSA_2048, "),
        ("CreateKey", {"Tags": [{"TagKey": "a"}]}, "'tags.1.member.tagValue'"),
        ("CreateAlias", {"AliasName": "alias/ä", "TargetKeyId": "x"}, "regular expression pattern"),
        ("CreateAlias", {"AliasName": "alias/x\n", "TargetKeyId": "x"}, "regular expression"),
        ("DescribeKey", {"KeyId": "x", "GrantTokens": ["t"] * 11}, "less than or equal to 10"),
        ("DescribeKey", {"KeyId": "x", "GrantTokens": [""]}, "'grantTokens.1.member'"),
        (
            "Decrypt",
            {"Recipient": {"KeyEncryptionAlgorithm": "RSA"}},
            "'recipient.keyEncryptionAlgorithm'",
        ),
        ("Decrypt", {"CiphertextBlob": ""}, "'ciphertextBlob' failed"),
        (
            "Decrypt",
            {"CiphertextBlob": base64.b64encode(bytes(6145)).decode()},
            "less than or equal to 6144",
        ),
    ],
)
def test_constraints(operation: str, request_: dict[str, Any], words: str) -> None:
    refusal = refused(operation, request_)
    assert refusal.code == "ValidationException"
    assert words in refusal.message
    assert refusal.message.startswith("1 validation error detected: ")


def test_all_errors_are_named() -> None:
    refusal = refused("ListKeys", {"Limit": 0, "Marker": ""})
    assert refusal.message.startswith("2 validation errors detected: ")


@pytest.mark.parametrize(
    ("operation", "request_"),
    [
        ("DescribeKey", b""),
        ("DescribeKey", b"{"),
        ("DescribeKey", b"[]"),
        ("DescribeKey", b'"x"'),
        ("DescribeKey", b"\xff\xfe"),
        ("DescribeKey", b'{"KeyId": "x", "KeyId": "y"}'),
        ("DescribeKey", b'{"KeyId": NaN}'),
        ("DescribeKey", b'{"KeyId": "\\ud800"}'),
        ("DescribeKey", b"[" * 100_000),
        ("DescribeKey", {"KeyId": 1}),
        ("DescribeKey", {"KeyId": ["x"]}),
        ("DescribeKey", {"KeyId": "x", "GrantTokens": "t"}),
        ("DescribeKey", {"KeyId": "x", "GrantTokens": [None]}),
        ("ListKeys", {"Limit": "1"}),
        ("ListKeys", {"Limit": 1.0}),
        ("ListKeys", {"Limit": True}),
        ("CreateKey", {"MultiRegion": 0}),
        ("Decrypt", {"CiphertextBlob": "x"}),
        ("Decrypt", {"CiphertextBlob": "eA==\n"}),
        ("Decrypt", {"CiphertextBlob": "eA"}),
        ("Decrypt", {"CiphertextBlob": "ä"}),
        ("Decrypt", {"CiphertextBlob": [1]}),
        ("Decrypt", {"Recipient": "x"}),
        ("Decrypt", {"EncryptionContext": [["a", "b"]]}),
        ("Decrypt", {"EncryptionContext": {"a": 1}}),
        ("Decrypt", {"EncryptionContext": {"\ud800": "b"}}),
    ],
)
def test_wrong_types(operation: str, request_: Any) -> None:
    assert refused(operation, request_).code == "SerializationException"


def test_secrets_are_not_repeated() -> None:
    secret = base64.b64encode(b"s3cret" * 1000).decode()
    assert secret[:20] not in refused("Encrypt", {"KeyId": "x", "Plaintext": secret}).message
    token = "z" * 9000
    assert len(refused("DescribeKey", {"KeyId": token}).message) < 400


def test_every_operation_compiles_and_knows_its_required_members() -> None:
    model = load_service_model()
    described = Session().get_service_model("kms")
    for name in OPERATIONS:
        assert model.knows(name)
        shape = described.operation_model(name).input_shape
        assert shape is not None
        if not shape.required_members:
            assert parse(name, {}) == {}
            continue
        message = refused(name, {}).message
        for member in shape.required_members:
            assert f"'{member[0].lower()}{member[1:]}'" in message


def test_answers() -> None:
    assert write_answer({"a": b"x", "b": [1, None, True], "c": 1.5}) == (
        b'{"a":"eA==","b":[1,null,true],"c":1.5}'
    )
    with pytest.raises(TypeError):
        write_answer({"a": object()})
