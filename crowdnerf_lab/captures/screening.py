"""First screening: which photos are worth posing and training on, with the reason for each that is not.

A photo is judged against the other photos of its own UE, so that a phone that is bright, soft or misplaced as a whole
is not punished for it; a photo that is alone is judged against the crowd, with a wider allowance. The checks come one
after the other, and what fails one is no yardstick for the next. A simulation's truth is never looked at.
"""

import logging
import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from crowdnerf_lab.cameras import pinhole
from crowdnerf_lab.captures.bundle import CaptureSet, Photo, ReportedPose
from crowdnerf_lab.captures.photo_quality import PhotoQuality, measure_photo
from crowdnerf_lab.captures.photos import PhotoError, read_photo
from crowdnerf_lab.scene import focus_point

logger = logging.getLogger(__name__)

Check = Literal["consent", "readable", "direction", "dark", "over", "blur"]
FOCUS_ROUNDS = 10
"""Rounds after which the search for the crowd's focus stops; it settles in three or four."""
GAUSSIAN_FROM_MEDIAN = 1.4826
"""Standard deviation of a Gaussian over its median absolute deviation."""
CROWD = 5
"""Fewest photos that a lone photo is judged by."""


@dataclass(frozen=True)
class ScreeningLimits:
    """How far a photo may fall behind the other photos of its UE.

    turned: radians further from where the crowd looks. dark: stops less in the highlights. clipped: more of the picture
    clipped, as a fraction. soft: stops less sharpness. crowd_deviations: a lone photo may fall this many robust
    standard deviations behind the crowd, if that is more. faces_focus: the crowd has a focus if half of it looks
    within this angle of it, radians.
    """

    turned: float = math.radians(20)
    dark: float = 2.0
    clipped: float = 0.08
    soft: float = 1.0
    crowd_deviations: float = 4.0
    faces_focus: float = math.radians(45)


@dataclass(frozen=True)
class ScreeningRow:
    """One check of one photo. kept: whether it passed this check; measured and threshold are in the check's unit.

    direction: angle to where the crowd looks, radians, at most the threshold; dark: highlights in stops, at least;
    over: fraction clipped, at most; blur: sharpness in stops, at least; consent and readable: 1 or 0, at least 1.
    NaN stands where there was nothing to measure or to compare with.
    """

    ue: str
    photo: str
    path: Path
    check: Check
    kept: bool
    reason: str
    measured: float
    threshold: float


@dataclass(frozen=True)
class ScreeningReport:
    """Every check of every photo, in the order of the photos."""

    rows: tuple[ScreeningRow, ...]

    @property
    def rejected(self) -> tuple[ScreeningRow, ...]:
        """The first check that each rejected photo failed, one row a photo."""
        first: dict[str, ScreeningRow] = {}
        for row in self.rows:
            if not row.kept:
                first.setdefault(row.photo, row)
        return tuple(first.values())

    @property
    def kept(self) -> tuple[str, ...]:
        """The photos that passed every check."""
        rejected = {row.photo for row in self.rejected}
        return tuple(dict.fromkeys(row.photo for row in self.rows if row.photo not in rejected))

    def summary(self) -> str:
        """One line: how many photos were kept, and how many were rejected for what."""
        checks = [row.check for row in self.rejected]
        counts = ", ".join(f"{checks.count(check)} {check}" for check in dict.fromkeys(checks))
        return f"kept {len(self.kept)} of {len(self.kept) + len(checks)} photos" + (
            f", rejected {counts}" if counts else ""
        )


