"""What structure from motion takes and gives: pictures to be posed, cameras and points in a frame of their own."""

from dataclasses import dataclass

from jaxtyping import Float, Int, UInt8
from torch import Tensor

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.captures.bundle import GivenCamera
from crowdnerf_lab.captures.poses.pair_selection import Sighting

FEWEST = 3
"""Fewer posed photos are no result."""


class MotionError(ValueError):
    """Structure from motion that gave no result; the message says what to try."""


@dataclass(frozen=True)
class Shot:
    """One picture to be posed. Shots of one lens with the same size and intrinsics share a camera.

    focal_px: a first value that is refined, None when nothing is known; centre_px: None is the middle. given: a camera
    another tool found, whose lens is the first value instead. lens: the phone's model; the phone itself when None.
    sighting: where the picture is believed to have been taken from.
    """

    phone: str
    image: UInt8[Tensor, "_ _ 3"]
    focal_px: float | None
    centre_px: tuple[float, float] | None
    given: GivenCamera | None = None
    lens: str | None = None
    sighting: Sighting | None = None

    @property
    def camera_key(self) -> tuple[object, ...]:
        """Equal for the shots that share a camera."""
        given = self.given and (self.given.focal_px, self.given.centre_px, self.given.distortion)
        return self.lens or self.phone, tuple(self.image.shape), self.focal_px, self.centre_px, given


@dataclass(frozen=True)
class Motion:
    """Cameras and scene points in a frame of their own. rows: which shots were posed, ascending; cameras: theirs.

    colours: sRGB bytes of the points; reprojection_px: mean distance from where a point was seen to where it projects,
    errors_px the same for each camera. seen: how many of the points each camera saw. apart: smaller models of other
    shots, which share nothing with this one and have frames of their own. pairs: how many were compared.
    """

    rows: Int[Tensor, "n"]
    cameras: Cameras
    points: Float[Tensor, "m 3"]
    colours: UInt8[Tensor, "m 3"]
    reprojection_px: float
    errors_px: Float[Tensor, "n"]
    seen: Int[Tensor, "n"]
    apart: tuple["Motion", ...] = ()
    pairs: int = 0
