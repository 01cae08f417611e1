"""The principals file: what it takes, what it refuses, and that it never repeats a secret."""

from pathlib import Path

import pytest

from kmstool.emulator.principals import (
    ADMIN_ARN,
    ENCLAVE_ARN,
    default_principals,
    load_principals,
    parse_principals,
)
from kmstool.errors import LocalFileError, SettingError

ENTRY = """
[[principal]]
access_key_id = "AKIAEXAMPLE000000000"
secret_access_key = "s3cret-to-grep"
arn = "arn:aws:iam::111122223333:role/admin"
iam_allows = ["kms:*Key*", "kms:Encrypt"]
"""


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "principals.toml"
    path.write_text(ENTRY + ENTRY.replace("EXAMPLE0", "EXAMPLE1").replace("iam_allows", "#"))
    first, second = load_principals(path).by_access_key.values()
    assert first.arn == ADMIN_ARN
    assert first.account_id == "111122223333"
    assert first.session_token is None
    assert first.identity_allows("kms:CreateKey")
    assert first.identity_allows("kms:encrypt")
    assert not first.identity_allows("kms:Decrypt")
    assert not second.identity_allows("kms:CreateKey")
    assert first.trusts == ()
    trusting = parse_principals(ENTRY + f'trusts = ["{ENCLAVE_ARN}"]').named(ADMIN_ARN)
    assert trusting.trusts == (ENCLAVE_ARN,)


def test_defaults() -> None:
    one, other = default_principals(), default_principals()
    assert set(one.by_access_key) != set(other.by_access_key)
    admin, enclave = one.named(ADMIN_ARN), one.named(ENCLAVE_ARN)
    assert admin.identity_allows("kms:CreateKey")
    assert admin.session_token is None
    assert enclave.session_token
    assert enclave.identity_allows("kms:GenerateRandom")
    assert enclave.identity_allows("kms:CreateKey")
    assert not enclave.identity_allows("kms:Decrypt")
    assert (admin.trusts, enclave.trusts) == ((), (ADMIN_ARN, ENCLAVE_ARN))
    with pytest.raises(SettingError):
        one.named("arn:aws:iam::111122223333:role/none")
    assert "arn:aws-cn:" in default_principals("aws-cn").by_access_key.popitem()[1].arn  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "principal = []",
        "[principal]",
        "principal = [1]",
        "x = 1\n" + ENTRY,
        "[[principal]\n",
        ENTRY + ENTRY,
        ENTRY + 'extra = "x"',
        ENTRY.replace("AKIAEXAMPLE000000000", "short"),
        ENTRY.replace("AKIAEXAMPLE000000000", "AKIAEXAMPLE/00000000"),
        ENTRY.replace("s3cret-to-grep", ""),
        ENTRY.replace("s3cret-to-grep", "s3cret-to-grep-ä"),
        ENTRY.replace('secret_access_key = "s3cret-to-grep"', ""),
        ENTRY.replace(":role/admin", ":root"),
        ENTRY.replace("111122223333", "1111"),
        ENTRY.replace("arn:aws:iam", "arn:aws:sts"),
        ENTRY + "session_token = 1",
        ENTRY + 'session_token = ""',
        ENTRY.replace('["kms:*Key*", "kms:Encrypt"]', '"kms:*"'),
        ENTRY.replace("kms:Encrypt", "s3:GetObject"),
        ENTRY.replace('"kms:Encrypt"', "1"),
        ENTRY + f'trusts = "{ADMIN_ARN}"',
        ENTRY + 'trusts = ["111122223333"]',
        ENTRY + "trusts = [1]",
    ],
)
def test_files_that_are_refused(text: str) -> None:
    with pytest.raises(SettingError) as caught:
        parse_principals(text)
    assert "s3cret-to-grep" not in str(caught.value) + str(caught.value.hint)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(LocalFileError, match="none: No such file or directory"):
        load_principals(tmp_path / "none")
    (tmp_path / "latin").write_bytes(b"\xff")
    with pytest.raises(LocalFileError, match="latin: it is not UTF-8"):
        load_principals(tmp_path / "latin")
