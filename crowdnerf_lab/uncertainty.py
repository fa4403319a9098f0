"""How far a render may be trusted, pixel by pixel, from what the training photos said about the matter it shows.

Every training ray tells the cells it ends in how far the field missed its colour. A cell's variance is then estimated
as a Bayesian does who begins with a vague guess (inverse gamma prior, Gelman et al. 2013, section 2.6):

    variance = (p v0 + sum w e^2) / (p + sum w),

with e the RMS error of a ray, w its weight in the cell, v0 the variance of knowing nothing and p how many rays that
guess is worth. A pixel's variance is that of the cells along its ray, by their weights. Light that meets nothing
comes from beyond the scene, of which cells of directions tell in the same way. What no photo told is doubtful (Bayes'
Rays, Goli et al. 2023, finds the same from the field's curvature).

How good an uncertainty is, is told by sparsification: take away the pixels it doubts most, and the mean error of the
rest must fall, at best as fast as if the true error had chosen (Ilg et al. 2018).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.fields.appearance import Appearance
from crowdnerf_lab.fields.grid_field import Composited, PackedSamples
from crowdnerf_lab.fields.hash_grid import HashGrid
from crowdnerf_lab.fields.sh_grid import SHGrid
from crowdnerf_lab.pixels import pixel_table, rays_of_pixels
from crowdnerf_lab.rays import Rays, image_rays
from crowdnerf_lab.rendering import RAYS_AT_ONCE, Rendered
from crowdnerf_lab.scene import PosedScene

MarchedField = SHGrid | HashGrid
DIRECTIONS = 16
"""Cells a side of the cube of directions."""
SHARP = 0.02
"""Spread of depth, as a fraction of the distance, below which a surface is as sharp as it gets."""


@dataclass(frozen=True)
class EvidenceSettings:
    """cells: a side of the grid over the contracted cube. rays: training rays asked. prior_rays (p) and prior_error
    (RMS of sRGB, the root of v0): the guess about a cell of which nothing is known."""

    cells: int = 128
    rays: int = 150_000
    prior_rays: float = 2.0
    prior_error: float = 0.25


@dataclass(frozen=True)
class Evidence:
    """What the training rays told each cell of the contracted cube, and then each cell of directions about what lies
    beyond: weight, the number of rays that ended there, and squared, the sum of their squared errors (mean over
    colours)."""

    weight: Float[Tensor, "cells"]
    squared: Float[Tensor, "cells"]
    settings: EvidenceSettings

    @property
    def variance(self) -> Float[Tensor, "cells"]:
        """Expected squared error of what lies in a cell."""
        prior = self.settings.prior_rays
        return (prior * self.settings.prior_error**2 + self.squared) / (prior + self.weight)


@dataclass(frozen=True)
class Uncertainty:
    """Of rays. error: expected RMS error of the colour, sRGB; depth: standard deviation of where the ray's light comes
    from, as a fraction of its distance; evidence: training rays that met the same matter."""

    error: Float[Tensor, "*n"]
    depth: Float[Tensor, "*n"]
    evidence: Float[Tensor, "*n"]

    @property
    def doubt(self) -> Float[Tensor, "*n"]:
        """What to rank pixels by: the geometric mean of both uncertainties, since matter at an uncertain depth moves
        when it is seen from elsewhere, however well it explains the training photos."""
        return (self.error * (self.depth + SHARP)).sqrt()


@torch.no_grad()
def gather_evidence(
    field: MarchedField,
    scene: PosedScene,
    *,
    appearance: Appearance | None = None,
    settings: EvidenceSettings | None = None,
    seed: int = 0,
) -> Evidence:
    """Ask random training rays how well the field explains them. appearance: as it was learned with the field."""
    settings = settings or EvidenceSettings()
    pixels = pixel_table(scene)
    cells = settings.cells
    weight, squared = (torch.zeros(cells**3 + DIRECTIONS**3) for _ in range(2))
    generator = np.random.default_rng(seed)
    for start in range(0, settings.rays, RAYS_AT_ONCE):
        drawn = torch.from_numpy(generator.integers(0, len(pixels), min(RAYS_AT_ONCE, settings.rays - start)))
        photo = pixels.photo[drawn].long()
        rays = rays_of_pixels(scene.cameras, pixels.plane[drawn], photo, scene.time_of_image)
        samples, composited = _marched(field, rays)
        colour = composited.rendered.colour
        if appearance is not None:
            colour = appearance(colour, photo, pixels.radius2[drawn])
        truth = pixels.colour[drawn].to(torch.float32) / 255
        missed = ((colour.clamp(0, 1) - truth) ** 2).mean(-1)
        w, ray = sample_weights(composited.density * field.density_scale, samples)
        left = 1 - torch.zeros(len(photo)).index_add(0, ray, w)
        cell = torch.cat([_cells_of(samples, cells), _cells_beyond(rays, cells)])
        weight.index_add_(0, cell, torch.cat([w, left]))
        squared.index_add_(0, cell, torch.cat([w * missed[ray], left * missed]))
    return Evidence(weight=weight, squared=squared, settings=settings)


@torch.no_grad()
def uncertainty_of(field: MarchedField, evidence: Evidence, rays: Rays) -> tuple[Rendered, Uncertainty]:
    """Rays rendered, and how far that may be trusted."""
    samples, composited = _marched(field, rays)
    w, ray = sample_weights(composited.density * field.density_scale, samples)
    cell, beyond = _cells_of(samples, evidence.settings.cells), _cells_beyond(rays, evidence.settings.cells)

    def summed(values: Float[Tensor, "n"]) -> Float[Tensor, "rays"]:
        return torch.zeros(len(rays.near)).index_add(0, ray, values)

    met = summed(w)
    mean_t, mean_square_t = (summed(w * samples.t_mid**power) / met.clamp(min=1e-6) for power in (1, 2))
    left, variance = 1 - met, evidence.variance
    return composited.rendered, Uncertainty(
        error=(summed(w * variance[cell]) + left * variance[beyond]).clamp(min=0).sqrt(),
        depth=(mean_square_t - mean_t**2).clamp(min=0).sqrt() / mean_t.clamp(min=1e-6),
        evidence=summed(w * evidence.weight[cell]) + left * evidence.weight[beyond],
    )


def uncertainty_of_view(
    field: MarchedField, evidence: Evidence, cameras: Cameras, index: int = 0
) -> tuple[Rendered, Uncertainty]:
    """One camera's image [h w] and how far each pixel may be trusted."""
    rays = image_rays(cameras, index)
    flat, shape = rays.flattened(), rays.batch_shape
    pieces = [
        uncertainty_of(field, evidence, flat[i : i + RAYS_AT_ONCE]) for i in range(0, len(flat.near), RAYS_AT_ONCE)
    ]

    def image(name: str, part: int) -> Tensor:
        values = torch.cat([getattr(piece[part], name) for piece in pieces])
        return values.reshape(*shape, *values.shape[1:])

    return (
        Rendered(colour=image("colour", 0).clamp(0, 1), depth=image("depth", 0), opacity=image("opacity", 0)),
        Uncertainty(error=image("error", 1), depth=image("depth", 1), evidence=image("evidence", 1)),
    )


