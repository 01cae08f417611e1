"""Sealing and opening: what comes out, what never does, and in which order things happen.

Properties: any size around the borders of chunks comes back; any byte changed, any cut, any chunk
moved, doubled or taken from another file is refused, and what was written by then is a beginning of
what was sealed.
"""

import io
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from support.key_holders import LocalHolder, data_key_pair, hpke_pair
from support.sealed_files import CHUNK, GOOD, Hpke, SealedFile, arn, signing_key, stream

from kmstool import limits
from kmstool.arn import ANY_KEY, parse_key_arn
from kmstool.caveats import (
    CLOCK_SKEW,
    UNKNOWN_SEALER,
    UNPINNED_KEY,
    UNVERIFIED_RECIPIENT,
    Tolerance,
)
from kmstool.errors import (
    NOT_OPENED,
    CaveatRefused,
    InputError,
    KmsError,
    NotOpenedError,
    SealedFileError,
    SettingError,
    TransportError,
)
from kmstool.sealing import files
from kmstool.sealing import stream as body
from kmstool.sealing.files import Expected, Opened, open_sealed, seal
from kmstool.sealing.format import TAG_LENGTH, BodyCipher
from kmstool.sealing.header import read_head
from kmstool.sealing.recipients import DataKeyRecipient, Recipient, public_key_recipient

ALICE, HOLDER = hpke_pair("alice")
KEY = ALICE.key
SEALED_CHUNK = CHUNK + TAG_LENGTH
SIGNING_KEY = signing_key("signer")
SIGNER = SIGNING_KEY.public_key().public_bytes_raw()
BATCH = body._BATCH * CHUNK
BORDERS = [0, 1, CHUNK, 2 * CHUNK, BATCH - CHUNK, BATCH, BATCH + CHUNK, 2 * BATCH]


def sealed(plaintext: bytes, *recipients: Recipient, **options: Any) -> bytes:
    target = io.BytesIO()
    seal(io.BytesIO(plaintext), target, recipients or [ALICE], **options)
    return target.getvalue()


def opened(data: bytes, holder: LocalHolder = HOLDER, **options: Any) -> tuple[bytes, Opened]:
    target = io.BytesIO()
    options.setdefault("key", KEY)
    done = open_sealed(io.BytesIO(data), lambda: target, holder, **options)
    return target.getvalue(), done


def refused(data: bytes, plaintext: bytes, **options: Any) -> None:
    """It fails in one of the two ways, and what was released is what was sealed."""
    target = io.BytesIO()
    options.setdefault("key", ANY_KEY)
    with pytest.raises((SealedFileError, InputError, NotOpenedError, KmsError)):
        open_sealed(io.BytesIO(data), lambda: target, HOLDER, **options)
    assert plaintext.startswith(target.getvalue())


class Drip(io.RawIOBase):
    """Gives and takes a few bytes at a time, like a pipe."""

    def __init__(self, data: bytes = b"", size: int = 1000) -> None:
        self.data = bytearray(data)
        self.size = size

    def readinto(self, buffer: Any) -> int:
        count = min(self.size, len(buffer), len(self.data))
        buffer[:count], self.data = self.data[:count], self.data[count:]
        return count

    def write(self, data: Any) -> int:
        self.data += bytes(data[: self.size])
        return min(self.size, len(data))


# --- Round trips -------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(BORDERS).flatmap(lambda border: st.integers(max(0, border - 20), border + 20)),
    st.sampled_from(BodyCipher),
    st.booleans(),
)
def test_any_size_around_a_border_comes_back(size: int, cipher: BodyCipher, signed: bool) -> None:
    plaintext = stream("plaintext", size)
    key = SIGNING_KEY if signed else None
    data = sealed(plaintext, cipher=cipher, signing_key=key)
    body_length = size + TAG_LENGTH * max(1, -(-size // CHUNK))
    assert len(data) == len(GOOD[0].head()) + body_length + (34 + 64 + 1 if signed else 0)
    assert opened(data)[0] == plaintext


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1, BATCH, BATCH + 1])
def test_pipes_that_give_and_take_little(size: int) -> None:
    plaintext = stream("plaintext", size)
    written = Drip()
    seal(Drip(plaintext, 999), written, [ALICE], signing_key=SIGNING_KEY)
    out = Drip()
    open_sealed(Drip(bytes(written.data), 1001), lambda: out, HOLDER, key=KEY)
    assert out.data == plaintext


