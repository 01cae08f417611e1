"""enclave/nsm.py and nsm_answers.py: requests byte for byte, answers bent one by one, the ioctl."""

import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmstool.emulator.cbor_writer import encode
from kmstool.enclave import nsm_answers
from kmstool.enclave.nsm import NSM_IOCTL, DevNsm, Nsm, NsmDescription, Pcr
from kmstool.errors import InputError, KmstoolError, NsmError, SettingError

DESCRIPTION = {
    "version_major": 1,
    "version_minor": 2,
    "version_patch": 3,
    "module_id": "i-0-enc0",
    "max_pcrs": 32,
    "locked_pcrs": [0, 2, 1],
    "digest": "SHA384",
}


class Canned:
    """A transport that gives one answer and keeps the request."""

    def __init__(self, answer: object, *, raw: bool = False) -> None:
        self.answer = answer if raw else encode(answer)
        self.request = b""
        self.closed = False

    def exchange(self, request: bytes) -> bytes:
        self.request = request
        assert isinstance(self.answer, bytes)
        return self.answer

    def close(self) -> None:
        self.closed = True


Call = Callable[[Nsm], object]
P48 = bytes(range(48))

ROUNDS: list[tuple[str, Call, object, object, object]] = [
    (
        "DescribeNSM",
        lambda nsm: nsm.describe_nsm(),
        "DescribeNSM",
        {"DescribeNSM": DESCRIPTION},
        NsmDescription((1, 2, 3), "i-0-enc0", 32, (0, 1, 2), "SHA384"),
    ),
    (
        "GetRandom",
        lambda nsm: nsm.get_random(),
        "GetRandom",
        {"GetRandom": {"random": b"r" * 256}},
        b"r" * 256,
    ),
    (
        "Attestation with nothing",
        lambda nsm: nsm.attestation(),
        {"Attestation": {"user_data": None, "nonce": None, "public_key": None}},
        {"Attestation": {"document": b"doc"}},
        b"doc",
    ),
    (
        "Attestation with everything",
        lambda nsm: nsm.attestation(public_key=b"k" * 1024, user_data=b"u" * 512, nonce=b"n" * 512),
        {
            "Attestation": {
                "user_data": b"u" * 512,
                "nonce": b"n" * 512,
                "public_key": b"k" * 1024,
            }
        },
        {"Attestation": {"document": b"doc"}},
        b"doc",
    ),
    (
        "Attestation of a birth",
        lambda nsm: nsm.attest_birth(b"d" * 48),
        {
            "Attestation": {
                "user_data": b"kmstool-birth-1" + b"d" * 48,
                "nonce": None,
                "public_key": None,
            }
        },
        {"Attestation": {"document": b"doc"}},
        b"doc",
    ),
    (
        "Attestation of words near the reserved ones",
        lambda nsm: nsm.attestation(user_data=b"kmstool", nonce=b"kmstool-birth-1"),
        {"Attestation": {"user_data": b"kmstool", "nonce": b"kmstool-birth-1", "public_key": None}},
        {"Attestation": {"document": b"doc"}},
        b"doc",
    ),
    (
        "DescribePCR",
        lambda nsm: nsm.describe_pcr(31),
        {"DescribePCR": {"index": 31}},
        {"DescribePCR": {"lock": True, "data": P48}},
        Pcr(True, P48),
    ),
    (
        "ExtendPCR",
        lambda nsm: nsm.extend_pcr(16, b"x" * 512),
        {"ExtendPCR": {"index": 16, "data": b"x" * 512}},
        {"ExtendPCR": {"data": P48}},
        P48,
    ),
    ("LockPCR", lambda nsm: nsm.lock_pcr(16), {"LockPCR": {"index": 16}}, "LockPCR", None),
    ("LockPCRs", lambda nsm: nsm.lock_pcrs(32), {"LockPCRs": {"range": 32}}, "LockPCRs", None),
    ("LockPCRs of one", lambda nsm: nsm.lock_pcrs(1), {"LockPCRs": {"range": 1}}, "LockPCRs", None),
    ("LockPCR zero", lambda nsm: nsm.lock_pcr(0), {"LockPCR": {"index": 0}}, "LockPCR", None),
]
CALLS: dict[str, Call] = {name: call for name, call, *_ in ROUNDS if " " not in name}
CALLS["Attestation"] = lambda nsm: nsm.attestation()


