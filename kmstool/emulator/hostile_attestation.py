"""Attacks on whoever verifies an attestation document: it is the parent who hands it over.

In the enclave's place the parent answers for the security module, so that `kmstool attest`, or any
program that asks for a document, prints the one that the verifier would be given.
"""

import secrets
import time
from collections.abc import Callable
from typing import Any

from kmstool import cbor
from kmstool.attestation.document import AttestationDocument, parse_document
from kmstool.emulator.cbor_writer import encode
from kmstool.emulator.hostile_attack import Attack, Ground, Setup
from kmstool.emulator.nsm import SimulatedNsm
from kmstool.emulator.signer import SigningChain
from kmstool.limits import NSM_CBOR_DEPTH_MAX

STALE = 3600.0  # seconds; its certificate, of three hours, is still good

Handle = Callable[[bytes], bytes]


class ForgedChain(Attack):
    name = "forged-chain"
    sentence = (
        "makes a document with the enclave's PCRs under a chain of its own, and puts its own root"
        " into cabundle"
    )
    setup = Setup.ATTESTATION
    sound = "trusts one root, which it has from elsewhere, and takes cabundle for intermediates"
    exit_codes = (10,)
    words = "root"

    def nsm(self, ground: Ground) -> Handle:
        pcrs = _attested_by(ground.emulator.nsm.handle).pcrs
        return SimulatedNsm(pcrs, SigningChain.generate()).handle


class StaleAttestation(Attack):
    name = "stale-attestation"
    sentence = "hands over a genuine document of an hour ago"
    setup = Setup.ATTESTATION
    sound = "asks for a fresh nonce in the document, or for a time"
    exit_codes = (10,)
    words = "nonce"

    def nsm(self, ground: Ground) -> Handle:
        genuine = ground.emulator.nsm.handle
        pcrs = _attested_by(genuine).pcrs
        earlier = SimulatedNsm(
            pcrs, ground.emulator.chain, clock=lambda: time.time() - STALE
        ).handle
        nonce = secrets.token_bytes(32)

        def handle(request: bytes) -> bytes:
            fields = _attestation_fields(request)
            if fields is None:
                return genuine(request)
            return earlier(encode({"Attestation": {**fields, "nonce": nonce}}))

        return handle


class AnotherImage(Attack):
    name = "another-image"
    sentence = "hands over a genuine document of an enclave that runs the parent's own image"
    setup = Setup.ATTESTATION
    sound = "compares PCR0, PCR1 and PCR2 with those of the image that it trusts"
    exit_codes = (10,)
    words = "PCR"

    def nsm(self, ground: Ground) -> Handle:
        pcrs = {index: secrets.token_bytes(48) for index in range(3)}
        return SimulatedNsm(pcrs, ground.emulator.chain).handle


ATTESTATION_ATTACKS: tuple[type[Attack], ...] = (ForgedChain, StaleAttestation, AnotherImage)


def _attested_by(handle: Handle) -> AttestationDocument:
    empty = {"user_data": None, "nonce": None, "public_key": None}
    answer: Any = cbor.decode(handle(encode({"Attestation": empty})), max_depth=NSM_CBOR_DEPTH_MAX)
    return parse_document(answer["Attestation"]["document"])


def _attestation_fields(request: bytes) -> dict[str, Any] | None:
    """The fields of a request for a document; None for all other requests."""
    try:
        content = cbor.decode(request, max_depth=NSM_CBOR_DEPTH_MAX)
    except cbor.CborError:
        return None
    fields = content.get("Attestation") if isinstance(content, dict) else None
    return fields if isinstance(fields, dict) else None
