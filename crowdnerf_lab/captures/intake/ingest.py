"""Everything a crowd uploads, taken in: checked, protected, written once, and listed in a manifest.

What was uploaded is listed; workers, each in its sandbox, turn one file at a time into photos (`intake`); the journal
keeps what is done, so that a second run goes on where the first was stopped; the manifest is written at the end and
after Ctrl-C. Memory grows with the number of workers; of a photo only its record stays. The same file again changes
nothing, and one that cannot be read becomes a row of the report.
"""

import itertools
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from tqdm.auto import tqdm

from crowdnerf_lab.captures.bundle import (
    MANIFEST,
    Capture,
    CaptureSet,
    Consent,
    LeftOut,
    Photo,
    read_bundle,
    write_captures,
)
from crowdnerf_lab.captures.clocks.synchronisation import SynchronisationReport, synchronise
from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.formats.pictures import media_in
from crowdnerf_lab.captures.intake.archives import is_archive, unpack
from crowdnerf_lab.captures.intake.joining import expressed_like, joined
from crowdnerf_lab.captures.intake.journal import Entry, Heading, Journal, lock
from crowdnerf_lab.captures.intake.one_file import Upload, digest_in, probe, take_clip, take_photo
from crowdnerf_lab.captures.intake.report import IngestReport, IngestRow, refusal_row
from crowdnerf_lab.captures.intake.sandbox import Job, Outcome, Sandbox, SandboxError, SandboxLimits
from crowdnerf_lab.captures.privacy.faces import FaceError, find_faces
from crowdnerf_lab.captures.privacy.tombstones import was_forgotten
from crowdnerf_lab.captures.reading import read_captures
from crowdnerf_lab.captures.screening.screen import ScreeningLimits, ScreeningReport, judge, measure_one
from crowdnerf_lab.files import FileError, sha256_of
from crowdnerf_lab.interrupts import interrupts

logger = logging.getLogger(__name__)

JOURNAL = ".ingest.jsonl"
PHOTO_LIMITS = SandboxLimits(cpu_seconds=120, wall_seconds=300.0, memory_mb=3072)
CLIP_LIMITS = SandboxLimits(cpu_seconds=1200, wall_seconds=2400.0, memory_mb=3072)
LIST_LIMITS = SandboxLimits(cpu_seconds=600, wall_seconds=1200.0, memory_mb=4096, file_mb=4096)
"""Of unpacking an archive and of reading what lies in a folder."""


def ingest(
    path: Path | str,
    root: Path | str,
    *,
    consent: Consent | None = None,
    licence: str = "unknown",
    faces: bool = True,
    workers: int | None = None,
    progress: bool = True,
    sandbox: Sandbox | None = None,
    screening: ScreeningLimits | None = None,
) -> tuple[CaptureSet, IngestReport]:
    """Take in photos, videos, captures or an archive of them at `path` into the folder `root`, beside what is there.

    consent, licence: what holds for captures that do not carry their own, as in `read_captures`. faces: make faces
    unrecognisable before anything is written. workers: processes at a time (all cores). sandbox: an open one to use
    instead, with its workers; a service that takes in many uploads saves a second each. screening: limits by which to
    screen what is in the folder then; the folder keeps all, what is returned has passed. Ctrl-C returns what there is.

    Raises CaptureError or ArchiveError when nothing at `path` can be used, or `root` holds something else; FaceError
    when faces cannot be looked for; FileError when the disk is full.
    """
    path, root = Path(path), Path(root)
    if root.resolve().is_relative_to(path.resolve()):
        raise CaptureError(f"{root} lies in {path}, which is to be taken in; choose a folder outside of it")
    own = Sandbox(workers=workers or _cores(), preload=(__name__,)) if sandbox is None else nullcontext(sandbox)
    with _incoming(root) as incoming, own as opened:
        if faces:
            opened.run(Job(find_faces, (torch.zeros(32, 32, 3, dtype=torch.uint8),), about="the search for faces"))
        uploaded = _listed(opened, path, incoming=incoming, consent=consent, licence=licence)
        uploaded, clocks = _on_one_clock(opened, uploaded)
        before = _before(root, uploaded)
        uploaded = expressed_like(before, uploaded)
        captures, report = _taken_in(opened, uploaded, before=before, faces=faces, progress=progress)
        report = replace(report, clocks=clocks)
        if screening is None or report.interrupted:
            return captures, report
        screened = _screened(opened, captures, screening, progress=progress)
        return captures.keeping(set(screened.kept)), replace(report, screening=screened)