@pytest.mark.parametrize(
    ("call", "request_", "answer", "result"), [r[1:] for r in ROUNDS], ids=[r[0] for r in ROUNDS]
)
def test_a_request_and_its_answer(
    call: Call, request_: object, answer: object, result: object
) -> None:
    transport = Canned(answer)
    with Nsm(transport) as nsm:
        assert call(nsm) == result
    assert transport.request == encode(request_)
    assert transport.closed


# --- Bounds of a request -----------------------------------------------------------------------

OUT_OF_BOUNDS: list[tuple[Call, type[KmstoolError], str]] = [
    (lambda nsm: nsm.attestation(public_key=b""), InputError, "public_key has 0 bytes"),
    (lambda nsm: nsm.attestation(public_key=bytes(1025)), InputError, "public_key has 1025"),
    (lambda nsm: nsm.attestation(user_data=bytes(513)), InputError, "user_data has 513 bytes"),
    (lambda nsm: nsm.attestation(nonce=bytes(513)), InputError, "nonce has 513 bytes"),
    (lambda nsm: nsm.attest_birth(bytes(47)), InputError, "statement_digest has 47 bytes"),
    (lambda nsm: nsm.attest_birth(bytes(49)), InputError, "statement_digest has 49 bytes"),
    # Today's tag, tomorrow's, and whatever else would be kmstool's own word.
    (lambda nsm: nsm.attestation(user_data=b"kmstool-birth-1"), InputError, "is reserved"),
    (
        lambda nsm: nsm.attestation(user_data=b"kmstool-birth-1" + bytes(48), nonce=b"n" * 16),
        InputError,
        "is reserved",
    ),
    (lambda nsm: nsm.attestation(user_data=b"kmstool-birth-2"), InputError, "is reserved"),
    (lambda nsm: nsm.attestation(user_data=b"kmstool-"), InputError, "is reserved"),
    (lambda nsm: nsm.extend_pcr(16, b""), InputError, "data has 0 bytes"),
    (lambda nsm: nsm.extend_pcr(16, bytes(513)), InputError, "data has 513 bytes"),
    (lambda nsm: nsm.extend_pcr(32, b"x"), SettingError, "no PCR 32"),
    (lambda nsm: nsm.describe_pcr(-1), SettingError, "no PCR -1"),
    (lambda nsm: nsm.lock_pcr(32), SettingError, "no PCR 32"),
    (lambda nsm: nsm.lock_pcrs(0), SettingError, "no range of 0"),
    (lambda nsm: nsm.lock_pcrs(33), SettingError, "no range of 33"),
]


@pytest.mark.parametrize(("call", "kind", "message"), OUT_OF_BOUNDS)
def test_a_request_out_of_bounds_is_not_sent(
    call: Call, kind: type[KmstoolError], message: str
) -> None:
    transport = Canned("LockPCR")
    with pytest.raises(kind, match=message) as caught:
        call(Nsm(transport))
    assert caught.value.hint
    assert transport.request == b""


# --- Answers -----------------------------------------------------------------------------------

ABI_ERRORS = [
    *("InvalidArgument", "InvalidResponse", "ReadOnlyIndex", "InvalidIndex"),
    *("BufferTooSmall", "InputTooLarge", "InvalidOperation", "InternalError"),
]


