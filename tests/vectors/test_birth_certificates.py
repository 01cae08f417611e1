"""docs/formats/birth-certificate.md as vectors: what verifies, and at which step the rest fails."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import cbor2
import pytest

from kmstool.birth import verify_birth_certificate
from kmstool.errors import DocumentError

FILE: dict[str, Any] = json.loads(
    Path(__file__).with_name("birth-certificate.json").read_text("utf-8")
)
VECTORS: list[dict[str, Any]] = FILE["vectors"]


def image(values: dict[str, str]) -> dict[int, bytes]:
    return {int(index): bytes.fromhex(value) for index, value in values.items()}


@pytest.mark.parametrize("vector", VECTORS, ids=[one["name"] for one in VECTORS])
def test_vector(vector: dict[str, Any]) -> None:
    def verify() -> Any:
        return verify_birth_certificate(
            vector["certificate"].encode(),
            pcrs=image(vector["pcrs"]),
            account=vector["account"],
            also_images=[image(one) for one in vector["also_images"]],
            root_der=base64.b64decode(FILE["root"]),
        )

    if vector["expect"] != "ok":
        with pytest.raises(DocumentError) as error:
            verify()
        assert error.value.step == vector["expect"], error.value
        return
    born = verify()
    # Read once more by hand, as the specification says it.
    file = json.loads(vector["certificate"])
    statement = json.loads(file["statement"])
    payload = cbor2.loads(cbor2.loads(base64.b64decode(file["document"]))[2])
    digest = hashlib.sha384(file["statement"].encode()).digest()
    assert payload["user_data"] == b"kmstool-birth-1" + digest
    assert str(born.key) == statement["key_arn"] == FILE["key_arn"]
    assert (born.key_spec, born.key_usage) == (statement["key_spec"], statement["key_usage"])
    assert born.policy == statement["policy"]
    assert born.policy_sha384.hex() == statement["policy_sha384"]
    assert hashlib.sha384(statement["policy"].encode()).digest() == born.policy_sha384
    key = statement["public_key"]
    assert born.public_key == (None if key is None else base64.b64decode(key))
    assert born.pcrs == image(vector["pcrs"])
    assert [one.code for one in born.caveats] == statement["caveats"]


def test_every_step_that_a_certificate_can_fail_at_has_a_vector() -> None:
    steps = {one["expect"] for one in VECTORS}
    assert steps == {"ok", "certificate", "chain", "signature", "expectations", "statement"}
