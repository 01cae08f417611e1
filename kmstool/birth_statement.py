"""The two formats of a birth certificate: the file, and the canonical statement in it.

What a statement says of a key made inside, how it is written in the one way that is hashed, and how
both are read: bounded, strict, one text for one meaning. docs/formats/birth-certificate.md is the
specification, tests/vectors/birth-certificate.json its vectors.

Never: verifies. Whoever holds a `Statement` knows that it contradicts neither itself nor the rules
for a locked key; that an enclave made it is what `birth.py` finds out.
"""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha384
from typing import Final, Never

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from kmstool.arn import KeyArn, kms_host, parse_key_arn, partition_of_region
from kmstool.caveats import CATALOGUE, Caveat
from kmstool.enclave.nsm import BIRTH_TAG
from kmstool.errors import DocumentError, PolicyError, SettingError
from kmstool.limits import (
    BIRTH_CERTIFICATE_MAX,
    BIRTH_STATEMENT_MAX,
    DOCUMENT_MAX,
    PUBLIC_KEY_MAX,
)
from kmstool.policy.build import KEY_KINDS, LockedPolicy, read_locked_policy
from kmstool.protocol import strict_base64
from kmstool.strict_json import read_object

FORMAT: Final = "kmstool-birth-1"
FILE_FORMAT: Final = "kmstool-birth-certificate-1"
ORIGIN: Final = "AWS_KMS"

_CURVES: Final = {
    "ECC_NIST_P256": ec.SECP256R1,
    "ECC_NIST_P384": ec.SECP384R1,
    "ECC_NIST_P521": ec.SECP521R1,
}
_RSA_BITS: Final = {"RSA_2048": 2048, "RSA_3072": 3072, "RSA_4096": 4096}


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What a birth certificate says of a key; `text` is what is hashed.

    Attributes:
        key: its ARN, which names account and region. Never of a multi-region key.
        public_key: SubjectPublicKeyInfo DER of a key of `key_spec`; None for a symmetric key.
        policy: the policy that KMS gave back, which locks the key. Holds KeySpec and account.
        kms_host: the name in the certificate of the KMS that answered; one of KMS' own.
        caveats: what was known against trusting the channel when the key was made.

    Raises:
        DocumentError: step `statement`: the values do not fit each other.
    """

    key: KeyArn
    public_key: bytes | None = field(repr=False)
    policy: LockedPolicy = field(repr=False)
    kms_host: str
    caveats: tuple[Caveat, ...] = ()

    def __post_init__(self) -> None:
        if self.key.key_id.startswith("mrk-"):
            _refuse(f"the key {self.key} is a multi-region key, whose replicas have other policies")
        if self.policy.account != self.key.account_id:
            _refuse(
                f"the policy is for callers of account {self.policy.account}, and the key is of"
                f" {self.key.account_id}"
            )
        if not is_kms_host(self.kms_host, self.key.region):
            _refuse(f"the host {self.kms_host!a} is not one of KMS in {self.key.region}")
        check_public_key(self.public_key, self.key_spec)

    @property
    def key_spec(self) -> str:
        return self.policy.key_spec

    @property
    def key_usage(self) -> str:
        return KEY_KINDS[self.key_spec].usage

    @property
    def text(self) -> str:
        """The one canonical JSON text (RFC 8785) of this statement, ASCII."""
        public_key = None if self.public_key is None else _base64(self.public_key)
        return _canonical(
            {
                "account": self.key.account_id,
                "caveats": sorted(caveat.code for caveat in self.caveats),
                "format": FORMAT,
                "key_arn": str(self.key),
                "key_spec": self.key_spec,
                "key_usage": self.key_usage,
                "kms_host": self.kms_host,
                "multi_region": False,
                "origin": ORIGIN,
                "policy": self.policy.text,
                "policy_sha384": self.policy.sha384.hex(),
                "public_key": public_key,
                "region": self.key.region,
            }
        )


@dataclass(frozen=True, slots=True)
class CertificateFile:
    """The two parts of a birth certificate's file, as bytes; nothing says that they are genuine."""

    statement: str
    document: bytes = field(repr=False)


def user_data_of(statement: str) -> bytes:
    """What the security module signs for a statement: the tag, then 48 bytes of SHA-384."""
    return BIRTH_TAG + statement_digest(statement)


def statement_digest(statement: str) -> bytes:
    """SHA-384 of the statement's text, 48 bytes."""
    return sha384(statement.encode("ascii")).digest()


def build_certificate(statement: str, document: bytes) -> bytes:
    """The file: one line of JSON, ending in a line feed."""
    members = {"document": _base64(document), "format": FILE_FORMAT, "statement": statement}
    return _canonical(members).encode("ascii") + b"\n"


def parse_certificate(data: bytes) -> CertificateFile:
    """Takes a certificate file apart.

    Raises:
        DocumentError: step `certificate`: it is not one, or not written in the one way that it can
            be; so nothing stands before, between or behind its parts.
    """
    members, problem = read_object(data, BIRTH_CERTIFICATE_MAX)
    if members is None:
        _refuse_file(problem)
    if set(members) != {"document", "format", "statement"}:
        _refuse_file("has other members than document, format and statement")
    if members["format"] != FILE_FORMAT:
        _refuse_file(f"is not of the format {FILE_FORMAT}")
    statement, document = members["statement"], strict_base64(members["document"])
    if not isinstance(statement, str) or not _is_plain(statement, BIRTH_STATEMENT_MAX):
        _refuse_file(f"has a statement that is not 1..{BIRTH_STATEMENT_MAX} characters of ASCII")
    if document is None or not 1 <= len(document) <= DOCUMENT_MAX:
        _refuse_file("has a document that is not base64 of 1 to 262,144 bytes")
    if build_certificate(statement, document) != data:
        _refuse_file("is not written in the one form that a birth certificate has")
    return CertificateFile(statement, document)


