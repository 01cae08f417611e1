"""attestation/document.py: each rule of AWS' text, broken alone."""

import contextlib
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.documents import HEADER, NOW, Chain, cose, document, fields, make_chain

from kmstool import limits
from kmstool.attestation.document import parse_document
from kmstool.emulator.cbor_writer import encode
from kmstool.errors import DocumentError

CHAIN = make_chain()


def payload_of(*entries: bytes) -> bytes:
    """A payload map of raw entries after the right ones, for what a dict cannot hold."""
    right = [encode(name) + encode(value) for name, value in fields(CHAIN).items()]
    return b"\xbf" + b"".join([*right, *entries]) + b"\xff"


def pieces(name: str, item: bytes, *, indefinite: bool) -> bytes:
    """A payload with the right fields, of which one has this encoding."""
    content = fields(CHAIN, **{name: ...})
    entries = [encode(key) + encode(value) for key, value in content.items()]
    entries.append(encode(name) + item)
    body = b"".join(entries)
    return b"\xbf" + body + b"\xff" if indefinite else bytes([0xA0 | len(entries)]) + body


def altered(name: str, value: object) -> bytes:
    return cose(encode(fields(CHAIN, **{name: value})), CHAIN.leaf.key)


def raw(**parts: object) -> bytes:
    """The array of four with one part replaced, signature and all else of the right form."""
    right: dict[str, object] = {
        "protected": HEADER,
        "unprotected": {},
        "payload": encode(fields(CHAIN)),
        "signature": bytes(96),
    }
    right.update(parts)
    return encode(list(right.values()))


def test_every_field() -> None:
    parsed = parse_document(
        document(CHAIN, public_key=b"k" * 1024, user_data=b"", nonce=b"n" * 512)
    )
    assert parsed.protected == HEADER
    assert parsed.payload == encode(
        fields(CHAIN, public_key=b"k" * 1024, user_data=b"", nonce=b"n" * 512)
    )
    assert len(parsed.signature) == 96
    assert parsed.module_id == "i-00000000000000000-enc0000000000000000"
    assert parsed.digest == "SHA384"
    assert parsed.timestamp == int(NOW.timestamp() * 1000)
    assert parsed.pcrs == {index: bytes([index]) * 48 for index in range(16)}
    assert parsed.certificate == CHAIN.leaf.der
    assert parsed.cabundle == tuple(CHAIN.cabundle)
    assert (parsed.public_key, parsed.user_data, parsed.nonce) == (b"k" * 1024, b"", b"n" * 512)


@pytest.mark.parametrize("tag", [b"", b"\xd2"])
@pytest.mark.parametrize("indefinite", [False, True])
def test_tag_and_map_form_make_no_difference(tag: bytes, indefinite: bool) -> None:
    parsed = parse_document(tag + document(CHAIN, indefinite=indefinite))
    assert parsed.cabundle == tuple(CHAIN.cabundle)
    assert parsed.payload[:1] == (b"\xbf" if indefinite else b"\xa9")


def test_optional_fields_may_be_absent() -> None:
    parsed = parse_document(document(CHAIN, public_key=..., user_data=..., nonce=...))
    assert (parsed.public_key, parsed.user_data, parsed.nonce) == (None, None, None)


def test_the_pcrs_of_a_document_cannot_be_changed() -> None:
    with pytest.raises(TypeError, match="item assignment"):
        parse_document(document(CHAIN)).pcrs[0] = b""  # type: ignore[index]


NOT_CBOR: list[tuple[str, Callable[[], bytes], str]] = [
    ("empty", lambda: b"", "premature end"),
    ("base64 of one", lambda: b"hEShATgioFkRTq", "the document is not valid CBOR"),
    ("trailing byte", lambda: document(CHAIN) + b"\0", "1 bytes follow"),
    ("cut", lambda: document(CHAIN)[:-1], "premature end"),
    ("tag 18 twice", lambda: b"\xd2\xd2" + document(CHAIN), "tags"),
    ("another tag", lambda: b"\xd1" + document(CHAIN), "tags"),
    ("as long as may be", lambda: bytes(limits.DOCUMENT_MAX), "262143 bytes follow"),
    ("deep nesting", lambda: b"\x81" * 3000 + b"\0", "depth"),
    ("huge array", lambda: b"\x9b" + b"\xff" * 8, "premature end"),
    ("huge byte string", lambda: b"\x84\x5b" + b"\x7f" * 8, "premature end"),
    ("header not CBOR", lambda: raw(protected=b""), "the protected header is not valid CBOR"),
    ("array indefinite", lambda: b"\x9f" + document(CHAIN)[1:] + b"\xff", "indefinite length"),
    (
        "header of pieces",
        lambda: b"\x84\x5f" + encode(HEADER) + b"\xff" + document(CHAIN)[6:],
        "indefinite length",
    ),
    ("unprotected indefinite", lambda: raw().replace(b"\xa0", b"\xbf\xff", 1), "indefinite length"),
    (
        "payload of pieces",
        lambda: b"\x84" + encode(HEADER) + b"\xa0\x5f" + encode(b"x") + b"\xff" + encode(bytes(96)),
        "indefinite length",
    ),
]

