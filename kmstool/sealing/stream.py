"""The body of a sealed file: chunks in the STREAM construction, from a stream to a stream.

Memory is at most four buffers of about 1 MiB, whatever the file's size. Nothing is written before
the chunks that it comes from are authenticated; which chunk is the last is known before it is
opened. Source: docs/formats/sealed-file.md, "Body".
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from kmstool import limits
from kmstool.errors import NOT_OPENED, InputError, LocalFileError, NotOpenedError
from kmstool.sealing.format import (
    CHUNK,
    NONCE_LENGTH,
    SEALED_CHUNK,
    TAG_LENGTH,
    BodyCipher,
)

_BATCH = 16  # chunks read and written at a time; more is not faster
_LAST, _NOT_LAST = b"\1", b"\0"


class Source(Protocol):
    """What is read from: a binary file, buffered or not, that waits until it has something."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fills up to all of `buffer` and returns how much; 0 at the end."""
        ...


class Target(Protocol):
    """What is written to: a binary file, or anything with its `write`, that waits for room."""

    def write(self, data: memoryview, /) -> int | None:
        """Takes up to all of `data` and returns how much."""
        ...


Digest = Callable[[memoryview], object]
Aead = AESGCM | ChaCha20Poly1305
Begin = Callable[..., Callable[[], int]]  # takes `fill` and its arguments, gives what waits for it


def encrypt_body(
    source: Source,
    target: Target,
    key: bytes,
    cipher: BodyCipher,
    *,
    digest: Digest | None = None,
    read_ahead: bool = False,
) -> None:
    """Reads a plaintext to its end and writes the body.

    Args:
        digest: gets what is written, for the signature.
        read_ahead: read in a thread while encrypting; only from what never keeps a reader waiting,
            such as a regular file, since this ends no sooner than a read that has begun.

    Raises:
        InputError: the plaintext is longer than the format allows. And what the streams raise.
    """
    with _beginning(read_ahead) as begin:
        _encrypt(_batches(source, begin), target, _aead(cipher, key), digest)


def decrypt_body(
    source: Source,
    target: Target,
    key: bytes,
    cipher: BodyCipher,
    *,
    digest: Digest | None = None,
    trailer_length: int = 0,
    read_ahead: bool = False,
) -> bytes:
    """Reads a body to the end of the stream and writes the plaintext, chunk by chunk.

    Args:
        digest: gets what is read of the body, for the signature.
        trailer_length: of what follows the body, in bytes.
        read_ahead: as for `encrypt_body`.

    Returns:
        the trailer.

    Raises:
        NotOpenedError: it is not what was sealed under this key, whole and in order. Then what
            was written is the beginning of what was sealed. And what the streams raise.
    """
    with _beginning(read_ahead) as begin:
        aead = _aead(cipher, key)
        return _decrypt(source, target, aead, begin, digest=digest, trailer_length=trailer_length)


def _decrypt(
    source: Source,
    target: Target,
    aead: Aead,
    begin: Begin,
    *,
    digest: Digest | None,
    trailer_length: int,
) -> bytes:
    # One byte more than a batch and a trailer: if that is there, the batch is not the end.
    size = _BATCH * SEALED_CHUNK + trailer_length + 1
    sealed, ahead = memoryview(bytearray(size)), memoryview(bytearray(size))
    plain = memoryview(bytearray(_BATCH * CHUNK))
    number = 0
    outcome = begin(fill, source, sealed, 0)
    while True:
        have = outcome()
        at_end = have < size
        body = have - trailer_length if at_end else _BATCH * SEALED_CHUNK
        if not at_end:
            ahead[: size - body] = sealed[body:]
            outcome = begin(fill, source, ahead, size - body)
        if body < TAG_LENGTH or number + _BATCH > limits.SEALED_CHUNKS_MAX:
            raise NotOpenedError(NOT_OPENED)
        written = 0
        for start in range(0, body, SEALED_CHUNK):
            end = min(start + SEALED_CHUNK, body)
            length = end - start - TAG_LENGTH
            if length < 0 or (length == 0 and number > 0):
                raise NotOpenedError(NOT_OPENED)
            nonce = _nonce(number, last=at_end and end == body)
            try:
                aead.decrypt_into(nonce, sealed[start:end], None, plain[written : written + length])
            except InvalidTag:
                raise NotOpenedError(NOT_OPENED) from None
            written += length
            number += 1
        if digest is not None:
            digest(sealed[:body])
        _emit(plain[:written], target, None)
        if at_end:
            return bytes(sealed[body:have])
        sealed, ahead = ahead, sealed


