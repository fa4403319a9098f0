"""The ray MLP: what its points do not depend on, its sizes, and its files."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crowdnerf_lab.cameras import pinhole
from crowdnerf_lab.light_fields.light_field import LightField, LightFieldError, cell_rays
from crowdnerf_lab.light_fields.planes import planes_across
from crowdnerf_lab.light_fields.ray_mlp import RayMLP
from crowdnerf_lab.scene import bounds_of
from tests.toy_field import toy_cameras

CAMERAS = toy_cameras(6)
PLANES = planes_across(CAMERAS, bounds_of(CAMERAS))


def student(size: str = "XS", **settings: str | int) -> RayMLP:
    return RayMLP(PLANES, size, **settings).eval()


NETWORK = student()


@given(st.floats(-3, 3))
def test_points_do_not_depend_on_where_along_the_ray_the_camera_stands(shift: float) -> None:
    origins, directions = cell_rays(CAMERAS, 5, 6, cell=8)
    network = NETWORK
    moved = network.points(origins + shift * directions, directions)
    torch.testing.assert_close(moved, network.points(origins, directions), atol=2e-4, rtol=1e-3)


def test_points_lie_on_the_planes_and_on_the_ray() -> None:
    wide = replace(PLANES, bounds=replace(PLANES.bounds, half_size=100 * PLANES.bounds.half_size))
    network = RayMLP(wide, "XS")  # nothing is contracted in a box this large
    origins, directions = cell_rays(CAMERAS, 5, 6, cell=8)
    local = network.points(origins, directions).unflatten(1, (-1, 3))
    world = local * wide.bounds.half_size[:, None, None] + wide.bounds.centre[:, None, None]

    along_normal = ((world - wide.bounds.centre[:, None, None]) * wide.normal[:, None, None]).sum(2)
    torch.testing.assert_close(along_normal, wide.offsets[:, None, None].expand_as(along_normal), atol=1e-3, rtol=1e-4)
    across = torch.linalg.cross(world - origins[:, None], directions[:, None].expand_as(world), dim=2)
    torch.testing.assert_close(across, torch.zeros_like(across), atol=2e-3, rtol=0)


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 1))
def test_points_of_any_ray_stay_within_the_contraction(x: float, y: float, z: float) -> None:
    direction = torch.nn.functional.normalize(torch.tensor([x, y, z + 1e-3]), dim=0)[None, :, None, None]
    points = NETWORK.points(torch.zeros(1, 3, 1, 1), direction)
    assert points.abs().max() <= 2


@pytest.mark.parametrize(("size", "depth", "width"), [("XS", 10, 64), ("S", 20, 128), ("M", 30, 128), ("L", 60, 256)])
def test_the_paper_s_layout(size: str, depth: int, width: int) -> None:
    network = student(size)
    assert network.head[0].in_channels == 312  # K = 8 points, L = 6 frequencies
    convolutions = [m for m in [*network.head.modules(), *network.body.modules()] if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == depth - 1  # the head and residual blocks of two; the depth counts one more
    assert {m.kernel_size for m in convolutions} == {(1, 1)}
    assert {m.out_channels for m in convolutions} == {width}
    assert f"D{depth} W{width}, 8 points, 6 frequencies" in network.architecture


def test_the_paper_s_own_student_has_its_parameters() -> None:
    """D60 W256 with transposed convolutions: about 4.3 million (MobileR2L's table of sizes: 8.3 MB as fp16)."""
    network = student("L", activation="gelu", upsampling="conv_transpose")
    stages = [m for m in network.tail if isinstance(m, torch.nn.ConvTranspose2d)]
    assert [m.out_channels for m in stages] == [64, 64, 16]
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(4.31e6, rel=0.03)


@pytest.mark.parametrize("upsampling", ["pixel_shuffle", "conv_transpose"])
@pytest.mark.parametrize("cell", [1, 4, 8])
def test_a_ray_becomes_a_cell(cell: int, upsampling: str) -> None:
    network = student(cell=cell, upsampling=upsampling)
    origins, directions = cell_rays(CAMERAS, 5, 6, cell=cell)
    assert network.cell == cell
    assert network.from_rays(origins, directions).shape == (6, 3, 5 * cell, 6 * cell)


def test_one_pixel_a_cell_is_the_same_picture_at_every_size() -> None:
    """Without super-resolution (R2L) a pixel is its ray's colour: every other pixel of twice as many, if centred."""
    network = student(cell=1)
    coarse, fine = network(CAMERAS, 20, 24), network(CAMERAS, 60, 72)
    torch.testing.assert_close(coarse, fine[:, 1::3, 1::3], atol=2e-3, rtol=0)


def test_the_seed_makes_the_weights() -> None:
    first, same, other = student(seed=1), student(seed=1), student(seed=2)
    assert torch.equal(first(CAMERAS, 40, 48), same(CAMERAS, 40, 48))
    assert not torch.equal(first(CAMERAS, 40, 48), other(CAMERAS, 40, 48))


@pytest.mark.parametrize(("points", "frequencies"), [(4, 6), (12, 3)])
def test_points_and_frequencies_are_free(points: int, frequencies: int) -> None:
    network = RayMLP(planes_across(CAMERAS, bounds_of(CAMERAS), points=points), "XS", frequencies=frequencies)
    assert network.head[0].in_channels == 3 * points * (2 * frequencies + 1)
    assert network(CAMERAS, 40, 48).shape == (6, 40, 48, 3)


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
    origins, directions = cell_rays(CAMERAS, 5, 6, cell=8)
    alone = network.from_rays(origins, directions[:, :, 1:2, 2:3]).permute(0, 2, 3, 1)
    same = torch.allclose(alone, whole[:, 8:16, 16:24], atol=1e-5)
    assert same == independent == network.cells_are_independent


def test_gelu_and_relu_differ() -> None:
    relu, gelu = student(), student(activation="gelu")
    assert not torch.allclose(relu(CAMERAS, 40, 48), gelu(CAMERAS, 40, 48))


def test_unknown_names_are_refused_with_the_choice() -> None:
    with pytest.raises(LightFieldError, match="'XL' is not known; choose one of XS, S, M, L"):
        RayMLP(PLANES, "XL")
    with pytest.raises(LightFieldError, match="cell 5 is not known; choose one of 8, 4, 1"):
        RayMLP(PLANES, cell=5)
    with pytest.raises(LightFieldError, match="'bilinear' is not known; choose one of pixel_shuffle, conv_transpose"):
        RayMLP(PLANES, upsampling="bilinear")