PAYLOAD_NOT_CBOR: list[tuple[str, Callable[[], bytes], str]] = [
    ("a tag inside", lambda: cose(payload_of(b"\x61x\xc1\x00"), CHAIN.leaf.key), "tags"),
    (
        "deep nesting in the payload",
        lambda: cose(payload_of(encode("x") + b"\x81" * 50 + b"\0"), CHAIN.leaf.key),
        "depth",
    ),
    (
        "duplicate key",
        lambda: cose(payload_of(encode("nonce") + encode(b"m" * 16)), CHAIN.leaf.key),
        "Duplicate",
    ),
    (
        "duplicate PCR",
        lambda: cose(
            encode(fields(CHAIN, pcrs=...)).replace(b"\xa8", b"\xa9", 1)
            + encode("pcrs")
            + b"\xa2"
            + (encode(0) + encode(bytes(48))) * 2,
            CHAIN.leaf.key,
        ),
        "Duplicate",
    ),
    (
        "bytes after the payload's map",
        lambda: cose(encode(fields(CHAIN)) + b"\xf6", CHAIN.leaf.key),
        "the payload is not valid CBOR: 1 bytes follow",
    ),
    ("payload not CBOR", lambda: raw(payload=b"\xff"), "the payload is not valid CBOR"),
    *(
        (
            f"{name} indefinite in {form} map",
            lambda name=name, item=item, form=form: cose(
                pieces(name, item, indefinite=form == "an indefinite"), CHAIN.leaf.key
            ),
            "indefinite length",
        )
        for form in ("a definite", "an indefinite")
        for name, item in (
            ("user_data", b"\x5f\x41\x01\xff"),
            ("digest", b"\x7f\x66SHA384\xff"),
            ("pcrs", b"\xbf\x00\x58\x30" + bytes(48) + b"\xff"),
            ("cabundle", b"\x9f\x41\x01\xff"),
        )
    ),
]


def colliding_keys(count: int) -> bytes:
    """A map of CBOR whose keys, arrays of two numbers, have one and the same hash in Python.

    CPython's hash of a tuple has no secret (Objects/tupleobject.c), so it is solved for the second
    number.
    """
    odd, prime, start, word = 11400714785074694791, 14029467366897019727, 2870177450012600261, 2**64
    content = b""
    first = found = 0
    while found < count:
        mixed = (start + first * prime) % word
        mixed = (mixed << 31 | mixed >> 33) % word * odd % word
        second = (4711 - mixed) * pow(prime, -1, word) % word
        if second < 2**61 - 1:  # a number beyond is another one's hash
            content += encode([first, second]) + b"\0"
            found += 1
        first += 1
    return b"\xba" + count.to_bytes(4, "big") + content


@pytest.mark.parametrize("part", ["unprotected", "protected", "payload"])
def test_keys_with_one_hash_cost_no_time(part: str) -> None:
    # 220 KiB of them, in either header, took ten seconds before anything was verified.
    keys = colliding_keys(1_000 if part == "payload" else 5_000)
    data = {
        "unprotected": b"\x84" + encode(HEADER) + keys + encode(b"x") + encode(bytes(96)),
        "protected": encode([keys, {}, b"x", bytes(96)]),
        "payload": encode([HEADER, {}, keys, bytes(96)]),
    }[part]
    began = time.process_time()
    with pytest.raises(DocumentError):
        parse_document(data)
    assert time.process_time() - began < 0.2


