"""100,000 documents, right and bent, through our verifier and through one of another author.

The other is the crate aws-nitro-enclaves-attestation 0.1.0 (serde_cbor, webpki, OpenSSL): it shares
no code with ours but OpenSSL's, and takes a root and a time. Where the two disagree, a reason has
to stand in reasons.toml, in a sentence; a disagreement without one fails, and so does a reason that
was never met.
"""

import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest
from support.document_mutations import AT, Base, Mutator, chains
from support.documents import document
from support.oracle import Case, VerifyOracle, build

from kmstool.attestation.chain import ChainCache
from kmstool.attestation.document import parse_document
from kmstool.attestation.verify import Expectations, own_time, verify_document
from kmstool.errors import DocumentError
from kmstool.roots import nitro_root_der

COUNT, BATCH, SEED = 100_000, 1_000, 8
WE, IT = "we refuse", "it refuses"
NO_EXPECTATION = Expectations(allow_debug=True)  # it has none


class Reason(NamedTuple):
    """Why `who` refuses what the other accepts, where it says what `says` matches."""

    who: str
    says: str
    because: str


REASONS = [
    Reason(**entry)
    for entry in tomllib.loads((Path(__file__).parent / "reasons.toml").read_text())["reason"]
]


@pytest.fixture(scope="module")
def roots_and_bases(shared: Path) -> tuple[list[bytes], list[Base]]:
    """The real documents, and ones signed here under right and defective chains."""
    roots, bases = [nitro_root_der()], []
    for path in sorted((shared / "vectors").glob("attestation-*.cbor")):
        data = path.read_bytes()
        if "unsigned" not in path.name:
            time = int(own_time(parse_document(data)).timestamp())
            bases += [Base(0, time, data)] * 8
    assert len(bases) == 3 * 8
    time = int(AT.timestamp())
    for chain, weight in chains():
        roots.append(chain.root.der)
        for indefinite in (False, True):
            data = document(chain, indefinite=indefinite, timestamp=time * 1000)
            bases += [Base(len(roots) - 1, time, data, chain)] * weight
    return roots, bases


def what_we_say(case: Case, roots: list[bytes], cache: ChainCache) -> str:
    at = datetime.fromtimestamp(case.time, UTC)
    try:
        verify_document(
            case.document,
            root_der=roots[case.root],
            at=at,
            expectations=NO_EXPECTATION,
            chain_cache=cache,
        )
    except DocumentError as error:
        return f"{error.step}: {error}"
    return "accepted"


def reason_for(we: str, it: str) -> Reason | None:
    who, words = (IT, it) if we == "accepted" else (WE, we)
    return next((r for r in REASONS if r.who == who and re.search(r.says, words)), None)


def verdicts(
    program: Path, roots: list[bytes], mutator: Mutator
) -> Iterator[tuple[Case, str, str]]:
    cache = ChainCache(256)
    with VerifyOracle(program, roots) as oracle:
        for _ in range(0, COUNT, BATCH):
            cases = [mutator.case() for _ in range(BATCH)]
            oracle.begin(cases)
            ours = [what_we_say(case, roots, cache) for case in cases]
            yield from zip(cases, ours, oracle.end(BATCH), strict=True)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_no_disagreement_without_a_reason(
    roots_and_bases: tuple[list[bytes], list[Base]],
) -> None:
    roots, bases = roots_and_bases
    outcomes: Counter[str] = Counter()
    met: Counter[Reason] = Counter()
    unexplained: dict[str, str] = {}
    for case, we, it in verdicts(build("verify").program, roots, Mutator(bases, SEED)):
        if (we == "accepted") == (it == "accepted"):
            outcomes["both accept" if we == "accepted" else "both refuse"] += 1
        elif reason := reason_for(we, it):
            met[reason] += 1
        else:
            unexplained[f"we: {we[:150]}; it: {it[:150]}"] = f"{case.time} {case.document.hex()}"
    if unexplained:
        pytest.fail("\n".join(f"{words}: {case}" for words, case in unexplained.items()))
    assert outcomes["both accept"] >= 1_000, "too few documents that both accept prove nothing"
    assert sum(outcomes.values()) + sum(met.values()) == COUNT
    assert not [reason for reason in REASONS if not met[reason]], "a reason that was never met"
    print(dict(outcomes), *(f"\n{count:6} {r.who}: {r.because}" for r, count in met.items()))


@pytest.mark.long
@pytest.mark.timeout(600)
def test_it_refuses_what_is_forged(roots_and_bases: tuple[list[bytes], list[Base]]) -> None:
    """Otherwise the other verifier would be no yardstick."""
    roots, bases = roots_and_bases
    real = bases[0]
    forged = real.document[:-1] + bytes([real.document[-1] ^ 1])
    cases = [
        Case(0, real.time, real.document),
        Case(0, real.time + 4 * 3600, real.document),
        Case(0, real.time, forged),
        Case(1, real.time, real.document),
    ]
    with VerifyOracle(build("verify").program, roots) as oracle:
        oracle.begin(cases)
        accepted, *others = oracle.end(len(cases))
    assert accepted == "accepted"
    assert all(verdict.startswith("refused") for verdict in others)
