"""Rays: what the field is asked along, and how they are made from cameras."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from crowdnerf_lab.cameras import Cameras, pixel_grid, plane_points


@dataclass(frozen=True)
class Rays:
    """Points origins + t * directions with near <= t <= far. World units are metres; directions are unit vectors.

    camera_index is the photo's row in the scene (appearance hangs on it); time is in seconds since the event began.
    """

    origins: Float[Tensor, "*n 3"]
    directions: Float[Tensor, "*n 3"]
    near: Float[Tensor, "*n"]
    far: Float[Tensor, "*n"]
    camera_index: Int[Tensor, "*n"]
    time: Float[Tensor, "*n"]

    @property
    def batch_shape(self) -> torch.Size:
        return self.near.shape

    def __getitem__(self, index) -> "Rays":
        return Rays(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def flattened(self) -> "Rays":
        """The same rays as one list."""
        rays = self.near.numel()
        return Rays(
            origins=self.origins.reshape(rays, 3),
            directions=self.directions.reshape(rays, 3),
            near=self.near.reshape(rays),
            far=self.far.reshape(rays),
            camera_index=self.camera_index.reshape(rays),
            time=self.time.reshape(rays),
        )


def rays_through(
    cameras: Cameras,
    camera_index: Int[Tensor, "*n"],
    pixels: Float[Tensor, "*n 2"],
    *,
    near: float = 0.0,
    far: float = float("inf"),
    time: float = 0.0,
) -> Rays:
    """Rays through pixel positions (u, v) of the cameras `camera_index` (a row of `cameras` for each pixel)."""
    plane = plane_points(cameras, camera_index, pixels)
    local = torch.nn.functional.normalize(torch.cat([plane, torch.ones_like(plane[..., :1])], dim=-1), dim=-1)
    pose = cameras.camera_to_world[camera_index]
    directions = torch.einsum("...ij,...j->...i", pose[..., :3], local)
    return Rays(
        origins=pose[..., 3],
        directions=directions,
        near=torch.full_like(directions[..., 0], near),
        far=torch.full_like(directions[..., 0], far),
        camera_index=camera_index,
        time=torch.full_like(directions[..., 0], time),
    )


def image_rays(
    cameras: Cameras, index: int, *, near: float = 0.0, far: float = float("inf"), time: float = 0.0
) -> Rays:
    """All rays of one camera's image, shape [h w]."""
    pixels = pixel_grid(int(cameras.width[index]), int(cameras.height[index])).to(cameras.focal)
    camera_index = torch.full(pixels.shape[:2], index, dtype=torch.int64, device=pixels.device)
    return rays_through(cameras, camera_index, pixels, near=near, far=far, time=time)
