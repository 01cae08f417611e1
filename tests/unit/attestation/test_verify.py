"""attestation/verify.py and chain.py: one defect each, failing at the step where it should."""

import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
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

from kmstool.attestation import chain as chain_module
from kmstool.attestation.chain import ChainCache, VerifiedChain
from kmstool.attestation.document import parse_document
from kmstool.attestation.verify import Expectations, own_time, verify_document, verify_es384
from kmstool.emulator.cbor_writer import encode
from kmstool.errors import DocumentError, SettingError

CHAIN = make_chain()
SECOND = timedelta(seconds=1)


def check(
    data: bytes,
    *,
    root: bytes = CHAIN.root.der,
    at: datetime = NOW,
    expectations: Expectations | None = None,
    chain_cache: ChainCache | None = None,
) -> None:
    verify_document(data, root_der=root, at=at, expectations=expectations, chain_cache=chain_cache)


# --- What verifies -----------------------------------------------------------------------------


@pytest.mark.parametrize("indefinite", [False, True])
@pytest.mark.parametrize("tag", [b"", b"\xd2"])
def test_a_right_document(indefinite: bool, tag: bytes) -> None:
    data = tag + document(CHAIN, indefinite=indefinite)
    verified = verify_document(data, root_der=CHAIN.root.der, at=NOW)
    assert verified.document == parse_document(data)
    assert verified.at == NOW
    assert verified.chain.certificates == (CHAIN.leaf.der, *reversed(CHAIN.cabundle))
    assert verified.chain.not_before == NOW - HOUR


def test_own_time_is_the_timestamp() -> None:
    parsed = parse_document(document(CHAIN, timestamp=1767472867402))
    assert own_time(parsed).isoformat() == "2026-01-03T20:41:07.402000+00:00"


def test_the_time_needs_a_time_zone() -> None:
    with pytest.raises(SettingError, match="time zone"):
        check(document(CHAIN), at=NOW.replace(tzinfo=None))


@pytest.mark.parametrize(
    "at", [NOW - HOUR, NOW + HOUR, NOW + HOUR + timedelta(microseconds=999_999)]
)
def test_validity_is_inclusive(at: datetime) -> None:
    check(document(CHAIN), at=at)


def test_a_leaf_straight_under_the_root() -> None:
    root = issue("root", None, ca=True)
    chain = Chain(root, (), issue("leaf", root, ca=False))
    check(document(chain), root=root.der)


# --- (3) the chain -----------------------------------------------------------------------------


def chain_row(**parts: object) -> Callable[[], tuple[Chain, bytes]]:
    def make() -> tuple[Chain, bytes]:
        chain = make_chain(**parts)  # type: ignore[arg-type]
        return chain, document(chain)

    return make


def root_in_cabundle_only() -> tuple[Chain, bytes]:
    """The mistake of a public demo: trusting what the sender sent."""
    return CHAIN, document(make_chain())


def root_of_the_same_name() -> tuple[Chain, bytes]:
    forged = make_chain()
    return CHAIN, document(forged, cabundle=[CHAIN.root.der, *forged.cabundle[1:]])


def ca_as_leaf() -> tuple[Chain, bytes]:
    chain = Chain(CHAIN.root, CHAIN.cas[:1], CHAIN.cas[1])
    return CHAIN, document(chain)


def root_as_leaf() -> tuple[Chain, bytes]:
    return CHAIN, document(Chain(CHAIN.root, (), CHAIN.root))


def leaf_as_ca() -> tuple[Chain, bytes]:
    """A leaf that issues: anyone who holds an enclave's document key would be Nitro."""
    below = issue("below", CHAIN.leaf, ca=False)
    return CHAIN, document(Chain(CHAIN.root, (*CHAIN.cas, CHAIN.leaf), below))


def path_length_exceeded() -> tuple[Chain, bytes]:
    extra = issue("ca3", CHAIN.cas[1], ca=True, path_length=0)
    leaf = issue("leaf", extra, ca=False)
    return CHAIN, document(Chain(CHAIN.root, (*CHAIN.cas, extra), leaf))


