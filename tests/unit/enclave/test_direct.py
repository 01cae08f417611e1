"""What the direct client asks, what it accepts as an answer, and what it says when it does not."""

import base64
import time
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.bent_kms import KEY_ARN, SECRET, BentKms, InProcessNsm, client

from kmstool.arn import ANY_KEY, parse_key_arn
from kmstool.caveats import (
    CLOCK_SKEW,
    DEBUG_ENCLAVE,
    KMS_RANDOM,
    SIMULATED_NSM,
    UNPINNED_KEY,
    Tolerance,
)
from kmstool.emulator.cms_writer import Shape, write_enveloped_data
from kmstool.enclave.direct import DirectKms, UnpinnedKeyId
from kmstool.enclave.results import (
    DataKey,
    DataKeyPair,
    Decrypted,
    DryRun,
    RandomBytes,
    SharedSecret,
)
from kmstool.errors import (
    CaveatRefused,
    CmsError,
    InputError,
    KmsError,
    UntrustedAnswerError,
)

KEY = parse_key_arn(KEY_ARN)
OTHER_ARN = KEY_ARN.replace("1234abcd", "00000000")
PUBLIC_KEY = (
    ec.generate_private_key(ec.SECP256R1())
    .public_key()
    .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
)
WOULD = (412, {"__type": "DryRunOperationException", "message": "would have succeeded"})

Call = Callable[[DirectKms], Any]
CALLS: dict[str, tuple[bytes, Call]] = {
    "Decrypt": (SECRET, lambda kms: kms.decrypt(b"c", key=KEY)),
    "DeriveSharedSecret": (b"x" * 32, lambda kms: kms.derive_shared_secret(PUBLIC_KEY, key=KEY)),
    "GenerateDataKey": (
        b"k" * 32,
        lambda kms: kms.generate_data_key(key=KEY, key_spec="AES_256"),
    ),
    "GenerateDataKeyPair": (
        b"pkcs8",
        lambda kms: kms.generate_data_key_pair(key=KEY, key_pair_spec="ECC_NIST_P256"),
    ),
    "GenerateRandom": (b"r" * 24, lambda kms: kms.generate_random(24)),
}


# --- What is asked ------------------------------------------------------------------------------


def test_decrypt_asks_for_what_it_was_told() -> None:
    kms = BentKms(bend=lambda a: a.update(EncryptionAlgorithm="RSAES_OAEP_SHA_256"))
    result = client(kms).decrypt(
        b"\x00\xff",
        key=KEY,
        encryption_context={"app": "demo"},
        encryption_algorithm="RSAES_OAEP_SHA_256",
        grant_tokens=("token",),
    )
    assert isinstance(result, Decrypted)
    request = kms.requests[0]
    del request["Recipient"]
    assert request == {
        "CiphertextBlob": "AP8=",
        "KeyId": KEY_ARN,
        "EncryptionContext": {"app": "demo"},
        "EncryptionAlgorithm": "RSAES_OAEP_SHA_256",
        "GrantTokens": ["token"],
    }
    assert kms.headers[0]["X-Amz-Target"] == "TrentService.Decrypt"
    assert (result.plaintext, result.key_id) == (SECRET, KEY_ARN)
    assert result.encryption_algorithm == "RSAES_OAEP_SHA_256"
    assert result.caveats == ()


def test_a_key_of_another_name_is_asked_for_by_that_name_or_by_none() -> None:
    kms = BentKms()
    assert isinstance(client(kms).decrypt(b"c", key=ANY_KEY), Decrypted)
    assert isinstance(client(kms).decrypt(b"c", key=UnpinnedKeyId("alias/app")), Decrypted)
    assert "KeyId" not in kms.requests[0]
    assert kms.requests[1]["KeyId"] == "alias/app"


def test_the_other_operations_give_what_was_asked_for() -> None:
    shared = CALLS["DeriveSharedSecret"][1](client(BentKms(b"x" * 32)))
    assert isinstance(shared, SharedSecret)
    assert (shared.secret, shared.key_agreement_algorithm) == (b"x" * 32, "ECDH")

    data_key = CALLS["GenerateDataKey"][1](client(BentKms(b"k" * 32)))
    assert isinstance(data_key, DataKey)
    assert (data_key.plaintext, data_key.ciphertext_blob) == (b"k" * 32, b"blob")

    pair = CALLS["GenerateDataKeyPair"][1](client(BentKms(b"pkcs8")))
    assert isinstance(pair, DataKeyPair)
    assert (pair.private_key_plaintext, pair.public_key) == (b"pkcs8", b"public")
    assert (pair.private_key_ciphertext_blob, pair.key_pair_spec) == (
        b"private blob",
        "ECC_NIST_P256",
    )

    random = CALLS["GenerateRandom"][1](client(BentKms(b"r" * 24)))
    assert isinstance(random, RandomBytes)
    assert random.plaintext == b"r" * 24