COSE_RULES: list[tuple[str, Callable[[], bytes], str]] = [
    ("too long", lambda: bytes(limits.DOCUMENT_MAX + 1), "over 262144"),
    ("a map", lambda: b"\xa0", "array of four"),
    ("three parts", lambda: encode([HEADER, {}, b"x"]), "array of four"),
    ("five parts", lambda: encode([HEADER, {}, b"x", bytes(96), 1]), "array of four"),
    ("protected a map", lambda: raw(protected={1: -35}), "protected header is not a byte string"),
    ("protected an array", lambda: raw(protected=encode([1])), "anything but the algorithm"),
    ("protected empty", lambda: raw(protected=encode({})), "anything but the algorithm"),
    ("two labels", lambda: raw(protected=encode({1: -35, 4: b"k"})), "anything but the algorithm"),
    ("another label", lambda: raw(protected=encode({2: -35})), "anything but the algorithm"),
    ("label true", lambda: raw(protected=encode({True: -35})), "anything but the algorithm"),
    ("ES256", lambda: raw(protected=encode({1: -7})), "the algorithm is -7, not -35"),
    ("ES512", lambda: raw(protected=encode({1: -36})), "the algorithm is -36, not -35"),
    ("none", lambda: raw(protected=encode({1: None})), "the algorithm is a NoneType"),
    (
        "-35.0",
        lambda: raw(protected=b"\xa1\x01\xfb\xc0\x41\x80\0\0\0\0\0"),
        "the algorithm is -35.0, not -35",
    ),
    (
        "unprotected filled",
        lambda: raw(unprotected={4: b"k"}),
        "unprotected header is not an empty map",
    ),
    ("unprotected a list", lambda: raw(unprotected=[]), "unprotected header is not an empty map"),
    ("payload nil", lambda: raw(payload=None), "the payload is not a byte string"),
    ("payload a text", lambda: raw(payload="x"), "the payload is not a byte string"),
    ("payload empty", lambda: raw(payload=b""), "the payload has 0 bytes"),
    ("payload long", lambda: raw(payload=bytes(16385)), "the payload has 16385 bytes"),
    ("signature nil", lambda: raw(signature=None), "the signature is not a byte string"),
    ("signature of P-256", lambda: raw(signature=bytes(64)), "has 64 bytes, not 96"),
    ("signature of P-521", lambda: raw(signature=bytes(132)), "has 132 bytes, not 96"),
]

RULES: list[tuple[str, Callable[[], bytes], str]] = [
    ("payload a list", lambda: raw(payload=encode([])), "the payload is not a map"),
    ("unknown field", lambda: document(CHAIN, x=1), "the field 'x' is not one of"),
    (
        "unknown field with a number for a name",
        lambda: cose(payload_of(encode(7) + encode(1)), CHAIN.leaf.key),
        "the field 7 is not one of",
    ),
    *(
        (f"no {name}", lambda name=name: altered(name, ...), f"{name} is missing")
        for name in ("module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle")
    ),
    *(
        (f"{name} null", lambda name=name: altered(name, None), name)
        for name in ("module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle")
    ),
    ("module_id empty", lambda: document(CHAIN, module_id=""), "module_id is not a text"),
    ("module_id bytes", lambda: document(CHAIN, module_id=b"i"), "module_id is not a text"),
    ("module_id long", lambda: document(CHAIN, module_id="i" * 257), "256 printable characters"),
    ("module_id of escapes", lambda: document(CHAIN, module_id="\x1b[2J"), "printable"),
    ("digest SHA512", lambda: document(CHAIN, digest="SHA512"), "digest is 'SHA512'"),
    ("digest bytes", lambda: document(CHAIN, digest=b"SHA384"), "digest is a bytes"),
    ("digest long", lambda: document(CHAIN, digest="a" * 99), r"digest is 'a{36}\.\.\., not"),
    ("timestamp 0", lambda: document(CHAIN, timestamp=0), "timestamp is 0"),
    ("timestamp negative", lambda: document(CHAIN, timestamp=-1), "timestamp is -1"),
    ("timestamp true", lambda: document(CHAIN, timestamp=True), "timestamp is True"),
    ("timestamp beyond", lambda: document(CHAIN, timestamp=253402300800000), "timestamp is 2534"),
    ("no PCRs", lambda: document(CHAIN, pcrs={}), "map of 1..32"),
    ("33 PCRs", lambda: document(CHAIN, pcrs=dict.fromkeys(range(33), bytes(48))), "of 1..32"),
    ("PCRs a list", lambda: document(CHAIN, pcrs=[bytes(48)]), "map of 1..32"),
    ("PCR 32", lambda: document(CHAIN, pcrs={32: bytes(48)}), "the index 32, not 0..31"),
    ("PCR -1", lambda: document(CHAIN, pcrs={-1: bytes(48)}), "the index -1, not 0..31"),
    ("PCR '0'", lambda: document(CHAIN, pcrs={"0": bytes(48)}), "the index '0', not 0..31"),
    ("PCR true", lambda: document(CHAIN, pcrs={True: bytes(48)}), "the index True"),
    ("PCR of 47", lambda: document(CHAIN, pcrs={0: bytes(47)}), "PCR 0 has 47 bytes, not 48"),
    ("PCR of 32", lambda: document(CHAIN, pcrs={0: bytes(32)}), "PCR 0 has 32 bytes, not 48"),
    ("PCR of 64", lambda: document(CHAIN, pcrs={0: bytes(64)}), "PCR 0 has 64 bytes, not 48"),
    ("PCR a text", lambda: document(CHAIN, pcrs={0: "x" * 48}), "PCR 0 is not a byte string"),
    ("certificate empty", lambda: document(CHAIN, certificate=b""), "certificate has 0 bytes"),
    ("certificate long", lambda: document(CHAIN, certificate=bytes(1025)), "has 1025 bytes"),
    ("cabundle empty", lambda: document(CHAIN, cabundle=[]), "list of 1..16"),
    ("cabundle long", lambda: document(CHAIN, cabundle=[b"x"] * 17), "list of 1..16"),
    ("cabundle bytes", lambda: document(CHAIN, cabundle=b"x"), "list of 1..16"),
    ("cabundle entry empty", lambda: document(CHAIN, cabundle=[b""]), r"cabundle\[0\] has 0"),
    ("cabundle entry long", lambda: document(CHAIN, cabundle=[b"x", bytes(1025)]), r"\[1\] has"),
    ("cabundle entry null", lambda: document(CHAIN, cabundle=[None]), "is not a byte string"),
    ("public_key empty", lambda: document(CHAIN, public_key=b""), "public_key has 0 bytes"),
    ("public_key 1025", lambda: document(CHAIN, public_key=bytes(1025)), "public_key has 1025"),
    ("user_data 513", lambda: document(CHAIN, user_data=bytes(513)), "user_data has 513 bytes"),
    ("user_data text", lambda: document(CHAIN, user_data="x"), "user_data is not a byte string"),
    ("nonce 513", lambda: document(CHAIN, nonce=bytes(513)), "nonce has 513 bytes, not 0..512"),
    ("nonce false", lambda: document(CHAIN, nonce=False), "nonce is not a byte string"),
]