def intermediate_missing() -> tuple[Chain, bytes]:
    return CHAIN, document(CHAIN, cabundle=[CHAIN.cabundle[0], CHAIN.cabundle[2]])


def order_changed() -> tuple[Chain, bytes]:
    root, first, second = CHAIN.cabundle
    return CHAIN, document(CHAIN, cabundle=[root, second, first])


def stranger_in_cabundle() -> tuple[Chain, bytes]:
    stranger = issue("stranger", CHAIN.root, ca=True)
    return CHAIN, document(CHAIN, cabundle=[*CHAIN.cabundle, stranger.der])


def certificate_of_zeros() -> tuple[Chain, bytes]:
    return CHAIN, document(CHAIN, certificate=bytes(64))


def cabundle_of_zeros() -> tuple[Chain, bytes]:
    return CHAIN, document(CHAIN, cabundle=[CHAIN.root.der, bytes(64)])


def trailing_byte_in_certificate() -> tuple[Chain, bytes]:
    return CHAIN, document(CHAIN, certificate=CHAIN.leaf.der + b"\0")


def rsa_leaf() -> tuple[Chain, bytes]:
    chain = make_chain(leaf={"key": RSA})
    return chain, cose(encode(fields(chain)), RSA, signature=bytes(96))


def signed_by_another_ca() -> tuple[Chain, bytes]:
    impostor = replace(CHAIN.cas[1], key=p384())
    return CHAIN, document(Chain(CHAIN.root, CHAIN.cas, issue("leaf", impostor, ca=False)))


BASIC = x509.BasicConstraints
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
RAW_PATH_LENGTH = x509.UnrecognizedExtension(
    x509.ObjectIdentifier("2.5.29.19"), bytes.fromhex("3003020100")
)
NAMES = x509.NameConstraints([x509.DNSName("example")], None)
RSA = rsa.generate_private_key(65537, 2048)
P256 = ec.generate_private_key(ec.SECP256R1())
P521 = ec.generate_private_key(ec.SECP521R1())

