"""Attacks of a relay: the parent calls KMS for the enclave, and answers what it likes.

Everything here is real: the parent needs no key of anybody's, only the recipient's public key,
which stands in the attestation document, and KMS itself. The relay speaks the frames of
docs/formats/framing.md. `hostile_oracle.py` has the two attacks that take many calls.
"""

import base64
import hashlib
import socket
import time
from dataclasses import dataclass, field
from typing import Any, ClassVar

from asn1crypto import cms  # type: ignore[import-untyped]
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from kmstool.attestation.document import parse_document
from kmstool.emulator.ciphertext import parse_blob_key_id, seal_blob
from kmstool.emulator.cms_writer import Shape, build_enveloped_data, write_enveloped_data
from kmstool.emulator.hostile_attack import CHOSEN, Attack, Ground, Setup
from kmstool.endpoint import TcpAddress
from kmstool.errors import NOT_OPENED, InputError
from kmstool.framing import (
    build_error_answer,
    build_relay_answer,
    parse_relay_request,
    read_frame,
)

BLOCK = 16  # bytes of an AES block
_ALGORITHM = {
    "Decrypt": {"EncryptionAlgorithm": "SYMMETRIC_DEFAULT"},
    "DeriveSharedSecret": {"KeyAgreementAlgorithm": "ECDH"},
}


@dataclass(frozen=True, slots=True)
class Relayed:
    """What the enclave asks the relay to do.

    Attributes:
        parameters: by AWS' names; blobs are base64.
    """

    operation: str
    parameters: dict[str, Any] = field(repr=False)

    @property
    def document(self) -> bytes:
        """The attestation document."""
        return base64.b64decode(self.parameters["Recipient"]["AttestationDocument"])

    @property
    def public_key(self) -> bytes:
        """The recipient's public key, which the document shows to everybody; SPKI DER."""
        return parse_document(self.document).public_key or b""

    def with_document(self, document: bytes) -> dict[str, Any]:
        """The parameters, for another recipient."""
        recipient = dict(self.parameters["Recipient"])
        recipient["AttestationDocument"] = base64.b64encode(document).decode()
        return {**self.parameters, "Recipient": recipient}

    def answer(self, content: bytes) -> dict[str, Any]:
        """The members of a good answer with this `CiphertextForRecipient`."""
        return {
            "KeyId": self.parameters.get("KeyId"),
            "CiphertextForRecipient": base64.b64encode(content).decode(),
            **_ALGORITHM.get(self.operation, {}),
        }


class BentRelay(Attack):
    """A relay that takes any request and gives `answer`; without an attack it is an honest one."""

    setup = Setup.RELAY
    sound = (
        "uses the answer as the key of an authenticated cipher and for nothing else, so that a"
        " wrong one opens nothing"
    )
    exit_codes: ClassVar[tuple[int, ...]] = (8,)
    words = NOT_OPENED

    def relay(self, ground: Ground) -> TcpAddress:
        def serve(enclave: socket.socket) -> None:
            try:
                operation, _region, parameters = parse_relay_request(read_frame(enclave.recv))
                answer = self.answer(ground, Relayed(operation, parameters))
                frame = build_relay_answer(answer)
            except (InputError, ValueError, KeyError) as error:
                frame = build_error_answer("Refused", str(error))
            self.send(enclave, frame)

        return ground.serve_streams(serve)

    def answer(self, ground: Ground, call: Relayed) -> dict[str, Any]:
        """The members of the answer."""
        return ask(ground, call.operation, call.parameters)

    def send(self, enclave: socket.socket, frame: bytes) -> None:
        """Hands the answer over."""
        enclave.sendall(frame)


class ForgedAnswer(BentRelay):
    name = "relay-forged-answer"
    sentence = (
        "asks KMS nothing, and encrypts bytes of its own to the public key in the attestation"
        " document"
    )

    def answer(self, ground: Ground, call: Relayed) -> dict[str, Any]:  # noqa: ARG002
        return call.answer(write_enveloped_data(CHOSEN, call.public_key, shape=Shape.KMS_EXPLICIT))


