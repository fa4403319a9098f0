"""A glance at the held-out views: a few of their pixels, always the same, enough for a training curve and quick."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from crowdnerf_lab.fields.storage import Field
from crowdnerf_lab.metrics import psnr
from crowdnerf_lab.pixels import pixel_table, rays_of_pixels
from crowdnerf_lab.rays import Rays
from crowdnerf_lab.scene import PosedScene

HELD_OUT_PIXELS = 4096
"""Pixels of held-out views looked at for a line of the training curve."""


@dataclass(frozen=True)
class HeldOutGlance:
    """Rays through held-out pixels, their true sRGB colours, and the row in the scene of the view each comes from."""

    rays: Rays
    truth: Float[Tensor, "n 3"]
    view: Int[Tensor, "n"]

    @classmethod
    def of(cls, scene: PosedScene) -> "HeldOutGlance | None":
        """Pixels spread over all held-out views; None for a scene without any."""
        if len(scene.held_out) == 0:
            return None
        pixels = pixel_table(replace(scene, train=scene.held_out))
        drawn = torch.from_numpy(np.random.default_rng(0).integers(0, len(pixels), HELD_OUT_PIXELS))
        view = pixels.photo[drawn].long()
        rays = rays_of_pixels(scene.cameras, pixels.plane[drawn], view, scene.time_of_image)
        return cls(rays=rays, truth=pixels.colour[drawn].to(torch.float32) / 255, view=view)

    @torch.no_grad()
    def psnr(self, model: Field) -> tuple[float, dict[int, float]]:
        """PSNR of all the pixels, and of those of each view by its row, dB."""
        shown = model.render(self.rays).colour.clamp(0, 1)
        views = {row: self.view == row for row in self.view.unique().tolist()}
        return psnr(shown, self.truth), {row: psnr(shown[own], self.truth[own]) for row, own in views.items()}
