"""Fuzzes sealed files: the head of any bytes, and the body under a key that is known.

The second half takes a file of ours whose head is whole, so that the fuzzer is not stopped by the
header's MAC, and puts what it makes in the place of the body.
"""

import io

from support.key_holders import LocalHolder, data_key_pair, hpke_pair
from support.sealed_files import GOOD, SealedFile

from kmstool.arn import ANY_KEY
from kmstool.errors import NOT_OPENED, InputError, KmsError, NotOpenedError, SealedFileError
from kmstool.sealing.files import open_sealed, seal
from kmstool.sealing.header import build_header, parse_header, read_head

RECIPIENT, HOLDER = data_key_pair("fuzz")
PLAINTEXT = b"attack at dawn"


def _seal() -> bytes:
    target = io.BytesIO()
    seal(io.BytesIO(PLAINTEXT), target, [RECIPIENT], label="l", counter=1)
    return target.getvalue()


OURS = _seal()
HEAD = OURS[: -len(PLAINTEXT) - 16]
SEEDS: list[bytes] = [
    *(file.build() for file in GOOD if len(file.plaintext) < 100),
    SealedFile("two", recipients=[*GOOD[7].recipients], signer="signer").build(),
    OURS,
    OURS[len(HEAD) :],
]
ALICE = hpke_pair("alice")[1]


def target(data: bytes) -> None:
    stream = io.BytesIO(data)
    try:
        head = read_head(stream.read)
    except (InputError, SealedFileError) as error:
        check_text(str(error))
    else:
        assert head.covered + head.mac == data[: stream.tell()]
        assert parse_header(build_header(head.header)) == head.header
        check(data, LocalHolder(dict(ALICE.agreeing), dict(HOLDER.data_keys)))
    check(HEAD + data, HOLDER)


def check(data: bytes, holder: LocalHolder) -> None:
    """It opens to what was sealed, or not at all."""
    released = io.BytesIO()
    try:
        open_sealed(io.BytesIO(data), lambda: released, holder, key=ANY_KEY)
    except NotOpenedError as error:
        check_text(str(error))
        assert str(error) == NOT_OPENED  # noqa: PT017 - atheris knows no pytest
        assert released.getvalue() in {b"", PLAINTEXT}  # a false signature comes at the end
    except (SealedFileError, KmsError) as error:
        check_text(str(error))
    else:
        assert data in SEEDS or data == OURS


def check_text(text: str) -> None:
    assert text.isprintable()
    assert len(text) < 600
