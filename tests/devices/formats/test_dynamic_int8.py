"""MatMul form: the same pictures in float32, and integer products without calibration."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from crowdnerf_lab.devices.formats.dynamic_int8 import as_matrix_products, quantize_matmul_int8
from crowdnerf_lab.devices.formats.graphs import QuantizationError, executed_op_types, pictures, read_graph
from crowdnerf_lab.devices.formats.sensitivity import psnr_between
from crowdnerf_lab.devices.formats.static_int8 import quantize_static_int8
from tests.devices.tiny_light_field import FEEDS


def test_matrix_products_draw_what_convolutions_draw(tiny_graph: Path) -> None:
    products = as_matrix_products(read_graph(tiny_graph), name=tiny_graph)
    assert not [node for node in products.graph.node if node.op_type == "Conv"]
    for image, truth in zip(pictures(products, FEEDS), pictures(tiny_graph, FEEDS), strict=True):
        np.testing.assert_allclose(image, truth, atol=1e-5)


def test_products_are_integer_and_lose_less_than_static_int8(tiny_graph: Path, tmp_path: Path) -> None:
    dynamic = quantize_matmul_int8(tiny_graph, tmp_path / "dynamic.onnx")
    executed = executed_op_types(dynamic)
    assert executed["DynamicQuantizeMatMul"] + executed["MatMulIntegerToFloat"] == 2
    assert executed["MatMul"] == executed["Gemm"] == executed["Conv"] == 0
    truth = pictures(tiny_graph, FEEDS)
    static = quantize_static_int8(tiny_graph, tmp_path / "static.onnx", feeds=FEEDS)
    assert psnr_between(pictures(dynamic, FEEDS), truth) > psnr_between(pictures(static, FEEDS), truth)


def test_a_graph_without_1x1_convolutions_is_refused(tmp_path: Path) -> None:
    kernel = numpy_helper.from_array(np.ones((2, 2, 3, 3), np.float32), "w")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, 8, 8]) for name in ("x", "y")]
    conv = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    graph = helper.make_graph([conv], "g", ends[:1], ends[1:], [kernel])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), tmp_path / "3x3.onnx")
    with pytest.raises(QuantizationError, match=r"3x3\.onnx: none of 1 convolutions is 1x1; store it as onnx_int8_qdq"):
        quantize_matmul_int8(tmp_path / "3x3.onnx", tmp_path / "out.onnx")
