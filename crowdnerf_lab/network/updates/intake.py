"""What UEs have sent becomes photos of the event: looked at in a sandbox, faces made unrecognisable, written once.

A contribution leaves the inbox after its photos and their entry in the manifest are on disk. Killed before that, the
next intake finds the photos there and only marks the contribution: nothing is taken in twice, nothing is lost.
"""

import logging
import os
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crowdnerf_lab.captures.bundle import (
    MANIFEST,
    Capture,
    CaptureSet,
    Clip,
    Consent,
    Photo,
    read_bundle,
    write_captures,
)
from crowdnerf_lab.captures.formats.pictures import is_video
from crowdnerf_lab.captures.intake.ingest import ingest
from crowdnerf_lab.captures.intake.one_file import digest_in
from crowdnerf_lab.captures.intake.report import IngestRow
from crowdnerf_lab.captures.intake.sandbox import Job, Sandbox
from crowdnerf_lab.captures.photos import read_metadata
from crowdnerf_lab.captures.video.videos import read_clip_metadata
from crowdnerf_lab.network.api.database import Database
from crowdnerf_lab.network.updates.event_folder import EventFolder
from crowdnerf_lab.network.uploads.contributions import CaptureMetadata, Contribution, Contributions

log = logging.getLogger(__name__)

PRELOAD = ("crowdnerf_lab.captures.intake.ingest", __name__)
"""Modules of a sandbox that takes contributions in."""


class StoppedError(RuntimeError):
    """A stage was asked to stop; what it had done is kept, and the next round goes on with it."""


@dataclass(frozen=True)
class Sender:
    """What a UE said when it joined."""

    device: str
    consent: Consent
    licence: str


def senders_of(database: Database, event: str) -> dict[str, Sender]:
    """The UEs of an event, by pseudonym."""
    rows = database.connection().execute("SELECT ue, device, consent, licence FROM ues WHERE event = ?", (event,))
    return {
        row["ue"]: Sender(row["device"], Consent.model_validate_json(row["consent"]), row["licence"]) for row in rows
    }


def take_in(
    folder: EventFolder,
    waiting: Sequence[Contribution],
    *,
    contributions: Contributions,
    senders: Mapping[str, Sender],
    sandbox: Sandbox,
    faces: bool,
) -> int:
    """Take contributions in and mark what became of each; returns how many are now the event's photos.

    Raises StoppedError after an interruption; FaceError when faces cannot be searched for, FileError when the disk is
    full: both leave all that waits where it is.
    """
    refused = _laid_out(folder, waiting, senders=senders, sandbox=sandbox)
    rows: dict[str, IngestRow] = {}
    if len(refused) < len(waiting):
        _, report = ingest(folder.upload, folder.captures, faces=faces, progress=False, sandbox=sandbox)
        if report.interrupted:
            raise StoppedError(f"taking in contributions to {folder.event} was interrupted")
        rows = {row.file: row for row in report.rows}
    captures = captures_of(folder)
    there = [photo.file for photo in captures.photos] if captures else []
    taken: list[Contribution] = []
    for contribution in waiting:
        reason = refused.get(contribution.id) or _refusal(contribution, rows.get(_name(contribution)), there)
        if reason is None:
            taken.append(contribution)
        else:
            contributions.mark([contribution.id], state="refused", reason=reason)
            contribution.path.unlink(missing_ok=True)
    marked = set(contributions.mark([each.id for each in taken], state="taken_in"))
    _erase(folder, [contribution for contribution in taken if contribution.id not in marked])
    for contribution in taken:
        contribution.path.unlink(missing_ok=True)
    shutil.rmtree(folder.upload, ignore_errors=True)
    return len(marked)


def captures_of(folder: EventFolder) -> CaptureSet | None:
    """The event's photos; None while there are none."""
    return read_bundle(folder.captures) if (folder.captures / MANIFEST).is_file() else None


def photos_of(contribution: Contribution, files: Iterable[str]) -> set[str]:
    """Those of an event's photos that a contribution became: one, or the chosen frames of a clip."""
    digest = digest_in(contribution.sha256)
    return {file for file in files if digest_in(file) == digest and file.partition("/")[0] == contribution.ue}


