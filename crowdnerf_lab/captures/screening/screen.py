"""First screening: which photos are worth posing and training on, with the reason for each that is not.

Each photo is measured by itself, in as many processes as are given; the measures are then compared, within a UE and
across the crowd (see `screening_checks`). A simulation's truth is never looked at. What only the poses can show comes
after calibration (see `consistency`).
"""

import logging
import multiprocessing
import pickle
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from tqdm.auto import tqdm

from crowdnerf_lab.captures.bundle import CaptureSet
from crowdnerf_lab.captures.photos import PhotoError
from crowdnerf_lab.captures.screening.checks import (
    USUAL_LIMITS,
    Candidate,
    ScreeningLimits,
    compared,
    comparisons_of,
)
from crowdnerf_lab.captures.screening.copies import better_copies
from crowdnerf_lab.captures.screening.measures import PhotoMeasures, measure_one
from crowdnerf_lab.captures.screening.report import Check, ScreeningReport, ScreeningRow
from crowdnerf_lab.captures.screening.whereabouts import angles_to_focus

__all__ = [
    "Check",
    "PhotoMeasures",
    "ScreeningLimits",
    "ScreeningReport",
    "ScreeningRow",
    "angles_to_focus",
    "judge",
    "measure_one",
    "screen",
]

logger = logging.getLogger(__name__)

Measured = PhotoMeasures | str
"""A photo's measures, or why it could not be read."""


def screen(
    captures: CaptureSet, *, limits: ScreeningLimits = USUAL_LIMITS, workers: int = 1, progress: bool = True
) -> tuple[CaptureSet, ScreeningReport]:
    """The captures without the photos that must not or should not be used, and the measurements behind it.

    Rejected are photos without consent to train on, unreadable ones, those that are no photos of this event (drawings,
    displays, another place or time, copies), and those that look away, are dark, over-exposed, blurred or noisy. A UE
    left without photos is dropped. No bad photo raises: it becomes a row of the report. workers: how many processes
    measure; each holds one picture at a time.
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}; give 1 to measure in this process, or how many processes shall")
    files = [photo.file for capture in captures.captures if capture.consent.train for photo in capture.photos]
    found = _measures_of([captures.path_of(file) for file in files], workers=workers)
    shown = tqdm(found, desc="screening", unit="photo", total=len(files), disable=not progress)
    report = judge(captures, dict(zip(files, shown, strict=True)), limits=limits)
    logger.info("screening of %s: %s", captures.name, report.summary())
    return captures.keeping(set(report.kept)), report


def judge(
    captures: CaptureSet, measures: Mapping[str, Measured], *, limits: ScreeningLimits = USUAL_LIMITS
) -> ScreeningReport:
    """What screening makes of photos that are already measured. No file is opened.

    measures: by the photo's file name, what `measure_one` gave or the words of its error; photos of UEs that do not
    consent to training need none.
    """
    rows: list[ScreeningRow] = []
    candidates: list[Candidate] = []
    readable: dict[str, PhotoMeasures] = {}
    listed = [
        (capture.consent.train, Candidate(capture.ue, path=captures.path_of(photo.file), photo=photo))
        for capture in captures.captures
        for photo in capture.photos
    ]
    for consents, candidate in listed:
        refusal = "" if consents else f"{candidate.ue} does not consent to training"
        rows.append(_fact(candidate, check="consent", problem=refusal))
        if refusal:
            continue
        measured = measures.get(candidate.file, f"{candidate.path} was not measured; measure it, or drop its entry")
        problem = measured if isinstance(measured, str) else _wrong_size(candidate, measured)
        rows.append(_fact(candidate, check="readable", problem=problem))
        if not isinstance(measured, str) and not problem:
            candidates.append(candidate)
            readable[candidate.file] = measured
    comparisons = comparisons_of(candidates, readable, limits=limits, coordinates=captures.coordinates)
    judged, standing = compared(candidates, comparisons)
    rows += [*judged, *_duplicates(candidates, readable, standing)]
    order = {candidate.file: index for index, (_, candidate) in enumerate(listed)}
    return ScreeningReport(rows=tuple(sorted(rows, key=lambda row: order[row.photo])))


def _duplicates(
    candidates: Sequence[Candidate], measures: Mapping[str, PhotoMeasures], standing: Collection[str]
) -> list[ScreeningRow]:
    """Of the photos still standing that show the same picture, whoever sent them, only the best is kept."""
    owners = {candidate.file: candidate.ue for candidate in candidates if candidate.file in standing}
    best = better_copies({file: measures[file].signature for file in owners}, owners)
    return [
        _fact(
            candidate,
            check="duplicate",
            problem=f"the same picture as {best[candidate.file]}" if candidate.file in best else "",
        )
        for candidate in candidates
    ]


def _fact(candidate: Candidate, *, check: Check, problem: str) -> ScreeningRow:
    """A check that is passed or not, without a yardstick; problem: what is wrong, empty when it is passed."""
    return ScreeningRow(
        ue=candidate.ue,
        photo=candidate.file,
        path=candidate.path,
        check=check,
        kept=not problem,
        reason=problem,
        measured=0.0 if problem else 1.0,
        threshold=1.0,
    )


def _wrong_size(candidate: Candidate, measures: PhotoMeasures) -> str:
    photo = candidate.photo
    if (measures.width, measures.height) == (photo.width, photo.height):
        return ""
    seen = f"{candidate.path} is {measures.width}x{measures.height}"
    return f"{seen}, its manifest says {photo.width}x{photo.height}; correct the manifest"


def _measures_of(paths: Sequence[Path], *, workers: int) -> Iterator[Measured]:
    """The measures of pictures, in their order, as they come; no more than a picture a process is in memory."""
    if workers == 1 or len(paths) <= workers:
        yield from map(_measured, paths)
        return
    spawned = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, spawned, initializer=torch.set_num_threads, initargs=(1,))
    try:
        # As bytes: a tensor that is sent by itself keeps a shared file open in both processes.
        yield from map(pickle.loads, pool.map(_measured_and_packed, paths, chunksize=4))
    finally:
        pool.shutdown(cancel_futures=True)


def _measured_and_packed(path: Path) -> bytes:
    return pickle.dumps(_measured(path))


def _measured(path: Path) -> Measured:
    try:
        return measure_one(path)
    except PhotoError as error:
        return str(error)
