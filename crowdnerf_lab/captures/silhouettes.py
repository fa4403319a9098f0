"""The box of an object that was cut out of its photos: from the alpha of pictures in the NeRF-synthetic convention."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.scene import Bounds, focus_point

VIEWS = 60
"""Most silhouettes looked at, evenly chosen."""
CELLS = 48
"""Cells a side of the grid that is carved."""
ROUNDS = 3
"""Each round carves the box that the last one left, with finer cells."""
AGREEMENT = 0.95
"""A point belongs to the object when so many of the views that see it say so: one bad cut-out does not matter."""
LEAST_SEEN = 0.5
"""A point that fewer views have in their picture is not judged."""
MARGIN = 1.02
"""The box is so much larger than what was found."""


def bounds_of_silhouettes(cameras: Cameras, silhouettes: Sequence[Bool[Tensor, "_ _"]]) -> Bounds | None:
    """The box around the visual hull (Laurentini 1994) of silhouettes, one for each camera: True where the object is.

    None where the silhouettes agree on nothing. Lenses must be ideal.
    """
    chosen = torch.linspace(0, len(cameras) - 1, min(VIEWS, len(cameras))).round().long()
    views, masks = cameras[chosen], [silhouettes[int(i)] for i in chosen]
    middle = focus_point(views)
    reach = torch.linalg.vector_norm(views.positions - middle, dim=-1).max()
    low, high = middle - reach, middle + reach
    for _ in range(ROUNDS):
        points = _cell_centres(low, high)
        cell = (high - low) / CELLS
        # Widened by half a cell's diagonal, so that rods thinner than a cell are not missed between its centres.
        wider = _widened(masks, views, float(torch.linalg.vector_norm(cell)) / 2, middle)
        inside = points[_carved(points, views, wider)]
        if len(inside) == 0:
            return None
        low, high = inside.amin(0) - cell / 2, inside.amax(0) + cell / 2
    return Bounds(centre=(low + high) / 2, half_size=MARGIN * (high - low) / 2, closed=True)


def _cell_centres(low: Float[Tensor, "3"], high: Float[Tensor, "3"]) -> Float[Tensor, "n 3"]:
    steps = (torch.arange(CELLS) + 0.5) / CELLS
    return low + (high - low) * torch.cartesian_prod(steps, steps, steps)


def _widened(
    masks: Sequence[Bool[Tensor, "_ _"]], views: Cameras, width: float, middle: Float[Tensor, "3"]
) -> list[Bool[Tensor, "_ _"]]:
    """Silhouettes grown by what `width` measures in the picture, in the middle of the scene."""
    wider = []
    for i, mask in enumerate(masks):
        distance = torch.linalg.vector_norm(views.positions[i] - middle)
        pixels = min(math.ceil(width * float(views.focal[i].max() / distance.clamp(min=1e-6))), max(mask.shape))
        planes = mask[None, None].to(torch.float32)
        for kernel in ((2 * pixels + 1, 1), (1, 2 * pixels + 1)):
            planes = torch.nn.functional.max_pool2d(planes, kernel, stride=1, padding=(kernel[0] // 2, kernel[1] // 2))
        wider.append(planes[0, 0] > 0)
    return wider


def _carved(points: Float[Tensor, "n 3"], views: Cameras, masks: Sequence[Bool[Tensor, "_ _"]]) -> Bool[Tensor, "n"]:
    """Which points lie within the silhouettes."""
    seen, agreed = torch.zeros(len(points)), torch.zeros(len(points))
    for i, mask in enumerate(masks):
        local = (points - views.positions[i]) @ views.camera_to_world[i, :, :3]
        pixel = local[:, :2] / local[:, 2:].clamp(min=1e-6) * views.focal[i] + views.centre[i]
        height, width = mask.shape
        column, row = pixel.floor().nan_to_num().clamp(-1, max(width, height)).long().unbind(-1)
        within = (local[:, 2] > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        seen += within
        agreed += within & mask[row.clamp(0, height - 1), column.clamp(0, width - 1)]
    return (seen >= LEAST_SEEN * len(masks)) & (agreed >= AGREEMENT * seen)
