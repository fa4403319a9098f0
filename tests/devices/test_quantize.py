"""Quantization: errors within half a step, every convolution reached, and the pictures nearly the same."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from crowdnerf_lab.devices.export import INPUTS
from crowdnerf_lab.devices.formats.graphs import layers_computed, pictures
from crowdnerf_lab.devices.formats.sensitivity import psnr_between
from crowdnerf_lab.devices.quantize import (
    ConvertedGraph,
    Feed,
    QuantizationError,
    computes_in,
    convert,
    executed_op_types,
    op_types,
    quantize_static_int8,
    weight_only_int8,
)
from crowdnerf_lab.network.ue import light_field_model
from tests.toy_field import toy_cameras

CAMERAS = toy_cameras(6, width=61, height=43)
FEEDS: list[Feed] = [{name: getattr(CAMERAS, name)[i].numpy() for name in INPUTS} for i in range(6)]


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


FORMS = {
    # stored as: (computes in, least PSNR against the float32 graph, most of its bytes)
    "onnx_float32": ("float32", 90, 1.0),
    "onnx_float16": ("float32", 55, 0.6),
    "onnx_int8_qdq": ("int8", 33, 0.5),
    "onnx_int8_qdq_signed": ("int8", 33, 0.5),
    "onnx_int8_matmul": ("int8", 36, 0.5),
    "onnx_int8_mixed": ("int8", 40, 0.55),
    "onnx_int8_weights": ("float32", 36, 0.4),
    "onnx_int4_weights": ("float32", 14, 0.35),
}


@pytest.fixture(scope="module")
def converted(graph: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ConvertedGraph]:
    folder = tmp_path_factory.mktemp("forms")
    return {form: convert(graph, folder / f"{form}.onnx", stored_as=form, feeds=FEEDS) for form in FORMS}


@pytest.mark.row("S43", "S48")
@pytest.mark.parametrize("form", FORMS)
def test_every_form_draws_the_picture_in_the_arithmetic_that_it_says(
    form: str, converted: dict[str, ConvertedGraph], graph: Path
) -> None:
    arithmetic, least_db, share = FORMS[form]
    made = converted[form]
    assert (made.stored_as, made.computes_in) == (form, arithmetic)
    assert made.op_types == executed_op_types(made.path)
    assert made.stored_op_types == op_types(made.path)
    assert made.path.stat().st_size <= share * graph.stat().st_size
    integer, floating = layers_computed(made.op_types)
    assert integer + floating == op_types(graph)["Conv"]
    assert (integer > floating) == (arithmetic == "int8")
    feeds = FEEDS[1:5:2]
    assert least_db < psnr_between(pictures(made.path, feeds), pictures(graph, feeds))


def test_a_form_that_is_no_graph_is_refused(graph: Path, tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match=r"float32\.onnx cannot be stored as 'baked'; choose one of the onnx"):
        convert(graph, tmp_path / "out.onnx", stored_as="baked")


def test_layers_that_onnx_runtime_would_not_run_as_promised_are_refused(
    graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    floating = executed_op_types(graph)
    monkeypatch.setattr("crowdnerf_lab.devices.quantize.executed_op_types", lambda _: floating)
    with pytest.raises(QuantizationError, match=r"onnx_int8_qdq: ONNX Runtime runs 0 layers in integers and \d+ in"):
        convert(graph, tmp_path / "out.onnx", stored_as="onnx_int8_qdq", feeds=FEEDS)


def test_nothing_is_converted_from_half_a_graph(graph: Path, tmp_path: Path) -> None:
    (tmp_path / "half.onnx").write_bytes(graph.read_bytes()[:5000])
    for form in FORMS:
        with pytest.raises(QuantizationError, match=r"half\.onnx is not a whole ONNX graph"):
            convert(tmp_path / "half.onnx", tmp_path / "out.onnx", stored_as=form, feeds=FEEDS)
    assert not (tmp_path / "out.onnx").exists()
