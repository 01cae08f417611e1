"""One table of `kmstool-parent.toml`, read key by key; mistakes are collected, not raised."""

import difflib
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from kmstool.errors import KmstoolError, SettingError, quoted
from kmstool.parent.mistakes import Mistakes

T = TypeVar("T")


class Table:
    """A table whose keys are known beforehand.

    Args:
        name: such as `[limits]`; empty for the top of the file.
        known: every key that it may have. Another one is a mistake, noted at once.
    """

    def __init__(
        self, values: Mapping[str, object], name: str, known: Collection[str], mistakes: Mistakes
    ) -> None:
        self._values = values
        self._name = name
        self._mistakes = mistakes
        for key in values:
            if key not in known:
                self._mistakes.add(
                    self.place(key if key.isprintable() else ascii(key)),
                    "there is no such setting",
                    _did_you_mean(key, known),
                )

    def place(self, key: str) -> str:
        """Where a key stands, for a mistake."""
        return f"{self._name}, {key}" if self._name else key

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def read(self, key: str, reader: Callable[[object], T], *, needed: str = "") -> T | None:
        """What `reader` makes of a value; None where there is none, or a wrong one.

        Args:
            needed: what to write where the key is missing; empty where it may be.
        """
        if key not in self._values:
            if needed:
                self._mistakes.add(self.place(key), "it is missing", needed)
            return None
        return self._attempt(self.place(key), reader, self._values[key])

    def read_list(
        self,
        key: str,
        reader: Callable[[object], T],
        *,
        maximum: int,
        empty: str,
        needed: str = "",
    ) -> tuple[T, ...]:
        """The same for each item of a list; wrong ones are left out.

        Args:
            empty: what to write in place of `[]`. Such a list is always a mistake: it reads like
                "nobody", and everything else here takes no list for "no limit".
        """
        items = self.read(key, as_list, needed=needed)
        if items is None:
            return ()
        if not items:
            self._mistakes.add(self.place(key), "it is empty", empty)
        if len(items) > maximum:
            self._mistakes.add(self.place(key), f"it has {len(items)} items, more than {maximum}")
            return ()
        found = []
        for number, item in enumerate(items, start=1):
            value = self._attempt(f"{self.place(key)}, item {number}", reader, item)
            if value is not None:
                found.append(value)
        return tuple(found)

    def _attempt(self, place: str, reader: Callable[[object], T], value: object) -> T | None:
        try:
            return reader(value)
        except KmstoolError as error:
            self._mistakes.add_error(place, error)
            return None


def as_text(value: object) -> str:
    """A string that is not empty. Raises `SettingError`, as all of these do."""
    if not isinstance(value, str):
        raise SettingError(
            f"{kind_of(value)} stands where a string should", hint="put it in quotes"
        )
    if not value:
        raise SettingError("it is empty")
    return value


def as_list(value: object) -> list[object]:
    """A list."""
    if not isinstance(value, list):
        raise SettingError(
            f"{kind_of(value)} stands where a list should", hint="put it in [brackets]"
        )
    return value


def as_table(value: object) -> dict[str, object]:
    """A table."""
    if not isinstance(value, dict):
        raise SettingError(f"{kind_of(value)} stands where a table should")
    return value


def as_integer(least: int, most: int) -> Callable[[object], int]:
    """A whole number within bounds."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise SettingError(f"{kind_of(value)} stands where a whole number should")
        if not least <= value <= most:
            shown = str(value) if abs(value) < 10**20 else "it"
            raise SettingError(f"{shown} is not between {least} and {most}")
        return value

    return read


def as_seconds(most: float, *, zero: bool = False) -> Callable[[object], float]:
    """A number of seconds, more than 0 (or 0, where that means something)."""

    def read(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise SettingError(
                f"{kind_of(value)} stands where a number of seconds should",
                hint="write it without a unit and without quotes",
            )
        # Compared before it is converted: an int may be too large for a float.
        if not (0 < value <= most or (zero and value == 0)):
            raise SettingError(
                f"it is not a number of seconds {'from' if zero else 'above'} 0 to {most:g}"
            )
        return float(value)

    return read


def kind_of(value: object) -> str:
    """A few words for a TOML value of the wrong kind."""
    match value:
        case bool():
            return "true or false"
        case str():
            return f"the string {quoted(value)}"
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return "a date or time"


def _did_you_mean(key: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(key[:100].lower().replace("-", "_"), known, n=2, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known here: {', '.join(known)}"
