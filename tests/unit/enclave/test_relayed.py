"""What comes over a relay: a key that nobody vouches for, by one path, with one failure."""

import base64
import copy
import gc
import os
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from support.bent_kms import KEY_ARN, InProcessNsm
from support.relays import BentRelay, relayed_client

from kmstool import limits
from kmstool.arn import parse_key_arn
from kmstool.caveats import DEBUG_ENCLAVE, RELAYED_ANSWER, SIMULATED_NSM, Tolerance
from kmstool.emulator.cms_writer import Shape, write_enveloped_data
from kmstool.enclave import relayed
from kmstool.enclave.hkdf import derive_key
from kmstool.enclave.nsm import Nsm
from kmstool.enclave.recipient import Recipient
from kmstool.enclave.relayed import RelayedKms, UnauthenticatedKey
from kmstool.errors import (
    NOT_OPENED,
    CaveatRefused,
    CmsError,
    InputError,
    KmsError,
    NotOpenedError,
    SettingError,
    TransportError,
    UntrustedAnswerError,
)

ARN = parse_key_arn(KEY_ARN)
OTHER_ARN = KEY_ARN.replace("1234abcd", "00000000")
SECRET = bytes(range(32))
NONCE = bytes(12)
PUBLIC_KEY = (
    ec.generate_private_key(ec.SECP256R1())
    .public_key()
    .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
)


def key_of(secret: bytes = SECRET) -> UnauthenticatedKey:
    return UnauthenticatedKey(secret, key_id=ARN, caveats=(RELAYED_ANSWER,))


def decrypt(relay: BentRelay, **options: Any) -> UnauthenticatedKey:
    return relayed_client(relay, **options).decrypt(b"c", key=ARN, key_length=32)


def bare(key: UnauthenticatedKey) -> bytes:
    return key.reveal_bytes_the_parent_may_have_chosen()


# --- UnauthenticatedKey --------------------------------------------------------------------------


@pytest.mark.parametrize("length", [16, 24, 32])
def test_it_opens_aes_gcm(length: int) -> None:
    secret = os.urandom(length)
    sealed = AESGCM(secret).encrypt(NONCE, b"message", b"for")
    assert key_of(secret).open_aes_gcm(NONCE, sealed, b"for") == b"message"


def test_it_opens_chacha20_poly1305() -> None:
    sealed = ChaCha20Poly1305(SECRET).encrypt(NONCE, b"message", b"for")
    assert key_of().open_chacha20_poly1305(NONCE, sealed, b"for") == b"message"


@pytest.mark.parametrize("cipher", [AESGCM, ChaCha20Poly1305])
def test_what_does_not_open_is_one_error(cipher: Any) -> None:
    sealed = cipher(SECRET).encrypt(NONCE, b"message", b"for")
    altered = bytes([sealed[0] ^ 1]) + sealed[1:]
    attempts: list[tuple[bytes, bytes, bytes, bytes]] = [
        (SECRET[::-1], NONCE, sealed, b"for"),
        (SECRET, NONCE[:-1] + b"\1", sealed, b"for"),
        (SECRET, NONCE, altered, b"for"),
        (SECRET, NONCE, sealed[:-1], b"for"),
        (SECRET, NONCE, b"", b"for"),
        (SECRET, NONCE, sealed, b""),
    ]
    seen = set()
    for secret, nonce, ciphertext, associated in attempts:
        key = key_of(secret)
        open_ = key.open_aes_gcm if cipher is AESGCM else key.open_chacha20_poly1305
        with pytest.raises(NotOpenedError) as caught:
            open_(nonce, ciphertext, associated)
        error = caught.value
        assert error.__cause__ is None
        assert error.__context__ is None
        seen.add((type(error), str(error), error.hint))
    assert seen == {(NotOpenedError, NOT_OPENED, None)}


@pytest.mark.parametrize("length", [0, 15, 31, 33, 48, 66])
def test_a_key_of_no_cipher_s_length_is_a_setting(length: int) -> None:
    for name in ("open_aes_gcm", "open_chacha20_poly1305"):
        with pytest.raises(SettingError, match=f"a key of {length} bytes") as caught:
            getattr(key_of(bytes(length)), name)(NONCE, b"", b"")
        assert "derive" in str(caught.value.hint)
    with pytest.raises(SettingError, match="a key of 16 bytes"):
        key_of(bytes(16)).open_chacha20_poly1305(NONCE, b"", b"")


