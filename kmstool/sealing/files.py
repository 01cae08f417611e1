"""Sealing a file and opening it: the whole of docs/formats/sealed-file.md, in its order.

The law of `open_sealed`:
(1) What depends on public bytes alone is checked before a key is asked for, and may be explained.
(2) The first recipient whose holder answers decides; no other is tried after an answer.
(3) From the answer on there is one failure: `NotOpenedError`, with one text.
(4) The target is asked for after the header is authenticated, and gets authenticated chunks only.

Never: prints, keeps a key, names a temporary file. Whoever gives a target makes sure that it is
used only after `open_sealed` has returned.
"""

import hashlib
import hmac
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from kmstool.arn import AnyKey, KeyArn
from kmstool.caveats import UNKNOWN_SEALER, UNPINNED_KEY, Caveat, Tolerance
from kmstool.errors import (
    NOT_OPENED,
    KmsError,
    KmstoolError,
    NotOpenedError,
    SealedFileError,
    TransportError,
)
from kmstool.sealing import format as layout
from kmstool.sealing.format import BodyCipher
from kmstool.sealing.header import Entry, Head, Header, build_header, read_head
from kmstool.sealing.holder import KeyHolder
from kmstool.sealing.recipients import Recipient, unwrap, wrap
from kmstool.sealing.stream import Source, Target, decrypt_body, encrypt_body, read_some, write_all

