"""Holders of KMS keys: what they ask, what they check, and where `relayed-answer` ends."""

from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support.births import KEY_ARN, verified_birth
from support.emulator import RunningEmulator, running_emulator

from kmstool import holders
from kmstool.arn import parse_key_arn
from kmstool.caveats import (
    CLOCK_SKEW,
    CUSTOM_ROOTS,
    RELAYED_ANSWER,
    SIMULATED_NSM,
    Caveat,
    Tolerance,
)
from kmstool.enclave.relayed import UnauthenticatedKey
from kmstool.enclave.results import DataKey, Decrypted, SharedSecret
from kmstool.errors import CaveatRefused, SettingError, UntrustedAnswerError
from kmstool.holders import DirectHolder, RelayedHolder, SessionHolder
from kmstool.session import SessionOptions

KEY = parse_key_arn(KEY_ARN)


class FakeDirect:
    """Records calls; answers with secrets of a length."""

    def __init__(self, length: int = 32, caveats: tuple[Caveat, ...] = (CLOCK_SKEW,)) -> None:
        self.length = length
        self.caveats = caveats
        self.calls: list[tuple[Any, ...]] = []

    def derive_shared_secret(self, public_key: bytes, *, key: Any) -> SharedSecret:
        self.calls.append((public_key, key))
        return SharedSecret(
            secret=bytes(self.length),
            key_id=str(key),
            key_agreement_algorithm="ECDH",
            caveats=self.caveats,
        )

    def decrypt(self, ciphertext: bytes, *, key: Any, encryption_context: Any) -> Decrypted:
        self.calls.append((ciphertext, key, encryption_context))
        return Decrypted(
            plaintext=bytes(self.length),
            key_id=str(key),
            encryption_algorithm="SYMMETRIC_DEFAULT",
            caveats=self.caveats,
        )

    def generate_data_key(self, **arguments: Any) -> DataKey:
        self.calls.append((arguments,))
        return DataKey(
            plaintext=bytes(self.length),
            ciphertext_blob=b"blob",
            key_id=KEY_ARN,
            caveats=self.caveats,
        )