def record_of(path: Path, file: str, capture: CaptureMetadata) -> Photo | Clip:
    """A file's entry in a manifest: its size and lens as it says itself, the rest as its UE said. In the sandbox."""
    told = {"time_s": capture.time_s, "reported": capture.reported, "gps": capture.gps}
    if is_video(path):
        clip = read_clip_metadata(path)
        size = {"width": clip.width, "height": clip.height, "duration_s": clip.duration_s, "audio": clip.audio}
        return Clip.model_validate({"file": file, "focal_px": capture.focal_px or clip.focal_px} | told | size)
    photo = read_metadata(path)
    size = {"width": photo.width, "height": photo.height, "focal_px": capture.focal_px or photo.focal_px}
    return Photo.model_validate({"file": file, "camera": capture.camera} | told | size)


def _laid_out(
    folder: EventFolder, waiting: Sequence[Contribution], *, senders: Mapping[str, Sender], sandbox: Sandbox
) -> dict[str, str]:
    """Fill the upload folder, as a bundle of captures; returns why contributions cannot be part of it, by id."""
    shutil.rmtree(folder.upload, ignore_errors=True)
    folder.upload.mkdir(mode=0o700, parents=True)
    jobs = (
        Job(record_of, (each.path, _name(each), each.capture), about=each.id) for each in waiting if each.path.is_file()
    )
    outcomes = {outcome.job.about: outcome for outcome in sandbox.results(jobs)}
    refused: dict[str, str] = {}
    photos: dict[str, list[Photo]] = {}
    clips: dict[str, list[Clip]] = {}
    for contribution in waiting:
        outcome = outcomes.get(contribution.id)
        if outcome is None:
            # Taken in by a worker that died before it could say so; its photos tell.
            continue
        if outcome.error is not None:
            refused[contribution.id] = _told(str(outcome.error), contribution)
            continue
        _link(contribution.path, folder.upload / _name(contribution))
        if isinstance(outcome.value, Photo):
            photos.setdefault(contribution.ue, []).append(outcome.value)
        else:
            clips.setdefault(contribution.ue, []).append(outcome.value)
    captures = [
        Capture(
            ue=ue,
            device=senders[ue].device,
            consent=senders[ue].consent,
            licence=senders[ue].licence,
            photos=tuple(photos.get(ue, ())),
            clips=tuple(clips.get(ue, ())),
        )
        for ue in sorted({*photos, *clips})
    ]
    upload = CaptureSet(
        root=folder.upload, name=folder.event, licence="of each capture", origin_wgs84=None, captures=tuple(captures)
    )
    write_captures(upload, folder.upload)
    return refused


def _refusal(contribution: Contribution, row: IngestRow | None, there: Collection[str]) -> str | None:
    """Why a contribution became no photo of its UE; None if it did."""
    if photos_of(contribution, there):
        return None
    if row is None:
        return "the file was lost before it was taken in; send it again"
    if row.outcome == "known":
        return "the same file was sent before by another UE; send a photo of your own"
    return _told(
        f"{row.reason}; {row.remedy}" if row.reason else "nothing came of it; send another photo", contribution
    )


def _told(problem: str, contribution: Contribution) -> str:
    """A problem as its sender may read it: not where, and under which name, the file lies here."""
    words = problem.replace(str(contribution.path), "the file").replace(_name(contribution), "the file")
    return words.replace(f"{contribution.path.parent}{os.sep}", "")


def _erase(folder: EventFolder, withdrawn: Sequence[Contribution]) -> None:
    """Remove the photos of contributions that were taken back while they were taken in."""
    captures = captures_of(folder)
    there = {photo.file for photo in captures.photos} if captures else set()
    gone = {file for contribution in withdrawn for file in photos_of(contribution, there)}
    if captures is None or not gone:
        return
    write_captures(captures.keeping(there - gone), folder.captures)
    for file in gone:
        captures.path_of(file).unlink(missing_ok=True)
    log.info("%s: %d photos were taken back while they were taken in", folder.event, len(gone))


def _name(contribution: Contribution) -> str:
    """What a contribution is called in the upload."""
    return f"{contribution.id}{contribution.path.suffix}"


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)
