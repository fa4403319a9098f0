"""Weights stored as float16, int8 or int4, which the device turns back into float32: small files that run no faster."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from crowdnerf_lab.devices.formats.graphs import (
    CONVOLUTIONS,
    QuantizationError,
    Weights,
    read_graph,
    replace_initialiser,
    values_of,
    weights_of,
    write_graph,
)
from crowdnerf_lab.devices.formats.integers import closest_axis, quantized_per_block, quantized_per_channel

INT4_OPSET, INT4_IR = 21, 10
"""The first opset with 4-bit integers and a scale a block, and the format version that it came with."""
BLOCK = 32
"""Weights that share a scale when stored in 4 bits: with a half-precision scale, 4.5 bits a weight."""
LARGEST_HALF = float(np.finfo(np.float16).max)
FEW = 64
"""Tables of fewer values stay as they are: scales and nodes would take more than they save."""


def weight_only_int8(graph: Path, path: Path) -> Path:
    """Weights as int8, per channel and symmetric; the device computes in float32.

    Raises QuantizationError when a layer was left out.
    """
    model = read_graph(graph)
    weights_as_int8(model)
    check_no_float_weights(model, name=graph)
    return write_graph(model, path)


def weight_only_int4(graph: Path, path: Path, *, block: int = BLOCK) -> Path:
    """Weights as int4 with a float16 scale for every `block` weights that a layer sums; computed in float32.

    Raises QuantizationError when a layer was left out.
    """
    model = read_graph(graph)
    nodes = []
    for weights in _worth_storing(model):
        name, array = weights.tensor.name, values_of(weights.tensor)
        axis = _summed_axis(weights, array)
        integers, scales = quantized_per_block(array, axis, block=block)
        stored, scale, real = f"{name}_int4", f"{name}_s", f"{name}_s32"
        replace_initialiser(model, name, (scale, scales))
        model.graph.initializer.append(
            helper.make_tensor(stored, onnx.TensorProto.INT4, integers.shape, packed_nibbles(integers), raw=True)
        )
        nodes.append(helper.make_node("Cast", [scale], [real], to=onnx.TensorProto.FLOAT))
        nodes.append(helper.make_node("DequantizeLinear", [stored, real], [name], axis=axis, block_size=block))
    _prepend(model, nodes)
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx"):
            opset.version = max(opset.version, INT4_OPSET)
    model.ir_version = max(model.ir_version, INT4_IR)
    check_no_float_weights(model, name=graph)
    return write_graph(model, path)


def weights_as_float16(graph: Path, path: Path) -> Path:
    """Weights as float16, turned to float32 when the graph is loaded; computed in float32.

    ONNX Runtime's CPU provider has no float16 kernels on x86: a graph of float16 operations would run as this one does,
    with a conversion around every operation. Raises QuantizationError when a layer was left out, or a weight is beyond
    half precision's 65504.
    """
    model = read_graph(graph)
    store_float16(model, name=graph)
    check_no_float_weights(model, name=graph)
    return write_graph(model, path)


def store_float16(model: onnx.ModelProto, *, name: Path, layers: Collection[str] | None = None) -> None:
    """Store the weights of the layers named (None: all) as float16, in place."""
    nodes = []
    for weights in _worth_storing(model):
        if layers is not None and weights.node.name not in layers:
            continue
        tensor, array = weights.tensor.name, values_of(weights.tensor)
        largest = float(np.abs(array).max())
        if not largest <= LARGEST_HALF:
            raise QuantizationError(f"{name}: a weight of {tensor} is {largest:g}, too large for float16; use float32")
        replace_initialiser(model, tensor, (f"{tensor}_f16", array.astype(np.float16)))
        nodes.append(helper.make_node("Cast", [f"{tensor}_f16"], [tensor], to=onnx.TensorProto.FLOAT))
    _prepend(model, nodes)


def weights_as_int8(model: onnx.ModelProto) -> None:
    """Store every weight that is still float32 as int8 with a scale a channel, in place."""
    nodes = []
    for weights in _worth_storing(model):
        name, array = weights.tensor.name, values_of(weights.tensor)
        axis = _channel_axis(weights, array)
        integers, scales = quantized_per_channel(array, axis)
        replace_initialiser(model, name, (f"{name}_int8", integers), (f"{name}_s", scales))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_int8", f"{name}_s"], [name], axis=axis))
    _prepend(model, nodes)


def packed_nibbles(integers: NDArray[np.int8]) -> bytes:
    """Integers in [-8, 7], two a byte, the first in the low half, as ONNX stores INT4."""
    halves = integers.ravel().view(np.uint8) & 0x0F
    halves = np.concatenate([halves, np.zeros(halves.size % 2, np.uint8)])
    return (halves[0::2] | halves[1::2] << 4).tobytes()


def check_no_float_weights(model: onnx.ModelProto, *, name: Path) -> None:
    """Raise unless every convolution's weights come out of a DequantizeLinear or Cast, and no table is left float32."""
    made = {node.output[0] for node in model.graph.node if node.op_type in ("DequantizeLinear", "Cast")}
    layers = [node for node in model.graph.node if node.op_type in CONVOLUTIONS]
    left = [node.name for node in layers if node.input[1] not in made]
    tables = [weights.tensor.name for weights in _worth_storing(model)]
    if left or tables or not made:
        raise QuantizationError(
            f"{name}: {len(left)} of {len(layers)} convolutions were not quantized "
            f"({', '.join((left + tables)[:3]) or 'there are none'}); "
            "export the light field again with this package's export_onnx"
        )


def _worth_storing(model: onnx.ModelProto) -> list[Weights]:
    return [
        weights
        for weights in weights_of(model)
        if len(weights.tensor.dims) > 1 and int(np.prod(weights.tensor.dims)) >= FEW
    ]


def _channel_axis(weights: Weights, array: np.ndarray) -> int:
    """The axis of output channels; of tables of features, the one along which scales lose least."""
    if weights.direct and weights.node.op_type in CONVOLUTIONS:
        return CONVOLUTIONS.index(weights.node.op_type)
    return closest_axis(array)


def _summed_axis(weights: Weights, array: np.ndarray) -> int:
    """The axis that a layer sums over, whose neighbours share a scale; a table of features has its columns."""
    if weights.direct and weights.node.op_type in CONVOLUTIONS:
        return 1 - CONVOLUTIONS.index(weights.node.op_type)
    return array.ndim - 1


def _prepend(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