@contextmanager
def _incoming(root: Path) -> Iterator[Path]:
    """A private folder beside `root` for what is not protected yet; what a killed run left in it goes first."""
    folder = root.parent / f".{root.name}.incoming"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        lock(descriptor, root)
        for left in folder.iterdir():
            shutil.rmtree(left)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _listed(sandbox: Sandbox, path: Path, *, incoming: Path, consent: Consent | None, licence: str) -> CaptureSet:
    """What was uploaded, read in the sandbox. Pictures stay where they are; an archive is unpacked into `incoming`."""
    packed: tuple[LeftOut, ...] = ()
    if is_archive(path):
        into = incoming / (path.name.split(".")[0] or "upload")
        unpacked = sandbox.run(Job(unpack, (path, into), about=str(path), limits=LIST_LIMITS))
        path, packed = unpacked.folder, unpacked.left_out
    job = Job(_read, (path, consent, licence), about=str(path), limits=LIST_LIMITS)
    try:
        captures: CaptureSet = sandbox.run(job)
    except SandboxError:
        readable, crashing = _set_apart(sandbox, path, incoming / "readable" / path.name)
        if not crashing:
            raise
        captures = sandbox.run(replace(job, arguments=(readable, consent, licence)))
        packed += crashing
    return replace(captures, source=replace(captures.source, left_out=captures.source.left_out + packed))


def _set_apart(sandbox: Sandbox, path: Path, readable: Path) -> tuple[Path, tuple[LeftOut, ...]]:
    """A copy of a folder without the photos and videos over which their readers crash, and these."""
    media, others = media_in(path) if path.is_dir() else ([], [])
    jobs = (Job(probe, (path / file,), about=file) for file in media)
    crashing = {outcome.job.about: str(outcome.error) for outcome in sandbox.results(jobs) if outcome.error}
    for file in (*media, *others):
        if file not in crashing and not (path / file).is_symlink():
            (readable / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path / file, readable / file)
    return readable, tuple(LeftOut(file, problem) for file, problem in crashing.items())


def _read(path: Path, consent: Consent | None, licence: str) -> CaptureSet:
    return read_captures(path, consent=consent, licence=licence)


def _on_one_clock(sandbox: Sandbox, uploaded: CaptureSet) -> tuple[CaptureSet, SynchronisationReport | None]:
    """Times by what several UEs' clips heard: the clips are not kept, so this cannot be made up for later."""
    if sum(any(clip.audio for clip in capture.clips) for capture in uploaded.captures) < 2:
        return uploaded, None
    job = Job(synchronise, (uploaded,), about="the sound of the clips", limits=CLIP_LIMITS)
    try:
        return sandbox.run(job)
    except SandboxError as error:
        logger.warning("%s: %s; the devices' clocks are kept", uploaded.root, error)
        return uploaded, None


def _before(root: Path, uploaded: CaptureSet) -> CaptureSet:
    """What the folder holds already, without what a killed run left half-written."""
    for partial in root.rglob(".*.partial"):
        partial.unlink(missing_ok=True)
    if (root / MANIFEST).is_file():
        return read_bundle(root)
    return replace(uploaded, root=root, captures=(), views=())


def _taken_in(
    sandbox: Sandbox, uploaded: CaptureSet, *, before: CaptureSet, faces: bool, progress: bool
) -> tuple[CaptureSet, IngestReport]:
    heading = Heading(
        faces=faces, coordinates=uploaded.coordinates, origin_wgs84=uploaded.origin_wgs84, began=uploaded.began
    )
    files = sum(len(capture.photos) + len(capture.clips) for capture in uploaded.captures)
    with (
        Journal(before.root / JOURNAL, heading) as journal,
        interrupts() as stop,
        tqdm(total=files, desc="ingest", unit="file", disable=not progress) as bar,
    ):
        began = time.perf_counter()
        run = _Run(uploaded, before=before, journal=journal, faces=faces)
        for outcome in sandbox.results(itertools.takewhile(lambda _: not stop.is_set(), run.jobs())):
            run.finish(outcome)
            bar.update(len(run.rows) - bar.n)
        bar.update(len(run.rows) - bar.n)
        left_out = tuple(refusal_row(left.file, "", run.told(left.problem)) for left in uploaded.source.left_out)
        report = IngestReport(
            rows=tuple(sorted((*left_out, *run.rows), key=lambda row: (row.ue, row.file))),
            seconds=time.perf_counter() - began,
            workers=sandbox.workers,
            interrupted=len(run.rows) < files,
        )
        captures = joined(before, uploaded, run.taken)
        if captures.captures:
            write_captures(captures, before.root)
        if not report.interrupted:
            journal.finish()
    logger.info("ingest of %s: %s", uploaded.root, report.summary())
    return captures, report


