"""What changes from one baked field to the next: cells and rows that come and go, and a residual for every number.

Both fields must have the same levels, rows and cells; `bake(..., after=old)` makes such fields and keeps most numbers
where they were. Numpy, constriction and numba alone: a UE reads it.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from crowdnerf_lab.coding.baked_stream import (
    NUMBERS,
    VECTORS,
    coded_baked,
    decode_baked,
    decode_columns,
    decoded_cells,
    encoded_cells,
    encoded_columns,
    needed_rows,
    vector_of,
)
from crowdnerf_lab.coding.entropy import decode_integers, encode_integers
from crowdnerf_lab.coding.layered_file import CodedFileError, Layer, joined, pieces_of
from crowdnerf_lab.coding.row_statistics import column_order, moved_contexts_of
from crowdnerf_lab.fields.baked import BakedField, check_consistent
from crowdnerf_lab.fields.baked_parts import BakedParts


def baked_residuals(old: bytes, new: bytes) -> list[Layer] | None:
    """The layers of a delta between two coded baked fields: cells, then level after level; None when they are not made
    alike."""
    before, after = _whole(old, "the old file"), _whole(new, "the new file")
    if before is None or after is None or _form(before) != _form(after):
        return None
    of, to = BakedParts.of(before), BakedParts.of(after)
    needed = needed_rows(to.cells.reshape(-1), len(to.cells), after.rows, after.resolutions).reshape(to.kept.shape)
    pruned, order = bool((to.kept <= needed).all()), np.array(column_order(after.scales.shape[1]))
    header = {name: getattr(after, name) for name in NUMBERS}
    header |= {name: [float(number) for number in getattr(after, name)] for name in VECTORS} | {"pruned": pruned}
    cells = [*encoded_cells(of.cells ^ to.cells), *_encoded_densities(of, to)]
    layers = [Layer("cells", joined(cells), header)]
    candidates = needed if pruned else np.ones_like(needed)
    for level, resolution in enumerate(after.resolutions):
        rows = np.flatnonzero(candidates[level])
        was, is_kept = of.kept[level, rows], to.kept[level, rows]
        pieces = [
            _scales(before, after, level),
            encode_integers(is_kept.astype(np.int32), contexts=was.astype(np.uint8)),
        ]
        both = rows[was & is_kept]
        values = of.rows(level, both)[:, order]
        residuals = to.rows(level, both)[:, order].astype(np.int32) - values
        pieces += [
            encode_integers(residuals[:, k], contexts=moved_contexts_of(values[:, k], residuals[:, :k]))
            for k in range(len(order))
        ]
        fresh = to.rows(level, rows[~was & is_kept])[:, order]
        pieces += encoded_columns(fresh, 0, fresh.shape[1])
        layers.append(Layer(f"level {resolution}", joined(pieces)))
    return layers


def baked_after(old: bytes, layers: Sequence[Layer]) -> bytes:
    """The new file, from the old one and the delta's layers. Raises CodedFileError or ValueError when they do not fit.

    Whether it is the file that was meant, a checksum must say.
    """
    before = _whole(old, "the old file")
    if before is None or len(layers) != 1 + len(before.resolutions):
        raise CodedFileError("the delta does not fit the file that is here; fetch the new file whole")
    of, header = BakedParts.of(before), layers[0].header
    pieces = pieces_of(layers[0].payload)
    cells = of.cells ^ decoded_cells(pieces, before.occupancy_cells).reshape(of.cells.shape)
    densities = _decoded_densities(pieces, of, cells)
    kept, scales, values = np.zeros_like(of.kept), before.scales.copy(), []
    candidates = np.ones_like(kept)
    if header["pruned"]:
        candidates = needed_rows(cells.reshape(-1), len(cells), before.rows, before.resolutions).reshape(kept.shape)
    numbers = before.scales.shape[1]
    order = np.array(column_order(numbers))
    for level, layer in enumerate(layers[1:]):
        pieces = pieces_of(layer.payload)
        if scale := next(pieces):
            scales[level] = np.frombuffer(scale, "<f4")
        rows = np.flatnonzero(candidates[level])
        was = of.kept[level, rows]
        flags = decode_integers(next(pieces), count=len(rows), contexts=was.astype(np.uint8))
        if ((flags != 0) & (flags != 1)).any():
            raise ValueError(f"a flag of level {before.resolutions[level]} is neither 0 nor 1")
        is_kept = flags.astype(np.bool_)
        kept[level, rows] = is_kept
        both = of.rows(level, rows[was & is_kept])[:, order]
        residuals = np.zeros(both.shape, np.int32)
        for k in range(numbers):
            contexts = moved_contexts_of(both[:, k], residuals[:, :k])
            residuals[:, k] = decode_integers(next(pieces), count=len(both), contexts=contexts)
        fresh = np.zeros((int((~was & is_kept).sum()), numbers), np.int8)
        decode_columns(pieces, fresh, 0, numbers)
        own = np.zeros((int(flags.sum()), numbers), np.int8)
        own[was[is_kept]], own[~was[is_kept]] = _bytes(both + residuals.astype(np.int64), np.int8), fresh
        values.append(own)
    restored = np.empty((sum(map(len, values)), numbers), np.int8)
    restored[:, order] = np.concatenate(values)
    field = BakedField(
        values=restored,
        scales=scales,
        kept=np.packbits(kept),
        occupied=np.packbits(cells.reshape(-1), bitorder="little"),
        densities=densities,
        resolutions=before.resolutions,
        **_header_of(header, before),
    )
    check_consistent(field)
    return coded_baked(field)


def _whole(content: bytes, name: str) -> BakedField | None:
    field, complete = decode_baked(content, name=name)
    return field if complete else None


def _form(field: BakedField) -> tuple:
    """What must be alike in both files."""
    return field.rows, field.occupancy_cells, field.resolutions, field.scales.shape


def _header_of(header: Any, before: BakedField) -> dict[str, Any]:
    """A field's numbers, checked, of which the grid's sizes are the old ones."""
    numbers: dict[str, Any] = {name: int(header[name]) for name in ("bits", "steps", "refine", "finest")}
    numbers |= {name: float(header[name]) for name in ("near", "far")}
    numbers |= {name: vector_of(header[name]) for name in VECTORS}
    return numbers | {"rows": before.rows, "occupancy_cells": before.occupancy_cells}


def _scales(before: BakedField, after: BakedField, level: int) -> bytes:
    """A level's scales where they changed."""
    old, new = before.scales[level].astype("<f4").tobytes(), after.scales[level].astype("<f4").tobytes()
    return b"" if old == new else new


def _encoded_densities(of: BakedParts, to: BakedParts) -> list[bytes]:
    """Of cells that stay the change, of new ones the difference along the grid."""
    stay, come = of.cells & to.cells, to.cells & ~of.cells
    changes = to.densities[stay].astype(np.int32) - of.densities[stay]
    return [encode_integers(changes), encode_integers(np.diff(to.densities[come].astype(np.int32), prepend=0))]


def _decoded_densities(pieces: Iterator[bytes], of: BakedParts, cells: np.ndarray) -> np.ndarray:
    stay, come = of.cells & cells, cells & ~of.cells
    found = np.zeros(cells.shape, np.int64)
    found[stay] = of.densities[stay] + decode_integers(next(pieces), count=int(stay.sum())).astype(np.int64)
    found[come] = np.cumsum(decode_integers(next(pieces), count=int(come.sum())).astype(np.int64))
    return _bytes(found[cells], np.uint8)


def _bytes(values: np.ndarray, dtype: type) -> np.ndarray:
    limits = np.iinfo(dtype)
    if values.size and (values.min() < limits.min or values.max() > limits.max):
        raise ValueError("a number does not fit 8 bits")
    return values.astype(dtype)