def sample_weights(density: Float[Tensor, "n"], samples: PackedSamples) -> tuple[Float[Tensor, "n"], Tensor]:
    """Weights w_i = T_i (1 - exp(-density_i dt_i)) of packed samples in their pixels, and the rays they belong to.

    density is per metre; negative where a ray had ended before.
    """
    ray = torch.repeat_interleave(torch.arange(len(samples.offsets) - 1), samples.offsets.diff())
    optical = density.clamp(min=0).double() * samples.t_step
    before = torch.cumsum(optical, 0) - optical
    first = torch.cat([before, before.new_zeros(1)])[samples.offsets[:-1]]
    weight = torch.exp(first[ray] - before) * (1 - torch.exp(-optical))
    return weight.to(samples.t_step), ray


@dataclass(frozen=True)
class Sparsification:
    """How well an uncertainty orders errors. spearman: rank correlation with them, in [-1, 1].

    ause: area between the curve of the uncertainty and that of the true error, over the area between a random order
    and the true error: 0 is perfect, 1 no better than chance. by_uncertainty, by_error: mean error of the pixels that
    stay as ever more are taken away, a hundred equal steps.
    """

    spearman: float
    ause: float
    by_uncertainty: NDArray[np.float64]
    by_error: NDArray[np.float64]


def sparsification(uncertainty: Float[Tensor, "n"], error: Float[Tensor, "n"]) -> Sparsification:
    """Judge an uncertainty by the true errors (>= 0) of the same pixels."""
    if len(error) < 2:
        raise ValueError(f"an order needs at least two pixels, got {len(error)}")
    from scipy.stats import rankdata

    by_uncertainty, by_error = _curve(uncertainty, error), _curve(error, error)
    chance = float(error.double().mean()) - by_error.mean()
    return Sparsification(
        spearman=float(np.corrcoef(rankdata(uncertainty.numpy()), rankdata(error.numpy()))[0, 1]),
        ause=float((by_uncertainty - by_error).mean() / chance) if chance > 0 else math.nan,
        by_uncertainty=by_uncertainty,
        by_error=by_error,
    )


def _curve(order: Float[Tensor, "n"], error: Float[Tensor, "n"]) -> NDArray[np.float64]:
    """Mean error of what stays when 0, 1, ... 99 % of the pixels are taken away, those of the largest `order` first."""
    kept = error[order.argsort(stable=True)].double()
    means = kept.cumsum(0) / torch.arange(1, len(kept) + 1)
    left = (len(kept) * (100 - torch.arange(100)) / 100).ceil().long().clamp(min=1)
    return means[left - 1].numpy()


def _marched(field: MarchedField, rays: Rays) -> tuple[PackedSamples, Composited]:
    samples = field.march(rays, jitter=torch.full_like(rays.near, 0.5), steps=field.shape.steps)
    return samples, field.composite(rays, samples, levels=len(field.shape.resolutions))


def _cells_of(samples: PackedSamples, cells: int) -> Tensor:
    x, y, z = (samples.positions * cells).long().unbind(-1)
    return (x * cells + y) * cells + z


def _cells_beyond(rays: Rays, cells: int) -> Tensor:
    """Numbers of the cells of directions; they follow those of the contracted cube."""
    x, y, z = ((rays.directions + 1) / 2 * DIRECTIONS).long().clamp(0, DIRECTIONS - 1).unbind(-1)
    return cells**3 + (x * DIRECTIONS + y) * DIRECTIONS + z
