"""An unmodified botocore client uses keys, with and without Recipient.

Oracles: botocore signs, serialises and parses; `openssl cms` opens what comes for a recipient;
cryptography checks keys and exchanges.
"""

from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from support.emulator import RunningEmulator
from support.kms_calls import make_key, refused
from support.recipients import OpensslRecipient


def test_encryption_context_is_bound(kms: Any) -> None:
    arn = make_key(kms)
    context = {"purpose": "test", "größe": "1"}
    blob = kms.encrypt(KeyId=arn, Plaintext=b"secret", EncryptionContext=context)["CiphertextBlob"]
    answer = kms.decrypt(CiphertextBlob=blob, EncryptionContext=dict(reversed(context.items())))
    assert answer["Plaintext"] == b"secret"
    assert answer["KeyId"] == arn
    assert len(answer["KeyMaterialId"]) == 64
    for wrong in ({}, {"purpose": "test"}, {**context, "purpose": "Test"}, {**context, "x": ""}):
        refused(
            "InvalidCiphertextException", kms.decrypt, CiphertextBlob=blob, EncryptionContext=wrong
        )
    refused(
        "ValidationException",
        kms.encrypt,
        KeyId=arn,
        Plaintext=b"x",
        EncryptionContext={"a": "b" * 8192},
    )


def test_every_flipped_bit_of_a_ciphertext(kms: Any) -> None:
    blob = kms.encrypt(KeyId=make_key(kms), Plaintext=b"x")["CiphertextBlob"]
    for index in range(len(blob)):
        bent = bytearray(blob)
        bent[index] ^= 1
        refused("InvalidCiphertextException", kms.decrypt, CiphertextBlob=bytes(bent))


def test_decrypt_with_another_key(kms: Any) -> None:
    blob = kms.encrypt(KeyId=make_key(kms), Plaintext=b"x")["CiphertextBlob"]
    refused("IncorrectKeyException", kms.decrypt, CiphertextBlob=blob, KeyId=make_key(kms))
    refused("InvalidCiphertextException", kms.decrypt, CiphertextBlob=b"not a blob")


def test_re_encrypt(kms: Any) -> None:
    old, new = make_key(kms), make_key(kms)
    blob = kms.encrypt(KeyId=old, Plaintext=b"x", EncryptionContext={"a": "1"})["CiphertextBlob"]
    answer = kms.re_encrypt(
        CiphertextBlob=blob,
        SourceEncryptionContext={"a": "1"},
        DestinationKeyId=new,
        DestinationEncryptionContext={"b": "2"},
    )
    assert (answer["SourceKeyId"], answer["KeyId"]) == (old, new)
    opened = kms.decrypt(CiphertextBlob=answer["CiphertextBlob"], EncryptionContext={"b": "2"})
    assert (opened["Plaintext"], opened["KeyId"]) == (b"x", new)


def test_re_encrypt_between_kinds_of_keys(kms: Any) -> None:
    symmetric = make_key(kms)
    rsa_key = make_key(kms, KeySpec="RSA_2048", KeyUsage="ENCRYPT_DECRYPT")
    algorithm = "RSAES_OAEP_SHA_256"
    blob = kms.encrypt(KeyId=symmetric, Plaintext=b"x")["CiphertextBlob"]
    there = kms.re_encrypt(
        CiphertextBlob=blob,
        DestinationKeyId=rsa_key,
        DestinationEncryptionAlgorithm=algorithm,
    )
    assert "SourceKeyMaterialId" in there
    assert "DestinationKeyMaterialId" not in there
    back = kms.re_encrypt(
        CiphertextBlob=there["CiphertextBlob"],
        SourceKeyId=rsa_key,
        SourceEncryptionAlgorithm=algorithm,
        DestinationKeyId=symmetric,
    )
    assert "SourceKeyMaterialId" not in back
    assert kms.decrypt(CiphertextBlob=back["CiphertextBlob"])["Plaintext"] == b"x"


