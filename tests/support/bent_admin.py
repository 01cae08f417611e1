"""A KMS in memory that makes and shows one key, and whose answers a test bends.

It answers as KMS would, by hand; where it gives back a policy it may write it in another form. The
whole way with sockets, TLS and an enforcing KMS is in tests/e2e.
"""

import base64
import json
from collections.abc import Callable
from typing import Any

from support.bent_kms import CREDENTIALS, InProcessNsm
from support.births import ACCOUNT, IMAGE, KEY_ARN, spki

from kmstool.enclave.admin import KmsAdmin
from kmstool.enclave.exchange import Exchange
from kmstool.enclave.http import HttpAnswer, HttpConnection
from kmstool.endpoint import Deadline

Bend = Callable[[dict[str, Any]], object]
Trouble = Exception | tuple[int, str]
HOST = "kms.eu-west-1.amazonaws.com"


class BentAdmin:
    """Answers `post` like an `HttpConnection`.

    Args:
        bends: by operation, what changes its answer before it is sent.
        troubles: by operation, what comes in the place of its first answers: an exception to
            raise, or status and code of an error.
        dials: exceptions that the first attempts to connect raise.
    """

    def __init__(
        self,
        bends: dict[str, Bend] | None = None,
        troubles: dict[str, list[Trouble]] | None = None,
        dials: list[Exception] | None = None,
    ) -> None:
        self.bends = bends or {}
        self.troubles = {name: list(some) for name, some in (troubles or {}).items()}
        self.dials = dials or []
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.made: dict[str, Any] = {}
        self.public_key: bytes | None = None
        self.reusable = True

    def dial(self, deadline: Deadline) -> HttpConnection:
        if self.dials:
            raise self.dials.pop(0)
        self.reusable = True
        return self  # type: ignore[return-value]  # it has what Exchange uses of a connection

    def close(self) -> None:
        self.reusable = False

    def post(self, headers: dict[str, str], body: bytes, deadline: Deadline) -> HttpAnswer:
        operation = headers["X-Amz-Target"].removeprefix("TrentService.")
        request = json.loads(body)
        self.requests.append((operation, request))
        troubles = self.troubles.get(operation)
        wrong = troubles.pop(0) if troubles else None
        if isinstance(wrong, Exception):
            raise wrong
        if wrong is not None:
            return _answer(wrong[0], {"__type": wrong[1], "message": "as the test has it"})
        answer: dict[str, Any] = getattr(self, f"_{operation}")(request)
        if bend := self.bends.get(operation):
            bend(answer)
        return _answer(200, answer)

    def asked(self) -> list[str]:
        """The operations, in order."""
        return [operation for operation, _ in self.requests]

    def _CreateKey(self, request: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        self.made = request
        self.public_key = spki(request["KeySpec"])
        return self._metadata()

    def _DescribeKey(self, request: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        assert request["KeyId"] == KEY_ARN
        return self._metadata()

    def _GetKeyPolicy(self, request: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"Policy": self.made["Policy"], "PolicyName": "default"}

    def _GetPublicKey(self, request: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        assert self.public_key is not None
        return {
            "KeyId": KEY_ARN,
            "PublicKey": base64.b64encode(self.public_key).decode(),
            "KeySpec": self.made["KeySpec"],
            "KeyUsage": self.made["KeyUsage"],
        }

    def _ListGrants(self, request: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"Grants": [], "Truncated": False}

    def _metadata(self) -> dict[str, Any]:
        metadata = {
            "AWSAccountId": ACCOUNT,
            "KeyId": KEY_ARN.rpartition("/")[2],
            "Arn": KEY_ARN,
            "CreationDate": 1.5,
            "Enabled": True,
            "KeyUsage": self.made["KeyUsage"],
            "KeyState": "Enabled",
            "Origin": "AWS_KMS",
            "KeyManager": "CUSTOMER",
            "KeySpec": self.made["KeySpec"],
            "MultiRegion": False,
        }
        return {"KeyMetadata": metadata}


def admin_of(
    kms: BentAdmin,
    *,
    host: str = HOST,
    region: str = "eu-west-1",
    pauses: list[float] | None = None,
) -> KmsAdmin:
    """An administrative client of a bent KMS that does not really sleep."""
    return KmsAdmin(
        Exchange(
            dial=kms.dial,
            host=host,
            region=region,
            load_credentials=lambda _deadline: CREDENTIALS,
            sleep=([] if pauses is None else pauses).append,
        )
    )


def module_of(pcrs: dict[int, bytes] | None = None) -> InProcessNsm:
    """A security module of the image of tests/support/births.py."""
    return InProcessNsm(IMAGE if pcrs is None else pcrs)


def _answer(status: int, members: dict[str, Any]) -> HttpAnswer:
    return HttpAnswer(status=status, headers={}, body=json.dumps(members).encode(), keep_alive=True)
