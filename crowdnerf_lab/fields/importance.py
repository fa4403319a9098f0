"""How much every number of an SH grid matters to the pictures that UEs will look at.

Letters: C_p is a colour channel of pixel p, theta_i a number of the table, w_j the weight of sample j in its pixel
(Mildenhall et al. 2020, eq. 3). A change delta of the table changes the squared error of the pictures by
sum_i E_i delta_i^2 with E_i = sum_p (dC_p / dtheta_i)^2, when the changes are independent: the diagonal of the
Gauss-Newton matrix, by which Optimal Brain Damage (LeCun et al. 1990) prunes the weights of networks and PUP 3D-GS
(Hanson et al. 2024) the splats of radiance fields. The diagonal comes from products with random signs (Hutchinson 1989;
Bekas et al. 2007): for signs s_p the gradient of sum_p s_p C_p, squared, is E_i on average.
"""

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.fields.grid_field import PackedSamples
from crowdnerf_lab.fields.sh_grid import SHGrid
from crowdnerf_lab.kernels import cpu, ops, reference
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
    batches: int = 64
    rays: int = 4096


@dataclass(frozen=True)
class Importance:
    """of_rows [levels * rows, 13]: E, summed over pixels. of_cells [cells, cells, cells]: how much each
    cell of the occupancy grid gives to pixels, squared and summed, see `_cell_weights`. pixels: how many were asked."""

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
    if field.table.device.type != "cpu":
        field = copy.deepcopy(field).cpu()  # sparse gradients of rows come from the CPU's kernels alone
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
        of_cells += _cell_weights(field, rays, samples, weights)
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


def _cell_weights(field: SHGrid, rays: Rays, samples: PackedSamples, weights: np.ndarray) -> np.ndarray:
    """The sum over pixels of w^2 for every cell [cells^3], w being what the cell's samples give the pixel; and the same
    for what steps give whose middle lies in the cell: were it empty, `march` would skip them whole."""
    cells = field.shape.occupancy_cells
    found = np.zeros(cells**3, np.float32)
    if not len(samples):
        return found
    ray = np.repeat(np.arange(len(rays.near)), np.diff(samples.offsets.numpy()))
    ratio = math.log(field.shape.far / field.shape.near) / field.shape.steps
    step = np.floor(np.log(samples.t_mid.numpy() / field.near) / ratio - 0.5)
    cell = _cell_of(samples.positions, cells)
    for part in (cell, step):
        first = np.flatnonzero(np.diff(ray, prepend=-1) | (np.diff(part, prepend=-1) != 0))
        weight = np.add.reduceat(weights, first)
        at = cell[first] if part is cell else _middle_cells(field, rays, ray[first], step[first], ratio)
        found += np.bincount(at, weight**2, len(found)).astype(np.float32)
    return found


def _middle_cells(field: SHGrid, rays: Rays, ray: np.ndarray, step: np.ndarray, ratio: float) -> np.ndarray:
    """Cells in which the middles of marching steps lie."""
    starts = field.near * np.exp((step + 0.5) * ratio)
    middle = torch.from_numpy((starts * (1 + math.exp(ratio)) / 2).astype(np.float32))[:, None]
    world = rays.origins[ray] + middle * rays.directions[ray]
    return _cell_of(reference.contracted(world, field.centre, field.half_size), field.shape.occupancy_cells)


def _cell_of(unit: Float[Tensor, "n 3"], cells: int) -> np.ndarray:
    """Number of the occupancy cell at positions of the unit cube."""
    x, y, z = (unit.numpy() * np.float32(cells)).astype(np.int64).clip(0, cells - 1).T
    return (x * cells + y) * cells + z
