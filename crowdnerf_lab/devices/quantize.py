"""One door to every form in which a graph can be stored: graph in, graph out, operations checked.

An operation that a quantizer could not handle stays float32 without a word, so what was written and what ONNX Runtime
runs of it are both looked at.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from crowdnerf_lab.catalogue.card import Format
from crowdnerf_lab.devices.formats.dynamic_int8 import quantize_matmul_int8
from crowdnerf_lab.devices.formats.graphs import (
    Feed,
    QuantizationError,
    arithmetic_of,
    computes_in,
    executed_op_types,
    layers_computed,
    layers_of,
    op_types,
    read_graph,
    write_graph,
)
from crowdnerf_lab.devices.formats.integers import quantized_per_channel
from crowdnerf_lab.devices.formats.sensitivity import quantize_mixed_int8, sensitivity_of
from crowdnerf_lab.devices.formats.static_int8 import quantize_static_int8
from crowdnerf_lab.devices.formats.weight_only import weight_only_int4, weight_only_int8, weights_as_float16

__all__ = [
    "ConvertedGraph",
    "Feed",
    "QuantizationError",
    "computes_in",
    "convert",
    "executed_op_types",
    "op_types",
    "quantize_static_int8",
    "quantized_per_channel",
    "sensitivity_of",
    "weight_only_int8",
]


@dataclass(frozen=True)
class ConvertedGraph:
    """A graph in one form. computes_in: the arithmetic of most of its layers as ONNX Runtime runs it here.

    op_types: what it runs, after fusing. stored_op_types: what the file holds.
    """

    path: Path
    stored_as: Format
    computes_in: Literal["int8", "float32"]
    op_types: Counter[str]
    stored_op_types: Counter[str]


def convert(graph: Path, path: Path, *, stored_as: Format, feeds: Sequence[Feed] = ()) -> ConvertedGraph:
    """Write a float32 graph in the form `stored_as`. feeds: views that static int8 takes activations' ranges from.

    Raises QuantizationError when the graph cannot be read, or when a layer did not become what the form promises.
    """
    graph, path = Path(graph), Path(path)
    match stored_as:
        case "onnx_float32":
            write_graph(read_graph(graph), path)
        case "onnx_float16":
            weights_as_float16(graph, path)
        case "onnx_int8_qdq":
            quantize_static_int8(graph, path, feeds=feeds)
        case "onnx_int8_qdq_signed":
            quantize_static_int8(graph, path, feeds=feeds, signed=True)
        case "onnx_int8_matmul":
            quantize_matmul_int8(graph, path)
        case "onnx_int8_mixed":
            quantize_mixed_int8(graph, path, feeds=feeds)
        case "onnx_int8_weights":
            weight_only_int8(graph, path)
        case "onnx_int4_weights":
            weight_only_int4(graph, path)
        case _:
            raise QuantizationError(f"{graph} cannot be stored as {stored_as!r}; choose one of the onnx forms")
    executed = executed_op_types(path)
    _check_layers(graph, stored_as, executed)
    return ConvertedGraph(path, stored_as, arithmetic_of(executed), executed, op_types(path))


def _check_layers(graph: Path, stored_as: Format, executed: Counter[str]) -> None:
    """Raise unless ONNX Runtime runs as many layers in integers as the form promises."""
    integer, floating = layers_computed(executed)
    convolutions = len(layers_of(read_graph(graph), ("Conv",)))
    kept = {
        "onnx_int8_qdq": integer == convolutions and floating == executed["ConvTranspose"],
        "onnx_int8_qdq_signed": integer > floating - executed["ConvTranspose"],
        "onnx_int8_matmul": integer > 0,
        "onnx_int8_mixed": integer > 0,
    }.get(stored_as, integer == 0)
    if not kept:
        raise QuantizationError(
            f"{graph} stored as {stored_as}: ONNX Runtime runs {integer} layers in integers and {floating} in floating "
            f"point, which is not what this form promises; store it in another form, or report ONNX Runtime's version"
        )
