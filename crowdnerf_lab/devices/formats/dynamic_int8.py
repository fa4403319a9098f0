"""Layers as matrix products in int8 with the activations' range taken anew in every frame.

A 1x1 convolution is one matrix product for all pixels: [h w, c_in] @ [c_in, c_out]. Nothing is calibrated, sums leave
the integers as float32, and so it loses less than QDQ; ranging every activation costs part of the time won.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from crowdnerf_lab.devices.formats.graphs import QuantizationError, layers_of, read_graph, values_of, write_graph
from crowdnerf_lab.devices.formats.integers import quantized_per_channel
from crowdnerf_lab.devices.formats.weight_only import weights_as_int8


def quantize_matmul_int8(graph: Path, path: Path) -> Path:
    """1x1 convolutions as integer matrix products: weights int8 per channel, activations uint8 of each frame's range.

    Other layers have int8 weights and compute in float32. Raises QuantizationError when the graph has none to rewrite.
    """
    model = as_matrix_products(read_graph(graph), name=graph)
    with_dynamic_int8(model)
    weights_as_int8(model)
    return write_graph(model, path)


def as_matrix_products(model: onnx.ModelProto, *, name: Path) -> onnx.ModelProto:
    """A copy of the graph whose 1x1 convolutions are products of pixels [n h w c] and a matrix, in float32.

    Each stands between two transpositions; ONNX Runtime cancels those of neighbouring layers when it loads the graph.
    """
    rewritten = onnx.ModelProto()
    rewritten.CopyFrom(model)
    initialisers = {tensor.name: tensor for tensor in rewritten.graph.initializer}
    uses = Counter(name for node in rewritten.graph.node for name in node.input)
    nodes = []
    for node in rewritten.graph.node:
        if node.op_type != "Conv" or not _one_by_one(node, initialisers) or uses[node.input[1]] > 1:
            nodes.append(node)
            continue
        tensor, end = initialisers[node.input[1]], node.output[0]
        matrix = values_of(tensor)[:, :, 0, 0].T
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(matrix), tensor.name))
        last = f"{end}_rows"
        nodes.append(helper.make_node("Transpose", [node.input[0]], [f"{end}_in"], perm=[0, 2, 3, 1]))
        if len(node.input) > 2:
            nodes.append(helper.make_node("MatMul", [f"{end}_in", tensor.name], [f"{end}_product"], node.name))
            nodes.append(helper.make_node("Add", [f"{end}_product", node.input[2]], [last]))
        else:
            nodes.append(helper.make_node("MatMul", [f"{end}_in", tensor.name], [last], node.name))
        nodes.append(helper.make_node("Transpose", [last], [end], perm=[0, 3, 1, 2]))
    del rewritten.graph.node[:]
    rewritten.graph.node.extend(nodes)
    if not _matrix_products(rewritten):
        convolutions = len(layers_of(model))
        raise QuantizationError(f"{name}: none of {convolutions} convolutions is 1x1; store it as onnx_int8_qdq")
    return rewritten


def with_dynamic_int8(model: onnx.ModelProto) -> None:
    """Turn the products by constant matrices into integer ones, in place, in the form that ONNX Runtime fuses."""
    initialisers = {tensor.name: tensor for tensor in model.graph.initializer}
    products = {node.output[0]: node for node in _matrix_products(model)}
    nodes, quantized = [], set()
    for node in model.graph.node:
        if node.output[0] not in products:
            nodes.append(node)
            continue
        (source, name), end = node.input, node.output[0]
        integers, scales = quantized_per_channel(values_of(initialisers[name]), 1)
        initialisers[name].CopyFrom(numpy_helper.from_array(integers, name))
        initialisers[f"{name}_s"] = numpy_helper.from_array(scales, f"{name}_s")
        if source not in quantized:
            quantized.add(source)
            ranged = [f"{source}_q", f"{source}_s", f"{source}_z"]
            nodes.append(helper.make_node("DynamicQuantizeLinear", [source], ranged))
        nodes += [
            helper.make_node("MatMulInteger", [f"{source}_q", name, f"{source}_z"], [f"{end}_int"], node.name),
            helper.make_node("Cast", [f"{end}_int"], [f"{end}_sum"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Mul", [f"{source}_s", f"{name}_s"], [f"{end}_step"]),
            helper.make_node("Mul", [f"{end}_sum", f"{end}_step"], [end]),
        ]
    tensors = [_copied(tensor) for tensor in initialisers.values()]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(tensors)


def _matrix_products(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Products by a constant matrix."""
    matrices = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 2}
    return [node for node in layers_of(model, ("MatMul",)) if node.input[1] in matrices]


def _one_by_one(node: onnx.NodeProto, initialisers: dict[str, onnx.TensorProto]) -> bool:
    tensor = initialisers.get(node.input[1])
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return (
        tensor is not None
        and list(tensor.dims[2:]) == [1, 1]
        and values.get("group", 1) == 1
        and set(values.get("strides", [1])) == {1}
        and not any(values.get("pads", [0]))
    )


def _copied(tensor: onnx.TensorProto) -> onnx.TensorProto:
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    return copy
