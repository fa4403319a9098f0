"""How bright, how clipped and how sharp one photo is: numbers that rank the photos of one phone in one place."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from scipy.ndimage import gaussian_filter
from torch import Tensor

from crowdnerf_lab.fields.appearance import srgb_to_linear
from crowdnerf_lab.scene import area_resized

MEASURED_SIZE = 640
"""Longer side in pixels at which photos are measured: about the size fields are trained at. Larger ones are shrunk."""
_LUMINANCE = (0.2126, 0.7152, 0.0722)
"""Rec. 709 weights of linear red, green, blue."""
_CLIPPED = 250
"""A channel from this byte on has lost its shape."""
_DENOISE_PX = 1.2
"""Standard deviation of the Gaussian that keeps the noise of dark photos from passing for sharpness."""
_FLOOR = 1e-6


@dataclass(frozen=True)
class PhotoQuality:
    """highlights: log2 of the 95th percentile of linear luminance, stops below white (<= 0).
    clipped: fraction of pixels with a channel at its end. sharpness: see `sharpness_of`, stops.
    """

    highlights: float
    clipped: float
    sharpness: float


def measure_photo(photo: UInt8[Tensor, "h w 3"]) -> PhotoQuality:
    """Brightness, clipping and sharpness of a photo."""
    height, width = photo.shape[:2]
    shrink = MEASURED_SIZE / max(height, width)
    if shrink < 1:
        photo = area_resized(photo, max(1, round(width * shrink)), max(1, round(height * shrink)))
    pixels = photo.numpy()
    light_of_byte = srgb_to_linear(torch.arange(256) / 255).numpy()
    luminance = light_of_byte[pixels] @ np.array(_LUMINANCE, dtype=np.float32)
    return PhotoQuality(
        highlights=math.log2(max(float(np.quantile(luminance, 0.95)), _FLOOR)),
        clipped=float((pixels >= _CLIPPED).any(-1).mean()),
        sharpness=sharpness_of(torch.from_numpy(pixels.mean(-1, dtype=np.float32) / 255)),
    )


def sharpness_of(grey: Float[Tensor, "h w"]) -> float:
    """Gradient energy in the direction that has least of it, relative to the picture's variance, as log2.

    The smaller eigenvalue of the structure tensor mean(g g^T) of the denoised gradients g (Förstner 1987), divided by
    the variance: motion blur takes it away along its path, defocus everywhere, while exposure and contrast cancel.
    A picture of one even colour has none: log2(1e-6).
    """
    smooth = gaussian_filter(grey.numpy(), _DENOISE_PX)
    if min(smooth.shape) < 2:
        return math.log2(_FLOOR)
    vertical, horizontal = np.gradient(smooth)
    tensor = np.cov(np.stack([horizontal.ravel(), vertical.ravel()]), bias=True)
    return math.log2(max(float(np.linalg.eigvalsh(tensor)[0] / max(smooth.var(), _FLOOR)), _FLOOR))
