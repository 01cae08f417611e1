"""Negative documents that are signed here: right, but for the defect that each is named for."""

from collections.abc import Callable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from support.documents import (
    HEADER,
    HOUR,
    NOW,
    Chain,
    cose,
    document,
    fields,
    issue,
    make_chain,
    p384,
    sign,
    usage,
)
from support.negatives import Made, Negative

from kmstool.attestation.verify import Expectations
from kmstool.emulator.cbor_writer import encode

CHAIN = make_chain()
SECOND = HOUR / 3600
P256 = ec.generate_private_key(ec.SECP256R1())
P521 = ec.generate_private_key(ec.SECP521R1())


def made(data: bytes, root: bytes = CHAIN.root.der, expected: Expectations | None = None) -> Made:
    return Made(data, root, NOW, expected)


def of(**changes: Any) -> Callable[[], Made]:
    """A right chain's signature over a payload with other fields."""
    return lambda: made(document(CHAIN, **changes))


def under(**parts: dict[str, Any]) -> Callable[[], Made]:
    """A document whose chain has a certificate with a defect."""

    def make() -> Made:
        chain = make_chain(**parts)
        return made(document(chain), chain.root.der)

    return make


def entries(*more: bytes, **changes: object) -> Callable[[], Made]:
    """A payload with raw entries after the others."""

    def make() -> Made:
        right = [encode(k) + encode(v) for k, v in fields(CHAIN, **changes).items()]
        payload = b"\xbf" + b"".join([*right, *more]) + b"\xff"
        return made(cose(payload, CHAIN.leaf.key))

    return make


def root_in_cabundle_only() -> Made:
    return made(document(make_chain()))


def ca_as_leaf() -> Made:
    return made(document(Chain(CHAIN.root, CHAIN.cas[:1], CHAIN.cas[1])))


def leaf_as_ca() -> Made:
    below = issue("below", CHAIN.leaf, ca=False)
    return made(document(Chain(CHAIN.root, (*CHAIN.cas, CHAIN.leaf), below)))


def too_deep() -> Made:
    extra = issue("ca3", CHAIN.cas[1], ca=True, path_length=0)
    return made(document(Chain(CHAIN.root, (*CHAIN.cas, extra), issue("leaf", extra, ca=False))))


def signature_of_fewer_bits() -> Made:
    """The number of unused bits of a CA's signature is not signed."""
    for _ in range(40):  # until the last bits happen to be zero, as unused ones must be
        chain = make_chain()
        der = chain.cas[0].der
        if not der[-1] & 3:
            break
    place = len(der) - len(chain.cas[0].certificate.signature) - 1
    bent = der[:place] + b"\x02" + der[place + 1 :]
    bundle = [chain.cabundle[0], bent, chain.cabundle[2]]
    return made(document(chain, cabundle=bundle), chain.root.der)


def order_changed() -> Made:
    root, first, second = CHAIN.cabundle
    return made(document(CHAIN, cabundle=[root, second, first]))


def p521_leaf() -> Made:
    chain = make_chain(leaf={"key": P521})
    return made(cose(encode(fields(chain)), P521, signature=bytes(96)), chain.root.der)


def p521_signature() -> Made:
    chain = make_chain(leaf={"key": P521})
    return made(cose(encode(fields(chain)), P521), chain.root.der)


def another_payload() -> Made:
    signature = sign(HEADER, encode(fields(CHAIN)), CHAIN.leaf.key)
    return made(cose(encode(fields(CHAIN, nonce=b"m" * 16)), CHAIN.leaf.key, signature=signature))


def but(expected: Expectations, **changes: Any) -> Callable[[], Made]:
    return lambda: made(document(CHAIN, **changes), expected=expected)


def pcrs(count: int, length: int = 48, first: int = 0) -> dict[int, bytes]:
    return {first + index: b"\1" * length for index in range(count)}