@pytest.mark.parametrize("algorithm", ["RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256"])
def test_rsa(kms: Any, algorithm: str) -> None:
    arn = make_key(kms, KeySpec="RSA_2048", KeyUsage="ENCRYPT_DECRYPT")
    schemes: dict[str, type[hashes.SHA1 | hashes.SHA256]]
    schemes = {"RSAES_OAEP_SHA_1": hashes.SHA1, "RSAES_OAEP_SHA_256": hashes.SHA256}
    scheme = schemes[algorithm]
    longest = 256 - 2 * scheme.digest_size - 2
    answer = kms.encrypt(KeyId=arn, Plaintext=b"x" * longest, EncryptionAlgorithm=algorithm)
    blob = answer["CiphertextBlob"]
    opened = kms.decrypt(KeyId=arn, CiphertextBlob=blob, EncryptionAlgorithm=algorithm)
    assert opened["Plaintext"] == b"x" * longest
    assert opened["EncryptionAlgorithm"] == algorithm
    assert "KeyMaterialId" not in opened
    public = serialization.load_der_public_key(kms.get_public_key(KeyId=arn)["PublicKey"])
    assert isinstance(public, rsa.RSAPublicKey)
    foreign = public.encrypt(b"outside", padding.OAEP(padding.MGF1(scheme()), scheme(), None))
    opened = kms.decrypt(KeyId=arn, CiphertextBlob=foreign, EncryptionAlgorithm=algorithm)
    assert opened["Plaintext"] == b"outside"

    for call, request, code in (
        (kms.encrypt, {"KeyId": arn, "Plaintext": b"x"}, "InvalidKeyUsageException"),
        (
            kms.encrypt,
            {"KeyId": arn, "Plaintext": b"x" * (longest + 1), "EncryptionAlgorithm": algorithm},
            "ValidationException",
        ),
        (
            kms.decrypt,
            {"CiphertextBlob": blob, "EncryptionAlgorithm": algorithm},
            "ValidationException",
        ),
        (
            kms.decrypt,
            {"KeyId": arn, "CiphertextBlob": blob[:-1], "EncryptionAlgorithm": algorithm},
            "InvalidCiphertextException",
        ),
        (
            kms.encrypt,
            {
                "KeyId": arn,
                "Plaintext": b"x",
                "EncryptionAlgorithm": algorithm,
                "EncryptionContext": {"a": "b"},
            },
            "ValidationException",
        ),
        (kms.generate_data_key, {"KeyId": arn, "KeySpec": "AES_256"}, "InvalidKeyUsageException"),
    ):
        refused(code, call, **request)


def test_data_keys(kms: Any, emulator: RunningEmulator, recipient: OpensslRecipient) -> None:
    arn = make_key(kms)
    size: dict[str, Any]
    for size, length in (
        ({"KeySpec": "AES_128"}, 16),
        ({"KeySpec": "AES_256"}, 32),
        ({"NumberOfBytes": 1024}, 1024),
    ):
        answer = kms.generate_data_key(KeyId=arn, EncryptionContext={"a": "b"}, **size)
        assert len(answer["Plaintext"]) == length
        context = {"CiphertextBlob": answer["CiphertextBlob"], "EncryptionContext": {"a": "b"}}
        assert kms.decrypt(**context)["Plaintext"] == answer["Plaintext"]

        attested = kms.generate_data_key(KeyId=arn, Recipient=recipient.parameter(emulator), **size)
        assert "Plaintext" not in attested
        plain = kms.decrypt(CiphertextBlob=attested["CiphertextBlob"])["Plaintext"]
        assert recipient.open(attested["CiphertextForRecipient"]) == plain
    answer = kms.generate_data_key_without_plaintext(KeyId=arn, KeySpec="AES_256")
    assert "Plaintext" not in answer
    assert len(kms.decrypt(CiphertextBlob=answer["CiphertextBlob"])["Plaintext"]) == 32
    for size in ({}, {"KeySpec": "AES_256", "NumberOfBytes": 32}):
        refused("ValidationException", kms.generate_data_key, KeyId=arn, **size)


@pytest.mark.parametrize(
    "spec",
    [
        "RSA_2048",
        "ECC_NIST_P256",
        "ECC_NIST_P384",
        "ECC_NIST_P521",
        "ECC_SECG_P256K1",
        "ECC_NIST_EDWARDS25519",
    ],
)
def test_data_key_pairs(
    kms: Any, emulator: RunningEmulator, recipient: OpensslRecipient, spec: str
) -> None:
    arn = make_key(kms)
    answer = kms.generate_data_key_pair(KeyId=arn, KeyPairSpec=spec)
    private = serialization.load_der_private_key(answer["PrivateKeyPlaintext"], None)
    public = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert answer["PublicKey"] == public
    assert answer["KeyPairSpec"] == spec
    blob = answer["PrivateKeyCiphertextBlob"]
    assert kms.decrypt(CiphertextBlob=blob)["Plaintext"] == answer["PrivateKeyPlaintext"]

    attested = kms.generate_data_key_pair(
        KeyId=arn, KeyPairSpec=spec, Recipient=recipient.parameter(emulator)
    )
    assert "PrivateKeyPlaintext" not in attested
    plain = kms.decrypt(CiphertextBlob=attested["PrivateKeyCiphertextBlob"])["Plaintext"]
    assert recipient.open(attested["CiphertextForRecipient"]) == plain

    bare = kms.generate_data_key_pair_without_plaintext(KeyId=arn, KeyPairSpec=spec)
    assert "PrivateKeyPlaintext" not in bare


