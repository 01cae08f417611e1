"""What attestation and policies allow and refuse, seen by an unmodified botocore client.

Oracles: botocore signs, serialises and parses; `openssl cms` opens what comes for a recipient.
"""

from pathlib import Path
from typing import Any

import pytest
from support.emulator import RunningEmulator, running_emulator
from support.kms_calls import locked_policy, make_key, refused
from support.recipients import OpensslRecipient

from kmstool.emulator.cms_writer import Shape
from kmstool.emulator.pcrs import label_pcrs
from kmstool.emulator.principals import ADMIN_ARN, ENCLAVE_ARN, parse_principals


@pytest.mark.parametrize("shape", ["explicit", "primitive", "der"])
def test_shapes_and_recipient_keys(tmp_path: Path, shape: str) -> None:
    with running_emulator(shapes=(Shape(shape),)) as emulator:
        kms = emulator.admin_client()
        blob = kms.encrypt(KeyId=make_key(kms), Plaintext=b"x" * 4096)["CiphertextBlob"]
        for bits in (2048, 3072, 4096):
            recipient = OpensslRecipient(tmp_path, bits=bits)
            answer = kms.decrypt(CiphertextBlob=blob, Recipient=recipient.parameter(emulator))
            assert "Plaintext" not in answer
            assert "KeyMaterialId" not in answer
            assert recipient.open(answer["CiphertextForRecipient"]) == b"x" * 4096


def test_locked_key_opens_for_the_right_image_alone(
    kms: Any, emulator: RunningEmulator, recipient: OpensslRecipient
) -> None:
    pcrs = label_pcrs()
    arn = make_key(kms, Policy=locked_policy(pcrs))
    blob = kms.encrypt(KeyId=arn, Plaintext=b"secret")["CiphertextBlob"]
    enclave = emulator.enclave_client()

    answer = enclave.decrypt(CiphertextBlob=blob, Recipient=recipient.parameter(emulator))
    assert recipient.open(answer["CiphertextForRecipient"]) == b"secret"

    other = b"\xab" * 48
    for index in (0, 1, 2):
        bent = dict.fromkeys(range(16), bytes(48)) | pcrs | {index: other}
        message = refused(
            "AccessDeniedException",
            enclave.decrypt,
            CiphertextBlob=blob,
            Recipient=recipient.parameter(emulator, pcrs=bent),
        )
        assert f"PCR{index}" in message
        assert f"is {other.hex()[:8]}" in message
    for client, parameters in (
        (enclave, {}),  # no attestation at all
        (kms, {"Recipient": recipient.parameter(emulator)}),  # right image, wrong role
        (kms, {}),
    ):
        refused("AccessDeniedException", client.decrypt, CiphertextBlob=blob, **parameters)
    message = refused(
        "AccessDeniedException",
        kms.re_encrypt,
        CiphertextBlob=blob,
        DestinationKeyId=make_key(kms),
    )
    assert "kms:ReEncryptFrom" in message


def test_conditions_on_the_encryption_context(
    kms: Any, emulator: RunningEmulator, recipient: OpensslRecipient
) -> None:
    policy = locked_policy(label_pcrs(), StringEquals={"kms:EncryptionContext:app": "one"})
    arn = make_key(kms, Policy=policy)
    enclave = emulator.enclave_client()
    for value, allowed in (("one", True), ("two", False)):
        context = {"app": value}
        blob = kms.encrypt(KeyId=arn, Plaintext=b"x", EncryptionContext=context)["CiphertextBlob"]
        request = {
            "CiphertextBlob": blob,
            "EncryptionContext": context,
            "Recipient": recipient.parameter(emulator),
        }
        if allowed:
            assert recipient.open(enclave.decrypt(**request)["CiphertextForRecipient"]) == b"x"
        else:
            refused("AccessDeniedException", enclave.decrypt, **request)


def test_an_unknown_condition_key_denies_loudly(
    kms: Any, emulator: RunningEmulator, recipient: OpensslRecipient
) -> None:
    policy = locked_policy(
        label_pcrs(), StringNotEquals={"kms:ViaService": "s3.eu-west-1.amazonaws.com"}
    )
    arn = make_key(kms, Policy=policy)
    message = refused(
        "AccessDeniedException",
        emulator.enclave_client().generate_data_key,
        KeyId=arn,
        KeySpec="AES_256",
        Recipient=recipient.parameter(emulator),
    )
    assert "kms:ViaService" in message


def test_root_delegation_leaves_it_to_identity_policies(
    kms: Any, emulator: RunningEmulator
) -> None:
    blob = kms.encrypt(KeyId=make_key(kms), Plaintext=b"x")["CiphertextBlob"]
    assert kms.decrypt(CiphertextBlob=blob)["Plaintext"] == b"x"  # kms:* allows it
    enclave = emulator.enclave_client()  # it has no such policy
    refused("AccessDeniedException", enclave.decrypt, CiphertextBlob=blob)


@pytest.mark.parametrize(
    ("operation", "request_"),
    [
        ("list_keys", {}),
        ("list_aliases", {}),
        ("create_alias", {"AliasName": "alias/mine", "TargetKeyId": "alias/x"}),
        ("delete_alias", {"AliasName": "alias/mine"}),
    ],
)
def test_identity_policies_alone(
    emulator: RunningEmulator, operation: str, request_: dict[str, str]
) -> None:
    method = getattr(emulator.enclave_client(), operation)
    refused("AccessDeniedException", method, **request_)


def test_make_a_key_only_where_identity_policies_say_so() -> None:
    text = f"""
        [[principal]]
        access_key_id = "AKIAEXAMPLE000000000"
        secret_access_key = "one"
        arn = "{ADMIN_ARN}"
        [[principal]]
        access_key_id = "AKIAEXAMPLE000000001"
        secret_access_key = "two"
        arn = "{ENCLAVE_ARN}"
        iam_allows = ["kms:GenerateRandom"]
    """
    with running_emulator(principals=parse_principals(text)) as emulator:
        refused("AccessDeniedException", emulator.enclave_client().create_key)


def test_a_recipient_has_to_be_complete(kms: Any) -> None:
    request = {"NumberOfBytes": 32}
    refused("ValidationException", kms.generate_random, **request, Recipient={})
    half = {"KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256"}
    refused("ValidationException", kms.generate_random, **request, Recipient=half)


def test_operations_that_are_not_emulated(kms: Any) -> None:
    refused(
        "UnsupportedOperationException",
        kms.sign,
        KeyId=make_key(kms),
        Message=b"x",
        SigningAlgorithm="ECDSA_SHA_256",
    )


def test_the_log_names_each_request_and_no_secret(kms: Any, emulator: RunningEmulator) -> None:
    arn = make_key(kms)
    blob = kms.encrypt(KeyId=arn, Plaintext=b"a-plaintext-to-grep")["CiphertextBlob"]
    kms.decrypt(CiphertextBlob=blob)
    line = emulator.log[-1]
    assert f"{ADMIN_ARN} Decrypt {arn} OK " in line
    log = "\n".join(emulator.log)
    for principal in (emulator.emulator.admin, emulator.emulator.enclave):
        assert principal is not None
        assert principal.secret_access_key not in log
        assert principal.session_token is None or principal.session_token not in log
    assert "a-plaintext-to-grep" not in log
