"""Where a teacher's rays end: light fields put their planes there, for what lies on a plane is a picture on it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.fields.field import RadianceField
from crowdnerf_lab.light_fields.light_field import LightFieldError
from crowdnerf_lab.rays import rays_through

SOLID = 0.5
"""Opacity below which a ray counts as one that hit nothing."""


@dataclass(frozen=True)
class SeenSurfaces:
    """Rays into a scene and how far they reach: origins and unit directions in the world, depth along them in metres;
    only rays that hit something."""

    origins: Float[Tensor, "n 3"]
    directions: Float[Tensor, "n 3"]
    depth: Float[Tensor, "n"]

    @property
    def points(self) -> Float[Tensor, "n 3"]:
        """Where the rays end."""
        return self.origins + self.directions * self.depth[:, None]

    def __getitem__(self, index: Tensor) -> "SeenSurfaces":
        return SeenSurfaces(self.origins[index], self.directions[index], self.depth[index])

    def __len__(self) -> int:
        return len(self.depth)


@torch.no_grad()
def seen_surfaces(teacher: RadianceField, cameras: Cameras, *, rays: int = 1 << 16, seed: int = 0) -> SeenSurfaces:
    """Surfaces that some cameras see in the teacher, through random pixels, `rays` in all.

    Raises LightFieldError when the cameras see nothing solid.
    """
    generator = torch.Generator().manual_seed(seed)
    index = torch.arange(rays) % len(cameras)
    size = torch.stack([cameras.width, cameras.height], dim=-1)[index]
    asked = rays_through(cameras, index, torch.rand(rays, 2, generator=generator) * size)
    rendered = teacher.render(asked)
    solid = (rendered.opacity > SOLID) & (rendered.depth > 0)
    if not bool(solid.any()):
        raise LightFieldError(f"none of {rays} rays of {len(cameras)} cameras hits anything; train the teacher longer")
    return SeenSurfaces(asked.origins[solid], asked.directions[solid], rendered.depth[solid])
