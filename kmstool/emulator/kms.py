"""The emulated KMS: a signed request in, KMS' answer out. The front door of this room.

The order of the checks is fixed: signature, operation, the request's form, the attestation
document, then the operation with its policy. Nothing is answered before the signature holds, and
nothing that failed a check reaches the next one. Every request leaves one line for the log; no
secret is in it.
"""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final

from kmstool.arn import partition_of_region
from kmstool.attestation.chain import ChainCache
from kmstool.emulator import operations_aliases as aliases
from kmstool.emulator import operations_crypto as crypto
from kmstool.emulator import operations_grants as grants
from kmstool.emulator import operations_keys as keys
from kmstool.emulator.attested import RANDOM_SHAPE, attest
from kmstool.emulator.authentication import HttpRequest, authenticate
from kmstool.emulator.call import Call
from kmstool.emulator.cms_writer import Shape
from kmstool.emulator.principals import Principal, Principals
from kmstool.emulator.refusal import Refusal
from kmstool.emulator.server import HttpAnswer
from kmstool.emulator.store import Store
from kmstool.emulator.validation import Parameters, load_service_model, write_answer
from kmstool.errors import printable

_TARGET_PREFIX = "TrentService."
_CONTENT_TYPE = "application/x-amz-json-1.1"

OPERATIONS: Final[dict[str, Callable[[Call], Parameters]]] = {
    "CancelKeyDeletion": keys.cancel_key_deletion,
    "CreateAlias": aliases.create_alias,
    "CreateGrant": grants.create_grant,
    "CreateKey": keys.create_key,
    "Decrypt": crypto.decrypt,
    "DeleteAlias": aliases.delete_alias,
    "DeriveSharedSecret": crypto.derive_shared_secret,
    "DescribeKey": keys.describe_key,
    "DisableKey": keys.disable_key,
    "EnableKey": keys.enable_key,
    "Encrypt": crypto.encrypt,
    "GenerateDataKey": crypto.generate_data_key,
    "GenerateDataKeyPair": crypto.generate_data_key_pair,
    "GenerateDataKeyPairWithoutPlaintext": crypto.generate_data_key_pair_without_plaintext,
    "GenerateDataKeyWithoutPlaintext": crypto.generate_data_key_without_plaintext,
    "GenerateRandom": crypto.generate_random,
    "GetKeyPolicy": keys.get_key_policy,
    "GetPublicKey": keys.get_public_key,
    "ListAliases": aliases.list_aliases,
    "ListGrants": grants.list_grants,
    "ListKeyPolicies": keys.list_key_policies,
    "ListKeys": keys.list_keys,
    "PutKeyPolicy": keys.put_key_policy,
    "ReEncrypt": crypto.re_encrypt,
    "ScheduleKeyDeletion": keys.schedule_key_deletion,
    "UpdateAlias": aliases.update_alias,
}


@dataclass(slots=True)
class Record:
    """What the log says about one request.

    Attributes:
        milliseconds: from the request's last byte to the answer's first.
    """

    request_id: str
    principal: str = "-"
    operation: str = "-"
    key_arn: str = "-"
    result: str = "OK"
    detail: str = ""
    milliseconds: float = 0.0

    def line(self) -> str:
        """One line: time, principal, operation, key, result, milliseconds, reason of a refusal."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        parts = (moment, self.principal, self.operation, self.key_arn, self.result)
        reason = f" {self.detail}" if self.detail else ""
        text = f"{' '.join(parts)} {self.milliseconds:.1f}ms{reason}"
        # A client chose some of these words: it must not write escape sequences to a terminal.
        return printable(text)


class Kms:
    """One region of an emulated KMS.

    Args:
        principals: who may sign.
        store: where keys are.
        region: the only one it answers for.
        root_der: the root that attestation documents have to lead to.
        shapes: the CMS shapes of answers; one of them is chosen at random for each.
        report: gets a line for each request.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        *,
        principals: Principals,
        store: Store,
        region: str,
        root_der: bytes,
        shapes: tuple[Shape, ...] = RANDOM_SHAPE,
        report: Callable[[str], None] = lambda _line: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._principals = principals
        self._store = store
        self._region = region
        self._partition = partition_of_region(region).name
        self._root_der = root_der
        self._shapes = shapes
        self._report = report
        self._clock = clock
        self._chains = ChainCache()
        self._model = load_service_model()

    def handle(self, request: HttpRequest) -> HttpAnswer:
        """Answers one request; never raises."""
        started = time.perf_counter()
        record = Record(str(uuid.uuid4()))
        now = self._clock()
        try:
            answer = HttpAnswer(200, [], write_answer(self._answer(request, record, now)))
        except Refusal as refusal:
            record.result, record.detail = refusal.code, refusal.message
            answer = _error(refusal)
        except Exception as error:  # noqa: BLE001 - a bug must not end the connection silently
            record.result, record.detail = "KMSInternalException", _place(error)
            answer = _error(Refusal("KMSInternalException", "a bug of the emulator, see its log"))
        record.milliseconds = (time.perf_counter() - started) * 1000
        self._report(record.line())
        answer.headers.extend(
            (
                ("content-type", _CONTENT_TYPE),
                ("x-amzn-requestid", record.request_id),
                ("date", formatdate(now, usegmt=True)),
                ("cache-control", "no-cache, no-store, must-revalidate, private"),
            )
        )
        return answer

    def _answer(self, request: HttpRequest, record: Record, now: float) -> Parameters:
        if request.method != "POST" or request.target != "/":
            raise Refusal("UnknownOperationException", "KMS takes POST / and nothing else")
        target = request.headers.get("x-amz-target", "")
        record.operation = target.removeprefix(_TARGET_PREFIX)[:64] or "-"
        principal = authenticate(request, self._principals, region=self._region, now=now)
        record.principal = principal.caller_arn
        operation = self._operation(request, target)
        parameters = self._model.parse_request(operation, request.body)
        call = self._call(operation, principal, parameters, now)
        try:
            return OPERATIONS[operation](call)
        finally:
            record.key_arn = call.key_arn or "-"

    def _operation(self, request: HttpRequest, target: str) -> str:
        if request.headers.get("content-type") != _CONTENT_TYPE:
            raise Refusal("UnknownOperationException", f"Content-Type has to be {_CONTENT_TYPE}")
        operation = target.removeprefix(_TARGET_PREFIX)
        if operation == target or not self._model.knows(operation):
            raise Refusal("UnknownOperationException", "X-Amz-Target names no operation of KMS")
        if operation not in OPERATIONS:
            raise Refusal("UnsupportedOperationException", f"The emulator has no {operation}")
        return operation

    def _call(
        self, operation: str, principal: Principal, parameters: Parameters, now: float
    ) -> Call:
        recipient = parameters.get("Recipient")
        attested = None
        if recipient is not None:
            attested = attest(
                recipient,
                root_der=self._root_der,
                chains=self._chains,
                shapes=self._shapes,
                now=now,
            )
        return Call(
            operation=operation,
            principal=principal,
            parameters=parameters,
            attested=attested,
            now=now,
            store=self._store,
            partition=self._partition,
            region=self._region,
        )


def _error(refusal: Refusal) -> HttpAnswer:
    # Lower-case `message` is what KMS sends for its modelled errors.
    body = write_answer({"__type": refusal.code, "message": refusal.message})
    return HttpAnswer(refusal.status, [("x-amzn-errortype", refusal.code)], body)


def _place(error: Exception) -> str:
    """Type and place of an unexpected error; its text could hold a secret."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    where = frame.tb_frame.f_code.co_name if frame is not None else "?"
    return f"{type(error).__name__} in {where}"
