"""Negative documents that begin with a real one, whose signature no one can make again.

What is bent fails at the first steps, at the chain, or at the signature.
"""

import base64
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from support.documents import HOUR, make_chain
from support.negatives import Made, Negative

from kmstool.attestation.document import parse_document
from kmstool.attestation.verify import own_time
from kmstool.emulator.cbor_writer import encode
from kmstool.roots import nitro_root_der

SECOND = timedelta(seconds=1)
VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors"
REAL = "attestation-2022-10-13.cbor"
GIB = 1 << 30


def real(
    bend: Callable[[bytes], bytes] = lambda data: data, *, late: timedelta | None = None
) -> Made:
    """The document of 2022, bent, as of its own time or as much later."""
    data = (VECTORS / REAL).read_bytes()
    at = own_time(parse_document(data)) + (late or timedelta())
    return Made(bend(data), nitro_root_der(), at)


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def bend(data: bytes) -> bytes:
        assert data.count(old) >= 1
        return data.replace(old, new, 1)

    return bend


def flipped(*, part: str) -> Callable[[bytes], bytes]:
    """One bit flipped in the middle of a part."""

    def bend(data: bytes) -> bytes:
        parsed = parse_document(data)
        content: bytes = {
            "PCR8": parsed.pcrs[8],
            "nonce": parsed.nonce or b"",
            "signature": parsed.signature,
            "leaf": parsed.certificate,
            "root": parsed.cabundle[0],
            "intermediate": parsed.cabundle[2],
        }[part]
        place = data.index(content) + len(content) // 2
        return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]

    return bend


def rewrapped(**parts: object) -> Callable[[bytes], bytes]:
    """The four parts of the real document, one of them another."""

    def bend(data: bytes) -> bytes:
        parsed = parse_document(data)
        right: dict[str, object] = {
            "protected": parsed.protected,
            "unprotected": {},
            "payload": parsed.payload,
            "signature": parsed.signature,
        }
        return encode(list({**right, **parts}.values()))

    return bend


def leaf_times() -> tuple[datetime, datetime]:
    data = parse_document((VECTORS / REAL).read_bytes())
    certificate = x509.load_der_x509_certificate(data.certificate)
    return certificate.not_valid_before_utc, certificate.not_valid_after_utc


def expired_by_a_second() -> Made:
    return replace(real(), at=leaf_times()[1] + SECOND)


def early_by_a_second() -> Made:
    return replace(real(), at=leaf_times()[0] - SECOND)


def r(name: str, bend: Callable[[bytes], bytes], step: str, says: str) -> Negative:
    return Negative(f"real, {name}", lambda: real(bend), step, says)


