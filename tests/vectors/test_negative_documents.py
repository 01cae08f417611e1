"""Each document of the corpus is refused at its step, with its sentence."""

from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from support.negatives import Made, Negative
from support.negatives_real import BENT, leaf_times, real
from support.negatives_signed import SIGNED

from kmstool.attestation.verify import STEPS, verify_document
from kmstool.errors import DocumentError

NEGATIVES = BENT + SIGNED


@pytest.fixture(autouse=True)
def _vectors(shared: Path) -> None:
    """Most begin with a real document."""


def verify(made: Made) -> None:
    verify_document(made.data, root_der=made.root, at=made.at, expectations=made.expected)


@pytest.mark.parametrize("negative", NEGATIVES, ids=lambda negative: negative.name)
def test_is_refused_where_it_should_be(negative: Negative) -> None:
    with pytest.raises(DocumentError, match=negative.says) as caught:
        verify(negative.make())
    assert caught.value.step == negative.step


def test_the_corpus_is_large_and_reaches_every_step() -> None:
    names = [negative.name for negative in NEGATIVES]
    assert len(set(names)) == len(names) >= 60
    assert set(Counter(negative.step for negative in NEGATIVES)) == set(STEPS)


def test_without_the_defect_it_verifies() -> None:
    verify(real())
    verify(real(lambda data: b"\xd2" + data))


def test_both_ends_of_the_leafs_validity_are_inside() -> None:
    start, end = leaf_times()
    for at in (start, end, end + timedelta(microseconds=999_999)):
        made = real()
        verify(Made(made.data, made.root, at))
