"""Graphs that cannot be used are refused with the file and the remedy; weights are found where layers use them."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from crowdnerf_lab.devices.formats.graphs import (
    QuantizationError,
    arithmetic_of,
    computes_in,
    op_types,
    read_graph,
    weights_of,
)


def test_a_truncated_graph_is_refused(tiny_graph: Path, tmp_path: Path) -> None:
    content = tiny_graph.read_bytes()
    for length in (0, 1, 100, len(content) // 2, len(content) - 1):
        (tmp_path / "cut.onnx").write_bytes(content[:length])
        with pytest.raises(QuantizationError, match=r"cut\.onnx is not a whole ONNX graph .*export or fetch it again"):
            read_graph(tmp_path / "cut.onnx")


def test_an_unknown_opset_is_named(tiny_graph: Path, tmp_path: Path) -> None:
    model = onnx.load(tiny_graph)
    model.opset_import[0].version = 99
    onnx.save(model, tmp_path / "new.onnx")
    with pytest.raises(QuantizationError, match=r"new\.onnx uses ONNX opset 99, this package knows 13 to \d+; export"):
        read_graph(tmp_path / "new.onnx")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match=r"cannot read .*nothing\.onnx: No such file"):
        read_graph(tmp_path / "nothing.onnx")


def test_kernels_and_feature_planes_are_weights_and_pixel_positions_are_not(tiny_graph: Path) -> None:
    found = {tuple(weights.tensor.dims): weights.node.op_type for weights in weights_of(read_graph(tiny_graph))}
    assert found == {(128, 14, 1, 1): "Conv", (48, 128, 1, 1): "Conv", (1, 8, 24, 24): "GridSample"}


def test_weights_are_found_behind_operations_that_only_move_them() -> None:
    nodes = [
        helper.make_node("Transpose", ["w"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "turned"], ["y"]),
        helper.make_node("Mul", ["v", "v"], ["squared"]),
        helper.make_node("MatMul", ["y", "squared"], ["z"]),
    ]
    tensors = [numpy_helper.from_array(np.eye(4, dtype=np.float32), name) for name in ("w", "v")]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4]) for name in ("x", "z")]
    model = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors))
    assert [(weights.tensor.name, weights.direct) for weights in weights_of(model)] == [("w", False)]


def test_arithmetic_is_that_of_most_layers(tiny_graph: Path) -> None:
    assert computes_in(tiny_graph) == "float32"
    assert op_types(tiny_graph)["Conv"] == 2
    assert arithmetic_of(Counter(QLinearConv=3, Conv=2)) == "int8"
    assert arithmetic_of(Counter(QLinearConv=2, FusedConv=2)) == "float32"
    assert arithmetic_of(Counter(QLinearConv=30, ConvTranspose=1)) == "float32"
    assert arithmetic_of(Counter()) == "float32"
