"""Attacks on the direct path inside TLS: foreign credentials and ciphertexts, and a KMS that lies.

The parent cannot bend an answer that TLS protects. What it can do is hand over credentials and
ciphertexts of its own (`another-account`, `another-context`). The others need a KMS, or something
with KMS' certificate such as an emulator or a test double, that does not do what KMS does; the
emulator plays it, since TLS ends here.
"""

import base64
import json
from typing import Any, ClassVar

from kmstool.attestation.document import parse_document
from kmstool.emulator.authentication import HttpRequest
from kmstool.emulator.ciphertext import parse_blob_key_id, seal_blob
from kmstool.emulator.cms_writer import Shape, write_enveloped_data
from kmstool.emulator.hostile_attack import CHOSEN, OUTSIDER_ARN, Asked, Attack, Ground, Setup
from kmstool.emulator.principals import Principal
from kmstool.emulator.server import HttpAnswer
from kmstool.endpoint import TcpAddress
from kmstool.errors import DocumentError

_PLAIN_MEMBER = {"GenerateDataKeyPair": "PrivateKeyPlaintext", "DeriveSharedSecret": "SharedSecret"}


class BentAnswer(Attack):
    """A KMS that answers the enclave's requests otherwise than KMS; all others it answers well."""

    setup = Setup.DIRECT

    def front(self, ground: Ground) -> TcpAddress:
        def handle(request: HttpRequest) -> HttpAnswer:
            asked = Asked.of(request)
            if asked.document is None:
                return ground.kms.handle(request)
            return self.answer(ground, asked)

        return ground.serve_kms(handle)

    def answer(self, ground: Ground, asked: Asked) -> HttpAnswer:
        """What goes back to the enclave."""
        raise NotImplementedError


class LyingKms(BentAnswer):
    """A KMS that changes its good answers."""

    exit_codes: ClassVar[tuple[int, ...]] = (8,)

    def answer(self, ground: Ground, asked: Asked) -> HttpAnswer:
        honest = ground.kms.handle(asked.request)
        if honest.status != 200:
            return honest
        members = json.loads(honest.body)
        self.change(asked, members)
        return HttpAnswer(200, honest.headers, json.dumps(members).encode())

    def change(self, asked: Asked, members: dict[str, Any]) -> None:
        """Changes the members of the answer, whose blobs are base64."""
        raise NotImplementedError


class StrippedRecipient(LyingKms):
    name = "stripped-recipient"
    sentence = "is a KMS that ignores Recipient, and answers with a Plaintext of its own"
    sound = "never uses a Plaintext, whatever stands beside it"
    words = "Plaintext"

    def change(self, asked: Asked, members: dict[str, Any]) -> None:
        del members["CiphertextForRecipient"]
        members[_PLAIN_MEMBER.get(asked.operation, "Plaintext")] = encoded(CHOSEN)


class WrongKeyId(LyingKms):
    name = "wrong-key-id"
    sentence = "is a KMS that answers with a plaintext of another key, and says so in KeyId"
    sound = "compares KeyId with the full ARN that it asked for"
    words = "KeyId"

    def change(self, asked: Asked, members: dict[str, Any]) -> None:
        account = OUTSIDER_ARN.split(":")[4]
        parts = str(members.get("KeyId", "")).split(":")
        members["KeyId"] = ":".join([*parts[:4], account, *parts[5:]])
        members["CiphertextForRecipient"] = encoded(sealed_to(asked, CHOSEN))


class OlderRecipientKey(BentAnswer):
    name = "older-recipient-key"
    sentence = (
        "puts an attestation document of an earlier request into this one, so that KMS encrypts"
        " for the older key"
    )
    sound = "opens only what is encrypted to the key of this very request"
    exit_codes = (8,)
    words = "recipient"

    def __init__(self) -> None:
        self._oldest: str | None = None

    def answer(self, ground: Ground, asked: Asked) -> HttpAnswer:
        if self._oldest is None or ground.emulator.enclave is None:
            self._oldest = asked.document
            return ground.kms.handle(asked.request)
        members = asked.with_document(self._oldest)
        return ground.kms.handle(ground.sign(ground.emulator.enclave, asked.operation, members))


