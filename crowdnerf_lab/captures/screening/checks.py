"""The checks that compare photos: what is measured, against whom, and how far behind is too far.

How a photo was made (dark, soft, noisy, turned) is judged against the same UE's others, so that a phone that is bright,
soft or misplaced as a whole is not punished for it; a photo that is alone is judged against the crowd. The more the
others vary, the wider the allowance. What it is, where and when (a drawing, a display, another place) is judged against
the crowd only: a UE may be wrong as a whole. What fails one check is no yardstick for the next.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from crowdnerf_lab.captures.bundle import Coordinates, Photo
from crowdnerf_lab.captures.screening.measures import PhotoMeasures
from crowdnerf_lab.captures.screening.report import LARGE_IS_BAD, Check, ScreeningRow
from crowdnerf_lab.captures.screening.whereabouts import (
    FACES_FOCUS,
    angles_from_focus,
    distances_from_crowd,
    position_of,
    seconds_from_event,
)

GAUSSIAN_FROM_MEDIAN = 1.4826
"""Standard deviation of a Gaussian over its median absolute deviation."""
CROWD = 5
"""Fewest photos, or UEs, that a photo is judged by when it is not judged by its own UE's."""
ACCURACIES = 3.0
"""Times the error that a phone admits to its position which are forgiven it."""


@dataclass(frozen=True)
class ScreeningLimits:
    """How far a photo may fall behind.

    Behind the other photos of its UE. turned: radians further from where the crowd looks. dark: stops less in the
    highlights. clipped: more of the picture clipped, as a fraction. soft: stops less sharpness. noisy: stops more
    noise; below `visible_noise`, a fraction of the full range, it passes.

    Behind the crowd. small: pixels of the shorter side, unless the crowd's are as small. drawn, framed: fraction of the
    picture that is drawn, that are bars. grid_db: dB by which a regular grid stands out. late: seconds from the middle
    of the event. astray: metres from the middle of the crowd, each plus what is usual in this crowd.

    crowd_deviations: behind many others, a photo may fall this many of their robust standard deviations, if that is
    more. faces_focus: the crowd has a focus if half of it looks within this angle of it, radians.
    """

    turned: float = math.radians(20)
    dark: float = 2.0
    clipped: float = 0.08
    soft: float = 1.0
    noisy: float = 1.5
    visible_noise: float = 6 / 255
    small: int = 160
    drawn: float = 0.42
    framed: float = 0.04
    grid_db: float = 12.0
    late: float = 1800.0
    astray: float = 150.0
    crowd_deviations: float = 4.0
    faces_focus: float = FACES_FOCUS


USUAL_LIMITS = ScreeningLimits()


@dataclass(frozen=True)
class Candidate:
    """A photo that is compared with others."""

    ue: str
    path: Path
    photo: Photo

    @property
    def file(self) -> str:
        """The photo's name in its captures."""
        return self.photo.file

    @property
    def source(self) -> tuple[str, str | None]:
        """A phone's photos are one source and each of its clips another: they differ in size, noise and exposure."""
        return self.ue, self.photo.from_clip


@dataclass(frozen=True)
class Comparison:
    """A check against other photos.

    values: what was measured, by photo. allowance: how far behind is too far; deviations: the same in robust standard
    deviations of the others, if there are `CROWD` of them and it is more. by_ue: whether a photo is first judged by the
    others of its own UE and source. harmless: a value up to which nothing fails, whatever the others have. slack: what
    a photo is forgiven beyond that. finding, in_words: what to say of a photo that fails, and how to say a value.
    """

    check: Check
    values: Mapping[str, float]
    allowance: float
    deviations: float
    finding: str
    in_words: Callable[[float], str]
    by_ue: bool = True
    harmless: float = math.nan
    slack: Mapping[str, float] = field(default_factory=dict)


def comparisons_of(
    candidates: Sequence[Candidate],
    measures: Mapping[str, PhotoMeasures],
    *,
    limits: ScreeningLimits,
    coordinates: Coordinates,
) -> tuple[Comparison, ...]:
    """The comparisons of a first screening, in their order. measures: by photo, of every candidate."""
    return (
        *_of_what_it_is(measures, limits),
        *_of_whereabouts(candidates, limits, coordinates),
        *_of_quality(measures, limits),
    )


