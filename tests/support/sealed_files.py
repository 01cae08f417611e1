"""Sealed files written by other code than kmstool's, from docs/formats/sealed-file.md alone.

Own CBOR, own HKDF, own HPKE key schedule (RFC 9180, sections 4 and 5), own chunks; shared with
kmstool are only the primitives of `cryptography`. Everything is deterministic: keys are made of
names.

    python tests/support/sealed_files.py > tests/vectors/sealed-file.json

A test bends a file by giving `SealedFile` other fields, or by cutting up what `build` returns.
"""

import hashlib
import hmac
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

ACCOUNT = "111122223333"
CHUNK = 65_536
NAME = b"kmstool-sealed-file/1 "


# --- CBOR (RFC 8949, section 4.2.1) ------------------------------------------------------------


def cbor_head(major: int, value: int, *, width: int | None = None) -> bytes:
    """A head; `width` forces a longer one than the shortest."""
    if width is None:
        if value < 24:
            return bytes([major << 5 | value])
        width = next(w for w in (1, 2, 4, 8) if value < 1 << 8 * w)
    return bytes([major << 5 | 24 + (1, 2, 4, 8).index(width)]) + value.to_bytes(width, "big")


def cbor(item: Any) -> bytes:
    if isinstance(item, Raw):
        return item.data
    if isinstance(item, bool):
        return b"\xf5" if item else b"\xf4"
    if isinstance(item, int):
        return cbor_head(0, item) if item >= 0 else cbor_head(1, -1 - item)
    if isinstance(item, bytes):
        return cbor_head(2, len(item)) + item
    if isinstance(item, str):
        return cbor_head(3, len(item.encode())) + item.encode()
    if isinstance(item, list):
        return cbor_head(4, len(item)) + b"".join(map(cbor, item))
    pairs = sorted((cbor(key), cbor(value)) for key, value in item.items())
    return cbor_head(5, len(pairs)) + b"".join(key + value for key, value in pairs)


@dataclass(frozen=True)
class Raw:
    """An encoding that goes in as it is."""

    data: bytes


# --- HKDF (RFC 5869) and HPKE (RFC 9180) -------------------------------------------------------


def extract(algorithm: str, salt: bytes, ikm: bytes) -> bytes:
    return hmac.digest(salt or bytes(hashlib.new(algorithm).digest_size), ikm, algorithm)


def expand(algorithm: str, prk: bytes, info: bytes, length: int) -> bytes:
    okm, block, number = b"", b"", 0
    while len(okm) < length:
        number += 1
        block = hmac.digest(prk, block + info + bytes([number]), algorithm)
        okm += block
    return okm[:length]


@dataclass(frozen=True)
class Kem:
    number: int
    curve: ec.EllipticCurve
    algorithm: str  # of the KEM's KDF, and here also of the key schedule's
    kdf: int
    secret: int  # Nsecret; also Nh
    point: int
    coordinate: int
    spec: str


KEMS = {
    "P-256": Kem(0x0010, ec.SECP256R1(), "sha256", 1, 32, 65, 32, "ECC_NIST_P256"),
    "P-384": Kem(0x0011, ec.SECP384R1(), "sha384", 2, 48, 97, 48, "ECC_NIST_P384"),
    "P-521": Kem(0x0012, ec.SECP521R1(), "sha512", 3, 64, 133, 66, "ECC_NIST_P521"),
}


