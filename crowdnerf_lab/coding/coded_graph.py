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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from crowdnerf_lab.coding.graph_content import KIND, GraphContent, How, content_of, packed_content
from crowdnerf_lab.coding.graph_quantization import quantized_layers
from crowdnerf_lab.coding.layered_file import CodedFileError, LayeredFile, read_layers
from crowdnerf_lab.coding.quantization import OCTAVES, SLOPE, Importance, Quantized, steps_of, uncorrelated
from crowdnerf_lab.coding.stored_tensors import (
    BYTES_LIMIT,
    FLOATS,
    WEIGHTS_FILE,
    StoredTensor,
    as_array,
    floats_of,
    from_ordinals,
    integer_content,
    integers_of,
    is_coded_float,
    is_integer,
    ordinals,
    stored_bytes,
    type_name,
    weights_file,
)
from crowdnerf_lab.coding.tensors import (
    compress,
    decompress,
    encode_float_tensors,
)
from crowdnerf_lab.files import write_bytes

Coding = Literal["range", "zstd", "progressive"]
SHIFTS = (2, 1, 0)
"""Bits that each layer of a progressive file leaves out of every integer."""
EXACT_STEP = 0.05
"""Steps of the integers of a progressive file that ends exactly, in units of a tensor's root mean square."""
STEP_OCTAVES = (-20, 4)
"""Between which powers of two `step_within` looks."""
GRAPH_LIMIT = 1 << 26


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
    after: Path | None = None,
) -> Path:
    """Write an ONNX graph as a coded file; atomic.

    coding: 'range' and 'zstd' are one layer; 'progressive' has a layer for each of `shifts`. step None: every weight
    comes back bit by bit (a progressive file has one more layer for that). A step: float weights of layers become
    integers times steps, int8 ones coarser integers, see quantization.quantized; without importances the step is in
    units of a tensor's root mean square. importances: by initializer name, of those that they are given for. slope: how
    much error a bit is worth, see quantization.quantized. A progressive file makes no use of the inputs' correlations:
    its first layers leave out bits that the feedback between columns would count on.
    after: the coded file of the version before, with the same tensors in the same coding. Under a step, this file then
    takes over its steps, the scales that its graph quantizes by, and every integer that is not worth the bits of moving
    it: `catalogue.delta` makes little of the change. What moves makes up for what stays, by the correlations, also in
    a progressive file: it is little, and spoils no beginning. Where the two are not alike, nothing is taken over.
    """
    return write_bytes(
        Path(path),
        packed_graph(graph, coding=coding, step=step, importances=importances, slope=slope, shifts=shifts, after=after),
    )


def packed_graph(
    graph: Path,
    *,
    coding: Coding = "range",
    step: float | None = None,
    importances: Mapping[str, Importance] | None = None,
    slope: float = SLOPE,
    shifts: Sequence[int] = SHIFTS,
    after: Path | None = None,
) -> bytes:
    """The bytes that `encode_graph` writes. Needs onnx."""
    from crowdnerf_lab.coding.graph_weights import parted, quantizers_of

    if coding not in get_args(Coding):
        raise CodedFileError(f"coding {coding!r} is not known; choose one of {', '.join(get_args(Coding))}")
    if step is not None and (coding == "zstd" or not 0 < step < 2**OCTAVES):
        raise CodedFileError(f"coding {coding!r} with step {step} cannot be; zstd is exact, and a step is above 0")
    before = _Before.of(after) if after is not None and step is not None else _Before()
    parts = parted(graph, quantizers=quantizers_of(before.model, before.initializers) if before.lattices else None)
    if coding == "zstd":
        return _packed(parts.model, parts.tensors, dict.fromkeys((t.name for t in parts.tensors), "bytes"), {})
    exact = coding == "progressive" and step is None
    lattices: dict[str, Quantized] = {}
    if exact:
        lattices = quantized_layers(replace(parts, scales={}), step=EXACT_STEP, importances=None, slope=0)
    elif step is not None:
        if coding == "progressive" and importances is not None and not before.lattices:
            importances = {name: uncorrelated(importance) for name, importance in importances.items()}
        lattices = quantized_layers(parts, step=step, importances=importances, slope=slope, after=before.lattices)
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


