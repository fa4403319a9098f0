"""Which cells of the contracted cube are worth sampling: refreshed from the training samples themselves.

Probing every cell costs more than training (the instant-ngp recipe, Mueller et al. 2022, made for a GPU); what rays
meet anyway tells almost everything, and a few random probes bring back cells that rays no longer visit.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from crowdnerf_lab.fields.sh_grid import PackedSamples, SHGrid
from crowdnerf_lab.kernels import cpu, reference


@dataclass(frozen=True)
class OccupancySettings:
    """How the occupancy grid follows the field.

    threshold: exp(log density) below which a cell is skipped (or the grid's mean, if that is lower: a field that is
    still fog keeps its thicker half). Much higher empties the scene for good.
    visit_decay: what a cell keeps of its density when a ray meets it; probe_decay: what all keep at each refresh.
    refresh_every: steps between refreshes; probes: random cells asked at a refresh.
    """

    threshold: float = 0.7
    visit_decay: float = 0.9
    probe_decay: float = 0.94
    refresh_every: int = 16
    probes: int = 6144


@torch.no_grad()
def visit(field: SHGrid, samples: PackedSamples, density: Float[Tensor, "n"], settings: OccupancySettings) -> None:
    """Note the densities exp(log density) that rays just met (-1: behind something opaque, not evaluated)."""
    cells = field.shape.occupancy_cells
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
def refresh(field: SHGrid, *, levels: int, settings: OccupancySettings, generator: np.random.Generator) -> None:
    """Let all cells fade, probe some at random, and decide anew which are occupied."""
    cells = field.shape.occupancy_cells
    cell = generator.integers(0, cells**3, settings.probes)
    corner = np.stack(np.unravel_index(cell, (cells,) * 3), axis=-1)
    positions = ((corner + generator.random((settings.probes, 3))) / cells).astype(np.float32)
    found = _density_at(field, positions, levels)
    flat = field.density_of_cell.view(-1)
    index = torch.from_numpy(cell).to(flat.device)
    flat *= settings.probe_decay
    flat[index] = torch.maximum(flat[index], found)
    field.occupied.copy_(field.density_of_cell > min(settings.threshold, float(flat.mean())))


def _density_at(field: SHGrid, positions: np.ndarray, levels: int) -> Tensor:
    resolutions = field.shape.resolutions[:levels]
    if field.table.device.type == "cpu":
        found = np.empty(len(positions), np.float32)
        cpu.densities(positions, field.table.detach().numpy(), field.rows, np.array(resolutions, np.int64), found)
        return torch.from_numpy(found)
    unit = torch.from_numpy(positions).to(field.table.device)
    return reference.density_of(reference.look_up(field.table, field.rows, resolutions, unit))
