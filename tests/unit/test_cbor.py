"""kmstool/cbor.py, and what it relies on cbor2 for."""

import contextlib
import subprocess
import sys

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmstool import cbor
from kmstool.emulator.cbor_writer import encode, encode_indefinite_map

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.binary(max_size=300)
    | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5) | st.integers(0, 40), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("", "premature end"),
        ("a201020103", "Duplicate map key"),
        ("a2616101616102", "Duplicate map key"),
        ("bf01020103ff", "Duplicate map key"),
        ("a1613aa201020103", "Duplicate map key"),
        ("0102", "1 bytes follow"),
        ("a0a0", "1 bytes follow"),
        ("c074323031332d30332d32315432303a30343a30305a", "tags"),
        ("d8236361282a", "tags"),  # a regular expression
        ("d818414f", "tags"),
        ("c249010000000000000000", "tags"),  # a big number
        ("d81c81d81d00", "tags"),  # a list that holds itself
        ("d9d9f701", "tags"),  # self-described CBOR
        ("dbffffffffffffffff01", "tags"),
        ("d28101", "tags"),
        ("81" * 9 + "01", "depth"),
        ("a101" * 9 + "01", "depth"),
        ("9f" * 9 + "01" + "ff" * 9, "depth"),
        ("81" * 5000 + "01", "depth"),
        ("ff", "break"),
        ("bf01ff", "missing value"),
        ("8101" + "ff", "1 bytes follow"),
        ("61ff", "utf-8"),
        ("1c", "subtype"),
        ("5f6161ff", "string"),
        ("5b7fffffffffffffff00", "premature end"),
        ("9b7fffffffffffffff00", "premature end"),
        ("bb7fffffffffffffff0000", "premature end"),
        ("4401", "premature end"),
    ],
)
def test_refuses(encoding: str, message: str) -> None:
    with pytest.raises(cbor.CborError, match=message):
        cbor.decode(bytes.fromhex(encoding), max_depth=8)


@pytest.mark.parametrize(
    ("encoding", "item"),
    [
        ("a10102", {1: 2}),
        ("bf0102ff", {1: 2}),
        ("1801", 1),  # longer than necessary, and well-formed
        ("5f41014102ff", b"\x01\x02"),
        ("9f01ff", [1]),
        ("f6", None),
        ("f5", True),
        ("81" * 8 + "01", [[[[[[[[1]]]]]]]]),
    ],
)
def test_reads_any_form(encoding: str, item: object) -> None:
    assert cbor.decode(bytes.fromhex(encoding), max_depth=8) == item


@pytest.mark.parametrize("encoding", ["bf0102ff", "5f4101ff", "7f6161ff", "9f01ff", "819fff"])
def test_indefinite_lengths_are_refused_where_they_are_not_allowed(encoding: str) -> None:
    data = bytes.fromhex(encoding)
    cbor.decode(data, max_depth=8)
    with pytest.raises(cbor.CborError, match="indefinite length"):
        cbor.decode(data, max_depth=8, indefinite=False)


def test_a_huge_length_costs_no_memory() -> None:
    program = (
        "import resource\n"
        "from kmstool import cbor\n"
        "resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))\n"
        "for head in ('5b', '7b', '9b', 'bb'):\n"
        "    try:\n"
        "        cbor.decode(bytes.fromhex(head + '00000000ffffffff' + '01'), max_depth=8)\n"
        "    except cbor.CborError:\n"
        "        continue\n"
        "    raise SystemExit(1)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


@given(plain)
def test_the_emulators_writer_and_this_reader_agree(item: object) -> None:
    assert cbor.decode(encode(item), max_depth=32) == item


@given(plain)
def test_the_emulators_writer_writes_what_cbor2_writes(item: object) -> None:
    assert encode(item) == cbor2.dumps(item)


@given(st.dictionaries(st.text(max_size=5), plain, max_size=4))
def test_the_indefinite_map_says_the_same(item: dict[object, object]) -> None:
    assert cbor.decode(encode_indefinite_map(item), max_depth=32) == item


def test_the_writer_refuses_what_has_no_plain_form() -> None:
    with pytest.raises(TypeError, match="64 bits"):
        encode(1 << 64)
    with pytest.raises(TypeError, match="float"):
        encode(1.5)


@given(st.binary(max_size=200))
def test_raises_nothing_else(data: bytes) -> None:
    with contextlib.suppress(cbor.CborError):
        cbor.decode(data, max_depth=8)


def test_a_message_is_one_printable_line() -> None:
    with pytest.raises(cbor.CborError) as caught:
        cbor.decode(b"\xa2\x61\x0a\x01\x61\x0a\x02", max_depth=8)
    assert str(caught.value).isprintable()
