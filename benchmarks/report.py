"""How every benchmark says what it measured: a table for a person, or JSON with --json."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Row:
    """One figure; `goal` is its bound in words, `holds` whether this run kept it, if any."""

    name: str
    value: float
    unit: str
    goal: str | None = None
    holds: bool | None = None


def at_most(name: str, value: float, unit: str, bound: float) -> Row:
    return Row(name, round(value, 4), unit, f"<= {bound:g}", value <= bound)


def at_least(name: str, value: float, unit: str, bound: float) -> Row:
    return Row(name, round(value, 4), unit, f">= {bound:g}", value >= bound)


def figure(name: str, value: float, unit: str) -> Row:
    return Row(name, round(value, 4), unit)


def main(title: str, rows: Callable[[], list[Row]]) -> int:
    """Prints what `rows` measures; 1 if a goal does not hold."""
    if sys.argv[1:] not in ([], ["--json"]):
        print(f"usage: {sys.argv[0]} [--json]", file=sys.stderr)
        return 2
    measured = rows()
    if sys.argv[1:]:
        print(json.dumps([asdict(row) for row in measured], indent=1))
    else:
        print(title)
        width = max(len(row.name) for row in measured)
        for row in measured:
            verdict = "" if row.holds is None else ("   holds" if row.holds else "   DOES NOT HOLD")
            goal = f"   goal {row.goal}" if row.goal else ""
            print(f"  {row.name:{width}}  {row.value:>12,.3f} {row.unit}{goal}{verdict}")
    return 0 if all(row.holds is not False for row in measured) else 1
