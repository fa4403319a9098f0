"""Files of light fields: the same pictures after a round trip, and clear refusals."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from crowdnerf_lab.light_fields.light_field import LightFieldError
from crowdnerf_lab.light_fields.plane_features import layout_of, plane_features
from crowdnerf_lab.light_fields.planes import planes_across
from crowdnerf_lab.light_fields.ray_mlp import RayMLP
from crowdnerf_lab.light_fields.storage import PLANE_FEATURES, RAY_MLP, load_light_field, save_light_field
from crowdnerf_lab.scene import bounds_of
from crowdnerf_lab.weights import WeightsError, read_tensors, write_tensors
from tests.toy_field import ToyField, toy_cameras

CAMERAS = toy_cameras(6)
PLANES = planes_across(CAMERAS, bounds_of(CAMERAS))


def student(**settings: str | int | tuple[int, int]) -> RayMLP:
    return RayMLP(PLANES, "XS", **settings).eval()


@pytest.mark.parametrize("cell", [1, 4, 8])
@pytest.mark.parametrize("upsampling", ["pixel_shuffle", "conv_transpose"])
def test_a_saved_ray_mlp_comes_back_as_it_was(tmp_path: Path, upsampling: str, cell: int) -> None:
    network = student(cell=cell, activation="gelu", upsampling=upsampling, frequencies=4, view_size=(64, 48))
    again = load_light_field(save_light_field(network, tmp_path / "student.safetensors"))
    assert (again.architecture, again.view_size) == (network.architecture, (64, 48))
    assert torch.equal(again(CAMERAS, 40, 48), network(CAMERAS, 40, 48))


def test_saved_plane_features_come_back_as_they_were(tmp_path: Path) -> None:
    layout = replace(layout_of("XS"), points=4, columns=12, rows=8, cell=8)
    network = plane_features(ToyField(), CAMERAS, bounds_of(CAMERAS), layout=layout, view_size=(64, 48)).eval()
    again = load_light_field(save_light_field(network, tmp_path / "student.safetensors"))
    assert (again.architecture, again.view_size) == (network.architecture, (64, 48))
    assert torch.equal(again(CAMERAS, 40, 48), network(CAMERAS, 40, 48))


def test_a_layout_that_does_not_fit_the_weights_is_refused(tmp_path: Path) -> None:
    layout = replace(layout_of("XS"), points=4, columns=12, rows=8)
    network = plane_features(ToyField(), CAMERAS, bounds_of(CAMERAS), layout=layout)
    path = tmp_path / "student.safetensors"
    for wrong in (replace(layout, rows=9), replace(layout, points=5), replace(layout, cell=8)):
        header = network.header() | {"layout": json.dumps(asdict(wrong))}
        write_tensors(path, network.state_dict(), kind=PLANE_FEATURES, header=header)
        with pytest.raises(LightFieldError, match=r"student\.safetensors does not fit its own header"):
            load_light_field(path)


def test_a_file_that_says_nothing_of_cells_has_cells_of_eight(tmp_path: Path) -> None:
    network = student()
    path = tmp_path / "student.safetensors"
    header = {name: value for name, value in network.header().items() if name != "cell"}
    write_tensors(path, network.state_dict(), kind=RAY_MLP, header=header)
    assert torch.equal(load_light_field(path)(CAMERAS, 40, 48), network(CAMERAS, 40, 48))


def test_a_truncated_student_is_refused(tmp_path: Path) -> None:
    path = save_light_field(student(), tmp_path / "student.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"cannot read .*student\.safetensors"):
        load_light_field(path)


@pytest.mark.parametrize(
    "change",
    [
        {"size": "S"},
        {"size": "XXL"},
        {"cell": "4"},
        {"cell": "3"},
        {"upsampling": "conv_transpose"},
        {"frequencies": "many"},
        {"view_size": "1"},
    ],
)
def test_a_header_that_does_not_fit_the_weights_is_refused(tmp_path: Path, change: dict[str, str]) -> None:
    path = save_light_field(student(), tmp_path / "student.safetensors")
    tensors, header = read_tensors(path, kind=RAY_MLP)
    write_tensors(path, tensors, kind=RAY_MLP, header={k: v for k, v in header.items() if k != "format"} | change)
    with pytest.raises(LightFieldError, match=r"student\.safetensors does not fit its own header"):
        load_light_field(path)


def test_another_file_of_weights_is_refused(tmp_path: Path) -> None:
    path = write_tensors(tmp_path / "other.safetensors", {"a": torch.zeros(1)}, kind="something/1")
    with pytest.raises(LightFieldError, match=r"other\.safetensors holds 'something/1', no light field"):
        load_light_field(path)
