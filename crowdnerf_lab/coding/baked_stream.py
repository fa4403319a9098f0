"""A baked field as one coded file of layers: any prefix beyond the first layer renders, and more of it renders better.

The first layer says which cells are occupied, how dense they are, and holds the coarsest level; then level after level,
each in two layers: density and colour, and how colour turns with the view. A level's rows are those that an occupied
cell needs, in the order of the table; a flag says which of them are kept, then the numbers come column by column, each
under the statistics of `row_statistics`. Decoding gives the very arrays that were encoded.

Numpy, constriction and numba alone: a UE reads it.
"""

import struct
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from crowdnerf_lab.coding.entropy import decode_integers, encode_integers
from crowdnerf_lab.coding.layered_file import (
    CodedFileError,
    Layer,
    LayeredFile,
    joined,
    packed_layers,
    pieces_of,
    read_layers,
)
from crowdnerf_lab.coding.row_statistics import BASE_COLUMNS, colour_before, column_order, contexts_of
from crowdnerf_lab.fields.baked import NUMBERS_OF_DEGREE, BakedField, check_consistent
from crowdnerf_lab.files import write_bytes
from crowdnerf_lab.kernels import cpu

KIND = "crowdnerf_lab.baked_field/1"
LEVELS_LIMIT, ROWS_LIMIT = 32, 1 << 26
"""Levels, and rows of all levels together, so that a hostile header cannot claim this machine's memory."""
VECTORS = ("background", "centre", "half_size")
NUMBERS = ("rows", "occupancy_cells", "bits", "near", "far", "steps", "refine", "finest")
"""What a header says of a field: three numbers each, and one number each."""


def encode_baked(field: BakedField, path: Path) -> Path:
    """Write a baked field as a coded file (atomically)."""
    return write_bytes(Path(path), coded_baked(field))


def coded_baked(field: BakedField) -> bytes:
    """The coded file of a baked field. Raises ValueError for a field that is not consistent."""
    check_consistent(field)
    numbers, rows, levels = field.scales.shape[1], field.rows, len(field.resolutions)
    values = field.values[:, column_order(numbers)]
    occupied = np.unpackbits(field.occupied, count=field.occupancy_cells**3, bitorder="little").astype(np.bool_)
    kept = np.unpackbits(field.kept, count=levels * rows).astype(np.bool_)
    needed = needed_rows(occupied, field.occupancy_cells, rows, field.resolutions)
    pruned = bool((kept <= needed).all())
    if not pruned:
        needed[:] = True
    layers, first = [], 0
    for level, resolution in enumerate(field.resolutions):
        part = slice(level * rows, (level + 1) * rows)
        flags = kept[part][needed[part]]
        own = values[first : first + int(flags.sum())]
        first += len(own)
        pieces = [field.scales[level].astype("<f4").tobytes(), encode_integers(flags.astype(np.int32))]
        if level == 0:
            grid = occupied.reshape((field.occupancy_cells,) * 3)
            pieces = [*encoded_cells(grid), _encoded_densities(field.densities), *pieces]
        layers.append(Layer(f"level {resolution}", joined([*pieces, *encoded_columns(own, 0, BASE_COLUMNS)])))
        if numbers > BASE_COLUMNS:
            turning = encoded_columns(own, BASE_COLUMNS, numbers)
            layers.append(Layer(f"level {resolution}, by direction", joined(turning)))
    header: dict[str, Any] = {name: getattr(field, name) for name in NUMBERS}
    header |= {name: [float(number) for number in getattr(field, name)] for name in VECTORS}
    header |= {"resolutions": list(field.resolutions), "numbers": numbers, "pruned": pruned}
    return packed_layers(kind=KIND, header=header, layers=layers)


def decode_baked(content: bytes, *, name: Path | str) -> tuple[BakedField, bool]:
    """The baked field of a coded file or of any beginning of one, and whether it is complete.

    Levels that are not here yet are absent, and colours whose layer is not here do not turn with the view. name: what
    to call the file in errors. Raises CodedFileError for a file that is damaged, hostile or holds something else.
    """
    file = read_layers(content, kind=KIND, name=name)
    try:
        field = _field_of(file)
        check_consistent(field)
    except CodedFileError as error:
        raise CodedFileError(f"{name}: {error}") from error
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, struct.error) as error:
        raise CodedFileError(f"{name} is not a consistent baked field: {error}; fetch it again") from error
    return field, file.complete


