"""Small ONNX graphs with weights of every stored type, made by hand."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROWS, COLUMNS = 24, 20
FEED = {"x": np.linspace(-1, 1, ROWS * COLUMNS, dtype=np.float32).reshape(1, COLUMNS, ROWS, 1)}


def toy_weights(*, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = np.exp(rng.normal(0, 0.7, (ROWS, 1)))
    return (rng.normal(0, 0.1, (ROWS, COLUMNS)) * rows).astype(np.float32)


def convolution_graph(path: Path) -> Path:
    """x -> 1x1 convolution with float32 weights -> plus a float32 grid."""
    grid = np.arange(ROWS * ROWS, dtype=np.float32).reshape(1, ROWS, ROWS, 1)
    return _saved(
        path,
        [
            helper.make_node("Conv", ["x", "layer.weight", "layer.bias"], ["c"]),
            helper.make_node("Add", ["c", "grid"], ["image"]),
        ],
        [
            numpy_helper.from_array(toy_weights()[:, :, None, None], "layer.weight"),
            numpy_helper.from_array(toy_weights(seed=1)[:, 0] + np.zeros(ROWS, np.float32), "layer.bias"),
            numpy_helper.from_array(grid, "grid"),
        ],
    )


def dequantizing_graph(path: Path) -> Path:
    """x -> 1x1 convolution with int8 weights and a scale a row."""
    weights = toy_weights()
    scales = np.abs(weights).max(1) / 127
    integers = np.rint(weights / scales[:, None]).astype(np.int8)
    return _saved(
        path,
        [
            helper.make_node("DequantizeLinear", ["layer.weight_int8", "layer.weight_scale"], ["w"], axis=0),
            helper.make_node("Conv", ["x", "w"], ["image"]),
        ],
        [
            numpy_helper.from_array(integers[:, :, None, None], "layer.weight_int8"),
            numpy_helper.from_array(scales.astype(np.float32), "layer.weight_scale"),
        ],
    )


def every_type_graph(path: Path) -> Path:
    """The sum of weights stored as float32, float16, int8, uint8, int4, uint4 and int32, plus x."""
    values = np.arange(ROWS * COLUMNS).reshape(1, COLUMNS, ROWS, 1) * 7919 % 16
    types = {
        "float32": TensorProto.FLOAT,
        "float16": TensorProto.FLOAT16,
        "int8": TensorProto.INT8,
        "uint8": TensorProto.UINT8,
        "int4": TensorProto.INT4,
        "uint4": TensorProto.UINT4,
        "int32": TensorProto.INT32,
    }
    nodes, tensors = [], [numpy_helper.from_array(np.float32(0.5), "scale")]
    for name, onnx_type in types.items():
        shifted = values - 8 if name in ("int8", "int4", "int32") else values
        tensors.append(helper.make_tensor(name, onnx_type, values.shape, shifted.reshape(-1)))
        if "float" in name or name == "int32":
            nodes.append(helper.make_node("Cast", [name], [f"{name}_weights"], to=TensorProto.FLOAT))
        else:
            nodes.append(helper.make_node("DequantizeLinear", [name, "scale"], [f"{name}_weights"]))
    nodes.append(helper.make_node("Sum", ["x", *(f"{name}_weights" for name in types)], ["image"]))
    return _saved(path, nodes, tensors)


def _saved(path: Path, nodes: list, tensors: list) -> Path:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, FEED["x"].shape)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", "c", "h", "w"])
    graph = helper.make_graph(nodes, "toy", [x], [image], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path
