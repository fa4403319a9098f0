"""Uploads: files on their way to the service, one row each; who may send how much, and what a repeated request means.

A row says how many bytes are safe (`upload_writing` brings them there). Rows come before files and go after them, so
that a file without a row is rubbish of a killed process.
"""

import secrets
import shutil
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from crowdnerf_lab.network.api.database import Database
from crowdnerf_lab.network.api.problems import Problem
from crowdnerf_lab.network.settings import ServiceSettings
from crowdnerf_lab.network.uploads.contributions import CaptureMetadata, Contributions, partial_file
from crowdnerf_lab.network.uploads.tus import Creation

FREE_BYTES = 256 << 20
"""What an upload must leave free on the disk for everything else."""


@dataclass(frozen=True)
class Upload:
    """One file on its way. offset: bytes that are safe; metadata: as the UE sent it; expires: Unix time, if unfinished.

    sha256: of the whole file, as the UE announced it.
    """

    id: str
    event: str
    ue: str
    length: int
    offset: int
    filename: str
    media_type: str
    capture: str
    metadata: str
    sha256: str | None
    created: float
    expires: float

    @property
    def complete(self) -> bool:
        """Whether all bytes arrived and became a contribution."""
        return self.offset == self.length


class Uploads:
    """The uploads of every event. Methods may be called from any thread and any process of the service."""

    def __init__(self, database: Database, settings: ServiceSettings) -> None:
        self.database = database
        self.settings = settings
        self.home = database.path.parent
        self._contributions = Contributions(database)

    def create(self, event: str, ue: str, *, announced: Creation) -> Upload:
        """A new upload; or the one that was made before with the same key, or for the same bytes.

        Raises Problem 403 for a forgotten pseudonym, 413 over the quota, 422 for a key that was used for another file,
        507 when the disk is full.
        """
        now = time.time()
        with self.database.transaction() as rows:
            again = _made_before(rows, event, ue, announced, now=now)
            if again is None:
                self._refuse_over_quota(rows, event, ue, length=announced.length, now=now)
                again = self._inserted(rows, event, ue, announced, now=now)
        return self._as_on_disk(again)

    def one(self, event: str, ue: str, *, id: str) -> Upload:
        """A UE's upload. Raises Problem 404 where it has none of this id, 410 for one that has expired."""
        rows = self.database.connection()
        row = rows.execute("SELECT * FROM uploads WHERE id = ? AND event = ? AND ue = ?", (id, event, ue)).fetchone()
        if row is None:
            raise absent(id)
        upload = self._as_on_disk(_upload(row))
        if not upload.complete and upload.expires <= time.time():
            raise Problem(410, "Gone", f"upload {id} lay unfinished for too long; start a new one", kind="expired")
        return upload

    def unfinished(self, event: str, ue: str) -> tuple[Upload, ...]:
        """What a UE has not sent whole yet, oldest first."""
        found = self.database.connection().execute(
            "SELECT * FROM uploads WHERE event = ? AND ue = ? AND offset < length AND expires > ? ORDER BY created, id",
            (event, ue, time.time()),
        )
        return tuple(self._as_on_disk(_upload(row)) for row in found)

    def terminate(self, event: str, ue: str, *, id: str) -> None:
        """Delete an upload and its bytes, or take back what it became. Raises Problem 404, or 409 when too late."""
        self.one(event, ue, id=id)
        with self.database.transaction() as rows:
            rows.execute("DELETE FROM uploads WHERE id = ? AND offset < length", (id,))
            left = rows.execute("SELECT 1 FROM uploads WHERE id = ?", (id,)).fetchone()
        if left is None:
            partial_file(self.home, id).unlink(missing_ok=True)
        elif not self._contributions.withdraw(id):
            detail = (
                f"contribution {id} has been taken in; DELETE the event's contributions to have all yours forgotten"
            )
            raise Problem(409, "Conflict", detail, kind="taken-in")

    def discard(self, id: str) -> None:
        """Delete an unfinished upload as if it had never been."""
        with self.database.transaction() as rows:
            rows.execute("DELETE FROM uploads WHERE id = ? AND offset < length", (id,))
        partial_file(self.home, id).unlink(missing_ok=True)

    def sweep(self) -> int:
        """Delete uploads that have expired, and files that a killed process left behind. Returns how many files."""
        with self.database.transaction() as rows:
            rows.execute("DELETE FROM uploads WHERE offset < length AND expires <= ?", (time.time(),))
        swept = 0
        for path in [*(self.home / "uploads").glob("*"), *(self.home / "inbox").glob("*/*")]:
            swept += self._swept(path)
        return swept

    def _swept(self, path: Path) -> bool:
        """Delete one file unless a row needs it. Rows come before files and go before them, so none is missed."""
        rows = self.database.connection()
        unfinished = "SELECT 1 FROM uploads WHERE id = ? AND offset < length"
        waiting = "SELECT 1 FROM contributions WHERE id = ? AND state = 'received'"
        for query in (unfinished, waiting) if path.parent.parent.name == "inbox" else (unfinished,):
            if rows.execute(query, (path.stem,)).fetchone():
                return False
        path.unlink(missing_ok=True)
        return True

    def _inserted(self, rows: sqlite3.Connection, event: str, ue: str, announced: Creation, *, now: float) -> Upload:
        began = rows.execute("SELECT created FROM events WHERE event = ?", (event,)).fetchone()["created"]
        # Who says nothing of when and where is taken to send what happens now.
        capture = announced.capture or CaptureMetadata(time_s=now - began)
        upload = Upload(
            id=secrets.token_hex(16),
            event=event,
            ue=ue,
            length=announced.length,
            offset=0,
            filename=announced.filename,
            media_type=announced.media_type,
            capture=capture.model_dump_json(exclude_none=True),
            metadata=announced.metadata,
            sha256=announced.sha256,
            created=now,
            expires=now + 3600 * self.settings.upload_hours,
        )
        fields = vars(upload) | {"idempotency_key": announced.idempotency_key}
        columns, places = ", ".join(fields), ", ".join(f":{name}" for name in fields)
        rows.execute(f"INSERT INTO uploads ({columns}) VALUES ({places})", fields)
        return upload

    def _refuse_over_quota(self, rows: sqlite3.Connection, event: str, ue: str, *, length: int, now: float) -> None:
        if self._contributions.wants_to_be_forgotten(event, ue):
            detail = "this UE asked to be forgotten, and takes part no more; join the event again under a new pseudonym"
            raise Problem(403, "Forbidden", detail, kind="forgotten")
        files, total = rows.execute(
            "SELECT count(*), coalesce(sum(length), 0) FROM uploads "
            "WHERE event = ? AND ue = ? AND (offset = length OR expires > ?)",
            (event, ue, now),
        ).fetchone()
        most_files, most_bytes = self.settings.quota_files, self.settings.quota_bytes
        if files >= most_files or total + length > most_bytes:
            detail = (
                f"this UE has sent {files} files with {total} bytes, this one has {length}, and it may send "
                f"{most_files} with {most_bytes}; send no more, or delete uploads that wait"
            )
            raise Problem(413, "Content Too Large", detail, kind="quota-exceeded")
        if shutil.disk_usage(self.home).free < length + FREE_BYTES:
            raise disk_full()

    def _as_on_disk(self, upload: Upload) -> Upload:
        """With no more bytes than the file really has: a disk that lost some must not have them acknowledged."""
        if upload.complete or upload.offset == 0:
            return upload
        try:
            size = partial_file(self.home, upload.id).stat().st_size
        except FileNotFoundError:
            size = 0
        return upload if size >= upload.offset else moved_to(upload, size)


