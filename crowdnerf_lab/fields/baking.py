"""bake: from a trained SH grid to a baked field, in seconds and without training.

Without cameras, every row that an occupied cell needs is kept and rounded. With the cameras of those who will look,
what they cannot see is dropped and the rest gets as many bits as it matters to their pictures, down to any size.
"""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.coding.baked_stream import coded_baked
from crowdnerf_lab.devices.profile import DeviceProfile
from crowdnerf_lab.fields.baked import BakedField, density_codes
from crowdnerf_lab.fields.baked_parts import BakedParts
from crowdnerf_lab.fields.importance import Importance, importance_of
from crowdnerf_lab.fields.rate_distortion import Before, quantize_level
from crowdnerf_lab.fields.sh_grid import SHGrid
from crowdnerf_lab.kernels import cpu, reference
from crowdnerf_lab.scene import Bounds

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tier:
    """One step of the ladder of baked fields: max_bytes coded, or None for everything that can be seen."""

    name: str
    max_bytes: int | None


TIERS = (Tier("200kB", 200_000), Tier("1MB", 1_000_000), Tier("4MB", 4_000_000), Tier("full", None))
"""The ladder, small to large."""
SECONDS_TO_FETCH = 8.0
"""How long a profile's link may take for the field that a profile gets."""
MEMORY_SHARE, BYTES_IN_MEMORY = 0.25, 40
"""Part of a device's memory that a field may fill, and the bytes it takes there for each coded byte."""
FINEST_MULTIPLIER, COARSEST_MULTIPLIER, MULTIPLIER_OF_1MB = 3e-13, 1e-4, 8e-12
"""lambda of the full field (below it, more bits change the concert's pictures by less than 0.01 dB), the largest worth
a try, and what the concert needs for 1 MB: where the search for a size begins."""
BYTES_POWER = -0.65
"""Bytes go with lambda to this power, about."""
FILLED, FILLED_FOLLOWING, TRIALS = 0.96, 0.85, 10
"""Part of max_bytes that is enough, also for a field whose size is that of the version before however lambda is chosen;
and how many lambdas are tried for it."""
CELL_BITS = 300.0
"""Bits that an occupied cell must save to go: its squared weight in the pictures against lambda times this."""
COARSE_DENSITY_STEP, COARSE_MULTIPLIER = 8, 5e-11
"""Steps of `density_codes` (6 %) in which cells' densities are kept above that lambda. They only steer the samples: to
the concert's own pictures that gains 0.3 dB at 60 kB and nothing at 200 kB; at 1 MB it would lose 3 dB."""
CELL_MOVING = 3.0
"""By what factor a cell must be worth more, or less, than its bits to change its state from the version before."""
LEAST_BITS = 4.0
"""Bits that no row worth keeping takes less than."""

COLUMNS_OF_DEGREE = {0: np.array([0, 1, 5, 9]), 1: np.arange(cpu.USED)}
"""Numbers of a row of the SH grid that a baked row keeps."""