def screen(
    captures: CaptureSet, *, limits: ScreeningLimits = ScreeningLimits(), progress: bool = True
) -> tuple[CaptureSet, ScreeningReport]:
    """The captures without the photos that must not or should not be used, and the measurements behind it.

    Rejected are photos without consent to train on, unreadable ones, and those that look away, are dark, over-exposed
    or blurred. A UE left without photos is dropped. No bad photo raises: it becomes a row of the report.
    """
    listed = [(capture, photo) for capture in captures.captures for photo in capture.photos]
    rows: list[ScreeningRow] = []
    candidates: list[_Candidate] = []
    for capture, photo in tqdm(listed, desc="screening", unit="photo", disable=not progress):
        path = captures.path_of(photo.file)
        problem = "" if capture.consent.train else f"{capture.ue} does not consent to training"
        rows.append(_fact(capture.ue, photo.file, path=path, check="consent", problem=problem))
        if problem:
            continue
        quality, problem = _measured(photo, path)
        rows.append(_fact(capture.ue, photo.file, path=path, check="readable", problem=problem))
        if quality:
            candidates.append(_Candidate(capture.ue, photo.file, path=path, quality=quality, pose=photo.reported))
    rows += _compared(candidates, limits)
    order = {photo.file: index for index, (_, photo) in enumerate(listed)}
    report = ScreeningReport(rows=tuple(sorted(rows, key=lambda row: order[row.photo])))
    logger.info("screening of %s: %s", captures.name, report.summary())
    return captures.keeping(set(report.kept)), report


def angles_to_focus(
    camera_to_world: Float[Tensor, "n 3 4"], *, faces_focus: float = ScreeningLimits.faces_focus
) -> Float[Tensor, "n"] | None:
    """Angle between each viewing direction and where the crowd looks, radians in [0, pi].

    The focus is the point nearest to the optical axes of the cameras that face it, found by leaving out, again and
    again, those that look further than `faces_focus` past it. None when fewer than half of the cameras agree on one.
    """
    cameras = pinhole(camera_to_world, torch.ones(len(camera_to_world)), width=1, height=1)
    facing = torch.ones(len(cameras), dtype=torch.bool)
    angles = torch.zeros(len(cameras))
    for _ in range(FOCUS_ROUNDS):
        towards = torch.nn.functional.normalize(focus_point(cameras[facing]) - cameras.positions, dim=-1)
        angles = torch.arccos((towards * cameras.forward).sum(-1).clamp(-1, 1))
        before, facing = facing, angles < faces_focus
        if int(facing.sum()) < max(2, len(cameras) / 2):
            return None
        if torch.equal(before, facing):
            break
    return angles


@dataclass(frozen=True)
class _Candidate:
    """A readable photo with its measurements."""

    ue: str
    file: str
    path: Path
    quality: PhotoQuality
    pose: ReportedPose | None


@dataclass(frozen=True)
class _Comparison:
    """A check against other photos. values: what was measured on each photo; allowance: how far behind is too far;
    worse: +1 when large values are bad, -1 when small ones are; finding, in_words: what to say of a photo that fails.
    """

    check: Check
    values: Mapping[str, float]
    allowance: float
    worse: int
    finding: str
    in_words: Callable[[float], str]


def _compared(candidates: list[_Candidate], limits: ScreeningLimits) -> list[ScreeningRow]:
    """The checks against other photos, one after the other; what fails one is no yardstick for the next."""
    rows: list[ScreeningRow] = []
    standing = {candidate.file for candidate in candidates}
    for comparison in _comparisons(candidates, limits):
        judged = _judged(candidates, comparison, standing=standing, deviations=limits.crowd_deviations)
        standing -= {row.photo for row in judged if not row.kept}
        rows += judged
    return rows


