"""Questions to a student: rays through cells of pseudo views, and what the teacher showed there.

Drawing costs as much as a step of a small student when it is done step by step, so questions are drawn for many steps
at once. Which windows they come from may follow how far the student still is from them (hard rays, R2L, Wang et al.
2022), with the weights that keep the loss's expectation what it is for even draws (importance sampling, Katharopoulos
and Fleuret 2018, Not All Samples Are Created Equal).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from crowdnerf_lab.cameras import Cameras, pixel_grid
from crowdnerf_lab.light_fields.light_field import LightField, cell_rays, rays_through_plane
from crowdnerf_lab.pseudo_views import PseudoViews
from crowdnerf_lab.rays import rays_through
from crowdnerf_lab.rendering import RAYS_AT_ONCE
from crowdnerf_lab.uncertainty import Evidence, MarchedField, uncertainty_of

HARDEST = 4.0
"""Windows further off than so many times the mean count as this hard: some rays cannot be learned."""
TRUST_RAYS = 4
"""Rays along a window's side that tell how far the teacher may be trusted there."""


@dataclass(frozen=True)
class Questions:
    """n parts of pseudo views, each a cell [r = c = 1] or a whole window, with s x s pixels that the teacher rendered.

    origins, directions: rays through the cells' centres. pixels: which of a part's pixels were rendered, counted row by
    row. colour: theirs, sRGB in [0, 1]. window: the one that a part comes from. weight: of a part in the loss.
    """

    origins: Float[Tensor, "n 3 1 1"]
    directions: Float[Tensor, "n 3 r c"]
    pixels: Int[Tensor, "n s s"]
    colour: Float[Tensor, "n 3 s s"]
    window: Int[Tensor, "n"]
    weight: Float[Tensor, "n"]

    def __len__(self) -> int:
        return len(self.window)

    def __getitem__(self, part: slice) -> "Questions":
        values = (self.origins, self.directions, self.pixels, self.colour, self.window, self.weight)
        return Questions(*(value[part] for value in values))

    def in_steps(self, size: int) -> Iterator["Questions"]:
        """One step's questions after the other."""
        for start in range(0, len(self), size):
            yield self[start : start + size]


def answers(student: LightField, questions: Questions) -> Float[Tensor, "n 3 s s"]:
    """What the student shows at the questions' pixels."""
    n, _, rows, columns = questions.directions.shape
    if rows == columns == 1:
        # Cells side by side are one image to 1x1 convolutions, which are quicker on it than on a batch of single cells.
        rays = (part[:, :, 0, 0].T[None, :, None] for part in (questions.origins, questions.directions))
        cell = student.cell
        images = student.from_rays(*rays).reshape(3, cell, n, cell).permute(2, 0, 1, 3)
    else:
        images = student.from_rays(questions.origins, questions.directions)
    index = questions.pixels.reshape(n, 1, -1).expand(n, 3, -1)
    return images.flatten(2).gather(2, index).reshape(n, 3, *questions.pixels.shape[1:])


