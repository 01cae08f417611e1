"""What an attack is, and the ground it is made on: an honest emulator, and a parent that is not.

An attack is a small class: a name, a sentence, which setup it concerns, what a sound client does,
and methods that put something of the parent's own in the place of what belongs there: the way to
KMS, the credentials, the security module's documents. What it does not replace stays honest.

The administrator's SDK never meets an attack: only what the enclave reaches is bent.
"""

import contextlib
import json
import secrets
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Final

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from kmstool.emulator.authentication import HttpRequest
from kmstool.emulator.kms import Kms
from kmstool.emulator.principals import Principal, collect_principals
from kmstool.emulator.running import Emulator
from kmstool.emulator.server import Handler, Server
from kmstool.emulator.streams import StreamServer
from kmstool.endpoint import TcpAddress

CHOSEN: Final = b"bytes that the parent has chosen"
"""What a fooled client takes for its secret: 32 bytes, so that it also passes for a key."""

OUTSIDER_ARN: Final = "arn:aws:iam::444455556666:role/parent"
"""The attacker's role, in an account of its own."""


class Setup(StrEnum):
    """What the parent attacks."""

    DIRECT = "direct"
    """TLS ends in the enclave, and the parent forwards it and hands over credentials."""
    RELAY = "relay"
    """The parent calls KMS for the enclave."""
    FILE = "file"
    """The parent keeps the enclave's sealed files."""
    ATTESTATION = "attestation"
    """The parent hands attestation documents to somebody who verifies them."""


class Attack:
    """One attack, made once: an instance keeps what it has seen so far.

    Attributes:
        name: stable, lower case, with hyphens.
        sentence: what the parent does.
        setup: what it concerns.
        sound: what a sound client does about it.
        exit_codes: with which kmstool ends.
        words: what kmstool's error then says, among other things.
    """

    name: ClassVar[str]
    sentence: ClassVar[str]
    setup: ClassVar[Setup]
    sound: ClassVar[str]
    exit_codes: ClassVar[tuple[int, ...]]
    words: ClassVar[str]

    def front(self, ground: "Ground") -> TcpAddress:
        """Where the enclave finds KMS."""
        return ground.emulator.address

    def relay(self, ground: "Ground") -> TcpAddress | None:  # noqa: ARG002
        """Where the enclave finds the relay, for attacks of one."""
        return None

    def credentials(self, ground: "Ground") -> Principal | None:
        """The credentials that the enclave is given."""
        return ground.emulator.enclave

    def nsm(self, ground: "Ground") -> Callable[[bytes], bytes]:
        """Who answers for the security module."""
        return ground.emulator.nsm.handle


class Ground:
    """What an attack works with: the honest emulator, and the attacker's own means.

    Attributes:
        emulator: the honest one.
        outsider: the attacker's principal, in another account of the same KMS.
        kms: the same KMS, which knows the outsider too.
    """

    def __init__(
        self, emulator: Emulator, stack: contextlib.ExitStack, report: Callable[[str], None]
    ) -> None:
        self.emulator = emulator
        partition = emulator.admin.arn.split(":")[1]
        self.outsider = Principal(
            access_key_id=f"AKIA{secrets.token_hex(8).upper()}",
            secret_access_key=secrets.token_hex(20),
            arn=OUTSIDER_ARN.replace("arn:aws:", f"arn:{partition}:"),
            iam_allows=("kms:*",),
        )
        everybody = (*emulator.principals.by_access_key.values(), self.outsider)
        self.kms = Kms(
            principals=collect_principals(everybody, sessions=emulator.principals.sessions),
            store=emulator.store,
            region=emulator.region,
            root_der=emulator.chain.root_der,
            report=report,
        )
        self._stack = stack
        self._report = report

    def serve_kms(self, handler: Handler, context: ssl.SSLContext | None = None) -> TcpAddress:
        """A KMS with this handler; with the emulator's certificate unless a context is given."""
        context = context or self.emulator.authority.server_context()
        server = Server(handler, context, report=self._report)
        self._stack.callback(server.close)
        return server.address

    def serve_streams(self, serve: Callable[[socket.socket], None]) -> TcpAddress:
        """A bare listener, whose connections `serve` gets, each in a thread of its own."""
        server = StreamServer(serve)
        self._stack.callback(server.close)
        return server.address

    def call(self, principal: Principal, operation: str, **members: Any) -> dict[str, Any]:
        """A plain call to KMS; blobs are base64 both ways. Raises ValueError where it refuses."""
        answer = self.kms.handle(self.sign(principal, operation, members))
        content: dict[str, Any] = json.loads(answer.body)
        if answer.status != 200:
            raise ValueError(f"KMS refused {operation}: {content.get('__type')}")
        return content

    def sign(self, principal: Principal, operation: str, members: dict[str, Any]) -> HttpRequest:
        """A request signed with a principal's credentials, which the parent has."""
        body = json.dumps(members).encode()
        request = AWSRequest(
            "POST",
            "https://localhost/",
            headers={
                "host": "localhost",
                "content-type": "application/x-amz-json-1.1",
                "x-amz-target": f"TrentService.{operation}",
            },
            data=body,
        )
        credentials = Credentials(
            principal.access_key_id, principal.secret_access_key, principal.session_token
        )
        SigV4Auth(credentials, "kms", self.emulator.region).add_auth(request)
        headers = {name.lower(): value for name, value in request.headers.items()}
        return HttpRequest("POST", "/", headers, body)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks of KMS, read without checking anything.

    Attributes:
        members: of the JSON body; blobs are base64.
        document: the attestation document in base64, or None: then it is not the enclave's request.
    """

    request: HttpRequest
    operation: str
    members: dict[str, Any] = field(repr=False)

    @classmethod
    def of(cls, request: HttpRequest) -> "Asked":
        """Never raises: what cannot be read asks for nothing."""
        try:
            members = json.loads(request.body)
        except (ValueError, RecursionError):
            members = {}
        operation = request.headers.get("x-amz-target", "").removeprefix("TrentService.")
        return cls(request, operation, members if isinstance(members, dict) else {})

    @property
    def document(self) -> str | None:
        recipient = self.members.get("Recipient")
        document = recipient.get("AttestationDocument") if isinstance(recipient, dict) else None
        return document if isinstance(document, str) else None

    def with_document(self, document: str) -> dict[str, Any]:
        """The members, for another recipient."""
        recipient = {**self.members["Recipient"], "AttestationDocument": document}
        return {**self.members, "Recipient": recipient}
