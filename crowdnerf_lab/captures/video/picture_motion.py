"""How far a camera has moved between two small pictures, whatever the light did meanwhile.

Phase correlation (Kuglin and Hines 1975): the phase of the cross-power spectrum knows the shift, its magnitude is
dropped, so that flashes and exposure change nothing. First the whole picture, then its blocks on top of that: blocks
also notice zoom, roll and parallax, and their median is not led astray by a performer who moves.
"""

import math

import numpy as np
from jaxtyping import Float32
from numpy.fft import fft2, ifft2

BLOCKS = (3, 4)
"""Rows and columns of blocks."""
TEXTURE = 0.004
"""A block whose grey values have a smaller standard deviation says nothing."""
SURE = 2.0
"""A peak counts when it is this many times as high as the highest one that unrelated pictures give."""
_PASS = 0.25
"""Standard deviation of the low-pass, cycles a pixel: finer detail is coding noise."""


def motion_between(before: Float32[np.ndarray, "h w"], after: Float32[np.ndarray, "h w"]) -> float:
    """Typical displacement of the picture's parts as a fraction of its width; NaN where the two do not match.

    Displacements up to half the picture can be seen.
    """
    height, width = before.shape
    whole, sure = _shifts(before[None], after[None])
    if not sure[0]:
        return math.nan
    moved = np.roll(after, tuple(-whole[0]), axis=(0, 1))
    blocks_before, blocks_after = _blocks(before), _blocks(moved)
    local, sure = _shifts(blocks_before, blocks_after)
    comparable = (blocks_before.std(axis=(1, 2)) > TEXTURE) & _inside(whole[0], (height, width))
    sure &= comparable
    if 2 * sure.sum() < comparable.sum():
        return math.nan
    shifts = (whole + local[sure]) if sure.any() else whole
    return float(np.median(np.hypot(*shifts.T))) / width


def _inside(shift: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Blocks that the shift has not wrapped around the picture's edge."""
    rows, columns = BLOCKS
    top = np.repeat(np.arange(rows), columns) * (size[0] // rows)
    left = np.tile(np.arange(columns), rows) * (size[1] // columns)
    down, right = top + size[0] // rows + shift[0], left + size[1] // columns + shift[1]
    return (top + shift[0] >= 0) & (down <= size[0]) & (left + shift[1] >= 0) & (right <= size[1])


def _blocks(picture: np.ndarray) -> np.ndarray:
    rows, columns = BLOCKS
    height, width = picture.shape[0] // rows, picture.shape[1] // columns
    cut = picture[: rows * height, : columns * width].reshape(rows, height, columns, width)
    return cut.swapaxes(1, 2).reshape(rows * columns, height, width)


def _shifts(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Displacement (rows, columns) of each picture [n h w] in whole pixels, and whether its peak can be trusted."""
    height, width = before.shape[1:]
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1]).astype(np.float32)
    spectra = [fft2((stack - stack.mean(axis=(1, 2), keepdims=True)) * window) for stack in (before, after)]
    cross = np.conj(spectra[0]) * spectra[1]
    low = np.exp(-0.5 * (np.fft.fftfreq(height)[:, None] ** 2 + np.fft.fftfreq(width) ** 2) / _PASS**2)
    surface = ifft2(low * cross / np.maximum(np.abs(cross), 1e-12)).real
    flat = surface.reshape(len(before), -1)
    best = flat.argmax(axis=1)
    noise = math.sqrt(2 * math.log(height * width) * float((low**2).mean()) / (height * width))
    shift = np.stack(np.divmod(best, width), axis=1)
    size = np.array([height, width])
    return (shift + size // 2) % size - size // 2, flat.max(axis=1) > SURE * noise
