"""Writes tests/vectors/birth-certificate.json: python -m support.birth_vectors (in tests/).

Signatures and keys are new with each run, so the file is written once for a version of the format
and then only read.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from support.births import (
    ACCOUNT,
    ADMINISTRATOR,
    CHAIN,
    IMAGE,
    KEY_ARN,
    SUCCESSOR,
    TAG,
    birth_certificate,
    canonical,
    certificate_file,
    locked_policy,
    statement_members,
)
from support.documents import document, make_chain

MORE = IMAGE | {3: b"\xc3" * 48, 8: b"\xc8" * 48}


def good() -> Iterator[dict[str, Any]]:
    yield vector("an ECDH key on P-256", birth_certificate(key_spec="ECC_NIST_P256"))
    yield vector("an ECDH key on P-384", birth_certificate(key_spec="ECC_NIST_P384"))
    yield vector("an ECDH key on P-521", birth_certificate(key_spec="ECC_NIST_P521"))
    yield vector("a symmetric key", birth_certificate(key_spec="SYMMETRIC_DEFAULT"))
    yield vector("an RSA key", birth_certificate(key_spec="RSA_2048"))
    yield vector("with an administrator", birth_certificate(administrator=ADMINISTRATOR))
    yield vector(
        "with a successor",
        birth_certificate(images=(IMAGE, SUCCESSOR)),
        also_images=[SUCCESSOR],
    )
    yield vector(
        "locked to PCR3 and PCR8 too", birth_certificate(pcrs=MORE, images=(MORE,)), pcrs=MORE
    )
    yield vector(
        "over a VPC endpoint",
        birth_certificate(
            kms_host="vpce-0123456789abcdef0-abcdefgh.kms.eu-west-1.vpce.amazonaws.com"
        ),
    )
    yield vector("with caveats", birth_certificate(caveats=["custom-roots", "simulated-nsm"]))


def bad() -> Iterator[dict[str, Any]]:
    text = canonical(statement_members())
    digest = hashlib.sha384(text.encode()).digest()

    def signed(user_data: bytes | None) -> bytes:
        return certificate_file(text, document(CHAIN, user_data=user_data, pcrs=IMAGE))

    whole = birth_certificate()
    yield vector("a line feed more", whole + b"\n", "certificate")
    yield vector("no line feed", whole[:-1], "certificate")
    yield vector("another format", whole.replace(b"certificate-1", b"certificate-2"), "certificate")
    yield vector("white space in the file", whole.replace(b'","', b'", "'), "certificate")
    yield vector("another root", birth_certificate(chain=make_chain()), "chain")
    changed = bytearray(document(CHAIN, user_data=TAG + digest, pcrs=IMAGE))
    changed[-1] ^= 1
    yield vector("a changed signature", certificate_file(text, bytes(changed)), "signature")
    yield vector("another image", birth_certificate(), "expectations", pcrs=SUCCESSOR)
    debug = dict.fromkeys(range(3), bytes(48))
    yield vector("debug mode", birth_certificate(pcrs=debug), "expectations")
    yield vector("another account", birth_certificate(), "expectations", account="444455556666")
    yield vector("no user_data", signed(None), "expectations")
    yield vector("no tag", signed(digest), "expectations")
    yield vector("another tag", signed(b"kmstool-birth-2" + digest), "expectations")
    yield vector("the hash of another statement", signed(TAG + bytes(48)), "expectations")
    yield vector(
        "an image that nobody expects",
        birth_certificate(images=(IMAGE, SUCCESSOR)),
        "expectations",
    )
    yield vector(
        "an expected image that is missing",
        birth_certificate(),
        "expectations",
        also_images=[SUCCESSOR],
    )
    yield vector("not locked to PCR8", birth_certificate(pcrs=MORE), "expectations", pcrs=MORE)
    for name, change in (
        ("imported material", {"origin": "EXTERNAL"}),
        ("a multi-region key", {"multi_region": True}),
        ("another usage", {"key_usage": "SIGN_VERIFY"}),
        ("a public key of another spec", {"key_spec": "ECC_NIST_P521"}),
        ("the region of another ARN", {"region": "eu-west-2"}),
        ("a host that is not of KMS", {"kms_host": "kms.example.com"}),
        ("a hash of another policy", {"policy_sha384": "00" * 48}),
        ("an unknown caveat", {"caveats": ["unheard-of"]}),
        ("a member more", {"owner": "me"}),
    ):
        members: dict[str, Any] = statement_members() | change
        yield vector(name, birth_certificate(canonical(members)), "statement")
    policy = locked_policy(IMAGE)
    policy["Statement"].append(
        {"Effect": "Allow", "Principal": "*", "Action": "kms:PutKeyPolicy", "Resource": "*"}
    )
    yield vector(
        "a policy that can be changed", birth_certificate(policy=canonical(policy)), "statement"
    )
    spaced = json.dumps(json.loads(text), sort_keys=True)
    yield vector("a statement that is not canonical", birth_certificate(spaced), "statement")


def vector(
    name: str,
    certificate: bytes,
    expect: str = "ok",
    *,
    pcrs: dict[int, bytes] = IMAGE,
    account: str = ACCOUNT,
    also_images: list[dict[int, bytes]] | None = None,
) -> dict[str, Any]:
    return {
        "name": name,
        "pcrs": in_hex(pcrs),
        "account": account,
        "also_images": [in_hex(one) for one in also_images or []],
        "expect": expect,
        "certificate": certificate.decode(),
    }


def in_hex(pcrs: dict[int, bytes]) -> dict[str, str]:
    return {str(index): value.hex() for index, value in pcrs.items()}


def main() -> None:
    content = {
        "source": "tests/support/birth_vectors.py; documents signed by tests/support/documents.py",
        "key_arn": KEY_ARN,
        "root": base64.b64encode(CHAIN.root.der).decode(),
        "vectors": [*good(), *bad()],
    }
    print(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
