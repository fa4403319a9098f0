"""Faces made unrecognisable for good: nothing that is drawn depends on a pixel of a face.

A blur or a mosaic is a function of the face, and can be matched or undone. Here the ellipse around a face is filled
with the colours that surround it, smooth and featureless, so that also training sees no hard edge; and the pixels that
were filled are known, so that training can leave them out.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor

from crowdnerf_lab.captures.privacy.faces import Face

CORE = 1.45
"""The ellipse that is wholly replaced, over the face's box: above sqrt(2) it holds the box's corners too."""
FADE = 1.25
"""Around the core the picture comes back within this many times the ellipse."""
MARGIN = 2.0
"""Pixels by which the core of even the smallest face is wider than its box."""
SURROUNDINGS = 1.6
"""The colours are taken from a window this many times as large as the faded ellipse."""
GREY = 128.0
"""Where a face fills the whole window there is nothing to take colours from."""


def anonymised(image: UInt8[Tensor, "h w 3"], faces: Sequence[Face]) -> UInt8[Tensor, "h w 3"]:
    """The picture with every face filled from its surroundings; the other pixels stay as they are, bit for bit.

    Deterministic. The original cannot be had back from the result: inside the faces' boxes nothing of it is left.
    """
    height, width = image.shape[:2]
    cover = _cover(faces, height, width)
    pixels = image.numpy()
    result = pixels.copy()
    for face in faces:
        window = _window(face, SURROUNDINGS * FADE, height, width)
        own = _ellipse(face, window) > 0
        hidden = cover[window][..., None]
        filling = _filled(pixels[window].astype(np.float32), cover[window] == 0)
        blended = np.round(hidden * filling + (1 - hidden) * pixels[window])
        result[window] = np.where(own[..., None], blended, result[window]).astype(np.uint8)
    return torch.from_numpy(result)


def hidden_pixels(faces: Sequence[Face], width: int, height: int) -> Bool[Tensor, "h w"]:
    """Which pixels `anonymised` changes in a picture of this size; their complement may be trained on."""
    return torch.from_numpy(_cover(faces, height, width) > 0)


_Window = tuple[slice, slice]


def _cover(faces: Sequence[Face], height: int, width: int) -> Float[ndarray, "h w"]:
    """How much of each pixel is replaced: 1 in the cores, falling smoothly to 0 around them."""
    cover = np.zeros((height, width), np.float32)
    for face in faces:
        window = _window(face, FADE, height, width)
        np.maximum(cover[window], _ellipse(face, window), out=cover[window])
    return cover


def _half_axes(face: Face) -> tuple[float, float]:
    """Of the core ellipse, pixels: across and down."""
    across, down = (face.right - face.left) / 2, (face.bottom - face.top) / 2
    return max(CORE * across, across + MARGIN), max(CORE * down, down + MARGIN)


def _window(face: Face, times: float, height: int, width: int) -> _Window:
    """The pixels within `times` the core ellipse's box."""
    across, down = _half_axes(face)
    x, y = (face.left + face.right) / 2, (face.top + face.bottom) / 2

    def span(centre: float, half: float, length: int) -> slice:
        first = int(np.floor(np.clip(centre - half, 0, length)))
        return slice(first, int(np.ceil(np.clip(centre + half, first, length))))

    return span(y, times * down, height), span(x, times * across, width)


def _ellipse(face: Face, window: _Window) -> Float[ndarray, "r c"]:
    """1 in the core ellipse, 0 beyond FADE times it, a smooth step between."""
    across, down = _half_axes(face)
    y = np.arange(window[0].start, window[0].stop) + 0.5 - (face.top + face.bottom) / 2
    x = np.arange(window[1].start, window[1].stop) + 0.5 - (face.left + face.right) / 2
    radius = np.hypot(y[:, None] / down, x / across)
    inward = ((FADE - radius) / (FADE - 1)).clip(0, 1)
    return (inward * inward * (3 - 2 * inward)).astype(np.float32)


def _filled(pixels: Float[ndarray, "h w 3"], known: Bool[ndarray, "h w"]) -> Float[ndarray, "h w 3"]:
    """The unknown pixels filled smoothly from the known ones, which alone are looked at.

    Pull-push (Gortler et al. 1996): average what is known over ever larger cells, then let each cell that knows nothing
    take the next larger one's colour.
    """
    if not known.any():
        return np.full_like(pixels, GREY)
    if known.all():
        return pixels
    height, width = known.shape
    weight = np.pad(known.astype(np.float32), ((0, height % 2), (0, width % 2)))
    light = np.pad(np.where(known[..., None], pixels, 0), ((0, height % 2), (0, width % 2), (0, 0)))
    weights = _quarters(weight)
    coarse = _quarters(light) / np.maximum(weights, 1e-6)[..., None]
    coarse = _filled(coarse.astype(np.float32), weights > 0)
    size = (light.shape[1], light.shape[0])
    planes = [Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR) for plane in np.moveaxis(coarse, -1, 0)]
    smooth = np.stack([np.asarray(plane) for plane in planes], axis=-1)[:height, :width]
    return np.where(known[..., None], pixels, smooth)


def _quarters(values: Float[ndarray, "h w *c"]) -> Float[ndarray, "r k *c"]:
    """Sums over cells of 2x2."""
    return values[::2, ::2] + values[1::2, ::2] + values[::2, 1::2] + values[1::2, 1::2]