def ask_cells(
    views: PseudoViews, window: NDArray[np.int64], weight: NDArray[np.float64], *, cell: int, seed: list[int]
) -> Questions:
    """A random cell of each of the windows given.

    Of a cell smaller than the views' blocks, the one that holds the block's rendered pixel is asked.
    """
    generator = np.random.Generator(np.random.Philox(key=seed))
    step, side = views.step, max(1, cell // views.step)
    across = views.images.shape[1] // side
    corner = side * generator.integers(0, across, (len(window), 2))  # (row, column) of blocks
    rows, columns = (corner[:, axis, None] + np.arange(side) for axis in (0, 1))
    blocks = window[:, None, None], rows[:, :, None], columns[:, None, :]
    colour, offsets = views.images[blocks], views.offsets[blocks].astype(np.int64)
    first = step * corner[:, ::-1]  # (u, v) of the pixel at the cell's corner
    if cell < step:
        first = first + offsets[:, 0, 0] // cell * cell
        offsets = offsets % cell
    at_v = min(step, cell) * np.arange(side)[:, None] + offsets[..., 1]
    at_u = min(step, cell) * np.arange(side) + offsets[..., 0]
    cameras = views.cameras
    index = torch.from_numpy(window)
    centre = torch.from_numpy(first + cell / 2).to(cameras.focal)
    plane = (centre - cameras.centre[index]) / cameras.focal[index]
    origins, directions = rays_through_plane(cameras.camera_to_world[index], plane[:, None, None])
    return Questions(
        origins,
        directions,
        torch.from_numpy(cell * at_v + at_u),
        _as_colour(colour),
        index,
        torch.from_numpy(weight).to(torch.float32),
    )


def ask_windows(views: PseudoViews, window: NDArray[np.int64], weight: NDArray[np.float64], *, cell: int) -> Questions:
    """Whole windows: for students whose cells see their neighbours."""
    step, blocks = views.step, views.images.shape[1]
    across = blocks * step // cell
    index = torch.from_numpy(window)
    origins, directions = cell_rays(views.cameras[index], across, across, cell=cell)
    offsets = views.offsets[window].astype(np.int64)
    at_v = step * np.arange(blocks)[:, None] + offsets[..., 1]
    at_u = step * np.arange(blocks) + offsets[..., 0]
    return Questions(
        origins,
        directions,
        torch.from_numpy(cell * across * at_v + at_u),
        _as_colour(views.images[window]),
        index,
        torch.from_numpy(weight).to(torch.float32),
    )


@torch.no_grad()
def trust_in_windows(teacher: MarchedField, evidence: Evidence, windows: Cameras) -> Float[Tensor, "n"]:
    """Weights of windows, of mean 1, that fall with the squared error expected of the teacher there.

    1 / (m + variance), m its median: inverse-variance weights (Kendall and Gal 2017) that do not blow up where the
    teacher is sure. The variance is that of TRUST_RAYS x TRUST_RAYS rays, evenly over a window.
    """
    n, side = len(windows), int(windows.width[0])
    pixels = pixel_grid(TRUST_RAYS, TRUST_RAYS) * (side / TRUST_RAYS)
    index = torch.arange(n)[:, None, None].expand(n, TRUST_RAYS, TRUST_RAYS)
    rays = rays_through(windows, index, pixels.expand(n, TRUST_RAYS, TRUST_RAYS, 2)).flattened()
    pieces = [
        uncertainty_of(teacher, evidence, rays[start : start + RAYS_AT_ONCE])[1].error
        for start in range(0, len(rays.near), RAYS_AT_ONCE)
    ]
    variance = torch.cat(pieces).square().reshape(n, -1).mean(1)
    weight = 1 / (variance.median() + variance)
    return weight / weight.mean()


class HardWindows:
    """How far the student is from each window, as a decaying mean, and draws that go where it is far.

    A window is drawn with probability (1 - share) / n + share min(e, HARDEST mean e) / sum, so that no window is drawn
    less than 1 - share times as often as evenly, nor its questions weighted more than 1 / (1 - share) of its trust.
    trust: weights of the windows in the loss, see trust_in_windows; all the same if not given. A share of a half gave
    0.1 dB in equal time.
    """

    def __init__(self, windows: int, share: float, *, trust: Float[Tensor, "n"] | None = None) -> None:
        self.share = share
        self.trust = np.ones(windows) if trust is None else trust.double().numpy()
        self.error = torch.full((windows,), torch.nan)

    def draw(self, count: int, *, seed: list[int]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """`count` windows, and the weights of their questions."""
        generator = np.random.Generator(np.random.Philox(key=seed))
        n = len(self.error)
        known = torch.isfinite(self.error)
        if self.share == 0 or not bool(known.any()):
            window = generator.integers(0, n, count)
            return window, self.trust[window]
        mean = float(self.error[known].mean())
        expected = self.error.nan_to_num(nan=mean).clamp(max=HARDEST * mean).double().numpy() + 1e-12
        probability = (1 - self.share) / n + self.share * expected / expected.sum()
        cumulative = np.cumsum(probability)
        window = np.searchsorted(cumulative, generator.random(count) * cumulative[-1], side="right").clip(max=n - 1)
        return window, self.trust[window] / (n * probability[window])

    def learn(self, window: Int[Tensor, "n"], error: Float[Tensor, "n"]) -> None:
        """Errors that were just seen in windows: half of what is known of a window is its latest error."""
        before = self.error[window]
        self.error[window] = torch.where(torch.isfinite(before), (before + error) / 2, error)


def _as_colour(images: NDArray[np.uint8]) -> Float[Tensor, "n 3 r c"]:
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).to(torch.float32) / 255