def _field_of(file: LayeredFile) -> BakedField:
    header = file.header
    numbers, rows, cells = int(header["numbers"]), int(header["rows"]), int(header["occupancy_cells"])
    layers_a_level = 1 if numbers == BASE_COLUMNS else 2
    resolutions = tuple(int(resolution) for resolution in header["resolutions"])
    _check_sizes(numbers, rows, cells, resolutions)
    resolutions = resolutions[: -(-len(file.layers) // layers_a_level)]
    pieces = pieces_of(file.layers[0].payload)
    occupied = decoded_cells(pieces, cells)
    densities = _decoded_densities(next(pieces), occupied)
    needed = np.ones(len(resolutions) * rows, np.bool_)
    if header["pruned"]:
        needed = needed_rows(occupied, cells, rows, resolutions)
    kept, scales, values = np.zeros_like(needed), [], []
    for level in range(len(resolutions)):
        at = level * layers_a_level
        pieces = pieces if level == 0 else pieces_of(file.layers[at].payload)
        scales.append(np.frombuffer(next(pieces), "<f4").astype(np.float32))
        (candidates,) = np.nonzero(needed[level * rows : (level + 1) * rows])
        flags = decode_integers(next(pieces), count=len(candidates))
        if ((flags != 0) & (flags != 1)).any():
            raise ValueError(f"a flag of level {resolutions[level]} is neither 0 nor 1")
        kept[level * rows + candidates] = flags.astype(np.bool_)
        own = np.zeros((int(flags.sum()), numbers), np.int8)
        decode_columns(pieces, own, 0, BASE_COLUMNS)
        if numbers > BASE_COLUMNS and at + 1 < len(file.layers):
            decode_columns(pieces_of(file.layers[at + 1].payload), own, BASE_COLUMNS, numbers)
        values.append(own)
    restored = np.empty((sum(map(len, values)), numbers), np.int8)
    restored[:, column_order(numbers)] = np.concatenate(values)
    return BakedField(
        values=restored,
        scales=np.stack(scales),
        kept=np.packbits(kept),
        occupied=np.packbits(occupied, bitorder="little"),
        densities=densities,
        background=vector_of(header["background"]),
        centre=vector_of(header["centre"]),
        half_size=vector_of(header["half_size"]),
        resolutions=resolutions,
        rows=rows,
        occupancy_cells=cells,
        bits=int(header["bits"]),
        near=float(header["near"]),
        far=float(header["far"]),
        steps=int(header["steps"]),
        refine=int(header["refine"]),
        finest=int(header["finest"]),
    )


def vector_of(numbers: Any) -> np.ndarray:
    vector = np.array(numbers, np.float32)
    if vector.shape != (3,):
        raise ValueError(f"numbers of shape {vector.shape} are no place or colour")
    return vector


def _check_sizes(numbers: int, rows: int, cells: int, resolutions: Sequence[int]) -> None:
    if numbers not in NUMBERS_OF_DEGREE:
        raise ValueError(f"rows of {numbers} numbers")
    if not 1 <= len(resolutions) <= LEVELS_LIMIT or not all(1 <= resolution <= 1 << 16 for resolution in resolutions):
        raise ValueError(f"levels of {list(resolutions)[:LEVELS_LIMIT]} cells a side")
    if not 1 <= rows <= ROWS_LIMIT // len(resolutions) or not 1 <= cells <= 1024:
        raise ValueError(f"{rows} rows a level and {cells} occupancy cells a side are out of range")


def needed_rows(occupied: np.ndarray, cells: int, rows: int, resolutions: Sequence[int]) -> np.ndarray:
    """Which rows [levels * rows] a sample inside an occupied cell can be interpolated from."""
    used = np.zeros(len(resolutions) * rows, np.bool_)
    cpu.rows_used(occupied, cells, rows, np.array(resolutions, np.int64), used)
    return used


def encoded_columns(values: np.ndarray, first: int, last: int) -> list[bytes]:
    before = colour_before(values.shape[1])
    return [
        encode_integers(values[:, k].astype(np.int32), contexts=_contexts(values, k, before[k]))
        for k in range(first, last)
    ]


def decode_columns(pieces: Iterator[bytes], values: np.ndarray, first: int, last: int) -> None:
    """Fill columns first to last of values [n, numbers] int8, in the order of coding."""
    before = colour_before(values.shape[1])
    for k in range(first, last):
        column = decode_integers(next(pieces), count=len(values), contexts=_contexts(values, k, before[k]))
        if len(column) and (column.min() < -128 or column.max() > 127):
            raise ValueError("a number does not fit 8 bits")
        values[:, k] = column


def _contexts(values: np.ndarray, place: int, colour: int) -> np.ndarray:
    return contexts_of(values[:, :place], None if colour < 0 else values[:, colour])


def encoded_cells(filled: np.ndarray) -> list[bytes]:
    """A grid [cells, cells, cells] bool as an octree: which of a node's eight children are filled, coarse to fine."""
    codes = [_children(fine)[coarse.reshape(-1)] for coarse, fine in pairwise(_octree(filled))]
    return [encode_integers(code.astype(np.int32)) for code in codes]


def decoded_cells(pieces: Iterator[bytes], cells: int) -> np.ndarray:
    """Inverse of `encoded_cells`, [cells^3]. Raises ValueError for cells that lie outside."""
    grid = np.ones((1, 1, 1), np.bool_)
    for _ in range(_depth(cells)):
        code = decode_integers(next(pieces), count=int(grid.sum()))
        if len(code) and (code.min() < 0 or code.max() > 255):
            raise ValueError("an octree node has no eight children")
        children = np.zeros((grid.size, 8), np.bool_)
        children[grid.reshape(-1)] = (code[:, None] >> np.arange(8)) & 1
        n = len(grid)
        grid = children.reshape(n, n, n, 2, 2, 2).transpose(0, 3, 1, 4, 2, 5).reshape(2 * n, 2 * n, 2 * n)
    occupied = np.ascontiguousarray(grid[:cells, :cells, :cells]).reshape(-1)
    if int(occupied.sum()) != int(grid.sum()):
        raise ValueError(f"cells outside {cells} a side are occupied")
    return occupied


def _encoded_densities(densities: np.ndarray) -> bytes:
    """Cells' densities as differences along the grid, in their common step."""
    steps = np.diff(densities.astype(np.int32), prepend=0)
    common = int(np.gcd.reduce(steps[1:])) or 1
    steps[1:] //= common
    return encode_integers(np.concatenate([[common], steps]).astype(np.int32))


def _decoded_densities(piece: bytes, occupied: np.ndarray) -> np.ndarray:
    """Density codes of the occupied cells."""
    steps = decode_integers(piece, count=1 + int(occupied.sum()))
    common, steps = int(steps[0]), steps[1:].astype(np.int64)
    steps[1:] *= common
    densities = np.cumsum(steps)
    if len(densities) and (densities.min() < 0 or densities.max() > 255):
        raise ValueError("a cell's density does not fit 8 bits")
    return densities.astype(np.uint8)


def _depth(cells: int) -> int:
    """Halvings from a cube that holds all cells to one cell."""
    return max((cells - 1).bit_length(), 1)


def _octree(occupied: np.ndarray) -> list[np.ndarray]:
    """The grid at every size from 1 to the next power of two: a cell is filled where any of its eight children is."""
    side = 1 << _depth(len(occupied))
    grids = [np.pad(occupied, (0, side - len(occupied)))]
    while side > 2:
        side //= 2
        grids.append(np.asarray(grids[-1].reshape(side, 2, side, 2, side, 2).any((1, 3, 5))))
    return [np.ones((1, 1, 1), np.bool_), *grids[::-1]]


def _children(fine: np.ndarray) -> np.ndarray:
    """Which of the eight children of each cell are filled, as bits of a number [(n/2)^3]."""
    n = len(fine) // 2
    bits = fine.reshape(n, 2, n, 2, n, 2).transpose(0, 2, 4, 1, 3, 5).reshape(-1, 8)
    return bits @ (1 << np.arange(8))