@pytest.mark.parametrize("nonce", [b"", bytes(11), bytes(13), bytes(16)])
def test_a_nonce_of_another_length_is_an_input(nonce: bytes) -> None:
    for name in ("open_aes_gcm", "open_chacha20_poly1305"):
        with pytest.raises(InputError, match=f"the nonce has {len(nonce)} bytes"):
            getattr(key_of(), name)(nonce, bytes(40), b"")


def test_a_message_that_no_call_takes_is_an_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relayed, "_MESSAGE_MAX", 20)
    with pytest.raises(InputError, match="21 bytes, more than 20"):
        key_of().open_aes_gcm(NONCE, bytes(21), b"")
    with pytest.raises(NotOpenedError):
        key_of().open_aes_gcm(NONCE, bytes(20), b"")


def test_a_derived_key_is_as_unauthenticated_as_its_origin() -> None:
    derived = key_of().derive(length=24, salt=b"s", info=b"i")
    assert isinstance(derived, UnauthenticatedKey)
    assert bare(derived) == derive_key(SECRET, length=24, salt=b"s", info=b"i")
    assert (derived.caveats, derived.key_id, derived.length) == ((RELAYED_ANSWER,), ARN, 24)
    with pytest.raises(SettingError):
        key_of().derive(length=0)


def test_it_does_not_give_up_its_bytes_by_accident() -> None:
    key: Any = key_of()
    assert repr(key) == str(key) == f"{key}" == "<UnauthenticatedKey of 32 bytes: relayed-answer>"
    for use in (
        bytes, list, iter, len, hash, bytearray, memoryview, vars, pickle.dumps, copy.copy,
        copy.deepcopy, lambda k: k + b"", lambda k: k[0], lambda k: {k}, lambda k: b"%b" % k,
        bytes.fromhex, AESGCM,
    ):  # fmt: skip
        with pytest.raises(TypeError):
            use(key)
    for name in ("key", "bytes", "plaintext", "secret", "hex", "__bytes__", "__dict__"):
        assert not hasattr(key, name)
    with pytest.raises(AttributeError):
        key.length = 16


def test_two_keys_are_not_compared_by_their_bytes() -> None:
    secret: object = SECRET
    assert (key_of() == key_of()) is False
    assert (key_of() == secret) is False


# --- What is asked -------------------------------------------------------------------------------


def test_decrypt_asks_for_what_it_was_told() -> None:
    relay = BentRelay(bend=lambda a: a.update(EncryptionAlgorithm="RSAES_OAEP_SHA_256"))
    key = relayed_client(relay).decrypt(
        b"\x00\xff",
        key=ARN,
        key_length=32,
        encryption_context={"app": "démo"},
        encryption_algorithm="RSAES_OAEP_SHA_256",
        grant_tokens=("token",),
    )
    ((operation, region, parameters),) = relay.requests
    assert (operation, region) == ("Decrypt", "eu-west-1")
    assert parameters.pop("Recipient")["KeyEncryptionAlgorithm"] == "RSAES_OAEP_SHA_256"
    assert parameters == {
        "CiphertextBlob": "AP8=",
        "KeyId": KEY_ARN,
        "EncryptionContext": {"app": "démo"},
        "EncryptionAlgorithm": "RSAES_OAEP_SHA_256",
        "GrantTokens": ["token"],
    }
    assert (bare(key), key.key_id, key.caveats) == (SECRET, ARN, (RELAYED_ANSWER,))


@pytest.mark.parametrize("length", [32, 48, 66])
def test_derive_shared_secret_asks_for_what_it_was_told(length: Any) -> None:
    relay = BentRelay(b"x" * length)
    key = relayed_client(relay).derive_shared_secret(PUBLIC_KEY, key=ARN, secret_length=length)
    ((operation, _, parameters),) = relay.requests
    assert operation == "DeriveSharedSecret"
    assert parameters["KeyAgreementAlgorithm"] == "ECDH"
    assert (bare(key), key.length) == (b"x" * length, length)


@pytest.mark.parametrize("length", [16, 24, 32])
def test_each_key_length_comes_out(length: Any) -> None:
    client = relayed_client(BentRelay(b"k" * length))
    assert bare(client.decrypt(b"c", key=ARN, key_length=length)) == b"k" * length


