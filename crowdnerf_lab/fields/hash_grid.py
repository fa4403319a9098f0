"""The hash grid: features of several grid levels and two small networks. It starts slower than the SH grid and is ahead
of it from about ten seconds on.

Instant neural graphics primitives (Mueller et al. 2022): a network turns the features at a position into a log density
and a short code, a second one turns the code and the viewing direction into a colour. Layout of the table:
`kernels.hash_cpu`; contraction and marching are the SH grid's.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from crowdnerf_lab.fields.grid_field import Composited, GridField, PackedSamples
from crowdnerf_lab.kernels import hash_ops, reference
from crowdnerf_lab.kernels.row_adam import RowAdam
from crowdnerf_lab.rays import Rays
from crowdnerf_lab.scene import Bounds

FAINT = 1e-4
"""Weight in its pixel below which a sample gets no colour: most samples of a trained scene, at no visible cost."""
BASIS = 16
"""Spherical harmonics of degree 0 to 3."""


@dataclass(frozen=True)
class HashGridShape:
    """Sizes of a hash grid; what is not said here is in GridShape.

    log2_lines: lines (four corners each) of a level's table; levels that need more share lines by hashing.
    width: neurons of a hidden layer. code: numbers that the density network hands to the colour network.
    """

    resolutions: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 768, 1024)
    log2_lines: int = 17
    width: int = 64
    code: int = 15
    occupancy_cells: int = 128
    steps: int = 64
    refine: int = 12
    finest: int = 8
    near: float = 0.15
    far: float = 12.0


class HashGrid(GridField):
    """A radiance field of hashed features and two networks; see RadianceField and GridField for what it offers.

    seed: of the weights before training.
    """

    rays_at_once = 2048
    """What the networks keep of their samples stays within the cache or near it."""

    def __init__(self, bounds: Bounds, *, shape: HashGridShape | None = None, seed: int = 0) -> None:
        shape = shape or HashGridShape()
        super().__init__(bounds, shape)
        self.shape = shape
        generator = np.random.default_rng(seed)
        levels = len(shape.resolutions)
        # numpy asks the kernel for huge pages, which make random lines cheaper.
        table = generator.random((levels << shape.log2_lines, hash_ops.LINE), dtype=np.float32)
        table -= np.float32(0.5)
        table *= np.float32(2e-4)
        self.table = nn.Parameter(torch.from_numpy(table))
        self.density_network = _network((levels * hash_ops.FEATURES, shape.width, 1 + shape.code), generator)
        self.colour_network = _network((shape.code + BASIS, shape.width, shape.width, 3), generator)

    @property
    def lines(self) -> int:
        """Lines of one level's table."""
        return 1 << self.shape.log2_lines

    def optimizers(self, rate: float) -> tuple[torch.optim.Optimizer, ...]:
        """Adam for the table's lines and for all else, both with step size `rate`."""
        rest = [parameter for parameter in self.parameters() if parameter is not self.table]
        return RowAdam([self.table], rate=rate), torch.optim.Adam(rest, lr=rate, betas=(0.9, 0.99), eps=1e-15)

    def density(self, positions: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n"]:
        """Volume density per metre at world positions. Differentiable in the parameters and in the positions."""
        unit = reference.contracted(positions.reshape(-1, 3), self.centre, self.half_size)
        relative = self.relative_density(unit, levels=len(self.shape.resolutions))
        return relative.reshape(positions.shape[:-1]) * self.density_scale

    def forward(
        self, positions: Float[Tensor, "*n 3"], directions: Float[Tensor, "*n 3"]
    ) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n 3"]]:
        """Density per metre and neutral sRGB colour at world positions seen along unit directions."""
        unit = reference.contracted(positions.reshape(-1, 3), self.centre, self.half_size)
        log_density, code = self._log_density_and_code(unit, len(self.shape.resolutions))
        colour = self._colour(code, spherical_harmonics(directions.reshape(-1, 3)))
        density = _exp(log_density).reshape(positions.shape[:-1]) * self.density_scale
        return density, colour.reshape(positions.shape)

    def relative_density(self, unit: Float[Tensor, "n 3"], *, levels: int) -> Float[Tensor, "n"]:
        """exp(log density), in units of `density_scale`, at positions of the unit cube, from the first `levels`
        levels."""
        return _exp(self._log_density_and_code(unit, levels)[0])

    def _log_density_and_code(
        self, unit: Float[Tensor, "n 3"], levels: int
    ) -> tuple[Float[Tensor, "n"], Float[Tensor, "n code"]]:
        encoded = hash_ops.encode(unit, self.table, self.lines, list(self.shape.resolutions[:levels]))
        first, *others = self.density_network
        assert isinstance(first, nn.Linear)
        # Levels that do not take part yet count as zero.
        found = linear(encoded, first.weight[:, : encoded.shape[1]], first.bias)
        for layer in others:
            found = layer(found)
        return found[:, 0].contiguous(), found[:, 1:]

    def _colour(self, code: Float[Tensor, "n code"], basis: Float[Tensor, "n 16"]) -> Float[Tensor, "n 3"]:
        return torch.sigmoid(self.colour_network(torch.cat([code, basis], dim=-1)))

    def composite(self, rays: Rays, samples: PackedSamples, *, levels: int) -> Composited:
        """Render a list of rays over their samples with the first `levels` levels of the grid.

        All samples get a density; only those that weigh more than FAINT in their pixel get a colour.
        """
        log_density, code = self._log_density_and_code(samples.positions, levels)
        weights = hash_ops.weigh(log_density, samples.offsets, samples.t_step, self.density_scale)
        seen = torch.nonzero(weights > FAINT)[:, 0]
        basis = spherical_harmonics(rays.directions)[hash_ops.rays_of_samples(samples.offsets)[seen]]
        colour = torch.zeros_like(samples.positions).index_copy(0, seen, self._colour(code[seen], basis))
        out, density, _ = hash_ops.composite(
            log_density, colour, samples.offsets, samples.t_mid, samples.t_step, self.density_scale
        )
        return Composited(rendered=self.over_background(out), distortion=out[:, 5], density=density)


def spherical_harmonics(directions: Float[Tensor, "n 3"]) -> Float[Tensor, "n 16"]:
    """Real spherical harmonics of degree 0 to 3 along unit directions, orthonormal over the sphere."""
    x, y, z = directions.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    return torch.stack(
        [
            torch.full_like(x, 0.28209479),
            -0.48860251 * y,
            0.48860251 * z,
            -0.48860251 * x,
            1.09254843 * x * y,
            -1.09254843 * y * z,
            0.94617470 * zz - 0.31539157,
            -1.09254843 * x * z,
            0.54627422 * (xx - yy),
            0.59004359 * y * (yy - 3 * xx),
            2.89061144 * x * y * z,
            0.45704580 * y * (1 - 5 * zz),
            0.37317633 * z * (5 * zz - 3),
            0.45704580 * x * (1 - 5 * zz),
            1.44530572 * z * (xx - yy),
            0.59004359 * x * (3 * yy - xx),
        ],
        dim=-1,
    )


def _network(sizes: tuple[int, ...], generator: np.random.Generator) -> nn.Sequential:
    """Linear layers with rectifiers between them, weights as in He et al. 2015, biases zero."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layer = nn.Linear(inputs, outputs)
        bound = math.sqrt(6 / inputs)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(generator.uniform(-bound, bound, (outputs, inputs))))
            layer.bias.zero_()
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _exp(log_density: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """exp, capped where it could only overflow."""
    return torch.exp(log_density.clamp(max=hash_ops.LOG_DENSITY_MAX))