def point(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


class Suite:
    """One HPKE ciphersuite, mode base. `aead` is its number in RFC 9180, section 7.3."""

    def __init__(self, kem: Kem, *, kdf: int | None = None, aead: int = 2) -> None:
        self.kem = kem
        self.kdf = kdf or kem.kdf
        self.hash = {1: "sha256", 2: "sha384", 3: "sha512"}[self.kdf]
        self.key_length = {1: 16, 2: 32, 3: 32}[aead]
        self.cipher = ChaCha20Poly1305 if aead == 3 else AESGCM
        self.kem_id = b"KEM" + kem.number.to_bytes(2, "big")
        self.id = b"HPKE" + b"".join(n.to_bytes(2, "big") for n in (kem.number, self.kdf, aead))

    def shared_secret(self, dh: bytes, enc: bytes, recipient: bytes) -> bytes:
        """ExtractAndExpand of section 4.1."""
        prk = extract(self.kem.algorithm, b"", b"HPKE-v1" + self.kem_id + b"eae_prk" + dh)
        length = self.kem.secret
        info = length.to_bytes(2, "big") + b"HPKE-v1" + self.kem_id + b"shared_secret"
        return expand(self.kem.algorithm, prk, info + enc + recipient, length)

    def schedule(self, secret: bytes, info: bytes) -> tuple[bytes, bytes]:
        """Key and base nonce: KeySchedule of section 5.1 with mode base."""

        def labeled(salt: bytes, name: bytes, ikm: bytes) -> bytes:
            return extract(self.hash, salt, b"HPKE-v1" + self.id + name + ikm)

        context = b"\0" + labeled(b"", b"psk_id_hash", b"") + labeled(b"", b"info_hash", info)
        prk = labeled(secret, b"secret", b"")

        def out(name: bytes, length: int) -> bytes:
            full = length.to_bytes(2, "big") + b"HPKE-v1" + self.id + name + context
            return expand(self.hash, prk, full, length)

        return out(b"key", self.key_length), out(b"base_nonce", 12)

    def seal(
        self,
        ephemeral: ec.EllipticCurvePrivateKey,
        recipient: ec.EllipticCurvePublicKey,
        info: bytes,
        plaintext: bytes,
        aad: bytes = b"",
    ) -> tuple[bytes, bytes]:
        """`enc` and the first ciphertext."""
        enc = point(ephemeral.public_key())
        secret = self.shared_secret(ephemeral.exchange(ec.ECDH(), recipient), enc, point(recipient))
        key, nonce = self.schedule(secret, info)
        return enc, self.cipher(key).encrypt(nonce, plaintext, aad)

    def open(
        self, private: ec.EllipticCurvePrivateKey, enc: bytes, info: bytes, ciphertext: bytes
    ) -> bytes:
        peer = ec.EllipticCurvePublicKey.from_encoded_point(self.kem.curve, enc)
        dh = private.exchange(ec.ECDH(), peer)
        key, nonce = self.schedule(self.shared_secret(dh, enc, point(private.public_key())), info)
        return self.cipher(key).decrypt(nonce, ciphertext, b"")

    def derive_key_pair(self, ikm: bytes) -> ec.EllipticCurvePrivateKey:
        """DeriveKeyPair of section 7.1.3; for the vectors of the RFC."""
        order = ORDERS[self.kem.number]
        prk = extract(self.kem.algorithm, b"", b"HPKE-v1" + self.kem_id + b"dkp_prk" + ikm)
        size = self.kem.coordinate
        for counter in range(256):
            info = size.to_bytes(2, "big") + b"HPKE-v1" + self.kem_id + b"candidate"
            candidate = bytearray(expand(self.kem.algorithm, prk, info + bytes([counter]), size))
            candidate[0] &= 0x01 if self.kem.number == 0x0012 else 0xFF
            if 0 < int.from_bytes(candidate, "big") < order:
                return ec.derive_private_key(int.from_bytes(candidate, "big"), self.kem.curve)
        raise AssertionError("RFC 9180: DeriveKeyPairError")


ORDERS = {
    0x0010: 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    0x0011: int(
        "ffffffffffffffffffffffffffffffffffffffffffffffff"
        "c7634d81f4372ddf581a0db248b0a77aecec196accc52973",
        16,
    ),
    0x0012: int(
        "01ff" + "f" * 63 + "a51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409", 16
    ),
}


# --- Keys, made from names ---------------------------------------------------------------------


def stream(name: str, length: int) -> bytes:
    """Bytes that look random and are always the same."""
    return b"".join(
        hashlib.sha256(f"{name}/{number}".encode()).digest() for number in range(length // 32 + 1)
    )[:length]


def arn(name: str) -> str:
    digits = stream("id of " + name, 16).hex()
    parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
    return f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/{'-'.join(parts)}"


def private_key(name: str, kem: Kem) -> ec.EllipticCurvePrivateKey:
    scalar = int.from_bytes(stream(name, 80), "big") % (ORDERS[kem.number] - 1) + 1
    return ec.derive_private_key(scalar, kem.curve)


def signing_key(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(stream(name, 32))


@dataclass(frozen=True)
class Hpke:
    """A KMS key-agreement key; `curve` is a name of `KEMS`."""

    name: str
    curve: str = "P-256"
    info: Callable[[str], bytes] = lambda arn: NAME + b"hpke\0" + arn.encode()
    bent: dict[int, Any] = field(default_factory=dict)

    def entry(self, file_key: bytes, salt: bytes) -> dict[int, Any]:
        kem = KEMS[self.curve]
        public = private_key(self.name, kem).public_key()
        ephemeral = private_key(f"ephemeral for {self.name} {salt.hex()}", kem)
        enc, wrapped = Suite(kem).seal(ephemeral, public, self.info(arn(self.name)), file_key)
        made = {1: 1, 2: arn(self.name), 3: wrapped, 4: kem.number, 5: point(public), 6: enc}
        return without_none(made | self.bent)


@dataclass(frozen=True)
class DataKey:
    """A KMS symmetric key and one data key under it."""

    name: str
    context: dict[str, str] = field(default_factory=dict)
    bent: dict[int, Any] = field(default_factory=dict)

    @property
    def data_key(self) -> bytes:
        return stream("data key of " + self.name, 32)

    @property
    def blob(self) -> bytes:
        return stream("blob of " + self.name, 184)

    def entry(self, file_key: bytes, salt: bytes) -> dict[int, Any]:
        key = hkdf(self.data_key, salt, NAME + b"data-key")
        aad = NAME + b"data-key\0" + cbor([arn(self.name), self.blob, self.context])
        wrapped = AESGCM(key).encrypt(bytes(12), file_key, aad)
        made = {1: 2, 2: arn(self.name), 3: wrapped, 7: self.blob, 8: self.context or None}
        return without_none(made | self.bent)


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    return expand("sha256", extract("sha256", salt, secret), info, 32)


def without_none(fields: dict[Any, Any]) -> dict[Any, Any]:
    return {key: value for key, value in fields.items() if value is not None}


# --- Files -------------------------------------------------------------------------------------


def chunks(plaintext: bytes) -> list[tuple[int, bool, bytes]]:
    """Number, whether it is the last, and content of each chunk."""
    pieces = [plaintext[at : at + CHUNK] for at in range(0, len(plaintext) or 1, CHUNK)]
    return [(number, number == len(pieces) - 1, piece) for number, piece in enumerate(pieces)]


@dataclass(frozen=True)
class SealedFile:
    """One file. `bent` replaces fields of the header (None removes one), after the MAC's key."""

    name: str
    plaintext: bytes = b"attack at dawn"
    recipients: Sequence[Hpke | DataKey] = (Hpke("alice"),)
    cipher: int = 1
    label: str | None = None
    counter: int | None = None
    signer: str | None = None
    signed_by: str | None = None
    version: int = 1
    bent: dict[Any, Any] = field(default_factory=dict)
    encode: Callable[[dict[Any, Any]], bytes] = cbor
    chunks: Callable[[bytes], list[tuple[int, bool, bytes]]] = chunks
    mac_key: str | None = None

    @property
    def salt(self) -> bytes:
        return stream("salt of " + self.name, 32)

    @property
    def file_key(self) -> bytes:
        return stream("file key of " + self.name, 32)

    def head(self) -> bytes:
        signer = None if self.signer is None else signing_key(self.signer).public_key()
        fields = {
            1: self.cipher,
            2: self.salt,
            3: [recipient.entry(self.file_key, self.salt) for recipient in self.recipients],
            4: self.label,
            5: self.counter,
            6: None if signer is None else signer.public_bytes_raw(),
        }
        header = self.encode(without_none(fields | self.bent))
        covered = b"kmstool-sealed" + self.version.to_bytes(2, "big")
        covered += len(header).to_bytes(4, "big") + header
        key = hkdf(
            stream(self.mac_key, 32) if self.mac_key else self.file_key,
            self.salt,
            NAME + b"header",
        )
        return covered + hmac.digest(key, covered, "sha256")

    def build(self) -> bytes:
        head = self.head()
        key = hkdf(self.file_key, self.salt, NAME + b"body\0" + head[-32:])
        aead = AESGCM(key) if self.cipher == 1 else ChaCha20Poly1305(key)
        sealed = [
            aead.encrypt(number.to_bytes(11, "big") + bytes([last]), chunk, None)
            for number, last, chunk in self.chunks(self.plaintext)
        ]
        data = head + b"".join(sealed)
        if self.signer is None:
            return data
        message = NAME + b"signature\0" + hashlib.sha256(data).digest()
        return data + signing_key(self.signed_by or self.signer).sign(message)


# --- Vectors -----------------------------------------------------------------------------------

ALICE, BOB, CAROL = Hpke("alice", "P-256"), Hpke("bob", "P-384"), Hpke("carol", "P-521")
DAVE = DataKey("dave")
ERIN = DataKey("erin", {"app": "web", "b": "", "": "empty name", "ä": "ö"})
RECIPIENTS = (ALICE, BOB, CAROL, DAVE, ERIN)
SIGNER, OTHER_SIGNER = "signer", "another signer"
GOOD = (
    SealedFile("P-256", recipients=[ALICE]),
    SealedFile("P-384", recipients=[BOB]),
    SealedFile("P-521", recipients=[CAROL]),
    SealedFile("a data key", recipients=[DAVE]),
    SealedFile("a data key with an encryption context", recipients=[ERIN]),
    SealedFile("ChaCha20-Poly1305", cipher=2),
    SealedFile("an empty plaintext", plaintext=b""),
    SealedFile("five recipients", recipients=RECIPIENTS),
    SealedFile("label and counter", label="configuration ✓", counter=0),
    SealedFile("the greatest counter", counter=2**63 - 1),
    SealedFile("the longest label", label="x" * 256),
    SealedFile("signed", signer=SIGNER, label="release", counter=7),
    SealedFile("an empty plaintext, signed", plaintext=b"", signer=SIGNER),
    SealedFile("fields that are not critical", bent={-1: b"", -24: b"passed over"}),
    SealedFile(
        "a recipient's field that is not critical",
        recipients=[replace(ALICE, bent={-3: b"passed over"})],
    ),
)
TWO_CHUNKS = SealedFile(
    "one chunk and one byte, signed", plaintext=stream("plaintext", CHUNK + 1), signer=SIGNER
)
ONE_CHUNK = SealedFile("one whole chunk", plaintext=stream("plaintext", CHUNK))


def without_order(fields: dict[Any, Any]) -> bytes:
    pairs = [cbor(key) + cbor(value) for key, value in fields.items()]
    return cbor_head(5, len(pairs)) + b"".join(reversed(pairs))


def indefinite(fields: dict[Any, Any]) -> bytes:
    return b"\xbf" + cbor(fields)[1:] + b"\xff"


def twice(fields: dict[Any, Any]) -> bytes:
    pairs = [cbor(key) + cbor(value) for key, value in sorted(fields.items())]
    return cbor_head(5, len(pairs) + 1) + pairs[0] + b"".join(pairs)


OFF_CURVE = b"\x04" + bytes(63) + b"\x01"
COMPRESSED = (
    private_key("alice", KEMS["P-256"])
    .public_key()
    .public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
)


def alice(**bent: Any) -> list[Hpke]:
    return [replace(ALICE, bent={int(key[1:]): value for key, value in bent.items()})]


def dave(**bent: Any) -> list[DataKey]:
    return [replace(DAVE, bent={int(key[1:]): value for key, value in bent.items()})]


HEADER = (
    SealedFile("version 2", version=2),
    SealedFile("version 0", version=0),
    SealedFile("an unknown critical field", bent={7: b""}),
    SealedFile("an unknown critical field of a recipient", recipients=alice(_9=b"")),
    SealedFile("a data key's field in an HPKE recipient", recipients=alice(_7=b"blob")),
    SealedFile("an HPKE field in a data key's recipient", recipients=dave(_4=16)),
    SealedFile("a field number out of range", bent={24: b""}),
    SealedFile("a negative field number out of range", bent={-25: b""}),
    SealedFile("a field that is named, not numbered", bent={"x": b""}),
    SealedFile("a field that is not critical and not of bytes", bent={-1: 0}),
    SealedFile("no way to encrypt the body", bent={1: None}),
    SealedFile("an unknown way to encrypt the body", bent={1: 3}),
    SealedFile("true where 1 is meant", bent={1: True}),
    SealedFile("1.0 where 1 is meant", bent={1: Raw(b"\xf9\x3c\x00")}),
    SealedFile("no salt", bent={2: None}),
    SealedFile("a short salt", bent={2: bytes(31)}),
    SealedFile("no recipients", recipients=[]),
    SealedFile("recipients that are no list", bent={3: {}}),
    SealedFile("65 recipients", recipients=[DAVE] * 65),
    SealedFile("a recipient that is no map", bent={3: [1]}),
    SealedFile("an unknown kind of recipient", recipients=alice(_1=3)),
    SealedFile("a recipient of the kind true", recipients=alice(_1=True)),
    SealedFile("a recipient of the kind 2.0", recipients=dave(_1=Raw(b"\xf9\x40\x00"))),
    SealedFile("a recipient of no kind", recipients=alice(_1=None)),
    SealedFile("an empty label", label=""),
    SealedFile("a label that is too long", label="x" * 257),
    SealedFile("a label of bytes", bent={4: b"label"}),
    SealedFile("a label that is no UTF-8", bent={4: Raw(b"\x61\xff")}),
    SealedFile("a negative counter", counter=-1),
    SealedFile("a counter that is too great", counter=2**63),
    SealedFile("a short signer", bent={6: bytes(31)}),
    SealedFile(
        "an alias for a key", recipients=alice(_2=f"arn:aws:kms:eu-west-1:{ACCOUNT}:alias/a")
    ),
    SealedFile("a bare key id", recipients=alice(_2=arn("alice")[-36:])),
    SealedFile("a short wrapped key", recipients=alice(_3=bytes(47))),
    SealedFile("a long wrapped key", recipients=dave(_3=bytes(49))),
    SealedFile("an unknown KEM", recipients=alice(_4=0x0020)),
    SealedFile("the KEM of another curve", recipients=alice(_4=0x0011)),
    SealedFile("a public key off the curve", recipients=alice(_5=OFF_CURVE)),
    SealedFile("enc off the curve", recipients=alice(_6=OFF_CURVE)),
    SealedFile("a compressed public key", recipients=alice(_5=COMPRESSED)),
    SealedFile("the point at infinity for enc", recipients=alice(_6=b"\0")),
    SealedFile("no enc", recipients=alice(_6=None)),
    SealedFile("an empty blob", recipients=dave(_7=b"")),
    SealedFile("a blob that is too long", recipients=dave(_7=bytes(6145))),
    SealedFile("an empty encryption context that is there", recipients=dave(_8={})),
    SealedFile("an encryption context with a number", recipients=dave(_8={"a": 1})),
    SealedFile("an encryption context that is too long", recipients=dave(_8={"a": "x" * 8192})),
    SealedFile("fields out of order", encode=without_order),
    SealedFile("a map of indefinite length", encode=indefinite),
    SealedFile("a field twice", encode=twice),
    SealedFile("a number with a longer head", bent={1: Raw(b"\x18\x01")}),
    SealedFile("a tag", encode=lambda fields: b"\xd9\xd9\xf7" + cbor(fields)),
    SealedFile("a byte after the header's map", encode=lambda fields: cbor(fields) + b"\0"),
    SealedFile("a header that is no map", encode=lambda fields: cbor([*fields.values()])),
    SealedFile("no header", encode=lambda fields: b""),
)


def empty_last(plaintext: bytes) -> list[tuple[int, bool, bytes]]:
    return [(0, False, plaintext), (1, True, b"")]


def unmarked_last(plaintext: bytes) -> list[tuple[int, bool, bytes]]:
    return [(number, False, piece) for number, _, piece in chunks(plaintext)]


NOT_OPENED = (
    SealedFile("HPKE for another version", recipients=[
        replace(ALICE, info=lambda arn: b"kmstool-sealed-file/2 hpke\0" + arn.encode())
    ]),
    SealedFile("HPKE for another key ARN", recipients=alice(_2=arn("bob"))),
    SealedFile("HPKE with another recipient's public key", recipients=alice(
        _5=point(private_key("mallory", KEMS["P-256"]).public_key())
    )),
    SealedFile("HPKE with another enc", recipients=alice(
        _6=point(private_key("mallory", KEMS["P-256"]).public_key())
    )),
    SealedFile("HPKE with another wrapped key", recipients=alice(_3=bytes(48))),
    SealedFile("a data key for another key ARN", recipients=dave(_2=arn("erin"))),
    SealedFile("a data key with another context", recipients=dave(_8={"app": "other"})),
    SealedFile("a data key with another blob", recipients=dave(_7=b"another")),
    SealedFile("a MAC under another key", mac_key="another file key"),
    SealedFile("a last chunk that is not marked", chunks=unmarked_last),
    SealedFile("a chunk with the number of another", chunks=lambda text: [(1, True, text)]),
    SealedFile("signed by another key", signer=SIGNER, signed_by=OTHER_SIGNER),
)  # fmt: skip
EMPTY_LAST = SealedFile(
    "an empty last chunk after a whole one",
    plaintext=stream("plaintext", CHUNK),
    chunks=empty_last,
)


def edits() -> Iterator[tuple[str, str, list[list[int]], str]]:
    """Name, the file it is made of, the slices of that, and what is expected."""
    two, one = len(TWO_CHUNKS.build()), len(ONE_CHUNK.build())
    head, end = len(TWO_CHUNKS.head()), two - 64
    first, second = [head, head + CHUNK + 16], [head + CHUNK + 16, end]
    signature = [end, two]
    of = TWO_CHUNKS.name
    yield "chunks exchanged", of, [[0, head], second, first, signature], "not opened"
    yield "the first chunk twice", of, [[0, head], first, first, second, signature], "not opened"
    yield "the last chunk twice", of, [[0, end], second, signature], "not opened"
    yield "without the first chunk", of, [[0, head], second, signature], "not opened"
    yield "without the last chunk", of, [[0, second[0]], signature], "not opened"
    yield "without the signature", of, [[0, end]], "not opened"
    yield "without the last byte", of, [[0, two - 1]], "not opened"
    yield "without a body", of, [[0, head], signature], "not opened"
    yield "one chunk without its last byte", ONE_CHUNK.name, [[0, one - 1]], "not opened"
    yield "a byte after the end", ONE_CHUNK.name, [[0, one], [0, 1]], "not opened"
    yield "a head and nothing else", ONE_CHUNK.name, [[0, head - 35]], "not opened"
    yield "a body that is cut in its tag", "P-256", [[0, len(GOOD[0].head()) + 15]], "not opened"
    yield "cut in the MAC", "P-256", [[0, len(GOOD[0].head()) - 1]], "header"
    yield "cut in the header", "P-256", [[0, 100]], "header"
    yield "cut in the length", "P-256", [[0, 18]], "header"
    yield "cut in the magic", "P-256", [[0, 13]], "header"
    yield "an empty file", "P-256", [], "header"
    yield "another magic", "P-256", [[1, len(GOOD[0].build())]], "header"


def vectors() -> dict[str, Any]:
    """The content of tests/vectors/sealed-file.json."""
    files = [described(one, "ok") for one in (*GOOD, ONE_CHUNK, TWO_CHUNKS)]
    files += [described(one, "header") for one in HEADER]
    files += [described(one, "not opened") for one in (*NOT_OPENED, EMPTY_LAST)]
    for name, of, pieces, expect in edits():
        opens_with = next(file["opens_with"] for file in files if file["name"] == of)
        files.append(
            {"name": name, "of": of, "pieces": pieces, "expect": expect, "opens_with": opens_with}
        )
    return {"keys": keys(), "files": files}


def described(file: SealedFile, expect: str) -> dict[str, Any]:
    members: dict[str, Any] = {
        "name": file.name,
        "file": file.build().hex(),
        "expect": expect,
        "opens_with": list(dict.fromkeys(recipient.name for recipient in file.recipients)),
    }
    if expect == "ok":
        members["plaintext"] = {
            "sha256": hashlib.sha256(file.plaintext).hexdigest(),
            "length": len(file.plaintext),
        }
        members |= {"label": file.label, "counter": file.counter, "signer": file.signer}
    return members


def keys() -> dict[str, Any]:
    made: dict[str, Any] = {}
    for one in RECIPIENTS:
        if isinstance(one, DataKey):
            made[one.name] = {
                "arn": arn(one.name),
                "data_key": one.data_key.hex(),
                "ciphertext_blob": one.blob.hex(),
            }
        else:
            key = private_key(one.name, KEMS[one.curve])
            made[one.name] = {"arn": arn(one.name), "private_key": pem(key)}
    made[SIGNER] = {"private_key": pem(signing_key(SIGNER))}
    return made


def pem(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


if __name__ == "__main__":
    print(json.dumps(vectors(), indent=1, ensure_ascii=False))
