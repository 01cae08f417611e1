"""The relay: calls KMS for an enclave and hands back what only the enclave can open.

It makes two calls, for keys on its list, and only with a `Recipient`. It never sees a plaintext: an
answer that has one is not passed on. It is not trusted by the enclave either; what keeps a secret
is the attestation, and what an enclave may believe of an answer is docs/explanation/two-setups.md.

Credentials and endpoint are botocore's business, with its whole chain (environment, profile,
instance role). botocore is imported when a client is made.
"""

import base64
import importlib
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from kmstool import limits
from kmstool.arn import KeyArn
from kmstool.endpoint import Address
from kmstool.errors import CredentialsError, SettingError
from kmstool.framing import (
    INTERNAL_ERROR,
    NOT_AVAILABLE,
    REFUSED,
    build_error_answer,
    build_relay_answer,
    build_relay_refusal,
)
from kmstool.parent.addresses import check_relay_address
from kmstool.parent.chain import explain, silence_botocore
from kmstool.parent.listening import Service
from kmstool.parent.request import RelayedCall, parse_relayed_call
from kmstool.parent.settings import check_endpoint_url
from kmstool.protocol import Operation

# The members of an answer that are passed on; another one would be for nobody.
_ANSWER_MEMBERS: Final = {
    Operation.DECRYPT: ("KeyId", "EncryptionAlgorithm", "KeyMaterialId"),
    Operation.DERIVE_SHARED_SECRET: ("KeyId", "KeyAgreementAlgorithm", "KeyOrigin"),
}
_METHODS: Final = {
    Operation.DECRYPT: "decrypt",
    Operation.DERIVE_SHARED_SECRET: "derive_shared_secret",
}
_PLAIN: Final = ("Plaintext", "SharedSecret")  # "null or empty" in an answer for a recipient


