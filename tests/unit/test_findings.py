"""Checks run in their order, each in its own time; what depends on a failed one is not tried."""

import threading

import pytest

from kmstool.caveats import CUSTOM_ROOTS, DEBUG_ENCLAVE, Tolerance
from kmstool.endpoint import Deadline
from kmstool.errors import SettingError, TransportError
from kmstool.findings import (
    Check,
    Outcome,
    Verdict,
    caution,
    examine,
    fine,
    not_tried,
    wrong,
)


def check(name: str, outcome: Outcome, *needs: str) -> Check:
    return Check(name, 5.0, lambda _deadline: outcome, needs)


def verdicts(*checks: Check) -> dict[str, Verdict]:
    return {one.check: one.outcome.verdict for one in examine(checks)}


def test_what_needs_a_failed_check_is_not_tried_and_says_why() -> None:
    tried: list[str] = []
    checks = [
        check("a", wrong("broken", "mend it")),
        check("b", fine("good"), "a"),
        check("c", fine("good"), "b"),
        check("d", fine("good")),
        check("e", fine("good"), "d"),
    ]
    found = list(examine(checks, begun=tried.append))
    assert [one.outcome.verdict for one in found] == [
        Verdict.WRONG, Verdict.NOT_TRIED, Verdict.NOT_TRIED, Verdict.FINE, Verdict.FINE,
    ]  # fmt: skip
    assert found[1].outcome.text == "it needs a"
    assert found[2].outcome.text == "it needs b"
    assert tried == ["a", "d", "e"]


def test_a_caution_stops_nothing_and_what_was_not_tried_does() -> None:
    assert verdicts(check("a", caution("odd", None)), check("b", fine("good"), "a")) == {
        "a": Verdict.CAUTION,
        "b": Verdict.FINE,
    }
    assert verdicts(check("a", not_tried("no key")), check("b", fine("good"), "a")) == {
        "a": Verdict.NOT_TRIED,
        "b": Verdict.NOT_TRIED,
    }


def test_an_error_of_ours_is_a_finding_with_its_hint() -> None:
    def run(_deadline: Deadline) -> Outcome:
        raise TransportError("nobody answers", hint="start it")

    (found,) = examine([Check("a", 5.0, run)])
    assert found.outcome == wrong("nobody answers", "start it")


def test_an_error_without_a_hint_is_mended_as_the_check_says() -> None:
    def run(_deadline: Deadline) -> Outcome:
        raise TransportError("nobody answers")

    (found,) = examine([Check("a", 5.0, run, mend="look there")])
    assert found.outcome == wrong("nobody answers", "look there")


def test_any_other_error_is_a_bug_and_no_finding() -> None:
    def run(_deadline: Deadline) -> Outcome:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(examine([Check("a", 5.0, run)]))


def test_a_check_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kmstool.findings._GRACE", 0.05)
    release = threading.Event()

    def run(_deadline: Deadline) -> Outcome:
        release.wait(30)
        return fine("at last")

    try:
        given_up = Check("a", 0.05, run, mend="look there")
        found = list(examine([given_up, check("b", fine("good"), "a")]))
    finally:
        release.set()
    assert found[0].outcome.verdict is Verdict.WRONG
    assert "no answer within 0.05 seconds" in found[0].outcome.text
    assert found[0].outcome.advice == "look there"
    assert found[1].outcome.verdict is Verdict.NOT_TRIED


def test_a_time_that_makes_no_sense() -> None:
    with pytest.raises(SettingError, match="nan seconds"):
        list(examine([Check("a", float("nan"), lambda _deadline: fine("good"))]))


def test_a_caveat_that_is_not_accepted_makes_a_finding_wrong() -> None:
    checks = [
        check("roots", fine("given", caveats=(CUSTOM_ROOTS,))),
        check("tls", fine("good"), "roots"),
        check("pcrs", caution("debug", None, caveats=(DEBUG_ENCLAVE,))),
    ]
    tolerance = Tolerance(strict=True, allowed=frozenset({"debug-enclave"}))
    roots, tls, pcrs = examine(checks, tolerance=tolerance)
    assert roots.outcome.verdict is Verdict.WRONG
    assert "custom-roots" in str(roots.outcome.advice)
    assert roots.outcome.caveats == (CUSTOM_ROOTS,)
    assert tls.outcome.verdict is Verdict.NOT_TRIED
    assert pcrs.outcome.verdict is Verdict.CAUTION
