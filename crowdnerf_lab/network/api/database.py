"""Database: what the service must never lose, in one SQLite file that several processes may write.

Every commit is on disk before it returns (write-ahead log, synchronous=FULL): what was acknowledged survives a kill.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crowdnerf_lab.files import FileError

FILE = "service.sqlite"
SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE events (
    event TEXT PRIMARY KEY, title TEXT NOT NULL, join_code_sha256 TEXT, created REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE ues (
    event TEXT NOT NULL REFERENCES events, ue TEXT NOT NULL, device TEXT NOT NULL, operating_system TEXT,
    consent TEXT NOT NULL, licence TEXT NOT NULL, joined REAL NOT NULL, left REAL, PRIMARY KEY (event, ue)
) WITHOUT ROWID;
CREATE TABLE tokens (
    sha256 TEXT PRIMARY KEY, event TEXT, ue TEXT, role TEXT NOT NULL CHECK (role IN ('ue', 'operator')),
    issued REAL NOT NULL, expires REAL NOT NULL, revoked REAL, FOREIGN KEY (event, ue) REFERENCES ues (event, ue)
) WITHOUT ROWID;
CREATE INDEX tokens_of_ue ON tokens (event, ue);
CREATE TABLE uploads (
    id TEXT PRIMARY KEY, event TEXT NOT NULL, ue TEXT NOT NULL, length INTEGER NOT NULL, offset INTEGER NOT NULL,
    filename TEXT NOT NULL, media_type TEXT NOT NULL, capture TEXT NOT NULL, metadata TEXT NOT NULL DEFAULT '',
    sha256 TEXT, idempotency_key TEXT,
    created REAL NOT NULL, expires REAL NOT NULL,
    UNIQUE (event, ue, idempotency_key), FOREIGN KEY (event, ue) REFERENCES ues (event, ue)
) WITHOUT ROWID;
CREATE INDEX uploads_by_expiry ON uploads (expires);
CREATE TABLE contributions (
    id TEXT PRIMARY KEY, event TEXT NOT NULL, ue TEXT NOT NULL, file TEXT NOT NULL, media_type TEXT NOT NULL,
    bytes INTEGER NOT NULL, sha256 TEXT NOT NULL, capture TEXT NOT NULL, received REAL NOT NULL, state TEXT NOT NULL,
    reason TEXT, version INTEGER, changed REAL NOT NULL, FOREIGN KEY (event, ue) REFERENCES ues (event, ue)
) WITHOUT ROWID;
CREATE INDEX contributions_of_ue ON contributions (event, ue, received);
CREATE INDEX contributions_by_state ON contributions (event, state, received);
"""
"""Times are Unix seconds; capture and consent are JSON."""
BUSY_S = 30.0
"""How long a writer waits for another one."""


class Database:
    """The service's tables in a folder. Every thread has a connection of its own; processes share the file."""

    def __init__(self, home: Path) -> None:
        self.path = Path(home) / FILE
        self._connections = threading.local()
        self._writing = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Before SQLite opens it: its -wal and -shm get the same mode, and hold the same secrets.
            self.path.touch(mode=0o600)
            with self.transaction() as connection:
                _prepare(connection, self.path)
        except sqlite3.DatabaseError as error:
            raise FileError(
                f"cannot use {self.path}: {error}; restore it from a copy, or choose another folder"
            ) from error
        self.path.chmod(0o600)

    def connection(self) -> sqlite3.Connection:
        """This thread's connection, in autocommit mode; rows read like tuples and by name."""
        found = getattr(self._connections, "connection", None)
        if found is None:
            found = sqlite3.connect(
                self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False, factory=_Connection
            )
            found.row_factory = sqlite3.Row
            found.execute("PRAGMA journal_mode = WAL")
            found.execute("PRAGMA synchronous = FULL")
            found.execute("PRAGMA foreign_keys = ON")
            self._connections.connection = found
        return found

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, one writer at a time; what was read inside is still true when it commits. On disk after."""
        connection = self.connection()
        # Threads wait here in turn; SQLite's own waiting sleeps, and lets late comers pass.
        with self._writing:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def close(self) -> None:
        """Close this thread's connection; those of other threads close when their threads end."""
        found = self._connections.__dict__.pop("connection", None)
        if found is not None:
            found.close()


class _Connection(sqlite3.Connection):
    """Closes with its thread, wherever Python comes to remove it, and without a warning that nobody closed it."""

    def __del__(self) -> None:
        self.close()


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables of a new database. Raises FileError for one that another version of the package wrote."""
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found == SCHEMA_VERSION:
        return
    if found != 0:
        raise FileError(f"{path} has schema {found}, this package knows {SCHEMA_VERSION}; use the one that wrote it")
    for statement in SCHEMA.split(";"):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
