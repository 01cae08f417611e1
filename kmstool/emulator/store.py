"""Where the emulator's keys and aliases are: in memory, and in a SQLite file when asked.

Reads come from memory; every change is also written to the file before it is seen, in a
transaction of its own, so what a client was told survives the end of the process. The file holds
key material in the clear and is made with mode 0600. A key whose waiting period is over is deleted
when somebody next looks.
"""

import json
import os
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kmstool.emulator.keys import Grant, Key, dump_material, load_material
from kmstool.errors import LocalFileError

_SCHEMA = """
CREATE TABLE keys (key_id TEXT PRIMARY KEY, record TEXT NOT NULL, material BLOB NOT NULL);
CREATE TABLE aliases (
    account_id TEXT, name TEXT, record TEXT NOT NULL, PRIMARY KEY (account_id, name)
);
"""
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """An alias of an account.

    Attributes:
        name: with its `alias/`.
        created, updated: seconds since 1970.
    """

    account_id: str
    name: str
    target: str
    created: float
    updated: float


class Store:
    """All keys and aliases of one emulated region. Safe to use from several threads.

    Args:
        path: the SQLite file, made where it is missing; None keeps everything in memory.

    Raises:
        LocalFileError: the file cannot be opened, or is not one of ours.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._lock = threading.RLock()
        self._keys: dict[str, Key] = {}
        self._aliases: dict[tuple[str, str], Alias] = {}
        self._database: sqlite3.Connection | None = None
        if path is not None:
            try:
                self._database = _open(path)
                self._load(self._database)
            except (OSError, sqlite3.Error, ValueError, TypeError, KeyError) as error:
                self.close()
                reason = error.strerror if isinstance(error, OSError) else error
                raise LocalFileError(
                    f"cannot use {path} as the emulator's store: {reason}",
                    hint="name a new file, or one that `kmstool emulator serve --store` made",
                ) from None

    def close(self) -> None:
        """Closes the file."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def key(self, key_id: str, now: float) -> Key | None:
        """The key of this id, unless it is deleted by now."""
        key = self._keys.get(key_id)
        if key is not None and key.deletion is not None and key.deletion <= now:
            self._remove_key(key)
            return None
        return key

    def keys(self, account_id: str, now: float) -> list[Key]:
        """An account's keys, by id."""
        with self._lock:
            ids = sorted(self._keys)
        found = (self.key(key_id, now) for key_id in ids)
        return [key for key in found if key is not None and key.account_id == account_id]

    def put_key(self, key: Key) -> None:
        """Adds a key, or puts it in the place of the one with its id."""
        with self._lock:
            record = {
                name: value
                for name, value in asdict(replace(key, material=b"")).items()
                if name != "material"
            }
            self._write(
                "INSERT OR REPLACE INTO keys VALUES (?, ?, ?)",
                lambda: (key.key_id, json.dumps(record), dump_material(key.material)),
            )
            self._keys[key.key_id] = key

    def alias(self, account_id: str, name: str) -> Alias | None:
        """The alias of this name (`alias/…`), or None."""
        return self._aliases.get((account_id, name))

    def aliases(self, account_id: str) -> list[Alias]:
        """An account's aliases, by name."""
        with self._lock:
            found = [alias for alias in self._aliases.values() if alias.account_id == account_id]
        return sorted(found, key=lambda alias: alias.name)

    def put_alias(self, alias: Alias) -> None:
        """Adds an alias, or points it elsewhere."""
        with self._lock:
            self._write(
                "INSERT OR REPLACE INTO aliases VALUES (?, ?, ?)",
                lambda: (alias.account_id, alias.name, json.dumps(asdict(alias))),
            )
            self._aliases[alias.account_id, alias.name] = alias

    def delete_alias(self, alias: Alias) -> None:
        """Removes an alias."""
        with self._lock:
            self._write(
                "DELETE FROM aliases WHERE account_id = ? AND name = ?",
                lambda: (alias.account_id, alias.name),
            )
            self._aliases.pop((alias.account_id, alias.name), None)

    def _remove_key(self, key: Key) -> None:
        with self._lock:
            for alias in [a for a in self._aliases.values() if a.target == key.key_id]:
                self.delete_alias(alias)
            self._write("DELETE FROM keys WHERE key_id = ?", lambda: (key.key_id,))
            self._keys.pop(key.key_id, None)

    def _write(self, statement: str, values: Callable[[], tuple[object, ...]]) -> None:
        if self._database is not None:
            with self._database:
                self._database.execute(statement, values())

    def _load(self, database: sqlite3.Connection) -> None:
        for key_id, record, material in database.execute("SELECT * FROM keys"):
            fields = dict(json.loads(record))
            fields["grants"] = tuple(map(_grant, fields.get("grants", ())))
            self._keys[key_id] = Key(**fields, material=load_material(fields["spec"], material))
        for account_id, name, record in database.execute("SELECT * FROM aliases"):
            self._aliases[account_id, name] = Alias(**json.loads(record))


def _grant(fields: dict[str, Any]) -> Grant:
    return Grant(**fields | {"operations": tuple(fields["operations"])})


def _open(path: Path) -> sqlite3.Connection:
    # SQLite would make the file with the umask's mode: it holds key material.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    # Threads take turns under the store's own lock.
    database = sqlite3.connect(path, check_same_thread=False)
    try:
        _prepare(database)
    except BaseException:
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection) -> None:
    version = database.execute("PRAGMA user_version").fetchone()[0]
    empty = not database.execute("SELECT 1 FROM sqlite_schema").fetchone()
    if version == 0 and empty:
        database.executescript(_SCHEMA)
        database.execute(f"PRAGMA user_version = {_VERSION}")
    elif version != _VERSION:
        raise ValueError("it is another program's database, or of another version")
