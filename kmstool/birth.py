"""Keys made inside: the birth certificate of a KMS key, and who may believe it.

A birth certificate says: code whose measurements are these made this key, locked it to these
images, and saw KMS confirm it. It is an attestation document whose user_data is the tag
`kmstool-birth-1` and SHA-384 of a statement that travels along (`birth_statement.py`).

What it does: checks a certificate, anywhere and at any time. `create_key.py` makes them, inside.
What it never does: believe a certificate without being told which image and which account. An
attacker's own image, in their own account, makes certificates that are genuine in every part.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Never

from kmstool.arn import KeyArn
from kmstool.attestation.document import AttestationDocument, parse_document
from kmstool.attestation.verify import Expectations, own_time, verify_document
from kmstool.birth_statement import Statement, parse_certificate, parse_statement, user_data_of
from kmstool.caveats import Caveat
from kmstool.enclave.nsm import BIRTH_TAG
from kmstool.errors import DocumentError
from kmstool.policy.build import Image
from kmstool.roots import nitro_root_der

_VERIFIED: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedBirth:
    """A key that a verified birth certificate vouches for.

    Only `verify_birth_certificate` makes one.

    Attributes:
        key: its ARN.
        public_key: SubjectPublicKeyInfo DER; None for a symmetric key.
        key_spec, key_usage: as KMS names them.
        account: 12 digits, the one that was expected.
        pcrs: index to 48 bytes: the registers of the image that made it, to which it is locked.
        images: every image that the key opens for, this one among them.
        administrator: the ARN of who may disable it or schedule its deletion, or None.
        policy: the key policy, canonical. policy_sha384: 48 bytes.
        made_at: the time of the attestation document.
        module_id: which enclave made it, on which instance.
        caveats: what was known against trusting the channel to KMS when it was made.
    """

    key: KeyArn
    public_key: bytes | None = field(repr=False)
    key_spec: str
    key_usage: str
    account: str
    pcrs: Mapping[int, bytes] = field(repr=False)
    images: tuple[Mapping[int, bytes], ...] = field(repr=False)
    administrator: str | None
    policy: str = field(repr=False)
    policy_sha384: bytes = field(repr=False)
    made_at: datetime
    module_id: str
    caveats: tuple[Caveat, ...]
    proof: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.proof is not _VERIFIED:
            raise TypeError("only verify_birth_certificate makes a VerifiedBirth")


def verify_birth_certificate(
    data: bytes,
    *,
    pcrs: Mapping[int, bytes],
    account: str,
    also_images: Sequence[Mapping[int, bytes]] = (),
    root_der: bytes | None = None,
) -> VerifiedBirth:
    """Returns the key that a birth certificate vouches for.

    Certificates of attestation live for hours, so it is verified as of its own time: a birth
    certificate does not age. Whether the key still exists is not in it.

    Args:
        data: the file, up to `BIRTH_CERTIFICATE_MAX` bytes.
        pcrs: what the image must be that made the key: PCR0, PCR1 and PCR2, and more where the key
            has to be locked to more. From whoever built the image, never from the certificate.
        account: 12 digits, the account that has to own the key.
        also_images: the other images that the key may open for, such as a known successor; it must
            open for exactly these.
        root_der: the root that the document must lead to; None for AWS' Nitro root.

    Raises:
        DocumentError: `step` says where it failed: `certificate` (the file), `cbor`, `document`,
            `chain`, `signature` (the attestation document), `expectations` (image, account),
            `statement` (what is said of the key).
        SettingError: PCR0-2 are not all given, or a value is of another form.
    """
    expected, others = Image(pcrs), [Image(image) for image in also_images]
    # (1) The file has one form.
    certificate = parse_certificate(data)
    # (2) The document is genuine, and of the image that is expected.
    time = own_time(parse_document(certificate.document))
    document = verify_document(
        certificate.document,
        root_der=nitro_root_der() if root_der is None else root_der,
        at=time,
        expectations=Expectations(pcrs=expected.pcrs),
    ).document
    # (3) It was signed for this very statement, by code that says so with the tag.
    _check_user_data(document, certificate.statement)
    # (4) The statement describes a key that is locked, and contradicts itself nowhere.
    statement = parse_statement(certificate.statement)
    # (5) The key is of the account that is expected, and opens for the images that are expected.
    if statement.key.account_id != account:
        _differ(f"the key is of account {statement.key.account_id}, not {account}")
    own = _check_images(statement, document, expected, others)
    return _vouched(statement, own, made_at=time, module_id=document.module_id)


def _vouched(
    statement: Statement, own: Image, *, made_at: datetime, module_id: str
) -> VerifiedBirth:
    """The result, of nothing but what was checked."""
    return VerifiedBirth(
        key=statement.key,
        public_key=statement.public_key,
        key_spec=statement.key_spec,
        key_usage=statement.key_usage,
        account=statement.key.account_id,
        pcrs=own.pcrs,
        images=tuple(image.pcrs for image in statement.policy.images),
        administrator=statement.policy.administrator,
        policy=statement.policy.text,
        policy_sha384=statement.policy.sha384,
        made_at=made_at,
        module_id=module_id,
        caveats=statement.caveats,
        proof=_VERIFIED,
    )


def _check_user_data(document: AttestationDocument, statement: str) -> None:
    if document.user_data is None or not document.user_data.startswith(BIRTH_TAG):
        _differ(
            f"its user_data does not begin with the tag {BIRTH_TAG.decode()}",
            hint="the enclave did not sign this document as a birth certificate",
        )
    if document.user_data != user_data_of(statement):
        _differ(
            "its user_data is the hash of another statement",
            hint="statement and document do not belong together, or the statement was changed",
        )


def _check_images(
    statement: Statement, document: AttestationDocument, expected: Image, others: list[Image]
) -> Image:
    """The image of the policy that made the key. No image may be in it that nobody expects."""
    own: Image | None = None
    for image in statement.policy.images:
        attested = {index: document.pcrs.get(index) for index in image.pcrs}
        if attested == dict(image.pcrs) and own is None and image not in others:
            own = image
        elif image in others:
            others = [one for one in others if one != image]
        else:
            _differ(
                f"the key also opens for an image whose PCR0 is {image.pcrs[0].hex()}",
                hint="if that is the successor you know of, name it with its PCR0, PCR1 and PCR2",
            )
    if own is None:
        _differ("the key is not locked to the image that made it")
    for index in expected.pcrs:
        if index not in own.pcrs:
            _differ(
                f"the key is not locked to PCR{index}",
                hint="it opens whatever that register holds; expect what it is locked to",
            )
    if others:
        _differ(f"the key does not open for the image whose PCR0 is {others[0].pcrs[0].hex()}")
    return own


def _differ(what: str, hint: str | None = None) -> Never:
    raise DocumentError(
        f"the birth certificate is genuine but not as expected: {what}",
        step="expectations",
        hint=hint,
    )
