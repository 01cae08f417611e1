"""emulator/nsm.py: the simulated module's limits and errors, as the real one and QEMU show them."""

import hashlib
import threading
from collections.abc import Callable
from datetime import UTC, datetime

import cbor2
import pytest

from kmstool import limits
from kmstool.attestation.document import parse_document
from kmstool.attestation.verify import Expectations, own_time, verify_document
from kmstool.emulator.cbor_writer import encode
from kmstool.emulator.nsm import MODULE_ID, MapForm, SimulatedNsm
from kmstool.emulator.signer import SigningChain
from kmstool.errors import DocumentError, SettingError

PCR0 = b"\x11" * 48
ZERO = bytes(48)


@pytest.fixture(scope="module")
def chain() -> SigningChain:
    return SigningChain.generate()


@pytest.fixture
def nsm(chain: SigningChain) -> SimulatedNsm:
    return SimulatedNsm({0: PCR0, 20: b"\x22" * 48}, chain)


def ask(nsm: SimulatedNsm, request: object) -> object:
    return cbor2.loads(nsm.handle(encode(request)))


def error(name: str) -> dict[str, str]:
    return {"Error": name}


def document_of(nsm: SimulatedNsm, **values: object) -> bytes:
    answer = ask(nsm, {"Attestation": {"user_data": None, "nonce": None, **values}})
    assert isinstance(answer, dict)
    document = answer["Attestation"]["document"]
    assert isinstance(document, bytes)
    return document


def test_describe_nsm(nsm: SimulatedNsm) -> None:
    assert ask(nsm, "DescribeNSM") == {
        "DescribeNSM": {
            "version_major": 1,
            "version_minor": 0,
            "version_patch": 0,
            "module_id": MODULE_ID,
            "max_pcrs": 32,
            "locked_pcrs": list(range(16)),
            "digest": "SHA384",
        }
    }


def test_random_is_random_and_of_256_bytes(nsm: SimulatedNsm) -> None:
    first, second = (ask(nsm, "GetRandom") for _ in range(2))
    assert isinstance(first, dict)
    assert len(first["GetRandom"]["random"]) == 256
    assert first != second


def test_pcrs_as_given_locked_at_boot(nsm: SimulatedNsm) -> None:
    for index, lock, data in ((0, True, PCR0), (15, True, ZERO), (16, False, ZERO)):
        answer = ask(nsm, {"DescribePCR": {"index": index}})
        assert answer == {"DescribePCR": {"lock": lock, "data": data}}
    answer = ask(nsm, {"DescribePCR": {"index": 20}})
    assert answer == {"DescribePCR": {"lock": False, "data": b"\x22" * 48}}


def test_extend_hashes_the_old_value_and_the_data(nsm: SimulatedNsm) -> None:
    once = hashlib.sha384(ZERO + b"one").digest()
    twice = hashlib.sha384(once + b"two").digest()
    assert ask(nsm, {"ExtendPCR": {"index": 16, "data": b"one"}}) == {"ExtendPCR": {"data": once}}
    assert ask(nsm, {"ExtendPCR": {"index": 16, "data": b"two"}}) == {"ExtendPCR": {"data": twice}}
    assert ask(nsm, {"DescribePCR": {"index": 16}}) == {
        "DescribePCR": {"lock": False, "data": twice}
    }


def test_a_locked_pcr_stays_as_it_is(nsm: SimulatedNsm) -> None:
    assert ask(nsm, {"LockPCR": {"index": 16}}) == "LockPCR"
    for index in (0, 15, 16):
        extend = {"ExtendPCR": {"index": index, "data": b"x"}}
        assert ask(nsm, extend) == error("ReadOnlyIndex")
        assert ask(nsm, {"LockPCR": {"index": index}}) == error("ReadOnlyIndex")
    assert ask(nsm, {"DescribePCR": {"index": 16}}) == {"DescribePCR": {"lock": True, "data": ZERO}}


