"""How much every number of an SH grid matters to the pictures that UEs will look at.

Letters: C_p is a colour channel of pixel p, theta_i a number of the table, w_j the weight of sample j in its pixel
(Mildenhall et al. 2020, eq. 3). A change delta of the table changes the squared error of the pictures by
sum_i E_i delta_i^2 with E_i = sum_p (dC_p / dtheta_i)^2, when the changes are independent: the diagonal of the
Gauss-Newton matrix, which Radiance Field pruning calls sensitivity (Hanson et al. 2024) and weight pruning saliency
(LeCun et al. 1990, Optimal Brain Damage). Its diagonal comes from products with random signs (Hutchinson 1989;
Bekas et al. 2007): for signs s_p the gradient of sum_p s_p C_p, squared, is E_i on average.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.fields.grid_field import PackedSamples
from crowdnerf_lab.fields.sh_grid import SHGrid
from crowdnerf_lab.kernels import cpu, ops
from crowdnerf_lab.pseudo_views import poses_between
from crowdnerf_lab.rays import Rays, rays_through


@dataclass(frozen=True)
class ImportanceSettings:
    """Where UEs look and how many of their pixels are asked.

    poses: cameras, the given ones first and then poses between them. margin, angle: how far those stray, see
    poses_between. batches, rays: random pixels, `rays` a batch; every batch is one sample of the estimate.
    """

    poses: int = 600
    margin: float = 0.1
    angle: float = 0.04
    batches: int = 96
    rays: int = 4096


@dataclass(frozen=True)
class Importance:
    """of_rows [levels * rows, 13]: E, summed over pixels. of_cells [cells, cells, cells]: the sum over pixels of w^2,
    w being what a cell of the occupancy grid adds to the pixel. pixels: how many were asked."""

    of_rows: Float[np.ndarray, "n 13"]
    of_cells: Float[np.ndarray, "c c c"]
    pixels: int


def importance_of(
    field: SHGrid, cameras: Cameras, *, seed: int = 0, settings: ImportanceSettings | None = None
) -> Importance:
    """E of every number of the field's table and the weight of every cell, for pictures from around `cameras`.

    Rows and cells that no pixel met get 0. Deterministic for a seed.
    """
    settings = settings or ImportanceSettings()
    generator = np.random.default_rng(seed)
    eyes = eyes_around(cameras, settings, seed=seed)
    of_rows = np.zeros((len(field.table), cpu.USED), np.float32)
    of_cells = np.zeros(field.density_of_cell.numel(), np.float32)
    for _ in range(settings.batches):
        rays = random_rays(eyes, settings.rays, generator)
        signs = torch.from_numpy(generator.integers(0, 2, (settings.rays, 3)).astype(np.float32) * 2 - 1)
        samples = field.march(rays, jitter=torch.full_like(rays.near, 0.5), steps=field.shape.steps)
        index, gradient, weights = _signed_gradient(field, rays, samples, signs)
        of_rows[index] += gradient[:, : cpu.USED] ** 2
        _add_cell_weights(of_cells, samples, weights, cells=field.shape.occupancy_cells)
    return Importance(of_rows, of_cells.reshape(field.density_of_cell.shape), settings.batches * settings.rays)


def eyes_around(cameras: Cameras, settings: ImportanceSettings, *, seed: int) -> Cameras:
    """The given cameras and others between and around them; a single camera stays alone."""
    if len(cameras) < 2:
        return cameras
    return poses_between(cameras, settings.poses, margin=settings.margin, angle=settings.angle, seed=seed)


def random_rays(cameras: Cameras, count: int, generator: np.random.Generator) -> Rays:
    """Rays through random pixels of random cameras."""
    camera = torch.from_numpy(generator.integers(0, len(cameras), count))
    size = torch.stack([cameras.width, cameras.height], dim=-1)[camera]
    pixels = torch.from_numpy(generator.random((count, 2), np.float32)) * size
    return rays_through(cameras, camera, pixels)


def _signed_gradient(
    field: SHGrid, rays: Rays, samples: PackedSamples, signs: Float[Tensor, "rays 3"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the table that the rays met, the gradient of sum_p s_p C_p by each, and the weights of the samples."""
    table = field.table.detach().requires_grad_()
    out, _, saved = ops.composite(
        table,
        field.rows,
        list(field.shape.resolutions),
        rays.directions,
        samples.offsets,
        samples.positions,
        samples.t_mid,
        samples.t_step,
        field.density_scale,
    )
    by_out = torch.zeros_like(out)
    by_out[:, :3] = signs
    by_out[:, 4] = -(signs @ torch.sigmoid(field.background.detach()))
    (by_table,) = torch.autograd.grad(out, table, by_out)
    return by_table._indices()[0].numpy(), by_table._values().numpy(), saved[:, 0].clamp(min=0).numpy()


def _add_cell_weights(of_cells: np.ndarray, samples: PackedSamples, weights: np.ndarray, *, cells: int) -> None:
    """Add the square of what each pixel gets from each cell: neighbouring samples of a ray in one cell go together."""
    if not len(samples):
        return
    x, y, z = (samples.positions.numpy() * np.float32(cells)).astype(np.int64).T
    cell = (x * cells + y) * cells + z
    first = np.zeros(len(cell), np.bool_)
    first[samples.offsets.numpy()[:-1][np.diff(samples.offsets.numpy()) > 0]] = True
    first[1:] |= cell[1:] != cell[:-1]
    first = np.flatnonzero(first)
    of_cells += np.bincount(cell[first], np.add.reduceat(weights, first) ** 2, len(of_cells)).astype(np.float32)