def test_bad_arguments_are_refused_before_a_connection() -> None:
    relay = BentRelay()
    client: Any = relayed_client(relay)
    for length in (0, -1, 15, 48, 66, None, "32"):
        with pytest.raises(SettingError, match="cannot be asked for over a relay"):
            client.decrypt(b"c", key=ARN, key_length=length)
    for length in (0, 16, 24, 33):
        with pytest.raises(SettingError, match="cannot be asked for over a relay"):
            client.derive_shared_secret(PUBLIC_KEY, key=ARN, secret_length=length)
    for key in (KEY_ARN, "alias/x", None):
        with pytest.raises(SettingError, match="named by a KeyArn"):
            client.decrypt(b"c", key=key, key_length=32)
    with pytest.raises(InputError):
        client.decrypt(b"", key=ARN, key_length=32)
    assert relay.dials == 0


def test_there_is_nothing_that_makes_keys() -> None:
    operations = {name for name in dir(RelayedKms) if not name.startswith("_")}
    assert operations == {"decrypt", "derive_shared_secret", "close"}


# --- One key, one document, one answer -----------------------------------------------------------


def public_keys(nsm: InProcessNsm) -> list[bytes]:
    return [
        request["Attestation"]["public_key"] for request in nsm.requests if "Attestation" in request
    ]


def test_each_answer_has_a_recipient_key_of_its_own() -> None:
    nsm, relay = InProcessNsm(), BentRelay(script=[None, {"Error": {"Code": "x", "Message": ""}}])
    client = relayed_client(relay, nsm=nsm)
    with pytest.raises(TransportError):
        client.decrypt(b"c", key=ARN, key_length=32)
    for _ in range(2):
        client.decrypt(b"c", key=ARN, key_length=32)
    attested = public_keys(nsm)
    assert relay.dials == len(attested) == len(set(attested)) == 4


def test_an_answer_to_the_key_before_is_not_opened() -> None:
    seen: list[bytes] = []

    def envelop(spki: bytes) -> bytes:
        seen.append(spki)
        return write_enveloped_data(SECRET, seen[0], shape=Shape.KMS_EXPLICIT)

    client = relayed_client(BentRelay(envelop=envelop))
    assert bare(client.decrypt(b"c", key=ARN, key_length=32)) == SECRET
    with pytest.raises(CmsError, match="for another recipient key"):
        client.decrypt(b"c", key=ARN, key_length=32)


def test_the_key_is_gone_when_the_answer_is_there() -> None:
    made: list[weakref.ref[Recipient]] = []
    nsm = Nsm(InProcessNsm())

    def make() -> Recipient:
        recipient = Recipient(nsm)
        made.append(weakref.ref(recipient))
        return recipient

    with RelayedKms(BentRelay().dial, make) as client:
        key = client.decrypt(b"c", key=ARN, key_length=32)
        gc.collect()
        assert bare(key) == SECRET
        assert [one() for one in made] == [None]
    with RelayedKms(BentRelay().dial, make) as unused:
        assert made[-1]() is not None
    gc.collect()
    assert made[-1]() is None
    assert unused is not None


def test_the_next_key_is_made_during_a_pause() -> None:
    nsm = Nsm(InProcessNsm())
    made: list[Recipient] = []
    at_pause: list[int] = []

    def make() -> Recipient:
        made.append(Recipient(nsm))
        return made[-1]

    client = RelayedKms(
        BentRelay(script=[None, None]).dial, make, sleep=lambda _s: at_pause.append(len(made))
    )
    client.decrypt(b"c", key=ARN, key_length=32)
    assert (at_pause, len(made)) == ([2, 3], 3)


def test_nonce_and_user_data_stand_in_the_document() -> None:
    nsm = InProcessNsm()
    module = Nsm(nsm)
    with RelayedKms(
        BentRelay().dial, lambda: Recipient(module, nonce=b"n" * 16, user_data=b"u")
    ) as client:
        client.decrypt(b"c", key=ARN, key_length=32)
    (request,) = nsm.requests
    assert (request["Attestation"]["nonce"], request["Attestation"]["user_data"]) == (
        b"n" * 16,
        b"u",
    )


# --- What is not used, by what is public ---------------------------------------------------------