def test_two_seals_of_one_plaintext_have_nothing_in_common() -> None:
    one, two = sealed(b"x" * 100), sealed(b"x" * 100)
    assert one[-116:] != two[-116:]
    assert open_header(one).salt != open_header(two).salt


def open_header(data: bytes) -> Any:
    return opened(data)[1].header


def test_what_is_sealed_opens_by_the_tests_own_implementation() -> None:
    """The other direction of the vectors: the same file key gives the same body."""
    file = SealedFile("other direction", plaintext=stream("plaintext", CHUNK + 5), signer="signer")
    assert opened(file.build(), expected=Expected(signer=SIGNER))[0] == file.plaintext


def test_every_recipient_opens_it() -> None:
    pairs = [hpke_pair("alice"), hpke_pair("bob", "P-384"), hpke_pair("carol", "P-521")]
    every: list[tuple[Recipient, LocalHolder]] = [*pairs, data_key_pair("dave", {"a": "b"})]
    data = sealed(b"for four", *(recipient for recipient, _ in every))
    for recipient, holder in every:
        plaintext, done = opened(data, holder, key=recipient.key)
        assert (plaintext, done.key) == (b"for four", recipient.key)
        assert opened(data, holder, key=ANY_KEY)[0] == b"for four"


# --- Changed files -----------------------------------------------------------------------------

SMALL = sealed(b"attack at dawn", label="l", counter=1, signing_key=SIGNING_KEY)
PLAIN = stream("plaintext", 2 * CHUNK + 100)
LARGE = sealed(PLAIN)
HEAD = len(LARGE) - len(PLAIN) - 3 * TAG_LENGTH


def test_every_byte_changed_is_refused() -> None:
    for index in range(len(SMALL)):
        changed = bytearray(SMALL)
        changed[index] ^= 1 << index % 8
        refused(bytes(changed), b"attack at dawn")


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(LARGE) * 8 - 1))
def test_any_bit_changed_is_refused(bit: int) -> None:
    changed = bytearray(LARGE)
    changed[bit // 8] ^= 1 << bit % 8
    refused(bytes(changed), PLAIN)


def test_every_cut_of_a_small_file_is_refused() -> None:
    unsigned = sealed(b"attack at dawn")
    for data in (SMALL, unsigned):
        for length in range(len(data)):
            refused(data[:length], b"attack at dawn")


@settings(max_examples=80, deadline=None)
@given(st.integers(0, len(LARGE) - 1) | st.sampled_from(
    [HEAD + number * SEALED_CHUNK + shift for number in (0, 1, 2) for shift in (-1, 0, 1, 16, 17)]
))  # fmt: skip
def test_any_cut_is_refused(length: int) -> None:
    refused(LARGE[:length], PLAIN)


def test_every_extension_is_refused() -> None:
    for more in (b"\0", bytes(16), bytes(64), LARGE[-100:], LARGE):
        refused(LARGE + more, PLAIN)
        refused(SMALL + more, b"attack at dawn")


OTHER = sealed(PLAIN)
CHUNKS = [LARGE[at : at + SEALED_CHUNK] for at in range(HEAD, len(LARGE), SEALED_CHUNK)]
OTHERS = [OTHER[at : at + SEALED_CHUNK] for at in range(HEAD, len(OTHER), SEALED_CHUNK)]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(CHUNKS + OTHERS), max_size=5))
def test_chunks_in_any_other_order_number_or_of_another_file_are_refused(
    chunks: list[bytes],
) -> None:
    if chunks != CHUNKS:
        refused(LARGE[:HEAD] + b"".join(chunks), PLAIN)


def test_the_whole_is_made_of_its_chunks() -> None:
    assert len(CHUNKS) == 3
    assert opened(LARGE[:HEAD] + b"".join(CHUNKS))[0] == PLAIN


def test_a_head_of_another_file_is_refused() -> None:
    refused(OTHER[:HEAD] + LARGE[HEAD:], PLAIN)