class ReplayedAnswer(BentAnswer):
    name = "replayed-answer"
    sentence = "gives the first answer of KMS again, whatever is asked later"
    sound = "uses a recipient key for one answer only, or TLS that cannot be replayed"
    exit_codes = (8,)
    words = "recipient"

    def __init__(self) -> None:
        self._first: dict[str, HttpAnswer] = {}

    def answer(self, ground: Ground, asked: Asked) -> HttpAnswer:
        honest = ground.kms.handle(asked.request)
        if honest.status != 200:
            return honest
        first = self._first.setdefault(asked.operation, honest)
        return HttpAnswer(200, [], first.body)


class AnotherAccount(BentAnswer):
    name = "another-account"
    sentence = (
        "hands over credentials of its own account, which has a key of the same alias, and a"
        " ciphertext of that key"
    )
    sound = "names its key by the full ARN"
    exit_codes = (7,)
    words = "KMS refused"

    def credentials(self, ground: Ground) -> Principal | None:
        return ground.outsider

    def answer(self, ground: Ground, asked: Asked) -> HttpAnswer:
        name = str(asked.members.get("KeyId") or "alias/of-the-parent")
        if name.startswith("alias/"):
            self._make_alias(ground, name)
            if asked.operation == "Decrypt":
                return ground.kms.handle(self._swapped(ground, asked, name))
        return ground.kms.handle(asked.request)

    def _swapped(self, ground: Ground, asked: Asked, name: str) -> HttpRequest:
        """The request as it is when the parent has swapped the ciphertext beforehand."""
        members = dict(asked.members)
        context = members.get("EncryptionContext") or {}
        members["CiphertextBlob"] = ground.call(
            ground.outsider,
            "Encrypt",
            KeyId=name,
            Plaintext=encoded(CHOSEN),
            EncryptionContext=context,
        )["CiphertextBlob"]
        return ground.sign(ground.outsider, asked.operation, members)

    def _make_alias(self, ground: Ground, name: str) -> None:
        if ground.emulator.store.alias(ground.outsider.account_id, name) is None:
            key = ground.call(ground.outsider, "CreateKey")["KeyMetadata"]["KeyId"]
            ground.call(ground.outsider, "CreateAlias", AliasName=name, TargetKeyId=key)


class AnotherContext(BentAnswer):
    name = "another-context"
    sentence = (
        "swaps the ciphertext for one that somebody encrypted under the same key for another"
        " purpose, without an encryption context"
    )
    sound = "has an encryption context with a field that the enclave itself decides"
    exit_codes = (7,)
    words = "InvalidCiphertextException"

    def answer(self, ground: Ground, asked: Asked) -> HttpAnswer:
        blob = base64.b64decode(str(asked.members.get("CiphertextBlob", "")))
        key_id = parse_blob_key_id(blob)
        key = ground.emulator.store.key(key_id, 0.0) if key_id is not None else None
        enclave = ground.emulator.enclave
        if asked.operation != "Decrypt" or key is None or enclave is None:
            return ground.kms.handle(asked.request)
        swapped = seal_blob(key.secret_key(), key.key_id, CHOSEN, {})
        members = {**asked.members, "CiphertextBlob": encoded(swapped)}
        return ground.kms.handle(ground.sign(enclave, asked.operation, members))


LYING_ATTACKS: tuple[type[Attack], ...] = (
    StrippedRecipient,
    WrongKeyId,
    OlderRecipientKey,
    ReplayedAnswer,
    AnotherAccount,
    AnotherContext,
)


def encoded(data: bytes) -> str:
    """Base64, as KMS' JSON has blobs."""
    return base64.b64encode(data).decode()


def sealed_to(asked: Asked, plaintext: bytes) -> bytes:
    """An answer to the public key that stands in the attestation document for all to read."""
    try:
        document = parse_document(base64.b64decode(asked.document or ""))
    except DocumentError:
        return b""
    return write_enveloped_data(plaintext, document.public_key or b"", shape=Shape.KMS_EXPLICIT)