def bends() -> dict[str, tuple[Callable[[dict[str, Any]], Any], str]]:
    return {
        "another key": (lambda a: a.update(KeyId=OTHER_ARN), "KeyId"),
        "a bare key id": (lambda a: a.update(KeyId=ARN.key_id), "KeyId"),
        "no KeyId": (lambda a: a.pop("KeyId"), "no KeyId"),
        "another algorithm": (
            lambda a: a.update(EncryptionAlgorithm="RSAES_OAEP_SHA_1"),
            "EncryptionAlgorithm",
        ),
        "no algorithm": (lambda a: a.pop("EncryptionAlgorithm"), "EncryptionAlgorithm"),
        "a plaintext": (lambda a: a.update(Plaintext="c2VjcmV0"), "ignored Recipient"),
        "a shared secret": (lambda a: a.update(SharedSecret="c2VjcmV0"), "ignored Recipient"),
        "no CMS": (lambda a: a.pop("CiphertextForRecipient"), "no CiphertextForRecipient"),
        "a CMS that is none": (lambda a: a.update(CiphertextForRecipient="c2Vj"), "BER"),
        "a CMS that is no base64": (lambda a: a.update(CiphertextForRecipient="c2V"), "base64"),
        "nothing": (lambda a: a.clear(), "no KeyId"),
    }


@pytest.mark.parametrize("name", bends())
def test_an_answer_with_one_thing_wrong_is_not_used(name: str) -> None:
    bend, said = bends()[name]
    relay = BentRelay(bend=bend)
    with pytest.raises(UntrustedAnswerError, match=said):
        decrypt(relay)
    assert relay.dials == 1, "an untrusted answer must not be asked for again"


def test_another_key_agreement_is_not_used() -> None:
    relay = BentRelay(bend=lambda a: a.update(KeyAgreementAlgorithm="X25519"))
    with pytest.raises(UntrustedAnswerError, match="KeyAgreementAlgorithm"):
        relayed_client(relay).derive_shared_secret(PUBLIC_KEY, key=ARN, secret_length=32)


def test_a_plaintext_that_cannot_have_the_length_is_a_cms_error() -> None:
    for length in (15, 16, 31, 48, 66):
        if length // 16 != 2:
            with pytest.raises(CmsError, match="encryptedContent has"):
                decrypt(BentRelay(b"k" * length))


# --- What is secret: one outcome -----------------------------------------------------------------


@pytest.mark.parametrize("plaintext", [b"k" * 33, b"k" * 40, b"k" * 47])
def test_a_plaintext_of_another_length_gives_a_random_key(plaintext: bytes) -> None:
    relay = BentRelay(plaintext)
    first, second = decrypt(relay), decrypt(relay)
    assert (first.length, second.length) == (32, 32)
    assert len({bare(first), bare(second), plaintext[:32]}) == 3


def test_whatever_is_wrong_the_message_does_not_open_in_one_way() -> None:
    sealed = AESGCM(SECRET).encrypt(NONCE, b"message", b"")
    outcomes = set()
    for plaintext in (SECRET[:31], SECRET + b"x", bytes(32), b"k" * 47, b"k" * 33):
        if len(plaintext) // 16 == 2:
            with pytest.raises(NotOpenedError) as caught:
                decrypt(BentRelay(plaintext)).open_aes_gcm(NONCE, sealed, b"")
            outcomes.add((str(caught.value), caught.value.hint))
    assert outcomes == {(NOT_OPENED, None)}
    assert decrypt(BentRelay(SECRET)).open_aes_gcm(NONCE, sealed, b"") == b"message"


# --- Caveats -------------------------------------------------------------------------------------


def test_the_caveat_comes_first_and_strict_refuses_before_anything_is_sent() -> None:
    key = decrypt(BentRelay(), caveats=(SIMULATED_NSM,))
    assert key.caveats == (RELAYED_ANSWER, SIMULATED_NSM)
    relay = BentRelay()
    with pytest.raises(CaveatRefused, match="relayed-answer"):
        relayed_client(relay, tolerance=Tolerance(strict=True))
    assert relay.dials == 0
    allowed = Tolerance(strict=True, allowed=frozenset({"relayed-answer"}))
    assert decrypt(relay, tolerance=allowed).caveats == (RELAYED_ANSWER,)


