"""Quantization: errors within half a step, every convolution reached, and the pictures nearly the same."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from crowdnerf_lab.devices.export import INPUTS
from crowdnerf_lab.devices.quantize import (
    Feed,
    QuantizationError,
    computes_in,
    executed_op_types,
    op_types,
    quantize_static_int8,
    quantized_per_channel,
    weight_only_int8,
)
from crowdnerf_lab.network.ue import light_field_model
from tests.toy_field import toy_cameras

CAMERAS = toy_cameras(6, width=61, height=43)
FEEDS: list[Feed] = [{name: getattr(CAMERAS, name)[i].numpy() for name in INPUTS} for i in range(6)]


@given(arrays(np.float32, (4, 3, 2, 2), elements=st.floats(-100, 100, width=32)), st.sampled_from([0, 1]))
def test_the_error_is_at_most_half_a_step(weights: np.ndarray, axis: int) -> None:
    integers, scales = quantized_per_channel(weights, axis)
    steps = np.expand_dims(scales, tuple(i for i in range(4) if i != axis))
    assert integers.dtype == np.int8
    assert np.all(np.abs(integers * steps - weights) <= steps * 0.5 * (1 + 1e-5))


def picture(graph: Path, index: int) -> np.ndarray:
    model = light_field_model(graph.read_bytes(), width=61, height=43, threads=1, name=graph)
    return model.render(*(FEEDS[index][name] for name in INPUTS)).astype(np.float64)


@pytest.mark.row("S43", "S48")
def test_static_int8_computes_in_integers_and_draws_the_same(graph: Path, tmp_path: Path) -> None:
    quantized = quantize_static_int8(graph, tmp_path / "int8.onnx", feeds=FEEDS)
    executed = executed_op_types(quantized)
    assert executed["QLinearConv"] == op_types(graph)["Conv"] > 0
    assert executed["Conv"] == 0
    assert (computes_in(quantized), computes_in(graph)) == ("int8", "float32")
    assert quantized.stat().st_size < 0.5 * graph.stat().st_size
    error = np.abs(picture(quantized, 2) - picture(graph, 2))
    assert 0 < error.mean() < 4  # of 255
    assert np.std(picture(graph, 2)) > 10


@pytest.mark.row("S48")
def test_int8_weights_alone_are_small_and_compute_in_float32(graph: Path, tmp_path: Path) -> None:
    quantized = weight_only_int8(graph, tmp_path / "weights.onnx")
    types = op_types(quantized)
    assert types["DequantizeLinear"] == types["Conv"] > 0
    assert types["QuantizeLinear"] == 0
    assert computes_in(quantized) == "float32"
    assert quantized.stat().st_size < 0.4 * graph.stat().st_size
    assert np.abs(picture(quantized, 1) - picture(graph, 1)).mean() < 2


def test_a_graph_without_convolutions_is_refused(tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    nothing = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [value], [out])
    onnx.save(onnx.helper.make_model(nothing), tmp_path / "relu.onnx")
    with pytest.raises(QuantizationError, match=r"0 of 0 convolutions were not quantized \(there are none\)"):
        weight_only_int8(tmp_path / "relu.onnx", tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_a_convolution_that_was_left_out_is_noticed(graph: Path, tmp_path: Path) -> None:
    model = onnx.load(graph)
    name = next(node.input[1] for node in model.graph.node if node.op_type == "Conv")
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    model.graph.initializer.remove(tensor)
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [name], value=tensor))
    onnx.save(model, tmp_path / "constant.onnx")
    with pytest.raises(QuantizationError, match=r"1 of \d+ convolutions were not quantized"):
        weight_only_int8(tmp_path / "constant.onnx", tmp_path / "out.onnx")
