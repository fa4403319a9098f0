"""Parallel planes across a scene, on which light fields sample rays: every camera on a ray meets the same points.

What lies near a plane is a picture on it (normalised device coordinates do this for NeRF's forward-facing scenes). A
ray and its reverse meet the same points, so a scene seen from all around needs a light field for each side.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.fields.field import RadianceField
from crowdnerf_lab.light_fields.light_field import LightFieldError
from crowdnerf_lab.light_fields.surfaces import seen_surfaces
from crowdnerf_lab.rays import rays_through
from crowdnerf_lab.scene import Bounds

PARALLEL = 0.05
"""Smallest cosine between a ray and the planes' normal; flatter rays count as this steep, so points stay finite."""
RAYS = 8192
"""Rays that are asked where a scene's surfaces lie, or where on its planes cameras look."""
SEEN = (0.02, 0.98)
"""Quantiles between which surfaces and places on planes count; few rays lie beyond."""


@dataclass(frozen=True)
class SamplingPlanes:
    """Planes that rays are sampled on: across `normal` (unit), `offsets` metres along it from the bounds' centre."""

    bounds: Bounds
    normal: Float[Tensor, "3"]
    offsets: Float[Tensor, "k"]


def planes_across(cameras: Cameras, bounds: Bounds, *, points: int = 8) -> SamplingPlanes:
    """Planes across the cameras' mean viewing direction, evenly through the bounds.

    Raises LightFieldError when the cameras look every way.
    """
    normal = _common_direction(cameras)
    reach = (normal.abs() * bounds.half_size).sum()
    return SamplingPlanes(bounds, normal, torch.linspace(-1, 1, points).to(reach) * reach)


def planes_through(
    teacher: RadianceField, cameras: Cameras, bounds: Bounds, *, points: int = 8, seed: int = 0
) -> SamplingPlanes:
    """Planes across the cameras' mean viewing direction, evenly through what the teacher shows in front of them.

    Planes where there is matter serve a student more than planes all through the bounds: 0.4 dB from the concert's
    field in equal time. A teacher that shows nothing solid gets planes_across.
    """
    normal = _common_direction(cameras)
    try:
        surfaces = seen_surfaces(teacher, cameras, rays=RAYS, seed=seed)
    except LightFieldError:
        return planes_across(cameras, bounds, points=points)
    first, last = ((surfaces.points - bounds.centre) @ normal).quantile(torch.tensor(SEEN)).tolist()
    return SamplingPlanes(bounds, normal, torch.linspace(first, last, points))


def axes_in(planes: SamplingPlanes) -> Float[Tensor, "2 3"]:
    """Two unit vectors in the planes, at right angles; the first is level unless the planes are."""
    level = torch.tensor([0.0, 0.0, 1.0]) if planes.normal[2].abs() < 0.9 else torch.tensor([0.0, 1.0, 0.0])
    first = torch.linalg.cross(planes.normal, level.to(planes.normal))
    first = first / torch.linalg.vector_norm(first)
    return torch.stack([first, torch.linalg.cross(planes.normal, first)])


def windows_seen(planes: SamplingPlanes, cameras: Cameras, *, seed: int = 0) -> Float[Tensor, "k 2 2"]:
    """The part of each plane that the cameras look at: its centre and its half extent (second index) along axes_in."""
    generator = torch.Generator().manual_seed(seed)
    photo = torch.arange(RAYS) % len(cameras)
    size = torch.stack([cameras.width[photo], cameras.height[photo]], dim=-1)
    rays = rays_through(cameras, photo, torch.rand(RAYS, 2, generator=generator) * size)
    met = meeting_points(planes, rays.origins.T[None, :, None], rays.directions.T[None, :, None])
    places = torch.einsum("nkxrc,ax->kanrc", met, axes_in(planes)).flatten(2)
    low, high = places.quantile(torch.tensor(SEEN), dim=2)
    return torch.stack([(low + high) / 2, ((high - low) / 2).clamp(min=1e-3)], dim=1)


def meeting_points(
    planes: SamplingPlanes, origins: Float[Tensor, "n 3 #r #c"], directions: Float[Tensor, "n 3 r c"]
) -> Float[Tensor, "n k 3 r c"]:
    """Where rays meet the planes, metres from the bounds' centre."""
    normal, centre = planes.normal[:, None, None], planes.bounds.centre[:, None, None]
    along = (directions * normal).sum(1, keepdim=True)
    along = torch.where(along < 0, along.clamp(max=-PARALLEL), along.clamp(min=PARALLEL))
    height = ((centre - origins) * normal).sum(1, keepdim=True)
    distances = (height + planes.offsets[:, None, None]) / along
    return (origins - centre).unsqueeze(1) + directions.unsqueeze(1) * distances.unsqueeze(2)


def _common_direction(cameras: Cameras) -> Float[Tensor, "3"]:
    mean = cameras.forward.mean(0)
    length = torch.linalg.vector_norm(mean)
    if not length > PARALLEL:
        raise LightFieldError(
            f"the {len(cameras)} cameras have no common viewing direction (mean of length {float(length):.3f}); "
            "give the cameras of one side of the scene"
        )
    return mean / length
