"""The other setup: is there a relay? More cannot be seen from inside.

A relay chooses credentials and endpoint, and whatever it says of KMS nobody vouches for
(docs/explanation/two-setups.md). A dry run over it would prove nothing, so none is made.
"""

from collections.abc import Mapping
from typing import Final

from kmstool.enclave.relayed import RELAY_HINT
from kmstool.endpoint import Deadline, connect, parse_address
from kmstool.findings import Check, Outcome, fine, not_tried
from kmstool.session import DEFAULT_RELAY, SessionOptions

_ELSEWHERE: Final = "over a relay the parent asks KMS, with credentials of its own"


def relay_checks(options: SessionOptions, environ: Mapping[str, str]) -> tuple[Check, ...]:
    """The checks in their order."""
    default = environ.get("KMSTOOL_RELAY", DEFAULT_RELAY)
    named = [via.partition("=")[2] or default for via in options.via]
    addresses = [parse_address(text) for text in named]

    def reach(deadline: Deadline) -> Outcome:
        for address in addresses:
            connect(address, deadline, hint=RELAY_HINT).close()
        return fine(f"{' and '.join(named)} answers")

    def leave(_deadline: Deadline) -> Outcome:
        return not_tried(_ELSEWHERE, "run `kmstool doctor` on the parent as well")

    return (
        Check("relay", options.timeout, reach),
        Check("permission", options.timeout, leave),
    )
