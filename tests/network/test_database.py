import os
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest

from crowdnerf_lab.files import FileError
from crowdnerf_lab.network.api.database import FILE, Database

INSERT = "INSERT INTO events VALUES (?, '', NULL, 0)"


def names(database: Database) -> list[str]:
    return [row["event"] for row in database.connection().execute("SELECT event FROM events ORDER BY event")]


def test_a_transaction_is_all_or_nothing(tmp_path):
    database = Database(tmp_path)
    with database.transaction() as rows:
        rows.execute(INSERT, ("kept",))
    with pytest.raises(sqlite3.IntegrityError), database.transaction() as rows:
        rows.executemany(INSERT, [("lost",), ("kept",)])
    assert names(database) == ["kept"]


def test_commits_are_flushed_and_references_checked(tmp_path):
    connection = Database(tmp_path).connection()
    assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute("INSERT INTO ues VALUES ('nowhere', 'ue1', '', NULL, '{}', '', 0, NULL)")


def test_many_threads_write(tmp_path):
    database = Database(tmp_path)

    def write(name: str) -> None:
        for i in range(10):
            with database.transaction() as rows:
                rows.execute(INSERT, (f"{name}{i}",))

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names(database)) == 40


def test_what_was_committed_survives_a_kill(tmp_path):
    code = (
        "import sys; from pathlib import Path; from crowdnerf_lab.network.api.database import Database\n"
        "database = Database(Path(sys.argv[1])); i = 0\n"
        "while True:\n"
        "    with database.transaction() as rows:\n"
        f"        rows.execute({INSERT!r}, (f'{{i:06d}}',))\n"
        "    print(i, flush=True); i += 1\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    acknowledged = [process.stdout.readline() for _ in range(5)][-1]
    os.kill(process.pid, signal.SIGKILL)
    rest = process.stdout.read().split()
    process.wait()
    process.stdout.close()
    last = int(rest[-1] if rest else acknowledged)
    found = names(Database(tmp_path))
    assert found[: last + 1] == [f"{i:06d}" for i in range(last + 1)]


def test_a_database_of_another_schema_is_left_alone(tmp_path):
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(FileError, match="schema 99"):
        Database(tmp_path)


def test_a_damaged_database_is_named(tmp_path):
    (tmp_path / FILE).write_bytes(b"no database" * 500)
    with pytest.raises(FileError, match=FILE):
        Database(tmp_path)


def test_nobody_else_reads_it(tmp_path):
    Database(tmp_path)
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0