def parse_statement(text: str) -> Statement:
    """Reads a statement.

    Raises:
        DocumentError: step `statement`: it is not canonical JSON of exactly the members of the
            specification, a value is not one that a key made inside has, or it contradicts itself.
    """
    members, problem = read_object(text.encode("utf-8", "replace"), BIRTH_STATEMENT_MAX)
    if members is None:
        _refuse(f"it {problem}")
    if members.get("format") != FORMAT:
        _refuse(f"it is not of the format {FORMAT}")
    texts = {name: value for name, value in members.items() if isinstance(value, str)}
    try:
        key = parse_key_arn(texts.get("key_arn", ""))
        policy = read_locked_policy(texts.get("policy", ""), key_spec=texts.get("key_spec", ""))
    except (SettingError, PolicyError) as error:
        raise DocumentError(
            f"the statement of the birth certificate: {error}", step="statement", hint=error.hint
        ) from None
    public_key = members.get("public_key")
    der = None if public_key is None else strict_base64(public_key)
    if public_key is not None and der is None:
        _refuse("its public_key is not base64")
    statement = Statement(
        key=key,
        public_key=der,
        policy=policy,
        kms_host=texts.get("kms_host", ""),
        caveats=_caveats(members.get("caveats")),
    )
    # Every other member follows from these, so one comparison holds them all: account, region,
    # usage, origin, MultiRegion, the policy's own form and hash, and that there is nothing else.
    if statement.text != text:
        _refuse(f"it is not what it has to be{_first_difference(members, statement.text)}")
    return statement


def is_kms_host(host: str, region: str) -> bool:
    """Whether a name can only be KMS' own: public, FIPS, or of a VPC endpoint for KMS.

    Amazon's roots vouch for the names of all its customers. A key that another host claims to have
    made must not get a certificate.
    """
    suffix = re.escape(partition_of_region(region).dns_suffix)
    endpoint = rf"vpce-[a-z0-9-]+\.kms(-fips)?\.{re.escape(region)}\.vpce\.{suffix}"
    return host in (kms_host(region), kms_host(region, fips=True)) or bool(
        re.fullmatch(endpoint, host)
    )


def check_public_key(der: bytes | None, key_spec: str) -> None:
    """Raises `DocumentError` unless `der` is the canonical SPKI of a key of this spec.

    A symmetric key has None.
    """
    if key_spec not in _CURVES and key_spec not in _RSA_BITS:
        if der is not None:
            _refuse(f"a key of the spec {key_spec} has no public key")
        return
    if der is None:
        _refuse("it has no public key")
    if len(der) > PUBLIC_KEY_MAX:
        _refuse(f"its public key has {len(der)} bytes, over {PUBLIC_KEY_MAX}")
    try:
        key = serialization.load_der_public_key(der)
        canonical = key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    except (ValueError, TypeError, UnsupportedAlgorithm):
        _refuse("its public key is not the DER of a SubjectPublicKeyInfo")
    if canonical != der:
        _refuse("its public key is not in the one form that DER has")
    fits = (
        (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES[key_spec]))
        if key_spec in _CURVES
        else (isinstance(key, rsa.RSAPublicKey) and key.key_size == _RSA_BITS[key_spec])
    )
    if not fits:
        _refuse(f"its public key is not one of the spec {key_spec}")


def _caveats(value: object) -> tuple[Caveat, ...]:
    if not isinstance(value, list):
        _refuse("its caveats are not a list")
    found = []
    for code in value:
        if not isinstance(code, str) or code not in CATALOGUE:
            _refuse(f"it has a caveat that this kmstool does not know: {code!a:.80}")
        found.append(CATALOGUE[code])
    if len(set(found)) != len(found):
        _refuse("it names a caveat twice")
    return tuple(found)


def _first_difference(members: dict[str, object], wanted: str) -> str:
    right = json.loads(wanted)
    for name in sorted(set(right) | set(members)):
        if name not in right:
            return f": it has a member {name!a:.80}"
        if name not in members or type(members[name]) is not type(right[name]):
            return f": its {name} is missing, or of another type"
        if members[name] != right[name]:
            return f": its {name} is not the one that follows from the rest"
    return ": the JSON is not written canonically"


def _canonical(members: Mapping[str, object]) -> str:
    """RFC 8785 for what occurs here: ASCII text, booleans, null, and lists of these."""
    return json.dumps(members, sort_keys=True, separators=(",", ":"))


def _is_plain(text: str, maximum: int) -> bool:
    return 1 <= len(text) <= maximum and text.isascii() and text.isprintable()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _refuse(problem: str) -> Never:
    raise DocumentError(f"the statement of the birth certificate: {problem}", step="statement")


def _refuse_file(problem: str) -> Never:
    raise DocumentError(
        f"the birth certificate {problem}",
        step="certificate",
        hint="give the file that `kmstool create-key` wrote, unchanged",
    )
