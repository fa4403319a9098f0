"""A baked field as a browser downloads it: its rows, and all that is small or slow to find; the page fills the bricks.

The textures of `fields.brick_textures` are ten times as many bytes as the rows that they are made of, so rows travel
and web/src/field/ makes the textures of them, as `kernels.bricks_cpu` does. The file is in the safetensors format, to
be gzip'd on the way. Arrays, named as in BakedField where they are the same (n occupied cells):

    values [kept, numbers] int8, scales [levels, numbers] float32, kept, occupied (bitmaps), densities [n] uint8,
    kinds [n] uint8: of the occupied cells' bricks, in the cells' order; 1, 2, 3 for 1, 2, 4 intervals a side
    units [texels 4], centre, half_size, background float32: as in BrickTextures

and as JSON in the metadata's "numbers" what _NUMBERS names: the rest of BrickTextures' numbers; resolutions, rows (a
level's) and occupancy_cells (a side) of the BakedField; shape of the atlas (depth, height, width in texels); channels:
where the numbers of a row stand among a vertex's bytes.

A byte of channel c stands for (byte - zero) units[c]; zero is zero_log_density for log density, 128 for colours.
"""

import json

import numpy as np

from crowdnerf_lab.fields.array_files import arrays_file
from crowdnerf_lab.fields.baked import BakedField
from crowdnerf_lab.fields.brick_textures import atlas_layout
from crowdnerf_lab.fields.bricks import CHANNEL_OF_NUMBER

FORMAT = "crowdnerf_lab.baked_rows/1"
_ARRAYS = ("values", "scales", "kept", "occupied", "densities", "centre", "half_size", "background")
_NUMBERS = (
    *("resolutions", "rows", "occupancy_cells"),
    *("density_scale", "near", "far", "ratio", "refine", "finest"),
)
"""What a file has of a field as it is."""


def rows_file(field: BakedField) -> bytes:
    """The file of a field. Raises BrickTexturesError when its textures would be too large for a browser."""
    planned = field.planned_bricks()
    kinds = planned.kinds
    counts = np.bincount(kinds, minlength=4)[1:].tolist()
    shape, kind_begins = atlas_layout(counts, texels=planned.texels, cells=field.occupancy_cells)
    arrays = {name: getattr(field, name) for name in _ARRAYS}
    arrays |= {"kinds": kinds, "units": planned.units.reshape(4, 4)[: planned.texels]}
    numbers = {name: getattr(field, name) for name in _NUMBERS}
    numbers |= {"shape": shape, "kind_begins": kind_begins, "zero_log_density": float(planned.zeros[3])}
    numbers |= {"channels": CHANNEL_OF_NUMBER[field.scales.shape[1]]}
    return arrays_file(arrays, {"format": FORMAT, "numbers": json.dumps(numbers)})