def test_each_error_has_its_own_message_and_a_hint() -> None:
    messages = set()
    for code in ABI_ERRORS:
        with pytest.raises(NsmError, match=f"refused GetRandom: {code}: ") as caught:
            Nsm(Canned({"Error": code})).get_random()
        assert caught.value.code == code
        assert caught.value.hint
        messages.add(str(caught.value).partition(f"{code}: ")[2])
    assert len(messages) == len(ABI_ERRORS)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    "answer",
    [
        {"Error": "Unheard"},
        {"Error": None},
        {"Error": {"InvalidIndex": 1}},
        "Error",
        {},
        [],
        None,
        0,
        b"GetRandom",
        {"Attestation": {}, "GetRandom": {}},
        {"Error": "InvalidIndex", "GetRandom": {"random": b"r"}},
    ],
)
def test_what_is_no_answer(name: str, answer: object) -> None:
    with pytest.raises(NsmError, match=f"answer to {name} is not valid") as caught:
        CALLS[name](Nsm(Canned(answer)))
    assert caught.value.code is None
    assert caught.value.hint


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("other", [round_[3] for round_ in ROUNDS], ids=[r[0] for r in ROUNDS])
def test_an_answer_of_another_kind(name: str, other: object) -> None:
    kind = other if isinstance(other, str) else next(iter(dict(other)))  # type: ignore[call-overload]
    if kind == name:
        return
    with pytest.raises(NsmError, match="it is an answer of another kind"):
        CALLS[name](Nsm(Canned(other)))


@pytest.mark.parametrize("name", CALLS)
def test_a_kind_of_the_other_form(name: str) -> None:
    """A map where a bare name belongs, and a bare name where fields belong."""
    wrong: object = {name: {}} if name.startswith("Lock") else name
    with pytest.raises(NsmError, match="another kind"):
        CALLS[name](Nsm(Canned(wrong)))


def without(fields: dict[str, object], name: str) -> dict[str, object]:
    return {key: value for key, value in fields.items() if key != name}


LOCKED: list[object] = [[32], [-1], [True], ["0"], {}, None, [0, 0]]
DIGESTS: list[object] = ["MD5", b"SHA384", None, []]
BENT: list[tuple[str, object, str]] = [
    ("DescribeNSM", {"DescribeNSM": []}, "it has no fields"),
    *(("DescribeNSM", {"DescribeNSM": without(DESCRIPTION, name)}, name) for name in DESCRIPTION),
    *(
        ("DescribeNSM", {"DescribeNSM": {**DESCRIPTION, name: value}}, f"{name} is not a number")
        for name in ("version_major", "version_minor", "version_patch")
        for value in (-1, 65536, True, "1")
    ),
    *(
        ("DescribeNSM", {"DescribeNSM": {**DESCRIPTION, "max_pcrs": value}}, "max_pcrs is not")
        for value in (0, 33, False, None)
    ),
    *(
        ("DescribeNSM", {"DescribeNSM": {**DESCRIPTION, "module_id": value}}, "module_id is not")
        for value in ("", "i" * 257, b"i", None)
    ),
    *(
        (
            "DescribeNSM",
            {"DescribeNSM": {**DESCRIPTION, "locked_pcrs": value}},
            "locked_pcrs (is|names)",
        )
        for value in LOCKED
    ),
    *(
        ("DescribeNSM", {"DescribeNSM": {**DESCRIPTION, "digest": value}}, "digest is none of")
        for value in DIGESTS
    ),
    ("GetRandom", {"GetRandom": {}}, "random is not a byte string"),
    ("GetRandom", {"GetRandom": {"random": "r"}}, "random is not a byte string"),
    ("GetRandom", {"GetRandom": {"random": b""}}, r"random has 0 bytes, not 1\.\.256"),
    ("GetRandom", {"GetRandom": {"random": bytes(257)}}, "random has 257 bytes"),
    ("GetRandom", {"GetRandom": b"r"}, "it has no fields"),
    ("Attestation", {"Attestation": {"document": None}}, "document is not a byte string"),
    ("Attestation", {"Attestation": {"document": b""}}, "document has 0 bytes"),
    ("DescribePCR", {"DescribePCR": {"lock": 1, "data": P48}}, "lock is neither true nor false"),
    ("DescribePCR", {"DescribePCR": {"data": P48}}, "lock is neither true nor false"),
    ("DescribePCR", {"DescribePCR": {"lock": True, "data": bytes(47)}}, "data has 47 bytes"),
    ("DescribePCR", {"DescribePCR": {"lock": True, "data": bytes(64)}}, "data has 64 bytes"),
    ("DescribePCR", {"DescribePCR": {"lock": True}}, "data is not a byte string"),
    ("ExtendPCR", {"ExtendPCR": {"data": bytes(49)}}, "data has 49 bytes"),
]