class FakeRelayed:
    """The same over a relay."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def _answer(self, length: int, **arguments: Any) -> UnauthenticatedKey:
        self.calls.append(arguments)
        caveats = (RELAYED_ANSWER, SIMULATED_NSM)
        return UnauthenticatedKey(bytes(length), key_id=KEY, caveats=caveats)

    def derive_shared_secret(self, public_key: bytes, **arguments: Any) -> UnauthenticatedKey:
        return self._answer(arguments["secret_length"], public_key=public_key, **arguments)

    def decrypt(self, ciphertext: bytes, **arguments: Any) -> UnauthenticatedKey:
        return self._answer(arguments["key_length"], ciphertext=ciphertext, **arguments)


def direct(fake: FakeDirect) -> DirectHolder:
    return DirectHolder(fake)  # type: ignore[arg-type]


def test_direct() -> None:
    fake = FakeDirect()
    holder = direct(fake)
    assert holder.caveats == ()
    assert holder.agree(KEY, b"der", 32) == bytes(32)
    assert holder.unwrap(KEY, b"blob", {"a": "b"}, 32) == bytes(32)
    assert holder.unwrap(KEY, b"blob", {}, 32) == bytes(32)
    assert fake.calls == [(b"der", KEY), (b"blob", KEY, {"a": "b"}), (b"blob", KEY, None)]
    assert set(holder.caveats) == {CLOCK_SKEW}


def test_an_authentic_answer_of_another_length_is_no_key_of_this_file() -> None:
    with pytest.raises(UntrustedAnswerError, match="with 48 bytes, and the file's key needs 32"):
        direct(FakeDirect(48)).agree(KEY, b"der", 32)
    with pytest.raises(UntrustedAnswerError, match="with 16 bytes, and the file's key needs 32"):
        direct(FakeDirect(16)).unwrap(KEY, b"blob", {}, 32)


def test_relayed() -> None:
    fake = FakeRelayed()
    holder = RelayedHolder(fake)  # type: ignore[arg-type]
    assert holder.agree(KEY, b"der", 48) == bytes(48)
    assert holder.unwrap(KEY, b"blob", {"a": "b"}, 32) == bytes(32)
    assert fake.calls == [
        {"public_key": b"der", "key": KEY, "secret_length": 48},
        {"ciphertext": b"blob", "key": KEY, "key_length": 32, "encryption_context": {"a": "b"}},
    ]
    assert set(holder.caveats) == {SIMULATED_NSM}  # relayed-answer ends in the AEAD


# --- By options and environment ----------------------------------------------------------------


@pytest.fixture(scope="module")
def emulator() -> Iterator[RunningEmulator]:
    with running_emulator() as running:
        yield running


def der() -> bytes:
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def test_a_session_is_opened_when_it_is_asked_and_once_for_each_region(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[str] = []
    closed: list[str] = []

    class Client(FakeDirect):
        def __init__(self, region: str) -> None:
            super().__init__()
            self.region = region

        def close(self) -> None:
            closed.append(self.region)

    def open_direct(_options: Any, *, key: Any, environ: Any) -> Client:
        assert environ == {"x": "y"}
        opened.append(key.region)
        return Client(key.region)

    monkeypatch.setattr(holders, "open_direct", open_direct)
    other = parse_key_arn(KEY_ARN.replace("eu-west-1", "us-east-1"))
    with SessionHolder(SessionOptions(), environ={"x": "y"}) as holder:
        assert (opened, holder.caveats) == ([], ())
        holder.agree(KEY, b"der", 32)
        holder.unwrap(KEY, b"blob", {}, 32)
        holder.unwrap(other, b"blob", {}, 32)
        assert opened == ["eu-west-1", "us-east-1"]
        assert holder.caveats == (CLOCK_SKEW,)
    assert sorted(closed) == ["eu-west-1", "us-east-1"]


@pytest.mark.parametrize("strict", [False, True])
def test_over_a_relay_strict_accepts_the_answer_and_nothing_more(
    monkeypatch: pytest.MonkeyPatch, strict: bool
) -> None:
    seen: list[SessionOptions] = []

    def open_relayed(options: SessionOptions, *, key: Any, environ: Any) -> Any:
        seen.append(options)
        raise SettingError("far enough")

    monkeypatch.setattr(holders, "open_relayed", open_relayed)
    tolerance = Tolerance(strict=strict, allowed=frozenset({"clock-skew"}))
    options = SessionOptions(via=("relay=unix:/nowhere",), tolerance=tolerance)
    with SessionHolder(options, environ={}) as holder, pytest.raises(SettingError):
        holder.agree(KEY, b"der", 32)
    accepted = seen[0].tolerance
    accepted.check((RELAYED_ANSWER, CLOCK_SKEW))
    if strict:
        with pytest.raises(CaveatRefused):
            accepted.check((SIMULATED_NSM,))


def test_mixed_ways_are_refused_at_once() -> None:
    with pytest.raises(SettingError, match="a relay and another way"):
        SessionHolder(SessionOptions(via=("direct", "relay")), environ={})


def test_a_real_session(emulator: RunningEmulator) -> None:
    """Against the emulator: its caveats come along, and a key that is not there is KMS' word."""
    kms = emulator.admin_client()
    arn = kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="KEY_AGREEMENT")["KeyMetadata"]["Arn"]
    kms.put_key_policy(
        KeyId=arn,
        PolicyName="default",
        Policy='{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*",'
        ' "Action": "kms:*", "Resource": "*"}]}',
    )
    with SessionHolder(SessionOptions(), environ=emulator.kmstool_environ()) as holder:
        assert len(holder.agree(parse_key_arn(arn), der(), 32)) == 32
        assert holder.caveats == (SIMULATED_NSM, CUSTOM_ROOTS)


# --- Recipients --------------------------------------------------------------------------------


def test_a_data_key() -> None:
    fake = FakeDirect()
    recipient = holders.data_key_recipient(fake, KEY, {"a": "b"})  # type: ignore[arg-type]
    assert fake.calls == [({"key": KEY, "key_spec": "AES_256", "encryption_context": {"a": "b"}},)]
    assert (recipient.key, recipient.data_key) == (KEY, bytes(32))
    assert (recipient.ciphertext_blob, recipient.encryption_context) == (b"blob", {"a": "b"})
    assert recipient.caveats == (CLOCK_SKEW,)


def test_a_birth_certificate_vouches() -> None:
    recipient = holders.birth_recipient(verified_birth(), (SIMULATED_NSM,))
    assert str(recipient.key) == KEY_ARN
    assert recipient.public_key.curve.name == "secp384r1"
    assert recipient.caveats == (SIMULATED_NSM,)
    born = verified_birth(caveats=["custom-roots"], kms_host="kms.eu-west-1.amazonaws.com")
    assert holders.birth_recipient(born).caveats == (CUSTOM_ROOTS,)


@pytest.mark.parametrize("key_spec", ["SYMMETRIC_DEFAULT", "RSA_2048"])
def test_a_key_for_something_else(key_spec: str) -> None:
    with pytest.raises(SettingError, match="is for ENCRYPT_DECRYPT, and sealing needs"):
        holders.birth_recipient(verified_birth(key_spec=key_spec))
