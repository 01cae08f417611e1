"""The emulator's own ciphertext blobs: bound to key and context, and opened by nothing else."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmstool.emulator.ciphertext import open_blob, parse_blob_key_id, seal_blob
from kmstool.emulator.refusal import Refusal

KEY = bytes(range(32))
KEY_ID = "1234abcd-12ab-34cd-56ef-1234567890ab"
CONTEXTS = st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3)


@given(st.binary(max_size=100), CONTEXTS)
def test_round_trip(plaintext: bytes, context: dict[str, str]) -> None:
    blob = seal_blob(KEY, KEY_ID, plaintext, context)
    assert parse_blob_key_id(blob) == KEY_ID
    assert len(blob) == 45 + len(plaintext)
    assert open_blob(KEY, blob, dict(reversed(context.items()))) == plaintext


@given(CONTEXTS, CONTEXTS)
def test_no_two_contexts_are_the_same(one: dict[str, str], other: dict[str, str]) -> None:
    blob = seal_blob(KEY, KEY_ID, b"x", one)
    if one == other:
        assert open_blob(KEY, blob, other) == b"x"
    else:
        with pytest.raises(Refusal, match="InvalidCiphertextException"):
            open_blob(KEY, blob, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": "bc"}, {"ab": "c"}),
        ({"a": "", "b": "c"}, {"a": "bc"}),
        ({"a": "b"}, {"b": "a"}),
        ({}, {"": ""}),
    ],
)
def test_contexts_that_a_careless_encoding_would_mix_up(
    one: dict[str, str], other: dict[str, str]
) -> None:
    blob = seal_blob(KEY, KEY_ID, b"x", one)
    with pytest.raises(Refusal):
        open_blob(KEY, blob, other)


def test_another_key() -> None:
    with pytest.raises(Refusal):
        open_blob(os.urandom(32), seal_blob(KEY, KEY_ID, b"x", {}), {})


@pytest.mark.parametrize("blob", [b"", b"\x81", b"\x81" + bytes(43), b"\x01" + bytes(60)])
def test_what_is_not_a_blob(blob: bytes) -> None:
    assert parse_blob_key_id(blob) is None


def test_ivs_differ() -> None:
    assert seal_blob(KEY, KEY_ID, b"x", {}) != seal_blob(KEY, KEY_ID, b"x", {})
