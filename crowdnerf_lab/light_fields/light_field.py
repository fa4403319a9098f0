"""What every light field offers: cameras in, images out, one forward pass a frame; and the rays it starts from.

A light field sees the image as cells of `cell` x `cell` pixels: it is asked one ray a cell, through the cell's centre,
and returns all the cell's pixels (super-resolution, MobileR2L, Cao et al. 2023; one pixel a cell is R2L, Wang et al.
2022). Letters: n cameras, r rows and c columns of cells.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crowdnerf_lab.cameras import Cameras, undistorted


class LightFieldError(ValueError):
    """A light field that cannot be made or read; the message says why and what to do."""


@runtime_checkable
class LightField(Protocol):
    """A scene as a function from rays to colours, without marching (R2L, Wang et al. 2022). An nn.Module.

    size: the name of its size ('XS', 'S', ...). view_size: (width, height) of the images that it is distilled for; a
    light field knows rays, not pixels, so it draws cells of that angular size.
    """

    size: str
    view_size: tuple[int, int]

    @property
    def cell(self) -> int:
        """Pixels along a cell's side: 8 or 4 of super-resolution, 1 without."""
        ...

    @property
    def architecture(self) -> str:
        """What it is made of, in one line."""
        ...

    @property
    def cells_are_independent(self) -> bool:
        """Whether a cell's pixels depend on its own ray alone, so that training may mix cells of different views."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """As nn.Module's; so are the three that follow."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> object: ...

    def eval(self) -> nn.Module: ...

    def __call__(self, cameras: Cameras, height: int, width: int) -> Float[Tensor, "*n h w 3"]:
        """As `forward`."""
        ...

    def forward(self, cameras: Cameras, height: int, width: int) -> Float[Tensor, "*n h w 3"]:
        """Images of the cameras, sRGB in [0, 1], at the given size (the cameras' field of view is kept)."""
        ...

    def from_rays(
        self, origins: Float[Tensor, "n 3 #r #c"], directions: Float[Tensor, "n 3 r c"]
    ) -> Float[Tensor, "n 3 h w"]:
        """Images, channels first, from the rays through the cells' centres: what a device's graph computes."""
        ...


def cells_across(pixels: int, cell: int) -> int:
    """Cells that cover a side of an image; the last one may reach beyond the border."""
    return -(-pixels // cell)


def cell_centres(rows: int, columns: int, *, cell: int) -> Float[Tensor, "r c 2"]:
    """Pixel positions (u, v) of the cells' centres."""
    v, u = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
    return cell * torch.stack([u, v], dim=-1)


def rays_through_plane(
    camera_to_world: Float[Tensor, "n 3 4"], plane: Float[Tensor, "n r c 2"]
) -> tuple[Float[Tensor, "n 3 1 1"], Float[Tensor, "n 3 r c"]]:
    """Origins and unit directions, channels first, of rays through points (x, y) on the cameras' planes z = 1."""
    x, y = plane[..., 0].unsqueeze(1), plane[..., 1].unsqueeze(1)
    right, down, forward, position = (camera_to_world[:, :, i, None, None] for i in range(4))
    directions = right * x + down * y + forward
    return position, directions / directions.square().sum(dim=1, keepdim=True).sqrt()


def cell_rays(
    cameras: Cameras, rows: int, columns: int, *, cell: int
) -> tuple[Float[Tensor, "n 3 1 1"], Float[Tensor, "n 3 r c"]]:
    """Origins and unit directions, channels first, of rays through the cells' centres; lens distortion is undone."""
    pixels = cell_centres(rows, columns, cell=cell).to(cameras.focal)
    observed = (pixels - cameras.centre[:, None, None]) / cameras.focal[:, None, None]
    distortion = cameras.distortion[:, None, None].expand(*observed.shape[:-1], 4)
    return rays_through_plane(cameras.camera_to_world, undistorted(observed, distortion))


def images_of(light_field: LightField, cameras: Cameras, *, height: int, width: int) -> Float[Tensor, "n h w 3"]:
    """A light field's images of n cameras; cells that reach beyond the border are cut."""
    cell = light_field.cell
    rays = cell_rays(cameras.resized(width, height), cells_across(height, cell), cells_across(width, cell), cell=cell)
    return light_field.from_rays(*rays)[:, :, :height, :width].permute(0, 2, 3, 1)