class FlippedBits(BentRelay):
    name = "relay-flipped-bits"
    sentence = (
        "knows the first 16 bytes of the plaintext, and flips bits of KMS' answer until they are"
        " others of its choice"
    )

    def answer(self, ground: Ground, call: Relayed) -> dict[str, Any]:
        known = what_the_parent_knows(ground, call)[:BLOCK]
        genuine = ask(ground, call.operation, call.parameters)
        fields = fields_of(genuine)
        fields["iv"] = xor(fields["iv"], xor(known, CHOSEN))
        return with_fields(genuine, fields)


class RelayReplay(BentRelay):
    name = "relay-replayed-answer"
    sentence = (
        "asks KMS once, and gives the same answer to every later request, with the identifier of"
        " the new recipient key written into it"
    )
    sound = "makes a recipient key for each request, and opens one answer with it"

    def __init__(self) -> None:
        self._first: dict[str, Any] | None = None

    def answer(self, ground: Ground, call: Relayed) -> dict[str, Any]:
        self._first = self._first or ask(ground, call.operation, call.parameters)
        return renamed(self._first, call)


class RelayOlderKey(BentRelay):
    name = "relay-older-recipient-key"
    sentence = "sends KMS an earlier attestation document, so that it encrypts for the older key"
    sound = "opens only what is encrypted to the key of this very request"
    words = "recipient"

    def __init__(self) -> None:
        self._oldest: bytes | None = None

    def answer(self, ground: Ground, call: Relayed) -> dict[str, Any]:
        self._oldest = self._oldest or call.document
        return ask(ground, call.operation, call.with_document(self._oldest))


class AnotherKeysPlaintext(BentRelay):
    name = "relay-another-keys-plaintext"
    sentence = "has KMS decrypt a ciphertext of its own, under a key of its own, for the enclave"

    def answer(self, ground: Ground, call: Relayed) -> dict[str, Any]:
        own = own_key(ground)
        blob = ground.call(
            ground.outsider, "Encrypt", KeyId=own, Plaintext=base64.b64encode(CHOSEN).decode()
        )["CiphertextBlob"]
        answer = ground.call(
            ground.outsider,
            "Decrypt",
            CiphertextBlob=blob,
            Recipient=call.parameters["Recipient"],
        )
        return call.answer(base64.b64decode(answer["CiphertextForRecipient"]))


class OwnOperation(BentRelay):
    name = "relay-own-operation"
    sentence = (
        "asks KMS for a data key of its own in place of what the enclave asked for, and keeps the"
        " copy that it can decrypt"
    )

    def __init__(self) -> None:
        self.learned: bytes = b""

    def answer(self, ground: Ground, call: Relayed) -> dict[str, Any]:
        answer = ground.call(
            ground.outsider,
            "GenerateDataKey",
            KeyId=own_key(ground),
            NumberOfBytes=len(what_the_parent_knows(ground, call)),
            Recipient=call.parameters["Recipient"],
        )
        plain = ground.call(ground.outsider, "Decrypt", CiphertextBlob=answer["CiphertextBlob"])
        self.learned = base64.b64decode(plain["Plaintext"])
        return call.answer(base64.b64decode(answer["CiphertextForRecipient"]))


class RelayAnotherContext(BentRelay):
    name = "relay-another-context"
    sentence = (
        "asks KMS for another ciphertext of the same key, made for another encryption context"
    )

    def answer(self, ground: Ground, call: Relayed) -> dict[str, Any]:
        blob = base64.b64decode(call.parameters.get("CiphertextBlob", ""))
        key = ground.emulator.store.key(parse_blob_key_id(blob) or "", 0.0)
        if key is None:
            return ask(ground, call.operation, call.parameters)
        parameters = {**call.parameters, "EncryptionContext": {"for": "another purpose"}}
        swapped = seal_blob(key.secret_key(), key.key_id, CHOSEN, parameters["EncryptionContext"])
        parameters["CiphertextBlob"] = base64.b64encode(swapped).decode()
        return ask(ground, call.operation, parameters)


class RelayPlaintext(BentRelay):
    name = "relay-plaintext"
    sentence = "answers with a Plaintext of its own and no CiphertextForRecipient"
    sound = "never uses a Plaintext, whatever stands beside it"
    words = "Plaintext"

    def answer(self, ground: Ground, call: Relayed) -> dict[str, Any]:  # noqa: ARG002
        answer = call.answer(b"")
        del answer["CiphertextForRecipient"]
        member = "SharedSecret" if call.operation == "DeriveSharedSecret" else "Plaintext"
        return {**answer, member: base64.b64encode(CHOSEN).decode()}


