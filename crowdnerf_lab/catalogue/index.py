"""The catalogue's index: what its folders say, in an embedded SQLite database that can be thrown away at any time."""

import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE versions (
    event TEXT, number INTEGER, published REAL NOT NULL, note TEXT NOT NULL, withdrawn TEXT, PRIMARY KEY (event, number)
) WITHOUT ROWID;
CREATE TABLE artefacts (
    event TEXT, number INTEGER, name TEXT, card TEXT NOT NULL, PRIMARY KEY (event, number, name)
) WITHOUT ROWID;
"""
BUSY_S = 10.0
SOUND = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
)
"""Errors that say nothing against the database itself."""
Answer = TypeVar("Answer")
IndexedRow = tuple[int, float, str, tuple[str, ...], str | None]
"""Number, time, note, names of the artefacts, and reason of withdrawal of a version."""


@dataclass(frozen=True)
class IndexedVersion:
    """One version as its folder says: its cards are (name, JSON)."""

    number: int
    published: float
    note: str
    withdrawn: str | None
    cards: tuple[tuple[str, str], ...]


class Index:
    """An SQLite database in write-ahead mode: readers wait for no writer. Lost or damaged, it is made anew, empty."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def versions(self, event: str) -> list[IndexedRow]:
        """Number, time, note, artefacts' names and reason of withdrawal of an event's versions, by number."""

        def read(database: sqlite3.Connection) -> list[IndexedRow]:
            names: dict[int, list[str]] = {}
            for number, name in database.execute(
                "SELECT number, name FROM artefacts WHERE event = ? ORDER BY number, name", (event,)
            ):
                names.setdefault(number, []).append(name)
            rows = database.execute(
                "SELECT number, published, note, withdrawn FROM versions WHERE event = ? ORDER BY number", (event,)
            )
            return [(n, published, note, tuple(names.get(n, ())), gone) for n, published, note, gone in rows]

        return self._asked(read)

    def cards(self, event: str, number: int) -> list[tuple[str, str]]:
        """Names and cards (JSON) of a version's artefacts, by name."""
        query = "SELECT name, card FROM artefacts WHERE event = ? AND number = ? ORDER BY name"
        return self._asked(lambda database: database.execute(query, (event, number)).fetchall())

    def put(self, event: str, versions: Sequence[IndexedVersion], *, forget: Sequence[int] = ()) -> None:
        """Say this of an event's versions, and nothing of those to forget, in one transaction."""

        def write(database: sqlite3.Connection) -> None:
            for table in ("versions", "artefacts"):
                numbers = [(event, number) for number in (*forget, *(version.number for version in versions))]
                database.executemany(f"DELETE FROM {table} WHERE event = ? AND number = ?", numbers)
            for version in versions:
                database.execute(
                    "INSERT INTO versions VALUES (?, ?, ?, ?, ?)",
                    (event, version.number, version.published, version.note, version.withdrawn),
                )
                database.executemany(
                    "INSERT INTO artefacts VALUES (?, ?, ?, ?)",
                    [(event, version.number, name, card) for name, card in version.cards],
                )

        self._asked(write)

    def _asked(self, ask: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """Ask in one transaction; a database that cannot be read is thrown away and asked again when it is empty."""
        try:
            with self._transaction() as database:
                return ask(database)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF in SOUND:
                raise
            log.warning("%s is damaged (%s); making it anew from the folders", self.path, error)
        for ending in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + ending).unlink(missing_ok=True)
        with self._transaction() as database:
            return ask(database)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None)) as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            found = database.execute("PRAGMA user_version").fetchone()[0]
            database.execute("BEGIN" if found == SCHEMA_VERSION else "BEGIN IMMEDIATE")
            try:
                self._prepare(database)
                yield database
            except BaseException:
                database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")

    def _prepare(self, database: sqlite3.Connection) -> None:
        """Make the tables in a new database, or in one of another schema."""
        if database.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION:
            return
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            database.execute(f'DROP TABLE "{name}"')
        for statement in SCHEMA.split(";"):
            database.execute(statement)
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
