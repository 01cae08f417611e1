"""This machine's clock, against the two clocks that can be had: the security module's and KMS'.

The module's is the hypervisor's word; KMS' came over TLS. Neither is used to set anything.
"""

from collections.abc import Callable, Mapping
from typing import Final

from kmstool.caveats import CLOCK_SKEW
from kmstool.findings import Check, Fact, Outcome, caution, fine, not_tried, wrong
from kmstool.limits import CLOCK_SKEW_MAX, DOCUMENT_AGE_MAX

_SECONDS: Final = 5.0
_MEND: Final = (
    "set the clock when the enclave starts: it is the hypervisor's with kvm-clock, and chrony keeps"
    " it with /dev/ptp0"
)


def clock_check(offsets: Callable[[], Mapping[str, float | None]]) -> Check:
    """The check.

    Args:
        offsets: asked when it runs: by how many seconds each other clock is later than ours; None
            where that is not known.
    """
    return Check("clock", _SECONDS, lambda _deadline: _clock(offsets()))


def _clock(offsets: Mapping[str, float | None]) -> Outcome:
    known = {name: offset for name, offset in offsets.items() if offset is not None}
    if not known:
        return not_tried("neither a document nor an answer of KMS says what time it is")
    worst = max(map(abs, known.values()))
    said = ", ".join(f"{name} {_span(offset)}" for name, offset in known.items())
    facts: dict[str, Fact] = {
        f"{name.split()[-1].lower()}_offset": round(offset, 3) for name, offset in known.items()
    }
    if worst < 2:  # KMS' Date has whole seconds
        said = f"it agrees within two seconds with {' and '.join(known)}"
    if worst <= CLOCK_SKEW_MAX:
        return fine(said, facts=facts)
    words = f"this clock is wrong, or others are: {said}"
    if worst > DOCUMENT_AGE_MAX:
        words += "; KMS refuses signatures and documents that are five minutes off"
        return wrong(words, _MEND, caveats=(CLOCK_SKEW,), facts=facts)
    return caution(words, _MEND, caveats=(CLOCK_SKEW,), facts=facts)


def _span(offset: float) -> str:
    return f"is {abs(offset):.0f} s {'ahead' if offset > 0 else 'behind'}"
