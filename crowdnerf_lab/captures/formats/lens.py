"""What another tool found of a lens."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Lens:
    """Intrinsics in pixels of a picture of `size` (width, height); k1, k2, p1, p2 as in OpenCV.

    size None: of the picture as it was found. centre_px None: its middle.
    """

    focal_px: tuple[float, float]
    centre_px: tuple[float, float] | None = None
    size: tuple[float, float] | None = None
    distortion: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