def bake(
    field: SHGrid,
    profile: DeviceProfile | None = None,
    *,
    cameras: Cameras | None = None,
    max_bytes: int | None = None,
    levels: int | None = None,
    sh_degree: int = 1,
    bits: int = 8,
    region: Bounds | None = None,
    min_density: float = 0.7,
    steps: int | None = None,
    importance: Importance | None = None,
    after: BakedField | None = None,
    seed: int = 0,
) -> BakedField:
    """Cut, prune and quantize a trained SH grid.

    profile: the device; it says max_bytes (what its link brings in SECONDS_TO_FETCH and its memory holds) and levels
    (those its view can show) where they are not given. cameras: who looks, all UEs or those of one seat block (see
    `view_cell`); without them every occupied cell counts the same. max_bytes: of the coded file (coding.baked_stream);
    needs cameras. levels: keep only this many, coarse first (all by default). sh_degree: 0 for colours that are the
    same from everywhere. bits: 2 to 8 a number. region: drop what lies outside a box. min_density: cells whose
    exp(log density) stays below are empty. steps: marching steps a ray (the teacher's by default). importance: what
    importance_of found for the cameras, when it is known already. after: the version before, followed where the cameras
    are known: its scales are taken over, and every cell, row and number that is not worth the bits of changing it, so
    that `catalogue.delta` makes little of the change. One of other levels, rows or numbers is not followed. seed: of
    the pixels by which importance is judged.

    Raises ValueError for numbers out of range and for a size that no field can have.
    """
    started = time.perf_counter()
    _check_choices(field, bits, levels, sh_degree, max_bytes)
    if cameras is not None and importance is None:
        importance = importance_of(field, cameras, seed=seed)
    if profile is not None and importance is not None and max_bytes is None:
        max_bytes = bytes_for(profile)
    if profile is not None and cameras is not None and levels is None:
        levels = levels_for(profile, field, cameras)
    if importance is None and max_bytes is not None:
        raise ValueError(f"a field of at most {max_bytes} bytes needs to know who looks; give bake() cameras")
    source = _Source(
        field=field,
        occupied=_occupied_cells(field, min_density, region),
        resolutions=field.shape.resolutions[:levels],
        columns=COLUMNS_OF_DEGREE[sh_degree],
        bits=bits,
        steps=steps or field.shape.steps,
        before=None,
    )
    if after is not None and importance is not None:
        source = replace(source, before=_before(after, source))
    if importance is None:
        baked = _rounded(source)
    elif max_bytes is None:
        baked = _optimised(source, importance, source.energy(importance), FINEST_MULTIPLIER)
    else:
        baked = _of_size(source, importance, max_bytes)
    teacher_bytes = field.table.numel() * field.table.element_size()
    log.info(
        "bake: %d of %d rows, %.1f MB of %.1f MB (%.0f %%), %d bits, in %.1f s",
        len(baked.values),
        len(field.table),
        baked.bytes / 1e6,
        teacher_bytes / 1e6,
        100 * baked.bytes / teacher_bytes,
        bits,
        time.perf_counter() - started,
    )
    return baked


def bytes_for(profile: DeviceProfile) -> int:
    """Bytes of the coded field that suit a device: what its link brings in time and what fits its memory."""
    by_link = profile.link_mbit_s * 1e6 / 8 * SECONDS_TO_FETCH
    by_memory = profile.memory_mb * 1e6 * MEMORY_SHARE / BYTES_IN_MEMORY
    return int(min(by_link, by_memory))


def levels_for(profile: DeviceProfile, field: SHGrid, cameras: Cameras) -> int:
    """How many of the field's levels a device's view can show: a finer one has cells of less than half a pixel where
    the cameras look, in the middle of the bounds."""
    away = torch.linalg.vector_norm(cameras.positions - field.centre.cpu(), dim=-1).median()
    longer = torch.maximum(cameras.width, cameras.height)
    focal = (cameras.focal.mean(-1) / longer).median() * max(profile.view_width, profile.view_height)
    half_pixel = float(away / focal) / 2
    return max(1, sum(4 * field.radius / resolution >= half_pixel for resolution in field.shape.resolutions))


def view_cell(cameras: Cameras, centre: Float[Tensor, "3"], *, radius: float) -> Cameras:
    """The cameras of one seat block: those within `radius` metres of `centre` on the ground. ValueError if none is."""
    apart = torch.linalg.vector_norm((cameras.positions - centre)[:, :2], dim=-1)
    if not bool((apart <= radius).any()):
        raise ValueError(f"no camera lies within {radius} m of {centre.tolist()}; the nearest is {apart.min():.1f} m")
    return cameras[apart <= radius]


