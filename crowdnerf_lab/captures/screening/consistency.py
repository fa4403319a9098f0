"""Screening after calibration: where photos say they were taken, against where the pictures show that they were.

Whoever invents a position (a spoofed GPS, a picture sent under another's place) can be told once the cameras are posed:
the crowd's positions agree with the reconstruction up to the few metres of GPS and one shift of the whole, the invented
ones do not. And some claims cannot be true whatever the pictures show. A phone's bias is shared by all its photos and
usual; so it is the crowd that says how large a deviation may be.
"""

import logging
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from crowdnerf_lab.cameras import rotation_angle
from crowdnerf_lab.captures.bundle import CaptureSet, Photo
from crowdnerf_lab.captures.poses.georegistration import mean_rotation
from crowdnerf_lab.captures.screening.checks import ACCURACIES, Candidate, Comparison, compared
from crowdnerf_lab.captures.screening.report import ScreeningReport
from crowdnerf_lab.captures.screening.whereabouts import middle_of, position_of
from crowdnerf_lab.scene import PosedScene

logger = logging.getLogger(__name__)

SAME_PLACE_M = 0.01
"""Two GPS fixes that are this near are one: the last digit that phones write is finer, their noise a hundred times
coarser."""
USUAL_ACCURACY_M = 5.0
"""Of a phone that does not say how accurate its position is."""
Place = tuple[float, float, float]


@dataclass(frozen=True)
class ConsistencyLimits:
    """Beyond what is usual in the crowd. moved: metres across the ground between the reported and the reconstructed
    position; turned: radians between the attitudes. speed: metres per second, of somebody who runs. sharing: other UEs
    at exactly the same coordinates. frozen: metres moved while the coordinates stayed exactly the same.
    deviations: robust standard deviations of the crowd, if that is more.
    """

    moved: float = 15.0
    turned: float = math.radians(25)
    speed: float = 12.0
    sharing: int = 1
    frozen: float = 15.0
    deviations: float = 4.0


USUAL_LIMITS = ConsistencyLimits()


def screen_poses(
    captures: CaptureSet, scene: PosedScene, *, limits: ConsistencyLimits = USUAL_LIMITS
) -> tuple[CaptureSet, ScreeningReport]:
    """The captures without the photos whose reported place or attitude cannot be true, and every measurement.

    scene: the same captures posed from their pictures, by `calibrate(captures, poses="colmap")`, in the captures' frame
    up to a shift. Photos without a pose in it, or whose phone reported nothing, are judged by what there is.
    """
    posed = {name: scene.cameras.camera_to_world[row] for row, name in enumerate(scene.image_names)}
    candidates = [
        Candidate(capture.ue, path=captures.path_of(photo.file), photo=photo)
        for capture in captures.captures
        for photo in capture.photos
    ]
    places = {
        item.file: place for item in candidates if (place := position_of(item.photo, captures.coordinates)) is not None
    }
    rows, standing = compared(candidates, _comparisons(candidates, places, posed, limits))
    order = {item.file: index for index, item in enumerate(candidates)}
    report = ScreeningReport(rows=tuple(sorted(rows, key=lambda row: order[row.photo])))
    logger.info("poses of %s: %s", captures.name, report.summary())
    return captures.keeping(standing), report


def _comparisons(
    candidates: Sequence[Candidate],
    places: Mapping[str, Place],
    posed: Mapping[str, Float[Tensor, "3 4"]],
    limits: ConsistencyLimits,
) -> tuple[Comparison, ...]:
    owners = {item.file: item.ue for item in candidates}
    photos = [item.photo for item in candidates]
    return (
        Comparison(
            check="copied",
            values={file: float(count) for file, count in _others_at(places, owners).items()},
            allowance=0.0,
            deviations=limits.deviations,
            finding="at exactly the coordinates of other UEs",
            in_words=lambda value: f"{value:.0f} of them",
            by_ue=False,
            harmless=float(limits.sharing),
        ),
        Comparison(
            check="speed",
            values=_speeds(photos, places, owners),
            allowance=0.0,
            deviations=0.0,
            finding="cannot have come from the UE's other photos in time",
            in_words=lambda value: f"{value:.0f} m/s",
            by_ue=False,
            harmless=limits.speed,
        ),
        Comparison(
            check="frozen",
            values=_metres_at_one_place(places, posed, owners),
            allowance=0.0,
            deviations=0.0,
            finding="its coordinates stood still while the UE moved",
            in_words=lambda value: f"{value:.0f} m",
            by_ue=False,
            harmless=limits.frozen,
        ),
        Comparison(
            check="position",
            values=_metres_off(places, posed, owners),
            allowance=limits.moved,
            deviations=limits.deviations,
            finding="not where it says it is",
            in_words=lambda value: f"{value:.0f} m from the reconstruction",
            by_ue=False,
            slack={photo.file: ACCURACIES * (photo.gps.accuracy_m or 0.0) for photo in photos if photo.gps},
        ),
        Comparison(
            check="attitude",
            values=_radians_off(photos, posed),
            allowance=limits.turned,
            deviations=limits.deviations,
            finding="does not look where it says it does",
            in_words=lambda value: f"{math.degrees(value):.0f} degrees from the reconstruction",
            by_ue=False,
        ),
    )


