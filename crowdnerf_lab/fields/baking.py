"""bake: from a trained SH grid to a baked field, in seconds and without training."""

import logging
import time

import numpy as np

from crowdnerf_lab.fields.baked import BakedField, density_codes
from crowdnerf_lab.fields.sh_grid import SHGrid
from crowdnerf_lab.kernels import cpu, reference
from crowdnerf_lab.scene import Bounds

log = logging.getLogger(__name__)


def bake(
    field: SHGrid,
    *,
    levels: int | None = None,
    bits: int = 8,
    region: Bounds | None = None,
    min_density: float = 0.7,
    steps: int | None = None,
) -> BakedField:
    """Cut, prune and quantize a trained SH grid.

    levels: keep only this many, coarse first (all by default). bits: 2 to 8 a number. region: drop what lies outside
    a box.
    min_density: cells whose exp(log density) stays below are empty. steps: marching steps a ray (the teacher's by
    default). Quantization is symmetric, per level and number, with the clipping that loses least squared error.
    """
    started = time.perf_counter()
    if not 2 <= bits <= 8:
        raise ValueError(f"bits must be between 2 and 8, got {bits}")
    shape = field.shape
    resolutions = shape.resolutions[: levels or len(shape.resolutions)]
    if not resolutions or (levels or 1) > len(shape.resolutions):
        raise ValueError(f"levels must be between 1 and {len(shape.resolutions)}, got {levels}")
    cells = shape.occupancy_cells
    occupied = _occupied_cells(field, min_density, region)
    used = np.zeros(len(resolutions) * field.rows, np.bool_)
    cpu.rows_used(occupied.reshape(-1), cells, field.rows, np.array(resolutions, np.int64), used)
    table = field.table.detach().cpu().numpy()[: len(used), : cpu.USED]
    used &= (table != 0).any(1)
    scales, values = [], []
    for level in range(len(resolutions)):
        part = slice(level * field.rows, (level + 1) * field.rows)
        scale, quantized = quantized_rows(table[part][used[part]], bits=bits)
        scales.append(scale)
        values.append(quantized)
    baked = BakedField(
        values=np.concatenate(values),
        scales=np.stack(scales),
        kept=np.packbits(used),
        occupied=np.packbits(occupied.reshape(-1), bitorder="little"),
        densities=density_codes(field.density_of_cell.cpu().numpy()[occupied]),
        background=1 / (1 + np.exp(-field.background.detach().cpu().numpy())),
        centre=field.centre.cpu().numpy().copy(),
        half_size=field.half_size.cpu().numpy().copy(),
        resolutions=tuple(resolutions),
        rows=field.rows,
        occupancy_cells=cells,
        bits=bits,
        near=shape.near * field.radius,
        far=shape.far * field.radius,
        steps=steps or shape.steps,
        refine=shape.refine,
        finest=shape.finest,
    )
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


def quantized_rows(rows: np.ndarray, *, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale [13] of each number and the rows [n, 13] in units of it, int8, rounded and clipped to +-(2^(bits-1) - 1).

    The scale is searched among clippings of the largest magnitude; unclipped, the error is at most half a scale.
    """
    top = 2 ** (bits - 1) - 1
    largest = np.abs(rows).max(0, initial=0) if len(rows) else np.zeros(cpu.USED)
    largest = np.maximum(largest, 1e-8)
    sample = rows[:: max(1, len(rows) // 20000)]
    best_scale, best_error = largest / top, np.full(cpu.USED, np.inf)
    for clip in CLIPPINGS if len(rows) else ():
        scale = largest * clip / top
        error = ((np.clip(np.round(sample / scale), -top, top) * scale - sample) ** 2).sum(0)
        best_scale = np.where(error < best_error, scale, best_scale)
        best_error = np.minimum(error, best_error)
    scale = best_scale.astype(np.float32)
    return scale, np.clip(np.round(rows / scale), -top, top).astype(np.int8)


CLIPPINGS = (1.0, 0.85, 0.7, 0.6, 0.5, 0.4, 0.3)
"""Fractions of the largest magnitude that are tried as the end of the scale."""


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
