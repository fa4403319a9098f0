"""NeRF as it was in 2020: one network from sines of position and direction to density and colour. The lesson's start.

Neural radiance fields (Mildenhall et al. 2020): sines and cosines of the coordinates (eq. 4), eight layers with a skip,
a view-dependent last layer, stratified samples and then samples where the first ones found something (section 5). What
differs, and why:

- One network proposes its own samples; the paper trains a second, coarse one. `march` asks the network for densities
  without gradients, so that a loss over the final pixel is all that training needs.
- Positions are contracted as everywhere in this package, and samples are spread over log t, so that a world without
  walls fits. Inside the bounds the coordinates are the paper's, -1 to 1.
- Density is softplus(raw - 1), not max(raw, 0), which can die at birth (mip-NeRF, Barron et al. 2021).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from crowdnerf_lab.fields.sh_grid import Composited, PackedSamples
from crowdnerf_lab.kernels import reference
from crowdnerf_lab.rays import Rays
from crowdnerf_lab.rendering import Rendered
from crowdnerf_lab.scene import Bounds

DENSITY_UNIT = 10.0
"""Density, per radius, of a softplus of 1."""
FLOOR = 1e-5
"""Added to the weights of the first samples, so that every stretch of a ray can be drawn."""
RAYS_AT_ONCE = 512
"""Rays rendered at once: 100,000 samples of 256 floats are 100 MB a layer."""


@dataclass(frozen=True)
class FrequencyMLPShape:
    """Sizes of the network; the defaults are the paper's.

    width, depth: neurons of a layer, and layers before the density; the position enters again in the middle.
    position_octaves, direction_octaves: frequencies 1, 2, 4 ... of the sines.
    coarse, fine: stratified samples of a ray, and samples drawn where those found density, when rendering.
    near, far: where rays begin and end, in units of the scene's radius (mean half size of the bounds).
    """

    width: int = 256
    depth: int = 8
    position_octaves: int = 10
    direction_octaves: int = 4
    coarse: int = 64
    fine: int = 128
    near: float = 0.15
    far: float = 12.0

    def __post_init__(self) -> None:
        if self.depth < 2 or self.width < 2:
            raise ValueError(f"the network needs 2 layers of 2 neurons or more, got {self.depth} of {self.width}")


class FrequencyMLP(nn.Module):
    """A radiance field in the weights of one network; see RadianceField for what it offers.

    bounds: the box whose coordinates are -1 to 1; the rest of the world is contracted around it. seed: of the weights
    before training. Any device.
    """

    centre: Tensor
    half_size: Tensor

    def __init__(self, bounds: Bounds, *, shape: FrequencyMLPShape | None = None, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape = shape or FrequencyMLPShape()
        generator = np.random.default_rng(seed)
        position, direction = 3 * (1 + 2 * shape.position_octaves), 3 * (1 + 2 * shape.direction_octaves)
        skip = shape.depth // 2
        inputs = [position] + [shape.width + (position if layer == skip else 0) for layer in range(1, shape.depth)]
        self.trunk = nn.ModuleList(_layer(width, shape.width, generator) for width in inputs)
        self.raw_density = _layer(shape.width, 1, generator)
        self.feature = _layer(shape.width, shape.width, generator)
        self.view = _layer(shape.width + direction, shape.width // 2, generator)
        self.raw_colour = _layer(shape.width // 2, 3, generator)
        self.background = nn.Parameter(torch.zeros(3))
        """sRGB of rays that leave the scene, before a sigmoid."""
        self.register_buffer("centre", bounds.centre.to(torch.float32).clone())
        self.register_buffer("half_size", bounds.half_size.to(torch.float32).clone())

    @property
    def radius(self) -> float:
        """Mean half size of the bounds, metres."""
        return float(self.half_size.mean())

    @property
    def density_scale(self) -> float:
        """Density per metre of a relative density of 1: one mean free path a radius."""
        return 1 / self.radius

    def optimizers(self, rate: float) -> tuple[torch.optim.Optimizer, ...]:
        """Adam for all; the paper's rate is 5e-4, falling to a tenth. The background follows ten times as fast."""
        network = [parameter for parameter in self.parameters() if parameter is not self.background]
        groups = [
            {"params": network, "lr": rate, "scale": 1.0},
            {"params": [self.background], "lr": 10 * rate, "scale": 10.0},
        ]
        return (torch.optim.Adam(groups),)

    def density(self, positions: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n"]:
        """Volume density per metre at world positions. Differentiable in the weights and in the positions."""
        unit = reference.contracted(positions.reshape(-1, 3), self.centre, self.half_size)
        return self.relative_density(unit).reshape(positions.shape[:-1]) * self.density_scale

    def forward(
        self, positions: Float[Tensor, "*n 3"], directions: Float[Tensor, "*n 3"]
    ) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n 3"]]:
        """Density per metre and neutral sRGB colour at world positions seen along unit directions."""
        unit = reference.contracted(positions.reshape(-1, 3), self.centre, self.half_size)
        density, colour = self._density_and_colour(unit, directions.reshape(-1, 3))
        return density.reshape(positions.shape[:-1]) * self.density_scale, colour.reshape(positions.shape)

    def relative_density(self, unit: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
        """Density, per radius, at positions in the unit cube."""
        return _density_of(self.raw_density(self._trunk(unit)))

    def _trunk(self, unit: Float[Tensor, "n 3"]) -> Float[Tensor, "n width"]:
        encoded = encoded_frequencies(4 * unit - 2, self.shape.position_octaves)
        hidden = encoded
        for number, layer in enumerate(self.trunk):
            if number == self.shape.depth // 2:
                hidden = torch.cat([encoded, hidden], dim=-1)
            hidden = torch.relu(layer(hidden))
        return hidden

    def _density_and_colour(
        self, unit: Float[Tensor, "n 3"], directions: Float[Tensor, "n 3"]
    ) -> tuple[Float[Tensor, "n"], Float[Tensor, "n 3"]]:
        hidden = self._trunk(unit)
        view = encoded_frequencies(directions, self.shape.direction_octaves)
        hidden_view = torch.relu(self.view(torch.cat([self.feature(hidden), view], dim=-1)))
        return _density_of(self.raw_density(hidden)), torch.sigmoid(self.raw_colour(hidden_view))

    def render(self, rays: Rays) -> Rendered:
        """Composite the field along rays. Differentiable in the weights and the background."""
        flat, shape = rays.flattened(), rays.batch_shape
        pieces = [self._render(flat[first : first + RAYS_AT_ONCE]) for first in range(0, len(flat.near), RAYS_AT_ONCE)]
        return Rendered(
            colour=torch.cat([piece.colour for piece in pieces]).reshape(*shape, 3),
            depth=torch.cat([piece.depth for piece in pieces]).reshape(shape),
            opacity=torch.cat([piece.opacity for piece in pieces]).reshape(shape),
        )

    def _render(self, rays: Rays) -> Rendered:
        samples = self._sampled(rays, torch.full_like(rays.near, 0.5), self.shape.coarse, self.shape.fine)
        return self.composite(rays, samples, levels=1).rendered

    def march(self, rays: Rays, *, jitter: Float[Tensor, "n"], steps: int) -> PackedSamples:
        """The samples of a list of rays: a third of `steps` stratified over log t, the others where those found
        something. jitter: in [0, 1), where in its stratum every sample of a ray lies."""
        coarse = max(round(steps / 3), 2)
        return self._sampled(rays, jitter, coarse, max(steps - coarse, 1))

    @torch.no_grad()
    def _sampled(self, rays: Rays, jitter: Float[Tensor, "n"], coarse: int, fine: int) -> PackedSamples:
        near = rays.near.clamp(min=self.shape.near * self.radius)
        far = torch.maximum(rays.far.clamp(max=self.shape.far * self.radius), near * (1 + 1e-6))
        start, span = torch.log(near)[:, None], torch.log(far / near)[:, None]
        strata = torch.arange(coarse, device=near.device)
        fraction = (strata + jitter[:, None]) / coarse
        t = torch.exp(start + span * fraction)
        density = self.relative_density(self._unit(rays, t).reshape(-1, 3)).reshape(t.shape) * self.density_scale
        optical = density * t * span / coarse
        weights = torch.exp(optical - torch.cumsum(optical, dim=-1)) * (1 - torch.exp(-optical))
        drawn = _drawn(weights + FLOOR, (torch.arange(fine, device=near.device) + jitter[:, None]) / fine)
        fraction = torch.cat([fraction, drawn], dim=-1).sort(dim=-1).values
        return self._packed(rays, near, far, fraction)

    def _packed(self, rays: Rays, near: Tensor, far: Tensor, fraction: Float[Tensor, "rays n"]) -> PackedSamples:
        """Samples at fractions of the way from log near to log far, each with the stretch that is nearest to it."""
        middle = (fraction[:, 1:] + fraction[:, :-1]) / 2
        edges = torch.cat([torch.zeros_like(near)[:, None], middle, torch.ones_like(near)[:, None]], dim=-1)
        ratio = (far / near)[:, None]
        t, t_edges = near[:, None] * ratio**fraction, near[:, None] * ratio**edges
        count = fraction.shape[1]
        return PackedSamples(
            positions=self._unit(rays, t).reshape(-1, 3),
            t_mid=t.reshape(-1),
            t_step=t_edges.diff(dim=-1).reshape(-1),
            offsets=torch.arange(0, (len(near) + 1) * count, count, device=near.device),
        )

    def _unit(self, rays: Rays, t: Float[Tensor, "rays n"]) -> Float[Tensor, "rays n 3"]:
        positions = rays.origins[:, None] + t[..., None] * rays.directions[:, None]
        return reference.contracted(positions, self.centre, self.half_size)

    def composite(self, rays: Rays, samples: PackedSamples, *, levels: int) -> Composited:
        """Render a list of rays over their samples, of which `march` gives each ray as many. levels is not used: there
        is nothing coarse to begin with."""
        count = len(samples) // len(rays.near)
        directions = rays.directions.repeat_interleave(count, dim=0)
        density, colour = self._density_and_colour(samples.positions, directions)
        optical = (density * samples.t_step * self.density_scale).reshape(-1, count)
        weights = torch.exp(optical - torch.cumsum(optical, dim=-1)) * (1 - torch.exp(-optical))
        opacity = weights.sum(-1)
        t = samples.t_mid.reshape(-1, count)
        background = torch.sigmoid(self.background)
        rendered = Rendered(
            colour=(weights[..., None] * colour.reshape(-1, count, 3)).sum(1) + (1 - opacity)[:, None] * background,
            depth=(weights * t).sum(-1) / opacity.clamp(min=1e-6),
            opacity=opacity,
        )
        spread = _spread(weights, torch.log(t), samples.t_step.reshape(-1, count) / t)
        return Composited(rendered=rendered, distortion=spread, density=density.detach())


def encoded_frequencies(values: Float[Tensor, "n d"], octaves: int) -> Float[Tensor, "n d_encoded"]:
    """The values, and their sines and cosines at frequencies 1, 2, 4 ... (Mildenhall et al. 2020, eq. 4).

    As in the authors' program, without the factor pi and with the values themselves, so that -2 and 2 differ.
    """
    scaled = (values[:, None, :] * 2.0 ** torch.arange(octaves, device=values.device)[:, None]).flatten(1)
    return torch.cat([values, torch.sin(scaled), torch.cos(scaled)], dim=-1)


def _drawn(weights: Float[Tensor, "rays n"], levels: Float[Tensor, "rays m"]) -> Float[Tensor, "rays m"]:
    """Where the running sum of equally wide bins reaches the given fractions of the whole: inverse transform sampling
    (section 5.2 of the paper). Fractions of the way, ascending."""
    total = torch.cumsum(weights / weights.sum(-1, keepdim=True), dim=-1)
    bin_ = torch.searchsorted(total, levels.contiguous()).clamp(max=weights.shape[-1] - 1)
    after = total.gather(-1, bin_)
    width = after - torch.cat([torch.zeros_like(total[:, :1]), total[:, :-1]], dim=-1).gather(-1, bin_)
    within = (1 - (after - levels) / width.clamp(min=1e-12)).clamp(0, 1)
    return (bin_ + within) / weights.shape[-1]


def _spread(
    weights: Float[Tensor, "rays n"], s: Float[Tensor, "rays n"], ds: Float[Tensor, "rays n"]
) -> Float[Tensor, "rays"]:
    """sum_ij w_i w_j |s_i - s_j| + sum_i w_i^2 ds_i / 3 (Barron et al. 2022, eq. 15)."""
    before = torch.cumsum(weights, dim=-1) - weights
    moment = torch.cumsum(weights * s, dim=-1) - weights * s
    return (weights * (2 * (s * before - moment) + weights * ds / 3)).sum(-1)


def _density_of(raw: Float[Tensor, "n 1"]) -> Float[Tensor, "n"]:
    return DENSITY_UNIT * torch.nn.functional.softplus(raw[:, 0] - 1)


def _layer(inputs: int, outputs: int, generator: np.random.Generator) -> nn.Linear:
    """A linear layer with uniform weights (Glorot and Bengio 2010), as in the authors' program; biases zero."""
    layer = nn.Linear(inputs, outputs)
    bound = math.sqrt(6 / (inputs + outputs))
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(generator.uniform(-bound, bound, (outputs, inputs))))
        layer.bias.zero_()
    return layer
