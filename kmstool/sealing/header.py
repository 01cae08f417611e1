"""The header of a sealed file: CBOR with one encoding, read strictly and written.

What is known to be public is checked here, before anyone is asked for a key; messages may say what
is wrong. Nothing in a parsed header is authenticated: `files.open_sealed` does that with the file
key. Source: docs/formats/sealed-file.md, "Header".
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import cbor2

from kmstool import limits
from kmstool.arn import KeyArn, parse_key_arn
from kmstool.cbor import CborError, decode
from kmstool.errors import InputError, SealedFileError, SettingError
from kmstool.sealing.format import (
    KEY_LENGTH,
    MAC_LENGTH,
    MAGIC,
    SIGNER_LENGTH,
    VERSION,
    WRAPPED_LENGTH,
    BodyCipher,
    prefix,
)
from kmstool.sealing.hpke import PARAMETERS, Kem, parse_point

Value = TypeVar("Value")

_DEPTH = 4  # header, list of recipients, recipient, encryption context
# Keys of the header and of a recipient.
_BODY, _SALT, _RECIPIENTS, _LABEL, _COUNTER, _SIGNER = range(1, 7)
_KIND, _ARN, _WRAPPED, _KEM, _PUBLIC_KEY, _ENC, _BLOB, _CONTEXT = range(1, 9)
_HPKE, _DATA_KEY = 1, 2
_NO_KEY = "a key that is not an integer from -24 to 23"
_NOT_DETERMINISTIC = "the header is not in the deterministic encoding of CBOR"


@dataclass(frozen=True, slots=True, kw_only=True)
class HpkeEntry:
    """The file key wrapped to a KMS key-agreement key. Points are checked to be on their curve.

    Attributes:
        key: the KMS key.
        wrapped: 48 bytes.
        kem: HPKE's number of the curve.
        public_key: of the recipient, uncompressed point.
        enc: HPKE's encapsulated key, uncompressed point.
    """

    key: KeyArn
    wrapped: bytes
    kem: Kem
    public_key: bytes
    enc: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DataKeyEntry:
    """The file key wrapped under a data key.

    Attributes:
        key: the KMS key.
        wrapped: 48 bytes.
        ciphertext_blob: the data key under that key, 1 to 6,144 bytes.
        encryption_context: what KMS bound it to.
    """

    key: KeyArn
    wrapped: bytes
    ciphertext_blob: bytes
    encryption_context: Mapping[str, str]


Entry = HpkeEntry | DataKeyEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a sealed file says of itself.

    Attributes:
        body: how the body is encrypted.
        salt: 32 random bytes.
        recipients: 1 to 64.
        label: the application's, or None.
        counter: 0 to 2^63 - 1, or None.
        signer: Ed25519 public key of 32 bytes, or None for an unsigned file.
    """

    body: BodyCipher
    salt: bytes
    recipients: tuple[Entry, ...]
    label: str | None = None
    counter: int | None = None
    signer: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Everything before the body: the header, the bytes that its MAC covers, and the MAC."""

    header: Header
    covered: bytes
    mac: bytes


def read_head(read: Callable[[int], bytes]) -> Head:
    """Reads a file's head from a stream, and not a byte more.

    Args:
        read: gives up to N bytes, none at the end.

    Raises:
        InputError: this is no sealed file. SealedFileError: it is one that cannot be read.
    """
    magic = _exactly(read, len(MAGIC))
    if magic != MAGIC:
        raise InputError(
            "this is not a sealed file", hint=f"a sealed file begins with {MAGIC.decode()}"
        )
    version = int.from_bytes(_exactly(read, 2), "big")
    if version != VERSION:
        raise SealedFileError(
            f"the sealed file has version {version}, and this kmstool reads version {VERSION}",
            hint="a newer kmstool may read it",
        )
    length = int.from_bytes(_exactly(read, 4), "big")
    if not 1 <= length <= limits.SEALED_HEADER_MAX:
        raise SealedFileError(
            f"the header says that it has {length} bytes: 1 to {limits.SEALED_HEADER_MAX} are"
            " possible"
        )
    data = _exactly(read, length)
    mac = _exactly(read, MAC_LENGTH)
    if len(data) != length or len(mac) != MAC_LENGTH:
        raise SealedFileError("the sealed file ends in its header", hint="it was cut")
    return Head(header=parse_header(data), covered=prefix(length) + data, mac=mac)


def parse_header(data: bytes) -> Header:
    """Reads the CBOR of a header, which must be in its one encoding.

    Raises:
        SealedFileError: malformed, in another encoding, or with something critical and unknown.
    """
    _check_keys(data)
    try:
        item = decode(data, max_depth=_DEPTH)
        same = cbor2.dumps(item, canonical=True) == data
    except (CborError, cbor2.CBOREncodeError, ValueError, TypeError) as error:
        raise SealedFileError(f"the header is not the CBOR that it must be: {error}") from None
    if not same:
        raise SealedFileError(_NOT_DETERMINISTIC)
    fields = _Fields(item, "the header", {_BODY, _SALT, _RECIPIENTS, _LABEL, _COUNTER, _SIGNER})
    entries = fields.required(_RECIPIENTS, list)
    if not 1 <= len(entries) <= limits.SEALED_RECIPIENTS_MAX:
        raise SealedFileError(
            f"the header has {len(entries)} recipients:"
            f" 1 to {limits.SEALED_RECIPIENTS_MAX} are possible"
        )
    label = fields.optional(_LABEL, str)
    if label is not None and not 1 <= len(label.encode()) <= limits.SEALED_LABEL_MAX:
        raise SealedFileError("the label in the header is empty or too long")
    counter = fields.optional(_COUNTER, int)
    if counter is not None and not 0 <= counter <= limits.SEALED_COUNTER_MAX:
        raise SealedFileError(f"the counter in the header is {counter}")
    signer = fields.optional(_SIGNER, bytes)
    if signer is not None and len(signer) != SIGNER_LENGTH:
        raise SealedFileError(f"the signer in the header has {len(signer)} bytes")
    return Header(
        body=_one_of(BodyCipher, fields.required(_BODY, int), "way to encrypt the body"),
        salt=fields.sized(_SALT, KEY_LENGTH, KEY_LENGTH),
        recipients=tuple(_parse_entry(entry) for entry in entries),
        label=label,
        counter=counter,
        signer=signer,
    )


def build_header(header: Header) -> bytes:
    """The one encoding of a header.

    Raises:
        SettingError: a field is out of the format's bounds.
    """
    fields: dict[int, Any] = {
        _BODY: int(header.body),
        _SALT: header.salt,
        _RECIPIENTS: [_entry_fields(entry) for entry in header.recipients],
        _LABEL: header.label,
        _COUNTER: header.counter,
        _SIGNER: header.signer,
    }
    present = {key: value for key, value in fields.items() if value is not None}
    data: bytes = cbor2.dumps(present, canonical=True)
    if len(data) > limits.SEALED_HEADER_MAX:
        raise SettingError(
            f"the header would have {len(data)} bytes: {limits.SEALED_HEADER_MAX} are possible",
            hint="take fewer recipients, or shorter encryption contexts",
        )
    try:
        parse_header(data)  # whatever this version writes, it can read
    except SealedFileError as error:
        raise SettingError(f"such a file cannot be sealed: {error}", hint=error.hint) from None
    return data


def _check_keys(data: bytes) -> None:
    """Refuses map keys that are neither small integers nor text, before anyone hashes them.

    Python's hash of an array has no secret: thousands of keys with one hash would cost a second.
    This reads definite lengths and no tags, which is all that a header may have, and leaves
    everything else that can be wrong with it to cbor2.
    """
    position = 0
    around: list[tuple[int, bool]] = []  # arrays and maps before their end: items left, a map?
    while position < len(data):
        major, count = divmod(data[position], 32)
        if count > 27 or major == 6:
            raise SealedFileError(_NOT_DETERMINISTIC)
        left, in_map = around.pop() if around else (1, False)
        if in_map and left % 2 == 0 and not (major == 3 or (major < 2 and count < 24)):
            raise SealedFileError(f"the header has {_NO_KEY}, nor text")
        if left > 1:
            around.append((left - 1, in_map))
        position += 1
        if count > 23:
            width = 1 << count - 24
            count = int.from_bytes(data[position : position + width], "big")
            position += width
        if major in (2, 3):
            position += count
        elif major in (4, 5) and count:
            around.append((count * (major - 3), major == 5))


def _entry_fields(entry: Entry) -> dict[int, Any]:
    fields: dict[int, Any] = {_ARN: str(entry.key), _WRAPPED: entry.wrapped}
    if isinstance(entry, HpkeEntry):
        return fields | {
            _KIND: _HPKE,
            _KEM: int(entry.kem),
            _PUBLIC_KEY: entry.public_key,
            _ENC: entry.enc,
        }
    context = {_CONTEXT: dict(entry.encryption_context)} if entry.encryption_context else {}
    return fields | {_KIND: _DATA_KEY, _BLOB: entry.ciphertext_blob} | context


def _parse_entry(item: Any) -> Entry:
    kind = item.get(_KIND) if isinstance(item, dict) else None
    if kind == _HPKE:
        fields = _Fields(item, "a recipient", {_KIND, _ARN, _WRAPPED, _KEM, _PUBLIC_KEY, _ENC})
        fields.required(_KIND, int)  # neither true nor 1.0, which equal 1
        kem = _one_of(Kem, fields.required(_KEM, int), "KEM")
        length = PARAMETERS[kem].point_length
        public_key = fields.sized(_PUBLIC_KEY, length, length)
        enc = fields.sized(_ENC, length, length)
        parse_point(kem, public_key)
        parse_point(kem, enc)
        return HpkeEntry(
            key=_parse_arn(fields.required(_ARN, str)),
            wrapped=fields.sized(_WRAPPED, WRAPPED_LENGTH, WRAPPED_LENGTH),
            kem=kem,
            public_key=public_key,
            enc=enc,
        )
    if kind == _DATA_KEY:
        fields = _Fields(item, "a recipient", {_KIND, _ARN, _WRAPPED, _BLOB, _CONTEXT})
        fields.required(_KIND, int)
        return DataKeyEntry(
            key=_parse_arn(fields.required(_ARN, str)),
            wrapped=fields.sized(_WRAPPED, WRAPPED_LENGTH, WRAPPED_LENGTH),
            ciphertext_blob=fields.sized(_BLOB, 1, limits.CIPHERTEXT_MAX),
            encryption_context=_parse_context(fields.optional(_CONTEXT, dict)),
        )
    raise SealedFileError(
        "the header has a recipient of an unknown kind", hint="a newer kmstool may read it"
    )


def _parse_arn(text: str) -> KeyArn:
    try:
        return parse_key_arn(text)
    except SettingError as error:
        raise SealedFileError(f"a recipient's key is wrong: {error}") from None


def _parse_context(context: dict[Any, Any] | None) -> dict[str, str]:
    if context is None:
        return {}
    pairs = [text for pair in context.items() for text in pair]
    if not pairs or not all(type(text) is str for text in pairs):
        raise SealedFileError("an encryption context is empty or not of text")
    if sum(len(text.encode()) for text in pairs) > limits.ENCRYPTION_CONTEXT_MAX:
        raise SealedFileError("an encryption context is too long")
    return context


class _Fields:
    """A CBOR map whose critical keys are all known, and its values by their very types."""

    def __init__(self, item: Any, what: str, known: set[int]) -> None:
        if not isinstance(item, dict):
            raise SealedFileError(f"{what} is not a map")
        for key, value in item.items():
            if isinstance(key, str):
                raise SealedFileError(f"{what} has {_NO_KEY}")
            if key >= 0 and key not in known:
                raise SealedFileError(
                    f"{what} has the field {key}, which is critical and unknown here",
                    hint="a newer kmstool may read it",
                )
            if key < 0 and type(value) is not bytes:
                raise SealedFileError(f"{what} has the field {key}, which is not of bytes")
        self._item = item
        self._what = what

    def optional(self, key: int, kind: type[Value]) -> Value | None:
        if key not in self._item:
            return None
        value: Value = self._item[key]
        if type(value) is not kind:
            raise SealedFileError(f"{self._what} has the wrong type in field {key}")
        return value

    def required(self, key: int, kind: type[Value]) -> Value:
        value = self.optional(key, kind)
        if value is None:
            raise SealedFileError(f"{self._what} lacks the field {key}")
        return value

    def sized(self, key: int, least: int, most: int) -> bytes:
        value = self.required(key, bytes)
        if not least <= len(value) <= most:
            raise SealedFileError(f"{self._what} has {len(value)} bytes in field {key}")
        return value


Member = TypeVar("Member", BodyCipher, Kem)


def _one_of(kind: type[Member], number: int, what: str) -> Member:
    try:
        return kind(number)
    except ValueError:
        raise SealedFileError(
            f"the header names the unknown {what} {number}", hint="a newer kmstool may read it"
        ) from None


def _exactly(read: Callable[[int], bytes], length: int) -> bytes:
    """`length` bytes, or fewer at the end of the stream."""
    pieces = []
    while length > 0:
        piece = read(length)
        if not piece:
            break
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)
