"""Core ML: the package holds the layers' weights as asked, and the interface that every target has."""

from pathlib import Path

import numpy as np
import pytest
import torch

from crowdnerf_lab.devices.core_ml_export import export_core_ml, read_weights
from crowdnerf_lab.devices.formats.graphs import QuantizationError
from crowdnerf_lab.devices.pose_to_image import INPUTS, OUTPUT, ExportError
from tests.devices.tiny_light_field import HEIGHT, WIDTH, TinyLightField

coremltools = pytest.importorskip("coremltools", reason='needs Core ML Tools: pip install "crowdnerf-lab[coreml]"')

STUDENT = TinyLightField()
TRUE_WEIGHTS = [layer.weight.detach().numpy() for layer in (STUDENT.first, STUDENT.second)]


@pytest.mark.parametrize(
    ("weights", "stored", "share", "error"),
    [
        ("float16", None, 1.0, 2e-3),
        ("int8", "constexpr_blockwise_shift_scale", 0.8, 0.5 / 127 + 2e-3),
        ("palette4", "constexpr_lut_to_dense", 0.75, None),
    ],
)
def test_weights_are_stored_as_asked_and_read_back(
    weights: str, stored: str | None, share: float, error: float | None, tmp_path: Path
) -> None:
    package = export_core_ml(STUDENT, tmp_path / "student.mlpackage", width=WIDTH, height=HEIGHT, weights=weights)
    assert package.op_types["conv"] == 2
    assert stored is None or package.op_types[stored] == 2
    plain = sum(weight.nbytes for weight in TRUE_WEIGHTS) // 2
    overhead = 18_000  # the program itself
    assert package.bytes < share * plain + overhead
    read = list(read_weights(package.path).values())
    for truth, found in zip(TRUE_WEIGHTS, read, strict=True):
        largest, difference = np.abs(truth).max(), np.abs(found - truth)
        assert difference.max() > 0
        if error is not None:
            assert difference.max() <= error * largest
        else:  # 16 values where the weights are, closer to them than 16 even steps
            assert len(np.unique(found)) <= 16
            assert np.sqrt(np.square(difference).mean()) < 2 * largest / 15 / np.sqrt(12)


def test_the_interface_is_float32_and_rays_are_too(tmp_path: Path) -> None:
    package = export_core_ml(STUDENT, tmp_path / "student.mlpackage", width=WIDTH, height=HEIGHT)
    spec = coremltools.models.MLModel(str(package.path), skip_model_load=True).get_spec()
    assert tuple(value.name for value in spec.description.input) == INPUTS
    assert [value.name for value in spec.description.output] == [OUTPUT]
    float32 = coremltools.proto.FeatureTypes_pb2.ArrayFeatureType.FLOAT32
    values = [*spec.description.input, *spec.description.output]
    assert {value.type.multiArrayType.dataType for value in values} == {float32}
    assert list(spec.description.output[0].type.multiArrayType.shape) == [1, HEIGHT, WIDTH, 3]
    assert package.op_types["cast"] == 2  # into float16 before the first layer, out of it after the last


def test_a_layer_that_cannot_be_stored_so_is_named(tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match=r"weights of 1 of 2 layers are int4; store them as float16 or int8"):
        export_core_ml(STUDENT, tmp_path / "student.mlpackage", width=WIDTH, height=HEIGHT, weights="int4")
    assert list(tmp_path.iterdir()) == []


def test_a_package_is_replaced_whole_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "student.mlpackage"
    (path / "old").mkdir(parents=True)
    export_core_ml(STUDENT, path, width=WIDTH, height=HEIGHT)
    assert not (path / "old").exists()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    (path / "Manifest.json").unlink()
    with pytest.raises(ExportError, match=r"student\.mlpackage is not a whole Core ML package .*export it again"):
        read_weights(path)


def test_sizes_and_names_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"0 x 21 pixels; choose sides of 1 to"):
        export_core_ml(STUDENT, tmp_path / "a.mlpackage", width=0, height=HEIGHT)
    with pytest.raises(ExportError, match=r"end it in \.mlpackage"):
        export_core_ml(STUDENT, tmp_path / "a.mlmodel", width=WIDTH, height=HEIGHT)


def test_tracing_leaves_the_student_as_it_was() -> None:
    with torch.no_grad():
        assert torch.equal(STUDENT.first.weight, torch.from_numpy(TRUE_WEIGHTS[0]))
