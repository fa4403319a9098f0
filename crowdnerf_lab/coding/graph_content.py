"""What a coded graph's file says, before it becomes weights: integers, the lattices they lie on, floats, and the graph.

`content_of` and `packed_content` are each other's inverse for whole files, so a file can be changed number by number
and written again: the same content gives the same bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from crowdnerf_lab.coding.entropy import decode_integers, encode_integers
from crowdnerf_lab.coding.layered_file import CodedFileError, Layer, LayeredFile, packed_layers
from crowdnerf_lab.coding.planes import decode_planes, encode_planes
from crowdnerf_lab.coding.quantization import OCTAVES, Quantized
from crowdnerf_lab.coding.stored_tensors import (
    BYTES_LIMIT,
    FLOATS,
    StoredTensor,
    described,
    from_description,
    matrix_shape,
    stored_bytes,
    type_name,
)
from crowdnerf_lab.coding.tensors import decode_float_tensors, encode_float_tensors

KIND = "crowdnerf_lab.coded_graph/1"
How = Literal["bytes", "integers", "floats", "steps"]
"""A tensor's coding: zstd'd bytes; integers or floats bit by bit; integers times steps."""


@dataclass(frozen=True)
class GraphContent:
    """The numbers of a coded graph; what is coded in the same way keeps the order of the file.

    tensors: their names, types and shapes, without content. hows: how each is coded. graph, plain: zstd'd, the graph
    and the tensors coded as bytes. integers: of tensors coded as such. lattices: of those coded as integers times
    steps. floats: by type. exact: how many floats lie between each weight of the lattices and its approximation, or
    None. shifts: bits that each layer leaves out.
    """

    tensors: tuple[StoredTensor, ...]
    hows: tuple[How, ...]
    graph: bytes
    plain: bytes
    integers: tuple[NDArray[np.integer], ...]
    lattices: tuple[Quantized, ...]
    floats: Mapping[str, Sequence[NDArray[np.floating]]]
    exact: NDArray[np.int32] | None
    shifts: tuple[int, ...]
    ends_exactly: bool

    def coded_as(self, how: How) -> list[int]:
        """Places of the tensors of one coding."""
        return [k for k, found in enumerate(self.hows) if found == how]

    def floats_of(self, kind: str) -> list[int]:
        """Places of the tensors coded as floats of one type."""
        return [k for k in self.coded_as("floats") if type_name(self.tensors[k].onnx_type) == kind]


def packed_content(content: GraphContent) -> bytes:
    """The file of a whole content."""
    planes = encode_planes(
        [*content.integers, *(lattice.integers for lattice in content.lattices)], shifts=content.shifts
    )
    parts = {
        "graph": content.graph,
        "bytes": content.plain,
        "steps": _encode_steps(content.lattices),
        "integers": planes[0],
    }
    for kind in FLOATS:
        parts[kind] = encode_float_tensors(content.floats[kind])
    first = {
        "parts": {part: len(payload) for part, payload in parts.items()},
        "tensors": [[*described(t), how] for t, how in zip(content.tensors, content.hows, strict=True)],
    }
    layered = len(content.shifts) > 1 or content.ends_exactly
    layers = [Layer("coarse" if layered else "all", b"".join(parts.values()), first)]
    layers += [Layer(f"finer {k}", plane) for k, plane in enumerate(planes[1:], 1)]
    if content.exact is not None:
        layers.append(Layer("exact", encode_integers(content.exact)))
    return packed_layers(kind=KIND, header={"shifts": content.shifts, "exact": content.ends_exactly}, layers=layers)


def content_of(file: LayeredFile) -> GraphContent:
    """The content of a file, as well as the layers that are here know it: bits that are not here are zero.

    Raises CodedFileError, KeyError, TypeError or ValueError for a file that does not fit its own header.
    """
    first, shifts, exact = file.layers[0], tuple(file.header["shifts"]), file.header["exact"]
    parts = _parts(first)
    rows = first.header["tensors"]
    tensors = tuple(from_description(row[:3]) for row in rows)
    hows: tuple[How, ...] = tuple(row[3] for row in rows)
    sizes = sum(stored_bytes(t.onnx_type, t.shape) for t in tensors)
    if not set(hows) <= set(get_args(How)) or sizes > BYTES_LIMIT:
        raise CodedFileError("its tensors are of unknown codings or too large; fetch the file again")
    blank = GraphContent(tensors, hows, parts["graph"], parts["bytes"], (), (), {}, None, shifts, bool(exact))
    shapes = {how: [tensors[k].shape for k in blank.coded_as(how)] for how in get_args(How)}
    matrices = [matrix_shape(shape) for shape in shapes["steps"]]
    planes = [layer.payload for layer in file.layers[1 : len(shifts)]]
    values = decode_planes([parts["integers"], *planes], shapes=shapes["integers"] + matrices, shifts=shifts)
    steps = _decode_steps(parts["steps"], matrices)
    split = len(shapes["integers"])
    remainders = None
    if exact and len(file.layers) == len(shifts) + 1:
        remainders = decode_integers(file.layers[-1].payload, count=sum(r * c for r, c in matrices))
    return GraphContent(
        tensors=tensors,
        hows=hows,
        graph=parts["graph"],
        plain=parts["bytes"],
        integers=tuple(values[:split]),
        lattices=tuple(Quantized(q, r, c) for q, (r, c) in zip(values[split:], steps, strict=True)),
        floats={
            kind: decode_float_tensors(
                parts[kind], shapes=[tensors[k].shape for k in blank.floats_of(kind)], dtype=kind
            )
            for kind in FLOATS
        },
        exact=remainders,
        shifts=shifts,
        ends_exactly=bool(exact),
    )


def _parts(layer: Layer) -> dict[str, bytes]:
    """The first layer's payload cut as its header says."""
    lengths, parts, at = layer.header["parts"], {}, 0
    for part, length in lengths.items() if isinstance(lengths, dict) else ():
        if type(length) is not int or length < 0:
            raise TypeError(f"part {part!r} of {length} bytes")
        parts[part] = layer.payload[at : at + length]
        at += length
    if at != len(layer.payload):
        raise ValueError(f"parts of {at} bytes in {len(layer.payload)}")
    return parts


def _encode_steps(lattices: Sequence[Quantized]) -> bytes:
    """Half-octaves of all rows and columns, rows and columns apart."""
    pairs = [(lattice.rows, lattice.columns) for lattice in lattices]
    values = np.concatenate([np.zeros(0, np.int32), *(side for pair in pairs for side in pair)])
    return encode_integers(values, contexts=_sides([(rows.size, columns.size) for rows, columns in pairs]))


def _decode_steps(payload: bytes, shapes: Sequence[tuple[int, int]]) -> list[tuple[NDArray, NDArray]]:
    values = decode_integers(payload, count=sum(map(sum, shapes)), contexts=_sides(shapes))
    if values.size and np.abs(values).max() > 2 * OCTAVES:
        raise CodedFileError("its steps are out of range; fetch the file again")
    sides, at = [], 0
    for rows, columns in shapes:
        sides.append((values[at : at + rows], values[at + rows : at + rows + columns]))
        at += rows + columns
    return sides


def _sides(shapes: Sequence[tuple[int, int]]) -> NDArray[np.uint8]:
    return np.concatenate([np.zeros(0, int), *(np.repeat([0, 1], shape) for shape in shapes)]).astype(np.uint8)
