"""Weights alone in few bits: small files, float32 arithmetic, tables of features among them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import numpy_helper

from crowdnerf_lab.devices.formats.graphs import QuantizationError, computes_in, executed_op_types, pictures, read_graph
from crowdnerf_lab.devices.formats.sensitivity import psnr_between
from crowdnerf_lab.devices.formats.weight_only import (
    packed_nibbles,
    weight_only_int4,
    weight_only_int8,
    weights_as_float16,
)
from tests.devices.tiny_light_field import FEEDS


@pytest.mark.parametrize(
    ("store", "dtype", "share", "least_db"),
    [
        (weights_as_float16, onnx.TensorProto.FLOAT16, 0.65, 60),
        (weight_only_int8, onnx.TensorProto.INT8, 0.45, 40),
        (weight_only_int4, onnx.TensorProto.INT4, 0.35, 20),
    ],
)
def test_weights_shrink_and_arithmetic_stays(
    store: Callable[[Path, Path], Path], dtype: int, share: float, least_db: float, tiny_graph: Path, tmp_path: Path
) -> None:
    stored = store(tiny_graph, tmp_path / "stored.onnx")
    tensors = {tuple(tensor.dims): tensor.data_type for tensor in read_graph(stored).graph.initializer}
    assert [tensors[dims] for dims in ((128, 14, 1, 1), (48, 128, 1, 1), (1, 8, 24, 24))] == [dtype] * 3
    assert tensors[(6, 7, 2)] == onnx.TensorProto.FLOAT  # where the pixels are
    assert stored.stat().st_size < share * tiny_graph.stat().st_size
    assert computes_in(stored) == "float32"
    assert executed_op_types(stored)["QuantizeLinear"] == 0
    assert least_db < psnr_between(pictures(stored, FEEDS), pictures(tiny_graph, FEEDS)) < 99


@given(arrays(np.int8, st.integers(0, 9), elements=st.integers(-8, 7)))
def test_nibbles_are_packed_as_onnx_reads_them(integers: np.ndarray) -> None:
    tensor = onnx.helper.make_tensor("x", onnx.TensorProto.INT4, integers.shape, packed_nibbles(integers), raw=True)
    np.testing.assert_array_equal(numpy_helper.to_array(tensor).astype(np.int8), integers)


def test_a_weight_beyond_half_precision_is_named(tiny_graph: Path, tmp_path: Path) -> None:
    model = onnx.load(tiny_graph)
    tensor = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    tensor.CopyFrom(numpy_helper.from_array(1e6 * numpy_helper.to_array(tensor) + 1e5, tensor.name))
    onnx.save(model, tmp_path / "large.onnx")
    with pytest.raises(QuantizationError, match=r"large\.onnx: a weight of .* too large for float16; use float32"):
        weights_as_float16(tmp_path / "large.onnx", tmp_path / "out.onnx")
