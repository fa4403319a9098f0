"""An ONNX graph for the air: the graph without its weights, and the weights coded, exactly or at a chosen error.

    encode_graph(graph, path)                                        range-coded, every weight bit by bit
    step = step_for_psnr(38, weights=parameters)
    encode_graph(graph, path, step=step, importances=importances)    lossy: fewer bits where the picture forgives them
    encode_graph(graph, path, coding="progressive", step=step, ...)  coarse weights first, refined by every layer

The receiver needs neither onnx nor torch: `decode_graph` gives the graph and its weights, which `lend` hands to ONNX
Runtime. Any beginning of a progressive file that reaches beyond its first layer renders.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from crowdnerf_lab.coding.entropy import decode_integers, encode_integers
from crowdnerf_lab.coding.graph_quantization import quantized_layers
from crowdnerf_lab.coding.layered_file import CodedFileError, Layer, LayeredFile, packed_layers, read_layers
from crowdnerf_lab.coding.planes import decode_planes, encode_planes
from crowdnerf_lab.coding.quantization import OCTAVES, SLOPE, Importance, Quantized, steps_of, uncorrelated
from crowdnerf_lab.coding.stored_tensors import (
    BYTES_LIMIT,
    FLOATS,
    WEIGHTS_FILE,
    StoredTensor,
    as_array,
    described,
    floats_of,
    from_description,
    integer_content,
    integers_of,
    is_coded_float,
    is_integer,
    matrix_shape,
    stored_bytes,
    type_name,
    weights_file,
)
from crowdnerf_lab.coding.tensors import (
    compress,
    decode_float_tensors,
    decompress,
    encode_float_tensors,
)
from crowdnerf_lab.files import write_bytes

KIND = "crowdnerf_lab.coded_graph/1"
Coding = Literal["range", "zstd", "progressive"]
SHIFTS = (2, 1, 0)
"""Bits that each layer of a progressive file leaves out of every integer."""
EXACT_STEP = 0.05
"""Steps of the integers of a progressive file that ends exactly, in units of a tensor's root mean square."""
STEP_OCTAVES = (-20, 4)
"""Between which powers of two `step_within` looks."""
GRAPH_LIMIT = 1 << 26
How = Literal["bytes", "integers", "floats", "steps"]
"""A tensor's coding: zstd'd bytes; integers or floats bit by bit; integers times steps."""


@runtime_checkable
class SessionOptions(Protocol):
    """onnxruntime.SessionOptions, as far as it is needed here."""

    def add_external_initializers_from_files_in_memory(self, names: Any, buffers: Any, lengths: Any, /) -> None:
        """Let a session read files from memory."""
        ...


@dataclass(frozen=True)
class DecodedGraph:
    """A graph, its weights by name, and whether the file was whole (else they are coarser than they could be).

    weights: contents of the file that the graph says its weights are in. initializers: the same as arrays (views; 4-bit
    types as packed bytes).
    """

    model: bytes
    initializers: dict[str, NDArray]
    complete: bool
    weights: bytes

    def lend(self, options: SessionOptions) -> None:
        """Let the session that is made of `model` with these options find its weights; keep self until it is made."""
        options.add_external_initializers_from_files_in_memory([WEIGHTS_FILE], [self.weights], [len(self.weights)])


def encode_graph(
    graph: Path,
    path: Path,
    *,
    coding: Coding = "range",
    step: float | None = None,
    importances: Mapping[str, Importance] | None = None,
    slope: float = SLOPE,
    shifts: Sequence[int] = SHIFTS,
) -> Path:
    """Write an ONNX graph as a coded file; atomic.

    coding: 'range' and 'zstd' are one layer; 'progressive' has a layer for each of `shifts`. step None: every weight
    comes back bit by bit (a progressive file has one more layer for that). A step: float weights of layers become
    integers times steps, int8 ones coarser integers, see quantization.quantized; without importances the step is in
    units of a tensor's root mean square. importances: by initializer name, of those that they are given for. slope: how
    much error a bit is worth, see quantization.quantized. A progressive file makes no use of the inputs' correlations:
    its first layers leave out bits that the feedback between columns would count on.
    """
    return write_bytes(
        Path(path),
        packed_graph(graph, coding=coding, step=step, importances=importances, slope=slope, shifts=shifts),
    )


