"""Is a new field better than the one before? Both are asked for the photos that no field ever learned from."""

import math

import torch

from crowdnerf_lab.fields.storage import Field
from crowdnerf_lab.metrics import affine_fitted, psnr_of_mse
from crowdnerf_lab.rendering import render_view
from crowdnerf_lab.scene import PosedScene

JUDGED_SIDE = 160
"""Pixels of the longer side at which photos are compared: which of two fields is better shows there as well, and in a
quarter of the time."""


@torch.no_grad()
def psnr_on_judges(field: Field, scene: PosedScene, *, views: int) -> float | None:
    """PSNR, dB, of a field on the first `views` held-out photos, pooled over their pixels; None when there are none.

    Each photo's exposure and white balance are fitted first (`affine_fitted`): they are its phone's, not the scene's.
    """
    rows = scene.held_out[:views]
    if not len(rows):
        return None
    longer = int(torch.maximum(scene.cameras.width[rows], scene.cameras.height[rows]).max())
    small = scene.downscaled(max(1, round(longer / JUDGED_SIDE)))
    total, count = 0.0, 0
    for row in rows.tolist():
        truth, seen = small.image(row), render_view(field, small.cameras, row).colour.clamp(0, 1)
        error = (affine_fitted(seen, truth) - truth) ** 2
        if small.masks is not None:
            error = error[small.masks[row]]
        total, count = total + float(error.sum()), count + error.numel()
    return psnr_of_mse(total / count) if count else None


def gain(psnr: float | None, before: float | None) -> float:
    """dB won; 0 where nothing was measured."""
    return 0.0 if psnr is None or before is None or not math.isfinite(psnr - before) else psnr - before
