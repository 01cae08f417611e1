"""Birth certificates without an enclave or a KMS, each part of which a test may bend.

    certificate = birth_certificate()
    born = verified_birth(public_key=der, key_spec="ECC_NIST_P384")    # for tests of what takes one

The document is written and signed by tests/support/documents.py, the statement's JSON here by hand:
neither is what reads them.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from support.documents import Chain, document, make_chain

from kmstool.birth import VerifiedBirth, verify_birth_certificate

ACCOUNT = "111122223333"
KEY_ARN = f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"
IMAGE = {0: b"\xa1" * 48, 1: b"\xa2" * 48, 2: b"\xa3" * 48}
SUCCESSOR = {0: b"\xb1" * 48, 1: b"\xb2" * 48, 2: b"\xb3" * 48}
ADMINISTRATOR = f"arn:aws:iam::{ACCOUNT}:role/admin"
TAG = b"kmstool-birth-1"
CHAIN = make_chain()

_CURVES: dict[str, type[ec.EllipticCurve]] = {
    "ECC_NIST_P256": ec.SECP256R1,
    "ECC_NIST_P384": ec.SECP384R1,
    "ECC_NIST_P521": ec.SECP521R1,
}
_ACTIONS = {
    "ECC": ["kms:DeriveSharedSecret"],
    "RSA": ["kms:Decrypt"],
    "SYM": ["kms:Decrypt", "kms:GenerateDataKey", "kms:GenerateDataKeyPair"],
}


def spki(key_spec: str) -> bytes | None:
    """The public key of a new key of this spec; None for a symmetric one."""
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    if key_spec in _CURVES:
        key = ec.generate_private_key(_CURVES[key_spec]())
    elif key_spec.startswith("RSA_"):
        key = rsa.generate_private_key(65537, int(key_spec[4:]))
    else:
        return None
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def image_statement(
    image: Mapping[int, bytes], number: int = 1, key_spec: str = "ECC_NIST_P384"
) -> dict[str, Any]:
    return {
        "Sid": f"Image{number}",
        "Effect": "Allow",
        "Principal": {"AWS": "*"},
        "Action": list(_ACTIONS[key_spec[:3]]),
        "Resource": "*",
        "Condition": {
            "StringEquals": {"kms:CallerAccount": ACCOUNT},
            "StringEqualsIgnoreCase": {
                f"kms:RecipientAttestation:PCR{index}": value.hex()
                for index, value in image.items()
            },
        },
    }


def locked_policy(
    *images: Mapping[int, bytes], key_spec: str = "ECC_NIST_P384", administrator: str | None = None
) -> dict[str, Any]:
    """The policy of a locked key, as an object; images in the order of their PCRs."""
    look: dict[str, Any] = {
        "Sid": "Look",
        "Effect": "Allow",
        "Principal": {"AWS": "*"},
        "Action": ["kms:DescribeKey", "kms:GetKeyPolicy", "kms:GetPublicKey", "kms:ListGrants"],
        "Resource": "*",
        "Condition": {"StringEquals": {"kms:CallerAccount": ACCOUNT}},
    }
    statements = [image_statement(one, n, key_spec) for n, one in enumerate(images, 1)] + [look]
    if administrator is not None:
        statements.append(
            {
                "Sid": "Administrator",
                "Effect": "Allow",
                "Principal": {"AWS": administrator},
                "Action": [
                    "kms:DescribeKey",
                    "kms:DisableKey",
                    "kms:GetKeyPolicy",
                    "kms:ListGrants",
                    "kms:ScheduleKeyDeletion",
                ],
                "Resource": "*",
            }
        )
    return {"Version": "2012-10-17", "Statement": statements}


def canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def statement_members(
    *,
    key_spec: str = "ECC_NIST_P384",
    public_key: bytes | None = None,
    images: tuple[Mapping[int, bytes], ...] = (IMAGE,),
    administrator: str | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """A statement's members; a change of `...` (Ellipsis) leaves one out."""
    der = spki(key_spec) if public_key is None else public_key
    policy = canonical(locked_policy(*images, key_spec=key_spec, administrator=administrator))
    members: dict[str, Any] = {
        "account": ACCOUNT,
        "caveats": [],
        "format": "kmstool-birth-1",
        "key_arn": KEY_ARN,
        "key_spec": key_spec,
        "key_usage": "KEY_AGREEMENT" if key_spec in _CURVES else "ENCRYPT_DECRYPT",
        "kms_host": "kms.eu-west-1.amazonaws.com",
        "multi_region": False,
        "origin": "AWS_KMS",
        "policy": policy,
        "public_key": None if der is None else base64.b64encode(der).decode(),
        "region": "eu-west-1",
    }
    members.update(changes)
    if "policy_sha384" not in members:
        members["policy_sha384"] = hashlib.sha384(str(members["policy"]).encode()).hexdigest()
    return {name: value for name, value in members.items() if value is not ...}


def certificate_file(statement: str, signed: bytes) -> bytes:
    members = {
        "document": base64.b64encode(signed).decode(),
        "format": "kmstool-birth-certificate-1",
        "statement": statement,
    }
    return canonical(members).encode() + b"\n"


def birth_certificate(
    statement: str | None = None,
    *,
    chain: Chain = CHAIN,
    pcrs: Mapping[int, bytes] = IMAGE,
    user_data: bytes | None = None,
    **statement_changes: Any,
) -> bytes:
    """A certificate whose parts belong together, but for what the arguments say."""
    text = canonical(statement_members(**statement_changes)) if statement is None else statement
    if user_data is None:
        user_data = TAG + hashlib.sha384(text.encode()).digest()
    signed = document(chain, user_data=user_data, pcrs=dict(pcrs), nonce=None)
    return certificate_file(text, signed)


def verified_birth(
    *, public_key: bytes | None = None, key_spec: str = "ECC_NIST_P384", **changes: Any
) -> VerifiedBirth:
    """A verified key: the real way, through a certificate."""
    data = birth_certificate(public_key=public_key, key_spec=key_spec, **changes)
    root = CHAIN.root.der
    return verify_birth_certificate(data, pcrs=IMAGE, account=ACCOUNT, root_der=root)