def _screened(sandbox: Sandbox, captures: CaptureSet, limits: ScreeningLimits, *, progress: bool) -> ScreeningReport:
    """`screen`, its measuring spread over the sandbox's workers."""
    files = [photo.file for capture in captures.captures if capture.consent.train for photo in capture.photos]
    jobs = (Job(measure_one, (captures.path_of(file),), about=file, limits=PHOTO_LIMITS) for file in files)
    found = tqdm(sandbox.results(jobs), desc="screening", unit="photo", total=len(files), disable=not progress)
    measures = {outcome.job.about: str(outcome.error) if outcome.error else outcome.value for outcome in found}
    report = judge(captures, measures, limits=limits)
    logger.info("screening of %s: %s", captures.root, report.summary())
    return report


class _Run:
    """An upload on its way into a folder. rows: what became of each file; taken: photos and whose they are."""

    def __init__(self, uploaded: CaptureSet, *, before: CaptureSet, journal: Journal, faces: bool) -> None:
        self.uploaded, self.root, self.journal, self.faces = uploaded, before.root, journal, faces
        self.known = {digest_in(photo.file) for photo in before.photos}
        self.done = {entry.digest: entry for entry in journal.entries}
        self.rows: list[IngestRow] = []
        self.taken: list[tuple[str, Photo]] = []

    def jobs(self) -> Iterator[Job]:
        """One job for each file that is not in the folder yet, the next only when it is asked for."""
        for capture in self.uploaded.captures:
            if was_forgotten(self.root, capture.ue):
                problem = f"{capture.ue} asked to be forgotten here; send it under another pseudonym, with new consent"
                files = [photo.file for photo in capture.photos] + [clip.file for clip in capture.clips]
                self.rows += [refusal_row(file, capture.ue, problem) for file in files]
                continue
            for photo in capture.photos:
                yield from self._job(capture.model_copy(update={"photos": (photo,), "clips": ()}), photo.file)
            for clip in capture.clips:
                yield from self._job(capture.model_copy(update={"photos": (), "clips": (clip,)}), clip.file)

    def finish(self, outcome: Outcome) -> None:
        """Keep what became of a job, on disk first. Raises what is wrong with this machine, not with the file."""
        if isinstance(outcome.error, (FileError, FaceError)):
            raise outcome.error
        (upload,) = outcome.job.arguments
        entry = Entry(digest=upload.digest, file=outcome.job.about, ue=upload.capture.ue, photos=outcome.value or ())
        if outcome.error is not None or not entry.photos:
            problem = outcome.error or f"{entry.file} gave no photo; send a longer or sharper video"
            entry = entry.model_copy(update={"refused": self.told(str(problem)) or type(problem).__name__})
        self.journal.append(entry)
        self._keep(entry)

    def told(self, problem: str) -> str:
        """A problem as its sender may read it: files by their names in the upload, not by where they lie here."""
        return problem.replace(f"{self.uploaded.root}{os.sep}", "")

    def _keep(self, entry: Entry, *, earlier: bool = False) -> None:
        """earlier: taken in by a run that was stopped."""
        self.taken += [(entry.ue, photo) for photo in entry.photos]
        if entry.refused is not None:
            self.rows.append(refusal_row(entry.file, entry.ue, entry.refused))
        elif earlier:
            self.rows.append(IngestRow(entry.file, entry.ue, "known", reason="taken in before the last run stopped"))
        else:
            faces = sum(photo.faces or 0 for photo in entry.photos)
            self.rows.append(IngestRow(entry.file, entry.ue, "kept", photos=len(entry.photos), faces=faces))

    def _job(self, capture: Capture, file: str) -> Iterator[Job]:
        """The job for a file, unless the folder or the journal has it."""
        try:
            source = self.uploaded.path_of(file)
            digest = sha256_of(source)
        except OSError as error:
            self.rows.append(refusal_row(file, capture.ue, f"{file} cannot be read ({error}); copy or upload it again"))
            return
        if digest_in(digest) in self.known:
            self.rows.append(IngestRow(file, capture.ue, "known", reason="the same file is in the folder already"))
            return
        self.known.add(digest_in(digest))
        done = self.done.get(digest)
        if done is not None and all((self.root / photo.file).is_file() for photo in done.photos):
            self._keep(done, earlier=True)
            return
        upload = Upload(source, digest, capture=capture, root=self.root, faces=self.faces)
        function, limits = (take_photo, PHOTO_LIMITS) if capture.photos else (take_clip, CLIP_LIMITS)
        yield Job(function, (upload,), about=file, limits=limits)
