"""Who may connect to the forwarder, and how many at once. Pure: no socket is seen here.

A CID says which virtual machine is asking, and no more: it is a number that the next enclave may
get again, and every process in an enclave has the same. So this limits who can use the parent's
network by accident or in excess; it authenticates nobody.
"""

from collections import Counter
from collections.abc import Collection
from typing import Final

from kmstool.parent.settings import ForwardLimits

# The reasons why a client is refused, as they stand in the log and in the metrics.
CID: Final = "cid-not-allowed"
TOTAL: Final = "too-many-connections"
PER_CID: Final = "too-many-connections-of-this-cid"
DRAINING: Final = "ending"
REASONS: Final = (CID, TOTAL, PER_CID, DRAINING)


def cid_may_connect(cid: int | None, allowed: Collection[int]) -> bool:
    """True if `allowed` is empty or has this CID.

    None is the peer of a socket without CIDs, for which the list is not meant: a Unix socket has
    its mode instead.
    """
    return cid is None or not allowed or cid in allowed


class Admission:
    """Counts what is open, and decides about the next one."""

    def __init__(self, limits: ForwardLimits, allowed_cids: Collection[int]) -> None:
        self.limits = limits
        self.allowed_cids = frozenset(allowed_cids)
        self.draining = False
        self.open = 0
        self._by_cid: Counter[int] = Counter()

    def enter(self, cid: int | None) -> str | None:
        """Counts a connection in, and gives None; or gives the reason why it is refused."""
        if self.draining:
            return DRAINING
        if not cid_may_connect(cid, self.allowed_cids):
            return CID
        if self.open >= self.limits.connections:
            return TOTAL
        if cid is not None:
            if self._by_cid.get(cid, 0) >= self.limits.connections_per_cid:
                return PER_CID
            self._by_cid[cid] += 1
        self.open += 1
        return None

    def leave(self, cid: int | None) -> None:
        """Counts one out that had entered."""
        self.open -= 1
        if cid is not None:
            self._by_cid[cid] -= 1
            if not self._by_cid[cid]:
                del self._by_cid[cid]  # CIDs are many in the life of an instance