def packed_graph(
    graph: Path,
    *,
    coding: Coding = "range",
    step: float | None = None,
    importances: Mapping[str, Importance] | None = None,
    slope: float = SLOPE,
    shifts: Sequence[int] = SHIFTS,
) -> bytes:
    """The bytes that `encode_graph` writes. Needs onnx."""
    from crowdnerf_lab.coding.graph_weights import parted

    if coding not in get_args(Coding):
        raise CodedFileError(f"coding {coding!r} is not known; choose one of {', '.join(get_args(Coding))}")
    if step is not None and (coding == "zstd" or not 0 < step < 2**OCTAVES):
        raise CodedFileError(f"coding {coding!r} with step {step} cannot be; zstd is exact, and a step is above 0")
    parts = parted(graph)
    if coding == "zstd":
        return _packed(parts.model, parts.tensors, dict.fromkeys((t.name for t in parts.tensors), "bytes"), {})
    exact = coding == "progressive" and step is None
    lattices: dict[str, Quantized] = {}
    if exact:
        lattices = quantized_layers(replace(parts, scales={}), step=EXACT_STEP, importances=None, slope=0)
    elif step is not None:
        if coding == "progressive" and importances is not None:
            importances = {name: uncorrelated(importance) for name, importance in importances.items()}
        lattices = quantized_layers(parts, step=step, importances=importances, slope=slope)
    exact = exact and bool(lattices)
    hows: dict[str, How] = {t.name: "steps" if t.name in lattices else _exact_coding(t) for t in parts.tensors}
    planes = tuple(shifts) if coding == "progressive" else (0,)
    return _packed(parts.model, parts.tensors, hows, lattices, shifts=planes, exact=exact)


def step_within(
    graph: Path,
    *,
    max_bytes: int,
    coding: Coding = "range",
    importances: Mapping[str, Importance] | None = None,
) -> float:
    """The finest step, to a tenth of an octave, at which `encode_graph` writes at most max_bytes.

    Raises CodedFileError, naming the least that is possible, when no step is coarse enough.
    """
    octaves = np.linspace(*STEP_OCTAVES, 10 * (STEP_OCTAVES[1] - STEP_OCTAVES[0]) + 1)

    def size(k: int) -> int:
        return len(packed_graph(graph, coding=coding, step=float(2.0 ** octaves[k]), importances=importances))

    too_fine, enough = -1, len(octaves) - 1
    if (least := size(enough)) > max_bytes:
        raise CodedFileError(f"{graph} cannot be coded in {max_bytes} bytes; allow {least}, or take a smaller student")
    while enough - too_fine > 1:
        middle = (too_fine + enough) // 2
        too_fine, enough = (too_fine, middle) if size(middle) <= max_bytes else (middle, enough)
    return float(2.0 ** octaves[enough])


def decode_graph(content: bytes, *, name: Path | str) -> DecodedGraph:
    """Read a coded graph, or any beginning of one that reaches beyond its first layer; name: for errors.

    Raises CodedFileError when it is damaged, hostile or something else.
    """
    file = read_layers(content, kind=KIND, name=name)
    try:
        model, tensors = _unpacked(file)
    except CodedFileError as error:
        raise CodedFileError(f"{name}: {error}") from error
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, struct.error) as error:
        raise CodedFileError(f"{name} does not fit its own header ({error}); fetch it again") from error
    return DecodedGraph(model, {t.name: as_array(t) for t in tensors}, file.complete, weights_file(tensors))


def _exact_coding(tensor: StoredTensor) -> How:
    """Range coding where it beats zstd, which knows patterns (pixel grids) that histograms do not."""
    if is_integer(tensor.onnx_type):
        return "integers"
    if not is_coded_float(tensor.onnx_type):
        return "bytes"
    return "floats" if len(encode_float_tensors([floats_of(tensor)])) < len(compress(tensor.content)) else "bytes"


def _packed(
    model: bytes,
    tensors: Sequence[StoredTensor],
    hows: Mapping[str, How],
    lattices: Mapping[str, Quantized],
    *,
    shifts: tuple[int, ...] = (0,),
    exact: bool = False,
) -> bytes:
    by_how = {how: [t for t in tensors if hows[t.name] == how] for how in get_args(How)}
    integers = [integers_of(t) for t in by_how["integers"]]
    integers += [lattices[t.name].integers for t in by_how["steps"]]
    planes = encode_planes(integers, shifts=shifts)
    parts = {
        "graph": compress(model),
        "bytes": compress(b"".join(t.content for t in by_how["bytes"])),
        "steps": _encode_steps([lattices[t.name] for t in by_how["steps"]]),
        "integers": planes[0],
    }
    for kind in FLOATS:
        parts[kind] = encode_float_tensors([floats_of(t) for t in by_how["floats"] if type_name(t.onnx_type) == kind])
    first = {
        "parts": {part: len(content) for part, content in parts.items()},
        "tensors": [[*described(t), hows[t.name]] for t in tensors],
    }
    layers = [Layer("coarse" if len(shifts) > 1 or exact else "all", b"".join(parts.values()), first)]
    layers += [Layer(f"finer {k}", plane) for k, plane in enumerate(planes[1:], 1)]
    if exact:
        remainders = [_remainder(t, _on_lattice(t, lattices[t.name])) for t in by_how["steps"]]
        layers.append(Layer("exact", encode_integers(np.concatenate([np.zeros(0, np.int32), *remainders]))))
    return packed_layers(kind=KIND, header={"shifts": shifts, "exact": exact}, layers=layers)


