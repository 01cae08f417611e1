"""Who may connect to the forwarder: decided without a socket, so without a vsock too."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmstool.endpoint import TcpAddress, UnixAddress, VsockAddress
from kmstool.parent.accepting import peer_of
from kmstool.parent.admission import CID, DRAINING, PER_CID, TOTAL, Admission, cid_may_connect
from kmstool.parent.carrying import Peer
from kmstool.parent.settings import ForwardLimits


@pytest.mark.parametrize(
    ("cid", "allowed", "may"),
    [
        (16, (), True),
        (16, (16,), True),
        (16, (17, 16), True),
        (16, (17,), False),
        (0, (16,), False),
        (1, (16,), False),
        (2, (16,), False),
        (0xFFFF_FFFF, (16,), False),
        (None, (16,), True),  # a Unix socket has its mode instead
        (None, (), True),
    ],
)
def test_which_cids_may_connect(cid: int | None, allowed: tuple[int, ...], may: bool) -> None:
    assert cid_may_connect(cid, allowed) is may


def test_a_cid_that_is_not_listed_takes_no_place() -> None:
    admission = Admission(ForwardLimits(connections=1), [16])
    assert admission.enter(17) == CID
    assert admission.open == 0
    assert admission.enter(16) is None


def test_the_limit_in_all_counts_every_client() -> None:
    admission = Admission(ForwardLimits(connections=2), [])
    assert admission.enter(16) is None
    assert admission.enter(None) is None
    assert admission.enter(17) == TOTAL
    admission.leave(16)
    assert admission.enter(17) is None


def test_one_cid_at_its_limit_leaves_room_for_another() -> None:
    admission = Admission(ForwardLimits(connections=3, connections_per_cid=2), [])
    assert [admission.enter(16) for _ in range(3)] == [None, None, PER_CID]
    assert admission.enter(17) is None
    admission.leave(16)
    assert admission.enter(16) is None


def test_clients_without_a_cid_have_no_limit_of_their_own() -> None:
    admission = Admission(ForwardLimits(connections=3, connections_per_cid=1), [])
    assert [admission.enter(None) for _ in range(4)] == [None, None, None, TOTAL]


def test_nobody_enters_while_it_ends() -> None:
    admission = Admission(ForwardLimits(), [])
    admission.draining = True
    assert admission.enter(16) == DRAINING


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([None, 16, 17, 18])), max_size=60))
def test_what_it_counts_is_what_is_open(steps: list[tuple[bool, int | None]]) -> None:
    limits = ForwardLimits(connections=5, connections_per_cid=2)
    admission = Admission(limits, [])
    inside: list[int | None] = []
    for enters, cid in steps:
        if enters:
            full = len(inside) == 5
            full_of_cid = cid is not None and inside.count(cid) == 2
            assert (admission.enter(cid) is None) == (not full and not full_of_cid)
            if not full and not full_of_cid:
                inside.append(cid)
        elif cid in inside:
            inside.remove(cid)
            admission.leave(cid)
        assert admission.open == len(inside)


def test_the_peer_is_named_by_what_accept_says() -> None:
    assert peer_of(VsockAddress(0xFFFF_FFFF, 8000), (16, 1234)) == Peer("vsock CID 16", 16)
    assert peer_of(TcpAddress("::1", 1), ("::1", 2, 0, 0)) == Peer("tcp ::1 2", None)
    assert peer_of(UnixAddress("/x"), "") == Peer("unix", None)
