"""The header: one encoding, every bound, and nothing critical passed over."""

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.key_holders import data_key_pair, hpke_pair
from support.sealed_files import GOOD, HEADER, SealedFile, cbor

from kmstool import limits
from kmstool.cbor import decode
from kmstool.errors import InputError, SealedFileError, SettingError
from kmstool.sealing.format import BodyCipher
from kmstool.sealing.header import (
    DataKeyEntry,
    Header,
    HpkeEntry,
    _check_keys,
    build_header,
    parse_header,
    read_head,
)
from kmstool.sealing.recipients import wrap

ALICE = wrap(hpke_pair("alice")[0], bytes(32), bytes(32))
DAVE = wrap(data_key_pair("dave", {"b": "", "": "é", "app": "web"})[0], bytes(32), bytes(32))
HEADERS = [
    Header(body=BodyCipher.AES_256_GCM, salt=bytes(32), recipients=(ALICE,)),
    Header(
        body=BodyCipher.CHACHA20_POLY1305,
        salt=b"s" * 32,
        recipients=(ALICE, DAVE),
        label="ä",
        counter=2**63 - 1,
        signer=b"k" * 32,
    ),
    Header(body=BodyCipher.AES_256_GCM, salt=bytes(32), recipients=(DAVE,) * 64, counter=0),
]


@pytest.mark.parametrize("header", HEADERS)
def test_what_is_built_is_read_again(header: Header) -> None:
    assert parse_header(build_header(header)) == header


def test_the_encoding_is_that_of_another_author() -> None:
    assert isinstance(ALICE, HpkeEntry)
    assert isinstance(DAVE, DataKeyEntry)
    alice = {1: 1, 2: str(ALICE.key), 3: ALICE.wrapped, 4: 16, 5: ALICE.public_key, 6: ALICE.enc}
    dave = {1: 2, 2: str(DAVE.key), 3: DAVE.wrapped, 7: DAVE.ciphertext_blob}
    dave[8] = dict(DAVE.encryption_context)
    fields = {1: 2, 2: b"s" * 32, 3: [alice, dave], 4: "ä", 5: 2**63 - 1, 6: b"k" * 32}
    assert build_header(HEADERS[1]) == cbor(fields)


def in_pieces(data: bytes, size: int) -> Callable[[int], bytes]:
    stream = io.BytesIO(data)
    return lambda length: stream.read(min(length, size))


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_head_is_read_whole_in_pieces_and_no_byte_more(size: int) -> None:
    data = GOOD[7].build()
    read = in_pieces(data + b"more", size)
    head = read_head(read)
    assert head.covered + head.mac == GOOD[7].head()
    rest = b"".join(iter(lambda: read(1000), b""))
    assert head.covered + head.mac + rest == data + b"more"


def test_every_cut_in_the_head_is_refused() -> None:
    data = GOOD[0].head()
    for length in range(len(data)):
        with pytest.raises((SealedFileError, InputError)):
            read_head(io.BytesIO(data[:length]).read)


@pytest.mark.parametrize("length", [0, limits.SEALED_HEADER_MAX + 1, 2**32 - 1])
def test_the_length_is_looked_at_before_anything_is_read(length: int) -> None:
    asked: list[int] = []
    stream = io.BytesIO(b"kmstool-sealed\0\1" + length.to_bytes(4, "big") + bytes(100))

    def read(count: int) -> bytes:
        asked.append(count)
        return stream.read(count)

    with pytest.raises(SealedFileError, match=f"says that it has {length} bytes"):
        read_head(read)
    assert max(asked) <= 14


def test_the_longest_header_is_read() -> None:
    room = limits.SEALED_HEADER_MAX - len(parse_free(b""))
    assert len(parse_free(bytes(room - 2))) == limits.SEALED_HEADER_MAX


def parse_free(content: bytes) -> bytes:
    """A header with a field that is not critical."""
    head = SealedFile("free", bent={-1: content}).head()
    read_head(io.BytesIO(head).read)
    return head[20:-32]


@pytest.mark.parametrize("file", HEADER, ids=[file.name for file in HEADER])
def test_messages_are_short_and_printable(file: SealedFile) -> None:
    with pytest.raises((SealedFileError, InputError)) as caught:
        read_head(io.BytesIO(file.head()).read)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("bent", "message"),
    [
        ({7: b""}, "the field 7, which is critical and unknown"),
        ({0: b""}, "the field 0, which is critical and unknown"),
        ({23: b""}, "the field 23, which is critical and unknown"),
        ({24: b""}, "a key that is not an integer from -24 to 23"),
        ({"1": b""}, "a key that is not an integer"),
        ({-1: ""}, "field -1, which is not of bytes"),
        ({1: "1"}, "the wrong type in field 1"),
        ({1: 3}, "unknown way to encrypt the body 3"),
        ({3: []}, "has 0 recipients"),
        ({5: -1}, "the counter in the header is -1"),
    ],
)
def test_what_the_message_says(bent: dict[Any, Any], message: str) -> None:
    with pytest.raises(SealedFileError, match=message):
        read_head(io.BytesIO(SealedFile("x", bent=bent).head()).read)