@pytest.mark.parametrize(
    ("key_spec", "number_of_bytes", "length"),
    [("AES_256", None, 32), ("AES_128", None, 16), (None, 64, 64)],
)
def test_a_data_key_has_the_length_asked_for(
    key_spec: str | None, number_of_bytes: int | None, length: int
) -> None:
    for wrong in (length - 1, length + 1):
        with pytest.raises(UntrustedAnswerError, match=f"has {wrong} bytes, and {length}"):
            client(BentKms(b"k" * wrong)).generate_data_key(
                key=KEY, key_spec=key_spec, number_of_bytes=number_of_bytes
            )
    result = client(BentKms(b"k" * length)).generate_data_key(
        key=KEY, key_spec=key_spec, number_of_bytes=number_of_bytes
    )
    assert isinstance(result, DataKey)


def test_random_bytes_have_the_length_asked_for() -> None:
    with pytest.raises(UntrustedAnswerError, match="has 23 bytes, and 24"):
        client(BentKms(b"r" * 23)).generate_random(24)


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64, 65])
def test_a_shared_secret_has_the_length_of_a_coordinate(length: int) -> None:
    with pytest.raises(UntrustedAnswerError, match="32 or 48 or 66"):
        client(BentKms(b"x" * length)).derive_shared_secret(PUBLIC_KEY, key=KEY)


def test_bad_arguments_are_refused_before_a_connection() -> None:
    kms = BentKms()
    with pytest.raises(InputError):
        client(kms).decrypt(b"", key=KEY)
    assert kms.dials == 0


# --- What is not accepted -----------------------------------------------------------------------


def bends() -> dict[str, tuple[Callable[[dict[str, Any]], Any], str]]:
    secret = base64.b64encode(SECRET).decode()
    return {
        "another key": (lambda a: a.update(KeyId=OTHER_ARN), "KeyId"),
        "a bare key id": (lambda a: a.update(KeyId=KEY.key_id), "KeyId"),
        "no KeyId": (lambda a: a.pop("KeyId"), "KeyId"),
        "another algorithm": (
            lambda a: a.update(EncryptionAlgorithm="RSAES_OAEP_SHA_1"),
            "EncryptionAlgorithm",
        ),
        "no algorithm": (lambda a: a.pop("EncryptionAlgorithm"), "EncryptionAlgorithm"),
        "a plaintext beside the CMS": (lambda a: a.update(Plaintext=secret), "ignored Recipient"),
        "a plaintext alone": (
            lambda a: (a.update(Plaintext=secret), a.pop("CiphertextForRecipient")),
            "ignored Recipient",
        ),
        "no CMS": (lambda a: a.pop("CiphertextForRecipient"), "no CiphertextForRecipient"),
        "an empty CMS": (lambda a: a.update(CiphertextForRecipient=""), "CiphertextForRecipient"),
        "a CMS that is none": (lambda a: a.update(CiphertextForRecipient=secret), "BER"),
    }


@pytest.mark.parametrize("name", bends())
def test_an_answer_with_one_thing_wrong_is_not_used(name: str) -> None:
    bend, said = bends()[name]
    kms = BentKms(bend=bend)
    with pytest.raises(UntrustedAnswerError, match=said) as caught:
        client(kms).decrypt(b"c", key=KEY)
    assert SECRET.decode() not in str(caught.value)
    assert base64.b64encode(SECRET).decode() not in str(caught.value)
    assert len(kms.requests) == 1, "an untrusted answer must not be asked for again"


def test_a_cms_for_another_key_is_not_used() -> None:
    other = RSA_SPKI()

    def bend(answer: dict[str, Any]) -> None:
        cms = write_enveloped_data(SECRET, other, shape=Shape.KMS_EXPLICIT)
        answer["CiphertextForRecipient"] = base64.b64encode(cms).decode()

    with pytest.raises(CmsError, match="another recipient key"):
        client(BentKms(bend=bend)).decrypt(b"c", key=KEY)


