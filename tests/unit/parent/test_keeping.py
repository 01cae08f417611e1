"""The keeper: ahead of the end, through outages, never beyond the end, and with a clock that jumps.

Attempts are made by hand where their order matters (`attempt`), and by its thread where its waiting
is what is tried.
"""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from kmstool import limits
from kmstool.errors import CredentialsError
from kmstool.parent.issued import Issued, LongTermKeysError
from kmstool.parent.keeping import Keeper

START = 1_790_000_000.0
SECRET = "k33per/s3cret"


def issued(seconds: float | None, name: str = "ASIAFIRST0000000") -> Issued:
    until = None if seconds is None else datetime.fromtimestamp(START + seconds, UTC)
    return Issued(
        access_key_id=name,
        secret_access_key=SECRET,
        session_token="t",
        expiration=until,
        method="test",
    )


class Bench:
    """A keeper with a clock and a source that a test sets."""

    def __init__(self) -> None:
        self.now = START
        self.next: Issued | Exception = CredentialsError("not set")
        self.lines: list[str] = []
        self.calls = 0
        self.keeper = Keeper(self._fetch, report=self.lines.append, clock=lambda: self.now)

    def _fetch(self) -> Issued:
        self.calls += 1
        if isinstance(self.next, Exception):
            raise self.next
        return self.next

    def attempt(self, given: Issued | Exception) -> float:
        """One attempt; the pause after it."""
        self.next = given
        return self.keeper._attempt()

    def current(self) -> Issued:
        return self.keeper.current(wait=0)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.keeper.stop()
    assert SECRET not in "".join(made.lines)


@pytest.mark.parametrize(
    ("seconds", "pause"),
    [(21_600, 20_700), (3_600, 2_700), (1_800, 900), (900, 450), (300, 150), (20, 10), (6, 3)],
)
def test_when_it_asks_again(bench: Bench, seconds: float, pause: float) -> None:
    assert bench.attempt(issued(seconds)) == pause


def test_a_source_that_has_no_new_ones_yet_is_asked_every_minute(bench: Bench) -> None:
    one = issued(3_600)
    bench.attempt(one)
    bench.now += 2_700
    assert bench.attempt(one) == 60
    bench.now = START + 3_480
    assert bench.attempt(one) == 30
    assert len(bench.lines) == 1, "nothing has changed"
    bench.now = START + 3_590
    assert bench.attempt(issued(7_200, "ASIAOTHER0000000")) == 7_200 - 3_590 - 900
    assert len(bench.lines) == 2


def test_without_an_expiry_they_are_read_again(bench: Bench) -> None:
    assert bench.attempt(issued(None)) == limits.CREDENTIALS_REREAD_SECONDS
    bench.now += 1e9
    assert bench.current().expiration is None


