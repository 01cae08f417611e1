"""What the relay lets through. The negative vectors are in tests/vectors/framing.json."""

import base64
import json
from typing import Any

import pytest
from botocore.session import get_session

from kmstool import limits
from kmstool.errors import InputError
from kmstool.parent.request import parse_relayed_call
from kmstool.protocol import Recipient, build_decrypt, build_derive_shared_secret

ARN = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
RECIPIENT = Recipient(attestation_document=b"document")
DECRYPT = json.loads(
    build_decrypt(
        ciphertext_blob=b"\x01\x02",
        key_id=ARN,
        encryption_context={"app": "wéb"},
        encryption_algorithm="SYMMETRIC_DEFAULT",
        grant_tokens=("token",),
        recipient=RECIPIENT,
    )
)
DERIVE = json.loads(build_derive_shared_secret(key_id=ARN, public_key=b"spki", recipient=RECIPIENT))


def message(operation: str, parameters: Any, region: str = "eu-west-1") -> dict[str, object]:
    return {
        "Version": 1,
        "Request": "Kms",
        "Operation": operation,
        "Region": region,
        "Parameters": parameters,
    }


def test_what_the_enclave_builds_is_what_botocore_takes() -> None:
    call = parse_relayed_call(message("Decrypt", DECRYPT))
    assert call.parameters == {
        "CiphertextBlob": b"\x01\x02",
        "KeyId": ARN,
        "EncryptionContext": {"app": "wéb"},
        "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
        "GrantTokens": ["token"],
        "Recipient": {
            "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
            "AttestationDocument": b"document",
        },
    }
    derive = parse_relayed_call(message("DeriveSharedSecret", DERIVE))
    assert derive.parameters["PublicKey"] == b"spki"


def test_botocore_s_own_model_takes_it() -> None:
    """The oracle: botocore validates the parameters of both calls."""
    from botocore.validate import ParamValidator  # noqa: PLC0415

    model = get_session().get_service_model("kms")
    for operation, parameters in (("Decrypt", DECRYPT), ("DeriveSharedSecret", DERIVE)):
        call = parse_relayed_call(message(operation, parameters))
        shape = model.operation_model(operation).input_shape
        assert shape is not None
        assert not ParamValidator().validate(call.parameters, shape).has_errors()


def test_no_repr_shows_a_parameter() -> None:
    call = parse_relayed_call(message("Decrypt", DECRYPT))
    assert "document" not in repr(call)
    assert "token" not in repr(call)


@pytest.mark.parametrize("operation", ["Decrypt", "DeriveSharedSecret"])
def test_each_member_but_the_optional_ones_is_needed(operation: str) -> None:
    parameters = DECRYPT if operation == "Decrypt" else DERIVE
    optional = {"EncryptionContext", "EncryptionAlgorithm", "GrantTokens"}
    for name in parameters:
        rest = {key: value for key, value in parameters.items() if key != name}
        if name in optional:
            parse_relayed_call(message(operation, rest))
            continue
        with pytest.raises(InputError, match=f"{name} is missing"):
            parse_relayed_call(message(operation, rest))


@pytest.mark.parametrize("value", [None, 7, [], {}, True, "", "\ud800", " "])
def test_a_member_of_another_type_is_refused_by_name(value: object) -> None:
    for operation, parameters in (("Decrypt", DECRYPT), ("DeriveSharedSecret", DERIVE)):
        for name in parameters:
            if (name, value) in (("GrantTokens", []), ("EncryptionContext", {})):
                continue
            with pytest.raises(InputError, match=f"the parameter {name} is not") as caught:
                parse_relayed_call(message(operation, parameters | {name: value}))
            assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("name", "largest"),
    [("CiphertextBlob", limits.CIPHERTEXT_MAX), ("PublicKey", limits.PUBLIC_KEY_MAX)],
)
def test_blobs_are_bounded(name: str, largest: int) -> None:
    operation, parameters = (
        ("Decrypt", DECRYPT) if name in DECRYPT else ("DeriveSharedSecret", DERIVE)
    )
    for length, taken in ((1, True), (largest, True), (largest + 1, False)):
        request = message(operation, parameters | {name: base64.b64encode(bytes(length)).decode()})
        if taken:
            assert len(parse_relayed_call(request).parameters[name]) == length
        else:
            with pytest.raises(InputError, match=f"{name} is not base64 of 1 to {largest}"):
                parse_relayed_call(request)


def test_texts_are_bounded() -> None:
    largest = {"GrantTokens": ["t" * limits.GRANT_TOKEN_MAX] * limits.GRANT_TOKENS_MAX}
    largest_context = {"EncryptionContext": {"é" * 2000: "b" * (8192 - 4000)}}
    for fields in (largest, largest_context):
        parse_relayed_call(message("Decrypt", DECRYPT | fields))
    for fields in (
        {"GrantTokens": ["t" * (limits.GRANT_TOKEN_MAX + 1)]},
        {"GrantTokens": ["t"] * (limits.GRANT_TOKENS_MAX + 1)},
        {"GrantTokens": ["\ud800"]},
        {"EncryptionContext": {"é" * 2000: "b" * (8192 - 3999)}},
        {"EncryptionContext": {"\udfff": "x"}},
    ):
        with pytest.raises(InputError, match="is not"):
            parse_relayed_call(message("Decrypt", DECRYPT | fields))


def test_unknown_members_are_named_printably_and_briefly() -> None:
    with pytest.raises(InputError, match="unknown parameters") as caught:
        parse_relayed_call(message("Decrypt", DECRYPT | {"\x1b[2J": 1, "x" * 5000: 2}))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300
