"""Attestation documents by the thousand: right ones in many forms, and bent ones of every kind.

`Mutator` is given bases (real documents and ones signed here) and a seed, and makes one case after
the other. What is bent before it is signed again reaches the steps behind the signature; what is
bent after it does not.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from support.documents import HEADER, Chain, fields, issue, make_chain, sign, usage
from support.oracle import Case

from kmstool.emulator.cbor_writer import encode

AT = datetime(2025, 6, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
ORDER = int(  # of P-384 (FIPS 186-4, D.1.2.4)
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    16,
)


@dataclass
class Base:
    """A right document: where `chain` is known, its parts can be changed and signed again."""

    root: int
    time: int
    document: bytes
    chain: Chain | None = None


@dataclass
class Mutator:
    """Makes cases; the same seed makes the same choices."""

    bases: Sequence[Base]
    seed: int
    dice: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)

    def case(self) -> Case:
        """The next case."""
        kinds: tuple[tuple[int, Callable[[Base], Case]], ...] = (
            (46, self.bent_bytes),
            (14, self.another_form),
            (16, self.changed_fields),
            (8, self.changed_encoding),
            (8, self.changed_certificates),
            (4, self.another_time),
            (4, self.another_signature),
        )
        make = self.dice.choices([kind[1] for kind in kinds], [kind[0] for kind in kinds])[0]
        return make(self.dice.choice(self.bases))

    # --- After the signature ---------------------------------------------------------------------

    def bent_bytes(self, base: Base) -> Case:
        """One or a few bytes flipped, set, put in, taken out, doubled; cut; parts of another."""
        data = bytearray(base.document)
        for _ in range(self.dice.choice((1, 1, 1, 2, 4))):
            self._bend(data)
        return Case(base.root, base.time, bytes(data))

    def _bend(self, data: bytearray) -> None:
        # Half of the time among the first bytes, where one byte is a head of CBOR more often.
        end = len(data) if self.dice.random() < 0.5 else min(len(data), 120)
        place = self.dice.randrange(max(1, end))
        way = self.dice.randrange(8)
        if way < 3 and data:
            data[place] ^= 1 << self.dice.randrange(8)
        elif way == 3 and data:
            data[place] = self.dice.choice((0, 1, 0x7F, 0x80, 0xA0, 0xBF, 0xF6, 0xFF, 0x5F, 0xD2))
        elif way == 4:
            data[place:place] = self.dice.randbytes(self.dice.randrange(1, 5))
        elif way == 5:
            del data[place : place + self.dice.randrange(1, 9)]
        elif way == 6:
            other = self.dice.choice(self.bases).document
            data[place : place + 16] = other[place : place + 16]
        else:
            piece = data[place : place + self.dice.randrange(1, 40)]
            data[place:place] = piece

    def another_form(self, base: Base) -> Case:
        """The same four parts, written in another form of CBOR, with tags, or with bytes after."""
        _, payload, signature = cose_parts(base.document)
        parts = [self._head(2, HEADER), b"\xa0", self._head(2, payload), self._head(2, signature)]
        way = self.dice.randrange(12)
        array = self._long_head(4, 4)
        if way == 0:
            return Case(base.root, base.time, b"\x9f" + b"".join(parts) + b"\xff")
        if way == 1:
            place = self.dice.choice((0, 2, 3))
            content = (HEADER, b"", payload, signature)[place]
            cut = self.dice.randrange(len(content))
            pieces = encode(content[:cut]) + encode(content[cut:])
            parts[place] = b"\x5f" + pieces + b"\xff"
        if way == 2:
            parts[1] = self.dice.choice(
                (b"\xbf\xff", b"\xb8\x00", b"\xa1\x04\x41k", b"\xf6", b"\x80")
            )
        if way == 3:
            parts[0] = encode(
                self.dice.choice(
                    (
                        b"\xbf\x01\x38\x22\xff",
                        b"\xa1\x18\x01\x38\x22",
                        b"\xa1\x01\x39\x00\x22",
                        b"",
                        b"\xa0",
                        encode({1: -7}),
                        encode({1: -36}),
                        encode({1: -35, 4: b"k"}),
                    )
                )
            )
        tag = b""
        if way in (4, 5, 6):
            tag = self.dice.choice((b"\xd2", b"\xd8\x12", b"\xd2\xd2", b"\xd1", b"\xd9\xd9\xf7"))
        after = self.dice.choice((b"\0", b"\xf6", b"\xff", b"x" * 9)) if way == 7 else b""
        return Case(base.root, base.time, tag + array + b"".join(parts) + after)

    def _head(self, major: int, content: bytes) -> bytes:
        return self._long_head(major, len(content)) + content

    def _long_head(self, major: int, value: int) -> bytes:
        """A head of CBOR, sometimes in more bytes than it needs."""
        least = next(n for n, top in enumerate((24, 1 << 8, 1 << 16, 1 << 32)) if value < top)
        size = self.dice.choice((least, least, least, *range(least, 5)))
        if size == 0:
            return bytes([major << 5 | value])
        return bytes([major << 5 | 23 + size]) + value.to_bytes(1 << size - 1, "big")

    def another_signature(self, base: Base) -> Case:
        """(r, n - s) holds as (r, s) does; the others do not."""
        _, payload, signature = cose_parts(base.document)
        r, s = signature[:48], signature[48:]
        negative = (ORDER - int.from_bytes(s, "big")).to_bytes(48, "big")
        choice: bytes = self.dice.choice(
            (
                r + negative,
                r + negative,
                s + r,
                bytes(96),
                r + bytes(48),
                b"\xff" * 96,
                r,
                r + s + b"\0",
            )
        )
        data = b"\x84" + encode(HEADER) + b"\xa0" + encode(payload) + encode(choice)
        return Case(base.root, base.time, data)

    def another_time(self, base: Base) -> Case:
        """Around the ends of validity, and anywhere."""
        near = self.dice.choice((-3600, 3600, 0, -10_800, 10_800))
        step = self.dice.choice((-2, -1, 0, 1, 2))
        far = self.dice.randrange(-(10**8), 10**8) if self.dice.random() < 0.2 else 0
        return Case(base.root, base.time + near + step + far, base.document)

    # --- Before the signature --------------------------------------------------------------------

    def _signed(self, base: Base, payload: bytes) -> Case:
        assert base.chain is not None
        signature = sign(HEADER, payload, base.chain.leaf.key)
        return Case(base.root, base.time, encode([HEADER, {}, payload, signature]))

    def _own(self, base: Base) -> tuple[Base, Chain]:
        while base.chain is None:
            base = self.dice.choice(self.bases)
        return base, base.chain

    def changed_fields(self, base: Base) -> Case:
        """One field, or two, with another value: right ones, at a bound, over it, another type."""
        base, chain = self._own(base)
        changes = dict([self._change() for _ in range(self.dice.choice((1, 1, 2)))])
        content = fields(chain, **{"timestamp": base.time * 1000, **changes})
        if self.dice.random() < 0.2:
            items = list(content.items())
            self.dice.shuffle(items)
            content = dict(items)
        return self._signed(base, encode(content))

    def _change(self) -> tuple[str, Any]:
        octets = self.dice.randbytes
        lengths = self.dice.choice
        name: str = self.dice.choice(
            ("public_key", "user_data", "nonce", "pcrs", "module_id", "digest", "timestamp", "more")
        )
        if self.dice.random() < 0.06:
            return name, self.dice.choice((..., None, 1, -1, "x", b"x", [], {}, True))
        if name == "public_key":
            return name, octets(lengths((1, 2, 294, 1024, 1024, 1025, 0)))
        if name in ("user_data", "nonce"):
            return name, octets(lengths((1, 16, 20, 32, 511, 512, 512, 513, 0)))
        if name == "pcrs":
            count = lengths((1, 3, 4, 16, 16, 24, 31, 32, 33))
            first = lengths((0, 0, 0, 0, 0, 1, 8))
            size = lengths((48, 48, 48, 48, 48, 48, 47, 49, 32, 64, 0))
            return name, {first + index: octets(size) for index in range(count)}
        if name == "module_id":
            return name, lengths(("i-1-enc2", "i", "", "i" * 256, "i" * 257, "i\n", "é", "\x1b[2J"))
        if name == "digest":
            return name, lengths(("SHA384", "SHA384", "SHA512", "SHA256", "sha384", ""))
        if name == "timestamp":
            now = int(AT.timestamp() * 1000)
            return name, lengths((now, now + 1, now - 10**9, 0, -1, 1, 2**53, 2**63, 2**64 - 1))
        return lengths(("x", "certificates", "Nonce")), lengths((None, 1, b"x"))

    def changed_encoding(self, base: Base) -> Case:
        """The right fields, written as a map of either form, with long heads, twice, in pieces."""
        base, chain = self._own(base)
        content = fields(chain, timestamp=base.time * 1000, nonce=self.dice.randbytes(16))
        way = self.dice.randrange(9)
        entries = [encode(name) + encode(value) for name, value in content.items()]
        if way == 0:
            entries.append(self.dice.choice(entries))
        elif way == 1:
            name = self.dice.choice(list(content))
            entries.append(encode(name) + b"\xf6")
        elif way == 2:
            place = self.dice.randrange(len(entries))
            entries[place] = self._in_pieces(list(content.items())[place])
        elif way == 3:
            place = self.dice.randrange(len(entries))
            name, value = list(content.items())[place]
            entries[place] = self._head(3, str(name).encode()) + (
                self._head(2, value) if isinstance(value, bytes) else encode(value)
            )
        elif way == 8:
            place = list(content).index("pcrs")
            pair = encode(self.dice.randrange(3)) + encode(bytes(48))
            entries[place] = encode("pcrs") + b"\xa4" + pair + entries[place][6:159]
        body = b"".join(entries)
        head = bytes([0xA0 | len(entries)])
        payload = head + body if self.dice.random() < 0.5 else b"\xbf" + body + b"\xff"
        if way == 4:
            payload += self.dice.choice((b"\0", b"\xf6", b"\xff"))
        elif way == 5:
            payload = self.dice.choice((b"\xd9\xd9\xf7", b"\xc1")) + payload
        return self._signed(base, payload)

    def _in_pieces(self, item: tuple[object, object]) -> bytes:
        name, value = item
        if isinstance(value, bytes):
            return encode(name) + b"\x5f" + encode(value[:7]) + encode(value[7:]) + b"\xff"
        if isinstance(value, str):
            return encode(name) + b"\x7f" + encode(value[:2]) + encode(value[2:]) + b"\xff"
        if isinstance(value, list):
            return encode(name) + b"\x9f" + b"".join(map(encode, value)) + b"\xff"
        if isinstance(value, dict):
            pairs = (encode(key) + encode(entry) for key, entry in value.items())
            return encode(name) + b"\xbf" + b"".join(pairs) + b"\xff"
        return encode(name) + encode(value)

    def changed_certificates(self, base: Base) -> Case:
        """A bent byte in a certificate; certificates in another order, twice, missing, foreign."""
        base, chain = self._own(base)
        leaf, bundle = chain.leaf.der, chain.cabundle
        way = self.dice.randrange(8)
        if way < 4:
            place = self.dice.randrange(-1, len(bundle))
            bent = bytearray(leaf if place < 0 else bundle[place])
            spot = self.dice.randrange(len(bent))
            bent[spot] ^= 1 << self.dice.randrange(8)
            if place < 0:
                leaf = bytes(bent)
            else:
                bundle[place] = bytes(bent)
        elif way == 4:
            self.dice.shuffle(bundle)
        elif way == 5:
            bundle.insert(self.dice.randrange(len(bundle) + 1), self.dice.choice(bundle))
        elif way == 6:
            del bundle[self.dice.randrange(len(bundle))]
        else:
            _, other = self._own(self.dice.choice(self.bases))
            bundle.insert(self.dice.randrange(len(bundle) + 1), self.dice.choice(other.cabundle))
        content = fields(chain, timestamp=base.time * 1000, certificate=leaf, cabundle=bundle)
        return self._signed(base, encode(content))


def cose_parts(document: bytes) -> tuple[bytes, bytes, bytes]:
    """Header, payload and signature of a right document: array, header and map have known heads."""
    body = document[1:] if document[:1] == b"\xd2" else document
    assert body[:8] == b"\x84\x44" + HEADER + b"\xa0\x59"
    length = int.from_bytes(body[8:10], "big")
    return HEADER, body[10 : 10 + length], body[10 + length + 2 :]


LIFE = {"not_before": AT - HOUR, "not_after": AT + HOUR}


def chain_of(**changes: dict[str, Any]) -> Chain:
    """Root, two intermediates and leaf, valid around `AT`; changes as for `make_chain`."""
    return make_chain(**{name: {**LIFE, **changes.get(name, {})} for name in PLACES})


PLACES = ("root", "ca1", "ca2", "leaf")
_UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")


def chains() -> list[tuple[Chain, int]]:
    """Right chains, and chains with one defect each, with how often each should be chosen."""
    p256, p521 = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP521R1())
    root = issue("root", None, ca=True, **LIFE)  # type: ignore[arg-type]
    short = Chain(root, (), issue("leaf", root, ca=False, **LIFE))  # type: ignore[arg-type]
    below = chain_of()
    deep = issue("ca3", below.cas[1], ca=True, path_length=0, **LIFE)  # type: ignore[arg-type]
    too_deep = issue("leaf", deep, ca=False, **LIFE)  # type: ignore[arg-type]
    under_leaf = issue("below", below.leaf, ca=False, **LIFE)  # type: ignore[arg-type]
    bent = [
        Chain(below.root, (*below.cas, deep), too_deep),
        Chain(below.root, (*below.cas, below.leaf), under_leaf),
        Chain(below.root, below.cas[:1], below.cas[1]),
        chain_of(root={"path_length": 1}),
        chain_of(ca2={"key": p256}),
        chain_of(root={"key": p256}),
        chain_of(ca2={"key": p521}),
    ]
    for place in PLACES:
        bent += [
            chain_of(**{place: {"without": x509.KeyUsage}}),
            chain_of(**{place: {"without": x509.BasicConstraints}}),
            chain_of(**{place: {"critical": {x509.BasicConstraints: False}}}),
            chain_of(**{place: {"key_usage": usage("key_agreement")}}),
            chain_of(**{place: {"extra": [(_UNKNOWN, True)]}}),
            chain_of(**{place: {"extra": [(_UNKNOWN, False)]}}),
            chain_of(**{place: {"digest": hashes.SHA256()}}),
            chain_of(**{place: {"not_before": AT + SECOND}}),
            chain_of(**{place: {"not_after": AT - SECOND}}),
            chain_of(**{place: {"not_before": AT}}),
            chain_of(**{place: {"not_after": AT}}),
        ]
    return [(short, 60), *((chain_of(), 20) for _ in range(4)), *((chain, 1) for chain in bent)]
