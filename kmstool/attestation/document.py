"""An attestation document's bytes → its fields, strictly; nothing here says that they are genuine.

What it does: reads the COSE_Sign1 (RFC 9052, section 4.2; step 1, `cbor`) and the payload in it
(step 2, `document`), and applies every rule of AWS' "Verifying the root of trust", sections "COSE
and CBOR" and "Syntactical validation" (the same text: aws-nitro-enclaves-nsm-api,
docs/attestation_process.md, 3.1 and 3.2.2).
What it never does: look into a certificate, or verify. `verify.py` does; `inspect` shows what this
module returns and says that nothing was verified.

Where AWS' text and real documents differ, or leave a choice:
- Text: "no field content can be null". Real documents write null for a public_key, user_data or
  nonce that was not asked for. Null and absent both mean None here.
- Text: PCRs of 32, 48 or 64 bytes, digest SHA384 only. SHA-384 gives 48 bytes, so 48 it is.
- Text: a list of allowed fields. A field that is not on it is refused: a reader that passes over
  what it does not know cannot say what the signer meant by it.
- Newer hosts write the payload as a map of indefinite length. That map may have either form; no
  other item may be of indefinite length, which no host writes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NoReturn

from kmstool import cbor, limits
from kmstool.errors import DocumentError


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationDocument:
    """The fields of a document that keeps every syntactical rule. They are claims until verified.

    Attributes:
        protected: the protected header as it was signed, `{1: -35}` (ES384).
        payload: the signed bytes, 1..16384.
        signature: 96 bytes, r and s.
        module_id: `i-<instance>-enc<enclave>`, not empty.
        digest: `SHA384`.
        timestamp: milliseconds since 1970.
        pcrs: index (0..31) to 48 bytes; the locked registers only.
        certificate: DER of the leaf, 1..1024 bytes.
        cabundle: DER of the root, then the intermediates in order of issue; each 1..1024 bytes.
        public_key: 1..1024 bytes, SubjectPublicKeyInfo DER where KMS is to answer; or None.
        user_data: 0..512 bytes, or None.
        nonce: 0..512 bytes, or None.
    """

    protected: bytes
    payload: bytes
    signature: bytes
    module_id: str
    digest: str
    timestamp: int
    pcrs: Mapping[int, bytes]
    certificate: bytes
    cabundle: tuple[bytes, ...]
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None


_MANDATORY: Final = ("cabundle", "certificate", "digest", "module_id", "pcrs", "timestamp")
_NAMES: Final = frozenset({*_MANDATORY, "public_key", "user_data", "nonce"})
_TAG_18: Final = b"\xd2"  # COSE_Sign1 (RFC 9052, section 2) in its shortest form, once
_MAP: Final = 0xA0  # RFC 8949, section 3.1: the head of a map of up to 23 entries
_INDEFINITE_MAP: Final = b"\xbf"  # the same, 3.2.2; ends with ff
_ES384_HEADER: Final = bytes.fromhex("a1013822")  # {1: -35} in its shortest form
_ES384: Final = -35  # RFC 9053, section 2.1


@dataclass(frozen=True, slots=True)
class CoseSign1:
    """The parts of a COSE_Sign1 of the right form; the unprotected header is always empty.

    Attributes:
        protected: the protected header as it was signed, `{1: -35}` (ES384).
        payload: the signed bytes, 1..16384.
        signature: 96 bytes, r and s.
    """

    protected: bytes
    payload: bytes
    signature: bytes


def parse_document(data: bytes) -> AttestationDocument:
    """Returns the fields of one document of 1..262144 bytes, with or without the tag 18.

    Raises:
        DocumentError: step `cbor` where the bytes are not a COSE_Sign1, step `document` where the
            payload breaks a rule.
    """
    return read_fields(read_cose(data))


def read_cose(data: bytes) -> CoseSign1:
    """Step 1: one strict CBOR item of 1..262144 bytes that is a COSE_Sign1 with ES384.

    Raises:
        DocumentError: step `cbor`.
    """
    step = "cbor"
    if len(data) > limits.DOCUMENT_MAX:
        _refuse(f"it has {len(data)} bytes, over {limits.DOCUMENT_MAX}", step)
    untagged = data[1:] if data[:1] == _TAG_18 else data
    sign1 = _decode(untagged, "the document", step, limits.DOCUMENT_COSE_DEPTH_MAX)
    if type(sign1) is not list or len(sign1) != 4:
        _refuse("it is not a COSE_Sign1, an array of four", step)
    protected, unprotected, payload, signature = sign1
    _check_headers(protected, unprotected, step)
    _octets(payload, "the payload", 1, limits.DOCUMENT_PAYLOAD_MAX, step)
    length = limits.DOCUMENT_SIGNATURE_LENGTH
    _octets(signature, "the signature", length, length, step)
    return CoseSign1(protected, payload, signature)


def read_fields(cose: CoseSign1) -> AttestationDocument:
    """Step 2: the payload is one strict CBOR map, and every field keeps its rule.

    Raises:
        DocumentError: step `document`.
    """
    indefinite = cose.payload.startswith(_INDEFINITE_MAP)
    fields = _decode(cose.payload, "the payload", "document", indefinite=indefinite)
    if type(fields) is not dict:
        _refuse("the payload is not a map")
    _check_names(fields)
    if indefinite:  # again as a definite map, so that nothing inside has an indefinite length
        definite = bytes([_MAP | len(fields)]) + cose.payload[1:-1]
        fields = _decode(definite, "the payload", "document")
    return AttestationDocument(
        protected=cose.protected,
        payload=cose.payload,
        signature=cose.signature,
        module_id=_module_id(fields["module_id"]),
        digest=_digest(fields["digest"]),
        timestamp=_timestamp(fields["timestamp"]),
        pcrs=_pcrs(fields["pcrs"]),
        certificate=_octets(
            fields["certificate"], "certificate", 1, limits.DOCUMENT_CERTIFICATE_MAX
        ),
        cabundle=_cabundle(fields["cabundle"]),
        public_key=_optional(fields, "public_key", 1, limits.DOCUMENT_PUBLIC_KEY_MAX),
        user_data=_optional(fields, "user_data", 0, limits.DOCUMENT_USER_DATA_MAX),
        nonce=_optional(fields, "nonce", 0, limits.DOCUMENT_NONCE_MAX),
    )


def _check_headers(protected: object, unprotected: object, step: str) -> None:
    if type(unprotected) is not dict or unprotected:
        _refuse("the unprotected header is not an empty map", step)
    if protected == _ES384_HEADER:  # as every host writes it
        return
    if type(protected) is not bytes:
        _refuse("the protected header is not a byte string", step)
    if len(protected) > limits.DOCUMENT_PROTECTED_MAX:
        _refuse("the protected header holds anything but the algorithm", step)
    header = _decode(protected, "the protected header", step)
    if type(header) is not dict or len(header) != 1:
        _refuse("the protected header holds anything but the algorithm", step)
    ((label, algorithm),) = header.items()
    # Compared with their types: True and 1.0 are equal to 1 in Python.
    if type(label) is not int or label != 1:
        _refuse("the protected header holds anything but the algorithm", step)
    if type(algorithm) is not int or algorithm != _ES384:
        _refuse(f"the algorithm is {_brief(algorithm)}, not -35 (ES384)", step)


def _check_names(fields: dict[Any, Any]) -> None:
    for name in _MANDATORY:
        if name not in fields:
            _refuse(f"the field {name} is missing")
    for name in fields:
        if name not in _NAMES:
            _refuse(
                f"the field {_brief(name)} is not one of an attestation document",
                hint="a newer host may write more: look for a newer kmstool",
            )


def _module_id(value: object) -> str:
    if type(value) is not str or not value:
        _refuse("module_id is not a text, or empty")
    if len(value) > limits.NSM_MODULE_ID_MAX or not value.isprintable():
        _refuse(f"module_id is not {limits.NSM_MODULE_ID_MAX} printable characters at most")
    return value


def _digest(value: object) -> str:
    if value != "SHA384":
        _refuse(f"digest is {_brief(value)}, not SHA384")
    return "SHA384"


def _timestamp(value: object) -> int:
    if type(value) is not int or not 0 < value <= limits.DOCUMENT_TIMESTAMP_MAX:
        _refuse(f"timestamp is {_brief(value)}, not milliseconds since 1970")
    return value


def _pcrs(value: object) -> Mapping[int, bytes]:
    if type(value) is not dict or not 1 <= len(value) <= limits.NSM_PCR_COUNT_MAX:
        _refuse(f"pcrs is not a map of 1..{limits.NSM_PCR_COUNT_MAX} registers")
    length = limits.NSM_PCR_LENGTH
    for index, content in value.items():
        if type(index) is not int or not 0 <= index < limits.NSM_PCR_COUNT_MAX:
            _refuse(f"pcrs has the index {_brief(index)}, not 0..{limits.NSM_PCR_COUNT_MAX - 1}")
        if type(content) is not bytes or len(content) != length:
            _octets(content, f"PCR {index}", length, length)
    return MappingProxyType(dict(sorted(value.items())))


def _cabundle(value: object) -> tuple[bytes, ...]:
    if type(value) is not list or not 1 <= len(value) <= limits.DOCUMENT_CABUNDLE_MAX:
        _refuse(f"cabundle is not a list of 1..{limits.DOCUMENT_CABUNDLE_MAX} certificates")
    return tuple(
        _octets(entry, f"cabundle[{number}]", 1, limits.DOCUMENT_CERTIFICATE_MAX)
        for number, entry in enumerate(value)
    )


def _optional(fields: dict[Any, Any], name: str, least: int, most: int) -> bytes | None:
    value = fields.get(name)
    return None if value is None else _octets(value, name, least, most)


def _octets(value: object, name: str, least: int, most: int, step: str = "document") -> bytes:
    if type(value) is not bytes:
        _refuse(f"{name} is not a byte string", step)
    if not least <= len(value) <= most:
        expected = str(most) if least == most else f"{least}..{most}"
        _refuse(f"{name} has {len(value)} bytes, not {expected}", step)
    return value


def _decode(
    data: bytes,
    what: str,
    step: str,
    depth: int = limits.DOCUMENT_CBOR_DEPTH_MAX,
    *,
    indefinite: bool = False,
) -> Any:
    try:
        return cbor.decode(data, max_depth=depth, indefinite=indefinite)
    except cbor.CborError as error:
        raise DocumentError(
            f"{what} is not valid CBOR: {error}",
            step=step,
            hint="expected are the bytes of a COSE_Sign1 as the NSM gives them, not base64 of them",
        ) from None


def _brief(value: object) -> str:
    """A value that a hostile document chose, short and printable."""
    text = repr(value) if isinstance(value, int | str | float) else f"a {type(value).__name__}"
    return text if len(text) <= 40 else text[:37] + "..."


def _refuse(what: str, step: str = "document", hint: str | None = None) -> NoReturn:
    raise DocumentError(
        f"not an attestation document: {what}",
        step=step,
        hint=hint or "the rules are in docs/reference/attestation-document.md",
    )
