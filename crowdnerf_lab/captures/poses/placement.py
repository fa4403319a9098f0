"""Models of structure from motion, each in a frame of its own, put into one world; or left out, with the reason."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float

from crowdnerf_lab.captures.bundle import Pose
from crowdnerf_lab.captures.poses.georegistration import Similarity, georegistered
from crowdnerf_lab.captures.poses.motion import Motion, MotionError
from crowdnerf_lab.captures.poses.report import Align
from crowdnerf_lab.captures.poses.world_fit import Whereabouts, fit_to_reports, upright

FEWEST_POINTS = 15
"""A pose that rests on fewer points is taken for wrong. Of the concert's, two such erred by 0.6 and 13 m."""
MERGED_SCALE = 0.3
"""A smaller model joins the world of the largest if its scale is known better than this share of it,"""
MERGED_TURN = math.radians(10)
"""and its direction better than this; else it would stand beside what it shows."""


@dataclass(frozen=True)
class Placed:
    """A model in the world. number: its place among all, 0 the largest; errors: see `WorldFit`, NaN if not fitted."""

    motion: Motion
    number: int
    scale_error: float = math.nan
    turn_error: float = math.nan


@dataclass(frozen=True)
class Unplaced:
    """A model that stays outside. problem: why."""

    motion: Motion
    number: int
    problem: str


def placed_in_world(
    motion: Motion, *, align: Align, reports: Sequence[Whereabouts], truths: Sequence[Pose | None]
) -> tuple[Placed | Unplaced, ...]:
    """The largest model, then those apart from it, fitted one by one to what `align` says. reports, truths: of all
    shots; 'none' keeps the largest alone, upright, its cameras at distances of 1 from their middle in the mean.

    Raises MotionError when the largest cannot be placed.
    """
    found: list[Placed | Unplaced] = [_placed(motion, 0, align=align, reports=reports, truths=truths)]
    for number, other in enumerate(motion.apart, start=1):
        try:
            if align == "none":
                raise MotionError("without positions nothing tells where they belong")
            placed = _placed(other, number, align=align, reports=reports, truths=truths)
            _check_certain(placed)
            found.append(placed)
        except MotionError as error:
            alone = f"one of {len(other.rows)} photos that share too little with the others: {error}"
            found.append(Unplaced(other, number, alone))
    return tuple(found)


def _placed(
    motion: Motion, number: int, *, align: Align, reports: Sequence[Whereabouts], truths: Sequence[Pose | None]
) -> Placed:
    if align == "truth":
        return Placed(georegistered(motion, [truths[row] for row in motion.rows.tolist()]), number)
    trusted = motion.seen >= FEWEST_POINTS
    poses = motion.cameras.camera_to_world[trusted].numpy()
    if align == "none":
        return Placed(moved(motion, _own_frame(poses)), number)
    fit = fit_to_reports(poses, [reports[row] for row in motion.rows[trusted].tolist()])
    return Placed(moved(motion, fit.similarity), number, scale_error=fit.scale_error, turn_error=fit.turn_error)


def moved(motion: Motion, similarity: Similarity) -> Motion:
    """Cameras and points carried into another frame."""
    cameras = replace(motion.cameras, camera_to_world=similarity.of_poses(motion.cameras.camera_to_world))
    return replace(motion, cameras=cameras, points=similarity.of_points(motion.points))


def _own_frame(poses: Float[np.ndarray, "n 3 4"]) -> Similarity:
    """Upright, as the phones were held, the cameras around the origin."""
    rotation = upright(poses[:, :, :3].astype(float))
    centres = poses[:, :, 3] @ rotation.T
    middle = centres.mean(axis=0)
    scale = 1 / max(float(np.linalg.norm(centres - middle, axis=1).mean()), 1e-9)
    return Similarity(scale, torch.from_numpy(rotation), torch.from_numpy(-scale * middle))


def _check_certain(placed: Placed) -> None:
    if placed.scale_error > MERGED_SCALE or placed.turn_error > MERGED_TURN:
        raise MotionError(
            f"their positions tell the scale to {100 * placed.scale_error:.0f} % and the direction to "
            f"{math.degrees(placed.turn_error):.0f} degrees only; add photos that show both parts"
        )
