"""The recipient key and its document: fresh, bound to each other, within their limits."""

import hashlib
import time

import cbor2
import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key
from support.bent_kms import IMAGE, InProcessNsm

from kmstool import limits
from kmstool.caveats import CLOCK_SKEW, DEBUG_ENCLAVE
from kmstool.emulator.cms_writer import Shape, write_enveloped_data
from kmstool.enclave.cms import parse_enveloped_data
from kmstool.enclave.nsm import Nsm
from kmstool.enclave.recipient import AttestedKey, Recipient
from kmstool.errors import CmsError, InputError, NsmError, SettingError


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def public_key(attested: AttestedKey) -> bytes:
    value = cbor2.loads(cbor2.loads(attested.document)[2])["public_key"]
    assert isinstance(value, bytes)
    return value


def test_the_document_carries_the_key_that_opens_the_answer() -> None:
    attested = Recipient(Nsm(InProcessNsm())).attested_key()
    spki = public_key(attested)
    cms = write_enveloped_data(b"for this key", spki, shape=Shape.KMS_PRIMITIVE)
    assert parse_enveloped_data(cms).recipient_key_identifier == hashlib.sha256(spki).digest()
    assert attested.unwrap(cms) == b"for this key"


def test_an_answer_for_another_key_does_not_open() -> None:
    first = Recipient(Nsm(InProcessNsm())).attested_key()
    second = Recipient(Nsm(InProcessNsm())).attested_key()
    cms = write_enveloped_data(b"for the first", public_key(first), shape=Shape.KMS_EXPLICIT)
    with pytest.raises(CmsError):
        second.unwrap(cms)


def test_the_key_is_rsa_2048_with_exponent_65537() -> None:
    key = load_der_public_key(public_key(Recipient(Nsm(InProcessNsm())).attested_key()))
    assert (key.key_size, key.public_numbers().e) == (2048, 65537)  # type: ignore[union-attr]


def test_no_document_is_made_before_it_is_needed() -> None:
    nsm = InProcessNsm()
    recipient = Recipient(Nsm(nsm))
    assert nsm.requests == []
    recipient.attested_key()
    assert len(nsm.requests) == 1


def test_a_document_older_than_four_minutes_is_made_again_with_the_same_key() -> None:
    clock = Clock()
    recipient = Recipient(Nsm(InProcessNsm()), monotonic=clock)
    first = recipient.attested_key()
    clock.now += limits.DOCUMENT_AGE_RENEW
    assert recipient.attested_key() is first
    clock.now += 0.1
    second = recipient.attested_key()
    assert second.document != first.document
    assert public_key(second) == public_key(first)


def test_a_key_is_replaced_when_it_is_too_old() -> None:
    clock = Clock()
    recipient = Recipient(Nsm(InProcessNsm()), monotonic=clock)
    first = recipient.attested_key()
    clock.now += limits.RECIPIENT_KEY_AGE_MAX + 1
    assert public_key(recipient.attested_key()) != public_key(first)


def test_a_key_is_replaced_when_it_has_served_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RECIPIENT_KEY_ANSWERS_MAX", 3)
    recipient = Recipient(Nsm(InProcessNsm()))
    keys = [public_key(recipient.attested_key()) for _ in range(7)]
    assert keys[0] == keys[1] == keys[2] != keys[3] == keys[4] == keys[5] != keys[6]


def test_nonce_and_user_data_stand_in_the_document() -> None:
    attested = Recipient(Nsm(InProcessNsm()), nonce=b"n" * 16, user_data=b"u" * 512).attested_key()
    payload = cbor2.loads(cbor2.loads(attested.document)[2])
    assert (payload["nonce"], payload["user_data"]) == (b"n" * 16, b"u" * 512)


