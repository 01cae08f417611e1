"""`scripts/demo attacks`: every attack on the plain client and on kmstool, one line each.

Exits with 1 where an attack that fools the plain client is not refused by kmstool.
"""

import sys
import textwrap

from support.trials import End, Stage, stage

from kmstool.emulator.hostile import ATTACKS

WIDTH = 28
PLAIN = 48


def show(stage: Stage) -> int:
    """Prints the table; returns how many lines are not as they should be."""
    fooled, held_up, bad = 0, 0, 0
    print(f"{'attack':{WIDTH}}  {'a client that does the plain thing':{PLAIN}}  kmstool")
    environment = stage.emulator.environment()
    control = stage.plain_client(environment), stage.kmstool(environment)
    if any(outcome.end is not End.RIGHT for outcome in control):
        sys.exit(f"without an attack: {control}")
    print(f"{'(none)':{WIDTH}}  {control[0].text:{PLAIN}}  exit 0: {control[1].text}", flush=True)
    for attack in ATTACKS.values():
        plain, kmstool = stage.trial(attack)
        fooled += plain.end is End.FOOLED
        held_up += plain.end is End.HELD_UP
        safe = kmstool.end is End.REFUSES and not kmstool.stdout
        bad += not safe
        mark = {End.FOOLED: "FOOLED: ", End.HELD_UP: "HELD UP: "}.get(plain.end, "")
        left = shortened(mark + plain.text, PLAIN)
        right = f"exit {kmstool.code}: {kmstool.text}" if safe else f"NOT REFUSED: {kmstool.text}"
        print(f"{attack.name:{WIDTH}}  {left:{PLAIN}}  {shortened(right, 100)}", flush=True)
    print(
        f"\n{len(ATTACKS)} attacks: {fooled} fooled the plain client and {held_up} held it up for"
        f" as long as they like. kmstool refused {len(ATTACKS) - bad} of {len(ATTACKS)}, and"
        " printed nothing."
    )
    return bad


def shortened(text: str, width: int) -> str:
    return textwrap.shorten(text, width, placeholder=" …")


if __name__ == "__main__":
    with stage() as one:
        sys.exit(1 if show(one) else 0)
