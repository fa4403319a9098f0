"""A light field of two convolutions and a plane of features, for exporters that take long over a real one."""

import numpy as np
import torch
from torch import Tensor, nn

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.devices.pose_to_image import INPUTS
from crowdnerf_lab.light_fields.light_field import images_of
from tests.toy_field import toy_cameras

WIDTH, HEIGHT = 27, 21
CAMERAS = toy_cameras(6, width=WIDTH, height=HEIGHT)
FEEDS: list[dict[str, np.ndarray]] = [
    {name: getattr(CAMERAS, name)[i].numpy() for name in INPUTS} for i in range(len(CAMERAS))
]


class TinyLightField(nn.Module):
    """Origin and direction (with `planes`, features where it points, too) -> 128 channels -> 4 x 4 pixels."""

    size, view_size, cell, architecture, cells_are_independent = "tiny", (WIDTH, HEIGHT), 4, "tiny", True

    def __init__(self, *, planes: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape, generator=generator))

        self.plane = normal(1, 8, 24, 24) if planes else None
        channels = 6 if self.plane is None else 14
        self.first, self.second = nn.Conv2d(channels, 128, 1), nn.Conv2d(128, 48, 1)
        for layer in (self.first, self.second):
            layer.weight, layer.bias = nn.Parameter(normal(*layer.weight.shape) * 0.25), normal(layer.out_channels)
        self.shuffle = nn.PixelShuffle(4)

    def from_rays(self, origins: Tensor, directions: Tensor) -> Tensor:
        rays = [0.2 * origins + directions, directions]
        if self.plane is not None:
            place = directions[:, :2].permute(0, 2, 3, 1)
            rays.append(nn.functional.grid_sample(self.plane.expand(len(place), -1, -1, -1), place, align_corners=True))
        return torch.sigmoid(self.shuffle(self.second(torch.relu(self.first(torch.cat(rays, 1))))))

    def forward(self, cameras: Cameras, height: int, width: int) -> Tensor:
        return images_of(self, cameras, height=height, width=width)


def pictures_by_torch(light_field: nn.Module) -> np.ndarray:
    """What torch draws at the cameras of FEEDS [n h w 3]."""
    with torch.no_grad():
        return light_field(CAMERAS, HEIGHT, WIDTH).numpy()