def test_a_debug_enclave_is_a_caveat_and_refused_before_the_request() -> None:
    assert DEBUG_ENCLAVE in decrypt(BentRelay(), nsm=InProcessNsm(pcrs={})).caveats
    relay = BentRelay()
    allowed = Tolerance(strict=True, allowed=frozenset({"relayed-answer"}))
    with pytest.raises(CaveatRefused, match="debug-enclave"):
        decrypt(relay, nsm=InProcessNsm(pcrs={}), tolerance=allowed)
    assert relay.requests == []


# --- Refusals and retries ------------------------------------------------------------------------


def kms_error(code: str, status: int = 400) -> dict[str, object]:
    return {
        "Version": 1,
        "KmsError": {"Status": status, "Code": code, "Message": "no", "RequestId": "1-a"},
    }


def test_a_refusal_of_kms_comes_out_as_over_tls() -> None:
    relay = BentRelay(script=[kms_error("NotFoundException")])
    with pytest.raises(KmsError, match="KMS refused Decrypt: NotFoundException: no") as caught:
        decrypt(relay)
    error = caught.value
    assert (error.code, error.status, error.request_id) == ("NotFoundException", 400, "1-a")
    assert "does not exist in this account" in str(error.hint)
    assert relay.dials == 1


def test_access_denied_names_what_the_enclave_attests() -> None:
    for pcrs, hint in ((None, "this enclave attests PCR0 0101"), ({}, "debug mode")):
        relay = BentRelay(script=[kms_error("AccessDeniedException")])
        with pytest.raises(KmsError) as caught:
            decrypt(relay, nsm=InProcessNsm(pcrs=pcrs))
        assert hint in str(caught.value.hint)


def test_what_passes_is_tried_again_with_pauses() -> None:
    pauses: list[float] = []
    lines: list[str] = []
    relay = BentRelay(
        script=[
            kms_error("ThrottlingException"),
            kms_error("Whatever", 503),
            {"Error": {"Code": "NotAvailable", "Message": "no credentials"}},
            None,
        ]
    )
    key = decrypt(relay, pauses=pauses, trace=lines.append)
    assert bare(key) == SECRET
    assert (relay.dials, len(pauses)) == (limits.RETRY_ATTEMPTS, 4)
    assert sum("trying again in" in line for line in lines) == 4
    assert SECRET.hex() not in "".join(lines)


def test_attempts_are_bounded() -> None:
    relay = BentRelay(script=[None] * 20)
    with pytest.raises(TransportError, match=r"closed the connection \(after 5 attempts\)"):
        decrypt(relay)
    assert relay.dials == limits.RETRY_ATTEMPTS


def test_the_deadline_bounds_everything() -> None:
    relay = BentRelay(script=[None] * 20)
    with pytest.raises((TransportError, SettingError)):
        decrypt(relay, timeout=0.0)
    with pytest.raises(TransportError):
        decrypt(BentRelay(script=[None] * 20), timeout=0.05)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "the relay sent no answer: a frame announces"),
        (b"\0\0\0\2[]", "the relay sent no answer: the payload"),
        (b"\0\0\0\0", "announces 0 bytes"),
    ],
)
def test_an_answer_that_is_no_frame_is_not_tried_again(answer: bytes, said: str) -> None:
    relay = BentRelay(script=[answer])
    with pytest.raises(TransportError, match=said):
        decrypt(relay)
    assert relay.dials == 1


def test_an_answer_that_breaks_off_is_tried_again() -> None:
    relay = BentRelay(script=[b"\0\0\1\0{", b"\0"])
    assert bare(decrypt(relay)) == SECRET
    assert relay.dials == 3


def test_a_refusal_of_the_relay_is_not_tried_again() -> None:
    relay = BentRelay(script=[{"Error": {"Code": "Refused", "Message": "not\x1b[2J this key"}}])
    with pytest.raises(TransportError, match=r"Refused: not\?\[2J this key"):
        decrypt(relay)
    assert relay.dials == 1


def test_a_document_that_does_not_fit_a_frame_is_an_input() -> None:
    with pytest.raises(InputError, match="does not fit a frame"):
        relayed_client(BentRelay()).decrypt(
            b"c", key=ARN, key_length=32, grant_tokens=["t" * 8192] * 10
        )


def test_the_document_goes_out_as_the_module_made_it() -> None:
    relay = BentRelay()
    decrypt(relay)
    document = base64.b64decode(relay.requests[0][2]["Recipient"]["AttestationDocument"])
    assert len(cbor2.loads(document)) == 4