def _others_at(places: Mapping[str, Place], owners: Mapping[str, str]) -> dict[str, int]:
    """How many other UEs were at exactly the same coordinates, by photo."""
    ues_at: dict[tuple[int, int], set[str]] = {}
    for file, place in places.items():
        ues_at.setdefault(_cell(place), set()).add(owners[file])
    return {file: len(ues_at[_cell(place)]) - 1 for file, place in places.items()}


def _speeds(photos: Sequence[Photo], places: Mapping[str, Place], owners: Mapping[str, str]) -> dict[str, float]:
    """How fast the UE must have been between a photo and its others, metres per second at least, by photo.

    Of the speeds to the others it is the lower median: a photo that leaps is far from most of them, they are only far
    from it. What the inaccuracy of both positions explains is taken off, and a second is the shortest time.
    """
    timed = [photo for photo in photos if photo.file in places and photo.time_s != 0]
    speeds: dict[str, list[float]] = {}
    by_owner: dict[str, list[Photo]] = {}
    for photo in timed:
        by_owner.setdefault(owners[photo.file], []).append(photo)
    for own in by_owner.values():
        for a, b in combinations(own, 2):
            apart = math.dist(places[a.file][:2], places[b.file][:2]) - _accuracy(a) - _accuracy(b)
            speed = max(apart, 0.0) / max(abs(a.time_s - b.time_s), 1.0)
            speeds.setdefault(a.file, []).append(speed)
            speeds.setdefault(b.file, []).append(speed)
    return {file: statistics.median_low(values) for file, values in speeds.items()}


def _metres_at_one_place(
    places: Mapping[str, Place], posed: Mapping[str, Float[Tensor, "3 4"]], owners: Mapping[str, str]
) -> dict[str, float]:
    """How far from a photo the UE's others at exactly its coordinates were really taken, by photo: the largest."""
    alike: dict[tuple[str, tuple[int, int]], list[str]] = {}
    for file, place in places.items():
        if file in posed:
            alike.setdefault((owners[file], _cell(place)), []).append(file)
    return {
        file: max(float(torch.dist(posed[file][:2, 3], posed[other][:2, 3])) for other in files)
        for files in alike.values()
        for file in files
    }


def _metres_off(
    places: Mapping[str, Place], posed: Mapping[str, Float[Tensor, "3 4"]], owners: Mapping[str, str]
) -> dict[str, float]:
    """Metres across the ground between the reported and the reconstructed position, less the crowd's common shift."""
    east = {file: place[0] - float(posed[file][0, 3]) for file, place in places.items() if file in posed}
    north = {file: place[1] - float(posed[file][1, 3]) for file, place in places.items() if file in posed}
    if not east:
        return {}
    common = middle_of(east, owners), middle_of(north, owners)
    return {file: math.hypot(east[file] - common[0], north[file] - common[1]) for file in east}


def _radians_off(photos: Sequence[Photo], posed: Mapping[str, Float[Tensor, "3 4"]]) -> dict[str, float]:
    """Angle between the reported and the reconstructed attitude, less the crowd's common turn."""
    known = {
        photo.file: torch.tensor(photo.reported.camera_to_world)[:, :3] @ posed[photo.file][:, :3].T
        for photo in photos
        if photo.reported is not None and photo.file in posed
    }
    if not known:
        return {}
    turns = torch.stack(list(known.values()))
    angles = rotation_angle(turns, mean_rotation(turns).expand_as(turns))
    return dict(zip(known, angles.tolist(), strict=True))


def _cell(place: Place) -> tuple[int, int]:
    return round(place[0] / SAME_PLACE_M), round(place[1] / SAME_PLACE_M)


def _accuracy(photo: Photo) -> float:
    return (photo.gps and photo.gps.accuracy_m) or USUAL_ACCURACY_M
