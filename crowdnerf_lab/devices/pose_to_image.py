"""What every export target is given: a module from a camera's pose and intrinsics to one image."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crowdnerf_lab.light_fields.light_field import LightField, cell_centres, cells_across, rays_through_plane

INPUTS, OUTPUT = ("camera_to_world", "focal", "centre"), "image"
LARGEST_SIDE = 8192
"""Pixels; beyond, the size is a slip of the pen rather than a device."""


class ExportError(ValueError):
    """A light field that cannot be exported; the message says why and what to do."""


class PoseToImage(nn.Module):
    """A light field at one image size, asked with the pose of an ideal pinhole camera: what is exported.

    camera_to_world: OpenCV axes. focal, centre: pixels of the full image, not of cells. Raises ExportError for a size
    that is no image's.
    """

    cell_pixels: Float[Tensor, "r c 2"]

    def __init__(self, light_field: LightField, *, width: int, height: int) -> None:
        super().__init__()
        if not (0 < width <= LARGEST_SIDE and 0 < height <= LARGEST_SIDE):
            raise ExportError(f"cannot export images of {width} x {height} pixels; choose sides of 1 to {LARGEST_SIDE}")
        self.light_field, self.width, self.height = light_field, width, height
        cell = light_field.cell
        rows, columns = cells_across(height, cell), cells_across(width, cell)
        self.register_buffer("cell_pixels", cell_centres(rows, columns, cell=cell))

    def forward(
        self, camera_to_world: Float[Tensor, "3 4"], focal: Float[Tensor, "2"], centre: Float[Tensor, "2"]
    ) -> Float[Tensor, "1 h w 3"]:
        """One image, sRGB in [0, 1]."""
        plane = (self.cell_pixels - centre) / focal
        image = self.light_field.from_rays(*rays_through_plane(camera_to_world.unsqueeze(0), plane.unsqueeze(0)))
        return image[:, :, : self.height, : self.width].permute(0, 2, 3, 1)

    def example(self) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs to trace with."""
        width, height = float(self.width), float(self.height)
        return torch.eye(3, 4), torch.tensor([width, width]), torch.tensor([width / 2, height / 2])


def traced_program(module: PoseToImage) -> torch.export.ExportedProgram:
    """The module's operations as torch.export sees them."""
    with quiet_tracing():
        return torch.export.export(cast(nn.Module, module.eval()), module.example())


@contextmanager
def quiet_tracing(*talkative: str) -> Iterator[None]:
    """Hide what torch 2.13 and the converters say of their own insides; errors are still raised.

    talkative: loggers that report every rewrite.
    """
    talkers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "torch.utils._pytree", *talkative)]
    levels = [talker.level for talker in talkers]
    for talker in talkers:
        talker.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=FutureWarning)
            warnings.simplefilter("ignore", category=DeprecationWarning)
            yield
    finally:
        for talker, level in zip(talkers, levels, strict=True):
            talker.setLevel(level)
