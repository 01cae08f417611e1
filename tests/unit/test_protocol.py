"""kmstool/protocol.py against botocore's model of KMS, and against answers that lie."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel

from kmstool import protocol
from kmstool.enclave.sigv4 import CONTENT_TYPE
from kmstool.errors import InputError, KmstoolError, SettingError, UntrustedAnswerError
from kmstool.limits import CIPHERTEXT_MAX, CMS_MAX, HTTP_BODY_MAX, PUBLIC_KEY_MAX
from kmstool.protocol import Operation, Recipient, parse_answer

ARN = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
RECIPIENT = Recipient(b"document")
SECRET = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"
MODEL = ServiceModel(Loader().load_service_model("kms", "service-2"), "kms")


def full_requests() -> dict[Operation, bytes]:
    """Each operation with every member that we can send."""
    context = {"app": "payroll", "ümlaut": "☃"}
    common: dict[str, Any] = {"grant_tokens": ["t"], "dry_run": True, "recipient": RECIPIENT}
    return {
        Operation.DECRYPT: protocol.build_decrypt(
            ciphertext_blob=b"c",
            key_id=ARN,
            encryption_context=context,
            encryption_algorithm="SYMMETRIC_DEFAULT",
            **common,
        ),
        Operation.DERIVE_SHARED_SECRET: protocol.build_derive_shared_secret(
            key_id=ARN, public_key=b"p", **common
        ),
        Operation.GENERATE_DATA_KEY: protocol.build_generate_data_key(
            key_id=ARN, key_spec="AES_256", encryption_context=context, **common
        ),
        Operation.GENERATE_DATA_KEY_PAIR: protocol.build_generate_data_key_pair(
            key_id=ARN, key_pair_spec="ECC_NIST_P256", encryption_context=context, **common
        ),
        Operation.GENERATE_RANDOM: protocol.build_generate_random(
            number_of_bytes=32, recipient=RECIPIENT
        ),
    }


def input_shape(operation: Operation) -> Any:
    return MODEL.operation_model(operation.value).input_shape


# --- Requests ----------------------------------------------------------------------------------


def test_the_operations_are_all_that_take_a_recipient() -> None:
    with_recipient = {
        name
        for name in MODEL.operation_names
        if (shape := MODEL.operation_model(name).input_shape) and "Recipient" in shape.members
    }
    assert with_recipient == {operation.value for operation in Operation}


@pytest.mark.parametrize("operation", Operation)
def test_request_members_are_members_of_the_model(operation: Operation) -> None:
    shape = input_shape(operation)
    sent = json.loads(full_requests()[operation])
    assert set(sent) <= set(shape.members)
    assert set(shape.required_members) <= set(sent)
    assert sent["Recipient"] == {
        "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
        "AttestationDocument": base64.b64encode(b"document").decode(),
    }
    python = {"blob": str, "string": str, "boolean": bool, "integer": int}
    python |= {"map": dict, "list": list, "structure": dict}
    for name, value in sent.items():
        assert type(value) is python[shape.members[name].type_name], name


def test_request_values_are_what_was_given() -> None:
    sent = json.loads(full_requests()[Operation.DECRYPT])
    assert sent["CiphertextBlob"] == "Yw=="
    assert sent["EncryptionContext"] == {"app": "payroll", "ümlaut": "☃"}
    assert sent["GrantTokens"] == ["t"]
    assert sent["DryRun"] is True
    assert sent["KeyId"] == ARN


def test_what_was_not_given_is_not_sent() -> None:
    body = protocol.build_decrypt(
        ciphertext_blob=b"c", key_id=None, encryption_context={}, recipient=RECIPIENT
    )
    assert set(json.loads(body)) == {"CiphertextBlob", "Recipient"}


def test_a_decrypt_without_a_ciphertext_is_never_more_than_a_dry_run() -> None:
    body = protocol.build_decrypt(ciphertext_blob=None, key_id=ARN, recipient=RECIPIENT)
    sent = json.loads(body)
    assert sent["DryRun"] is True
    assert "CiphertextBlob" not in sent
    members = input_shape(Operation.DECRYPT).members
    assert sent["DryRunModifiers"] == members["DryRunModifiers"].member.enum


def test_nothing_is_a_dry_run_unless_asked() -> None:
    for body in (decrypt(), derive(1), data_key(key_spec="AES_256")):
        assert "DryRun" not in json.loads(body)
    pair = protocol.build_generate_data_key_pair(
        key_id=ARN, key_pair_spec="RSA_2048", recipient=RECIPIENT
    )
    assert set(json.loads(pair)) == {"KeyId", "KeyPairSpec", "Recipient"}


def test_target_header() -> None:
    prefix = MODEL.metadata["targetPrefix"]
    for operation in Operation:
        assert protocol.target_header(operation) == f"{prefix}.{operation.value}"
    assert CONTENT_TYPE.endswith(MODEL.metadata["jsonVersion"])


@pytest.mark.parametrize(
    ("operation", "member", "ours"),
    [
        (Operation.DECRYPT, "EncryptionAlgorithm", protocol.ENCRYPTION_ALGORITHMS),
        (
            Operation.DERIVE_SHARED_SECRET,
            "KeyAgreementAlgorithm",
            (protocol.KEY_AGREEMENT_ALGORITHM,),
        ),
        (Operation.GENERATE_DATA_KEY, "KeySpec", protocol.DATA_KEY_SPECS),
        (Operation.GENERATE_DATA_KEY_PAIR, "KeyPairSpec", protocol.DATA_KEY_PAIR_SPECS),
    ],
)
def test_enumerations_are_the_models(
    operation: Operation, member: str, ours: tuple[str, ...]
) -> None:
    assert sorted(ours) == sorted(input_shape(operation).members[member].enum)


def test_the_recipients_algorithm_is_the_models() -> None:
    recipient = input_shape(Operation.DECRYPT).members["Recipient"]
    assert recipient.members["KeyEncryptionAlgorithm"].enum == [protocol.KEY_ENCRYPTION_ALGORITHM]


def decrypt(**changes: Any) -> bytes:
    arguments: dict[str, Any] = {"ciphertext_blob": b"c", "key_id": ARN, "recipient": RECIPIENT}
    return protocol.build_decrypt(**(arguments | changes))


def data_key(**changes: Any) -> bytes:
    return protocol.build_generate_data_key(key_id=ARN, recipient=RECIPIENT, **changes)


def derive(n: int) -> bytes:
    return protocol.build_derive_shared_secret(key_id=ARN, public_key=b"p" * n, recipient=RECIPIENT)


def random(n: int) -> bytes:
    return protocol.build_generate_random(number_of_bytes=n, recipient=RECIPIENT)


# Each bound is taken from the model: min and max pass, one less and one more are refused.
Build = Callable[[int], bytes]
BOUNDS: dict[tuple[Operation, str], tuple[Build, type[KmstoolError]]] = {
    (Operation.DECRYPT, "CiphertextBlob"): (
        lambda n: decrypt(ciphertext_blob=b"x" * n),
        InputError,
    ),
    (Operation.DECRYPT, "KeyId"): (lambda n: decrypt(key_id="x" * n), SettingError),
    (Operation.DECRYPT, "GrantTokens"): (lambda n: decrypt(grant_tokens=["t"] * n), SettingError),
    (Operation.DECRYPT, "GrantTokens.member"): (
        lambda n: decrypt(grant_tokens=["t" * n]),
        SettingError,
    ),
    (Operation.DECRYPT, "Recipient.AttestationDocument"): (
        lambda n: decrypt(recipient=Recipient(b"d" * n)),
        InputError,
    ),
    (Operation.DERIVE_SHARED_SECRET, "PublicKey"): (derive, InputError),
    (Operation.GENERATE_DATA_KEY, "NumberOfBytes"): (
        lambda n: data_key(number_of_bytes=n),
        SettingError,
    ),
    (Operation.GENERATE_RANDOM, "NumberOfBytes"): (random, SettingError),
}


@pytest.mark.parametrize(("operation", "path"), BOUNDS)
def test_bounds_are_the_models(operation: Operation, path: str) -> None:
    build, error = BOUNDS[operation, path]
    shape = input_shape(operation)
    for name in path.split("."):
        shape = shape.member if name == "member" else shape.members[name]
    low, high = shape.metadata["min"], shape.metadata["max"]
    assert "pattern" not in shape.metadata
    build(low)
    build(high)
    with pytest.raises(error):
        build(high + 1)
    if low:
        with pytest.raises(error):
            build(low - 1)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: decrypt(encryption_algorithm="ROT13"), "unknown encryption algorithm 'ROT13'"),
        (lambda: data_key(key_spec="AES-256"), "unknown key spec 'AES-256'"),
        (data_key, "either a key spec or a number of bytes"),
        (lambda: data_key(key_spec="AES_256", number_of_bytes=32), "either a key spec"),
        (
            lambda: protocol.build_generate_data_key_pair(
                key_id=ARN, key_pair_spec="RSA_1024", recipient=RECIPIENT
            ),
            "unknown key pair spec 'RSA_1024'",
        ),
        (lambda: decrypt(key_id="\udcff"), "key id is not valid UTF-8"),
        (lambda: decrypt(grant_tokens=["\udcff"]), "grant token is not valid UTF-8"),
        (lambda: decrypt(encryption_context={"a": "\udcff"}), "context is not valid UTF-8"),
        (lambda: decrypt(encryption_context={"\udcff": "a"}), "context is not valid UTF-8"),
        (lambda: decrypt(encryption_context={"ü" * 4096: "a"}), "8193 bytes"),
    ],
)
def test_settings_outside_kms_limits(build: Callable[[], bytes], says: str) -> None:
    with pytest.raises(SettingError, match=says):
        build()


def test_the_largest_encryption_context_passes() -> None:
    decrypt(encryption_context={"ü" * 4095: "aa"})


# --- Answers -----------------------------------------------------------------------------------

ANSWERS: dict[Operation, dict[str, object]] = {
    Operation.DECRYPT: {
        "KeyId": ARN,
        "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
        "KeyMaterialId": "ab" * 32,
        "Plaintext": "",
        "CiphertextForRecipient": "MIAGCQ==",
    },
    Operation.DERIVE_SHARED_SECRET: {
        "KeyId": ARN,
        "KeyAgreementAlgorithm": "ECDH",
        "KeyOrigin": "AWS_KMS",
        "SharedSecret": None,
        "CiphertextForRecipient": "MIAGCQ==",
    },
    Operation.GENERATE_DATA_KEY: {
        "KeyId": ARN,
        "CiphertextBlob": "AQID",
        "CiphertextForRecipient": "MIAGCQ==",
    },
    Operation.GENERATE_DATA_KEY_PAIR: {
        "KeyId": ARN,
        "PrivateKeyCiphertextBlob": "AQID",
        "PublicKey": "MFkw",
        "KeyPairSpec": "ECC_NIST_P256",
        "PrivateKeyPlaintext": "",
        "CiphertextForRecipient": "MIAGCQ==",
    },
    Operation.GENERATE_RANDOM: {"CiphertextForRecipient": "MIAGCQ=="},
}
ABSENT = object()


def answer(operation: Operation, **changes: object) -> bytes:
    members = ANSWERS[operation] | changes
    return json.dumps({n: v for n, v in members.items() if v is not ABSENT}).encode()


@pytest.mark.parametrize("operation", Operation)
def test_good_answers(operation: Operation) -> None:
    shape = MODEL.operation_model(operation.value).output_shape
    assert shape is not None
    assert set(ANSWERS[operation]) <= set(shape.members)
    parsed = parse_answer(operation, answer(operation, NewMember={"of": ["later", 1.5]}))
    assert parsed.ciphertext_for_recipient == base64.b64decode("MIAGCQ==")
    assert parsed.key_id == ANSWERS[operation].get("KeyId")
    blob = b"\x01\x02\x03"
    assert parsed.ciphertext_blob == (blob if operation == "GenerateDataKey" else None)
    pair = operation is Operation.GENERATE_DATA_KEY_PAIR
    assert parsed.private_key_ciphertext_blob == (blob if pair else None)
    assert parsed.public_key == (base64.b64decode("MFkw") if pair else None)
    assert parsed.key_pair_spec == ("ECC_NIST_P256" if pair else None)
    decrypted = operation is Operation.DECRYPT
    assert parsed.encryption_algorithm == ("SYMMETRIC_DEFAULT" if decrypted else None)
    assert parsed.key_material_id == ("ab" * 32 if decrypted else None)
    derived = operation is Operation.DERIVE_SHARED_SECRET
    assert parsed.key_agreement_algorithm == ("ECDH" if derived else None)


def test_the_ciphertext_for_the_recipient_is_not_in_the_repr() -> None:
    parsed = parse_answer(Operation.DECRYPT, answer(Operation.DECRYPT))
    assert "ciphertext_for_recipient" not in repr(parsed)


def everything_said(error: BaseException) -> str:
    """Message, hint, arguments and attributes of the exception and of what it was raised from."""
    said = ""
    seen: BaseException | None = error
    while seen is not None:
        said += f"{seen!r} {seen} {seen.args!r} {vars(seen)!r}"
        seen = seen.__cause__ or seen.__context__
    return said


@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize("member", ["Plaintext", "PrivateKeyPlaintext", "SharedSecret"])
@pytest.mark.parametrize("value", [SECRET, [SECRET], {"x": SECRET}, 0, False, [], " "])
def test_an_answer_with_a_plaintext_is_unattested(
    operation: Operation, member: str, value: object
) -> None:
    body = answer(operation, **{member: value})
    with pytest.raises(UntrustedAnswerError, match=f"holds {member}.*ignored Recipient") as caught:
        parse_answer(operation, body)
    assert caught.value.hint
    assert SECRET not in everything_said(caught.value)


LONG = base64.b64encode(b"x" * (CMS_MAX + 1)).decode()
LONG_BLOB = base64.b64encode(b"x" * (CIPHERTEXT_MAX + 1)).decode()
LONG_PUBLIC_KEY = base64.b64encode(b"x" * (PUBLIC_KEY_MAX + 1)).decode()
D, P, K = Operation.DECRYPT, Operation.GENERATE_DATA_KEY_PAIR, Operation.GENERATE_DATA_KEY


@pytest.mark.parametrize(
    ("operation", "changes", "says"),
    [
        (D, {"CiphertextForRecipient": ABSENT}, "has no CiphertextForRecipient"),
        (D, {"CiphertextForRecipient": None}, "has no CiphertextForRecipient"),
        (D, {"CiphertextForRecipient": ""}, "CiphertextForRecipient of 0 bytes"),
        (D, {"CiphertextForRecipient": "MIAG CQ=="}, "is not base64"),
        (D, {"CiphertextForRecipient": "MIAGCQ==\n"}, "is not base64"),
        (D, {"CiphertextForRecipient": "MIAGCQ"}, "is not base64"),
        (D, {"CiphertextForRecipient": "MIAGCR=="}, "is not base64"),
        (D, {"CiphertextForRecipient": "MIAGCQ==AAAA"}, "is not base64"),
        (D, {"CiphertextForRecipient": "-_-_"}, "is not base64"),
        (D, {"CiphertextForRecipient": "ÄÄÄÄ"}, "is not base64"),
        (D, {"CiphertextForRecipient": 5}, "is not base64"),
        (D, {"CiphertextForRecipient": ["MIAG"]}, "is not base64"),
        (D, {"CiphertextForRecipient": LONG}, f"of {CMS_MAX + 1} bytes"),
        (D, {"KeyId": ABSENT}, "has no KeyId"),
        (D, {"KeyId": None}, "has no KeyId"),
        (D, {"KeyId": 5}, "KeyId that is not a string"),
        (D, {"KeyId": ""}, "KeyId that is not a string of 1 to"),
        (D, {"KeyId": "x" * 2049}, "KeyId that is not a string of 1 to"),
        (D, {"KeyId": "arn\x1b[31m"}, "KeyId with characters"),
        (D, {"KeyId": "arn:ä"}, "KeyId with characters"),
        (D, {"EncryptionAlgorithm": {}}, "EncryptionAlgorithm that is not a string"),
        (D, {"EncryptionAlgorithm": "A" * 129}, "EncryptionAlgorithm that is not a string"),
        (D, {"KeyMaterialId": 7}, "KeyMaterialId that is not a string"),
        (K, {"CiphertextBlob": ABSENT}, "has no CiphertextBlob"),
        (K, {"CiphertextBlob": LONG_BLOB}, "CiphertextBlob of 6145 bytes"),
        (P, {"PrivateKeyCiphertextBlob": ABSENT}, "has no PrivateKeyCiphertextBlob"),
        (P, {"PublicKey": None}, "has no PublicKey"),
        (P, {"PublicKey": LONG_PUBLIC_KEY}, "PublicKey of 8193 bytes"),
        (P, {"KeyPairSpec": ABSENT}, "has no KeyPairSpec"),
    ],
)
def test_untrusted_members(operation: Operation, changes: dict[str, object], says: str) -> None:
    with pytest.raises(UntrustedAnswerError, match=says):
        parse_answer(operation, answer(operation, **changes))


def test_a_body_of_the_largest_size_is_read() -> None:
    body = answer(Operation.DECRYPT)
    assert parse_answer(Operation.DECRYPT, body + b" " * (HTTP_BODY_MAX - len(body))).key_id == ARN


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "is not JSON"),
        (b"<html>", "is not JSON"),
        (b'{"Plaintext": "' + SECRET.encode(), "is not JSON"),
        (b'{"KeyId": NaN}', "is not JSON"),
        (b'{"KeyId": -Infinity}', "is not JSON"),
        (b'{"KeyId": 1' + b"0" * 5000 + b"}", "is not JSON"),
        (b'\xef\xbb\xbf{"a": 1}', "is not JSON"),
        (b'{"a": "\xff"}', "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b"null", "is not a JSON object"),
        (b'"x"', "is not a JSON object"),
        (b'{"a": 1, "a": 1}', "names a member twice"),
        (b'{"x": [{"b": 1, "b": 2}]}', "names a member twice"),
        (b'{"Plaintext": "' + SECRET.encode() + b'", "Plaintext": ""}', "names a member twice"),
        (b" " * (HTTP_BODY_MAX + 1), "more than"),
    ],
)
def test_bodies_that_are_not_one_strict_object(body: bytes, says: str) -> None:
    with pytest.raises(UntrustedAnswerError, match=says) as caught:
        parse_answer(Operation.DECRYPT, body)
    assert SECRET not in everything_said(caught.value)
    assert caught.value.__context__ is None  # json's own exception holds the document
