"""A baked field unpacked: which cells and rows it has, and what a row holds, found by the row's place in the table."""

from dataclasses import dataclass

import numpy as np

from crowdnerf_lab.fields.baked import BakedField


@dataclass(frozen=True)
class BakedParts:
    """cells [c, c, c] bool, and densities [c, c, c] of the occupied ones as bytes. kept [levels, rows] bool; values: of
    each level the kept rows [n, numbers] int8, in units of scales [levels, numbers]; place [levels, rows]: where among
    them a kept row is."""

    cells: np.ndarray
    densities: np.ndarray
    kept: np.ndarray
    values: tuple[np.ndarray, ...]
    scales: np.ndarray
    place: np.ndarray

    @staticmethod
    def of(field: BakedField) -> "BakedParts":
        """What a field holds."""
        side, levels = field.occupancy_cells, len(field.resolutions)
        cells = np.unpackbits(field.occupied, count=side**3, bitorder="little").astype(np.bool_).reshape((side,) * 3)
        densities = np.zeros(cells.shape, np.uint8)
        densities[cells] = field.densities
        kept = np.unpackbits(field.kept, count=levels * field.rows).astype(np.bool_).reshape(levels, field.rows)
        values = tuple(np.split(field.values, np.cumsum(kept.sum(1))[:-1]))
        return BakedParts(cells, densities, kept, values, field.scales, np.cumsum(kept, axis=1) - 1)

    def rows(self, level: int, chosen: np.ndarray) -> np.ndarray:
        """Some rows of a level [n, numbers], by their places in the table; zeros where none is kept."""
        kept = self.kept[level, chosen]
        found = np.zeros((len(chosen), self.scales.shape[1]), np.int8)
        found[kept] = self.values[level][self.place[level, chosen[kept]]]
        return found