def _comparisons(candidates: list[_Candidate], limits: ScreeningLimits) -> tuple[_Comparison, ...]:
    quality = {candidate.file: candidate.quality for candidate in candidates}
    return (
        _Comparison(
            check="direction",
            values=_angles(candidates, faces_focus=limits.faces_focus),
            allowance=limits.turned,
            worse=1,
            finding="looks away from the crowd's focus",
            in_words=lambda value: f"{math.degrees(value):.0f} degrees",
        ),
        _Comparison(
            check="dark",
            values={file: measured.highlights for file, measured in quality.items()},
            allowance=limits.dark,
            worse=-1,
            finding="too dark",
            in_words=lambda value: f"highlights at {value:.1f} stops",
        ),
        _Comparison(
            check="over",
            values={file: measured.clipped for file, measured in quality.items()},
            allowance=limits.clipped,
            worse=1,
            finding="over-exposed",
            in_words=lambda value: f"{value:.0%} clipped",
        ),
        _Comparison(
            check="blur",
            values={file: measured.sharpness for file, measured in quality.items()},
            allowance=limits.soft,
            worse=-1,
            finding="blurred",
            in_words=lambda value: f"sharpness {value:.1f} stops",
        ),
    )


def _judged(
    candidates: list[_Candidate], comparison: _Comparison, *, standing: set[str], deviations: float
) -> list[ScreeningRow]:
    """One check of every candidate, against those still standing."""
    values = comparison.values
    yardsticks: dict[str, list[str]] = {}
    for candidate in candidates:
        if candidate.file in standing and candidate.file in values:
            yardsticks.setdefault(candidate.ue, []).append(candidate.file)
    crowd, spread = _centre_and_spread([values[file] for files in yardsticks.values() for file in files])
    crowd_allowance = max(comparison.allowance, deviations * spread)
    rows = []
    for candidate in candidates:
        own = [values[file] for file in yardsticks.get(candidate.ue, ()) if file != candidate.file]
        reference, allowance = (statistics.median(own), comparison.allowance) if own else (crowd, crowd_allowance)
        measured, threshold = values.get(candidate.file, math.nan), reference + comparison.worse * allowance
        kept = not comparison.worse * (measured - threshold) > 0
        whose = f"its UE's other {len(own)}" if own else "the crowd"
        words = f"{comparison.in_words(measured)}; {whose}: {comparison.in_words(reference)}"
        rows.append(
            ScreeningRow(
                ue=candidate.ue,
                photo=candidate.file,
                path=candidate.path,
                check=comparison.check,
                kept=kept,
                reason="" if kept else f"{comparison.finding} ({words})",
                measured=measured,
                threshold=threshold,
            )
        )
    return rows


def _centre_and_spread(values: list[float]) -> tuple[float, float]:
    """Median and robust standard deviation; NaN where there are too few values to judge one of them by."""
    if len(values) < CROWD:
        return math.nan, math.nan
    centre = statistics.median(values)
    return centre, GAUSSIAN_FROM_MEDIAN * statistics.median(abs(value - centre) for value in values)


def _angles(candidates: list[_Candidate], *, faces_focus: float) -> dict[str, float]:
    """Angle to the crowd's focus of the candidates with a reported pose; empty where the crowd has no focus."""
    posed = [(candidate.file, candidate.pose.camera_to_world) for candidate in candidates if candidate.pose]
    if len(posed) < 3:
        return {}
    angles = angles_to_focus(torch.tensor([pose for _, pose in posed]), faces_focus=faces_focus)
    if angles is None:
        return {}
    return dict(zip((file for file, _ in posed), angles.tolist(), strict=True))


def _measured(photo: Photo, path: Path) -> tuple[PhotoQuality | None, str]:
    """A photo's quality, or what keeps it from being read."""
    try:
        picture = read_photo(path)
    except PhotoError as error:
        return None, str(error)
    height, width = picture.shape[:2]
    if (width, height) != (photo.width, photo.height):
        return None, f"{path} is {width}x{height}, its manifest says {photo.width}x{photo.height}; correct the manifest"
    return measure_photo(picture), ""


def _fact(ue: str, file: str, *, path: Path, check: Check, problem: str) -> ScreeningRow:
    """A check that is passed or not, without a yardstick."""
    return ScreeningRow(
        ue=ue,
        photo=file,
        path=path,
        check=check,
        kept=not problem,
        reason=problem,
        measured=0.0 if problem else 1.0,
        threshold=1.0,
    )
