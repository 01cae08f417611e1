"""What a check of `kmstool doctor` found, and the running of checks in their order.

Pure but for the threads: it knows no enclave and no parent. Each check has a time of its own, and
runs in a thread, since a kernel, a name server or a device may never answer; what comes later is
dropped, and so is what depends on it. A check that needs one that failed is not tried, and says so.
A finding never holds a secret: checks put in what may be shown to anybody.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from kmstool.caveats import Caveat, Tolerance
from kmstool.endpoint import Deadline
from kmstool.errors import CaveatRefused, KmstoolError

_GRACE: Final = 1.0  # seconds; a check that watches its deadline says better than we what was slow

_SILENT: Final = "see what it waits for: a device, a name server, or the other end"

Fact = str | int | float | bool | None


class Verdict(StrEnum):
    """How a link of the chain is."""

    FINE = "fine"
    CAUTION = "caution"
    WRONG = "wrong"
    NOT_TRIED = "not-tried"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one check found.

    Attributes:
        text: what is so, lower case, without a full stop.
        advice: what to do about it; None where nothing is to be done.
        lines: more of it for the eye, each with a meaning of its own.
        facts: the same and more for programs; the names are stable.
        caveats: what it means for the worth of results.
    """

    verdict: Verdict
    text: str
    advice: str | None = None
    lines: tuple[str, ...] = ()
    facts: Mapping[str, Fact] = field(default_factory=dict)
    caveats: tuple[Caveat, ...] = ()


_NO_FACTS: Final[Mapping[str, Fact]] = MappingProxyType({})


def fine(
    text: str,
    *,
    lines: tuple[str, ...] = (),
    facts: Mapping[str, Fact] = _NO_FACTS,
    caveats: tuple[Caveat, ...] = (),
) -> Outcome:
    """It is as it should be."""
    return Outcome(verdict=Verdict.FINE, text=text, lines=lines, facts=facts, caveats=caveats)


def caution(
    text: str,
    advice: str | None,
    *,
    lines: tuple[str, ...] = (),
    facts: Mapping[str, Fact] = _NO_FACTS,
    caveats: tuple[Caveat, ...] = (),
) -> Outcome:
    """It works, and somebody should know or change something."""
    found = fine(text, lines=lines, facts=facts, caveats=caveats)
    return replace(found, verdict=Verdict.CAUTION, advice=advice)


def wrong(
    text: str,
    advice: str | None,
    *,
    lines: tuple[str, ...] = (),
    facts: Mapping[str, Fact] = _NO_FACTS,
    caveats: tuple[Caveat, ...] = (),
) -> Outcome:
    """It does not work, or must not be relied on."""
    found = fine(text, lines=lines, facts=facts, caveats=caveats)
    return replace(found, verdict=Verdict.WRONG, advice=advice)


def not_tried(text: str, advice: str | None = None) -> Outcome:
    """Nothing is known of it, and why."""
    return Outcome(verdict=Verdict.NOT_TRIED, text=text, advice=advice)


@dataclass(frozen=True, slots=True)
class Check:
    """One link of the chain.

    Attributes:
        name: stable; programs match on it.
        seconds: that it may take.
        run: is given a deadline of that length. What it raises of `KmstoolError` is a finding.
        needs: names of checks before it that must not have failed.
        mend: what to do where what failed does not say it itself, or nothing answers.
    """

    name: str
    seconds: float
    run: Callable[[Deadline], Outcome]
    needs: tuple[str, ...] = ()
    mend: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of the check of this name."""

    check: str
    outcome: Outcome


def examine(
    checks: Iterable[Check],
    *,
    tolerance: Tolerance = Tolerance(),  # noqa: B008 - frozen
    begun: Callable[[str], None] = lambda _name: None,
) -> Iterator[Finding]:
    """Runs the checks one after another and yields what each has found, when it has.

    Args:
        tolerance: a caveat that it does not accept makes a finding wrong.
        begun: told the name of each check that is tried, before it is.

    Raises:
        SettingError: a check is given a time that makes no sense.
    """
    failed: set[str] = set()
    for check in checks:
        missing = [name for name in check.needs if name in failed]
        if missing:
            outcome = not_tried(f"it needs {' and '.join(missing)}")
        else:
            begun(check.name)
            outcome = _tolerated(_run(check), tolerance)
        if outcome.verdict in (Verdict.WRONG, Verdict.NOT_TRIED):
            failed.add(check.name)
        yield Finding(check.name, outcome)


def _tolerated(outcome: Outcome, tolerance: Tolerance) -> Outcome:
    try:
        tolerance.check(outcome.caveats)
    except CaveatRefused as error:
        return replace(outcome, verdict=Verdict.WRONG, text=str(error), advice=error.hint)
    return outcome


def _run(check: Check) -> Outcome:
    outcomes: list[Outcome] = []
    faults: list[BaseException] = []
    deadline = Deadline(check.seconds)

    def work() -> None:
        try:
            outcomes.append(check.run(deadline))
        except KmstoolError as error:
            outcomes.append(wrong(str(error), error.hint or check.mend))
        except BaseException as error:  # noqa: BLE001 - raised again below
            faults.append(error)

    # A daemon: it may hang in the kernel for ever. The main thread only waits, so Ctrl-C works.
    thread = threading.Thread(target=work, name=f"check {check.name}", daemon=True)
    thread.start()
    thread.join(check.seconds + _GRACE)
    if faults:
        raise faults[0]
    if not outcomes:
        return wrong(f"no answer within {check.seconds:g} seconds", check.mend or _SILENT)
    return outcomes[0]