def compared(candidates: Sequence[Candidate], comparisons: Sequence[Comparison]) -> tuple[list[ScreeningRow], set[str]]:
    """All comparisons of all candidates, one after the other, and the photos that passed every one of them."""
    rows: list[ScreeningRow] = []
    standing = {candidate.file for candidate in candidates}
    for comparison in comparisons:
        judged = judge_by(comparison, candidates, standing=standing)
        standing -= {row.photo for row in judged if not row.kept}
        rows += judged
    return rows, standing


def judge_by(comparison: Comparison, candidates: Sequence[Candidate], *, standing: set[str]) -> list[ScreeningRow]:
    """One check of every candidate, against those still standing."""
    values = comparison.values
    yardsticks: dict[tuple[str, str | None], list[str]] = {}
    for candidate in candidates:
        if candidate.file in standing and candidate.file in values:
            yardsticks.setdefault(_group(candidate, comparison), []).append(candidate.file)
    worse = 1 if comparison.check in LARGE_IS_BAD else -1
    crowd = _centre_and_spread(_crowd_values(comparison, yardsticks))
    rows = []
    for candidate in candidates:
        own = [values[file] for file in yardsticks.get(_group(candidate, comparison), ()) if file != candidate.file]
        by_own = bool(own) and comparison.by_ue
        reference, spread = (statistics.median(own), _centre_and_spread(own)[1]) if by_own else crowd
        threshold = reference + worse * max(comparison.allowance, comparison.deviations * spread)
        # fmax and fmin, unlike max and min, pass over the NaN of an unknown limit.
        threshold = float((np.fmax if worse > 0 else np.fmin)(threshold, comparison.harmless))
        threshold += worse * comparison.slack.get(candidate.file, 0.0)
        measured = values.get(candidate.file, math.nan)
        kept = not worse * (measured - threshold) > 0
        whose = f"its UE's other {len(own)}" if by_own else "the crowd"
        usual = "" if math.isnan(reference) else f"; {whose}: {comparison.in_words(reference)}"
        rows.append(
            ScreeningRow(
                ue=candidate.ue,
                photo=candidate.file,
                path=candidate.path,
                check=comparison.check,
                kept=kept,
                reason="" if kept else f"{comparison.finding} ({comparison.in_words(measured)}{usual})",
                measured=measured,
                threshold=threshold,
            )
        )
    return rows


def _group(candidate: Candidate, comparison: Comparison) -> tuple[str, str | None]:
    """What a photo is part of, as one comparison sees it."""
    return candidate.source if comparison.by_ue else (candidate.ue, None)


def _of_what_it_is(measures: Mapping[str, PhotoMeasures], limits: ScreeningLimits) -> tuple[Comparison, ...]:
    """Is it a photo, and large enough to be of use? An event of drawings has drawings for its yardstick."""
    sides = {file: float(min(found.width, found.height)) for file, found in measures.items()}
    authenticity = {file: found.authenticity for file, found in measures.items()}
    return (
        Comparison(
            check="small",
            values=sides,
            allowance=statistics.median(sides.values()) / 2 if sides else 0.0,
            deviations=0.0,
            finding="too small",
            in_words=lambda value: f"{value:.0f} pixels on the shorter side",
            by_ue=False,
            harmless=float(limits.small),
        ),
        Comparison(
            check="drawn",
            values={file: found.drawn for file, found in authenticity.items()},
            allowance=0.15,
            deviations=limits.crowd_deviations,
            finding="no photo: a screenshot, drawing or blank",
            in_words=lambda value: f"{value:.0%} without a sensor's grain",
            by_ue=False,
            harmless=limits.drawn,
        ),
        Comparison(
            check="framed",
            values={file: found.framed for file, found in authenticity.items()},
            allowance=0.02,
            deviations=limits.crowd_deviations,
            finding="bars at its edges: a screen recording or an edited picture",
            in_words=lambda value: f"{value:.0%} in bars",
            by_ue=False,
            harmless=limits.framed,
        ),
        Comparison(
            check="display",
            values={file: found.grid for file, found in authenticity.items()},
            allowance=3.0,
            deviations=limits.crowd_deviations,
            finding="looks like a photo of a display",
            in_words=lambda value: f"a regular grid {value:.0f} dB above its surroundings",
            by_ue=False,
            harmless=limits.grid_db,
        ),
    )


