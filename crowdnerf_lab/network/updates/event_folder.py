"""Where the training worker keeps an event, and what it notes down there: each document whole or absent.

    HOME/events/EVENT/captures/          photos that were taken in, protected
                     /upload/            links to what is being taken in
                     /motion/            finished stages of structure from motion
                     /status.json        what the worker is at
                     /rounds/000007/     one round of training: plan.json, then the results of its stages, outcome.json

A round without outcome.json is gone on with, stage by stage. The one whose outcome names the newest version that was
not withdrawn is what the next round begins from.
"""

import logging
import shutil
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from crowdnerf_lab.catalogue.catalogue import EVENT, Catalogue, CatalogueError
from crowdnerf_lab.files import write_json
from crowdnerf_lab.refinement import FIELD_FILE

log = logging.getLogger(__name__)

Document = TypeVar("Document", bound=BaseModel)
PLAN, OUTCOME, STATUS = "plan.json", "outcome.json", "status.json"
KEPT_VERSIONS = 2
"""Versions whose fields are kept: the one to begin from, and the one before, should that turn out to be better."""


class EventFolderError(ValueError):
    """An event that cannot have a folder; the message says why."""


class _Noted(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Plan(_Noted):
    """What a round does. id: random, found again in the note of its version. start: the round it begins from, None:
    training anew. photos: of the captures, all that it learns from; new: those that `start` has not met; judges: those
    that no round ever learns from."""

    id: str
    start: int | None
    photos: tuple[str, ...]
    new: tuple[str, ...]
    judges: tuple[str, ...]


class Outcome(_Noted):
    """What came of a round. version: that was published, None: none, for this `reason`. psnr: of the new field on the
    judging photos, dB; psnr_before: of the one that it began from. seconds: of each stage."""

    version: int | None
    reason: str
    psnr: float | None
    psnr_before: float | None
    seconds: dict[str, float]


class Round:
    """One round's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def number(self) -> int:
        """Rounds count from 1."""
        return int(self.folder.name)

    @property
    def plan(self) -> Plan | None:
        """None: the round was killed before it had one."""
        return _read(self.folder / PLAN, Plan)

    @property
    def outcome(self) -> Outcome | None:
        """None: the round is not over."""
        return _read(self.folder / OUTCOME, Outcome)

    @property
    def has_field(self) -> bool:
        """Whether its field is there to begin from."""
        return (self.folder / FIELD_FILE).is_file()

    def tried_in_vain(self, *, start: int | None, photos: Collection[str]) -> bool:
        """Whether this round began there, had these photos, and no version came of it."""
        plan, outcome = self.plan, self.outcome
        same = plan is not None and (plan.start, set(plan.photos)) == (start, set(photos))
        return same and outcome is not None and outcome.version is None

    def note(self, document: Plan | Outcome) -> None:
        """Write the plan, or the outcome."""
        name = PLAN if isinstance(document, Plan) else OUTCOME
        write_json(self.folder / name, document.model_dump(mode="json"))

    def remove(self) -> None:
        """Remove all of it; the plan goes first, so that a half-removed round is none."""
        (self.folder / PLAN).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def keep_documents(self) -> None:
        """Remove all but its documents."""
        for path in self.folder.iterdir():
            if path.name not in (PLAN, OUTCOME):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


class EventFolder:
    """One event's folder below a service's home."""

    def __init__(self, home: Path, event: str) -> None:
        if not EVENT.fullmatch(event):
            raise EventFolderError(f"event {event!r} cannot be a folder's name; use letters, digits, '_', '.' and '-'")
        self.event = event
        self.folder = Path(home) / "events" / event
        self.captures, self.upload = self.folder / "captures", self.folder / "upload"
        self.motion = self.folder / "motion"
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def rounds(self) -> tuple[Round, ...]:
        """All rounds that have a plan, the first first."""
        folders = (self.folder / "rounds").glob("[0-9]*")
        return tuple(found for folder in sorted(folders) if (found := Round(folder)).plan is not None)

    def round(self, number: int) -> Round:
        """The round of this number."""
        return Round(self.folder / "rounds" / f"{number:06d}")

    def new_round(self, plan: Plan) -> Round:
        """Begin the next round."""
        taken = [int(folder.name) for folder in (self.folder / "rounds").glob("[0-9]*")]
        begun = self.round(max(taken, default=0) + 1)
        begun.note(plan)
        return begun

    def published(self, catalogue: Catalogue) -> tuple[Round, ...]:
        """Rounds whose versions stand and whose fields are there, the newest first."""
        try:
            standing = {version.number for version in catalogue.versions(self.event) if version.withdrawn is None}
        except CatalogueError:
            return ()
        over = ((found, found.outcome) for found in reversed(self.rounds()))
        return tuple(found for found, outcome in over if outcome and outcome.version in standing and found.has_field)

    def tidy(self, catalogue: Catalogue) -> None:
        """Keep the fields of the newest versions, and documents alone of other rounds that are over."""
        kept = {found.number for found in self.published(catalogue)[:KEPT_VERSIONS]}
        for found in self.rounds():
            if found.outcome is not None and found.number not in kept:
                found.keep_documents()

    def say(self, stage: str, **more: Any) -> None:
        """Tell what the worker is at (status.json), for the service's metrics and for people."""
        write_json(self.folder / STATUS, {"event": self.event, "stage": stage, "since": time.time()} | more)


def _read(path: Path, model: type[Document]) -> Document | None:
    """A document; None when it is not there, or damaged as nothing that is written atomically should be."""
    try:
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        log.warning("%s cannot be used (%s); it counts as missing", path, error)
        return None
