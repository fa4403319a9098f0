"""What fields on a grid share: the contracted world, its occupancy grid, and rays marched through it."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from crowdnerf_lab.kernels import ops
from crowdnerf_lab.rays import Rays
from crowdnerf_lab.rendering import Rendered
from crowdnerf_lab.scene import Bounds


@runtime_checkable
class GridShape(Protocol):
    """What the shapes of all grid fields tell.

    resolutions: cells a side of each level over the whole contracted cube (even numbers, coarse to fine).
    occupancy_cells: cells a side of the occupancy grid.
    steps: marching steps of a whole ray when rendering.
    refine, finest: a step that gives a pixel the share w of its colour is divided into ceil(refine w) parts, at most
    `finest`; so thin surfaces are met without many samples in thin air.
    near, far: where rays begin and end, in units of the scene's radius (mean half size of the bounds).
    """

    @property
    def resolutions(self) -> tuple[int, ...]: ...
    @property
    def occupancy_cells(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def refine(self) -> int: ...
    @property
    def finest(self) -> int: ...
    @property
    def near(self) -> float: ...
    @property
    def far(self) -> float: ...


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


class GridField(nn.Module, ABC):
    """A radiance field over the contracted cube of `kernels.cpu`, skipped where its occupancy grid is empty.

    bounds: the box that gets the middle half of the cube along each axis; the rest of the world is contracted around
    it. density_of_cell: exp(log density) of every cell of the occupancy grid, a running maximum. occupied: cells worth
    a look. in_view: cells that enough cameras see; the others stay empty.
    """

    rays_at_once: ClassVar[int] = 1 << 14
    """Rays rendered at once: more cost memory, fewer cost calls."""
    centre: Tensor
    half_size: Tensor
    density_of_cell: Tensor
    occupied: Tensor
    in_view: Tensor

    def __init__(self, bounds: Bounds, shape: GridShape) -> None:
        super().__init__()
        if any(resolution % 2 for resolution in shape.resolutions):
            raise ValueError(f"grid resolutions must be even, got {shape.resolutions}")
        self._grid_shape = shape
        cells = (shape.occupancy_cells,) * 3
        self.background = nn.Parameter(torch.zeros(3))
        """sRGB of rays that leave the scene, before a sigmoid."""
        self.register_buffer("centre", bounds.centre.to(torch.float32).clone())
        self.register_buffer("half_size", bounds.half_size.to(torch.float32).clone())
        self.register_buffer("density_of_cell", torch.ones(cells))
        self.register_buffer("occupied", torch.ones(cells, dtype=torch.bool))
        self.register_buffer("in_view", torch.ones(cells, dtype=torch.bool))

    @property
    def bounds(self) -> Bounds:
        """The box of interest."""
        return Bounds(centre=self.centre, half_size=self.half_size)

    @property
    def radius(self) -> float:
        """Mean half size of the bounds, metres."""
        return float(self.half_size.mean())

    @property
    def near(self) -> float:
        """Where rays begin, metres."""
        return self._grid_shape.near * self.radius

    @property
    def density_scale(self) -> float:
        """Density per metre of a log density of 0: one mean free path a radius."""
        return 1 / self.radius

    @abstractmethod
    def relative_density(self, unit: Float[Tensor, "n 3"], *, levels: int) -> Float[Tensor, "n"]:
        """exp(log density), in units of `density_scale`, at positions of the unit cube, from the first `levels`
        levels."""
        ...

    @abstractmethod
    def composite(self, rays: Rays, samples: PackedSamples, *, levels: int) -> Composited:
        """Render a list of rays over their samples with the first `levels` levels of the grid."""
        ...

    @abstractmethod
    def optimizers(self, rate: float) -> tuple[torch.optim.Optimizer, ...]:
        """Optimizers of all parameters, each with step size `rate`."""
        ...

    def march(self, rays: Rays, *, jitter: Float[Tensor, "n"], steps: int) -> PackedSamples:
        """The samples of a list of rays in occupied cells; `steps` divide the way from near to far geometrically."""
        shape = self._grid_shape
        near, far = self.near, shape.far * self.radius
        return PackedSamples(
            *ops.march(
                rays.origins,
                rays.directions,
                rays.near.clamp(min=near),
                rays.far.clamp(max=far),
                jitter,
                math.exp(math.log(far / near) / steps),
                steps,
                self.centre,
                self.half_size,
                self.occupied,
                self.density_of_cell,
                self.density_scale,
                shape.refine,
                shape.finest,
            )
        )

    def render(self, rays: Rays) -> Rendered:
        """Composite the field along rays. Differentiable in the parameters."""
        flat, size = rays.flattened(), self.rays_at_once
        pieces = [self._render(flat[start : start + size]) for start in range(0, max(len(flat.near), 1), size)]
        shape = rays.batch_shape
        return Rendered(
            colour=torch.cat([piece.colour for piece in pieces]).reshape(*shape, 3),
            depth=torch.cat([piece.depth for piece in pieces]).reshape(shape),
            opacity=torch.cat([piece.opacity for piece in pieces]).reshape(shape),
        )

    def _render(self, rays: Rays) -> Rendered:
        samples = self.march(rays, jitter=torch.full_like(rays.near, 0.5), steps=self._grid_shape.steps)
        return self.composite(rays, samples, levels=len(self._grid_shape.resolutions)).rendered

    def over_background(self, out: Float[Tensor, "rays 6"]) -> Rendered:
        """Colour, depth and opacity from what the composite ops return."""
        opacity = out[:, 4]
        return Rendered(
            colour=out[:, :3] + (1 - opacity)[:, None] * torch.sigmoid(self.background),
            depth=out[:, 3] / opacity.clamp(min=1e-6),
            opacity=opacity,
        )
