"""Which cells of the contracted cube are worth sampling: refreshed from the training samples themselves.

Probing every cell costs more than training (the instant-ngp recipe, Mueller et al. 2022, made for a GPU); what rays
meet anyway tells almost everything, and a few random probes bring back cells that rays no longer visit.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.fields.grid_field import GridField, PackedSamples
from crowdnerf_lab.kernels import cpu, reference


@dataclass(frozen=True)
class OccupancySettings:
    """How the occupancy grid follows the field.

    threshold: exp(log density) below which a cell is skipped (or the grid's mean, if that is lower: a field that is
    still fog keeps its thicker half). Much higher empties the scene for good.
    visit_decay: what a cell keeps of its density when a ray meets it; probe_decay: what all keep at each refresh.
    refresh_every: steps between refreshes; probes: random cells asked at a refresh.
    witnesses, most_witnesses: share of the training photos, and number, that must have a cell in view for anything to
    be there; what only one phone sees, the field could put right before its lens (the culling of instant-ngp made
    stricter: a crowd always has more witnesses).
    """

    threshold: float = 0.7
    visit_decay: float = 0.9
    probe_decay: float = 0.94
    refresh_every: int = 16
    probes: int = 6144
    witnesses: float = 0.04
    most_witnesses: int = 5


VIEW_CELLS = 64
"""Cells a side at which the cameras' views are counted."""


@torch.no_grad()
def visit(field: GridField, samples: PackedSamples, density: Float[Tensor, "n"], settings: OccupancySettings) -> None:
    """Note the densities exp(log density) that rays just met (-1: behind something opaque, not evaluated)."""
    cells = field.density_of_cell.shape[0]
    if density.device.type == "cpu":
        decay = np.float32(settings.visit_decay)
        cpu.visit(field.density_of_cell.view(-1).numpy(), cells, decay, samples.positions.numpy(), density.numpy())
        return
    x, y, z = (samples.positions * cells).long().unbind(-1)
    index = (x * cells + y) * cells + z
    flat = field.density_of_cell.view(-1)
    flat[index] *= settings.visit_decay
    flat.scatter_reduce_(0, index, density, "amax")


@torch.no_grad()
def refresh(field: GridField, *, levels: int, settings: OccupancySettings, generator: np.random.Generator) -> None:
    """Let all cells fade, probe some at random, and decide anew which are occupied."""
    cells = field.density_of_cell.shape[0]
    cell = generator.integers(0, cells**3, settings.probes)
    corner = np.stack(np.unravel_index(cell, (cells,) * 3), axis=-1)
    positions = ((corner + generator.random((settings.probes, 3))) / cells).astype(np.float32)
    found = field.relative_density(torch.from_numpy(positions).to(field.centre.device), levels=levels)
    flat = field.density_of_cell.view(-1)
    index = torch.from_numpy(cell).to(flat.device)
    flat *= settings.probe_decay
    flat[index] = torch.maximum(flat[index], found)
    field.density_of_cell *= field.in_view
    field.occupied.copy_(field.density_of_cell > min(settings.threshold, float(flat.mean())))


@torch.no_grad()
def keep_to_view(field: GridField, cameras: Cameras, settings: OccupancySettings) -> None:
    """Empty for good the cells that too few of the cameras have in view, beyond the near end of their rays.

    Cells that were out of view before and are not any more begin anew, as those of an untrained field.
    """
    least = min(settings.most_witnesses, max(1, round(settings.witnesses * len(cameras))))
    cells = field.density_of_cell.shape[0]
    coarse = min(cells, VIEW_CELLS)
    middle = (torch.arange(coarse) + 0.5) / coarse
    unit = torch.stack(torch.meshgrid(middle, middle, middle, indexing="ij"), dim=-1).reshape(-1, 3)
    world = reference.uncontracted(unit, field.centre.cpu(), field.half_size.cpu())
    seen = (witnesses(cameras, world, near=field.near) >= least).reshape(coarse, coarse, coarse)
    # Every fine cell gets what the coarse cell around its middle says.
    nearest = ((torch.arange(cells) + 0.5) * coarse / cells).long()
    seen = seen[nearest][:, nearest][:, :, nearest].to(field.in_view.device)
    come_into_view = seen & ~field.in_view
    field.density_of_cell[come_into_view] = 1.0
    field.in_view.copy_(seen)
    field.density_of_cell *= field.in_view
    field.occupied |= come_into_view
    field.occupied &= field.in_view


def witnesses(cameras: Cameras, points: Float[Tensor, "n 3"], *, near: float) -> Int[Tensor, "n"]:
    """How many of the cameras have each world point in their picture, more than `near` metres before them."""
    poses = cameras.camera_to_world.float().cpu()
    seen_by = torch.zeros(len(points), dtype=torch.int32)
    cpu.witnesses(
        points.float().contiguous().numpy(),
        poses[:, :, :3].contiguous().numpy(),
        poses[:, :, 3].contiguous().numpy(),
        cameras.focal.float().cpu().numpy(),
        cameras.centre.float().cpu().numpy(),
        torch.stack([cameras.width, cameras.height], dim=-1).float().cpu().numpy(),
        cameras.distortion.float().cpu().numpy(),
        np.float32(near),
        seen_by.numpy(),
    )
    return seen_by


@torch.no_grad()
def keep_to_box(field: GridField) -> None:
    """Empty for good the cells outside the bounds: they fill the middle half of the cube."""
    cells = field.density_of_cell.shape[0]
    inside = ((torch.arange(cells) + 0.5) / cells - 0.5).abs() < 0.25
    field.in_view &= (inside[:, None, None] & inside[:, None] & inside).to(field.in_view.device)
    field.density_of_cell *= field.in_view
    field.occupied &= field.in_view
