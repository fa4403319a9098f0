"""Volume rendering: from densities and colours along rays to pixels.

Letters: interval i of a ray runs from t_i to t_{i+1}, with density sigma_i per metre and colour c_i. alpha_i = 1 -
exp(-sigma_i (t_{i+1} - t_i)), T_i = prod_{j<i} (1 - alpha_j), w_i = T_i alpha_i (Mildenhall et al. 2020, eq. 3).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.rays import image_rays

if TYPE_CHECKING:
    from crowdnerf_lab.fields.field import RadianceField

RAYS_AT_ONCE = 1 << 14
"""Rays a renderer takes at once: bounds memory at no cost in speed."""


@dataclass(frozen=True)
class Rendered:
    """What a renderer returns for rays: sRGB colour in [0, 1] over the field's background, expected depth along the
    ray in metres (0 where nothing was hit) and opacity in [0, 1]."""

    colour: Float[Tensor, "*n 3"]
    depth: Float[Tensor, "*n"]
    opacity: Float[Tensor, "*n"]


def transmittance(density: Float[Tensor, "*rays n"], t_edges: Float[Tensor, "*rays n+1"]) -> Float[Tensor, "*rays n"]:
    """Fraction of light that reaches the start of each interval.

    T_i = exp(-sum_{j<i} density_j (t_{j+1} - t_j)), NeRF (Mildenhall et al. 2020). T_0 = 1.
    density is per metre, t in metres. Differentiable in both.
    """
    optical_depth = density * (t_edges[..., 1:] - t_edges[..., :-1])
    before = torch.cumsum(optical_depth, dim=-1) - optical_depth
    return torch.exp(-before)


def weights(density: Float[Tensor, "*rays n"], t_edges: Float[Tensor, "*rays n+1"]) -> Float[Tensor, "*rays n"]:
    """How much each interval contributes to its pixel: w_i = T_i (1 - exp(-density_i dt_i)). They sum to the
    opacity."""
    alpha = 1 - torch.exp(-density * (t_edges[..., 1:] - t_edges[..., :-1]))
    return transmittance(density, t_edges) * alpha


def composite(
    density: Float[Tensor, "*rays n"],
    colour: Float[Tensor, "*rays n 3"],
    t_edges: Float[Tensor, "*rays n+1"],
    background: Float[Tensor, "3"],
) -> Rendered:
    """Pixels from intervals: colour = sum_i w_i c_i + (1 - opacity) background; depth = sum_i w_i t_mid_i / opacity."""
    w = weights(density, t_edges)
    opacity = w.sum(-1)
    middle = (t_edges[..., 1:] + t_edges[..., :-1]) / 2
    depth = (w * middle).sum(-1) / opacity.clamp(min=1e-6)
    return Rendered(
        colour=(w[..., None] * colour).sum(-2) + (1 - opacity)[..., None] * background,
        depth=depth,
        opacity=opacity,
    )


@torch.no_grad()
def render_view(field: "RadianceField", cameras: Cameras, index: int = 0) -> Rendered:
    """One camera's image [h w], rendered in pieces that bound memory. Neutral colours; clamped to [0, 1]."""
    rays = image_rays(cameras, index)
    flat, shape = rays.flattened(), rays.batch_shape
    pieces = [field.render(flat[start : start + RAYS_AT_ONCE]) for start in range(0, flat.near.numel(), RAYS_AT_ONCE)]
    return Rendered(
        colour=torch.cat([piece.colour for piece in pieces]).clamp(0, 1).reshape(*shape, 3),
        depth=torch.cat([piece.depth for piece in pieces]).reshape(shape),
        opacity=torch.cat([piece.opacity for piece in pieces]).reshape(shape),
    )