def RSA_SPKI() -> bytes:  # noqa: N802
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415

    key = rsa.generate_private_key(65537, 2048)
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@pytest.mark.parametrize(
    ("operation", "member", "value"),
    [
        ("DeriveSharedSecret", "KeyAgreementAlgorithm", "X25519"),
        ("DeriveSharedSecret", "KeyAgreementAlgorithm", None),
        ("DeriveSharedSecret", "KeyId", OTHER_ARN),
        ("GenerateDataKey", "KeyId", OTHER_ARN),
        ("GenerateDataKey", "CiphertextBlob", None),
        ("GenerateDataKeyPair", "KeyId", OTHER_ARN),
        ("GenerateDataKeyPair", "KeyPairSpec", "RSA_2048"),
        ("GenerateDataKeyPair", "PublicKey", None),
        ("GenerateDataKeyPair", "PrivateKeyCiphertextBlob", None),
        ("DeriveSharedSecret", "SharedSecret", "c2VjcmV0"),
        ("GenerateDataKey", "Plaintext", "c2VjcmV0"),
        ("GenerateDataKeyPair", "PrivateKeyPlaintext", "c2VjcmV0"),
        ("GenerateRandom", "Plaintext", "c2VjcmV0"),
    ],
)
def test_the_other_operations_check_their_answers(
    operation: str, member: str, value: str | None
) -> None:
    plaintext, call = CALLS[operation]
    kms = BentKms(plaintext, bend=lambda answer: answer.update({member: value}))
    with pytest.raises(UntrustedAnswerError):
        call(client(kms))


# --- Caveats ------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [ANY_KEY, UnpinnedKeyId("alias/app")])
def test_an_unpinned_key_is_a_caveat_and_refused_before_the_request(key: Any) -> None:
    result = client(BentKms()).decrypt(b"c", key=key)
    assert result.caveats == (UNPINNED_KEY,)
    kms = BentKms()
    with pytest.raises(CaveatRefused, match="unpinned-key"):
        client(kms, tolerance=Tolerance(strict=True)).decrypt(b"c", key=key)
    assert kms.dials == 0


def test_random_from_kms_is_a_caveat_and_refused_before_the_request() -> None:
    assert client(BentKms(b"r" * 8)).generate_random(8).caveats == (KMS_RANDOM,)
    kms = BentKms(b"r" * 8)
    with pytest.raises(CaveatRefused, match="kms-random"):
        client(kms, tolerance=Tolerance(strict=True)).generate_random(8)
    assert kms.dials == 0


def test_what_is_known_of_the_client_is_refused_when_it_is_made() -> None:
    with pytest.raises(CaveatRefused, match="simulated-nsm"):
        client(BentKms(), caveats=(SIMULATED_NSM,), tolerance=Tolerance(strict=True))
    allowed = Tolerance(strict=True, allowed=frozenset({"simulated-nsm"}))
    result = client(BentKms(), caveats=(SIMULATED_NSM,), tolerance=allowed).decrypt(b"c", key=KEY)
    assert result.caveats == (SIMULATED_NSM,)


def test_debug_mode_is_a_caveat_and_refused_before_the_request() -> None:
    result = client(BentKms(), nsm=InProcessNsm(pcrs={})).decrypt(b"c", key=KEY)
    assert result.caveats == (DEBUG_ENCLAVE,)
    kms = BentKms()
    with pytest.raises(CaveatRefused, match="debug-enclave"):
        client(kms, nsm=InProcessNsm(pcrs={}), tolerance=Tolerance(strict=True)).decrypt(
            b"c", key=KEY
        )
    assert kms.requests == []


@pytest.mark.parametrize(
    ("skew", "expected"), [(30, ()), (90, (CLOCK_SKEW,)), (-90, (CLOCK_SKEW,))]
)
def test_kms_date_far_from_our_clock_is_a_caveat(skew: float, expected: tuple[Any, ...]) -> None:
    result = client(BentKms(date=time.time() + skew)).decrypt(b"c", key=KEY)
    assert result.caveats == expected


def test_a_caveat_known_only_after_the_answer_keeps_the_secret_back() -> None:
    kms = BentKms(date=time.time() + 3600)
    with pytest.raises(CaveatRefused, match="clock-skew") as caught:
        client(kms, tolerance=Tolerance(strict=True)).decrypt(b"c", key=KEY)
    assert len(kms.requests) == 1
    assert SECRET.decode() not in str(caught.value)


