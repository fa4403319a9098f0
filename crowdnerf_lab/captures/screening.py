"""First screening: which photos are worth posing and training on, with the reason for each that is not.

Each photo is measured by itself, in as many processes as are given; the measures are then compared, within a UE and
across the crowd (see `screening_checks`). A simulation's truth is never looked at. What only the poses can show comes
after calibration (see `consistency`).
"""

import logging
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import torch
from tqdm.auto import tqdm

from crowdnerf_lab.captures.bundle import Capture, CaptureSet, Photo
from crowdnerf_lab.captures.photo_measures import PhotoMeasures, measure_one
from crowdnerf_lab.captures.photos import PhotoError
from crowdnerf_lab.captures.screening_checks import USUAL_LIMITS, Candidate, ScreeningLimits, compared
from crowdnerf_lab.captures.screening_report import Check, ScreeningReport, ScreeningRow
from crowdnerf_lab.captures.whereabouts import angles_to_focus

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
    listed = [(capture, photo) for capture in captures.captures for photo in capture.photos]
    for capture, photo in listed:
        path = captures.path_of(photo.file)
        problem = "" if capture.consent.train else f"{capture.ue} does not consent to training"
        rows.append(fact(capture, photo, path=path, check="consent", problem=problem))
        if problem:
            continue
        measured = measures.get(photo.file, f"{path} was not measured; measure it, or drop its entry")
        problem = measured if isinstance(measured, str) else _wrong_size(photo, path, measured)
        rows.append(fact(capture, photo, path=path, check="readable", problem=problem))
        if not isinstance(measured, str) and not problem:
            candidates.append(Candidate(capture.ue, path=path, photo=photo, measures=measured))
    judged, _ = compared(candidates, limits, coordinates=captures.coordinates)
    rows += judged
    order = {photo.file: index for index, (_, photo) in enumerate(listed)}
    return ScreeningReport(rows=tuple(sorted(rows, key=lambda row: order[row.photo])))


def fact(capture: Capture, photo: Photo, *, path: Path, check: Check, problem: str) -> ScreeningRow:
    """A check that is passed or not, without a yardstick; problem: what is wrong, empty when it is passed."""
    return ScreeningRow(
        ue=capture.ue,
        photo=photo.file,
        path=path,
        check=check,
        kept=not problem,
        reason=problem,
        measured=0.0 if problem else 1.0,
        threshold=1.0,
    )


def _wrong_size(photo: Photo, path: Path, measures: PhotoMeasures) -> str:
    if (measures.width, measures.height) == (photo.width, photo.height):
        return ""
    seen = f"{path} is {measures.width}x{measures.height}"
    return f"{seen}, its manifest says {photo.width}x{photo.height}; correct the manifest"


def _measures_of(paths: Sequence[Path], *, workers: int) -> Iterator[Measured]:
    """The measures of pictures, in their order, as they come; no more than a picture a process is in memory."""
    if workers == 1 or len(paths) <= workers:
        yield from map(_measured, paths)
        return
    with ExitStack() as stack:
        pool = stack.enter_context(
            ProcessPoolExecutor(
                workers, multiprocessing.get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
            )
        )
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        yield from pool.map(_measured, paths, chunksize=4)


def _measured(path: Path) -> Measured:
    try:
        return measure_one(path)
    except PhotoError as error:
        return str(error)
