"""A baked field that needs no training: a ball of colours, and forms of it with every kind of brick and of texel."""

from dataclasses import replace

import numpy as np
import torch

from crowdnerf_lab.fields.baked import BakedField
from crowdnerf_lab.fields.baking import bake
from crowdnerf_lab.fields.sh_grid import SHGrid, SHGridShape
from crowdnerf_lab.scene import Bounds


def ball(*, radius: float = 0.2, steps: int = 96) -> BakedField:
    """A ball of colours around (0.1, 0, 0) m; radius: in the contracted cube, where 0.25 reaches the box's faces."""
    generator = torch.Generator().manual_seed(0)
    shape = SHGridShape(resolutions=(8, 16, 32, 64), log2_rows=12, occupancy_cells=16, steps=steps)
    grid = SHGrid(Bounds(centre=torch.tensor([0.1, 0.0, 0.0]), half_size=torch.tensor([2.0, 1.8, 2.2])), shape=shape)
    grid.table.data[:, :13] = 0.6 * torch.randn(grid.table.shape[0], 13, generator=generator)
    grid.table.data[: 1 << 12, 0] += 2.0
    side = (torch.arange(16) + 0.5) / 16
    unit = torch.stack(torch.meshgrid(side, side, side, indexing="ij"), dim=-1)
    inside = ((unit - 0.5).norm(dim=-1) < radius).float()
    grid.density_of_cell.copy_(inside * 10)
    grid.occupied.copy_(inside > 0)
    return bake(grid)


def thinned(field: BakedField) -> BakedField:
    """Only two dozen rows of the two finest levels stay, so that bricks of all kinds occur."""
    kept = np.unpackbits(field.kept).astype(bool)
    numbers = np.flatnonzero(kept)
    levels = numbers // field.rows
    stay = (levels < 2) | (np.arange(len(numbers)) % 97 == 0)
    return replace(field, values=np.where(stay[:, None], field.values, 0))


def degree_0(field: BakedField) -> BakedField:
    """The same from everywhere."""
    columns = [0, 1, 5, 9]
    return replace(field, values=field.values[:, columns], scales=field.scales[:, columns])