def test_a_document_far_from_our_clock_is_refused_before_the_request() -> None:
    kms = BentKms()
    nsm = InProcessNsm(clock=lambda: time.time() - 3600)
    with pytest.raises(CaveatRefused, match="clock-skew"):
        client(kms, nsm=nsm, tolerance=Tolerance(strict=True)).decrypt(b"c", key=KEY)
    assert kms.requests == []


def test_each_caveat_stands_once() -> None:
    nsm = InProcessNsm(clock=lambda: time.time() - 3600)
    result = client(BentKms(date=time.time() + 3600), nsm=nsm).decrypt(b"c", key=KEY)
    assert result.caveats == (CLOCK_SKEW,)


# --- Dry run, and what a refusal says -----------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda kms: kms.decrypt(b"c", key=KEY, dry_run=True),
        lambda kms: kms.may_decrypt(key=KEY),
        lambda kms: kms.derive_shared_secret(PUBLIC_KEY, key=KEY, dry_run=True),
        lambda kms: kms.generate_data_key(key=KEY, key_spec="AES_256", dry_run=True),
        lambda kms: kms.generate_data_key_pair(
            key=KEY, key_pair_spec="ECC_NIST_P256", dry_run=True
        ),
    ],
)
def test_a_dry_run_that_would_have_succeeded_is_a_result(call: Call) -> None:
    kms = BentKms(script=(WOULD,))
    result = call(client(kms, caveats=(SIMULATED_NSM,)))
    assert isinstance(result, DryRun)
    assert kms.requests[0]["DryRun"] is True
    assert result.caveats == (SIMULATED_NSM,)
    # Whoever only asked got the secret, and the command line printed it.
    with pytest.raises(UntrustedAnswerError, match="answered a dry run with a result"):
        call(client(BentKms()))


def test_a_permission_is_asked_for_without_a_ciphertext() -> None:
    kms = BentKms(script=(WOULD,))
    client(kms).may_decrypt(key=KEY, encryption_context={"app": "demo"}, grant_tokens=("t",))
    (request,) = kms.requests
    assert request.pop("Recipient")["AttestationDocument"]
    assert request == {
        "KeyId": KEY_ARN,
        "DryRun": True,
        "DryRunModifiers": ["IGNORE_CIPHERTEXT"],
        "EncryptionContext": {"app": "demo"},
        "GrantTokens": ["t"],
    }


def test_a_dry_run_that_is_denied_is_an_error() -> None:
    kms = BentKms(script=((400, {"__type": "AccessDeniedException"}),))
    with pytest.raises(KmsError, match="AccessDeniedException"):
        client(kms).decrypt(b"c", key=KEY, dry_run=True)


def test_a_dry_run_answer_to_a_real_request_is_an_error() -> None:
    with pytest.raises(KmsError, match="DryRunOperationException"):
        client(BentKms(script=(WOULD,))).decrypt(b"c", key=KEY)
    with pytest.raises(KmsError, match="DryRunOperationException"):
        client(BentKms(script=(WOULD,))).generate_random(8)


def test_access_denied_names_the_pcr0_that_was_attested() -> None:
    kms = BentKms(script=((400, {"__type": "AccessDeniedException"}),))
    with pytest.raises(KmsError) as caught:
        client(kms).decrypt(b"c", key=KEY)
    assert (b"\x01" * 48).hex() in str(caught.value.hint)


def test_access_denied_in_debug_mode_says_so() -> None:
    kms = BentKms(script=((400, {"__type": "AccessDeniedException"}),))
    with pytest.raises(KmsError) as caught:
        client(kms, nsm=InProcessNsm(pcrs={})).decrypt(b"c", key=KEY)
    assert "debug mode" in str(caught.value.hint)


# --- Secrets ------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", CALLS)
def test_no_repr_shows_a_secret(operation: str) -> None:
    plaintext, call = CALLS[operation]
    assert repr(plaintext)[2:-1] not in repr(call(client(BentKms(plaintext))))


def test_a_document_made_after_a_dry_run_is_held_to_the_tolerance_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kmstool.limits.DOCUMENT_AGE_RENEW", -1.0)
    nsm_times = iter([time.time(), time.time() - 3600])
    nsm = InProcessNsm(clock=lambda: next(nsm_times))
    with pytest.raises(CaveatRefused, match="clock-skew"):
        client(BentKms(script=(WOULD,)), nsm=nsm, tolerance=Tolerance(strict=True)).decrypt(
            b"c", key=KEY, dry_run=True
        )
