"""Export: ONNX Runtime draws what torch draws, from one graph without anything of this machine in it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.devices.export import INPUTS, OPSET, ExportError, export_onnx
from crowdnerf_lab.files import FileError
from crowdnerf_lab.light_fields.planes import planes_across
from crowdnerf_lab.light_fields.ray_mlp import RayMLP
from crowdnerf_lab.scene import bounds_of
from tests.toy_field import toy_cameras


def ideal_cameras(width: int, height: int) -> Cameras:
    """Cameras with different focal lengths along x and y and a principal point off the middle."""
    cameras = toy_cameras(4, width=width, height=height)
    return replace(
        cameras, focal=cameras.focal * torch.tensor([1.0, 1.1]), centre=cameras.centre + torch.tensor([3.0, -2.0])
    )


def drawn(graph: Path, cameras: Cameras, index: int) -> np.ndarray:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(None, {name: getattr(cameras, name)[index].numpy() for name in INPUTS})[0]


@pytest.mark.row("S9", "S35")
def test_onnx_runtime_draws_what_torch_draws(student: RayMLP, graph: Path) -> None:
    cameras = ideal_cameras(61, 43)
    with torch.no_grad():
        expected = student(cameras, 43, 61).numpy()
    assert np.ptp(expected) > 0.3  # a picture with contrast, not a flat colour that anything agrees with
    for i in range(len(cameras)):
        image = drawn(graph, cameras, i)
        assert image.shape == (1, 43, 61, 3)
        np.testing.assert_allclose(image[0], expected[i], atol=2e-5)


@pytest.mark.parametrize("settings", [{"upsampling": "conv_transpose"}, {"activation": "gelu"}])
def test_every_form_of_the_student_is_exported(settings: dict[str, str], tmp_path: Path) -> None:
    cameras = ideal_cameras(32, 24)
    student = RayMLP(planes_across(cameras, bounds_of(cameras)), "XS", **settings).eval()
    graph = export_onnx(student, tmp_path / "student.onnx", width=32, height=24)
    with torch.no_grad():
        np.testing.assert_allclose(drawn(graph, cameras, 0)[0], student(cameras, 24, 32)[0].numpy(), atol=2e-5)


def test_the_graph_is_one_file_of_standard_operations(graph: Path) -> None:
    model = onnx.load(graph)
    onnx.checker.check_model(model, full_check=True)
    assert {opset.domain: opset.version for opset in model.opset_import} == {"": OPSET}
    assert [value.name for value in model.graph.input] == list(INPUTS)
    assert not any(onnx.external_data_helper.uses_external_data(tensor) for tensor in model.graph.initializer)
    assert [path.name for path in graph.parent.iterdir()] == [graph.name]


def test_the_graph_says_nothing_of_this_machine(graph: Path) -> None:
    content = graph.read_bytes()
    for trace in (b".py", str(Path.cwd()).encode(), b"site-packages", b"torch"):
        assert trace not in content.replace(b"pytorch", b"")


def test_a_full_disk_leaves_no_graph(student: RayMLP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(FileError, match=r"student\.onnx: No space left on device; free some space"):
        export_onnx(student, tmp_path / "student.onnx", width=16, height=16)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("width", "height"), [(0, 24), (32, -1), (10**6, 24)])
def test_sizes_that_are_no_images_are_refused(student: RayMLP, tmp_path: Path, width: int, height: int) -> None:
    with pytest.raises(ExportError, match=rf"images of {width} x {height} pixels; choose sides of 1 to"):
        export_onnx(student, tmp_path / "student.onnx", width=width, height=height)
