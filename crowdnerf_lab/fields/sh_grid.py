"""The spherical-harmonic grid: a radiance field without a network, the quickest to a usable picture on a CPU.

Rows of several grid levels add up to a log density and degree-1 SH colours (the explicit lineage of Plenoxels,
Fridovich-Keil et al. 2022, on the multiresolution hash grid of Mueller et al. 2022). Layout and contraction:
`kernels.cpu`.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from crowdnerf_lab.kernels import cpu, ops, reference
from crowdnerf_lab.rays import Rays
from crowdnerf_lab.rendering import Rendered
from crowdnerf_lab.scene import Bounds
from crowdnerf_lab.weights import read_tensors, write_tensors

FORMAT = "crowdnerf_lab.sh_grid/1"


@dataclass(frozen=True)
class SHGridShape:
    """Sizes of an SH grid.

    resolutions: cells a side of each level over the whole contracted cube (even numbers, coarse to fine).
    log2_rows: rows of a level's table; levels that need more share rows by hashing.
    occupancy_cells: cells a side of the occupancy grid.
    steps: marching steps of a whole ray when rendering.
    near, far: where rays begin and end, in units of the scene's radius (mean half size of the bounds).
    """

    resolutions: tuple[int, ...] = (32, 64, 128, 256, 512)
    log2_rows: int = 19
    occupancy_cells: int = 128
    steps: int = 256
    near: float = 0.15
    far: float = 12.0

    def __post_init__(self) -> None:
        if any(resolution % 2 for resolution in self.resolutions):
            raise ValueError(f"grid resolutions must be even, got {self.resolutions}")


class SHGrid(nn.Module):
    """A radiance field of rows [log density, 3 x 4 SH]; see RadianceField for what it offers.

    bounds: the box that gets the middle half of the grid along each axis; the rest of the world is contracted around
    it.
    """

    centre: Tensor
    half_size: Tensor
    density_of_cell: Tensor
    occupied: Tensor

    def __init__(self, bounds: Bounds, *, shape: SHGridShape | None = None) -> None:
        super().__init__()
        self.shape = shape = shape or SHGridShape()
        cells = shape.occupancy_cells
        # numpy asks the kernel for huge pages, which halve the cost of random rows.
        table = np.zeros((len(shape.resolutions) << shape.log2_rows, cpu.ROW), np.float32)
        self.table = nn.Parameter(torch.from_numpy(table))
        self.background = nn.Parameter(torch.zeros(3))
        """sRGB of rays that leave the scene, before a sigmoid."""
        self.register_buffer("centre", bounds.centre.to(torch.float32).clone())
        self.register_buffer("half_size", bounds.half_size.to(torch.float32).clone())
        self.register_buffer("density_of_cell", torch.ones(cells, cells, cells))
        self.register_buffer("occupied", torch.ones(cells, cells, cells, dtype=torch.bool))

    @property
    def rows(self) -> int:
        """Rows of one level's table."""
        return 1 << self.shape.log2_rows

    @property
    def radius(self) -> float:
        """Mean half size of the bounds, metres."""
        return float(self.half_size.mean())

    @property
    def density_scale(self) -> float:
        """Density per metre of a log density of 0: one mean free path a radius."""
        return 1 / self.radius

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

    def render(self, rays: Rays) -> Rendered:
        """Composite the field along rays. Differentiable in the table and the background."""
        flat = rays.flattened()
        march = self.march(flat, jitter=torch.full_like(flat.near, 0.5), steps=self.shape.steps)
        rendered = self.composite(flat, march, levels=len(self.shape.resolutions)).rendered
        shape = rays.batch_shape
        return Rendered(
            colour=rendered.colour.reshape(*shape, 3),
            depth=rendered.depth.reshape(shape),
            opacity=rendered.opacity.reshape(shape),
        )

    def march(self, rays: Rays, *, jitter: Float[Tensor, "n"], steps: int) -> "PackedSamples":
        """The samples of a list of rays in occupied cells; `steps` divide the way from near to far geometrically."""
        near, far = self.shape.near * self.radius, self.shape.far * self.radius
        ratio = math.exp(math.log(far / near) / steps)
        return PackedSamples(
            *ops.march(
                rays.origins,
                rays.directions,
                rays.near.clamp(min=near),
                rays.far.clamp(max=far),
                jitter,
                ratio,
                steps,
                self.centre,
                self.half_size,
                self.occupied,
            )
        )

    def composite(self, rays: Rays, samples: "PackedSamples", *, levels: int) -> "Composited":
        """Render a list of rays over their samples with the first `levels` levels of the grid."""
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
        )
        opacity = out[:, 4]
        background = torch.sigmoid(self.background)
        rendered = Rendered(
            colour=out[:, :3] + (1 - opacity)[:, None] * background,
            depth=out[:, 3] / opacity.clamp(min=1e-6),
            opacity=opacity,
        )
        return Composited(rendered=rendered, distortion=out[:, 5], density=density)


@dataclass(frozen=True)
class PackedSamples:
    """Samples of many rays in one list: ray i owns offsets[i] to offsets[i + 1]. Positions in the unit cube, t in
    metres."""

    positions: Float[Tensor, "n 3"]
    t_mid: Float[Tensor, "n"]
    t_step: Float[Tensor, "n"]
    offsets: Int[Tensor, "edges"]

    def __len__(self) -> int:
        return len(self.t_mid)


@dataclass(frozen=True)
class Composited:
    """Rendered rays and what regularisers ask for: distortion, how far a ray's weight is spread over log t, and
    density, the exp(log density) of every sample (-1 where the ray had ended)."""

    rendered: Rendered
    distortion: Float[Tensor, "rays"]
    density: Float[Tensor, "n"]


def save_field(field: SHGrid, path: Path) -> Path:
    """Write a trained field as one safetensors file (atomically)."""
    return write_tensors(path, field.state_dict(), kind=FORMAT, header={"shape": json.dumps(asdict(field.shape))})


def load_field(path: Path) -> SHGrid:
    """Read what `save_field` wrote. Raises WeightsError naming the file when it is truncated or something else."""
    tensors, header = read_tensors(path, kind=FORMAT)
    shape = json.loads(header["shape"])
    field = SHGrid(
        Bounds(centre=tensors["centre"], half_size=tensors["half_size"]),
        shape=SHGridShape(**(shape | {"resolutions": tuple(shape["resolutions"])})),
    )
    field.load_state_dict(tensors)
    return field
