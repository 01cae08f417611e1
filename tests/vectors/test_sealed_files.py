"""tests/vectors/sealed-file.json: what kmstool opens of it, what not, and when it finds out.

The file comes from tests/support/sealed_files.py, which shares no code with kmstool/sealing.
"""

import hashlib
import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from support import sealed_files
from support.key_holders import LocalHolder

from kmstool.arn import ANY_KEY, parse_key_arn
from kmstool.errors import NOT_OPENED, InputError, NotOpenedError, SealedFileError
from kmstool.sealing.files import Expected, open_sealed

PATH = Path(__file__).with_name("sealed-file.json")
VECTORS = json.loads(PATH.read_text("utf-8"))
FILES = {file["name"]: file for file in VECTORS["files"]}
BY_EXPECTATION = {
    expect: [name for name, file in FILES.items() if file["expect"] == expect]
    for expect in ("ok", "header", "not opened")
}
KEYS = VECTORS["keys"]


def content(file: dict[str, Any]) -> bytes:
    if "file" in file:
        return bytes.fromhex(file["file"])
    whole = content(FILES[file["of"]])
    return b"".join(whole[start:end] for start, end in file["pieces"])


def signer(name: str) -> bytes:
    key = load_pem_private_key(KEYS[name]["private_key"].encode(), None)
    assert isinstance(key, Ed25519PrivateKey)
    return key.public_key().public_bytes_raw()


def holder_of(*names: str) -> LocalHolder:
    holder = LocalHolder()
    for name in names:
        key = KEYS[name]
        if "data_key" in key:
            blob = bytes.fromhex(key["ciphertext_blob"])
            holder.data_keys[key["arn"], blob] = bytes.fromhex(key["data_key"])
        else:
            private = load_pem_private_key(key["private_key"].encode(), None)
            assert isinstance(private, ec.EllipticCurvePrivateKey)
            holder.agreeing[key["arn"]] = private
    return holder


def credulous_holder_of(name: str) -> LocalHolder:
    """Answers with one key whatever key and blob it is asked for: the file itself has to hold."""
    holder = holder_of(name)
    arns = [key["arn"] for key in KEYS.values() if "arn" in key]
    holder.agreeing = {arn: key for key in holder.agreeing.values() for arn in arns}
    blobs = [*(blob for _, blob in holder.data_keys), b"another"]
    keys = set(holder.data_keys.values())
    holder.data_keys = {(arn, blob): key for key in keys for arn in arns for blob in blobs}
    return holder


def test_the_file_is_what_the_generator_writes() -> None:
    assert json.loads(json.dumps(sealed_files.vectors())) == VECTORS


def test_every_vector_is_used() -> None:
    assert sum(map(len, BY_EXPECTATION.values())) == len(VECTORS["files"]) == len(FILES)
    assert min(map(len, BY_EXPECTATION.values())) >= 17


@pytest.mark.parametrize("name", BY_EXPECTATION["ok"])
def test_it_opens(name: str) -> None:
    file = FILES[name]
    expected = Expected(
        signer=None if file["signer"] is None else signer(file["signer"]),
        label=file["label"],
        min_counter=file["counter"],
    )
    assert file["opens_with"]
    for key in file["opens_with"]:
        target = io.BytesIO()
        holder = holder_of(key)
        opened = open_sealed(
            io.BytesIO(content(file)),
            partial(returned, target),
            holder,
            key=parse_key_arn(KEYS[key]["arn"]),
            expected=expected,
        )
        plaintext = target.getvalue()
        assert len(plaintext) == file["plaintext"]["length"]
        assert hashlib.sha256(plaintext).hexdigest() == file["plaintext"]["sha256"]
        assert (opened.header.label, opened.header.counter) == (file["label"], file["counter"])
        assert opened.header.signer == expected.signer
        assert str(opened.key) == KEYS[key]["arn"]
        assert holder.asked == [KEYS[key]["arn"]]


@pytest.mark.parametrize("name", BY_EXPECTATION["header"])
def test_the_header_is_refused_before_a_key_is_asked_for(name: str) -> None:
    holder = holder_of("alice", "bob", "carol", "dave", "erin")
    with pytest.raises((SealedFileError, InputError)) as caught:
        open_sealed(io.BytesIO(content(FILES[name])), never, holder, key=ANY_KEY)
    assert str(caught.value) != NOT_OPENED
    assert holder.asked == []


@pytest.mark.parametrize("name", BY_EXPECTATION["not opened"])
def test_it_does_not_open_and_nothing_says_why(name: str) -> None:
    holder = credulous_holder_of(FILES[name]["opens_with"][0])
    with pytest.raises(NotOpenedError) as caught:
        open_sealed(io.BytesIO(content(FILES[name])), io.BytesIO, holder, key=ANY_KEY)
    assert str(caught.value) == NOT_OPENED
    assert len(holder.asked) == 1


def returned(target: io.BytesIO) -> io.BytesIO:
    return target


def never() -> io.BytesIO:
    raise AssertionError("a target was asked for")