@pytest.mark.parametrize(("name", "answer", "message"), BENT)
def test_a_bent_answer(name: str, answer: object, message: str) -> None:
    with pytest.raises(NsmError, match=message):
        CALLS[name](Nsm(Canned(answer)))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "it is not CBOR"),
        (encode({"GetRandom": {"random": b"r"}}) + b"\0", "it is not CBOR: 1 bytes follow"),
        (encode({"GetRandom": {"random": b"r"}})[:-1], "it is not CBOR"),
        (bytes.fromhex("a2") + (encode("GetRandom") + encode({"random": b"r"})) * 2, "Duplicate"),
        (b"\xd2" + encode({"GetRandom": {"random": b"r"}}), "tags"),
        (b"\x81" * 100 + b"\0", "depth"),
        (bytes(0x3001), "it has 12289 bytes, over 12288"),
    ],
)
def test_bytes_that_are_no_answer(answer: bytes, message: str) -> None:
    with pytest.raises(NsmError, match=message):
        Nsm(Canned(answer, raw=True)).get_random()


def test_the_longest_answer_is_read() -> None:
    document = bytes(0x3000 - len(encode({"Attestation": {"document": b""}})) - 2)
    answer = encode({"Attestation": {"document": document}})
    assert len(answer) == 0x3000
    assert Nsm(Canned(answer, raw=True)).attestation() == document


@pytest.mark.parametrize(("module_id", "number"), [("i", 0), ("i" * 256, 65535)])
def test_the_limits_of_a_description_are_accepted(module_id: str, number: int) -> None:
    versions = dict.fromkeys(("version_major", "version_minor", "version_patch"), number)
    answer = {**DESCRIPTION, **versions, "module_id": module_id, "max_pcrs": 1, "locked_pcrs": [0]}
    description = Nsm(Canned({"DescribeNSM": answer})).describe_nsm()
    assert description == NsmDescription((number,) * 3, module_id, 1, (0,), "SHA384")


def test_a_field_that_a_newer_module_adds_is_passed_over() -> None:
    assert Nsm(Canned({"GetRandom": {"random": b"r", "source": "x"}})).get_random() == b"r"


@given(st.binary(max_size=200))
def test_answers_raise_nothing_else(data: bytes) -> None:
    for call in CALLS.values():
        with contextlib.suppress(NsmError):
            call(Nsm(Canned(data, raw=True)))


def test_the_requests_are_what_cbor2_writes_too() -> None:
    transport = Canned({"ExtendPCR": {"data": P48}})
    Nsm(transport).extend_pcr(16, b"x")
    assert cbor2.loads(transport.request) == {"ExtendPCR": {"index": 16, "data": b"x"}}
    assert nsm_answers.parse_extend_pcr(encode({"ExtendPCR": {"data": P48}})) == P48


# --- /dev/nsm ----------------------------------------------------------------------------------


class Driver:
    """Linux' nsm driver as seen through its ioctl: memory behind two pointers."""

    def __init__(self, answer: bytes = b"answer", *, interruptions: int = 0) -> None:
        self.answer = answer
        self.announced: int | None = None
        self.interruptions = interruptions
        self.requests: list[bytes] = []
        self.errors: list[int] = []

    def __call__(self, descriptor: int, code: int, message: bytearray) -> int:
        assert os.fstat(descriptor)
        assert code == 0xC0200A00
        assert len(message) == 32
        if self.interruptions:
            self.interruptions -= 1
            raise InterruptedError(errno.EINTR, "Interrupted system call")
        if self.errors:
            number = self.errors.pop()
            raise OSError(number, os.strerror(number))
        sent, sent_length, buffer, room = struct.unpack("=QQQQ", message)
        assert room == 0x3000
        self.requests.append(ctypes.string_at(sent, sent_length))
        ctypes.memmove(buffer, self.answer, len(self.answer))
        length = len(self.answer) if self.announced is None else self.announced
        message[24:32] = struct.pack("=Q", length)
        return 0


