"""`kmstool open` of what it does not know: refused before an enclave or a KMS is needed.

There is neither here; tests/e2e/test_sealed_files.py has the files that open.
"""

from pathlib import Path

import pytest
from support.processes import InProcess
from support.sealed_files import GOOD, Hpke, SealedFile

ARN = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
NEWER = "a newer kmstool may read it"
UNKNOWN = [
    (SealedFile("x", version=2), "has version 2, and this kmstool reads version 1"),
    (SealedFile("x", version=0), "has version 0, and this kmstool reads version 1"),
    (SealedFile("x", version=65_535), "has version 65535, and this kmstool reads version 1"),
    (SealedFile("x", bent={7: b""}), "the field 7, which is critical and unknown here"),
    (SealedFile("x", bent={1: 3}), "unknown way to encrypt the body 3"),
    (SealedFile("x", recipients=[Hpke("alice", bent={1: 3})]), "a recipient of an unknown kind"),
]


@pytest.mark.parametrize("command", ["open", "inspect"])
@pytest.mark.parametrize(("file", "message"), UNKNOWN, ids=[message for _, message in UNKNOWN])
def test_unknown_versions_and_critical_fields(
    in_process: InProcess, command: str, file: SealedFile, message: str
) -> None:
    Path("file").write_bytes(file.build())
    Path("out").write_bytes(b"old")
    arguments = ("--any-key", "-o", "out") if command == "open" else ("--input", "raw")
    done = in_process(command, *arguments, "file")
    assert done.code == 8, done.stderr
    assert message in done.error
    assert done.hint == NEWER
    assert Path("out").read_bytes() == b"old"


def test_unknown_fields_that_are_not_critical_are_passed_over(in_process: InProcess) -> None:
    """So it comes to the security module, which is not here."""
    Path("file").write_bytes(SealedFile("x", bent={-1: b"new"}).build())
    done = in_process("open", "--any-key", "file")
    assert done.code == 4, done.stderr


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (b"", 3, "this is not a sealed file"),
        (b"age-encryption.org/v1\n", 3, "this is not a sealed file"),
        (GOOD[0].build()[:100], 8, "the sealed file ends in its header"),
    ],
)
def test_what_is_no_sealed_file(
    in_process: InProcess, content: bytes, code: int, message: str
) -> None:
    Path("file").write_bytes(content)
    done = in_process("open", "--key-id", ARN, "-o", "out", "file")
    assert (done.code, done.error) == (code, message), done.stderr
    assert not Path("out").exists()