def test_data_key_pairs_that_are_not_made(kms: Any) -> None:
    refused(
        "UnsupportedOperationException",
        kms.generate_data_key_pair,
        KeyId=make_key(kms),
        KeyPairSpec="SM2",
    )


def test_random(kms: Any, emulator: RunningEmulator, recipient: OpensslRecipient) -> None:
    first, second = (kms.generate_random(NumberOfBytes=64)["Plaintext"] for _ in range(2))
    assert len(first) == 64
    assert first != second
    # The enclave's role may ask for random bytes, although no key's policy names it.
    for client in (kms, emulator.enclave_client()):
        attested = client.generate_random(NumberOfBytes=33, Recipient=recipient.parameter(emulator))
        assert "Plaintext" not in attested
        assert len(recipient.open(attested["CiphertextForRecipient"])) == 33
    for parameters, code in (
        ({}, "ValidationException"),
        ({"NumberOfBytes": 1025}, "ValidationException"),
        ({"NumberOfBytes": 1, "CustomKeyStoreId": "x"}, "CustomKeyStoreNotFoundException"),
    ):
        refused(code, kms.generate_random, **parameters)


@pytest.mark.parametrize(
    ("spec", "curve"),
    [
        ("ECC_NIST_P256", ec.SECP256R1()),
        ("ECC_NIST_P384", ec.SECP384R1()),
        ("ECC_NIST_P521", ec.SECP521R1()),
    ],
)
def test_shared_secrets(
    kms: Any,
    emulator: RunningEmulator,
    recipient: OpensslRecipient,
    spec: str,
    curve: ec.EllipticCurve,
) -> None:
    arn = make_key(kms, KeySpec=spec, KeyUsage="KEY_AGREEMENT")
    public = serialization.load_der_public_key(kms.get_public_key(KeyId=arn)["PublicKey"])
    assert isinstance(public, ec.EllipticCurvePublicKey)
    own = ec.generate_private_key(curve)
    der = own.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    request = {"KeyId": arn, "KeyAgreementAlgorithm": "ECDH", "PublicKey": der}
    expected = own.exchange(ec.ECDH(), public)
    answer = kms.derive_shared_secret(**request)
    assert answer["SharedSecret"] == expected
    attested = kms.derive_shared_secret(**request, Recipient=recipient.parameter(emulator))
    assert "SharedSecret" not in attested
    assert recipient.open(attested["CiphertextForRecipient"]) == expected


def test_shared_secrets_that_are_not_derived(kms: Any) -> None:
    arn = make_key(kms, KeySpec="ECC_NIST_P256", KeyUsage="KEY_AGREEMENT")
    request = {"KeyId": arn, "KeyAgreementAlgorithm": "ECDH"}
    other = ec.generate_private_key(ec.SECP384R1()).public_key()
    der = other.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for peer in (b"no key", der):
        refused("ValidationException", kms.derive_shared_secret, **request, PublicKey=peer)
    refused(
        "InvalidKeyUsageException",
        kms.derive_shared_secret,
        **{**request, "KeyId": make_key(kms)},
        PublicKey=der,
    )
    refused("InvalidKeyUsageException", kms.encrypt, KeyId=arn, Plaintext=b"x")


def test_dry_run(kms: Any, emulator: RunningEmulator) -> None:
    arn = make_key(kms)
    blob = kms.encrypt(KeyId=arn, Plaintext=b"x")["CiphertextBlob"]
    for call, request in (
        (kms.encrypt, {"KeyId": arn, "Plaintext": b"x", "DryRun": True}),
        (kms.decrypt, {"CiphertextBlob": blob, "DryRun": True}),
        (kms.decrypt, {"KeyId": arn, "DryRun": True, "DryRunModifiers": ["IGNORE_CIPHERTEXT"]}),
        (kms.re_encrypt, {"CiphertextBlob": blob, "DestinationKeyId": arn, "DryRun": True}),
        (
            kms.re_encrypt,
            {
                "SourceKeyId": arn,
                "DestinationKeyId": arn,
                "DryRun": True,
                "DryRunModifiers": ["IGNORE_CIPHERTEXT"],
            },
        ),
        (kms.generate_data_key, {"KeyId": arn, "KeySpec": "AES_256", "DryRun": True}),
        (kms.generate_data_key_pair, {"KeyId": arn, "KeyPairSpec": "RSA_4096", "DryRun": True}),
    ):
        refused("DryRunOperationException", call, **request)
    enclave = emulator.enclave_client()
    refused("AccessDeniedException", enclave.decrypt, CiphertextBlob=blob, DryRun=True)
    for parameters in ({"KeyId": arn}, {"KeyId": arn, "DryRunModifiers": ["IGNORE_CIPHERTEXT"]}):
        refused("ValidationException", kms.decrypt, **parameters)
