"""Contributions: what a UE sent whole, what is known of it, and what became of it.

A contribution is `received` once its bytes lie in inbox/EVENT/ and its row is committed; the pipeline marks it
`taken_in` (its protected photos are in the event's captures), `published` (a version has learned from it) or `refused`.
`forgotten` is final. While the pipeline has not erased a contributor who wants to be forgotten, their wish stands.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Row
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from crowdnerf_lab.captures.bundle import Focal, GivenCamera, GpsFix, ReportedPose
from crowdnerf_lab.network.api.database import Database

State = Literal["received", "taken_in", "published", "refused", "forgotten"]
FARTHEST_M = 1e6
"""No event is so large: a position beyond it is a mistake or an attack."""
WITHDRAWN = "withdrawn by its UE"
TO_ERASE = "to be erased from captures and models"
ERASED = "erased"


class CaptureMetadata(BaseModel):
    """What a UE says of a photo or clip that it sends, as `Photo` and `Clip` of the lab's captures mean it.

    time_s: seconds since the event began (at a clip's first frame). focal_px: of the picture as it is sent.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    time_s: Annotated[float, Field(ge=-1e9, le=1e9)]
    focal_px: Annotated[Focal, Field(le=1e6)] | None = None
    reported: ReportedPose | None = None
    gps: GpsFix | None = None
    camera: GivenCamera | None = None

    @model_validator(mode="after")
    def _near_the_event(self) -> "CaptureMetadata":
        places = [tuple(row[3] for row in given.camera_to_world) for given in (self.reported, self.camera) if given]
        places += [self.gps.position] if self.gps else []
        if any(abs(metres) > FARTHEST_M for place in places for metres in place):
            raise ValueError(f"a position lies more than {FARTHEST_M:g} m from the event's origin")
        return self


@dataclass(frozen=True)
class Contribution:
    """One photo or clip of one UE. path: where its bytes lie until they are taken in; bytes: how many there are.

    received: Unix time. reason: why it was refused or forgotten. version: the first that learned from it.
    """

    id: str
    event: str
    ue: str
    path: Path
    media_type: str
    bytes: int
    sha256: str
    capture: CaptureMetadata
    received: float
    state: State
    reason: str | None = None
    version: int | None = None


@dataclass(frozen=True)
class Forgotten:
    """What forgetting a UE did: contributions that are marked, and bytes that were not taken in yet and are gone."""

    contributions: int
    bytes: int


class Contributions:
    """The contributions of every event. Methods may be called from any thread and any process of the service."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._home = database.path.parent

    def of(self, event: str, ue: str) -> tuple[Contribution, ...]:
        """All that one UE has sent whole to an event, oldest first."""
        return self._where("event = ? AND ue = ? ORDER BY received, id", event, ue)

    def one(self, id: str) -> Contribution | None:
        """One contribution; None where there is none."""
        return next(iter(self._where("id = ?", id)), None)

    def waiting(self, event: str) -> tuple[Contribution, ...]:
        """What the pipeline has not taken in yet, oldest first."""
        return self._where("event = ? AND state = 'received' ORDER BY received, id", event)

    def mark(
        self, ids: Iterable[str], *, state: State, reason: str | None = None, version: int | None = None
    ) -> tuple[str, ...]:
        """Say what became of contributions, all at once. Returns those that are in `state` now.

        The others have been withdrawn or forgotten in the meantime: erase what was made of them. version: None keeps
        the one that is known.
        """
        marked = []
        with self._database.transaction() as rows:
            for id in ids:
                done = rows.execute(
                    "UPDATE contributions SET state = ?, reason = ?, version = coalesce(version, ?), changed = ? "
                    "WHERE id = ? AND state <> 'forgotten'",
                    (state, reason, version, time.time(), id),
                )
                marked += [id] * done.rowcount
        return tuple(marked)

    def forget(self, event: str, ue: str) -> Forgotten:
        """Forget a UE: the wish is on disk first, then what was not taken in is deleted; the pipeline does the rest.

        Also what the UE said about its captures and its unfinished uploads go. Again: changes nothing.
        """
        with self._database.transaction() as rows:
            unfinished = rows.execute(
                "SELECT id FROM uploads WHERE event = ? AND ue = ? AND id NOT IN (SELECT id FROM contributions)",
                (event, ue),
            ).fetchall()
            theirs = self._where("event = ? AND ue = ? AND state <> 'forgotten'", event, ue)
            rows.execute("DELETE FROM uploads WHERE event = ? AND ue = ?", (event, ue))
            rows.execute(
                "UPDATE contributions SET state = 'forgotten', reason = ?, capture = ?, changed = ? "
                "WHERE event = ? AND ue = ? AND state <> 'forgotten'",
                (TO_ERASE, NOTHING_SAID, time.time(), event, ue),
            )
        paths = [partial_file(self._home, row["id"]) for row in unfinished] + [each.path for each in theirs]
        return Forgotten(contributions=len(theirs), bytes=sum(_removed(path) for path in paths))

    def withdraw(self, id: str) -> bool:
        """Take back one contribution that was not taken in yet. False: it is too late for that."""
        with self._database.transaction() as rows:
            done = rows.execute(
                "UPDATE contributions SET state = 'forgotten', reason = ?, capture = ?, changed = ? "
                "WHERE id = ? AND state IN ('received', 'refused')",
                (WITHDRAWN, NOTHING_SAID, time.time(), id),
            ).rowcount
            if done:
                rows.execute("DELETE FROM uploads WHERE id = ?", (id,))
        if done and (contribution := self.one(id)):
            _removed(contribution.path)
        return bool(done)

    def forget_wishes(self, event: str) -> tuple[str, ...]:
        """UEs whose captures, and models that learned from them, the pipeline has yet to erase; first come first."""
        found = self._database.connection().execute(
            "SELECT ue FROM contributions WHERE event = ? AND state = 'forgotten' AND reason = ? "
            "GROUP BY ue ORDER BY min(changed), ue",
            (event, TO_ERASE),
        )
        return tuple(row["ue"] for row in found)

    def forgotten(self, event: str, ue: str) -> None:
        """A UE's wish is fulfilled: nothing is left of its captures but that there were some."""
        with self._database.transaction() as rows:
            rows.execute(
                "UPDATE contributions SET reason = ?, sha256 = '', changed = ? WHERE event = ? AND ue = ? "
                "AND state = 'forgotten' AND reason = ?",
                (ERASED, time.time(), event, ue, TO_ERASE),
            )

    def wants_to_be_forgotten(self, event: str, ue: str) -> bool:
        """Whether this pseudonym has been forgotten, or soon will be: it takes part no more."""
        found = self._database.connection().execute(
            "SELECT 1 FROM contributions WHERE event = ? AND ue = ? AND reason IN (?, ?) LIMIT 1",
            (event, ue, TO_ERASE, ERASED),
        )
        return found.fetchone() is not None

    def _where(self, condition: str, *values: str) -> tuple[Contribution, ...]:
        found = self._database.connection().execute(f"SELECT * FROM contributions WHERE {condition}", values)
        return tuple(self._contribution(row) for row in found)

    def _contribution(self, row: Row) -> Contribution:
        return Contribution(
            id=row["id"],
            event=row["event"],
            ue=row["ue"],
            path=self._home / row["file"],
            media_type=row["media_type"],
            bytes=row["bytes"],
            sha256=row["sha256"],
            capture=CaptureMetadata.model_validate_json(row["capture"]),
            received=row["received"],
            state=row["state"],
            reason=row["reason"],
            version=row["version"],
        )


NOTHING_SAID = CaptureMetadata(time_s=0.0).model_dump_json(exclude_none=True)


def partial_file(home: Path, id: str) -> Path:
    """Where the bytes of an unfinished upload lie."""
    return home / "uploads" / id


def inbox_file(event: str, id: str, *, suffix: str) -> Path:
    """Where a complete upload waits to be taken in, relative to the service's home."""
    return Path("inbox") / event / f"{id}{suffix}"


def _removed(path: Path) -> int:
    """Delete a file; how many bytes it had."""
    try:
        size = path.stat().st_size
        path.unlink()
    except FileNotFoundError:
        return 0
    return size
