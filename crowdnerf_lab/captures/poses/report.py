"""What calibration found out: photo by photo, and in one line."""

import math
import statistics
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float, UInt8
from torch import Tensor

from crowdnerf_lab.captures.bundle import Coordinates

Poses = Literal["metadata", "truth", "colmap", "given"]
Align = Literal["metadata", "truth", "none"]


@dataclass(frozen=True)
class CalibrationRow:
    """One photo. position_error (m) and rotation_error (radians) against the truth; NaN where either is unknown.

    problem: why the photo has no pose; empty when it was registered. reprojection_px: mean distance from where its
    points were seen to where they project; points: how many of the scene's it saw. component: number of the model it
    was posed in, 0 the largest, None in none. gps_residual_m, heading_residual (radians in (-pi, pi]): the pose minus
    what the phone reports; NaN where it reports nothing.
    """

    ue: str
    photo: str
    registered: bool
    position_error: float
    rotation_error: float
    problem: str
    reprojection_px: float = math.nan
    points: int = 0
    component: int | None = None
    gps_residual_m: float = math.nan
    heading_residual: float = math.nan


@dataclass(frozen=True)
class CalibrationReport:
    """How the poses of one event were found. rows: every photo, in the captures' order.

    points, colours: the scene points that structure from motion rests on (metres, sRGB bytes), in the scene's frame;
    none for other poses. reprojection_px: their mean error, NaN without points. seconds: wall clock. coordinates: what
    the poses stand in. pairs: how many pairs of photos were compared. scale_error (share of the scale), turn_error
    (radians): how well phones' reports settle the frame, one standard deviation; NaN where it was not fitted to them.
    """

    poses: Poses
    align: Align
    rows: tuple[CalibrationRow, ...]
    points: Float[Tensor, "m 3"]
    colours: UInt8[Tensor, "m 3"]
    reprojection_px: float
    seconds: float
    coordinates: Coordinates = "enu"
    pairs: int = 0
    scale_error: float = math.nan
    turn_error: float = math.nan

    @property
    def registered(self) -> tuple[str, ...]:
        """The photos that have a pose."""
        return tuple(row.photo for row in self.rows if row.registered)

    @property
    def unregistered(self) -> tuple[str, ...]:
        """The photos that have none."""
        return tuple(row.photo for row in self.rows if not row.registered)

    @property
    def components(self) -> tuple[int, ...]:
        """Photos in each model of structure from motion, the largest first, placed in the world or not."""
        numbers = [row.component for row in self.rows if row.component is not None]
        return tuple(numbers.count(number) for number in sorted(set(numbers)))

    @property
    def median_position_error(self) -> float:
        """Metres; NaN when no truth is known."""
        return _median([row.position_error for row in self.rows])

    @property
    def median_rotation_error(self) -> float:
        """Radians; NaN when no truth is known."""
        return _median([row.rotation_error for row in self.rows])

    @property
    def median_gps_residual(self) -> float:
        """Metres between poses and what phones report; NaN when they report nothing."""
        return _median([row.gps_residual_m for row in self.rows])

    def summary(self) -> str:
        """One line: how many photos were posed, how well, how fast."""
        words = [f"{len(self.registered)} of {len(self.rows)} photos posed by {self.poses}"]
        if len(self.components) > 1:
            words.append(f"in {len(self.components)} parts that share no points")
        if len(self.points):
            words.append(f"{len(self.points)} points at {self.reprojection_px:.2f} px")
        if math.isfinite(self.median_position_error):
            degrees = math.degrees(self.median_rotation_error)
            words.append(f"median error {self.median_position_error:.2f} m and {degrees:.2f} degrees")
        elif math.isfinite(self.median_gps_residual) and self.poses != "metadata":
            words.append(f"median {self.median_gps_residual:.1f} m from where GPS says")
        return ", ".join([*words, f"{self.seconds:.1f} s"])


def _median(errors: list[float]) -> float:
    known = [error for error in errors if not math.isnan(error)]
    return statistics.median(known) if known else math.nan