class Relay:
    """Answers the messages of enclaves; fit for `Service`, and called from its threads.

    Args:
        keys: the only ones that are used.
        client_for: gives botocore's KMS client of a region; called once for each.
        clock: for the time in the log, in seconds.

    Raises:
        SettingError: no key was allowed.
    """

    def __init__(
        self,
        keys: Collection[KeyArn],
        client_for: Callable[[str], Any],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not keys:
            raise SettingError(
                "the relay has no key to work with", hint="name each with --allow-key ARN"
            )
        self._keys = frozenset(keys)
        self._client_for = client_for
        self._clock = clock
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()

    def __call__(self, message: Mapping[str, object]) -> tuple[bytes, str]:
        """The frame of the answer to one message, and words for the log. Raises `InputError`."""
        call = parse_relayed_call(message)
        if call.key not in self._keys:
            frame = build_error_answer(REFUSED, f"the key {call.key} is not on the relay's list")
            return frame, f"{call.operation} {call.key}: refused: not allowed with --allow-key"
        started = self._clock()
        frame, outcome = self._ask(call)
        took = (self._clock() - started) * 1000
        return frame, f"{call.operation} {call.key}: {outcome}, {took:.0f} ms"

    def _ask(self, call: RelayedCall) -> tuple[bytes, str]:
        from botocore.exceptions import (  # noqa: PLC0415
            BotoCoreError,
            ClientError,
            CredentialRetrievalError,
            NoCredentialsError,
            PartialCredentialsError,
        )

        try:
            client = self._client(call.key.region)
            answer = getattr(client, _METHODS[call.operation])(**call.parameters)
        except ClientError as error:
            return _refusal(error.response)
        except (NoCredentialsError, CredentialRetrievalError, PartialCredentialsError) as error:
            words = "the relay has no credentials"
            kind = type(error).__name__
            return build_error_answer(NOT_AVAILABLE, words), f"failed: {words} ({kind})"
        except BotoCoreError as error:
            words = f"the relay could not reach KMS ({type(error).__name__})"
            return build_error_answer(NOT_AVAILABLE, words), f"failed: {words}"
        if any(answer.get(name) for name in _PLAIN):
            words = "KMS ignored Recipient and answered with a plaintext, which was dropped"
            return build_error_answer(REFUSED, words), f"refused: {words}"
        sealed = answer.get("CiphertextForRecipient")
        if not isinstance(sealed, bytes):
            words = "KMS answered without CiphertextForRecipient"
            return build_error_answer(INTERNAL_ERROR, words), f"failed: {words}"
        members = {name: answer[name] for name in _ANSWER_MEMBERS[call.operation] if name in answer}
        members["CiphertextForRecipient"] = base64.b64encode(sealed).decode("ascii")
        return build_relay_answer(members), "answered"

    def _client(self, region: str) -> Any:
        with self._lock:
            if region not in self._clients:
                self._clients[region] = self._client_for(region)
            return self._clients[region]


def serve(
    listen: Address,
    keys: Collection[KeyArn],
    *,
    endpoint_url: str | None = None,
    allowed_cids: Collection[int] = (),
    report: Callable[[str], None] = lambda _line: None,
) -> Service:
    """A running relay; `close` ends it.

    Args:
        endpoint_url: of KMS, in place of what botocore finds (`AWS_ENDPOINT_URL_KMS`, the region).

    Raises:
        SettingError: the network could connect there, or botocore is missing.
        CredentialsError: it has none. TransportError.
    """
    check_relay_address(listen)
    clients = kms_clients(endpoint_url)
    return Service(listen, Relay(keys, clients), allowed_cids=allowed_cids, report=report)


def kms_clients(endpoint_url: str | None = None) -> Callable[[str], Any]:
    """Makes botocore KMS clients by region, with one attempt a call: the enclave does the retries.

    Raises:
        SettingError: botocore is not installed, or `endpoint_url` is no URL.
        CredentialsError: its chain finds none, or fails; the message holds no secret.
    """
    if endpoint_url is not None:
        check_endpoint_url(endpoint_url)
    try:
        botocore_session = importlib.import_module("botocore.session")
        config = importlib.import_module("botocore.config").Config(
            retries={"total_max_attempts": 1},  # each attempt has a document of its own
            connect_timeout=limits.CONNECT_TIMEOUT,
            read_timeout=limits.RELAY_KMS_SECONDS,
            max_pool_connections=limits.PARENT_CONNECTIONS_MAX,
        )
    except ModuleNotFoundError:
        raise SettingError(
            "the relay needs botocore, which is not installed", hint="pip install botocore"
        ) from None
    session = botocore_session.get_session()
    silence_botocore()
    reason: str = "botocore finds no credentials"
    hint: str | None = "give the instance a role that may use the key, or set AWS_PROFILE or AWS_*"
    try:
        found = session.get_credentials()
    except Exception as error:  # noqa: BLE001 - as in `chain.Chain`
        found, (reason, hint) = None, explain(error)
    if found is None:
        raise CredentialsError(reason, hint=hint)

    def client_for(region: str) -> Any:
        return session.create_client(
            "kms", region_name=region, endpoint_url=endpoint_url, config=config
        )

    return client_for


def _refusal(response: Mapping[str, Any]) -> tuple[bytes, str]:
    """KMS' own error, passed on as it is: the enclave explains it."""
    error, metadata = response.get("Error", {}), response.get("ResponseMetadata", {})
    code, status = str(error.get("Code", "")), metadata.get("HTTPStatusCode", 0)
    message = str(error.get("Message", ""))[: limits.HTTP_MESSAGE_PRINT_MAX]
    if "Signature" in code:
        # AWS explains a wrong signature with the canonical request: the session token stands in it.
        message = "the credentials or the clock of the relay are wrong"
    frame = build_relay_refusal(
        status=status if isinstance(status, int) else 0,
        code=code,
        message=message,
        request_id=metadata.get("RequestId"),
    )
    return frame, f"KMS refused: {code[: limits.PEER_MESSAGE_PRINT_MAX]}"
