"""Smaller and faster graphs: int8 throughout, or int8 for the weights alone. Graph in, graph out, operations checked.

An operation that a quantizer could not handle stays float32 without a word, so every function looks at what it made.
"""

import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from crowdnerf_lab.files import write_bytes

Feed = dict[str, NDArray[np.float32]]
"""Inputs of a graph by name."""
CONVOLUTIONS = ("Conv", "ConvTranspose")


class QuantizationError(ValueError):
    """A graph that did not become what it should; the message names the operation."""


def op_types(graph: Path) -> Counter[str]:
    """How often a graph holds each type of operation."""
    return Counter(node.op_type for node in onnx.load(graph).graph.node)


def quantize_static_int8(graph: Path, path: Path, *, feeds: Iterable[Feed]) -> Path:
    """Convolutions in int8: weights per channel and symmetric, activations unsigned with ranges seen over `feeds`.

    QDQ form (QuantizeLinear, DequantizeLinear around each convolution), which ONNX Runtime fuses into integer kernels.
    Transposed convolutions stay float32: its CPU provider has no integer kernel for them. Raises QuantizationError when
    a convolution was left out.
    """
    with tempfile.TemporaryDirectory() as folder:
        prepared, quantized = Path(folder) / "prepared.onnx", Path(folder) / "quantized.onnx"
        quant_pre_process(graph, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantized,
            _Feeds(feeds),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv"],
        )
        model = onnx.load(quantized)
    _check_dequantized(model, ("Conv",), inputs=(0, 1))
    return write_bytes(Path(path), model.SerializeToString())


def weight_only_int8(graph: Path, path: Path) -> Path:
    """Weights of convolutions stored as int8, per output channel and symmetric; the device computes in float32.

    A small file that runs no faster than the float32 one. Raises QuantizationError when a convolution was left out.
    """
    model = onnx.load(graph)
    weights = {n.input[1]: n.op_type for n in model.graph.node if n.op_type in CONVOLUTIONS}
    dequantize = []
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name in weights]:
        axis = CONVOLUTIONS.index(weights[tensor.name])
        integers, scales = quantized_per_channel(numpy_helper.to_array(tensor), axis)
        stored, scale = f"{tensor.name}_int8", f"{tensor.name}_scale"
        model.graph.initializer.remove(tensor)
        model.graph.initializer.extend(
            [numpy_helper.from_array(integers, stored), numpy_helper.from_array(scales, scale)]
        )
        dequantize.append(helper.make_node("DequantizeLinear", [stored, scale], [tensor.name], axis=axis))
    for node in reversed(dequantize):
        model.graph.node.insert(0, node)
    _check_dequantized(model, CONVOLUTIONS, inputs=(1,))
    return write_bytes(Path(path), model.SerializeToString())


def quantized_per_channel(weights: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Integers in [-127, 127] and a scale a channel, weights ~ integers * scales: the error is at most half a scale."""
    others = tuple(i for i in range(weights.ndim) if i != axis)
    scales = np.maximum(np.abs(weights).max(axis=others) / 127, np.finfo(np.float32).tiny).astype(np.float32)
    steps = weights / np.expand_dims(scales, others)
    return np.clip(np.rint(steps), -127, 127).astype(np.int8), scales


def executed_op_types(graph: Path) -> Counter[str]:
    """Operations that ONNX Runtime's CPU provider runs after fusing: what is computed, whatever the file says."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return op_types(Path(options.optimized_model_filepath))


def computes_in(graph: Path) -> Literal["int8", "float32"]:
    """What ONNX Runtime computes the convolutions in: int8 when each became an integer kernel, else float32."""
    executed = executed_op_types(graph)
    floating = any(executed[name] for name in (*CONVOLUTIONS, "FusedConv"))
    return "int8" if executed["QLinearConv"] and not floating else "float32"


def _check_dequantized(model: onnx.ModelProto, kinds: tuple[str, ...], *, inputs: tuple[int, ...]) -> None:
    """Raise unless the given inputs of every node of these kinds come out of a DequantizeLinear."""
    dequantized = {n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    nodes = [node for node in model.graph.node if node.op_type in kinds]
    left = [node.name for node in nodes if any(node.input[i] not in dequantized for i in inputs)]
    if left or not nodes:
        raise QuantizationError(
            f"{len(left)} of {len(nodes)} convolutions were not quantized ({', '.join(left[:3]) or 'there are none'}); "
            "export the light field again with this package's export_onnx"
        )


class _Feeds(CalibrationDataReader):
    def __init__(self, feeds: Iterable[Feed]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Feed | None:  # type: ignore[override]
        return next(self._feeds, None)
