"""How bright, clipped, sharp and noisy one photo is: numbers that rank the photos of one phone in one place."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
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
_NOISE_BLOCK = 16
"""Side in pixels of the blocks that noise is looked for in."""
_SMOOTHEST = 0.2
"""Quantile over the blocks: where a photo shows least, what is left is noise."""
_BLACK = 8
"""A channel below this byte has lost its noise, as one above `_CLIPPED` has."""
_ROUNDING = 0.5 / 255
"""Noise is not told below this standard deviation: half a byte."""


@dataclass(frozen=True)
class PhotoQuality:
    """highlights: log2 of the 95th percentile of linear luminance, stops below white (<= 0).
    clipped: fraction of pixels with a channel at its end. sharpness: see `sharpness_of`, stops. noise: see `noise_of`,
    stops.
    """

    highlights: float
    clipped: float
    sharpness: float
    noise: float


def measure_photo(photo: UInt8[Tensor, "h w 3"]) -> PhotoQuality:
    """Brightness, clipping, sharpness and noise of a photo."""
    photo = _at_measured_size(photo)
    pixels = photo.numpy()
    light_of_byte = srgb_to_linear(torch.arange(256) / 255).numpy()
    luminance = light_of_byte[pixels] @ np.array(_LUMINANCE, dtype=np.float32)
    return PhotoQuality(
        highlights=math.log2(max(float(np.quantile(luminance, 0.95)), _FLOOR)),
        clipped=float((brightest_of(pixels) >= _CLIPPED).mean()),
        sharpness=sharpness_of(measured_grey(photo)),
        noise=noise_of(pixels),
    )


def measured_grey(photo: UInt8[Tensor, "h w 3"]) -> Float[Tensor, "_ _"]:
    """Mean of the channels in [0, 1], at the size at which photos are measured."""
    return torch.from_numpy(mean_of(_at_measured_size(photo).numpy()) / 255)


def mean_of(pixels: UInt8[np.ndarray, "*n 3"]) -> Float32[np.ndarray, "*n"]:
    """Mean of the channels, in bytes. Channel by channel: numpy reduces an axis of three ten times as slowly."""
    return (pixels[..., 0].astype(np.float32) + pixels[..., 1] + pixels[..., 2]) / np.float32(3)


def brightest_of(pixels: UInt8[np.ndarray, "*n 3"]) -> UInt8[np.ndarray, "*n"]:
    """The largest channel of each pixel."""
    return np.maximum(np.maximum(pixels[..., 0], pixels[..., 1]), pixels[..., 2])


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


def noise_of(pixels: UInt8[np.ndarray, "h w 3"]) -> float:
    """Standard deviation of the brightness where a photo is smoothest, as log2 of the full range; at least half a byte.

    The diagonal detail (a - b - c + d) / 2 of the finest Haar wavelet has the deviation of white noise and none of a
    slope (Donoho and Johnstone 1994; a smaller kernel than that of Immerkaer 1996, with the same end). Its deviation is
    taken block by block, in blocks that are neither black nor clipped, and the quantile `_SMOOTHEST` of those counts.
    """
    grey = mean_of(pixels) / 255
    detail = (grey[:-1, :-1] - grey[:-1, 1:] - grey[1:, :-1] + grey[1:, 1:]) / 2
    brightest = brightest_of(pixels[:-1, :-1])
    usable = (brightest >= _BLACK) & (brightest < _CLIPPED)
    rows, columns = detail.shape[0] // _NOISE_BLOCK, detail.shape[1] // _NOISE_BLOCK
    shape = (rows, _NOISE_BLOCK, columns, _NOISE_BLOCK)
    whole = (slice(rows * _NOISE_BLOCK), slice(columns * _NOISE_BLOCK))
    energy = (detail[whole] ** 2).reshape(shape).mean((1, 3))
    inside = usable[whole].reshape(shape).mean((1, 3)) > 0.9
    deviation = float(np.sqrt(np.quantile(energy[inside], _SMOOTHEST))) if inside.any() else 0.0
    return math.log2(max(deviation, _ROUNDING))


def _at_measured_size(photo: UInt8[Tensor, "h w 3"]) -> UInt8[Tensor, "_ _ 3"]:
    height, width = photo.shape[:2]
    shrink = MEASURED_SIZE / max(height, width)
    if shrink >= 1:
        return photo
    return area_resized(photo, max(1, round(width * shrink)), max(1, round(height * shrink)))