def test_a_range_is_locked_from_zero(nsm: SimulatedNsm) -> None:
    assert ask(nsm, {"LockPCRs": {"range": 18}}) == "LockPCRs"
    locked = ask(nsm, "DescribeNSM")
    assert isinstance(locked, dict)
    assert locked["DescribeNSM"]["locked_pcrs"] == list(range(18))


def test_all_of_them_may_be_locked(nsm: SimulatedNsm) -> None:
    assert ask(nsm, {"LockPCRs": {"range": 32}}) == "LockPCRs"
    assert list(parse_document(document_of(nsm)).pcrs) == list(range(32))


def test_the_longest_request_is_read(nsm: SimulatedNsm) -> None:
    request: dict[str, object] = {"DescribePCR": {"index": 0, "more": b""}}
    spare = limits.NSM_REQUEST_MAX - len(encode(request)) - 2
    request = {"DescribePCR": {"index": 0, "more": bytes(spare)}}
    assert len(encode(request)) == limits.NSM_REQUEST_MAX
    assert ask(nsm, request) == {"DescribePCR": {"lock": True, "data": PCR0}}


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        ({"DescribePCR": {"index": 32}}, "InvalidIndex"),
        ({"DescribePCR": {"index": 255}}, "InvalidIndex"),
        ({"ExtendPCR": {"index": 32, "data": b"x"}}, "InvalidIndex"),
        ({"LockPCR": {"index": 32}}, "InvalidIndex"),
        ({"LockPCRs": {"range": 33}}, "InvalidIndex"),
        ({"DescribePCR": {"index": 300}}, "InvalidOperation"),
        ({"DescribePCR": {"index": -1}}, "InvalidOperation"),
        ({"DescribePCR": {"index": True}}, "InvalidOperation"),
        ({"DescribePCR": {}}, "InvalidOperation"),
        ({"ExtendPCR": {"index": 16}}, "InvalidOperation"),
        ({"ExtendPCR": {"index": 16, "data": "text"}}, "InvalidOperation"),
        ({"LockPCRs": {"range": "16"}}, "InvalidOperation"),
        ({"Attestation": {"user_data": "text"}}, "InvalidOperation"),
        ({"Attestation": {"user_data": bytes(513)}}, "InputTooLarge"),
        ({"Attestation": {"nonce": bytes(513)}}, "InputTooLarge"),
        ({"Attestation": {"public_key": bytes(1025)}}, "InputTooLarge"),
        ({"ExtendPCR": {"index": 16, "data": bytes(513)}}, "InputTooLarge"),
        ("Unknown", "InvalidOperation"),
        ({"Unknown": {}}, "InvalidOperation"),
        ({7: {}}, "InvalidOperation"),
        ("LockPCR", "InvalidOperation"),
        ({"GetRandom": {}}, "InvalidOperation"),
        ({"Attestation": None}, "InvalidOperation"),
        ({"DescribePCR": {"index": 0}, "LockPCR": {"index": 16}}, "InvalidOperation"),
        ([], "InvalidOperation"),
        (None, "InvalidOperation"),
        (0, "InvalidOperation"),
    ],
)
def test_errors(nsm: SimulatedNsm, request_: object, name: str) -> None:
    assert ask(nsm, request_) == error(name)


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        (b"", "InvalidOperation"),
        (b"garbage", "InvalidOperation"),
        (encode("GetRandom") + b"\0", "InvalidOperation"),
        (b"\x81" * 4000, "InvalidOperation"),
        (encode({"x": bytes(5000)}), "InputTooLarge"),
    ],
)
def test_errors_of_bytes(nsm: SimulatedNsm, request_: bytes, name: str) -> None:
    assert cbor2.loads(nsm.handle(request_)) == error(name)