CHAIN_DEFECTS: list[tuple[str, Callable[[], tuple[Chain, bytes]], str]] = [
    ("root in cabundle only", root_in_cabundle_only, "another root"),
    ("another root of the same name", root_of_the_same_name, "signature does not match"),
    ("CA as leaf", ca_as_leaf, "the leaf is a CA"),
    ("root as leaf", root_as_leaf, "the leaf is a CA"),
    ("leaf as CA", leaf_as_ca, "cA must be asserted"),
    ("pathLen exceeded", path_length_exceeded, "path length"),
    ("pathLen of the root exceeded", chain_row(root={"path_length": 1}), "path length"),
    ("intermediate missing", intermediate_missing, "issuer of one of its"),
    ("order of cabundle changed", order_changed, "in its order"),
    ("stranger in cabundle", stranger_in_cabundle, "in its order"),
    ("certificate of zeros", certificate_of_zeros, "the leaf is not a certificate"),
    ("cabundle of zeros", cabundle_of_zeros, r"cabundle\[1\] is not a certificate"),
    ("trailing byte in a certificate", trailing_byte_in_certificate, "not a certificate"),
    ("leaf signed by another CA", signed_by_another_ca, "signature does not match"),
    ("P-256 leaf", chain_row(leaf={"key": P256}), "'CN=leaf' is not on P-384"),
    ("P-256 CA", chain_row(ca2={"key": P256}), "'CN=ca2' is not on P-384"),
    ("P-256 root", chain_row(root={"key": P256}), "'CN=root' is not on P-384"),
    ("RSA leaf", rsa_leaf, "'CN=leaf' is not on P-384"),
    ("RSA CA", chain_row(ca2={"key": RSA}), "'CN=leaf' is not signed by ECDSA"),
    (
        "leaf signed with SHA-256",
        chain_row(leaf={"digest": hashes.SHA256()}),
        "'CN=leaf' is not signed by ECDSA with SHA-384",
    ),
    (
        "CA signed with SHA-256",
        chain_row(ca1={"digest": hashes.SHA256()}),
        "'CN=ca1' is not signed by ECDSA with SHA-384",
    ),
    ("leaf expired", chain_row(leaf={"not_after": NOW - SECOND}), "'CN=leaf' is expired"),
    ("CA expired", chain_row(ca1={"not_after": NOW - SECOND}), "'CN=ca1' is expired"),
    ("root expired", chain_row(root={"not_after": NOW - SECOND}), "'CN=root' is expired"),
    ("leaf not valid yet", chain_row(leaf={"not_before": NOW + SECOND}), "'CN=leaf' is not valid"),
    ("CA not valid yet", chain_row(ca2={"not_before": NOW + SECOND}), "'CN=ca2' is not valid yet"),
    ("leaf without keyUsage", chain_row(leaf={"without": x509.KeyUsage}), "2.5.29.15: .* missing"),
    ("CA without keyUsage", chain_row(ca1={"without": x509.KeyUsage}), "2.5.29.15: .* missing"),
    ("root without keyUsage", chain_row(root={"without": x509.KeyUsage}), "2.5.29.15: .* missing"),
    ("leaf without basicConstraints", chain_row(leaf={"without": BASIC}), "2.5.29.19: .*missing"),
    ("CA without basicConstraints", chain_row(ca2={"without": BASIC}), "2.5.29.19: .*missing"),
    ("leaf keyUsage encipher", chain_row(leaf={"key_usage": usage("key_agreement")}), "signatures"),
    (
        "leaf keyUsage certSign",
        chain_row(leaf={"key_usage": usage("digital_signature", "key_cert_sign")}),
        "for signatures alone",
    ),
    (
        "CA keyUsage signature",
        chain_row(ca2={"key_usage": usage("digital_signature")}),
        "not for certificates",
    ),
    ("leaf constraints not critical", chain_row(leaf={"critical": {BASIC: False}}), "critical"),
    ("CA constraints not critical", chain_row(ca1={"critical": {BASIC: False}}), "critical"),
    ("CA usage not critical", chain_row(ca1={"critical": {x509.KeyUsage: False}}), "critical"),
    ("unknown critical in leaf", chain_row(leaf={"extra": [(UNKNOWN, True)]}), "1.2.3.4"),
    ("unknown critical in CA", chain_row(ca1={"extra": [(UNKNOWN, True)]}), "1.2.3.4"),
    (
        "leaf with pathLen",
        chain_row(leaf={"without": BASIC, "extra": [(RAW_PATH_LENGTH, True)]}),
        "path_length must be None",
    ),
    ("name constraints", chain_row(ca1={"extra": [(NAMES, True)]}), "2.5.29.30"),
]


@pytest.mark.parametrize(
    ("make", "message"), [row[1:] for row in CHAIN_DEFECTS], ids=[row[0] for row in CHAIN_DEFECTS]
)
@pytest.mark.parametrize("cached", [False, True])
def test_a_chain_with_one_defect(
    make: Callable[[], tuple[Chain, bytes]], message: str, cached: bool
) -> None:
    chain, data = make()
    cache = ChainCache() if cached else None
    with pytest.raises(DocumentError, match=message) as caught:
        check(data, root=chain.root.der, chain_cache=cache)
    assert caught.value.step == "chain"
    assert not cache


@pytest.mark.parametrize("part", ["root", "ca1", "ca2", "leaf"])
def test_extensions_that_are_not_critical_are_passed_over(part: str) -> None:
    chain = make_chain(**{part: {"extra": [(UNKNOWN, False)]}})
    check(document(chain), root=chain.root.der)


def test_a_p521_leaf_is_refused_before_its_signature_is_looked_at() -> None:
    """A hostile P-521 certificate led another verifier into a panic."""
    chain = make_chain(leaf={"key": P521})
    payload = encode(fields(chain))
    data = cose(payload, P521, signature=bytes(96))
    with pytest.raises(DocumentError, match="'CN=leaf' is not on P-384") as caught:
        check(data, root=chain.root.der)
    assert caught.value.step == "chain"
    with pytest.raises(DocumentError, match="132 bytes") as caught:
        check(cose(payload, P521), root=chain.root.der)
    assert caught.value.step == "cbor"


