"""The form of a corpus of attestation documents with one defect each."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from kmstool.attestation.verify import Expectations


@dataclass(frozen=True)
class Made:
    """What a verifier is given."""

    data: bytes
    root: bytes
    at: datetime
    expected: Expectations | None = None


@dataclass(frozen=True)
class Negative:
    """A document with one defect.

    Attributes:
        name: the defect.
        make: builds it.
        step: at which it must be refused.
        says: a regular expression that the sentence must hold.
    """

    name: str
    make: Callable[[], Made]
    step: str
    says: str