class RelayHalfOpen(BentRelay):
    name = "relay-half-open"
    sentence = "takes the request and never answers"
    sound = "stops at its own deadline"
    exit_codes = (6,)
    words = "was used up"

    def send(self, enclave: socket.socket, frame: bytes) -> None:  # noqa: ARG002
        while enclave.recv(65_536):
            pass


class RelayDrip(BentRelay):
    name = "relay-slow-drip"
    sentence = "answers byte by byte, so that no single wait is long"
    sound = "has one deadline for the whole exchange"
    exit_codes = (6,)
    words = "was used up"

    def send(self, enclave: socket.socket, frame: bytes) -> None:
        for index in range(len(frame)):
            enclave.sendall(frame[index : index + 1])
            time.sleep(0.2)


RELAY_ATTACKS: tuple[type[Attack], ...] = (
    ForgedAnswer,
    FlippedBits,
    RelayReplay,
    RelayOlderKey,
    AnotherKeysPlaintext,
    OwnOperation,
    RelayAnotherContext,
    RelayPlaintext,
    RelayHalfOpen,
    RelayDrip,
)


def ask(ground: Ground, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """What KMS answers to the parent's own credentials, which may use the enclave's key."""
    if ground.emulator.enclave is None:
        raise ValueError("the emulator has no enclave role for the relay to act as")
    return ground.call(ground.emulator.enclave, operation, **parameters)


def own_key(ground: Ground) -> str:
    """A new key in the parent's own account."""
    key: str = ground.call(ground.outsider, "CreateKey")["KeyMetadata"]["Arn"]
    return key


def fields_of(answer: dict[str, Any]) -> dict[str, bytes]:
    """The fields of `CiphertextForRecipient` that vary, as `build_enveloped_data` takes them."""
    content = cms.ContentInfo.load(base64.b64decode(answer["CiphertextForRecipient"]))["content"]
    recipient = content["recipient_infos"][0].chosen
    info = content["encrypted_content_info"]
    return {
        "recipient_key_identifier": recipient["rid"].native,
        "encrypted_key": recipient["encrypted_key"].native,
        "iv": info["content_encryption_algorithm"]["parameters"].native,
        "ciphertext": info["encrypted_content"].native,
    }


def with_fields(answer: dict[str, Any], fields: dict[str, bytes]) -> dict[str, Any]:
    """The answer with a CMS of these fields in it."""
    bent = build_enveloped_data(shape=Shape.KMS_EXPLICIT, **fields)
    return {**answer, "CiphertextForRecipient": base64.b64encode(bent).decode()}


def renamed(answer: dict[str, Any], call: Relayed) -> dict[str, Any]:
    """An answer for an older key, which says that it is for the key of this request."""
    identifier = hashlib.sha256(call.public_key).digest()
    return with_fields(answer, {**fields_of(answer), "recipient_key_identifier": identifier})


def xor(one: bytes, other: bytes) -> bytes:
    """Bit by bit, as long as `one`; a shorter `other` ends in zeros."""
    return bytes(a ^ b for a, b in zip(one, other.ljust(len(one), b"\0"), strict=False))


def what_the_parent_knows(ground: Ground, call: Relayed) -> bytes:
    """The plaintext, of which a parent knows a part: a format, a name, a public value, its length.

    No real parent can do this: the simulated hypervisor signs a document with the enclave's PCRs
    for a key of ours. An attack uses no more of it than its sentence says.
    """
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public_key = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    document = ground.emulator.chain.sign_document(
        module_id="i-0000000000000000-enc0000000000000000",
        timestamp=int(time.time() * 1000),
        pcrs=parse_document(call.document).pcrs,
        public_key=public_key,
    )
    answer = ask(ground, call.operation, call.with_document(document))
    envelope = fields_of(answer)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    content_key = key.decrypt(envelope["encrypted_key"], oaep)
    decryptor = Cipher(algorithms.AES256(content_key), modes.CBC(envelope["iv"])).decryptor()
    padded = decryptor.update(envelope["ciphertext"]) + decryptor.finalize()
    return padded[: -padded[-1]]
