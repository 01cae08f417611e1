"""A KMS in memory whose answers a test bends: the direct client's counterpart without sockets.

It reads requests with json and cbor2 and writes CMS with the emulator's writer, so it shares no
code with what it tests. The whole chain with sockets, TLS and policies is in tests/e2e.
"""

import base64
import json
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import cbor2

from kmstool.emulator.cms_writer import Shape, write_enveloped_data
from kmstool.emulator.nsm import SimulatedNsm
from kmstool.emulator.signer import SigningChain
from kmstool.enclave.credentials import Credentials
from kmstool.enclave.direct import DirectKms
from kmstool.enclave.exchange import Exchange
from kmstool.enclave.http import HttpAnswer, HttpConnection
from kmstool.enclave.nsm import Nsm
from kmstool.enclave.recipient import Recipient
from kmstool.endpoint import Deadline

KEY_ARN = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
SECRET = b"a secret of the enclave's"
CREDENTIALS = Credentials("AKIDEXAMPLE", "secret/access+key", "session+token", None)
IMAGE = {0: b"\x01" * 48, 1: b"\x02" * 48, 2: b"\x03" * 48}
_CHAIN = SigningChain.generate()

Bend = Callable[[dict[str, Any]], None]


class InProcessNsm:
    """The simulated module as a transport, without its socket; counts the requests."""

    def __init__(
        self, pcrs: dict[int, bytes] | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.module = SimulatedNsm(IMAGE if pcrs is None else pcrs, _CHAIN, clock=clock)
        self.requests: list[Any] = []

    def exchange(self, request: bytes) -> bytes:
        self.requests.append(cbor2.loads(request))
        return self.module.handle(request)

    def close(self) -> None:
        pass


class BentKms:
    """Answers `post` like an `HttpConnection`; `script` holds what goes wrong, one item a request.

    Args:
        plaintext: what every answer carries to the recipient.
        bend: changes the JSON answer before it is sent.
        script: for each request in turn: None (answer well), an exception to raise, or a pair of
            status and JSON error body; after its end all requests are answered well.
    """

    def __init__(
        self,
        plaintext: bytes = SECRET,
        *,
        bend: Bend = lambda _answer: None,
        script: tuple[Exception | tuple[int, dict[str, str]] | None, ...] = (),
        date: float | None = None,
    ) -> None:
        self.plaintext = plaintext
        self.bend = bend
        self.script = list(script)
        self.date = date
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.dials = 0
        self.reusable = True

    def dial(self, deadline: Deadline) -> HttpConnection:
        self.dials += 1
        self.reusable = True
        return self  # type: ignore[return-value]  # it has what Exchange uses of a connection

    def close(self) -> None:
        self.reusable = False

    def post(self, headers: dict[str, str], body: bytes, deadline: Deadline) -> HttpAnswer:
        request = json.loads(body)
        self.requests.append(request)
        self.headers.append(headers)
        trouble = self.script.pop(0) if self.script else None
        if isinstance(trouble, Exception):
            raise trouble
        if trouble is not None:
            status, error = trouble
            return self._answer(status, error)
        answer: dict[str, Any] = {"KeyId": KEY_ARN, "Plaintext": None}
        answer |= {
            "TrentService.Decrypt": {"EncryptionAlgorithm": "SYMMETRIC_DEFAULT"},
            "TrentService.DeriveSharedSecret": {"KeyAgreementAlgorithm": "ECDH"},
            "TrentService.GenerateDataKey": {"CiphertextBlob": base64.b64encode(b"blob").decode()},
            "TrentService.GenerateDataKeyPair": {
                "PrivateKeyCiphertextBlob": base64.b64encode(b"private blob").decode(),
                "PublicKey": base64.b64encode(b"public").decode(),
                "KeyPairSpec": request.get("KeyPairSpec"),
            },
            "TrentService.GenerateRandom": {},
        }[headers["X-Amz-Target"]]
        cms = write_enveloped_data(self.plaintext, public_key_of(request), shape=Shape.KMS_EXPLICIT)
        answer["CiphertextForRecipient"] = base64.b64encode(cms).decode()
        self.bend(answer)
        return self._answer(200, answer)

    def _answer(self, status: int, members: dict[str, Any]) -> HttpAnswer:
        headers = {
            "x-amzn-requestid": "9a1b2c3d-0000-4000-8000-1234567890ab",
            "date": formatdate(time.time() if self.date is None else self.date, usegmt=True),
        }
        return HttpAnswer(
            status=status, headers=headers, body=json.dumps(members).encode(), keep_alive=True
        )


def public_key_of(request: dict[str, Any]) -> bytes:
    """The SubjectPublicKeyInfo that a request's attestation document carries."""
    assert request["Recipient"]["KeyEncryptionAlgorithm"] == "RSAES_OAEP_SHA_256"
    document = base64.b64decode(request["Recipient"]["AttestationDocument"], validate=True)
    public_key = cbor2.loads(cbor2.loads(document)[2])["public_key"]
    assert isinstance(public_key, bytes)
    return public_key


def client(
    kms: BentKms,
    *,
    nsm: InProcessNsm | None = None,
    load_credentials: Callable[[Deadline], Credentials] = lambda _deadline: CREDENTIALS,
    pauses: list[float] | None = None,
    lines: list[str] | None = None,
    timeout: float = 30.0,
    **options: Any,
) -> DirectKms:
    """A direct client of a bent KMS that does not really sleep."""
    exchange = Exchange(
        dial=kms.dial,
        host="kms.eu-west-1.amazonaws.com",
        region="eu-west-1",
        load_credentials=load_credentials,
        timeout=timeout,
        trace=([] if lines is None else lines).append,
        sleep=([] if pauses is None else pauses).append,
    )
    return DirectKms(exchange, Recipient(Nsm(nsm or InProcessNsm())), **options)