BENT = [
    r("cut by a byte", lambda d: d[:-1], "cbor", "premature end"),
    r("a byte after it", lambda d: d + b"\0", "cbor", "1 bytes follow the item"),
    r("twice", lambda d: d * 2, "cbor", "bytes follow the item"),
    r("tag 18 twice", lambda d: b"\xd2\xd2" + d, "cbor", "tags are not allowed"),
    r("tag 17, COSE_Mac0", lambda d: b"\xd1" + d, "cbor", "tags are not allowed"),
    r("tag 18 in two bytes", lambda d: b"\xd8\x12" + d, "cbor", "tags are not allowed"),
    r("tag of self-described CBOR", lambda d: b"\xd9\xd9\xf7" + d, "cbor", "tags are not allowed"),
    r(
        "array of indefinite length",
        lambda d: b"\x9f" + d[1:] + b"\xff",
        "cbor",
        "indefinite length",
    ),
    r("array of five", lambda d: b"\x85" + d[1:] + b"\xf6", "cbor", "an array of four"),
    r(
        "a length of 1 GiB",
        lambda d: d[:7] + b"\x5a" + GIB.to_bytes(4, "big"),
        "cbor",
        "premature end",
    ),
    r("a length of 2^63", lambda d: d[:7] + b"\x5b" + b"\x7f" * 8, "cbor", "premature end"),
    r("nested 3,000 deep", lambda d: b"\x84" + b"\x81" * 3000 + d, "cbor", "depth"),
    r("over 262,144 bytes", lambda d: d + bytes(262_144), "cbor", "over 262144"),
    r("base64 of it", base64.b64encode, "cbor", "not valid CBOR|array of"),
    r("protected a map", rewrapped(protected={1: -35}), "cbor", "protected header is not a byte"),
    r("ES256", rewrapped(protected=encode({1: -7})), "cbor", "the algorithm is -7, not -35"),
    r("ES512", rewrapped(protected=encode({1: -36})), "cbor", "the algorithm is -36, not -35"),
    r("no algorithm", rewrapped(protected=encode({})), "cbor", "anything but the algorithm"),
    r(
        "a key identifier in protected",
        rewrapped(protected=encode({1: -35, 4: b"k"})),
        "cbor",
        "but the algorithm",
    ),
    r(
        "unprotected header filled",
        rewrapped(unprotected={4: b"k"}),
        "cbor",
        "unprotected header is not an empty",
    ),
    r("unprotected nil", rewrapped(unprotected=None), "cbor", "unprotected header is not an empty"),
    r("payload nil", rewrapped(payload=None), "cbor", "the payload is not a byte string"),
    r("payload empty", rewrapped(payload=b""), "cbor", "the payload has 0 bytes"),
    r(
        "payload of 16,385 bytes",
        rewrapped(payload=bytes(16_385)),
        "cbor",
        "the payload has 16385 bytes",
    ),
    r(
        "signature of 95 bytes",
        rewrapped(signature=bytes(95)),
        "cbor",
        "the signature has 95 bytes, not 96",
    ),
    r(
        "signature as DER",
        rewrapped(signature=b"\x30\x64" + bytes(100)),
        "cbor",
        "has 102 bytes, not 96",
    ),
    r("payload a text", rewrapped(payload="x"), "cbor", "the payload is not a byte string"),
    r("payload no map", rewrapped(payload=encode([])), "document", "the payload is not a map"),
    r(
        "payload a nitro-cli JSON",
        rewrapped(payload=b'{"x": 1}'),
        "document",
        "not valid CBOR|not a map",
    ),
    r("a field named twice", replaced(b"user_data", b"module_id"), "document", "Duplicate map key"),
    r(
        "a field renamed",
        replaced(b"user_data", b"user_Data"),
        "document",
        "the field 'user_Data' is not one",
    ),
    r(
        "digest of SHA512",
        replaced(b"SHA384", b"SHA512"),
        "document",
        "digest is 'SHA512', not SHA384",
    ),
    r(
        "a PCR of 47 bytes",
        replaced(b"\x00\x58\x30", b"\x00\x58\x2f"),
        "document",
        "not valid CBOR|PCR",
    ),
    r("PCR8 changed", flipped(part="PCR8"), "signature", "not its leaf certificate's"),
    r("nonce changed", flipped(part="nonce"), "signature", "not its leaf certificate's"),
    r("signature changed", flipped(part="signature"), "signature", "not its leaf certificate's"),
    r(
        "signature of zeros",
        rewrapped(signature=bytes(96)),
        "signature",
        "not its leaf certificate's",
    ),
    r("leaf changed", flipped(part="leaf"), "chain", "does not hold"),
    r("intermediate changed", flipped(part="intermediate"), "chain", "does not hold"),
    r("root changed", flipped(part="root"), "chain", "under another root"),
    Negative("real, expired by one second", expired_by_a_second, "chain", "is expired at"),
    Negative(
        "real, not yet valid by one second", early_by_a_second, "chain", "is not valid yet at"
    ),
    Negative("real, four hours later", lambda: real(late=4 * HOUR), "chain", "is expired at"),
    Negative(
        "real, under another root",
        lambda: replace(real(), root=make_chain().root.der),
        "chain",
        "another root",
    ),
]
