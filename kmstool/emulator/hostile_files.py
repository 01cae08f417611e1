"""Attacks on sealed files: the parent keeps them, and gives back others.

They need no key, and know of a file only what anybody reads in it: how long its head and its chunks
are, and whom it is sealed to. `layout_of` and `file-forged` read that from kmstool's own format
(docs/formats/sealed-file.md); for another format it is given.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kmstool.emulator.hostile_attack import CHOSEN, Attack, Setup
from kmstool.errors import NOT_OPENED, InputError, SettingError
from kmstool.sealing.files import seal
from kmstool.sealing.header import HpkeEntry, read_head
from kmstool.sealing.hpke import parse_point
from kmstool.sealing.recipients import HpkeRecipient

_MAGIC = b"kmstool-sealed"
_FIXED = len(_MAGIC) + 2 + 4  # bytes: magic, version, length of the header
_MAC = 32  # bytes after the header
_CHUNK = 65_536 + 16  # bytes: a chunk with its tag


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a file can be cut.

    Attributes:
        head: bytes before the first chunk.
        chunk: bytes of every chunk but the last.
    """

    head: int
    chunk: int


def layout_of(file: bytes) -> Layout:
    """The layout of a file that kmstool sealed.

    Raises:
        InputError: it is none.
    """
    if not file.startswith(_MAGIC) or len(file) < _FIXED:
        raise InputError("this is not a file that kmstool sealed")
    length = int.from_bytes(file[_FIXED - 4 : _FIXED], "big")
    return Layout(_FIXED + length + _MAC, _CHUNK)


class FileAttack(Attack):
    """What comes back is not what was stored."""

    setup = Setup.FILE
    exit_codes: ClassVar[tuple[int, ...]] = (8,)
    words = NOT_OPENED

    def bend(
        self,
        file: bytes,
        *,
        older: bytes | None = None,
        other: bytes | None = None,
        layout: Layout | None = None,
        forge: Callable[[bytes], bytes] | None = None,
    ) -> bytes:
        """What the parent gives back for a file of at least two chunks.

        Args:
            older: an earlier version of it.
            other: another file for the same enclave, sealed to the same key.
            layout: of a format that is not kmstool's.
            forge: seals a content in such a format, as anybody can.

        Raises:
            InputError: it is not such a file. SettingError: the attack needs `older` or `other`.
        """
        raise NotImplementedError


class _Chunks(FileAttack):
    sound = "authenticates the order of chunks and which is the last"

    def bend(
        self,
        file: bytes,
        *,
        older: bytes | None = None,  # noqa: ARG002
        other: bytes | None = None,  # noqa: ARG002
        layout: Layout | None = None,
        forge: Callable[[bytes], bytes] | None = None,  # noqa: ARG002
    ) -> bytes:
        layout = layout or layout_of(file)
        body = file[layout.head :]
        chunks = [body[at : at + layout.chunk] for at in range(0, len(body), layout.chunk)]
        if len(chunks) < 2:
            raise InputError("the file has one chunk, and this attack needs at least two")
        return file[: layout.head] + b"".join(self.rearranged(chunks))

    def rearranged(self, chunks: list[bytes]) -> list[bytes]:
        """The chunks as they come back."""
        raise NotImplementedError


class FileCut(_Chunks):
    name = "file-cut"
    sentence = "cuts a sealed file off at the end of a chunk"

    def rearranged(self, chunks: list[bytes]) -> list[bytes]:
        return chunks[:-1]


class FileReordered(_Chunks):
    name = "file-reordered"
    sentence = "swaps two chunks of a sealed file"

    def rearranged(self, chunks: list[bytes]) -> list[bytes]:
        return [*chunks[1::-1], *chunks[2:]]


class FileRepeated(_Chunks):
    name = "file-repeated"
    sentence = "puts one chunk of a sealed file in twice"

    def rearranged(self, chunks: list[bytes]) -> list[bytes]:
        return [chunks[0], *chunks]


class FileSwapped(FileAttack):
    name = "file-swapped"
    sentence = "gives another sealed file of the same key for the one that was asked for"
    sound = "says which file it wants, by a label under the seal"
    words = "label"

    def bend(
        self,
        file: bytes,  # noqa: ARG002
        *,
        older: bytes | None = None,  # noqa: ARG002
        other: bytes | None = None,
        layout: Layout | None = None,  # noqa: ARG002
        forge: Callable[[bytes], bytes] | None = None,  # noqa: ARG002
    ) -> bytes:
        return _given(other, "another file")


class FileRolledBack(FileAttack):
    name = "file-rolled-back"
    sentence = "gives an older version of a sealed file"
    sound = "remembers a counter, and refuses a lower one"
    words = "counter"

    def bend(
        self,
        file: bytes,  # noqa: ARG002
        *,
        older: bytes | None = None,
        other: bytes | None = None,  # noqa: ARG002
        layout: Layout | None = None,  # noqa: ARG002
        forge: Callable[[bytes], bytes] | None = None,  # noqa: ARG002
    ) -> bytes:
        return _given(older, "an older file")


class FileForged(FileAttack):
    name = "file-forged"
    sentence = (
        "seals a content of its own to the enclave's key, with the label and the counter of the"
        " file that was asked for, and signs it with a key of its own"
    )
    sound = "holds the public key of whoever may seal, and opens nothing that another one signed"
    words = "signed by"
    content: ClassVar[bytes] = CHOSEN * 4096

    def bend(
        self,
        file: bytes,
        *,
        older: bytes | None = None,  # noqa: ARG002
        other: bytes | None = None,  # noqa: ARG002
        layout: Layout | None = None,  # noqa: ARG002
        forge: Callable[[bytes], bytes] | None = None,
    ) -> bytes:
        if forge is not None:
            return forge(self.content)
        header = read_head(io.BytesIO(file).read).header
        recipients = [
            HpkeRecipient(key=entry.key, public_key=parse_point(entry.kem, entry.public_key))
            for entry in header.recipients
            if isinstance(entry, HpkeEntry)
        ]
        if not recipients:
            raise InputError(
                "the file is sealed under a data key alone, and this attack needs a public key",
                hint="bend a file that `kmstool seal --to` made",
            )
        forged = io.BytesIO()
        seal(
            io.BytesIO(self.content),
            forged,
            recipients,
            label=header.label,
            counter=header.counter,
            signing_key=Ed25519PrivateKey.generate(),
        )
        return forged.getvalue()


def _given(file: bytes | None, what: str) -> bytes:
    if file is None:
        raise SettingError(f"this attack needs {what} to give back")
    return file


FILE_ATTACKS: tuple[type[FileAttack], ...] = (
    FileCut,
    FileReordered,
    FileRepeated,
    FileSwapped,
    FileRolledBack,
    FileForged,
)
