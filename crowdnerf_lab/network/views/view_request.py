"""What a UE asks of network inference, one view of an ideal camera, and what may come instead. Needs numpy alone."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from crowdnerf_lab.cameras import Cameras

MAX_PIXELS = 4096 * 4096
ROTATION_TOLERANCE = 1e-3
"""Largest element of R R^T - 1 that is taken for rounding, as in `cameras`."""
FARTHEST = 1e8
"""Metres; no camera stands farther from the scene's origin, and float32 holds what is computed from it."""
FOCAL_LENGTHS = (1e-2, 1e6)
"""Pixels. Beyond them the rays' directions leave float32."""


class ViewError(ValueError):
    """A view that cannot be rendered or shown; the message says why and what to do."""


class Busy(RuntimeError):  # noqa: N818 an answer rather than a mistake
    """The view would come too late. retry_after_s: when it is worth asking again."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NoModel(RuntimeError):  # noqa: N818 as above
    """The event has no published version to render from."""


class RenderError(RuntimeError):
    """A view at which render processes died, or which they refused, for want of memory for example."""


@dataclass(frozen=True)
class ViewRequest:
    """What a UE asks for: the view of an ideal camera (OpenCV axes, metres; focal and principal point in pixels).

    camera_to_world: [3, 4], an array or a tensor.
    """

    camera_to_world: ArrayLike
    focal: tuple[float, float]
    centre: tuple[float, float]
    width: int
    height: int

    @cached_property
    def pose(self) -> NDArray[np.float32]:
        """camera_to_world [3, 4]; not finite where it is not finite in float32 either."""
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(self.camera_to_world, np.float32)

    def check(self, *, most_pixels: int = MAX_PIXELS) -> None:
        """Raise ViewError for a pose, a lens or a size that nobody can render."""
        if self.pose.shape != (3, 4) or not np.isfinite(self.pose).all():
            raise ViewError("the requested pose is not finite or not 3 x 4; send camera-to-world, 3 x 4 finite numbers")
        rotation = self.pose[:, :3].astype(np.float64)
        bounded = np.abs(rotation).max() < 2  # so that the products below cannot overflow
        if not bounded or np.abs(rotation @ rotation.T - np.eye(3)).max() >= ROTATION_TOLERANCE:
            raise ViewError("the first three columns of the pose: its rotation is none; send camera-to-world, 3 x 4")
        if np.linalg.det(rotation) <= 0:
            raise ViewError("the pose mirrors, so its rotation is none; send camera-to-world with OpenCV axes")
        if np.abs(self.pose[:, 3]).max() > FARTHEST:
            raise ViewError(f"the camera stands more than {FARTHEST:g} m away; send metres in the scene's frame")
        if min(self.width, self.height) < 1 or self.width * self.height > most_pixels:
            raise ViewError(f"a view of {self.width} x {self.height} pixels; ask for 1 to {most_pixels} pixels")
        shortest, longest = FOCAL_LENGTHS
        if not np.isfinite([*self.focal, *self.centre]).all() or not all(shortest <= f <= longest for f in self.focal):
            raise ViewError(
                f"focal {self.focal}, centre {self.centre}: give finite pixels, focal above 0 "
                f"({shortest:g} to {longest:g})"
            )
        if max(abs(c) for c in self.centre) > longest:
            raise ViewError(f"a principal point at {self.centre} pixels; give one within {longest:g} pixels")

    def scaled(self, scale: float) -> "ViewRequest":
        """The same view with fewer pixels: width and height times `scale`, rounded, at least one."""
        if scale == 1:
            return self
        width, height = max(1, round(scale * self.width)), max(1, round(scale * self.height))
        across, down = width / self.width, height / self.height
        return replace(
            self,
            focal=(self.focal[0] * across, self.focal[1] * down),
            centre=(self.centre[0] * across, self.centre[1] * down),
            width=width,
            height=height,
        )

    def cameras(self) -> "Cameras":
        """The request as a batch of one camera. Raises ViewError for one that nobody can render."""
        import torch

        from crowdnerf_lab.cameras import Cameras

        self.check()
        return Cameras(
            camera_to_world=torch.from_numpy(self.pose.copy())[None],
            focal=torch.tensor([self.focal]),
            centre=torch.tensor([self.centre]),
            width=torch.tensor([self.width]),
            height=torch.tensor([self.height]),
            distortion=torch.zeros(1, 4),
        )