@dataclass(frozen=True)
class _Before:
    """The version before: its graph, its weights and what they were quantized to, by name."""

    model: bytes = b""
    initializers: Mapping[str, NDArray] = field(default_factory=dict)
    lattices: Mapping[str, Quantized] = field(default_factory=dict)

    @staticmethod
    def of(path: Path) -> "_Before":
        """What a coded graph's whole file holds."""
        content = Path(path).read_bytes()
        decoded, found = decode_graph(content, name=path), content_of(read_layers(content, kind=KIND, name=path))
        if not decoded.complete:
            raise CodedFileError(f"{path} is truncated; give the whole file of the version before")
        names = (found.tensors[k].name for k in found.coded_as("steps"))
        return _Before(decoded.model, decoded.initializers, dict(zip(names, found.lattices, strict=True)))


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
    remainders = [_remainder(t, _on_lattice(t, lattices[t.name])) for t in by_how["steps"]] if exact else []
    return packed_content(
        GraphContent(
            tensors=tuple(tensors),
            hows=tuple(hows[t.name] for t in tensors),
            graph=compress(model),
            plain=compress(b"".join(t.content for t in by_how["bytes"])),
            integers=tuple(integers_of(t) for t in by_how["integers"]),
            lattices=tuple(lattices[t.name] for t in by_how["steps"]),
            floats={
                kind: [floats_of(t) for t in by_how["floats"] if type_name(t.onnx_type) == kind] for kind in FLOATS
            },
            exact=np.concatenate([np.zeros(0, np.int32), *remainders]) if exact else None,
            shifts=shifts,
            ends_exactly=exact,
        )
    )


def _unpacked(file: LayeredFile) -> tuple[bytes, list[StoredTensor]]:
    """The graph, and its tensors as well as the layers that are here know them."""
    content = content_of(file)
    tensors = list(content.tensors)
    _fill_bytes(tensors, content.coded_as("bytes"), decompress(content.plain, limit=BYTES_LIMIT))
    for kind in FLOATS:
        for k, array in zip(content.floats_of(kind), content.floats[kind], strict=True):
            tensors[k] = replace(tensors[k], content=array.astype(array.dtype.newbyteorder("<")).tobytes())
    for k, integers in zip(content.coded_as("integers"), content.integers, strict=True):
        tensors[k] = replace(tensors[k], content=integer_content(integers, tensors[k].onnx_type))
    for k, lattice in zip(content.coded_as("steps"), content.lattices, strict=True):
        tensors[k] = replace(tensors[k], content=_on_lattice(tensors[k], lattice))
    if content.exact is not None:
        _make_exact(tensors, content.coded_as("steps"), content.exact)
    return decompress(content.graph, limit=GRAPH_LIMIT), tensors


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


def _on_lattice(tensor: StoredTensor, lattice: Quantized) -> bytes:
    """A tensor's content: integers times steps, in the type that the graph computes with."""
    whole = is_integer(tensor.onnx_type)
    values = lattice.integers * steps_of(lattice.rows, lattice.columns, whole=whole)
    if whole:
        return integer_content(np.clip(values, -(2**31), 2**31 - 1).astype(np.int64), tensor.onnx_type)
    return values.astype(np.dtype(type_name(tensor.onnx_type)).newbyteorder("<")).tobytes()


def _remainder(tensor: StoredTensor, approximate: bytes) -> NDArray[np.int32]:
    """How many floats lie between each weight and what it was approximated by; exact, whatever the floats are."""
    kind = type_name(tensor.onnx_type)
    ours, theirs = ordinals(tensor.content, kind), ordinals(approximate, kind)
    return (ours - theirs).astype(np.uint32).view(np.int32)


def _make_exact(tensors: list[StoredTensor], chosen: Sequence[int], values: NDArray[np.int32]) -> None:
    at = 0
    for k in chosen:
        kind = type_name(tensors[k].onnx_type)
        approximate = ordinals(tensors[k].content, kind)
        moved = approximate + values[at : at + approximate.size]
        tensors[k] = replace(tensors[k], content=from_ordinals(moved, kind))
        at += approximate.size