def _encrypt(
    batches: Iterable[tuple[memoryview, bool]], target: Target, aead: Aead, digest: Digest | None
) -> None:
    sealed = memoryview(bytearray(_BATCH * SEALED_CHUNK))
    number = 0
    for plain, is_end in batches:
        written = 0
        for start in range(0, len(plain) or 1, CHUNK):  # an empty plaintext has one empty chunk
            chunk = plain[start : start + CHUNK]
            size = len(chunk) + TAG_LENGTH
            nonce = _nonce(number, last=is_end and start + CHUNK >= len(plain))
            aead.encrypt_into(nonce, chunk, None, sealed[written : written + size])
            written += size
            number += 1
        if number > limits.SEALED_CHUNKS_MAX:
            raise InputError(
                f"the file has more than {limits.SEALED_CHUNKS_MAX} chunks of {CHUNK} bytes",
                hint="seal it in parts",
            )
        _emit(sealed[:written], target, digest)


def _batches(source: Source, begin: Begin) -> Iterator[tuple[memoryview, bool]]:
    """The plaintext piece by piece, each with whether it is the last."""
    buffers = itertools.cycle([memoryview(bytearray(_BATCH * CHUNK)) for _ in range(3)])

    def read_after(have: int) -> tuple[memoryview, Callable[[], int]]:
        buffer = next(buffers)
        if have < len(buffer):  # that was the end; a terminal would be asked once more
            return buffer, int
        return buffer, begin(fill, source, buffer, 0)

    plain = next(buffers)
    have = fill(source, plain, 0)
    ahead, outcome = read_after(have)
    while True:
        following = outcome()
        later = read_after(following)
        yield plain[:have], not following
        if not following:
            return
        plain, have, (ahead, outcome) = ahead, following, later


@contextlib.contextmanager
def _beginning(read_ahead: bool) -> Iterator[Begin]:
    """What begins to read: in a thread, or not before somebody waits for the outcome."""
    if not read_ahead:
        yield functools.partial
        return
    # concurrent.futures would do the same, with 25 ms more for a GiB and a MiB of imports.
    orders: SimpleQueue[functools.partial[int] | None] = SimpleQueue()
    outcomes: SimpleQueue[int | BaseException] = SimpleQueue()

    def work() -> None:
        while order := orders.get():
            try:
                outcomes.put(order())
            except BaseException as error:  # noqa: BLE001 - whoever waits gets it
                outcomes.put(error)

    def outcome() -> int:
        have = outcomes.get()
        if isinstance(have, BaseException):
            raise have
        return have

    def begin(reading: Callable[..., int], *arguments: Any) -> Callable[[], int]:
        orders.put(functools.partial(reading, *arguments))
        return outcome

    thread = Thread(target=work)
    thread.start()
    try:
        yield begin
    finally:
        orders.put(None)
        thread.join()


def fill(source: Source, buffer: memoryview, have: int) -> int:
    """Reads until `buffer` is full or the stream ends; returns how much is in it."""
    while have < len(buffer):
        count = read_some(source, buffer[have:])
        if not count:
            break
        have += count
    return have


def read_some(source: Source, buffer: memoryview) -> int:
    """Reads up to all of `buffer`; 0 at the end.

    Raises:
        LocalFileError: the source does not wait; its None is neither an end nor all.
    """
    count = source.readinto(buffer)
    if count is None:
        raise LocalFileError("a file that does not wait for data was given to read from")
    return count


def write_all(target: Target, data: memoryview) -> None:
    """Writes all of `data`, however little the target takes at a time.

    Raises:
        LocalFileError: the target does not wait.
    """
    while data:
        count = target.write(data)
        if count is None:
            raise LocalFileError("a file that does not wait for room was given to write to")
        data = data[count:]


def _emit(data: memoryview, target: Target, digest: Digest | None) -> None:
    if digest is not None:
        digest(data)
    write_all(target, data)


def _aead(cipher: BodyCipher, key: bytes) -> Aead:
    return AESGCM(key) if cipher is BodyCipher.AES_256_GCM else ChaCha20Poly1305(key)


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(NONCE_LENGTH - 1, "big") + (_LAST if last else _NOT_LAST)
