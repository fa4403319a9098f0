"""What an interrupted ingest has done so far: one line of JSON a file, on disk before the next file counts as done.

A program killed while it writes leaves a torn last line, which is cut off when the journal is opened again. The journal
is locked while it is open, so that two programs never ingest into one folder at a time.
"""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from crowdnerf_lab.captures.bundle import Coordinates, Photo, Wgs84
from crowdnerf_lab.captures.documents import CaptureError


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Heading(_Line):
    """The first line: what the lines below hold for. A journal with another heading is begun anew.

    faces: whether faces were made unrecognisable; origin_wgs84, coordinates, began: what positions and times stand in.
    """

    version: int = 1
    faces: bool
    coordinates: Coordinates
    origin_wgs84: Wgs84 | None
    began: AwareDatetime | None


class Entry(_Line):
    """One file that was dealt with. digest: SHA-256 of its bytes; file: what it was called; ue: whose it is.

    photos: what was written of it, a video's frames among them; refused: why nothing was.
    """

    digest: str
    file: str
    ue: str
    photos: tuple[Photo, ...] = ()
    refused: str | None = None


class Journal:
    """An append-only file of entries. Use as a context; `entries` are those found when it was opened."""

    def __init__(self, path: Path, heading: Heading) -> None:
        self.path, self.heading = path, heading
        self.entries: tuple[Entry, ...] = ()
        self._file: IO[bytes] | None = None

    def __enter__(self) -> "Journal":
        """Raises CaptureError when another program has the journal open."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.open("a+b")
        try:
            lock(file.fileno(), self.path.parent)
        except CaptureError:
            file.close()
            raise
        self._file = file
        lines = list(_whole_lines(file))
        if not lines or _heading(lines[0]) != self.heading:
            file.truncate(0)
            self._append(self.heading)
            return self
        entries, length = [], len(lines[0])
        for line in lines[1:]:
            try:
                entries.append(Entry.model_validate_json(line))
            except ValidationError:
                break
            length += len(line)
        file.truncate(length)
        self.entries = tuple(entries)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def append(self, entry: Entry) -> None:
        """Write an entry through to the disk."""
        self._append(entry)

    def finish(self) -> None:
        """Remove the journal: what it says stands elsewhere by now."""
        self.path.unlink(missing_ok=True)

    def _append(self, line: _Line) -> None:
        if self._file is None:
            raise ValueError(f"{self.path} is not open; use the journal as a context")
        self._file.write(line.model_dump_json().encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def lock(descriptor: int, folder: Path) -> None:
    """Lock an open file or folder until it is closed. Raises CaptureError when another program has it: two would fill
    `folder` at a time."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise CaptureError(
            f"{folder} is being filled by another ingest; wait for it, or choose another folder"
        ) from None


def _whole_lines(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    for line in file:
        if not line.endswith(b"\n"):
            return
        yield line


def _heading(line: bytes) -> Heading | None:
    try:
        return Heading.model_validate_json(line)
    except ValidationError:
        return None