def test_a_newer_version_says_so() -> None:
    with pytest.raises(SealedFileError, match="has version 2, and this kmstool reads version 1"):
        read_head(io.BytesIO(SealedFile("x", version=2).head()).read)


@pytest.mark.parametrize("data", [b"", b"kmstool-seale", b"age-encryption.org/v1\n" + bytes(50)])
def test_what_is_no_sealed_file_is_wrong_input(data: bytes) -> None:
    with pytest.raises(InputError, match="this is not a sealed file"):
        read_head(io.BytesIO(data).read)


@pytest.mark.parametrize(
    "change",
    [
        {"label": ""},
        {"label": "x" * 257},
        {"counter": -1},
        {"counter": 2**63},
        {"recipients": ()},
        {"recipients": (ALICE,) * 65},
        {"signer": bytes(31)},
    ],
)
def test_what_could_not_be_read_is_not_written(change: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="such a file cannot be sealed"):
        build_header(replace(HEADERS[0], **change))


def test_a_header_that_is_too_long_is_not_written() -> None:
    assert isinstance(DAVE, DataKeyEntry)
    entry = replace(DAVE, encryption_context={"a": "x" * 8000})
    with pytest.raises(SettingError, match="the header would have"):
        build_header(replace(HEADERS[0], recipients=(entry,) * 9))


# --- Work before anything is authenticated -----------------------------------------------------


def with_keys(keys: list[bytes], *, around: bytes = b"") -> bytes:
    """A map of these encoded keys, which cbor2 would make a dict of, behind some item."""
    pairs = b"".join(key + b"\x00" for key in keys)
    return around + b"\xb9" + len(keys).to_bytes(2, "big") + pairs


@pytest.mark.parametrize(
    "around",
    [
        b"",
        b"\x82\x00",
        b"\xa2\x01\x02\x03",
        b"\xa2\x01\x42\xa0\xa0\x03\x81",
        b"\xa2\x01\xfa\x00\x00\x00\x00\x03",
        b"\xa2\x38\x18\x00\x03",
        b"\xbf\x01",  # these are refused for themselves: what stands in them is not counted right
        b"\xa2\x01\x5f\x41\x00\xff\x03",
        b"\xc2",
        b"\xa1\x01\xd8\x2a\x82\x00",
    ],
    ids=bytes.hex,
)
@pytest.mark.parametrize("key", [b"\x82\x00\x00", b"\xa0", b"\x80", b"\x41x", b"\x18\x18", b"\xf5"])
def test_no_key_is_hashed_that_an_attacker_can_choose_the_hash_of(
    monkeypatch: pytest.MonkeyPatch, around: bytes, key: bytes
) -> None:
    """4,000 arrays with one hash would be 8,000,000 comparisons: a second, before any check."""
    calls: list[bytes] = []

    def counting(data: bytes, *, max_depth: int) -> Any:
        calls.append(data)
        return decode(data, max_depth=max_depth)

    monkeypatch.setattr("kmstool.sealing.header.decode", counting)
    with pytest.raises(SealedFileError):
        parse_header(with_keys([key], around=around))
    assert not calls
    with pytest.raises(SealedFileError):
        parse_header(with_keys([b"\x01"]))
    assert calls


@given(st.binary(max_size=40))
def test_what_the_walk_over_the_keys_makes_of_any_bytes(data: bytes) -> None:
    with pytest.raises(SealedFileError):
        parse_header(data)


@given(
    st.recursive(
        st.integers(-24, 2**64 - 1)
        | st.binary(max_size=300)
        | st.text(max_size=30)
        | st.booleans(),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.text(max_size=5) | st.integers(-24, 23), inner, max_size=30)
        ),
        max_leaves=40,
    )
)
def test_the_walk_over_the_keys_counts_as_cbor2_does(item: Any) -> None:
    _check_keys(cbor2.dumps(item))
    with pytest.raises(SealedFileError, match="a key that is not an integer from -24 to 23, nor"):
        _check_keys(cbor2.dumps([item, {24: item}]))
