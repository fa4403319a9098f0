"""Cameras of pictures that are stored on their side: other tools calibrate the pixels as stored, ours are upright.

EXIF's orientation says how the stored picture must be turned: 3 by half a turn, 6 a quarter clockwise, 8 a quarter
counterclockwise. The others mirror it, which no camera does.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from crowdnerf_lab.captures.formats.lens import Lens

UPRIGHT = 1
_TURNS: dict[int, tuple[tuple[int, int], tuple[int, int]]] = {
    3: ((-1, 0), (0, -1)),
    6: ((0, -1), (1, 0)),
    8: ((0, 1), (-1, 0)),
}
"""New x and y as sums of the stored x and y."""


def can_be_turned(orientation: int) -> bool:
    """Whether a picture of this orientation is a turned one, and not mirrored."""
    return orientation in _TURNS


def turned(
    camera_to_world: Float[Tensor, "3 4"], lens: Lens, *, orientation: int, size: tuple[float, float]
) -> tuple[Float[Tensor, "3 4"], Lens]:
    """The camera of the upright picture from that of the stored one. size: the width and height that the lens is for.

    Axes, principal point and the tangential vector (p2, p1) turn alike; radial terms stay.
    """
    (xx, xy), (yx, yy) = _TURNS[orientation]
    right, down, forward, position = camera_to_world.unbind(-1)
    pose = torch.stack([xx * right + xy * down, yx * right + yy * down, forward, position], dim=-1)
    width, height = size
    cx, cy = lens.centre_px or (width / 2, height / 2)
    # About the middle of the picture, where turning moves nothing.
    off_x, off_y = cx - width / 2, cy - height / 2
    (fx, fy), (k1, k2, p1, p2) = lens.focal_px, lens.distortion
    swapped = xx == 0
    width, height = (height, width) if swapped else (width, height)
    return pose, replace(
        lens,
        focal_px=(fy, fx) if swapped else (fx, fy),
        centre_px=(width / 2 + xx * off_x + xy * off_y, height / 2 + yx * off_x + yy * off_y),
        size=(width, height),
        distortion=(k1, k2, yx * p2 + yy * p1, xx * p2 + xy * p1),
    )
