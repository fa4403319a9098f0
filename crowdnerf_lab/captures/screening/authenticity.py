"""Whether a picture came out of a lens: what drawings, edited pictures and photos of displays give away.

Each measure looks at the pixels as they came, never shrunk: a sensor's grain, exact repeats and the grid of a display
do not survive shrinking. Large pictures are sampled by tiles.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from torch import Tensor

from crowdnerf_lab.captures.screening.quality import brightest_of, mean_of

TILE = 64
"""Side of the tiles that are looked at, pixels."""
BLOCK = 16
"""Side of the blocks of a tile, pixels; a multiple of the 8 of JPEG."""
MOST_TILES = 16
"""Tiles along a side; more are not looked at: a megapixel in all, spread over the picture."""
DISPLAY_TILES = 8
"""Tiles along a side for the spectrum, which settles with fewer."""
_BLACK = 12
"""A pixel with every channel below this byte is black: dark halls have no grain left there."""
_GRAIN = 3
"""Mixed second difference, summed over the channels, up to which a block has no grain: fox and lund have more."""
_UNIFORM, _SAME, _OTHER = 6, 3, 12
"""Bytes: range within a line of a bar, change from line to line, and step at the bar's end."""
_FEWEST_LINES = 3
"""Of a bar."""
_END = 16
"""Lines over which JPEG smears the end of a bar: a block of colours at half the size."""
_DECIBELS = 10 / math.log(10)
"""Of a natural logarithm of power."""
_SLOWEST = 0.14
"""Cycles per pixel: bricks and railings repeat more slowly, the pixels of a display that fills the picture faster."""
_MOST = 0.4
"""Quantile over tiles: a display's grid is in most of them, a fence or an LED wall in some."""
_FLOOR_BINS = 11
_QUIET = 30.0
"""Power that rounding to bytes and JPEG leave in every bin of a tile."""


@dataclass(frozen=True)
class PhotoAuthenticity:
    """drawn: fraction of the picture without a sensor's grain, see `drawn_fraction`. framed: fraction in bars along its
    edges, see `framed_fraction`. grid: how far a regular grid stands out of its spectrum, dB, see `grid_strength`.
    """

    drawn: float
    framed: float
    grid: float


def authenticity_of(photo: UInt8[Tensor, "h w 3"]) -> PhotoAuthenticity:
    """The three measures of a photo at its full size."""
    pixels = photo.numpy()
    return PhotoAuthenticity(drawn=drawn_fraction(pixels), framed=framed_fraction(pixels), grid=grid_strength(pixels))


def drawn_fraction(pixels: UInt8[np.ndarray, "h w 3"]) -> float:
    """Fraction of the blocks, black ones aside, that no sensor can have made: half of their pixels equal their right
    and lower neighbours exactly, or nowhere in them is there any grain.

    Photos have 0 to 0.1; screenshots, charts, pages, cartoons and gradients 0.4 to 1, also saved as JPEG or shrunk.
    A picture that is all black is 1; one smaller than a block 0.
    """
    if min(pixels.shape[:2]) < BLOCK:
        return 0.0
    drawn, black = [], []
    for tile in _tiles(pixels, min(TILE, *pixels.shape[:2]), most=MOST_TILES):
        values = tile.astype(np.int16)
        here, right, below = values[:-1, :-1], values[:-1, 1:], values[1:, :-1]
        exact = ((here == right) & (here == below)).all(-1)
        grain = np.abs((here - right - below + values[1:, 1:]).sum(-1, dtype=np.int16))
        repeats = _blocks(exact).mean(-1) >= 0.5
        drawn.append(repeats | (_blocks(grain > _GRAIN).mean(-1) < 0.01))
        black.append(_blocks(brightest_of(tile[:-1, :-1]) < _BLACK).mean(-1) > 0.9)
    found, dark = np.concatenate(drawn), np.concatenate(black)
    return float(found.mean() if dark.mean() > 0.98 else found[~dark].mean())


