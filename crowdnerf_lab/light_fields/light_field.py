"""What every light field offers: cameras in, images out, one forward pass a frame; and the rays it starts from.

A light field sees the image as cells of CELL x CELL pixels: it is asked one ray a cell, through the cell's centre, and
returns all the cell's pixels (super-resolution). Letters: n cameras, r rows and c columns of cells.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from crowdnerf_lab.cameras import Cameras, undistorted

CELL = 8
"""Pixels along a cell's side: the super-resolution factor of MobileR2L (Cao et al. 2023)."""


@runtime_checkable
class LightField(Protocol):
    """A scene as a function from rays to colours, without marching (R2L, Wang et al. 2022). An nn.Module."""

    def forward(self, cameras: Cameras, height: int, width: int) -> Float[Tensor, "*n h w 3"]:
        """Images of the cameras, sRGB in [0, 1], at the given size (the cameras' field of view is kept)."""
        ...

    def from_rays(
        self, origins: Float[Tensor, "n 3 #r #c"], directions: Float[Tensor, "n 3 r c"]
    ) -> Float[Tensor, "n 3 h w"]:
        """Images, channels first, from the rays through the cells' centres: what a device's graph computes."""
        ...


def cells_across(pixels: int) -> int:
    """Cells that cover a side of an image; the last one may reach beyond the border."""
    return -(-pixels // CELL)


def cell_centres(rows: int, columns: int) -> Float[Tensor, "r c 2"]:
    """Pixel positions (u, v) of the cells' centres."""
    v, u = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
    return CELL * torch.stack([u, v], dim=-1)


def rays_through_plane(
    camera_to_world: Float[Tensor, "n 3 4"], plane: Float[Tensor, "n r c 2"]
) -> tuple[Float[Tensor, "n 3 1 1"], Float[Tensor, "n 3 r c"]]:
    """Origins and unit directions, channels first, of rays through points (x, y) on the cameras' planes z = 1."""
    x, y = plane[..., 0].unsqueeze(1), plane[..., 1].unsqueeze(1)
    right, down, forward, position = (camera_to_world[:, :, i, None, None] for i in range(4))
    directions = right * x + down * y + forward
    return position, directions / directions.square().sum(dim=1, keepdim=True).sqrt()


def cell_rays(cameras: Cameras, rows: int, columns: int) -> tuple[Float[Tensor, "n 3 1 1"], Float[Tensor, "n 3 r c"]]:
    """Origins and unit directions, channels first, of rays through the cells' centres; lens distortion is undone."""
    pixels = cell_centres(rows, columns).to(cameras.focal)
    observed = (pixels - cameras.centre[:, None, None]) / cameras.focal[:, None, None]
    distortion = cameras.distortion[:, None, None].expand(*observed.shape[:-1], 4)
    return rays_through_plane(cameras.camera_to_world, undistorted(observed, distortion))