def test_what_the_library_only_warns_of_is_refused_and_nothing_is_printed() -> None:
    serial = CHAIN.leaf.certificate.serial_number
    length = (serial.bit_length() + 8) // 8
    zero = CHAIN.leaf.der.replace(serial.to_bytes(length, "big"), bytes(length), 1)
    program = (
        "import sys\n"
        "from datetime import UTC, datetime\n"
        "from kmstool.attestation.chain import verify_chain\n"
        "from kmstool.errors import DocumentError\n"
        "root, ca1, ca2, leaf = map(bytes.fromhex, sys.argv[1:])\n"
        "try:\n"
        "    verify_chain(root, (root, ca1, ca2), leaf, datetime(2026, 6, 1, 12, tzinfo=UTC))\n"
        "except DocumentError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *(c.hex() for c in [*CHAIN.cabundle, zero])],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stderr == ""
    assert "the leaf is not a certificate" in done.stdout


def test_a_broken_root_of_ones_own() -> None:
    with pytest.raises(DocumentError, match="the root is not a certificate"):
        check(document(CHAIN, cabundle=[b"no root"]), root=b"no root")


@pytest.mark.parametrize("at", [NOW - HOUR, NOW + HOUR])
def test_time_is_not_blamed_where_it_is_not_the_reason(at: datetime) -> None:
    with pytest.raises(DocumentError, match="the leaf is a CA"):
        check(ca_as_leaf()[1], at=at)


def test_a_name_that_cannot_be_read_is_a_refusal_and_no_type_error() -> None:
    """Found by fuzzing: a common name as BIT STRING in a certificate that has expired."""
    common_name = bytes.fromhex("0603550403")
    bent = CHAIN.leaf.der.replace(common_name + b"\x0c", common_name + b"\x03")
    assert bent != CHAIN.leaf.der
    with pytest.raises(DocumentError, match="a certificate cannot be read"):
        check(document(CHAIN, certificate=bent), at=NOW + HOUR + SECOND)


def test_expired_says_when_and_what_to_do() -> None:
    with pytest.raises(DocumentError, match="2026-06-01T11:00:00Z to 2026-06-01T13:00:00Z") as e:
        check(document(CHAIN), at=NOW + HOUR + SECOND)
    assert e.value.hint is not None
    assert "own timestamp" in e.value.hint


# --- (4) the signature -------------------------------------------------------------------------


def test_signed_by_another_key() -> None:
    with pytest.raises(DocumentError, match="not its leaf certificate's") as caught:
        check(cose(encode(fields(CHAIN)), p384()))
    assert caught.value.step == "signature"


@pytest.mark.parametrize(
    "signature", [bytes(96), bytes(48) + b"\1" * 48, b"\1" * 48 + bytes(48), b"\xff" * 96]
)
def test_signatures_out_of_range(signature: bytes) -> None:
    with pytest.raises(DocumentError) as caught:
        check(cose(encode(fields(CHAIN)), CHAIN.leaf.key, signature=signature))
    assert caught.value.step == "signature"


@pytest.mark.parametrize(
    "change", [lambda s: s[:48] + b"\0" + s[48:], lambda s: s[:-1], lambda s: b""]
)
def test_a_signature_of_another_length(change: Callable[[bytes], bytes]) -> None:
    key = CHAIN.leaf.key
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    signed = encode(["Signature1", HEADER, b"", b"payload"])
    signature = sign(HEADER, b"payload", key)
    verify_es384(key.public_key(), signature, signed)
    with pytest.raises(DocumentError) as caught:
        verify_es384(key.public_key(), change(signature), signed)
    assert caught.value.step == "signature"


def test_the_signature_covers_the_header_and_the_context() -> None:
    payload = encode(fields(CHAIN))
    for protected in (b"", encode({1: -35, 4: b"k"})):
        signature = sign(protected, payload, CHAIN.leaf.key)
        with pytest.raises(DocumentError) as caught:
            check(cose(payload, CHAIN.leaf.key, protected=HEADER, signature=signature))
        assert caught.value.step == "signature"


def test_a_payload_of_another_document() -> None:
    signature = sign(HEADER, encode(fields(CHAIN)), CHAIN.leaf.key)
    other = encode(fields(CHAIN, nonce=b"m" * 16))
    with pytest.raises(DocumentError) as caught:
        check(cose(other, CHAIN.leaf.key, signature=signature))
    assert caught.value.step == "signature"


# --- (5) the expectations ----------------------------------------------------------------------

FULL = document(
    CHAIN,
    public_key=b"key",
    user_data=b"data",
    nonce=b"n" * 16,
    pcrs={0: b"\0" * 48, 1: b"\1" * 48},
)


@pytest.mark.parametrize(
    "expected",
    [
        Expectations(),
        Expectations(pcrs={0: bytes(48)}),
        Expectations(nonce=b"n" * 16, user_data=b"data", public_key=b"key", max_age=0),
    ],
)
def test_what_is_expected_and_there(expected: Expectations) -> None:
    check(FULL, expectations=expected)


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        (Expectations(pcrs={0: b"\1" * 48}), "PCR0 is 0000.*not 0101"),
        (Expectations(pcrs={8: bytes(48)}), "it has no PCR8"),
        (Expectations(nonce=b"m" * 16), "its nonce of 16 bytes"),
        (Expectations(user_data=b"datb"), "its user_data of 4 bytes"),
        (Expectations(user_data=b""), "its user_data of 4 bytes is not the expected one of 0"),
        (Expectations(public_key=b"kez"), "its public_key of 3 bytes"),
    ],
)
def test_what_differs(expected: Expectations, message: str) -> None:
    with pytest.raises(DocumentError, match=message) as caught:
        check(FULL, expectations=expected)
    assert caught.value.step == "expectations"


