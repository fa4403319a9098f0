"""The ray MLP: what its points do not depend on, its sizes, and its files."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crowdnerf_lab.cameras import pinhole
from crowdnerf_lab.light_fields.light_field import LightField, cell_rays
from crowdnerf_lab.light_fields.ray_mlp import (
    FORMAT,
    LightFieldError,
    RayMLP,
    load_light_field,
    planes_across,
    save_light_field,
)
from crowdnerf_lab.scene import bounds_of
from crowdnerf_lab.weights import WeightsError, read_tensors, write_tensors
from tests.toy_field import toy_cameras

CAMERAS = toy_cameras(6)
PLANES = planes_across(CAMERAS, bounds_of(CAMERAS))


def student(size: str = "XS", **settings: str) -> RayMLP:
    torch.manual_seed(0)
    return RayMLP(PLANES, size, **settings).eval()


@given(st.floats(-3, 3))
def test_points_do_not_depend_on_where_along_the_ray_the_camera_stands(shift: float) -> None:
    origins, directions = cell_rays(CAMERAS, 5, 6)
    network = student()
    moved = network.points(origins + shift * directions, directions)
    torch.testing.assert_close(moved, network.points(origins, directions), atol=2e-4, rtol=1e-3)


def test_points_lie_on_the_planes_and_on_the_ray() -> None:
    wide = replace(PLANES, bounds=replace(PLANES.bounds, half_size=100 * PLANES.bounds.half_size))
    network = RayMLP(wide, "XS")  # nothing is contracted in a box this large
    origins, directions = cell_rays(CAMERAS, 5, 6)
    local = network.points(origins, directions).unflatten(1, (-1, 3))
    world = local * wide.bounds.half_size[:, None, None] + wide.bounds.centre[:, None, None]

    along_normal = ((world - wide.bounds.centre[:, None, None]) * wide.normal[:, None, None]).sum(2)
    torch.testing.assert_close(along_normal, wide.offsets[:, None, None].expand_as(along_normal), atol=1e-3, rtol=1e-4)
    across = torch.linalg.cross(world - origins[:, None], directions[:, None].expand_as(world), dim=2)
    torch.testing.assert_close(across, torch.zeros_like(across), atol=2e-3, rtol=0)


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 1))
def test_points_of_any_ray_stay_within_the_contraction(x: float, y: float, z: float) -> None:
    direction = torch.nn.functional.normalize(torch.tensor([x, y, z + 1e-3]), dim=0)[None, :, None, None]
    points = student().points(torch.zeros(1, 3, 1, 1), direction)
    assert points.abs().max() <= 2


def test_the_paper_s_layout() -> None:
    network = student("S")
    assert network.head[0].in_channels == 312  # K = 8 points, L = 6 frequencies
    convolutions = [m for m in [*network.head.modules(), *network.body.modules()] if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 19  # the head and 9 residual blocks of two: depth 20 counts the tail
    assert {m.kernel_size for m in convolutions} == {(1, 1)}


@pytest.mark.row("S9")
@pytest.mark.parametrize("upsampling", ["pixel_shuffle", "conv_transpose"])
@pytest.mark.parametrize("size", [(48, 40), (61, 43)])
def test_one_pass_gives_images_of_any_size(upsampling: str, size: tuple[int, int]) -> None:
    width, height = size
    network = student(upsampling=upsampling)
    assert isinstance(network, LightField)
    images = network(CAMERAS, height, width)
    assert images.shape == (6, height, width, 3)
    assert images.min() >= 0
    assert images.max() <= 1


def test_cells_at_the_border_are_cut_not_squeezed() -> None:
    """An image of 61 x 43 is the top left of one of 64 x 48 with the same focal length and principal point."""
    pose, focal = CAMERAS.camera_to_world[:1], torch.tensor([50.0])
    whole = pinhole(pose, focal, width=64, height=48)
    part = replace(whole, width=torch.tensor([61]), height=torch.tensor([43]))
    network = student()
    torch.testing.assert_close(network(part, 43, 61), network(whole, 48, 64)[:, :43, :61])


@pytest.mark.parametrize(("upsampling", "independent"), [("pixel_shuffle", True), ("conv_transpose", False)])
def test_only_a_shuffled_tail_draws_every_cell_for_itself(upsampling: str, independent: bool) -> None:
    network = student(upsampling=upsampling)
    whole = network(CAMERAS, 40, 48)
    origins, directions = cell_rays(CAMERAS, 5, 6)
    alone = network.from_rays(origins, directions[:, :, 1:2, 2:3]).permute(0, 2, 3, 1)
    same = torch.allclose(alone, whole[:, 8:16, 16:24], atol=1e-5)
    assert same == independent == network.cells_are_independent


def test_gelu_and_relu_differ() -> None:
    relu, gelu = student(), student(activation="gelu")
    assert not torch.allclose(relu(CAMERAS, 40, 48), gelu(CAMERAS, 40, 48))


def test_unknown_names_are_refused_with_the_choice() -> None:
    with pytest.raises(LightFieldError, match="'M' is not known; choose one of XS, S"):
        RayMLP(PLANES, "M")
    with pytest.raises(LightFieldError, match="'bilinear' is not known; choose one of pixel_shuffle, conv_transpose"):
        RayMLP(PLANES, upsampling="bilinear")


def test_cameras_that_look_every_way_have_no_planes() -> None:
    around = toy_cameras(4)
    turned = around.camera_to_world.clone()
    turned[2:, :, :3] = turned[:2, :, :3] * torch.tensor([-1.0, 1.0, -1.0])
    with pytest.raises(LightFieldError, match="no common viewing direction"):
        planes_across(replace(around, camera_to_world=turned), PLANES.bounds)


@pytest.mark.parametrize("upsampling", ["pixel_shuffle", "conv_transpose"])
def test_a_saved_student_comes_back_as_it_was(tmp_path: Path, upsampling: str) -> None:
    network = RayMLP(PLANES, "XS", activation="gelu", upsampling=upsampling, view_size=(64, 48)).eval()
    again = load_light_field(save_light_field(network, tmp_path / "student.safetensors"))
    assert (again.size, again.activation, again.upsampling, again.view_size) == ("XS", "gelu", upsampling, (64, 48))
    assert torch.equal(again(CAMERAS, 40, 48), network(CAMERAS, 40, 48))


def test_a_truncated_student_is_refused(tmp_path: Path) -> None:
    path = save_light_field(student(), tmp_path / "student.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"cannot read .*student\.safetensors"):
        load_light_field(path)


@pytest.mark.parametrize(
    "change",
    [{"size": "S"}, {"size": "M"}, {"upsampling": "conv_transpose"}, {"frequencies": "many"}, {"view_size": "1"}],
)
def test_a_header_that_does_not_fit_the_weights_is_refused(tmp_path: Path, change: dict[str, str]) -> None:
    path = save_light_field(student(), tmp_path / "student.safetensors")
    tensors, header = read_tensors(path, kind=FORMAT)
    write_tensors(path, tensors, kind=FORMAT, header={k: v for k, v in header.items() if k != "format"} | change)
    with pytest.raises(LightFieldError, match=r"student\.safetensors does not fit its own header"):
        load_light_field(path)


def test_another_file_of_weights_is_refused(tmp_path: Path) -> None:
    path = write_tensors(tmp_path / "other.safetensors", {"a": torch.zeros(1)}, kind="something/1")
    with pytest.raises(WeightsError, match="holds 'something/1'"):
        load_light_field(path)