def _of_whereabouts(
    candidates: Sequence[Candidate], limits: ScreeningLimits, coordinates: Coordinates
) -> tuple[Comparison, ...]:
    """Was it taken there, then, and in that direction?"""
    owners = {item.file: item.ue for item in candidates}
    photos = [item.photo for item in candidates]
    places = {photo.file: place for photo in photos if (place := position_of(photo, coordinates)) is not None}
    return (
        Comparison(
            check="time",
            values=seconds_from_event({photo.file: photo.time_s for photo in photos}, owners),
            allowance=limits.late,
            deviations=limits.crowd_deviations,
            finding="taken at another time",
            in_words=lambda value: f"{_duration(value)} from the middle of the event",
            by_ue=False,
        ),
        Comparison(
            check="place",
            values=distances_from_crowd(places, owners),
            allowance=limits.astray,
            deviations=limits.crowd_deviations,
            finding="taken at another place",
            in_words=lambda value: f"{value:.0f} m from the middle of the crowd",
            by_ue=False,
            slack={photo.file: ACCURACIES * (photo.gps.accuracy_m or 0.0) for photo in photos if photo.gps},
        ),
        Comparison(
            check="direction",
            values=angles_from_focus(photos, faces_focus=limits.faces_focus),
            allowance=limits.turned,
            deviations=limits.crowd_deviations,
            finding="looks away from the crowd's focus",
            in_words=lambda value: f"{math.degrees(value):.0f} degrees",
        ),
    )


def _of_quality(measures: Mapping[str, PhotoMeasures], limits: ScreeningLimits) -> tuple[Comparison, ...]:
    """Is it well exposed, sharp and clean?"""
    quality = {file: found.quality for file, found in measures.items()}
    return (
        Comparison(
            check="dark",
            values={file: found.highlights for file, found in quality.items()},
            allowance=limits.dark,
            deviations=limits.crowd_deviations,
            finding="too dark",
            in_words=lambda value: f"highlights at {value:.1f} stops",
        ),
        Comparison(
            check="over",
            values={file: found.clipped for file, found in quality.items()},
            allowance=limits.clipped,
            deviations=limits.crowd_deviations,
            finding="over-exposed",
            in_words=lambda value: f"{value:.0%} clipped",
        ),
        Comparison(
            check="blur",
            values={file: found.sharpness for file, found in quality.items()},
            allowance=limits.soft,
            deviations=limits.crowd_deviations,
            finding="blurred",
            in_words=lambda value: f"sharpness {value:.1f} stops",
        ),
        Comparison(
            check="noise",
            values={file: found.noise for file, found in quality.items()},
            allowance=limits.noisy,
            deviations=limits.crowd_deviations,
            finding="noisy",
            in_words=lambda value: f"noise of {2**value:.1%} of the full range",
            harmless=math.log2(limits.visible_noise),
        ),
    )


def _crowd_values(comparison: Comparison, yardsticks: Mapping[tuple[str, str | None], Sequence[str]]) -> list[float]:
    """What the crowd is taken to have: one value a UE where UEs are judged as a whole and there are enough of them."""
    values = comparison.values
    if not comparison.by_ue and len(yardsticks) >= CROWD:
        return [statistics.median(values[file] for file in files) for files in yardsticks.values()]
    return [values[file] for files in yardsticks.values() for file in files]


def _centre_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Median and robust standard deviation; NaN where there are too few values to judge one of them by."""
    if len(values) < CROWD:
        return math.nan, math.nan
    centre = statistics.median(values)
    return centre, GAUSSIAN_FROM_MEDIAN * statistics.median(abs(value - centre) for value in values)


def _duration(seconds: float) -> str:
    """Seconds in the unit in which people would say them."""
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