def _made_before(rows: sqlite3.Connection, event: str, ue: str, announced: Creation, *, now: float) -> Upload | None:
    """The upload that a repeated request means. Raises Problem 422 for a key that was used for another file."""
    found = rows.execute(
        "SELECT * FROM uploads WHERE event = ? AND ue = ? AND (idempotency_key = ? OR (sha256 = ? AND length = ?)) "
        "ORDER BY idempotency_key IS ? DESC, created",
        (event, ue, announced.idempotency_key, announced.sha256, announced.length, announced.idempotency_key),
    ).fetchone()
    if found is None:
        return None
    upload = _upload(found)
    if not upload.complete and upload.expires <= now:
        rows.execute("DELETE FROM uploads WHERE id = ?", (upload.id,))
        return None
    if (upload.length, upload.sha256) != (announced.length, announced.sha256):
        raise Problem(
            422,
            "Unprocessable Content",
            f"Idempotency-Key was used for a file of {upload.length} bytes, and this one has {announced.length} or "
            "another sha256; use a new key for a new file",
            kind="idempotency-key-reused",
        )
    return upload


def _upload(row: sqlite3.Row) -> Upload:
    return Upload(**{name: row[name] for name in Upload.__dataclass_fields__})


def moved_to(upload: Upload, offset: int, *, expires: float | None = None) -> Upload:
    changed = {"offset": offset, "expires": upload.expires if expires is None else expires}
    return Upload(**vars(upload) | changed)


def absent(id: str) -> Problem:
    detail = f"this UE has no upload {id!r:.80}; it ended, or never was: start a new one"
    return Problem(404, "Not Found", detail, kind="no-such-upload")


def disk_full() -> Problem:
    detail = "the service's disk is full; keep the file and try again later"
    return Problem(507, "Insufficient Storage", detail, kind="disk-full", headers={"Retry-After": "60"})
