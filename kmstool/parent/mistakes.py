"""Mistakes in what somebody wrote by hand, collected: whoever made three wants to hear of three."""

from dataclasses import dataclass

from kmstool import limits
from kmstool.errors import InputError, KmstoolError


@dataclass(frozen=True, slots=True)
class Mistake:
    """One of them.

    Attributes:
        place: where in the file, such as `[[forward]] 2, to`.
        problem: what is wrong there, with the value.
        mend: what to write in its place, or None.
    """

    place: str
    problem: str
    mend: str | None = None

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}"


class MistakesError(InputError):
    """A file has mistakes.

    Attributes:
        mistakes: at least one.
    """

    def __init__(self, name: str, mistakes: tuple[Mistake, ...]) -> None:
        first, count = mistakes[0], len(mistakes)
        more = f" (and {count - 1} more)" if count > 1 else ""
        super().__init__(f"{name}: {first}{more}", hint=first.mend)
        self.mistakes = mistakes


class Mistakes:
    """A growing list of them, which ends at `PARENT_MISTAKES_MAX`."""

    def __init__(self) -> None:
        self._found: list[Mistake] = []

    @property
    def found(self) -> tuple[Mistake, ...]:
        """Those until now."""
        return tuple(self._found)

    def add(self, place: str, problem: str, mend: str | None = None) -> None:
        """Notes one."""
        if len(self._found) < limits.PARENT_MISTAKES_MAX:
            self._found.append(Mistake(place, problem, mend))

    def add_error(self, place: str, error: KmstoolError) -> None:
        """Notes what a reader refused."""
        inner = error.mistakes if isinstance(error, MistakesError) else ()
        for mistake in inner:
            self.add(f"{place}, {mistake.place}", mistake.problem, mistake.mend)
        if not inner:
            self.add(place, str(error), error.hint)
