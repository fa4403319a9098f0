"""An ONNX graph and its weights apart: the graph keeps names, types and places, the weights become plain bytes."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from crowdnerf_lab.coding.graph_quantization import PartedGraph, Scales
from crowdnerf_lab.coding.layered_file import CodedFileError
from crowdnerf_lab.coding.stored_tensors import ALIGNMENT, ONNX_TYPES, WEIGHTS_FILE, StoredTensor, stored_bytes

SMALLEST = 128
"""Bytes below which a tensor stays in the graph: shapes and scalars, which ONNX Runtime must see when it loads it."""


QUANTIZING = ("QuantizeLinear", "DequantizeLinear")
WHOLE = (TensorProto.INT8, TensorProto.INT32)
"""Types of weights around zero that can be told in units of other scales."""
MULTIPLYING = ("Conv", "ConvTranspose", "Gemm", "MatMul", "MatMulInteger", "MatMulNBits")


def parted(graph: Path, *, quantizers: Mapping[str, NDArray] | None = None) -> PartedGraph:
    """The graph with its weights declared as external data of WEIGHTS_FILE, and those weights in the file's order.

    What only people read (names of nodes, shapes between operations, notes) is left out. quantizers: of the version
    before, see `quantizers_of`; the graph then quantizes by them. CodedFileError when the file is no ONNX graph or
    keeps its weights in other files.
    """
    try:
        model = onnx.load(graph, load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        raise CodedFileError(f"cannot read the graph {graph}: {error}; export the light field again") from error
    del model.graph.value_info[:]
    for node in model.graph.node:
        node.name = node.doc_string = ""
    if quantizers:
        _quantize_by(model, quantizers)
    multiplied, scales = _multiplied(model), _scales(model)
    weights, end = [], 0
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            raise CodedFileError(f"{graph} keeps {tensor.name} in another file; save it as one file")
        stored = _stored(tensor)
        if stored is None:
            continue
        offset = -(-end // ALIGNMENT) * ALIGNMENT
        _move_out(tensor, offset, len(stored.content))
        weights.append(stored)
        end = offset + len(stored.content)
    return PartedGraph(model.SerializeToString(deterministic=True), weights, multiplied, scales)


def quantizers_of(model: bytes, initializers: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """Scales and zero points of a decoded graph and its weights, by name."""
    graph = onnx.load_from_string(model).graph
    arrays = dict(initializers) | {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if tensor.data_location != TensorProto.EXTERNAL
    }
    return {name: arrays[name] for name in _quantizers(graph) if name in arrays}


def _quantizers(graph: onnx.GraphProto) -> list[str]:
    """Scales and zero points that nodes quantize by."""
    names = (name for node in graph.node if node.op_type in QUANTIZING for name in node.input[1:3] if name)
    return list(dict.fromkeys(names))


def _quantize_by(model: onnx.ModelProto, quantizers: Mapping[str, NDArray]) -> None:
    """Give a graph other scales and zero points where they fit, and its integer weights in units of those."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    factors = {}
    for name in _quantizers(model.graph):
        if name not in tensors or name not in quantizers:
            continue
        ours, theirs = numpy_helper.to_array(tensors[name]), quantizers[name]
        if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
            continue
        if ours.dtype.kind == "f" and (theirs != 0).all():
            factors[name] = ours.astype(np.float64) / theirs
        tensors[name].CopyFrom(numpy_helper.from_array(theirs.copy(), name))
    for node in model.graph.node:
        weights = tensors.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if weights is not None and node.input[1] in factors and weights.data_type in WHOLE:
            _rescale(weights, factors[node.input[1]], axis=_axis(node))


def _rescale(weights: TensorProto, factors: NDArray[np.float64], *, axis: int) -> None:
    """Multiply integers, one factor along an axis or one for all; what leaves the type is cut."""
    values = numpy_helper.to_array(weights)
    if factors.ndim and values.ndim:
        factors = factors.reshape([factors.size if k == axis % values.ndim else 1 for k in range(values.ndim)])
    limits = np.iinfo(values.dtype)
    moved = np.clip(np.rint(values * factors), limits.min, limits.max).astype(values.dtype)
    weights.CopyFrom(numpy_helper.from_array(moved, weights.name))


def _axis(node: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)


def _multiplied(model: onnx.ModelProto) -> frozenset[str]:
    """Weights and biases of layers: what convolutions and matrix products read besides their first input."""
    return frozenset(name for node in model.graph.node if node.op_type in MULTIPLYING for name in node.input[1:])


def _scales(model: onnx.ModelProto) -> dict[str, Scales]:
    """Scales of the initializers that a DequantizeLinear turns into floats."""
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    return {
        node.input[0]: Scales(
            numpy_helper.to_array(arrays[node.input[1]]).astype(np.float64),
            _axis(node),
        )
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in arrays and node.input[1] in arrays
    }


def _stored(tensor: TensorProto) -> StoredTensor | None:
    """A tensor's bytes, or None when it is small or of a type that is not coded."""
    if tensor.data_type not in ONNX_TYPES:
        return None
    shape = tuple(tensor.dims)
    if stored_bytes(tensor.data_type, shape) < SMALLEST:
        return None
    raw = tensor if tensor.HasField("raw_data") else numpy_helper.from_array(numpy_helper.to_array(tensor))
    return StoredTensor(tensor.name, tensor.data_type, shape, raw.raw_data)


def _move_out(tensor: TensorProto, offset: int, length: int) -> None:
    for name in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
        tensor.ClearField(name)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", WEIGHTS_FILE), ("offset", str(offset)), ("length", str(length))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