@pytest.mark.parametrize("nonce", [b"", b"n" * 15, b"n" * 513])
def test_a_nonce_of_another_length_is_refused(nonce: bytes) -> None:
    with pytest.raises(SettingError, match=f"the nonce has {len(nonce)} bytes") as caught:
        Recipient(Nsm(InProcessNsm()), nonce=nonce)
    assert "16 to 512" in str(caught.value.hint)


def test_user_data_that_would_be_a_birth_certificate_s_is_refused() -> None:
    module = InProcessNsm()
    recipient = Recipient(Nsm(module), user_data=b"kmstool-birth-1" + bytes(48))
    with pytest.raises(InputError, match="is reserved"):
        recipient.attested_key()
    assert module.requests == []


def test_user_data_beyond_the_module_s_limit_is_refused() -> None:
    with pytest.raises(SettingError, match="the user data has 513 bytes"):
        Recipient(Nsm(InProcessNsm()), user_data=b"u" * 513)


def test_zero_image_pcrs_are_the_debug_mode() -> None:
    attested = Recipient(Nsm(InProcessNsm(pcrs={4: b"\x04" * 48}))).attested_key()
    assert attested.is_debug
    assert attested.caveats() == (DEBUG_ENCLAVE,)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_one_image_pcr_that_is_set_is_not_the_debug_mode(index: int) -> None:
    assert not Recipient(Nsm(InProcessNsm(pcrs={index: IMAGE[0]}))).attested_key().is_debug


@pytest.mark.parametrize(
    ("skew", "expected"), [(58, ()), (-58, ()), (62, (CLOCK_SKEW,)), (-62, (CLOCK_SKEW,))]
)
def test_a_clock_that_differs_from_the_document_s_is_a_caveat(
    skew: float, expected: tuple[object, ...]
) -> None:
    recipient = Recipient(Nsm(InProcessNsm()), clock=lambda: time.time() + skew)
    assert recipient.attested_key().caveats() == expected


def test_a_document_that_is_used_again_says_nothing_of_the_clock() -> None:
    now, started = Clock(), time.time()
    recipient = Recipient(
        Nsm(InProcessNsm()), monotonic=now, clock=lambda: started + now() - Clock().now
    )
    recipient.attested_key()
    now.now += limits.DOCUMENT_AGE_RENEW
    assert recipient.attested_key().caveats() == ()


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"\x80",
        cbor2.dumps([b"", {}, b"\xff", b""]),
        cbor2.dumps([b"", {}, cbor2.dumps({"timestamp": 1}), b""]),
        cbor2.dumps([b"", {}, cbor2.dumps({"timestamp": "now", "pcrs": IMAGE}), b""]),
        cbor2.dumps([b"", {}, cbor2.dumps({"timestamp": 1, "pcrs": {0: "text"}}), b""]),
        cbor2.dumps([b"", {}, 7, b""]),
        cbor2.dumps(7),
    ],
)
def test_a_module_whose_document_is_malformed_is_an_nsm_error(document: bytes) -> None:
    class Nonsense(InProcessNsm):
        def exchange(self, request: bytes) -> bytes:
            return cbor2.dumps({"Attestation": {"document": document or b"\x00"}})

    with pytest.raises(NsmError, match="attestation document is malformed"):
        Recipient(Nsm(Nonsense())).attested_key()


def test_a_failed_key_generation_is_raised_where_the_key_is_awaited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_exponent: int, _bits: int) -> None:
        raise OSError("no entropy")

    monkeypatch.setattr("cryptography.hazmat.primitives.asymmetric.rsa.generate_private_key", fail)
    recipient = Recipient(Nsm(InProcessNsm()))
    with pytest.raises(OSError, match="no entropy"):
        recipient.attested_key()


def test_no_repr_shows_the_key_or_the_document() -> None:
    attested = Recipient(Nsm(InProcessNsm())).attested_key()
    assert "_private_key" not in repr(attested)
    assert attested.document.hex() not in repr(attested)
    assert repr(attested.document) not in repr(attested)
