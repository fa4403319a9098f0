"""An ONNX graph and its weights apart: the graph keeps names, types and places, the weights become plain bytes."""

from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from crowdnerf_lab.coding.graph_quantization import PartedGraph, Scales
from crowdnerf_lab.coding.layered_file import CodedFileError
from crowdnerf_lab.coding.stored_tensors import ALIGNMENT, ONNX_TYPES, WEIGHTS_FILE, StoredTensor, stored_bytes

SMALLEST = 128
"""Bytes below which a tensor stays in the graph: shapes and scalars, which ONNX Runtime must see when it loads it."""


MULTIPLYING = ("Conv", "ConvTranspose", "Gemm", "MatMul", "MatMulInteger", "MatMulNBits")


def parted(graph: Path) -> PartedGraph:
    """The graph with its weights declared as external data of WEIGHTS_FILE, and those weights in the file's order.

    What only people read (names of nodes, shapes between operations, notes) is left out. CodedFileError when the file
    is no ONNX graph or keeps its weights in other files.
    """
    try:
        model = onnx.load(graph, load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        raise CodedFileError(f"cannot read the graph {graph}: {error}; export the light field again") from error
    del model.graph.value_info[:]
    for node in model.graph.node:
        node.name = node.doc_string = ""
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


def _multiplied(model: onnx.ModelProto) -> frozenset[str]:
    """Weights and biases of layers: what convolutions and matrix products read besides their first input."""
    return frozenset(name for node in model.graph.node if node.op_type in MULTIPLYING for name in node.input[1:])


def _scales(model: onnx.ModelProto) -> dict[str, Scales]:
    """Scales of the initializers that a DequantizeLinear turns into floats."""
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    return {
        node.input[0]: Scales(
            numpy_helper.to_array(arrays[node.input[1]]).astype(np.float64),
            next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1),
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
