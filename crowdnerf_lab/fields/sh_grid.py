"""The spherical-harmonic grid: a radiance field without a network, the quickest to a usable picture on a CPU.

Rows of several grid levels add up to a log density and degree-1 SH colours (the explicit lineage of Plenoxels,
Fridovich-Keil et al. 2022, on the multiresolution hash grid of Mueller et al. 2022). Layout and contraction:
`kernels.cpu`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from crowdnerf_lab.fields.grid_field import Composited, GridField, PackedSamples
from crowdnerf_lab.kernels import cpu, ops, reference
from crowdnerf_lab.kernels.row_adam import RowAdam
from crowdnerf_lab.rays import Rays
from crowdnerf_lab.scene import Bounds


@dataclass(frozen=True)
class SHGridShape:
    """Sizes of an SH grid; what is not said here is in GridShape.

    log2_rows: rows of a level's table; levels that need more share rows by hashing.
    roulette: how much of the small gradients is left out at random when training on CPU, see `ops.composite`.
    """

    resolutions: tuple[int, ...] = (32, 64, 128, 256, 512)
    log2_rows: int = 19
    occupancy_cells: int = 128
    steps: int = 112
    refine: int = 12
    finest: int = 8
    near: float = 0.15
    far: float = 12.0
    roulette: float = 2.0


class SHGrid(GridField):
    """A radiance field of rows [log density, 3 x 4 SH]; see RadianceField and GridField for what it offers."""

    def __init__(self, bounds: Bounds, *, shape: SHGridShape | None = None) -> None:
        shape = shape or SHGridShape()
        super().__init__(bounds, shape)
        self.shape = shape
        # numpy asks the kernel for huge pages, which halve the cost of random rows.
        table = np.zeros((len(shape.resolutions) << shape.log2_rows, cpu.ROW), np.float32)
        self.table = nn.Parameter(torch.from_numpy(table))

    @property
    def rows(self) -> int:
        """Rows of one level's table."""
        return 1 << self.shape.log2_rows

    def optimizers(self, rate: float) -> tuple[torch.optim.Optimizer, ...]:
        """Adam for the table's rows and for the background."""
        return RowAdam([self.table], rate=rate), torch.optim.Adam([self.background], lr=rate, betas=(0.9, 0.99))

    def density(self, positions: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n"]:
        """Volume density per metre at world positions. Differentiable in the table and in the positions."""
        return reference.density_of(self._rows_at(positions)) * self.density_scale

    def forward(
        self, positions: Float[Tensor, "*n 3"], directions: Float[Tensor, "*n 3"]
    ) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n 3"]]:
        """Density per metre and neutral sRGB colour at world positions seen along unit directions."""
        rows = self._rows_at(positions)
        return reference.density_of(rows) * self.density_scale, reference.colour_of(rows, directions)

    def _rows_at(self, positions: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 16"]:
        unit = reference.contracted(positions.reshape(-1, 3), self.centre, self.half_size)
        rows = reference.look_up(self.table, self.rows, self.shape.resolutions, unit)
        return rows.reshape(*positions.shape[:-1], cpu.ROW)

    def relative_density(self, unit: Float[Tensor, "n 3"], *, levels: int) -> Float[Tensor, "n"]:
        """exp(log density), in units of `density_scale`, at positions of the unit cube, from the first `levels`
        levels. On CPU not differentiable."""
        resolutions = self.shape.resolutions[:levels]
        if self.table.device.type != "cpu":
            return reference.density_of(reference.look_up(self.table, self.rows, resolutions, unit))
        found = np.empty(len(unit), np.float32)
        table = self.table.detach().numpy()
        cpu.densities(unit.contiguous().numpy(), table, self.rows, np.array(resolutions, np.int64), found)
        return torch.from_numpy(found)

    def composite(self, rays: Rays, samples: PackedSamples, *, levels: int) -> Composited:
        """Render a list of rays over their samples with the first `levels` levels of the grid. Differentiable in the
        table, the background, the samples' positions and the rays' directions."""
        out, density, _ = ops.composite(
            self.table,
            self.rows,
            list(self.shape.resolutions[:levels]),
            rays.directions,
            samples.offsets,
            samples.positions,
            samples.t_mid,
            samples.t_step,
            self.density_scale,
            self.shape.roulette,
        )
        return Composited(rendered=self.over_background(out), distortion=out[:, 5], density=density)
