"""Reading ahead in a thread: the same file, its errors in the caller's thread, no thread left.

What bodies are made of is tested in test_files.py, with whole files.
"""

import io
import threading
from itertools import product
from typing import Any

import pytest
from support.sealed_files import CHUNK, stream

from kmstool.errors import LocalFileError, NotOpenedError
from kmstool.sealing import stream as body
from kmstool.sealing.format import SEALED_CHUNK, BodyCipher

KEY = bytes(32)
BATCH = body._BATCH * CHUNK


def encrypted(source: Any, *, read_ahead: bool) -> bytes:
    target = io.BytesIO()
    body.encrypt_body(source, target, KEY, BodyCipher.AES_256_GCM, read_ahead=read_ahead)
    return target.getvalue()


def decrypted(source: Any, target: Any, *, read_ahead: bool, length: int = 0) -> bytes:
    return body.decrypt_body(
        source,
        target,
        KEY,
        BodyCipher.AES_256_GCM,
        trailer_length=length,
        read_ahead=read_ahead,
    )


class Recording(io.RawIOBase):
    """Knows which threads read, and how much; may fail at a certain read."""

    def __init__(self, data: bytes, *, fails_at: int | None = None) -> None:
        self._data = io.BytesIO(data)
        self._fails_at = fails_at
        self.threads: list[threading.Thread] = []
        self.count = 0

    def readinto(self, buffer: Any) -> int:
        self.threads.append(threading.current_thread())
        if len(self.threads) == self._fails_at:
            raise LocalFileError("the disk is gone")
        count = self._data.readinto(buffer)
        self.count += count
        return count


class Refusing(io.RawIOBase):
    """Takes nothing."""

    def write(self, data: Any) -> int:
        raise LocalFileError("the disk is full")


@pytest.mark.parametrize(
    "size", [0, 1, CHUNK, BATCH - 1, BATCH, BATCH + 1, 2 * BATCH, 3 * BATCH, 7 * BATCH + 5]
)
def test_read_ahead_or_not_the_body_is_the_same(size: int) -> None:
    plaintext = stream("ahead", size)
    ahead = encrypted(io.BytesIO(plaintext), read_ahead=True)
    assert ahead == encrypted(io.BytesIO(plaintext), read_ahead=False)
    for read_ahead, trailer in product((True, False), (b"", b"t" * 64)):
        target = io.BytesIO()
        source = io.BytesIO(ahead + trailer)
        assert decrypted(source, target, read_ahead=read_ahead, length=len(trailer)) == trailer
        assert target.getvalue() == plaintext


@pytest.mark.parametrize("read_ahead", [True, False])
def test_a_changed_batch_is_not_released_and_no_thread_is_left(read_ahead: bool) -> None:
    plaintext = stream("ahead", 4 * BATCH)
    changed = bytearray(encrypted(io.BytesIO(plaintext), read_ahead=False))
    changed[2 * BATCH] ^= 1
    before = threading.active_count()
    source, target = Recording(bytes(changed)), io.BytesIO()
    with pytest.raises(NotOpenedError):
        decrypted(source, target, read_ahead=read_ahead)
    assert target.getvalue() == plaintext[:BATCH]
    assert source.count <= (3 if read_ahead else 2) * body._BATCH * SEALED_CHUNK + 3
    assert threading.active_count() == before


def test_who_reads() -> None:
    for read_ahead in (True, False):
        source = Recording(bytes(3 * BATCH))
        encrypted(source, read_ahead=read_ahead)
        others = {thread for thread in source.threads if thread is not threading.main_thread()}
        assert len(others) == read_ahead


@pytest.mark.parametrize("read_ahead", [True, False])
def test_the_end_is_asked_for_once(read_ahead: bool) -> None:
    """A terminal gives an end for each Ctrl-D."""
    source = Recording(bytes(BATCH + 5))
    encrypted(source, read_ahead=read_ahead)
    assert len(source.threads) == 3  # a batch, the rest, the end


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_an_error_of_reading_is_the_caller_s(fails_at: int) -> None:
    before = threading.active_count()
    with pytest.raises(LocalFileError, match="the disk is gone"):
        encrypted(Recording(bytes(3 * BATCH), fails_at=fails_at), read_ahead=True)
    assert threading.active_count() == before


def test_where_writing_fails_no_thread_is_left_and_little_was_read() -> None:
    before = threading.active_count()
    source = Recording(bytes(20 * BATCH))
    with pytest.raises(LocalFileError, match="the disk is full"):
        body.encrypt_body(source, Refusing(), KEY, BodyCipher.AES_256_GCM, read_ahead=True)
    assert threading.active_count() == before
    assert source.count <= 3 * BATCH


class Impatient(io.RawIOBase):
    """A file in non-blocking mode that has nothing, or no room, now and then."""

    def __init__(self, data: bytes = b"") -> None:
        self._data = io.BytesIO(data)
        self._calls = 0

    def readinto(self, buffer: Any) -> int | None:
        self._calls += 1
        return None if self._calls % 2 == 0 else self._data.readinto(buffer)

    def write(self, data: Any) -> int | None:
        self._calls += 1
        return None if self._calls % 2 == 0 else len(data)


@pytest.mark.parametrize("read_ahead", [True, False])
def test_nothing_yet_is_not_the_end(read_ahead: bool) -> None:
    """Or else the beginning of a plaintext would be sealed as all of it."""
    with pytest.raises(LocalFileError, match="does not wait for data"):
        encrypted(Impatient(bytes(3 * BATCH)), read_ahead=read_ahead)
    sealed = encrypted(io.BytesIO(bytes(3 * BATCH)), read_ahead=False)
    with pytest.raises(LocalFileError, match="does not wait for data"):
        decrypted(Impatient(sealed), io.BytesIO(), read_ahead=read_ahead)


def test_no_room_yet_is_not_written() -> None:
    source = io.BytesIO(bytes(3 * BATCH))
    with pytest.raises(LocalFileError, match="does not wait for room"):
        body.encrypt_body(source, Impatient(), KEY, BodyCipher.AES_256_GCM)