@dataclass(frozen=True)
class _Source:
    """What is baked, cut to cells, levels and columns but not yet pruned."""

    field: SHGrid
    occupied: np.ndarray
    resolutions: tuple[int, ...]
    columns: np.ndarray
    bits: int
    steps: int
    before: BakedParts | None

    def rows_of(self, level: int) -> slice:
        return slice(level * self.field.rows, (level + 1) * self.field.rows)

    def before_of(self, level: int, rows: np.ndarray) -> Before | None:
        """What the version before has of some rows of a level."""
        if self.before is None:
            return None
        parts = self.before
        return Before(parts.rows(level, rows), parts.kept[level, rows], parts.scales[level])

    def table(self) -> np.ndarray:
        rows = len(self.resolutions) * self.field.rows
        return self.field.table.detach().cpu().numpy()[:rows]

    def needed(self, occupied: np.ndarray) -> np.ndarray:
        """Rows [levels * rows] that occupied cells need and that hold something."""
        used = np.zeros(len(self.resolutions) * self.field.rows, np.bool_)
        cells, resolutions = self.field.shape.occupancy_cells, np.array(self.resolutions, np.int64)
        cpu.rows_used(occupied.reshape(-1), cells, self.field.rows, resolutions, used)
        return used & (self.table()[:, : cpu.USED] != 0).any(1)

    def energy(self, importance: Importance) -> np.ndarray:
        """What dropping each row would lose: importance times square, summed over the numbers that are baked."""
        of_rows = importance.of_rows[: len(self.table())]
        return sum((of_rows[:, k] * self.table()[:, k] ** 2 for k in self.columns), np.zeros(len(of_rows), np.float32))

    def baked(
        self,
        occupied: np.ndarray,
        kept: np.ndarray,
        values: Sequence[np.ndarray],
        scales: Sequence[np.ndarray],
        *,
        density_step: int = 1,
    ) -> BakedField:
        field, shape = self.field, self.field.shape
        densities = density_codes(field.density_of_cell.cpu().numpy()[occupied])
        densities = np.minimum((densities + density_step / 2) // density_step * density_step, 255).astype(np.uint8)
        if self.before is not None:
            # A density that moved by no more than a step is not told anew.
            old = self.before.densities[occupied]
            near = np.abs(old.astype(int) - densities) <= density_step
            densities = np.where(near & self.before.cells[occupied], old, densities)
        return BakedField(
            values=np.concatenate(values),
            scales=np.stack(scales),
            kept=np.packbits(kept),
            occupied=np.packbits(occupied.reshape(-1), bitorder="little"),
            densities=densities,
            background=1 / (1 + np.exp(-field.background.detach().cpu().numpy())),
            centre=field.centre.cpu().numpy().copy(),
            half_size=field.half_size.cpu().numpy().copy(),
            resolutions=tuple(self.resolutions),
            rows=field.rows,
            occupancy_cells=shape.occupancy_cells,
            bits=self.bits,
            near=shape.near * field.radius,
            far=shape.far * field.radius,
            steps=self.steps,
            refine=shape.refine,
            finest=shape.finest,
        )


def _before(after: BakedField, source: _Source) -> BakedParts | None:
    """The version before, where it can be followed."""
    alike = (
        after.rows == source.field.rows
        and after.resolutions == tuple(source.resolutions)
        and after.occupancy_cells == source.field.shape.occupancy_cells
        and after.scales.shape[1] == len(source.columns)
        and after.bits <= source.bits
    )
    if not alike:
        log.warning("bake: the version before has other levels, rows, cells or bits; it is not followed")
        return None
    return BakedParts.of(after)


def _rounded(source: _Source) -> BakedField:
    """Every row that an occupied cell needs, rounded."""
    kept, scales, values = source.needed(source.occupied), [], []
    for level in range(len(source.resolutions)):
        part = source.rows_of(level)
        scale, quantized = quantized_rows(source.table()[part][kept[part]][:, source.columns], bits=source.bits)
        scales.append(scale)
        values.append(quantized)
    return source.baked(source.occupied, kept, values, scales)


def _optimised(source: _Source, importance: Importance, energy: np.ndarray, multiplier: float) -> BakedField:
    """The rows and cells that are worth their bits at `multiplier` (lambda, see rate_distortion): importance times
    squared error a pixel and colour. energy [levels * rows]: what dropping a row loses, over all pixels and colours."""
    per_pixel = np.float32(1 / importance.pixels)
    occupied = _worthwhile(source, importance.of_cells * per_pixel / (multiplier * CELL_BITS))
    needed, top = source.needed(occupied), 2 ** (source.bits - 1) - 1
    kept, scales, values = np.zeros_like(needed), [], []
    for level in range(len(source.resolutions)):
        part = source.rows_of(level)
        worth = energy[part] * per_pixel / 3 > multiplier * LEAST_BITS
        (rows,) = np.nonzero(needed[part] & (worth if source.before is None else worth | source.before.kept[level]))
        found = quantize_level(
            source.table()[part][rows][:, source.columns],
            importance.of_rows[part][rows][:, source.columns] * per_pixel / 3,
            multiplier=multiplier,
            top=top,
            dropped=int(needed[part].sum()) - len(rows),
            after=source.before_of(level, rows),
        )
        filled = found.values.any(1)
        kept[part][rows[filled]] = True
        scales.append(found.scale)
        values.append(found.values[filled])
    density_step = COARSE_DENSITY_STEP if multiplier > COARSE_MULTIPLIER else 1
    return source.baked(occupied, kept, values, scales, density_step=density_step)


def _worthwhile(source: _Source, worth: np.ndarray) -> np.ndarray:
    """Cells that stay occupied. worth: what each gives to the pictures, in units of what its bits cost; a cell that was
    empty or occupied stays so until the difference is larger."""
    if source.before is None:
        return source.occupied & (worth > 1)
    stays = source.before.cells & source.field.occupied.cpu().numpy() & (worth > 1 / CELL_MOVING)
    return stays | (source.occupied & (worth > CELL_MOVING))


def _of_size(source: _Source, importance: Importance, max_bytes: int) -> BakedField:
    """The best field whose coded file has at most max_bytes, and FILLED of them where that can be had: lambda by false
    position, since the bytes are almost a power of lambda."""
    low, high = math.log(FINEST_MULTIPLIER), math.log(COARSEST_MULTIPLIER)
    exponent = math.log(MULTIPLIER_OF_1MB) + math.log(max_bytes / 1e6) / BYTES_POWER
    best: BakedField | None = None
    filled = FILLED if source.before is None else FILLED_FOLLOWING
    energy = source.energy(importance)
    for trial in range(TRIALS):
        exponent = min(max(exponent, low), high) if best is not None or trial < TRIALS - 1 else high
        baked = _optimised(source, importance, energy, math.exp(exponent))
        size = len(coded_baked(baked))
        if size > max_bytes:
            if exponent == high and best is None:
                raise ValueError(f"no baked field fits {max_bytes} bytes; the smallest takes {size}")
            low = exponent
        else:
            best = baked
            if size > filled * max_bytes or exponent == low:
                break
            high = exponent
        wanted = exponent + math.log((1 + filled) / 2 * max_bytes / size) / BYTES_POWER
        exponent = wanted if low < wanted < high or trial < 2 else (low + high) / 2
    assert best is not None
    return best


def quantized_rows(rows: np.ndarray, *, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale [numbers] of each number and the rows [n, numbers] in units of it, int8, rounded and clipped to
    +-(2^(bits-1) - 1).

    The scale is searched among clippings of the largest magnitude; unclipped, the error is at most half a scale.
    """
    top = 2 ** (bits - 1) - 1
    numbers = rows.shape[1]
    largest = np.maximum(np.abs(rows).max(0, initial=0), 1e-8)
    sample = rows[:: max(1, len(rows) // 20000)]
    best_scale, best_error = largest / top, np.full(numbers, np.inf)
    for clip in CLIPPINGS if len(rows) else ():
        scale = largest * clip / top
        error = ((np.clip(np.round(sample / scale), -top, top) * scale - sample) ** 2).sum(0)
        best_scale = np.where(error < best_error, scale, best_scale)
        best_error = np.minimum(error, best_error)
    scale = best_scale.astype(np.float32)
    return scale, np.clip(np.round(rows / scale), -top, top).astype(np.int8)


CLIPPINGS = (1.0, 0.85, 0.7, 0.6, 0.5, 0.4, 0.3)
"""Fractions of the largest magnitude that are tried as the end of the scale."""


def _check_choices(field: SHGrid, bits: int, levels: int | None, sh_degree: int, max_bytes: int | None) -> None:
    if not 2 <= bits <= 8:
        raise ValueError(f"bits must be between 2 and 8, got {bits}")
    if levels is not None and not 1 <= levels <= len(field.shape.resolutions):
        raise ValueError(f"levels must be between 1 and {len(field.shape.resolutions)}, got {levels}")
    if sh_degree not in COLUMNS_OF_DEGREE:
        raise ValueError(f"sh_degree must be 0 or 1, got {sh_degree}")
    if max_bytes is not None and max_bytes < 1:
        raise ValueError(f"max_bytes must be positive, got {max_bytes}")


def _occupied_cells(field: SHGrid, min_density: float, region: Bounds | None) -> np.ndarray:
    cells = field.shape.occupancy_cells
    occupied = field.occupied.cpu().numpy() & (field.density_of_cell.cpu().numpy() > min_density)
    if region is not None:
        side = (np.arange(cells) + 0.5) / cells
        unit = np.stack(np.meshgrid(side, side, side, indexing="ij"), axis=-1)
        world = reference.uncontracted(field.centre.new_tensor(unit), field.centre, field.half_size)
        inside = ((world - region.centre).abs() <= region.half_size).all(-1).cpu().numpy()
        occupied = occupied & inside
    return np.ascontiguousarray(occupied)
