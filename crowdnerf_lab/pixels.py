"""The training photos as one table of pixels, ready to be drawn at random."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from crowdnerf_lab.cameras import Cameras, pixel_grid, plane_points
from crowdnerf_lab.rays import Rays
from crowdnerf_lab.scene import PosedScene


@dataclass(frozen=True)
class PixelTable:
    """Every usable pixel of the training photos.

    plane: undistorted (x, y) on the plane z = 1; colour: sRGB bytes; photo: row in the scene; radius2: squared
    distance from the image's centre over the squared half diagonal, in [0, 1].
    """

    plane: Float[Tensor, "n 2"]
    colour: UInt8[Tensor, "n 3"]
    photo: Int[Tensor, "n"]
    radius2: Float[Tensor, "n"]

    def __len__(self) -> int:
        return len(self.photo)

    def drawn(
        self, count: int, *, generator: np.random.Generator, often: Float[Tensor, "photos"] | None = None
    ) -> Int[Tensor, "count"]:
        """Numbers of random pixels, all as likely; or those of photo i often[i] times as likely as those of another
        with 1."""
        if often is None:
            return torch.from_numpy(generator.integers(0, len(self), count))
        photos, sizes, ends = self._photos
        weights = often.double()[photos]
        reached = torch.cumsum(weights * sizes, 0)
        aims = torch.from_numpy(generator.random(count)) * reached[-1]
        part = torch.searchsorted(reached, aims, right=True).clamp(max=len(photos) - 1)
        left = ((reached[part] - aims) / weights[part]).long().clamp(min=0)
        return ends[part] - 1 - torch.minimum(left, sizes[part] - 1)

    @cached_property
    def _photos(self) -> tuple[Int[Tensor, "parts"], Int[Tensor, "parts"], Int[Tensor, "parts"]]:
        """The photos in the table's order, how many pixels each has, and where they end."""
        photos, sizes = torch.unique_consecutive(self.photo.long(), return_counts=True)
        return photos, sizes, torch.cumsum(sizes, 0)


def pixel_table(scene: PosedScene) -> PixelTable:
    """The pixels of a scene's training photos that no mask excludes."""
    parts = [_photo_pixels(scene, int(index)) for index in scene.train]
    return PixelTable(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _photo_pixels(scene: PosedScene, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    width, height = int(scene.cameras.width[index]), int(scene.cameras.height[index])
    pixels = pixel_grid(width, height).reshape(-1, 2)
    colour = scene.images[index].reshape(-1, 3)
    if scene.masks is not None:
        usable = scene.masks[index].reshape(-1)
        pixels, colour = pixels[usable], colour[usable]
    photo = torch.full((len(pixels),), index, dtype=torch.int32)
    half = torch.tensor([width / 2, height / 2])
    radius2 = ((pixels - half) ** 2).sum(-1) / (half**2).sum()
    return plane_points(scene.cameras, photo.long(), pixels), colour, photo, radius2


def rays_of_pixels(cameras: Cameras, plane: Float[Tensor, "n 2"], photo: Int[Tensor, "n"], time: Tensor) -> Rays:
    """Rays through points (x, y) of the planes z = 1 of the cameras `photo`; time is that of every photo of the
    scene."""
    pose = cameras.camera_to_world[photo]
    # Column by column: a batched matrix product of such small matrices takes ten times as long.
    directions = pose[..., 0] * plane[:, :1] + pose[..., 1] * plane[:, 1:] + pose[..., 2]
    directions = torch.nn.functional.normalize(directions, dim=-1)
    return Rays(
        origins=pose[..., 3].contiguous(),
        directions=directions,
        near=torch.zeros(len(photo)),
        far=torch.full((len(photo),), torch.inf),
        camera_index=photo,
        time=time[photo],
    )
