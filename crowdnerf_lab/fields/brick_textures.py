"""A baked field as two 3-D RGBA8 textures and a few uniforms: what a WebGL2 fragment shader marches.

Letters: (x, y, z) coordinates of the contracted cube in [0, 1), C cells a side. Both textures are stored z fastest, so
texture coordinates are (s, t, r) = (z, y, x): upload the arrays as they are, with their shape [depth height width 4].

`cells` [C C C 4], filter NEAREST. One texel says what a cell holds: bits of R + 256 G + 65536 B, or of the whole texel
read as one little-endian word (R32UI)

    0-21 number n of the brick among those of its kind    22-23 kind (0 empty; 1, 2, 3: brick of 1, 2, 4 intervals)

    A (bits 24-31), cell occupied: code of its density, exp((255 A - 128) / 16) in units of `density_scale`
    A, cell empty: Chebyshev distance 255 A in cells to the nearest occupied cell

`bricks` [depth height width 4], filter LINEAR. A vertex has m texels: 1 at SH degree 0, 4 at degree 1 (base, then what
turns with x, y, z of the direction of view d). A brick of v = 2, 3, 5 vertices a side carries its own border, so that
filtering never mixes two bricks; its m times v^3 texels lie side by side, so that a ray meets all of them in a few
lines of a cache (in a narrow atlas: 30 % less time a picture without a graphics processor). Brick n of kind k begins at

    z0 = m v (n mod w),  y0 = v ((n / w) mod h),  x0 = kind_begins[k - 1] + v (n / w / h),  w = width / (m v),
    h = height / v

(all divisions whole). At a position whose cell is c and whose fraction inside it is f in [0, 1)^3, sample texel j at

    (z0 + j v, y0, x0) + 0.5 + (v - 1) f.zyx, in texels

With bytes b = 255 * sample, colours and density per metre are

    logit.rgb = sum_j e_j (b_j.rgb - 128) units_j.rgb,  e = (1, q d.x, q d.y, q d.z),  q = sqrt(3)
    colour = 1 / (1 + exp(-logit))
    density = density_scale * exp(min((b_0.a - zero_log_density) units_0.a, 11))

The march. World to cube: p = (position - centre) / half_size, m = max |p|; if m > 1, divide p by m and multiply its
largest coordinate by 2 - 1 / m; then p / 4 + 1 / 2. Steps k = 0, 1, ... begin at t = near * ratio^(k + 1/2), are
t (ratio - 1) long, and end with the first whose middle lies beyond far. A step whose middle lies in an empty cell of
distance D is skipped, and with it all whose middles are less than a / max |d / half_size| metres behind it:

    a = min(4 (D - 1) / C, 1 - m)  inside the box (m <= 1),  a = min(4 (D - 1) / C, m - second largest |p|) / 2  outside

(the contraction jumps where another axis becomes the largest: no leap may cross that). In an occupied cell of density
s, the step lets exp(-s length) through; it is divided into ceil(refine * expected * (1 - that)) equal parts, 1 to
`finest`, where `expected` is the product of what earlier steps let through by their cells. Each part is a sample at its
middle, unless its own cell is empty. Composite front to back; stop when less than 1/256 passes; what passes shows the
background.
"""

import math
from dataclasses import dataclass

import numpy as np

from crowdnerf_lab.fields.bricks import INTERVALS, Bricks

MAX_SIDE = 2048
"""Texels a side that every WebGL2 implementation of note allows; the standard asks for 256."""
COMMON_SIDE = 30
"""Bricks of 2, 3 and 5 vertices a side fill a multiple of this."""


class BrickTexturesError(ValueError):
    """Textures that cannot be made; the message says why and what to do."""


@dataclass(frozen=True)
class BrickTextures:
    """Two textures, uint8 [depth height width 4], and the uniforms; the module's docstring says how a shader samples
    them. units [texels 4] float32; centre, half_size [3] metres; background [3]; near, far metres."""

    cells: np.ndarray
    bricks: np.ndarray
    units: np.ndarray
    centre: np.ndarray
    half_size: np.ndarray
    background: np.ndarray
    kind_begins: tuple[int, int, int]
    zero_log_density: float
    density_scale: float
    near: float
    far: float
    ratio: float
    refine: int
    finest: int

    @property
    def bytes(self) -> int:
        """Memory the textures take on the graphics processor."""
        return self.cells.nbytes + self.bricks.nbytes


def textures_of(
    bricks: Bricks,
    *,
    centre: np.ndarray,
    half_size: np.ndarray,
    background: np.ndarray,
    near: float,
    far: float,
    ratio: float,
    density_scale: float,
    refine: int,
    finest: int,
) -> BrickTextures:
    """Lay bricks out in textures. Raises BrickTexturesError when they exceed MAX_SIDE a side."""
    cells, texels = bricks.cells, bricks.texels.shape[1] // 4
    counts = np.bincount(bricks.kinds, minlength=4)[1:].tolist()
    (depth, height, width), kind_begins = atlas_layout(counts, texels=texels, cells=cells)
    atlas = np.zeros((depth, height, width, 4), np.uint8)
    for kind, parts in enumerate(INTERVALS, start=1):
        v, count = parts + 1, counts[kind - 1]
        first = int(bricks.kind_firsts[kind])
        across, down = COMMON_SIDE // v, height // v
        part = atlas[kind_begins[kind - 1] : (*kind_begins, depth)[kind]]
        slots = np.zeros((len(part) // v * down * across, v, v, v, texels, 4), np.uint8)
        slots[:count] = bricks.texels[first : first + count * v**3].reshape(count, v, v, v, texels, 4)
        grid = slots.reshape(-1, down, across, v, v, v, texels, 4)
        part[...] = grid.transpose(0, 3, 1, 4, 2, 6, 5, 7).reshape(part.shape)
    return BrickTextures(
        cells=bricks.words.astype("<u4").view(np.uint8).reshape(cells, cells, cells, 4),
        bricks=atlas,
        units=bricks.units.reshape(4, 4)[:texels].copy(),
        centre=centre,
        half_size=half_size,
        background=background,
        kind_begins=kind_begins,
        zero_log_density=float(bricks.zeros[3]),
        density_scale=density_scale,
        near=near,
        far=far,
        ratio=ratio,
        refine=refine,
        finest=finest,
    )


def atlas_layout(counts: list[int], *, texels: int, cells: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Depth, height and width of an atlas of so many bricks of each kind, with so many texels a vertex, and the depth
    at which each kind begins. Raises BrickTexturesError when it exceeds MAX_SIDE a side."""
    height, width = _height(counts), COMMON_SIDE * texels
    layers = [_layers(count, parts + 1, height) for count, parts in zip(counts, INTERVALS, strict=True)]
    depth = sum(layers)
    if max(width, height, depth, cells) > MAX_SIDE:
        raise BrickTexturesError(
            f"{sum(counts)} bricks take {depth} x {height} x {width} texels, more than {MAX_SIDE} a side; "
            "bake fewer levels or a smaller region"
        )
    return (depth, height, width), (0, layers[0], layers[0] + layers[1])


def _height(counts: list[int]) -> int:
    """Texels of height at which an atlas COMMON_SIDE vertices wide is about as deep as high."""
    vertices = sum(count * (parts + 1) ** 3 for count, parts in zip(counts, INTERVALS, strict=True))
    return COMMON_SIDE * max(1, math.ceil(math.sqrt(vertices / COMMON_SIDE) / COMMON_SIDE))


def _layers(count: int, v: int, height: int) -> int:
    """Texels of depth that so many bricks of v vertices take."""
    return -(-count // (COMMON_SIDE // v * (height // v))) * v