def test_a_failure_in_the_first_batch_releases_nothing() -> None:
    target = io.BytesIO()
    with pytest.raises(NotOpenedError) as caught:
        open_sealed(io.BytesIO(LARGE[:-1]), lambda: target, HOLDER, key=KEY)
    assert target.getvalue() == b""
    assert caught.value.hint is None


def test_a_failure_after_something_was_released_says_so() -> None:
    plaintext = stream("plaintext", BATCH + 5)
    target = io.BytesIO()
    with pytest.raises(NotOpenedError) as caught:
        open_sealed(io.BytesIO(sealed(plaintext)[:-1]), lambda: target, HOLDER, key=KEY)
    assert target.getvalue() == plaintext[:BATCH]
    assert (str(caught.value), caught.value.hint) == (NOT_OPENED, files.INCOMPLETE)


# --- Signatures and expectations ---------------------------------------------------------------


def test_a_signer_is_known_only_where_one_is_expected() -> None:
    _, done = opened(SMALL, expected=Expected(signer=SIGNER))
    assert done.caveats == ()
    assert done.header.signer == SIGNER
    _, done = opened(SMALL)
    assert done.caveats == (UNKNOWN_SEALER,)


def test_a_signature_is_verified_even_where_nobody_is_expected() -> None:
    file = SealedFile("x", signer="signer", signed_by="another signer")
    target = io.BytesIO()
    with pytest.raises(NotOpenedError) as caught:
        open_sealed(io.BytesIO(file.build()), lambda: target, HOLDER, key=KEY)
    assert caught.value.hint == files.INCOMPLETE  # the chunks had been released by then


def test_a_signer_that_is_no_point_does_not_open() -> None:
    file = SealedFile("x", bent={6: b"\xff" * 32})
    refused(file.build() + bytes(64), b"attack at dawn", key=KEY)


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        (Expected(signer=bytes(32)), "the file is signed by "),
        (Expected(label="L"), "the file has the label 'l', and 'L' was expected"),
        (Expected(label=""), "the file has the label 'l', and '' was expected"),
        (Expected(min_counter=2), "the file has the counter 1, and at least 2 was expected"),
    ],
)
def test_another_file_than_expected_is_refused_before_anyone_is_asked(
    expected: Expected, message: str
) -> None:
    holder = LocalHolder()
    with pytest.raises(SealedFileError, match=message):
        opened(SMALL, holder, expected=expected)
    assert holder.asked == []


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        (Expected(signer=SIGNER), "the file is not signed"),
        (Expected(label="l"), "the file has no label"),
        (Expected(min_counter=0), "the file has no counter"),
    ],
)
def test_a_file_without_what_is_expected(expected: Expected, message: str) -> None:
    with pytest.raises(SealedFileError, match=message):
        opened(LARGE, expected=expected)


def test_what_is_expected_and_there() -> None:
    expected = Expected(signer=SIGNER, label="l", min_counter=1)
    assert opened(SMALL, expected=expected)[0] == b"attack at dawn"
    assert opened(SMALL, expected=Expected(min_counter=0))[0] == b"attack at dawn"


def test_another_signer_s_signature_cannot_be_put_on_it() -> None:
    """Header and MAC name the signer, so that taking the file for one's own takes the file key."""
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    refused(SMALL.replace(SIGNER, other), b"attack at dawn", key=KEY)


# --- Keys --------------------------------------------------------------------------------------


def test_a_key_that_it_is_not_sealed_to() -> None:
    holder = LocalHolder()
    with pytest.raises(SealedFileError, match="not sealed to the key") as caught:
        opened(SMALL, holder, key=parse_key_arn(arn("bob")))
    assert holder.asked == []
    assert str(KEY) in str(caught.value.hint)


def test_any_key_is_a_caveat() -> None:
    _, done = opened(SMALL, key=ANY_KEY, expected=Expected(signer=SIGNER))
    assert done.caveats == (UNPINNED_KEY,)


def test_what_is_known_against_the_answers_comes_along() -> None:
    holder = LocalHolder(HOLDER.agreeing, caveats=(CLOCK_SKEW,))
    assert opened(SMALL, holder)[1].caveats == (UNKNOWN_SEALER, CLOCK_SKEW)


