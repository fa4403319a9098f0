"""The brick atlas of a baked field: what is marched. Every occupied cell gets a small dense grid of bytes of its own,
so that a sample reads eight neighbours, not eight hashed rows a level (the bricks of Crassin et al. 2009 and MERF's
block of atlases, Reiser et al. 2023).

Needs numpy and numba only. Layout of words and texels: `kernels.bricks_cpu`.
"""

from dataclasses import dataclass

import numpy as np

from crowdnerf_lab.kernels import bricks_cpu

INTERVALS = (1, 2, 4)
"""Intervals a side of the three kinds of bricks."""
MAX_BRICKS = bricks_cpu.BRICK_MASK
SAMPLED_BRICKS = 2048
"""Bricks whose largest numbers set the units of the bytes."""
LOWEST_LOG_DENSITY, HIGHEST_LOG_DENSITY = -5.0, 11.0
"""exp(-5) of the density scale stops 0.3 % of the light in half a box; above 11, steps are opaque anyway."""
CHANNEL_OF_NUMBER = {
    4: (3, 0, 1, 2),
    13: (3, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14),
}
"""Where the numbers of a row (log density, red, green, blue with 1 or 4 SH coefficients) stand in a vertex's texels."""


@dataclass(frozen=True)
class Bricks:
    """words [cells^3] uint32: what each cell holds. texels [vertices, 4 or 16] uint8, brick after brick, kind after
    kind, z fastest inside. kind_firsts [4]: number of the first vertex of a kind (kind 0, empty, has none).
    units, zeros [16]: a byte b of channel c stands for (b - zeros[c]) units[c].
    """

    words: np.ndarray
    texels: np.ndarray
    kind_firsts: np.ndarray
    units: np.ndarray
    zeros: np.ndarray
    cells: int

    @property
    def bytes(self) -> int:
        """Memory the bricks take."""
        return self.words.nbytes + self.texels.nbytes

    @property
    def kinds(self) -> np.ndarray:
        """Kind of every cell [cells^3]: 0 empty, else its brick has INTERVALS[kind - 1] intervals a side."""
        return self.words >> bricks_cpu.KIND_SHIFT & 3

    def densities(self, *, parts: int) -> np.ndarray:
        """exp(log density) of interpolated codes 0 to 256 in so many parts of one [256 parts], at their middles."""
        codes = (np.arange(256 * parts) + 0.5) / parts
        return np.exp(np.minimum((codes - self.zeros[3]) * self.units[3], HIGHEST_LOG_DENSITY))


_Rows = tuple[int, np.ndarray, np.ndarray, np.ndarray, int, np.ndarray]
"""Cells a side, widened values, place of each row, widened scales, rows a level, resolutions: as the kernels take
them."""


@dataclass(frozen=True)
class PlannedBricks:
    """Bricks before they are filled: all that takes little time.

    chosen [n] int64: the occupied cells, in order. intervals [n] a side of their bricks: as fine as the finest level
    with a row that is not zero there; the brick then equals the field up to rounding to bytes, wherever resolutions
    divide each other and none is above 4 cells (of finer levels, every quarter of a cell is kept). units, zeros [16]:
    as in Bricks. texels a vertex: 1 or 4.
    """

    chosen: np.ndarray
    intervals: np.ndarray
    units: np.ndarray
    zeros: np.ndarray
    texels: int
    rows: _Rows

    @property
    def kinds(self) -> np.ndarray:
        """Kind of every brick [n] uint8: it has INTERVALS[kind - 1] intervals a side."""
        return (np.searchsorted(INTERVALS, self.intervals) + 1).astype(np.uint8)


