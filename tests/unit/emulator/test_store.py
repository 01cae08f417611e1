"""The store: what is put is found again, also by the next process; foreign files are refused."""

import sqlite3
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from kmstool.emulator.keys import (
    Grant,
    Key,
    dump_material,
    load_material,
    make_material,
    new_key_id,
)
from kmstool.emulator.store import Alias, Store
from kmstool.errors import LocalFileError

ACCOUNT = "111122223333"


def make_key(spec: str = "SYMMETRIC_DEFAULT", *, account_id: str = ACCOUNT) -> Key:
    return Key(
        key_id=new_key_id(),
        partition="aws",
        region="eu-west-1",
        account_id=account_id,
        spec=spec,
        usage="ENCRYPT_DECRYPT",
        description="ä",
        created=1.5,
        policy="{}",
        material=make_material(spec),
        material_id="0" * 64,
        grants=(GRANT,),
    )


GRANT = Grant(
    grant_id="f" * 64,
    grantee="arn:aws:iam::111122223333:role/x",
    operations=("Decrypt",),
    name=None,
    created=1.5,
    issuer="arn:aws:iam::111122223333:root",
)


def make_alias(key: Key, name: str = "alias/a") -> Alias:
    return Alias(account_id=ACCOUNT, name=name, target=key.key_id, created=1.0, updated=2.0)


@pytest.mark.parametrize(
    "spec", ["SYMMETRIC_DEFAULT", "RSA_2048", "ECC_NIST_P256", "ECC_NIST_P521"]
)
def test_the_file_survives(tmp_path: Path, spec: str) -> None:
    path = tmp_path / "store.sqlite"
    key, alias = make_key(spec), None
    store = Store(path)
    store.put_key(make_key())
    store.put_key(key)
    alias = make_alias(key)
    store.put_alias(alias)
    store.put_key(replace(key, state="Disabled"))
    store.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    store = Store(path)
    found = store.key(key.key_id, 0.0)
    assert found is not None
    assert dump_material(found.material) == dump_material(key.material)
    assert replace(found, material=b"") == replace(key, material=b"", state="Disabled")
    assert store.alias(ACCOUNT, "alias/a") == alias
    assert len(store.keys(ACCOUNT, 0.0)) == 2
    store.delete_alias(alias)
    store.close()
    store = Store(path)
    assert store.alias(ACCOUNT, "alias/a") is None
    store.close()
    store.close()


@pytest.mark.parametrize("with_file", [False, True])
def test_a_key_is_gone_when_its_time_is_over(tmp_path: Path, with_file: bool) -> None:
    path = tmp_path / "store.sqlite" if with_file else None
    store = Store(path)
    key = replace(make_key(), state="PendingDeletion", deletion=100.0, pending_days=7)
    store.put_key(key)
    store.put_alias(make_alias(key))
    assert store.key(key.key_id, 99.9) is not None
    assert store.key(key.key_id, 100.0) is None
    assert store.keys(ACCOUNT, 0.0) == []
    assert store.aliases(ACCOUNT) == []
    store.close()
    if path is not None:
        store = Store(path)
        assert store.keys(ACCOUNT, 0.0) == []
        store.close()


def test_accounts_are_apart() -> None:
    store = Store()
    mine, other = make_key(), make_key(account_id="444455556666")
    store.put_key(mine)
    store.put_key(other)
    assert store.keys(ACCOUNT, 0.0) == [mine]
    for name in ("alias/b", "alias/a"):
        store.put_alias(make_alias(mine, name))
    assert [alias.name for alias in store.aliases(ACCOUNT)] == ["alias/a", "alias/b"]
    assert store.aliases("444455556666") == []


def test_no_key_material_in_a_repr() -> None:
    key = make_key()
    assert repr(key.material) not in repr(key)
    assert "material=" not in repr(key)


def damaged(path: Path, statement: str) -> None:
    store = Store(path)
    store.put_key(make_key())
    store.close()
    with sqlite3.connect(path) as database:
        database.execute(statement)
    database.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE keys SET material = x'00'",
        "UPDATE keys SET record = '{}'",
        "UPDATE keys SET record = 'x'",
        "UPDATE keys SET record = '[]'",
        "PRAGMA user_version = 2",
    ],
)
def test_damaged_files(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "store.sqlite"
    damaged(path, statement)
    with pytest.raises(LocalFileError):
        Store(path)


def test_files_of_others(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("not a database, but long enough to look like one. " * 100)
    foreign = tmp_path / "foreign"
    with sqlite3.connect(foreign) as database:
        database.execute("CREATE TABLE t (x)")
    database.close()
    for path, reason in (
        (text, "file is not a database"),
        (foreign, ""),
        (tmp_path, "Is a directory"),
        (tmp_path / "none" / "store", "No such file or directory"),
    ):
        with pytest.raises(LocalFileError, match=f"'s store: {reason}") as caught:
            Store(path)
        assert str(caught.value).count(str(path)) == 1


def test_material_of_another_spec() -> None:
    for spec, material in (
        ("SYMMETRIC_DEFAULT", b"short"),
        ("RSA_2048", dump_material(rsa.generate_private_key(public_exponent=65537, key_size=1024))),
        ("ECC_NIST_P256", dump_material(ec.generate_private_key(ec.SECP384R1()))),
        ("RSA_3072", dump_material(ec.generate_private_key(ec.SECP384R1()))),
        ("RSA_2048", b""),
    ):
        with pytest.raises((ValueError, KeyError)):
            load_material(spec, material)
