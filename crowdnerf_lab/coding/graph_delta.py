"""What changes from one coded graph to the next: a residual for every number, most of them zero.

Both files must hold the same tensors in the same codings; `encode_graph(..., after=old)` writes such files and keeps
most numbers where they were. Numpy, constriction and zstandard alone: a UE reads it.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from crowdnerf_lab.coding.entropy import decode_integers, encode_integers
from crowdnerf_lab.coding.graph_content import KIND, GraphContent, content_of, packed_content
from crowdnerf_lab.coding.layered_file import CodedFileError, Layer, joined, pieces_of, read_layers
from crowdnerf_lab.coding.quantization import Quantized
from crowdnerf_lab.coding.stored_tensors import FLOATS, from_ordinals, ordinals
from crowdnerf_lab.coding.tensors import decode_integer_tensors, encode_integer_tensors

LAYER = "residuals"


def graph_residuals(old: bytes, new: bytes) -> list[Layer] | None:
    """The layers of a delta between two coded graphs; None when they are not made alike."""
    before, after = _whole(old, "the old file"), _whole(new, "the new file")
    if before is None or after is None or _form(before) != _form(after):
        return None
    pairs = zip(_matrices(before), _matrices(after), strict=True)
    pieces = [
        b"" if after.graph == before.graph else after.graph,
        b"" if after.plain == before.plain else after.plain,
        encode_integers(_difference(_sides(after), _sides(before))),
        encode_integer_tensors([_difference(to, of) for of, to in pairs]),
    ]
    for kind in FLOATS:
        pairs = zip(before.floats[kind], after.floats[kind], strict=True)
        pieces.append(encode_integer_tensors([_difference(_places(to), _places(of)) for of, to in pairs]))
    if after.exact is not None and before.exact is not None:
        pieces.append(encode_integers(_difference(after.exact, before.exact)))
    return [Layer(LAYER, joined(pieces))]


def graph_after(old: bytes, layers: Sequence[Layer]) -> bytes:
    """The new file, from the old one and the delta's layers. Raises CodedFileError or ValueError when they do not fit.

    Whether it is the file that was meant, a checksum must say.
    """
    before = _whole(old, "the old file")
    if before is None or len(layers) != 1:
        raise CodedFileError("the delta does not fit the file that is here; fetch the new file whole")
    pieces = pieces_of(layers[0].payload)
    graph, plain, sides = next(pieces), next(pieces), _sides(before)
    sides = _sum(sides, decode_integers(next(pieces), count=sides.size))
    matrices = _matrices(before)
    changes = decode_integer_tensors(next(pieces), shapes=[matrix.shape for matrix in matrices])
    matrices = [_sum(of, change) for of, change in zip(matrices, changes, strict=True)]
    floats = {}
    for kind in FLOATS:
        changes = decode_integer_tensors(next(pieces), shapes=[tensor.shape for tensor in before.floats[kind]])
        floats[kind] = [_moved(of, change) for of, change in zip(before.floats[kind], changes, strict=True)]
    exact = before.exact
    if exact is not None:
        exact = _sum(exact, decode_integers(next(pieces), count=exact.size))
    split = len(before.integers)
    lattices, at = [], 0
    for lattice, integers in zip(before.lattices, matrices[split:], strict=True):
        middle, end = at + lattice.rows.size, at + lattice.rows.size + lattice.columns.size
        lattices.append(Quantized(integers, sides[at:middle], sides[middle:end]))
        at = end
    return packed_content(
        replace(
            before,
            graph=graph or before.graph,
            plain=plain or before.plain,
            integers=tuple(matrices[:split]),
            lattices=tuple(lattices),
            floats=floats,
            exact=exact,
        )
    )


def _whole(content: bytes, name: str) -> GraphContent | None:
    file = read_layers(content, kind=KIND, name=name)
    return content_of(file) if file.complete else None


def _form(content: GraphContent) -> tuple:
    """What must be alike in both files."""
    return content.tensors, content.hows, content.shifts, content.ends_exactly


def _matrices(content: GraphContent) -> list[NDArray[np.int32]]:
    lattices = (lattice.integers for lattice in content.lattices)
    return [integers.astype(np.int32) for integers in (*content.integers, *lattices)]


def _sides(content: GraphContent) -> NDArray[np.int32]:
    """Steps of the rows and columns of all lattices."""
    sides = [side for lattice in content.lattices for side in (lattice.rows, lattice.columns)]
    return np.concatenate([np.zeros(0, np.int32), *sides]).astype(np.int32)


def _places(floats: NDArray[np.floating]) -> NDArray[np.int32]:
    """Floats as integers in their order."""
    content = floats.astype(floats.dtype.newbyteorder("<")).tobytes()
    return ordinals(content, floats.dtype.name).astype(np.int32).reshape(floats.shape)


def _moved(floats: NDArray[np.floating], change: NDArray[np.int32]) -> NDArray[np.floating]:
    places = _places(floats).astype(np.int64) + change
    stored = np.frombuffer(from_ordinals(places.reshape(-1), floats.dtype.name), floats.dtype.newbyteorder("<"))
    return stored.astype(floats.dtype).reshape(floats.shape)


def _difference(new: NDArray[np.int32], old: NDArray[np.int32]) -> NDArray[np.int32]:
    """new - old within 32 bits: what does not fit begins again at the other end, where `_sum` finds it."""
    return (new.astype(np.int64) - old).astype(np.uint32).view(np.int32)


def _sum(old: NDArray[np.int32], change: NDArray[np.int32]) -> NDArray[np.int32]:
    return (old.astype(np.int64) + change).astype(np.uint32).view(np.int32)