@pytest.mark.parametrize("name", ["nonce", "user_data", "public_key"])
@pytest.mark.parametrize("value", [None, ...])
def test_what_is_expected_and_not_there(name: str, value: object) -> None:
    data = cose(encode(fields(CHAIN, **{name: value})), CHAIN.leaf.key)
    wanted = {"nonce": b"", "user_data": b"", "public_key": b""}[name]
    expected = {
        "nonce": Expectations(nonce=wanted),
        "user_data": Expectations(user_data=wanted),
        "public_key": Expectations(public_key=wanted),
    }[name]
    with pytest.raises(DocumentError, match=f"it has no {name}") as caught:
        check(data, expectations=expected)
    assert caught.value.step == "expectations"


@pytest.mark.parametrize(
    ("index", "value", "named"),
    [(0, 0, True), (2, 0, True), (3, 0, False), (0, 7, False), (2, 7, False)],
)
def test_a_debug_enclave_is_named(index: int, value: int, named: bool) -> None:
    data = document(CHAIN, pcrs={index: bytes([value]) * 48})
    with pytest.raises(DocumentError) as caught:
        check(data, expectations=Expectations(pcrs={index: b"\1" * 48}))
    assert ("debug mode" in (caught.value.hint or "")) is named


@pytest.mark.parametrize(("age", "passes"), [(0, True), (300, True), (301, False)])
@pytest.mark.parametrize("newer", [0, 1])
def test_age(age: int, passes: bool, newer: int) -> None:
    made = NOW - timedelta(seconds=age - newer)
    data = document(CHAIN, timestamp=int(made.timestamp() * 1000))
    expected = Expectations(max_age=300.0 - newer)
    if passes:
        check(data, expectations=expected)
        return
    with pytest.raises(DocumentError, match="seconds old") as caught:
        check(data, expectations=expected)
    assert caught.value.step == "expectations"


def test_an_age_that_is_no_number_is_over_everything() -> None:
    with pytest.raises(DocumentError, match="seconds old"):
        check(document(CHAIN), expectations=Expectations(max_age=float("nan")))


@pytest.mark.parametrize(("ahead", "passes"), [(60, True), (61, False)])
def test_a_document_from_the_future(ahead: int, passes: bool) -> None:
    data = document(CHAIN, timestamp=int(NOW.timestamp() + ahead) * 1000)
    if passes:
        check(data, expectations=Expectations(max_age=300))
        return
    with pytest.raises(DocumentError, match="61 seconds in the future"):
        check(data, expectations=Expectations(max_age=300))


