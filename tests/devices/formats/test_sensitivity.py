"""Sensitivity: the layer that was made to suffer is found, and mixed precision leaves just what it must."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from crowdnerf_lab.devices.formats.graphs import QuantizationError, executed_op_types, layers_of, read_graph
from crowdnerf_lab.devices.formats.sensitivity import (
    psnr_between,
    psnr_for_loss,
    quantize_mixed_int8,
    sensitivity_of,
)
from tests.devices.tiny_light_field import FEEDS


def hurt(graph: Path, path: Path) -> Path:
    """One input channel of the last layer a thousand times as large, and its weights as much smaller: same picture."""
    model = onnx.load(graph)
    first, last = [node for node in model.graph.node if node.op_type == "Conv"]
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, part, factor in (
        (first.input[1], np.s_[0], 1e3),
        (first.input[2], np.s_[0], 1e3),
        (last.input[1], np.s_[:, 0], 1e-3),
    ):
        values = numpy_helper.to_array(tensors[name]).copy()
        values[part] *= factor
        tensors[name].CopyFrom(numpy_helper.from_array(values, name))
    onnx.save(model, path)
    return path


def test_every_layer_has_a_sensitivity_and_the_suffering_one_the_lowest(tiny_graph: Path, tmp_path: Path) -> None:
    before = {layer.layer: layer.psnr for layer in sensitivity_of(tiny_graph, FEEDS)}
    after = {layer.layer: layer.psnr for layer in sensitivity_of(hurt(tiny_graph, tmp_path / "hurt.onnx"), FEEDS)}
    names = [conv.name for conv in layers_of(read_graph(tiny_graph))]
    assert list(before) == list(after) == names
    assert min(before.values()) > 30
    assert after[names[1]] < before[names[1]] - 10  # one channel takes all the steps of what enters it


def test_what_suffers_stays_float32_until_the_loss_is_borne(tiny_graph: Path, tmp_path: Path) -> None:
    path = hurt(tiny_graph, tmp_path / "hurt.onnx")
    mixed = quantize_mixed_int8(path, tmp_path / "mixed.onnx", feeds=FEEDS, loss_db=0.5, student_psnr=25)
    assert mixed.psnr >= psnr_for_loss(0.5, student_psnr=25)
    executed = executed_op_types(mixed.path)
    assert executed["QLinearConv"] + len(mixed.floating) == 2
    assert len(mixed.floating) == executed["Conv"] + executed["FusedConv"] > 0


def test_a_graph_that_bears_int8_has_no_float_layers(tiny_graph: Path, tmp_path: Path) -> None:
    mixed = quantize_mixed_int8(tiny_graph, tmp_path / "mixed.onnx", feeds=FEEDS, loss_db=1, student_psnr=20)
    assert mixed.floating == ()


def test_a_loss_that_nothing_keeps_says_what_to_do(tiny_graph: Path, tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match=r"105\.4 are needed to lose 0\.0001 dB; allow more loss"):
        quantize_mixed_int8(tiny_graph, tmp_path / "mixed.onnx", feeds=FEEDS, loss_db=1e-4, student_psnr=59)
    assert not (tmp_path / "mixed.onnx").exists()


def test_squared_errors_add_up() -> None:
    generator = np.random.default_rng(0)
    truth = np.full((400, 400), 0.5, np.float32)
    student = truth + generator.normal(0, 10 ** (-30 / 20), truth.shape).astype(np.float32)
    needed = psnr_for_loss(0.1, student_psnr=30)
    quantized = student + generator.normal(0, 10 ** (-needed / 20), truth.shape).astype(np.float32)
    loss = psnr_between([student], [truth]) - psnr_between([quantized], [truth])
    assert loss == pytest.approx(0.1, abs=0.01)