# --- Documents ---------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["definite", "indefinite", "random"])
def test_a_document_verifies_and_says_what_was_asked(chain: SigningChain, form: MapForm) -> None:
    nsm = SimulatedNsm({0: PCR0}, chain, form)
    values = {"public_key": b"k" * 1024, "user_data": b"u" * 512, "nonce": b"n" * 512}
    verified = verify_document(
        document_of(nsm, **values),
        root_der=chain.root_der,
        at=datetime.now(UTC),
        expectations=Expectations(
            pcrs={0: PCR0, 1: ZERO},
            public_key=b"k" * 1024,
            user_data=b"u" * 512,
            nonce=b"n" * 512,
            max_age=60,
        ),
    )
    assert verified.document.module_id == MODULE_ID
    assert list(verified.document.pcrs) == list(range(16))
    assert len(verified.chain.certificates) == 5


def test_only_locked_pcrs_are_in_a_document(nsm: SimulatedNsm) -> None:
    ask(nsm, {"LockPCR": {"index": 20}})
    pcrs = parse_document(document_of(nsm)).pcrs
    assert list(pcrs) == [*range(16), 20]
    assert pcrs[20] == b"\x22" * 48


def test_both_map_forms_are_written(chain: SigningChain) -> None:
    def first_byte(form: MapForm) -> bytes:
        return parse_document(document_of(SimulatedNsm({}, chain, form))).payload[:1]

    assert first_byte("definite") == b"\xa9"
    assert first_byte("indefinite") == b"\xbf"
    assert {first_byte("random") for _ in range(64)} == {b"\xa9", b"\xbf"}


@pytest.mark.parametrize("days", [-0.5, 0.0, 1.0, 30.0])
def test_the_clock_is_the_callers(chain: SigningChain, days: float) -> None:
    """The leaf is renewed, so that documents verify whenever they are made."""
    now = datetime.now(UTC).timestamp() + days * 86400
    nsm = SimulatedNsm({}, chain, clock=lambda: now)
    document = document_of(nsm)
    moment = own_time(parse_document(document))
    assert abs(moment.timestamp() - now) < 0.01
    debug = Expectations(allow_debug=True)  # no PCR has a value
    verify_document(document, root_der=chain.root_der, at=moment, expectations=debug)


def test_a_document_is_not_as_long_lived_as_its_signer(chain: SigningChain) -> None:
    document = document_of(SimulatedNsm({}, chain))
    moment = datetime.fromtimestamp(datetime.now(UTC).timestamp() + 4 * 3600, UTC)
    with pytest.raises(DocumentError, match="expired"):
        verify_document(document, root_der=chain.root_der, at=moment)


def test_the_largest_document_fits_the_abi(chain: SigningChain) -> None:
    nsm = SimulatedNsm({}, chain)
    ask(nsm, {"LockPCRs": {"range": 32}})
    request = {"public_key": bytes(1024), "user_data": bytes(512), "nonce": bytes(512)}
    answer = nsm.handle(encode({"Attestation": request}))
    assert len(answer) < limits.NSM_RESPONSE_MAX


def test_an_answer_that_does_not_fit_is_an_error(
    chain: SigningChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "NSM_RESPONSE_MAX", 3000)
    assert ask(SimulatedNsm({}, chain), {"Attestation": {}}) == error("BufferTooSmall")


@pytest.mark.parametrize("pcrs", [{32: ZERO}, {-1: ZERO}, {0: bytes(47)}, {0: bytes(64)}])
def test_pcrs_that_cannot_be(chain: SigningChain, pcrs: dict[int, bytes]) -> None:
    with pytest.raises(SettingError, match="cannot be simulated") as caught:
        SimulatedNsm(pcrs, chain)
    assert caught.value.hint


def test_threads_do_not_lose_an_extension(nsm: SimulatedNsm) -> None:
    def extend() -> None:
        for _ in range(50):
            ask(nsm, {"ExtendPCR": {"index": 16, "data": b"x"}})

    run(extend, 4)
    expected = ZERO
    for _ in range(200):
        expected = hashlib.sha384(expected + b"x").digest()
    assert ask(nsm, {"DescribePCR": {"index": 16}}) == {
        "DescribePCR": {"lock": False, "data": expected}
    }


def run(work: Callable[[], None], count: int) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