def test_where_kms_refuses_one_key_the_next_is_tried() -> None:
    bob, holder = hpke_pair("bob", "P-384")
    data = sealed(b"x", ALICE, bob)
    plaintext, done = opened(data, holder, key=ANY_KEY)
    assert (plaintext, done.key) == (b"x", bob.key)
    assert holder.asked == [str(KEY), str(bob.key)]


def test_where_kms_refuses_all_the_first_refusal_is_told() -> None:
    class Refusing(LocalHolder):
        def agree(self, key: Any, public_key_der: bytes, secret_length: int) -> bytes:
            self.asked.append(str(key))
            raise TransportError(f"no way to {key}")

    holder = Refusing()
    with pytest.raises(TransportError, match=str(KEY)):
        opened(sealed(b"x", ALICE, hpke_pair("bob")[0]), holder, key=ANY_KEY)
    assert len(holder.asked) == 2


def test_after_an_answer_no_other_key_is_tried() -> None:
    """The parent must not be able to ask twice with one file."""
    bob, bob_s = hpke_pair("bob")
    wrong = LocalHolder({str(KEY): hpke_pair("mallory")[1].agreeing[arn("mallory")]})
    wrong.agreeing |= bob_s.agreeing
    with pytest.raises(NotOpenedError):
        opened(sealed(b"x", ALICE, bob), wrong, key=ANY_KEY)
    assert wrong.asked == [str(KEY)]


def test_a_recipient_under_another_key_s_name_does_not_open() -> None:
    """A public key of mallory's with alice's ARN: what `unverified-recipient` warns of."""
    false = Hpke("mallory", bent={2: str(KEY)})
    refused(SealedFile("x", recipients=[false]).build(), b"attack at dawn", key=KEY)


# --- Order and caveats -------------------------------------------------------------------------


def test_nothing_is_written_before_the_header_is_authenticated() -> None:
    def never() -> io.BytesIO:
        raise AssertionError("a target was asked for")

    changed = bytearray(LARGE)
    changed[HEAD - 1] ^= 1  # the MAC
    with pytest.raises(NotOpenedError):
        open_sealed(io.BytesIO(changed), never, HOLDER, key=KEY)


def test_caveats_are_reported_before_anything_is_written() -> None:
    seen: list[object] = []

    class Target(io.BytesIO):
        def write(self, data: Any) -> int:
            seen.append("data")
            return super().write(data)

    holder = LocalHolder(HOLDER.agreeing, caveats=(CLOCK_SKEW,))
    done = open_sealed(
        io.BytesIO(SMALL),
        Target,
        holder,
        key=ANY_KEY,
        report=lambda caveats: seen.append((caveats, len(holder.asked))),
    )
    assert seen == [((UNPINNED_KEY, UNKNOWN_SEALER), 0), ((CLOCK_SKEW,), 1), "data"]
    assert done.caveats == (UNPINNED_KEY, UNKNOWN_SEALER, CLOCK_SKEW)


@pytest.mark.parametrize(
    "index", [LARGE.index(b"\x03\x58\x30") + 3, HEAD - 1, HEAD, len(LARGE) - 1]
)
def test_what_is_reported_does_not_say_which_check_failed(index: int) -> None:
    """The wrapped key, the MAC, the first chunk, the last one's tag."""
    changed = bytearray(LARGE)
    changed[index] ^= 1
    holder = LocalHolder(HOLDER.agreeing, caveats=(CLOCK_SKEW,))
    seen: list[object] = []
    with pytest.raises(NotOpenedError):
        open_sealed(io.BytesIO(changed), io.BytesIO, holder, key=KEY, report=seen.append)
    assert seen == [(UNKNOWN_SEALER,), (CLOCK_SKEW,)]


STRICT = Tolerance(strict=True)


def test_strict_opening_without_a_signer_is_refused_before_anyone_is_asked() -> None:
    holder = LocalHolder()
    with pytest.raises(CaveatRefused, match="unknown-sealer"):
        opened(SMALL, holder, tolerance=STRICT)
    assert holder.asked == []


def test_strict_names_all_that_stops_it() -> None:
    with pytest.raises(CaveatRefused, match=r"\[unpinned-key\] .*; \[unknown-sealer\] ") as caught:
        opened(SMALL, key=ANY_KEY, tolerance=STRICT)
    options = "--allow-caveat unpinned-key --allow-caveat unknown-sealer"
    assert caught.value.hint == f"if that is acceptable here, add {options}"
    tolerance = Tolerance(strict=True, allowed=frozenset({"unpinned-key"}))
    with pytest.raises(CaveatRefused, match=r"refused under --strict: \[unknown-sealer\]"):
        opened(SMALL, key=ANY_KEY, tolerance=tolerance)