INCOMPLETE = "the output is incomplete: nothing of it may be used"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What an opener wants a file to say of itself. What is None is not compared.

    Attributes:
        signer: Ed25519 public key, 32 bytes. Without it, anyone may have sealed the file.
        label: the very label.
        min_counter: the least counter.
    """

    signer: bytes | None = None
    label: str | None = None
    min_counter: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A file was sealed: the header as it was written, and what is known against it."""

    header: Header
    caveats: tuple[Caveat, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A file was opened: its authenticated header, the key that did it, and the caveats."""

    header: Header
    key: KeyArn
    caveats: tuple[Caveat, ...]


def seal(
    source: Source,
    target: Target,
    recipients: Sequence[Recipient],
    *,
    cipher: BodyCipher = BodyCipher.AES_256_GCM,
    label: str | None = None,
    counter: int | None = None,
    signing_key: Ed25519PrivateKey | None = None,
    read_ahead: bool = False,
    tolerance: Tolerance = Tolerance(),  # noqa: B008 - frozen
) -> Sealed:
    """Reads `source` to its end and writes a sealed file that each recipient can open.

    Args:
        recipients: 1 to 64.
        label: what kind of file this is, 1 to 256 bytes of UTF-8.
        counter: which of several, 0 to 2^63 - 1.
        signing_key: signs the whole file, for openers that know its public half.
        read_ahead: read in a thread, which is faster; for regular files only: see `encrypt_body`.

    Raises:
        SettingError: a field is out of bounds. CaveatRefused. InputError: the source is too long.
    """
    caveats = tuple(dict.fromkeys(one for each in recipients for one in each.caveats))
    tolerance.check(caveats)
    file_key, salt = os.urandom(layout.KEY_LENGTH), os.urandom(layout.KEY_LENGTH)
    header = Header(
        body=cipher,
        salt=salt,
        recipients=tuple(wrap(recipient, file_key, salt) for recipient in recipients),
        label=label,
        counter=counter,
        signer=None if signing_key is None else signing_key.public_key().public_bytes_raw(),
    )
    data = build_header(header)
    covered = layout.prefix(len(data)) + data
    mac = layout.header_mac(file_key, salt, covered)
    key = layout.body_key(file_key, salt, mac)
    write_all(target, memoryview(covered + mac))
    if signing_key is None:
        encrypt_body(source, target, key, cipher, read_ahead=read_ahead)
    else:
        digest = hashlib.sha256(covered + mac)
        encrypt_body(source, target, key, cipher, digest=digest.update, read_ahead=read_ahead)
        signature = signing_key.sign(layout.signed_message(digest.digest()))
        write_all(target, memoryview(signature))
    return Sealed(header=header, caveats=caveats)


def open_sealed(
    source: Source,
    make_target: Callable[[], Target],
    holder: KeyHolder,
    *,
    key: KeyArn | AnyKey,
    expected: Expected = Expected(),
    tolerance: Tolerance = Tolerance(),  # noqa: B008 - frozen
    report: Callable[[tuple[Caveat, ...]], None] = lambda _caveats: None,
    read_ahead: bool = False,
) -> Opened:
    """Reads a sealed file to its end and writes its plaintext.

    It proves that header and content are what one sealer made. It proves who that was only with
    `expected.signer`, and never that the file is the newest.

    Args:
        make_target: called once, when the header is authenticated.
        holder: is asked for the file's key, once for each recipient until one answers.
        key: the KMS key to use, or `ANY_KEY` for whichever the file names (`unpinned-key`).
        report: gets the caveats as they become known, all of them before the target is asked for.
        read_ahead: as for `seal`.

    Raises:
        InputError: this is no sealed file. SealedFileError: its header is malformed, or not what
            was expected. NotOpenedError: everything after an answer of the holder; what the target
            got is then void. CaveatRefused. And what the holder and the streams raise.
    """
    head = read_head(_reader(source))
    header = head.header
    _compare(header, expected)
    entries = [one for one in header.recipients if isinstance(key, AnyKey) or one.key == key]
    if not entries:
        raise SealedFileError(
            f"the file is not sealed to the key {key}",
            hint="it is sealed to " + ", ".join(sorted({str(e.key) for e in header.recipients})),
        )
    known = _caveats(key, expected)
    tolerance.check(known)
    report(known)
    try:
        file_key, used = _file_key(head, entries, holder)
        mac = layout.header_mac(file_key, header.salt, head.covered)
        if not hmac.compare_digest(mac, head.mac):
            raise NotOpenedError(NOT_OPENED)
    finally:  # whether it opened or not: what is reported does not tell which check failed
        report(holder.caveats)
    caveats = tuple(dict.fromkeys(known + holder.caveats))
    tolerance.check(caveats)
    target = _Counting(make_target())
    try:
        _open_body(source, target, file_key, head, read_ahead)
    except NotOpenedError:
        raise NotOpenedError(NOT_OPENED, hint=INCOMPLETE if target.count else None) from None
    return Opened(header=header, key=used, caveats=caveats)


def _open_body(
    source: Source, target: Target, file_key: bytes, head: Head, read_ahead: bool
) -> None:
    header = head.header
    key = layout.body_key(file_key, header.salt, head.mac)
    if header.signer is None:
        decrypt_body(source, target, key, header.body, read_ahead=read_ahead)
        return
    digest = hashlib.sha256(head.covered + head.mac)
    signature = decrypt_body(
        source,
        target,
        key,
        header.body,
        digest=digest.update,
        trailer_length=layout.SIGNATURE_LENGTH,
        read_ahead=read_ahead,
    )
    try:
        signer = Ed25519PublicKey.from_public_bytes(header.signer)
        signer.verify(signature, layout.signed_message(digest.digest()))
    except (InvalidSignature, ValueError):
        raise NotOpenedError(NOT_OPENED) from None


def _file_key(head: Head, entries: Sequence[Entry], holder: KeyHolder) -> tuple[bytes, KeyArn]:
    """From the first recipient whose key can be asked; what only KMS refuses, the next may have."""
    refusal: KmstoolError | None = None
    for entry in entries:
        try:
            return unwrap(entry, head.header.salt, holder), entry.key
        except (KmsError, TransportError) as error:
            refusal = refusal or error
    assert refusal is not None  # noqa: S101 - there is at least one entry
    raise refusal


def _compare(header: Header, expected: Expected) -> None:
    """Public bytes against what is expected; the MAC and the signature make them count."""
    if expected.signer is not None and header.signer != expected.signer:
        by = "not signed" if header.signer is None else f"signed by {header.signer.hex()}"
        raise SealedFileError(
            f"the file is {by}, and {expected.signer.hex()} was expected",
            hint="this is not the file that was meant",
        )
    if expected.label is not None and header.label != expected.label:
        has = "no label" if header.label is None else f"the label {header.label!a}"
        raise SealedFileError(
            f"the file has {has}, and {expected.label!a} was expected",
            hint="this is not the file that was meant",
        )
    if expected.min_counter is not None:
        if header.counter is None:
            raise SealedFileError(
                f"the file has no counter, and at least {expected.min_counter} was expected"
            )
        if header.counter < expected.min_counter:
            raise SealedFileError(
                f"the file has the counter {header.counter}, and at least"
                f" {expected.min_counter} was expected",
                hint="it is older than one that was seen before: somebody brought it back",
            )


def _caveats(key: KeyArn | AnyKey, expected: Expected) -> tuple[Caveat, ...]:
    unpinned = (UNPINNED_KEY,) if isinstance(key, AnyKey) else ()
    return unpinned + ((UNKNOWN_SEALER,) if expected.signer is None else ())


def _reader(source: Source) -> Callable[[int], bytes]:
    def read(length: int) -> bytes:
        buffer = bytearray(length)
        return bytes(buffer[: read_some(source, memoryview(buffer))])

    return read


class _Counting:
    """A target that knows whether anything went into it."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.count = 0

    def write(self, data: memoryview, /) -> int | None:
        self.count += len(data)
        return self._target.write(data)
