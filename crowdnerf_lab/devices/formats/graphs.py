"""ONNX graphs as files: read and checked, their layers and weights found, and what a device computes in told.

A layer is a node that multiplies by weights; the weights are initialisers, used as they are or only moved about
(reshaped, transposed, cut) on their way.
"""

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import numpy_helper

from crowdnerf_lab.files import write_bytes

Feed = dict[str, NDArray[np.float32]]
"""Inputs of a graph by name."""
CONVOLUTIONS = ("Conv", "ConvTranspose")
WEIGHTS_OF = {"Conv": 1, "ConvTranspose": 1, "MatMul": 1, "Gemm": 1, "GridSample": 0}
"""Which input of an operation holds weights: kernels, matrices, feature planes."""
MOVES = ("Reshape", "Transpose", "Unsqueeze", "Squeeze", "Slice", "Split", "Gather", "Concat", "Expand", "Identity")
"""Operations that move values without changing them."""
FLOATING = (*CONVOLUTIONS, "FusedConv", "MatMul", "Gemm", "FusedMatMul", "FusedGemm")
INTEGER = ("QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger", "DynamicQuantizeMatMul")
"""Operations of ONNX Runtime's CPU provider that multiply by weights, by what they multiply in."""
OLDEST_OPSET = 13
"""The first in which DequantizeLinear takes a scale for each channel."""


class QuantizationError(ValueError):
    """A graph that cannot be read, or did not become what it should; names the file, what was wrong, and the remedy."""


@dataclass(frozen=True)
class Weights:
    """An initialiser that a layer multiplies by. node: the layer. direct: used as it is, not moved about before."""

    tensor: onnx.TensorProto
    node: onnx.NodeProto
    direct: bool


def read_graph(graph: Path) -> onnx.ModelProto:
    """The graph of a file, checked. QuantizationError for one that is truncated, not ONNX, or of an unknown opset."""
    try:
        model = onnx.load(graph)
        known = onnx.defs.onnx_opset_version()
        versions = {opset.domain or "ai.onnx": opset.version for opset in model.opset_import}
        if model.graph.node and not OLDEST_OPSET <= versions.get("ai.onnx", 0) <= known:
            raise QuantizationError(
                f"{graph} uses ONNX opset {versions.get('ai.onnx', 'none')}, this package knows {OLDEST_OPSET} to "
                f"{known}; export the light field again with export_onnx, or install a newer onnx"
            )
        onnx.checker.check_model(model)
    except OSError as error:
        raise QuantizationError(f"cannot read {graph}: {error.strerror or error}; give the path of a graph") from error
    except (DecodeError, onnx.checker.ValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        raise QuantizationError(f"{graph} is not a whole ONNX graph ({reason}); export or fetch it again") from error
    return model


def write_graph(model: onnx.ModelProto, path: Path) -> Path:
    """Write a graph without the shapes that onnx can infer again; atomic."""
    del model.graph.value_info[:]
    return write_bytes(Path(path), model.SerializeToString())


def op_types(graph: Path) -> Counter[str]:
    """How often a graph holds each type of operation."""
    return Counter(node.op_type for node in onnx.load(graph).graph.node)


def executed_op_types(graph: Path) -> Counter[str]:
    """Operations that ONNX Runtime's CPU provider runs after fusing: what is computed, whatever the file says."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        options.log_severity_level = 3  # it warns that a graph optimized for this machine should stay on it
        onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return op_types(Path(options.optimized_model_filepath))


def computes_in(graph: Path) -> Literal["int8", "float32"]:
    """What ONNX Runtime computes most of a graph's layers in, see arithmetic_of."""
    return arithmetic_of(executed_op_types(graph))


def arithmetic_of(executed: Counter[str]) -> Literal["int8", "float32"]:
    """int8 when integer kernels do most layers; float32 too where a transposed convolution is left, the most work."""
    integer, floating = layers_computed(executed)
    return "int8" if integer > floating and not executed["ConvTranspose"] else "float32"


def layers_computed(executed: Counter[str]) -> tuple[int, int]:
    """How many of the executed operations multiply by weights in integers, and how many in floating point."""
    return sum(executed[name] for name in INTEGER), sum(executed[name] for name in FLOATING)


def layers_of(model: onnx.ModelProto, kinds: Sequence[str] = CONVOLUTIONS) -> list[onnx.NodeProto]:
    """The graph's nodes of these kinds, in the order in which they run."""
    return [node for node in model.graph.node if node.op_type in kinds]


def weights_of(model: onnx.ModelProto) -> list[Weights]:
    """Every float32 initialiser that a layer multiplies by, once, in the order of the layers."""
    initialisers = {tensor.name: tensor for tensor in model.graph.initializer}
    made_by = {output: node for node in model.graph.node for output in node.output}
    found: dict[str, Weights] = {}
    for node in model.graph.node:
        if node.op_type not in WEIGHTS_OF:
            continue
        slot = node.input[WEIGHTS_OF[node.op_type]]
        waiting = [slot]
        while waiting:
            name = waiting.pop()
            if name in initialisers and initialisers[name].data_type == onnx.TensorProto.FLOAT:
                found.setdefault(name, Weights(initialisers[name], node, direct=name == slot))
            elif name in made_by and made_by[name].op_type in MOVES:
                waiting += made_by[name].input
    return list(found.values())


def values_of(tensor: onnx.TensorProto) -> NDArray[np.float32]:
    """A float32 initialiser as an array."""
    return np.asarray(numpy_helper.to_array(tensor), np.float32)


def replace_initialiser(model: onnx.ModelProto, name: str, *tensors: tuple[str, NDArray[np.generic]]) -> None:
    """Store the given tensors instead of an initialiser."""
    kept = [tensor for tensor in model.graph.initializer if tensor.name != name]
    del model.graph.initializer[:]
    model.graph.initializer.extend([*kept, *(numpy_helper.from_array(array, new) for new, array in tensors)])


def pictures(graph: Path | onnx.ModelProto, feeds: Sequence[Feed]) -> list[NDArray[np.float32]]:
    """The graph's first output for each feed, in [0, 1] for a light field."""
    content = graph.SerializeToString() if isinstance(graph, onnx.ModelProto) else Path(graph).read_bytes()
    session = session_of(content)
    return [np.asarray(session.run(None, feed)[0]) for feed in feeds]


def session_of(content: bytes) -> onnxruntime.InferenceSession:
    """A graph ready to run on one CPU thread that sleeps when it has nothing to do."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = 1, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