def test_strict_opening_with_a_caveat_of_the_answer_writes_nothing() -> None:
    holder = LocalHolder(HOLDER.agreeing, caveats=(CLOCK_SKEW,))
    target = io.BytesIO()
    with pytest.raises(CaveatRefused, match="clock-skew"):
        open_sealed(
            io.BytesIO(SMALL),
            lambda: target,
            holder,
            key=KEY,
            expected=Expected(signer=SIGNER),
            tolerance=STRICT,
        )
    assert target.getvalue() == b""


def test_strict_sealing_to_a_key_that_nobody_vouches_for_writes_nothing() -> None:
    target = io.BytesIO()
    with pytest.raises(CaveatRefused, match="unverified-recipient"):
        seal(io.BytesIO(b"x"), target, [ALICE], tolerance=STRICT)
    assert target.getvalue() == b""


def test_the_caveats_of_sealing() -> None:
    done = seal(io.BytesIO(b"x"), io.BytesIO(), [ALICE, hpke_pair("bob")[0]])
    assert done.caveats == (UNVERIFIED_RECIPIENT,)
    assert seal(io.BytesIO(b"x"), io.BytesIO(), [data_key_pair("dave")[0]]).caveats == ()


@pytest.mark.parametrize("options", [{"label": ""}, {"counter": 2**63}])
def test_what_the_format_has_no_room_for_is_refused_before_anything_is_written(
    options: dict[str, Any],
) -> None:
    target = io.BytesIO()
    with pytest.raises(SettingError):
        seal(io.BytesIO(b"x"), target, [ALICE], **options)
    assert target.getvalue() == b""


def test_nobody_to_seal_to() -> None:
    with pytest.raises(SettingError, match="has 0 recipients"):
        seal(io.BytesIO(b"x"), io.BytesIO(), [])


def test_more_chunks_than_one_key_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    data = sealed(stream("plaintext", 2 * BATCH))
    monkeypatch.setattr(limits, "SEALED_CHUNKS_MAX", 2 * body._BATCH)
    assert opened(data)[0] == stream("plaintext", 2 * BATCH)
    assert sealed(stream("plaintext", 2 * BATCH))
    monkeypatch.setattr(limits, "SEALED_CHUNKS_MAX", 2 * body._BATCH - 1)
    with pytest.raises(InputError, match="more than 31 chunks"):
        sealed(stream("plaintext", 2 * BATCH))
    with pytest.raises(NotOpenedError):
        opened(data)


# --- Recipients --------------------------------------------------------------------------------


@pytest.mark.parametrize("der", [b"", b"nonsense", bytes(10_000)])
def test_a_public_key_that_is_none(der: bytes) -> None:
    with pytest.raises(InputError, match="not a SubjectPublicKeyInfo"):
        public_key_recipient(KEY, der)


def test_a_public_key_of_another_kind() -> None:
    der = SIGNING_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(InputError, match="not of an elliptic curve"):
        public_key_recipient(KEY, der)


def test_a_public_key_on_a_curve_without_hpke() -> None:
    key = ec.generate_private_key(ec.SECP256K1()).public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(InputError, match="the curve secp256k1"):
        public_key_recipient(KEY, der)


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_data_key_of_another_length(length: int) -> None:
    with pytest.raises(InputError, match=f"has {length} bytes"):
        DataKeyRecipient(key=KEY, data_key=bytes(length), ciphertext_blob=b"x")


def test_no_repr_shows_a_data_key() -> None:
    recipient, _ = data_key_pair("dave")
    assert "dave...." not in repr(recipient)


def test_one_data_key_for_two_files_wraps_under_two_keys() -> None:
    recipient, _ = data_key_pair("dave")
    wrapped = [open_header_of(sealed(b"x", recipient)).wrapped for _ in range(2)]
    assert wrapped[0][-16:] != wrapped[1][-16:]


def open_header_of(data: bytes) -> Any:
    return read_head(io.BytesIO(data).read).header.recipients[0]
