"""Convolutions in int8 with activations' ranges seen beforehand, in ONNX's QDQ form.

Around each convolution stand QuantizeLinear and DequantizeLinear, which ONNX Runtime fuses into one integer kernel.
Only what enters and leaves a convolution is rounded: sums of residuals keep running in float32 beside it, so that
rounding does not pile up from block to block.
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from crowdnerf_lab.devices.formats.graphs import (
    MOVES,
    Feed,
    QuantizationError,
    layers_of,
    read_graph,
    session_of,
    values_of,
    write_graph,
)
from crowdnerf_lab.devices.formats.integers import activation_scale, quantized_per_channel
from crowdnerf_lab.devices.formats.weight_only import weights_as_int8

Ranges = Mapping[str, tuple[float, float]]
"""Least and largest value of each tensor that a layer reads or makes."""
SIGMOID_REACH = 6.0
"""Where a sigmoid is within 0.0025 of 0 or 1, half a step of an 8-bit colour."""


def quantize_static_int8(
    graph: Path, path: Path, *, feeds: Iterable[Feed], signed: bool = False, weight_bits: int = 8
) -> Path:
    """Convolutions in int8: weights per channel and symmetric, activations with ranges seen over `feeds`.

    signed: int8 activations (S8S8: ARM, DSPs) instead of uint8 (U8S8: x86). weight_bits: 7 for x86 processors without
    VNNI, whose 16-bit sums of products overflow with 8 (Intel's vpmaddubsw). Transposed convolutions and tables of
    features have int8 weights and compute in float32: ONNX Runtime's CPU provider has no integer kernel for them.
    Raises QuantizationError when a convolution was left out.
    """
    model = read_graph(graph)
    ranges = activation_ranges(model, feeds, name=graph)
    quantized = with_int8_layers(model, ranges, signed=signed, weight_bits=weight_bits)
    weights_as_int8(quantized)
    check_dequantized(quantized, ("Conv",), inputs=(0, 1), name=graph)
    return write_graph(quantized, path)


def activation_ranges(model: onnx.ModelProto, feeds: Iterable[Feed], *, name: Path) -> Ranges:
    """Ranges over `feeds` of what every convolution reads and makes, past its ReLU. Raises QuantizationError."""
    relus = _relus(model)
    wanted = sorted({tensor for conv in layers_of(model, ("Conv",)) for tensor in (conv.input[0], _end(conv, relus))})
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    known = {output.name for output in watched.graph.output}
    watched.graph.output.extend(helper.make_empty_tensor_value_info(tensor) for tensor in wanted if tensor not in known)
    session = session_of(watched.SerializeToString())
    ranges: dict[str, tuple[float, float]] = {}
    for feed in feeds:
        for tensor, value in zip(wanted, session.run(wanted, feed), strict=True):
            low, high = ranges.get(tensor, (np.inf, -np.inf))
            values = np.asarray(value)
            ranges[tensor] = min(low, float(values.min())), max(high, float(values.max()))
    for tensor in wanted:
        if tensor in ranges and tensor in _colours(model):
            low, high = ranges[tensor]
            ranges[tensor] = max(low, -SIGMOID_REACH), min(high, SIGMOID_REACH)
    if wanted and not ranges:
        raise QuantizationError(
            f"{name} cannot be calibrated without feeds; give some views, as calibration_feeds does"
        )
    if not np.isfinite(list(ranges.values())).all():
        raise QuantizationError(f"{name} makes values that are not finite; distil the light field again")
    return ranges


def with_int8_layers(
    model: onnx.ModelProto,
    ranges: Ranges,
    *,
    layers: Collection[str] | None = None,
    signed: bool = False,
    weight_bits: int = 8,
) -> onnx.ModelProto:
    """A copy of the graph with the convolutions named in `layers` (None: all) between QDQ pairs."""
    quantized = onnx.ModelProto()
    quantized.CopyFrom(model)
    relus = _relus(quantized)
    chosen = [conv for conv in layers_of(quantized, ("Conv",)) if layers is None or conv.name in layers]
    rewriting = _Rewriting(quantized, ranges, signed, weight_bits)
    for conv in chosen:
        rewriting.quantize(conv, relus.get(conv.output[0]))
    rewriting.finish()
    return quantized


def check_dequantized(model: onnx.ModelProto, kinds: tuple[str, ...], *, inputs: tuple[int, ...], name: Path) -> None:
    """Raise unless the given inputs of every node of these kinds come out of a DequantizeLinear."""
    dequantized = {n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    nodes = layers_of(model, kinds)
    left = [node.name for node in nodes if any(node.input[i] not in dequantized for i in inputs)]
    if left or not nodes:
        raise QuantizationError(
            f"{name}: {len(left)} of {len(nodes)} convolutions were not quantized "
            f"({', '.join(left[:3]) or 'there are none'}); export the light field again with this package's export_onnx"
        )


class _Rewriting:
    """Nodes and initialisers of a graph whose convolutions become integer ones, one by one."""

    def __init__(self, model: onnx.ModelProto, ranges: Ranges, signed: bool, weight_bits: int) -> None:
        self.graph, self.ranges, self.signed, self.weight_bits = model.graph, ranges, signed, weight_bits
        self.initialisers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.before: dict[str, list[onnx.NodeProto]] = {}
        self.after: dict[str, list[onnx.NodeProto]] = {}
        self.dropped: set[str] = set()
        self.read: dict[str, str] = {}

    def quantize(self, conv: onnx.NodeProto, relu: onnx.NodeProto | None) -> None:
        weights = self.initialisers.get(conv.input[1])
        bias = self.initialisers.get(conv.input[2]) if len(conv.input) > 2 else None
        if weights is None or f"{weights.name}_int8" in self.initialisers or (bias is None and len(conv.input) > 2):
            return  # not a constant, or another layer's too: check_dequantized names it
        source, end = conv.input[0], (relu or conv).output[0]
        before = self.before.setdefault(conv.name, [])
        if source not in self.read:
            self.read[source] = self._pair(source, source, before)
        scales = self._weights(weights, before)
        if bias is not None:
            self._bias(bias, self._scale(source) * scales, before)
        # The zero point clips at 0 as the ReLU would, so the ReLU itself can go.
        made = f"{end}_real"
        if relu is not None:
            self.dropped.add(relu.name)
        rounded = self._pair(made, end, self.after.setdefault(conv.name, []), result=end)
        if not self.signed:
            self.read[end] = rounded
        conv.input[0], conv.output[0] = self.read[source], made
        for i, tensor in ((1, weights), (2, bias)):
            if tensor is not None:
                conv.input[i] = f"{tensor.name}_dq"

    def finish(self) -> None:
        """Put the new nodes where they belong and the initialisers into the graph."""
        nodes = [
            new
            for node in self.graph.node
            if node.name not in self.dropped
            for new in (*self.before.get(node.name, ()), node, *self.after.get(node.name, ()))
        ]
        used = {name for node in nodes for name in node.input}
        del self.graph.node[:], self.graph.initializer[:]
        self.graph.node.extend(nodes)
        self.graph.initializer.extend(tensor for name, tensor in self.initialisers.items() if name in used)

    def _scale(self, tensor: str) -> float:
        return float(activation_scale(*self.ranges[tensor], signed=self.signed)[0])

    def _pair(self, source: str, ranged: str, nodes: list[onnx.NodeProto], *, result: str | None = None) -> str:
        """Quantize and dequantize `source` with the range of `ranged`; the name of the result."""
        scale, zero = activation_scale(*self.ranges[ranged], signed=self.signed)
        parameters = [self._store(f"{ranged}_s", scale), self._store(f"{ranged}_z", zero)]
        result = result or f"{source}_dq"
        nodes.append(_node("QuantizeLinear", [source, *parameters], f"{source}_q"))
        nodes.append(_node("DequantizeLinear", [f"{source}_q", *parameters], result))
        return result

    def _weights(self, tensor: onnx.TensorProto, nodes: list[onnx.NodeProto]) -> np.ndarray:
        integers, scales = quantized_per_channel(values_of(tensor), 0, bits=self.weight_bits)
        stored = [self._store(f"{tensor.name}_int8", integers), self._store(f"{tensor.name}_s", scales)]
        nodes.append(_node("DequantizeLinear", stored, f"{tensor.name}_dq", axis=0))
        return scales

    def _bias(self, tensor: onnx.TensorProto, scales: np.ndarray, nodes: list[onnx.NodeProto]) -> None:
        """A bias in the steps of the sums it joins: int32, the activations' scale times the weights'."""
        steps = np.rint(values_of(tensor).astype(np.float64) / scales)
        integers = np.clip(steps, -(2**31) + 1, 2**31 - 1).astype(np.int32)
        stored = [
            self._store(f"{tensor.name}_int32", integers),
            self._store(f"{tensor.name}_s", scales.astype(np.float32)),
        ]
        nodes.append(_node("DequantizeLinear", stored, f"{tensor.name}_dq", axis=0))

    def _store(self, name: str, array: np.ndarray) -> str:
        self.initialisers[name] = numpy_helper.from_array(array, name)
        return name


def _relus(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """The ReLU behind each tensor that nothing else reads."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return {name: found[0] for name, found in readers.items() if len(found) == 1 and found[0].op_type == "Relu"}


def _colours(model: onnx.ModelProto) -> set[str]:
    """What becomes a colour by a sigmoid and nothing else: values beyond its reach need no steps of their own."""
    names = {node.input[0] for node in layers_of(model, ("Sigmoid",))}
    for node in reversed(model.graph.node):
        if node.op_type in (*MOVES, "DepthToSpace") and node.output[0] in names:
            names.add(node.input[0])
    return names


def _end(conv: onnx.NodeProto, relus: Mapping[str, onnx.NodeProto]) -> str:
    relu = relus.get(conv.output[0])
    return (relu or conv).output[0]


def _node(kind: str, inputs: list[str], output: str, *, axis: int | None = None) -> onnx.NodeProto:
    if axis is None:
        return helper.make_node(kind, inputs, [output])
    return helper.make_node(kind, inputs, [output], axis=axis)