def test_an_outage_is_survived_until_the_end_and_no_longer(bench: Bench) -> None:
    one = issued(3_600)
    bench.attempt(one)
    bench.now += 2_700
    pauses = [bench.attempt(CredentialsError("down", hint="look")) for _ in range(8)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert bench.current() is one
    assert "no new credentials: down; those at hand are valid until" in bench.lines[1]
    assert bench.lines[1].endswith("(hint: look)")
    assert len(bench.lines) == 2, "the same failure is not reported each time"
    bench.now = START + 3_600 - limits.CREDENTIALS_LEFT_MIN
    with pytest.raises(CredentialsError) as caught:
        bench.current()
    assert str(caught.value) == (f"those at hand ended at {one.until}, and no others came: down")
    two = issued(9_000, "ASIAOTHER0000000")
    bench.attempt(two)
    assert bench.current() is two
    assert bench.lines[-1] == f"credentials from test, valid until {two.until}"


def test_it_asks_more_often_when_little_is_left(bench: Bench) -> None:
    bench.attempt(issued(40))
    bench.now += 32
    assert [bench.attempt(CredentialsError("down")) for _ in range(4)] == [1, 2, 2, 2]


def test_a_source_of_expired_ones(bench: Bench) -> None:
    good = issued(3_600)
    bench.attempt(good)
    bench.attempt(issued(4, "ASIAOTHER0000000"))
    assert bench.current() is good
    assert "the source gave some that end at" in bench.lines[-1]


def test_what_a_source_raises_is_not_repeated(bench: Bench) -> None:
    bench.attempt(ValueError(f"unexpected {SECRET}"))
    with pytest.raises(CredentialsError, match=r"^the source failed \(ValueError\)$"):
        bench.current()


def test_long_term_keys_end_the_start_and_nothing_later(bench: Bench) -> None:
    bench.next = LongTermKeysError("long-term")
    with pytest.raises(LongTermKeysError):
        bench.keeper.start()
    assert bench.lines == [], "whoever started it says it"
    later = Bench()
    later.next = issued(3_600)
    later.keeper.start()
    try:
        later.attempt(LongTermKeysError("long-term"))
        assert later.current().method == "test"
        assert "long-term" in later.lines[-1]
    finally:
        later.keeper.stop()


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen")


def test_a_clock_that_jumps_is_noticed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kmstool.parent.keeping._LOOK_AGAIN", 0.05)
    bench.next = issued(3_600)
    bench.keeper.start()
    bench.now += 3_000
    wait_for(lambda: bench.calls > 1)


def test_a_request_without_any_has_the_source_asked(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CREDENTIALS_RETRY_BASE", 0.2)
    bench.next = CredentialsError("down")
    bench.keeper.start()
    bench.attempt(CredentialsError("down"))
    bench.keeper._failures = 10  # so that the thread would wait for a minute
    wait_for(lambda: bench.calls >= 3)
    bench.next = issued(3_600)
    started = time.monotonic()
    assert bench.keeper.current(wait=5).method == "test"
    assert time.monotonic() - started < 2


def test_many_requests_without_any_are_one_attempt_a_second(bench: Bench) -> None:
    bench.next = CredentialsError("down")
    bench.keeper.start()
    reasons: list[str] = []

    def ask() -> None:
        with pytest.raises(CredentialsError) as caught:
            bench.keeper.current(wait=5)
        reasons.append(str(caught.value))

    threads = [threading.Thread(target=ask) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reasons == ["down"] * 40
    assert bench.calls <= 3


def test_renew(bench: Bench) -> None:
    bench.next = issued(3_600)
    bench.keeper.start()
    bench.next = issued(7_200, "ASIAOTHER0000000")
    bench.keeper.renew()
    wait_for(lambda: bench.current().access_key_id == "ASIAOTHER0000000")


def test_a_source_that_hangs_holds_nobody_up() -> None:
    release = threading.Event()

    def hang() -> Issued:
        release.wait(20)
        raise CredentialsError("late")

    keeper = Keeper(hang)
    started = time.monotonic()
    keeper.start(wait=0.1)
    with pytest.raises(CredentialsError, match="has not answered yet"):
        keeper.current(wait=0.1)
    keeper.stop()
    assert time.monotonic() - started < 2
    release.set()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("access_key_id", "has space"),
        ("access_key_id", ""),
        ("access_key_id", "A" * 129),
        ("secret_access_key", "line\nbreak"),
        ("session_token", "t\x00"),
        ("session_token", "t" * (limits.SESSION_TOKEN_MAX + 1)),
        ("session_token", 7),
        ("expiration", datetime(2027, 1, 1)),  # noqa: DTZ001 - that is what is refused
    ],
)
def test_what_an_enclave_would_not_take(name: str, value: object) -> None:
    values: dict[str, object] = {
        "access_key_id": "ASIA", "secret_access_key": SECRET, "session_token": "t",
        "expiration": None, "method": "test",
    }  # fmt: skip
    with pytest.raises(CredentialsError, match="the source gave") as caught:
        Issued(**(values | {name: value}))  # type: ignore[arg-type]
    assert str(value) not in str(caught.value) or value in ("", 7)
    assert SECRET not in repr(issued(1)) + str(caught.value)