@pytest.mark.parametrize(
    ("make", "message"),
    [row[1:] for row in NOT_CBOR + COSE_RULES],
    ids=[row[0] for row in NOT_CBOR + COSE_RULES],
)
def test_what_is_not_a_cose_sign1(make: Callable[[], bytes], message: str) -> None:
    with pytest.raises(DocumentError, match=message) as caught:
        parse_document(make())
    assert caught.value.step == "cbor"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("make", "message"),
    [row[1:] for row in PAYLOAD_NOT_CBOR + RULES],
    ids=[row[0] for row in PAYLOAD_NOT_CBOR + RULES],
)
def test_what_breaks_a_rule(make: Callable[[], bytes], message: str) -> None:
    with pytest.raises(DocumentError, match=message) as caught:
        parse_document(make())
    assert caught.value.step == "document"
    assert caught.value.hint


def test_a_field_that_is_not_known_may_be_of_a_newer_host() -> None:
    with pytest.raises(DocumentError) as caught:
        parse_document(document(CHAIN, x=1))
    assert caught.value.hint is not None
    assert "newer kmstool" in caught.value.hint


def test_limits_are_accepted() -> None:
    parse_document(
        document(
            CHAIN,
            timestamp=limits.DOCUMENT_TIMESTAMP_MAX,
            pcrs=dict.fromkeys(range(32), bytes(48)),
            cabundle=[b"x" * 400] * 16,
            module_id="i" * 256,
        )
    )


@given(st.binary(max_size=300))
def test_raises_nothing_else(data: bytes) -> None:
    for prefix in (b"", b"\xd2", b"\x84\x44" + HEADER + b"\xa0"):
        with contextlib.suppress(DocumentError):
            parse_document(prefix + data)


@pytest.fixture(scope="module")
def whole() -> tuple[Chain, bytes]:
    return CHAIN, document(CHAIN)


def test_a_cut_document_is_refused_at_every_byte(whole: tuple[Chain, bytes]) -> None:
    _, data = whole
    for length in range(len(data)):
        with pytest.raises(DocumentError):
            parse_document(data[:length])
