"""Static int8: every convolution an integer kernel, the sums beside them in float32, and nearly the same pictures."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from crowdnerf_lab.devices.formats.graphs import QuantizationError, executed_op_types, op_types, pictures, read_graph
from crowdnerf_lab.devices.formats.sensitivity import psnr_between
from crowdnerf_lab.devices.formats.static_int8 import SIGMOID_REACH, activation_ranges, quantize_static_int8
from tests.devices.tiny_light_field import FEEDS


@pytest.mark.parametrize("signed", [False, True])
def test_convolutions_become_integer_kernels(tiny_graph: Path, tmp_path: Path, signed: bool) -> None:
    quantized = quantize_static_int8(tiny_graph, tmp_path / "int8.onnx", feeds=FEEDS, signed=signed)
    assert executed_op_types(quantized)["QLinearConv"] == 2
    assert op_types(quantized)["Relu"] == 0  # the zero point clips as it did
    assert 30 < psnr_between(pictures(quantized, FEEDS), pictures(tiny_graph, FEEDS)) < 60
    stored = {numpy_helper.to_array(tensor).dtype for tensor in read_graph(quantized).graph.initializer}
    assert (np.dtype(np.uint8) in stored) is not signed


def test_tables_of_features_are_int8_too(tiny_graph: Path, tmp_path: Path) -> None:
    quantized = read_graph(quantize_static_int8(tiny_graph, tmp_path / "int8.onnx", feeds=FEEDS))
    (plane,) = [tensor for tensor in quantized.graph.initializer if list(tensor.dims) == [1, 8, 24, 24]]
    assert plane.data_type == onnx.TensorProto.INT8
    assert (tmp_path / "int8.onnx").stat().st_size < 0.5 * tiny_graph.stat().st_size


def test_residual_sums_stay_float32(graph: Path, tmp_path: Path) -> None:
    """A sum that were rounded at every block would put a QuantizeLinear behind each Add's DequantizeLinear."""
    from tests.devices.test_quantize import FEEDS as STUDENT_FEEDS

    quantized = read_graph(quantize_static_int8(graph, tmp_path / "int8.onnx", feeds=STUDENT_FEEDS))
    made_by = {output: node.op_type for node in quantized.graph.node for output in node.output}
    residual = [node for node in quantized.graph.node if node.op_type == "Add" and "body" not in node.name]
    assert residual
    assert all(made_by.get(name) != "QuantizeLinear" for node in residual for name in node.input)


def test_seven_bits_of_weight_leave_room_for_sums_of_16_bits(tiny_graph: Path, tmp_path: Path) -> None:
    narrow = read_graph(quantize_static_int8(tiny_graph, tmp_path / "7.onnx", feeds=FEEDS, weight_bits=7))
    kernels = [t for t in narrow.graph.initializer if t.data_type == onnx.TensorProto.INT8 and t.dims[-1:] == [1]]
    assert len(kernels) == 2
    largest = [int(np.abs(numpy_helper.to_array(kernel)).max()) for kernel in kernels]
    assert largest == [63, 63]
    assert 2 * 255 * 63 <= np.iinfo(np.int16).max < 2 * 255 * 127


def test_colours_get_no_steps_beyond_the_sigmoids_reach(tiny_graph: Path) -> None:
    model = read_graph(tiny_graph)
    tail = [node for node in model.graph.node if node.op_type == "Conv"][-1]
    ranges = activation_ranges(model, FEEDS, name=tiny_graph)
    assert max(np.abs(ranges[tail.output[0]])) <= SIGMOID_REACH
    assert max(np.abs(bound) for low_high in ranges.values() for bound in low_high) > SIGMOID_REACH / 2


def test_without_views_there_are_no_ranges(tiny_graph: Path, tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match=r"float32\.onnx cannot be calibrated without feeds"):
        quantize_static_int8(tiny_graph, tmp_path / "int8.onnx", feeds=[])
    assert list(tmp_path.iterdir()) == []


def test_views_that_make_no_numbers_are_refused(tiny_graph: Path, tmp_path: Path) -> None:
    broken = [{name: np.full_like(value, np.nan) for name, value in FEEDS[0].items()}]
    with pytest.raises(QuantizationError, match="not finite"):
        quantize_static_int8(tiny_graph, tmp_path / "int8.onnx", feeds=broken)