# --- The cache ---------------------------------------------------------------------------------


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts how often a chain is verified in earnest."""
    calls: list[int] = []
    real = chain_module.verify_chain

    def verify_chain(
        root_der: bytes, cabundle: tuple[bytes, ...], leaf: bytes, at: datetime
    ) -> VerifiedChain:
        calls.append(1)
        return real(root_der, cabundle, leaf, at)

    monkeypatch.setattr(chain_module, "verify_chain", verify_chain)
    return calls


def test_the_cache_spares_the_chain_and_nothing_else(counted: list[int]) -> None:
    cache = ChainCache()
    for number in range(5):
        check(document(CHAIN, nonce=bytes([number])), chain_cache=cache)
    assert len(counted) == 1
    with pytest.raises(DocumentError) as caught:
        check(cose(encode(fields(CHAIN)), p384()), chain_cache=cache)
    assert caught.value.step == "signature"


@pytest.mark.parametrize("at", [NOW - HOUR - SECOND, NOW + HOUR + SECOND])
def test_the_cache_looks_at_the_time(at: datetime) -> None:
    cache = ChainCache()
    check(document(CHAIN), chain_cache=cache)
    with pytest.raises(DocumentError, match=r"not valid yet|expired") as caught:
        check(document(CHAIN), at=at, chain_cache=cache)
    assert caught.value.step == "chain"
    check(document(CHAIN), chain_cache=cache)


def test_the_cached_validity_is_that_of_the_shortest(counted: list[int]) -> None:
    chain = make_chain(ca1={"not_after": NOW + SECOND}, ca2={"not_before": NOW - SECOND})
    cache = ChainCache()
    check(document(chain), root=chain.root.der, chain_cache=cache)
    check(document(chain), root=chain.root.der, chain_cache=cache, at=NOW - SECOND)
    check(document(chain), root=chain.root.der, chain_cache=cache, at=NOW + SECOND)
    assert len(counted) == 1
    for at in (NOW - 2 * SECOND, NOW + 2 * SECOND):
        with pytest.raises(DocumentError):
            check(document(chain), root=chain.root.der, chain_cache=cache, at=at)


def test_the_cache_is_asked_for_the_very_bytes() -> None:
    cache = ChainCache()
    check(document(CHAIN), chain_cache=cache)
    for part in range(4):
        certificates = [CHAIN.leaf.der, *CHAIN.cabundle]
        certificates[part] = bytes([*certificates[part][:-1], certificates[part][-1] ^ 1])
        data = document(CHAIN, certificate=certificates[0], cabundle=certificates[1:])
        with pytest.raises(DocumentError) as caught:
            check(data, chain_cache=cache)
        assert caught.value.step == "chain"


def test_the_cache_does_not_answer_for_another_root() -> None:
    cache = ChainCache()
    check(document(CHAIN), chain_cache=cache)
    with pytest.raises(DocumentError, match="another root"):
        check(document(CHAIN), root=make_chain().root.der, chain_cache=cache)


def test_the_cache_is_bounded_and_forgets_the_oldest(counted: list[int]) -> None:
    cache = ChainCache(2)
    chains = [make_chain() for _ in range(3)]

    def use(number: int) -> None:
        chain = chains[number]
        check(document(chain), root=chain.root.der, chain_cache=cache)

    for number in (0, 1, 0, 2):  # 1 is now the one not used for longest
        use(number)
    assert (len(cache), len(counted)) == (2, 3)
    use(0)
    use(2)
    assert len(counted) == 3
    use(1)
    assert (len(cache), len(counted)) == (2, 4)


def test_the_cache_may_be_shared_by_threads() -> None:
    cache = ChainCache(1)
    documents = [(chain.root.der, document(chain)) for chain in (CHAIN, make_chain())]
    failures: list[Exception] = []

    def work() -> None:
        try:
            for root, data in documents * 5:
                check(data, root=root, chain_cache=cache)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(cache) == 1