def _unpacked(file: LayeredFile) -> tuple[bytes, list[StoredTensor]]:
    """The graph, and its tensors as well as the layers that are here know them."""
    first, shifts, exact = file.layers[0], file.header["shifts"], file.header["exact"]
    parts = _parts(first)
    rows = first.header["tensors"]
    hows: list[How] = [row[3] for row in rows]
    tensors = [from_description(row[:3]) for row in rows]
    by_how = {how: [k for k, h in enumerate(hows) if h == how] for how in get_args(How)}
    if sum(map(len, by_how.values())) != len(rows) or sum(map(_size, tensors)) > BYTES_LIMIT:
        raise CodedFileError("its tensors are of unknown codings or too large; fetch the file again")
    _fill_bytes(tensors, by_how["bytes"], decompress(parts["bytes"], limit=BYTES_LIMIT))
    for kind in FLOATS:
        chosen = [k for k in by_how["floats"] if type_name(tensors[k].onnx_type) == kind]
        shapes = [tensors[k].shape for k in chosen]
        for k, array in zip(chosen, decode_float_tensors(parts[kind], shapes=shapes, dtype=kind), strict=True):
            tensors[k] = replace(tensors[k], content=array.astype(array.dtype.newbyteorder("<")).tobytes())
    planes = [layer.payload for layer in file.layers[1 : len(shifts)]]
    lattice_shapes = [matrix_shape(tensors[k].shape) for k in by_how["steps"]]
    shapes = [tensors[k].shape for k in by_how["integers"]] + lattice_shapes
    values = decode_planes([parts["integers"], *planes], shapes=shapes, shifts=shifts)
    for k, integers in zip(by_how["integers"], values, strict=False):
        tensors[k] = replace(tensors[k], content=integer_content(integers, tensors[k].onnx_type))
    steps = _decode_steps(parts["steps"], lattice_shapes)
    for k, integers, (r, c) in zip(by_how["steps"], values[len(by_how["integers"]) :], steps, strict=True):
        tensors[k] = replace(tensors[k], content=_on_lattice(tensors[k], Quantized(integers, r, c)))
    if exact and len(file.layers) == len(shifts) + 1:
        _make_exact(tensors, by_how["steps"], file.layers[-1].payload)
    return decompress(parts["graph"], limit=GRAPH_LIMIT), tensors


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


def _size(tensor: StoredTensor) -> int:
    return stored_bytes(tensor.onnx_type, tensor.shape)


def _fill_bytes(tensors: list[StoredTensor], chosen: Sequence[int], content: bytes) -> None:
    at = 0
    for k in chosen:
        end = at + _size(tensors[k])
        tensors[k] = replace(tensors[k], content=content[at:end])
        at = end
    if at != len(content):
        raise CodedFileError(f"its plain tensors take {at} bytes, it holds {len(content)}; fetch the file again")


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


def _on_lattice(tensor: StoredTensor, lattice: Quantized) -> bytes:
    """A tensor's content: integers times steps, in the type that the graph computes with."""
    whole = is_integer(tensor.onnx_type)
    values = lattice.integers * steps_of(lattice.rows, lattice.columns, whole=whole)
    if whole:
        return integer_content(np.clip(values, -(2**31), 2**31 - 1).astype(np.int64), tensor.onnx_type)
    return values.astype(np.dtype(type_name(tensor.onnx_type)).newbyteorder("<")).tobytes()


def _remainder(tensor: StoredTensor, approximate: bytes) -> NDArray[np.int32]:
    """How many floats lie between each weight and what it was approximated by; exact, whatever the floats are."""
    ours, theirs = _ordered(tensor.content, tensor.onnx_type), _ordered(approximate, tensor.onnx_type)
    return (ours - theirs).astype(np.uint32).view(np.int32)


def _make_exact(tensors: list[StoredTensor], chosen: Sequence[int], payload: bytes) -> None:
    sizes = [len(tensors[k].content) // (2 if type_name(tensors[k].onnx_type) == "float16" else 4) for k in chosen]
    values = decode_integers(payload, count=sum(sizes))
    for k, size, end in zip(chosen, sizes, np.cumsum(sizes), strict=True):
        ordered = _ordered(tensors[k].content, tensors[k].onnx_type) + values[end - size : end]
        tensors[k] = replace(tensors[k], content=_unordered(ordered, tensors[k].onnx_type))


def _ordered(content: bytes, onnx_type: int) -> NDArray[np.int64]:
    """Floats as integers in the floats' order: neighbours differ by one; negative ones run downwards from -1."""
    bits = np.frombuffer(content, "<u2" if type_name(onnx_type) == "float16" else "<u4").astype(np.int64)
    sign = 1 << (15 if type_name(onnx_type) == "float16" else 31)
    return np.where(bits & sign, sign - 1 - bits, bits)


def _unordered(ordered: NDArray[np.int64], onnx_type: int) -> bytes:
    half = type_name(onnx_type) == "float16"
    sign = 1 << (15 if half else 31)
    wrapped = (ordered + sign) % (2 * sign) - sign
    bits = np.where(wrapped < 0, sign - 1 - wrapped, wrapped)
    return bits.astype("<u2" if half else "<u4").tobytes()