def plan_bricks(
    values: np.ndarray,
    scales: np.ndarray,
    *,
    kept: np.ndarray,
    resolutions: tuple[int, ...],
    occupied: np.ndarray,
) -> PlannedBricks:
    """Which bricks quantized rows need: values [kept, numbers] int8 in units of scales [levels, numbers], kept [levels,
    rows] which they are, occupied [cells cells cells] bool."""
    levels, rows = kept.shape
    cells = len(occupied)
    channels = list(CHANNEL_OF_NUMBER[values.shape[1]])
    wide = np.zeros((len(values) + 1, 16), np.int8)
    wide[1:, channels] = values
    wide_scales = np.zeros((levels, 16), np.float32)
    wide_scales[:, channels] = scales
    place = np.zeros(kept.size, np.int32)
    place[kept.reshape(-1)] = np.where(values.any(1), np.arange(1, len(values) + 1), 0)
    chosen = np.flatnonzero(occupied)
    levels_at = np.array(resolutions, np.int64)
    intervals = np.empty(len(chosen), np.int64)
    bricks_cpu.intervals_needed(chosen, cells, place, rows, levels_at, intervals)
    field = (cells, wide, place, wide_scales, rows, levels_at)
    units, zeros = _units(chosen, intervals, field)
    return PlannedBricks(chosen, intervals, units, zeros, 1 if values.shape[1] == 4 else 4, field)


def build_bricks(planned: PlannedBricks, *, densities: np.ndarray) -> Bricks:
    """The bricks, filled; densities [occupied cells] uint8."""
    cells = planned.rows[0]
    words, firsts, kind_firsts, vertices = _places(planned, densities)
    texels = np.empty((vertices, 4 * planned.texels), np.uint8)
    bricks_cpu.fill_bricks(
        *(planned.chosen, planned.intervals, firsts, *planned.rows),
        *(planned.units, planned.zeros, texels, *_nothing_met()),
    )
    bricks_cpu.distances(words, cells)
    return Bricks(words, texels, kind_firsts, planned.units, planned.zeros, cells)


def building_memory(*, kept: int, rows: int, cells: int) -> int:
    """Bytes that `build_bricks` needs beside its result: widened rows, the place of each of all levels' rows, and a
    byte a cell."""
    return 16 * (kept + 1) + 5 * rows + 2 * (cells + 2) ** 3


def _units(chosen: np.ndarray, intervals: np.ndarray, field: _Rows) -> tuple[np.ndarray, np.ndarray]:
    """Unit and zero of each channel's bytes. Nothing that was sampled is clipped: on the concert, clipping one number
    in 2000 cost a view 15 dB."""
    some = slice(None, None, -(-max(len(chosen), 1) // SAMPLED_BRICKS))
    low, high = _nothing_met()
    zeros, scratch = np.full(16, 128, np.float32), np.empty((bricks_cpu.WIDEST, 16), np.uint8)
    over_one_place = np.zeros(len(chosen), np.int64)
    bricks_cpu.fill_bricks(
        chosen[some], intervals[some], over_one_place, *field, np.ones(16, np.float32), zeros, scratch, low, high
    )
    units = np.maximum(np.maximum(-low, high) / 127, 1e-8).astype(np.float32)
    lowest, highest = np.clip([low[3], high[3]], LOWEST_LOG_DENSITY, HIGHEST_LOG_DENSITY)
    units[3] = max(highest - lowest, 1e-3) / 255
    zeros[3] = -lowest / units[3]
    return units, zeros


def _nothing_met() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(16, np.float32), np.zeros(16, np.float32)


def _places(planned: PlannedBricks, densities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Words of all cells (empty ones 0), first vertex of each brick and of each kind, number of vertices."""
    kind_firsts = np.zeros(4, np.int64)
    kind = planned.kinds.astype(np.int64)
    number, firsts = np.zeros(len(kind), np.int64), np.zeros(len(kind), np.int64)
    vertices = 0
    for which, parts in enumerate(INTERVALS, start=1):
        members = np.flatnonzero(kind == which)
        kind_firsts[which] = vertices
        number[members] = np.arange(len(members))
        firsts[members] = vertices + (parts + 1) ** 3 * np.arange(len(members))
        vertices += (parts + 1) ** 3 * len(members)
    words = np.zeros(planned.rows[0] ** 3, np.uint32)
    coded = number | kind << bricks_cpu.KIND_SHIFT | densities.astype(np.int64) << bricks_cpu.BYTE_SHIFT
    words[planned.chosen] = coded.astype(np.uint32)
    return words, firsts, kind_firsts, vertices