def framed_fraction(pixels: UInt8[np.ndarray, "h w 3"]) -> float:
    """Fraction of the picture in bars of one colour along its edges that end in a straight line.

    Letterboxes, screen recordings and captions have them; a dark ceiling or a clipped sky ends where things stand.
    """
    height, width = pixels.shape[:2]
    top, bottom = _bar(pixels), _bar(pixels[::-1])
    left, right = (_bar(side) for side in (pixels.swapaxes(0, 1), pixels[:, ::-1].swapaxes(0, 1)))
    return float(1 - (1 - (top + bottom) / height) * (1 - (left + right) / width))


def grid_strength(pixels: UInt8[np.ndarray, "h w 3"]) -> float:
    """How far the strongest regular grid stands out of the picture's spectrum, dB above its surroundings.

    The spectra of windowed tiles, of brightness and of red minus blue, are brought together by a low quantile, so that
    only what repeats all over the picture remains: the pixels of a display, or their beat with the camera's own
    (moiré). Left out are slow repeats and the 8-pixel lattice of JPEG. 0 for
    pictures less than two tiles wide or high.
    """
    if min(pixels.shape[:2]) < 2 * TILE:
        return 0.0
    tiles = np.stack(list(_tiles(pixels, TILE, most=DISPLAY_TILES, overlapping=True)))
    window = np.hanning(TILE).astype(np.float32)
    down, across = np.abs(np.fft.fftfreq(TILE)), np.fft.rfftfreq(TILE)
    lattice = [np.isclose(8 * frequency, np.round(8 * frequency)) for frequency in (down, across)]
    usable = (np.hypot(down[:, None], across) > _SLOWEST) & ~(lattice[0][:, None] & lattice[1])
    strongest = 0.0
    for plane in (mean_of(tiles), tiles[..., 0].astype(np.float32) - tiles[..., 2]):
        centred = (plane - plane.mean((1, 2), keepdims=True)) * window[:, None] * window
        power = np.log(np.abs(np.fft.rfft2(centred)) ** 2 + _QUIET)
        common = np.quantile(power, _MOST, axis=0)
        mirrored = np.roll(common[::-1], 1, axis=0)[:, -2:0:-1]
        floor = median_filter(np.concatenate([common, mirrored], axis=1), size=_FLOOR_BINS, mode="wrap")
        strongest = max(strongest, float((common - floor[:, : common.shape[1]])[usable].max()))
    return float(strongest * _DECIBELS)


def _tiles(
    pixels: UInt8[np.ndarray, "h w 3"], side: int, *, most: int, overlapping: bool = False
) -> Iterator[UInt8[np.ndarray, "_ _ 3"]]:
    """Square tiles spread evenly over a picture; overlapping ones are up to twice as dense."""
    starts = []
    for length in pixels.shape[:2]:
        fitting = 2 * (length // side) - 1 if overlapping else length // side
        starts.append(np.linspace(0, length - side, min(most, fitting)).astype(int))
    for top in starts[0]:
        for left in starts[1]:
            yield pixels[top : top + side, left : left + side]


def _blocks(values: NDArray[Any]) -> NDArray[Any]:
    """The blocks of a tile, a row each. A tile's differences lack a line and a column: the last ones stand twice."""
    full = np.pad(values, ((0, 1), (0, 1)), mode="edge")
    rows, columns = full.shape[0] // BLOCK, full.shape[1] // BLOCK
    whole = full[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK)
    return whole.transpose(0, 2, 1, 3).reshape(rows * columns, BLOCK * BLOCK)


def _bar(pixels: UInt8[np.ndarray, "h w 3"]) -> int:
    """Lines of one colour from the top on, if they end in a straight line; else none."""
    colour = pixels[0].min(0).astype(np.int16)
    count = 0
    for line in pixels:
        lowest, highest = line.min(0).astype(np.int16), line.max(0).astype(np.int16)
        if (highest - lowest > _UNIFORM).any() or (np.abs(lowest - colour) > _SAME).any():
            break
        count += 1
    if count < _FEWEST_LINES or count + _END >= len(pixels):
        return 0
    beyond = pixels[count + _END].astype(np.int16)
    step = np.abs(beyond - colour).max(-1) > _OTHER
    return count if step.mean() > 0.5 else 0