SIGNED = [
    Negative("root in cabundle only", root_in_cabundle_only, "chain", "another root"),
    Negative("CA as leaf", ca_as_leaf, "chain", "the leaf is a CA"),
    Negative("leaf as CA", leaf_as_ca, "chain", "cA must be asserted"),
    Negative("pathLen exceeded", too_deep, "chain", "path length"),
    Negative("the root's pathLen exceeded", under(root={"path_length": 1}), "chain", "path length"),
    Negative("signature of fewer bits", signature_of_fewer_bits, "chain", "is not whole bytes"),
    Negative("cabundle in another order", order_changed, "chain", "in its order"),
    Negative("P-256 leaf", under(leaf={"key": P256}), "chain", "'CN=leaf' is not on P-384"),
    Negative("P-521 leaf", p521_leaf, "chain", "'CN=leaf' is not on P-384"),
    Negative("P-521 leaf and signature", p521_signature, "cbor", "has 132 bytes, not 96"),
    Negative("P-256 issuer", under(ca2={"key": P256}), "chain", "'CN=ca2' is not on P-384"),
    Negative(
        "leaf signed with SHA-256",
        under(leaf={"digest": hashes.SHA256()}),
        "chain",
        "not signed by ECDSA with SHA-384",
    ),
    Negative(
        "leaf without keyUsage",
        under(leaf={"without": x509.KeyUsage}),
        "chain",
        "2.5.29.15: .*missing",
    ),
    Negative(
        "CA without keyUsage",
        under(ca1={"without": x509.KeyUsage}),
        "chain",
        "2.5.29.15: .*missing",
    ),
    Negative(
        "leaf without basicConstraints",
        under(leaf={"without": x509.BasicConstraints}),
        "chain",
        "2.5.29.19: .*missing",
    ),
    Negative(
        "leaf that may issue",
        under(leaf={"key_usage": usage("digital_signature", "key_cert_sign")}),
        "chain",
        "for signatures alone",
    ),
    Negative(
        "leaf for key agreement",
        under(leaf={"key_usage": usage("key_agreement")}),
        "chain",
        "for signatures alone",
    ),
    Negative(
        "CA that may not issue",
        under(ca2={"key_usage": usage("digital_signature")}),
        "chain",
        "not for certificates",
    ),
    Negative(
        "leaf expired by a second",
        under(leaf={"not_after": NOW - SECOND}),
        "chain",
        "'CN=leaf' is expired",
    ),
    Negative(
        "CA expired by a second",
        under(ca1={"not_after": NOW - SECOND}),
        "chain",
        "'CN=ca1' is expired",
    ),
    Negative(
        "root expired by a second",
        under(root={"not_after": NOW - SECOND}),
        "chain",
        "'CN=root' is expired",
    ),
    Negative(
        "leaf a second early",
        under(leaf={"not_before": NOW + SECOND}),
        "chain",
        "'CN=leaf' is not valid yet",
    ),
    Negative("PCR of 47 bytes", of(pcrs=pcrs(3, 47)), "document", "PCR 0 has 47 bytes, not 48"),
    Negative("33 PCRs", of(pcrs=pcrs(33)), "document", r"map of 1\.\.32 registers"),
    Negative(
        "PCR of index 32", of(pcrs=pcrs(1, first=32)), "document", r"the index 32, not 0\.\.31"
    ),
    Negative("nonce of 513 bytes", of(nonce=bytes(513)), "document", "nonce has 513 bytes"),
    Negative(
        "user_data of 513 bytes", of(user_data=bytes(513)), "document", "user_data has 513 bytes"
    ),
    Negative(
        "public_key of 1,025 bytes",
        of(public_key=bytes(1025)),
        "document",
        "public_key has 1025 bytes",
    ),
    Negative(
        "nonce twice", entries(encode("nonce") + encode(b"m" * 16)), "document", "Duplicate map key"
    ),
    Negative(
        "a PCR twice",
        entries(encode("pcrs") + b"\xa2" + (b"\0" + encode(bytes(48))) * 2, pcrs=...),
        "document",
        "Duplicate map key",
    ),
    Negative(
        "nonce in pieces",
        entries(encode("nonce") + b"\x5f\x41n\xff", nonce=...),
        "document",
        "indefinite length",
    ),
    Negative(
        "a tag in the payload", entries(encode("x") + b"\xc1\0"), "document", "tags are not allowed"
    ),
    Negative("nested 50 deep", entries(encode("x") + b"\x81" * 50 + b"\0"), "document", "depth"),
    Negative("an unknown field", of(x=1), "document", "the field 'x' is not one of"),
    Negative("no certificate", of(certificate=...), "document", "certificate is missing"),
    Negative("timestamp as text", of(timestamp="2026"), "document", "timestamp is '2026'"),
    Negative(
        "signed by another key",
        lambda: made(cose(encode(fields(CHAIN)), p384())),
        "signature",
        "not its leaf certificate's",
    ),
    Negative(
        "another document's signature", another_payload, "signature", "not its leaf certificate's"
    ),
    Negative(
        "another PCR0",
        but(Expectations(pcrs={0: b"\2" * 48}), pcrs=pcrs(3)),
        "expectations",
        "PCR0 is 0101.*, not 0202",
    ),
    Negative(
        "no PCR8",
        but(Expectations(pcrs={8: b"\2" * 48}), pcrs=pcrs(3)),
        "expectations",
        "it has no PCR8",
    ),
    Negative(
        "another nonce",
        but(Expectations(nonce=b"m" * 16)),
        "expectations",
        "its nonce of 16 bytes is not",
    ),
    Negative(
        "no user_data", but(Expectations(user_data=b"")), "expectations", "it has no user_data"
    ),
    Negative(
        "too old",
        but(Expectations(max_age=60), timestamp=int((NOW - HOUR).timestamp() * 1000)),
        "expectations",
        "3600 seconds old, over 60",
    ),
    Negative(
        "of the future",
        but(Expectations(max_age=60), timestamp=int((NOW + HOUR).timestamp() * 1000)),
        "expectations",
        "in the future",
    ),
    Negative(
        "debug mode",
        of(pcrs=dict.fromkeys(range(16), bytes(48))),
        "expectations",
        "started in debug mode",
    ),
]
