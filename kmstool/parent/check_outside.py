"""What the parent needs of the outside: KMS' name, a way there, and credentials of its own.

TLS is not looked at here: on the parent it proves nothing to an enclave, whose own doctor does.
botocore is imported when credentials are asked for.
"""

import socket
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from kmstool.endpoint import Deadline, TcpAddress, connect
from kmstool.findings import Check, Fact, Outcome, fine, not_tried, wrong
from kmstool.parent.issued import Issued
from kmstool.parent.settings import Configuration, Target

_NAME_SECONDS: Final = 10.0
_SOURCE_SECONDS: Final = 30.0  # the metadata service and STS, with what botocore tries again
_PORT: Final = 443
_NAMES: Final = (
    "look at /etc/resolv.conf and the VPC's DNS settings; a private endpoint needs its private DNS"
    " names"
)
_SAME_CHAIN: Final = (
    "see what `aws sts get-caller-identity` says as this user: it walks the same chain"
)


class Outside:
    """The checks of what is outside of this machine.

    Args:
        configuration: gives what the file says when a check runs.
        host: KMS' name where no file names a target; None where nobody named a region.
        region: of STS, or None.
    """

    def __init__(
        self, configuration: Callable[[], Configuration], host: str | None, region: str | None
    ) -> None:
        self._configuration = configuration
        self._host = host
        self._region = region
        self._issued: Issued | None = None

    def checks(self) -> tuple[Check, ...]:
        """In their order."""
        return (
            Check("names", _NAME_SECONDS, self._names, mend=_NAMES),
            Check("targets", _NAME_SECONDS, self._connect, needs=("names",)),
            Check("credentials", _SOURCE_SECONDS, self._ask, mend=_SAME_CHAIN),
            Check("role", _SOURCE_SECONDS, self._whose, ("credentials",), _SAME_CHAIN),
        )

    def _targets(self) -> tuple[Target, ...]:
        routes = self._configuration().routes
        if routes:
            return tuple(dict.fromkeys(route.to for route in routes))
        return (Target(self._host, _PORT),) if self._host is not None else ()

    def _names(self, _deadline: Deadline) -> Outcome:
        targets = self._targets()
        if not targets:
            return not_tried(
                "no target is known", "give --region, --host, or --config with the routes"
            )
        words = []
        for target in targets:
            try:
                found = socket.getaddrinfo(
                    target.host, target.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
                )
            except OSError as error:
                return wrong(
                    f"the name {target.host} is not found: {error.strerror}",
                    _NAMES,
                )
            words.append(f"{target.host} is {', '.join(sorted({str(one[4][0]) for one in found}))}")
        return fine("; ".join(words))

    def _connect(self, deadline: Deadline) -> Outcome:
        targets = self._targets()
        for target in targets:
            address = TcpAddress(target.host, target.port)
            hint = "let the security group, the network ACL and the route table through to it"
            connect(address, deadline, hint=hint).close()
        return fine(f"connected to {', '.join(map(str, targets))}")

    def _ask(self, _deadline: Deadline) -> Outcome:
        from kmstool.parent.chain import Chain, chain_of  # noqa: PLC0415 - botocore is slow
        from kmstool.parent.credentials import check_settings  # noqa: PLC0415

        settings = self._configuration().credentials
        chain = Chain(region=self._region)
        if settings is not None:
            chain = chain_of(settings, session_policy=check_settings(settings))
        issued = self._issued = chain()
        shown = f"{issued.access_key_id[:4]}…{issued.access_key_id[-4:]}"
        words = f"from {issued.method}, access key id {shown}, {_end_of(issued)}"
        facts: dict[str, Fact] = {
            "source": issued.method,
            "access_key_id": shown,
            "expiration": None if issued.expiration is None else issued.expiration.isoformat(),
        }
        return fine(words, facts=facts)

    def _whose(self, _deadline: Deadline) -> Outcome:
        from kmstool.parent.chain import caller_identity  # noqa: PLC0415

        assert self._issued is not None  # noqa: S101 - `needs`
        arn = caller_identity(self._issued, region=self._region)
        return fine(f"they are of {arn}", facts={"arn": arn})


def _end_of(issued: Issued) -> str:
    if issued.expiration is None:
        return "without a word of when they end"
    minutes = int((issued.expiration - datetime.now(UTC)).total_seconds()) // 60
    return f"good for {minutes} min more"