@pytest.fixture
def device(tmp_path: Path) -> str:
    path = tmp_path / "nsm"
    path.touch()
    return str(path)


def test_the_ioctl_number_is_that_of_the_header() -> None:
    read_write, size, kind, number = 3, 32, 0x0A, 0
    assert read_write << 30 | size << 16 | kind << 8 | number == NSM_IOCTL


def test_request_and_answer_go_through_the_pointers(device: str) -> None:
    driver = Driver(encode({"GetRandom": {"random": b"r" * 256}}))
    with Nsm(DevNsm(device, ioctl=driver)) as nsm:
        assert nsm.get_random() == b"r" * 256
    assert driver.requests == [encode("GetRandom")]


@pytest.mark.parametrize("size", [1, 0x3000])
def test_answers_of_every_size_the_driver_may_give(device: str, size: int) -> None:
    transport = DevNsm(device, ioctl=Driver(b"x" * size))
    assert transport.exchange(b"y" * 0x1000) == b"x" * size
    transport.close()


def test_interrupted_calls_are_made_again(device: str) -> None:
    driver = Driver(interruptions=3)
    transport = DevNsm(device, ioctl=driver)
    assert transport.exchange(b"x") == b"answer"
    assert driver.interruptions == 0
    assert len(driver.requests) == 1
    transport.close()


@pytest.mark.parametrize("length", [0, 0x3001, 1 << 63])
def test_a_length_that_cannot_be_is_not_believed(device: str, length: int) -> None:
    driver = Driver()
    driver.announced = length
    transport = DevNsm(device, ioctl=driver)
    with pytest.raises(NsmError, match=f"answer has {length} bytes"):
        transport.exchange(b"x")
    transport.close()


@pytest.mark.parametrize("length", [0, 0x1001])
def test_a_request_that_the_driver_does_not_take_is_not_sent(device: str, length: int) -> None:
    driver = Driver()
    transport = DevNsm(device, ioctl=driver)
    with pytest.raises(NsmError, match=f"a request of {length} bytes"):
        transport.exchange(bytes(length))
    assert driver.requests == []
    transport.close()


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENODEV, "no security module stands behind"),
        (errno.ENXIO, "no security module stands behind"),
        (errno.ENOTTY, "is not a Nitro Security Module"),
        (errno.EINVAL, "is not a Nitro Security Module"),
        (errno.EMSGSIZE, "the request is too large for"),
        (errno.EIO, "failed: Input/output error"),
    ],
)
def test_errors_of_the_driver(device: str, number: int, message: str) -> None:
    driver = Driver()
    driver.errors = [number]
    transport = DevNsm(device, ioctl=driver)
    with pytest.raises(NsmError, match=message) as caught:
        transport.exchange(b"x")
    assert device in str(caught.value)
    assert caught.value.hint
    transport.close()


def test_no_device(tmp_path: Path) -> None:
    with pytest.raises(NsmError, match="there is no ") as caught:
        DevNsm(str(tmp_path / "nsm"))
    assert caught.value.hint is not None
    assert "kmstool emulator run" in caught.value.hint


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_no_permission(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(path: str, flags: int) -> int:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(NsmError, match="may not be opened by this user") as caught:
        DevNsm()
    monkeypatch.undo()
    assert caught.value.hint is not None
    assert "/dev/nsm" in str(caught.value)


def test_the_real_ioctl_on_what_is_no_module() -> None:
    transport = DevNsm("/dev/null")
    with pytest.raises(NsmError, match="/dev/null is not a Nitro Security Module"):
        transport.exchange(encode("GetRandom"))
    transport.close()
    transport.close()


def test_close_closes_the_device(device: str) -> None:
    transport = DevNsm(device, ioctl=Driver())
    descriptor = transport._fd
    transport.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_the_device_is_not_inherited_by_children() -> None:
    transport = DevNsm("/dev/null")
    assert not os.get_inheritable(transport._fd)
    transport.close()
