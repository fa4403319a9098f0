"""The light slab: its coordinates, its sides, what its graph computes, its files, and that it learns."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crowdnerf_lab.cameras import look_at, pinhole
from crowdnerf_lab.devices.export import export_onnx
from crowdnerf_lab.devices.quantize import op_types
from crowdnerf_lab.distillation import distil
from crowdnerf_lab.light_fields.light_field import LightField, LightFieldError, cell_rays
from crowdnerf_lab.light_fields.light_slab import MARGIN, LightSlab, TwoPlanes, slab_through, slabs_of
from crowdnerf_lab.light_fields.storage import LIGHT_SLAB, load_light_field, save_light_field
from crowdnerf_lab.light_fields.surfaces import SeenSurfaces, seen_surfaces
from crowdnerf_lab.weights import read_tensors, write_tensors
from tests.toy_field import ToyField, toy_cameras, toy_scene

CAMERAS = toy_cameras(6)
SEEN = seen_surfaces(ToyField(), CAMERAS, rays=4096)
SLAB = slab_through(SEEN)


def student(size: str = "XS", *, sides: int = 1, cell: int = 4, seed: int = 0) -> LightSlab:
    return LightSlab(slabs_of(SEEN, sides=sides), size, cell=cell, seed=seed).eval()


def wide(slab: TwoPlanes) -> TwoPlanes:
    """The same planes with windows so large that nothing is contracted."""
    return replace(slab, half_sizes=torch.full((2, 2), 100.0))


def test_surfaces_are_where_the_teacher_s_rays_end() -> None:
    balls = ToyField()
    apart = torch.linalg.vector_norm(SEEN.points[:, None] - balls.get_buffer("centres"), dim=-1) - balls.get_buffer(
        "radii"
    )
    assert apart.amin(1).abs().quantile(0.9) < 0.3
    assert 0.2 < len(SEEN) / 4096 < 0.8  # the others hit nothing


def test_cameras_that_see_nothing_have_no_surfaces() -> None:
    away = replace(CAMERAS, camera_to_world=CAMERAS.camera_to_world * torch.tensor([-1.0, 1, -1, 1]))
    with pytest.raises(LightFieldError, match="none of 64 rays of 6 cameras hits anything"):
        seen_surfaces(ToyField(), away, rays=64)


def test_the_planes_lie_at_the_surfaces_and_their_windows_hold_what_is_seen() -> None:
    heights = (SEEN.points - SLAB.centre) @ SLAB.axes[2]
    assert heights.min() < SLAB.offsets[1] < SLAB.offsets[0] < heights.max()
    torch.testing.assert_close(SLAB.axes @ SLAB.axes.T, torch.eye(3), atol=1e-5, rtol=0)
    network = LightSlab([SLAB], "XS")
    rays = SEEN.origins.T[None, :, None], SEEN.directions.T[None, :, None]
    inside = network.coordinates(*rays, slab=0).abs() <= 1
    assert 0.95 < inside.float().mean() < 1


@given(st.floats(-3, 3))
def test_coordinates_do_not_depend_on_where_along_the_ray_the_camera_stands(shift: float) -> None:
    origins, directions = cell_rays(CAMERAS, 5, 6, cell=8)
    network = student()
    moved = network.coordinates(origins + shift * directions, directions, slab=0)
    torch.testing.assert_close(moved, network.coordinates(origins, directions, slab=0), atol=2e-4, rtol=1e-3)


@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(-2, 2), st.floats(-2, 2))
def test_a_ray_through_two_points_of_the_planes_has_their_coordinates(u: float, v: float, s: float, t: float) -> None:
    slab = wide(SLAB)
    uv, st_ = torch.tensor([u, v]), torch.tensor([s, t])
    far, near = (
        slab.centre + torch.cat([point + slab.middles[i], slab.offsets[i : i + 1]]) @ slab.axes
        for i, point in enumerate((uv, st_))
    )
    direction = torch.nn.functional.normalize(far - near, dim=0)
    if direction @ slab.axes[2] < 0.06:  # flatter rays are bent on purpose
        return
    found = LightSlab([slab], "XS").coordinates(
        (near - direction)[None, :, None, None], direction[None, :, None, None], slab=0
    )
    torch.testing.assert_close(100 * found[0, :, 0, 0], torch.cat([uv, st_]), atol=2e-3, rtol=1e-3)


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 1))
def test_coordinates_of_any_ray_are_finite_and_end_at_two(x: float, y: float, z: float) -> None:
    direction = torch.nn.functional.normalize(torch.tensor([x, y, z + 1e-3]), dim=0)[None, :, None, None]
    coordinates = student().coordinates(torch.zeros(1, 3, 1, 1), direction, slab=0)
    assert coordinates.abs().max() <= 2


def test_a_feature_plane_is_looked_up_at_its_own_two_coordinates() -> None:
    """A plane that grows along one axis answers with that coordinate; every pair is tried."""
    network = student()
    ramp = torch.linspace(-MARGIN, MARGIN, 64)
    coordinates = torch.tensor([0.3, -0.7, 0.9, -0.2])[None, :, None, None]
    for along, ramps in (("first", ramp.expand(64, 64)), ("second", ramp[:, None].expand(64, 64))):
        with torch.no_grad():
            network.feature_planes[1].copy_(ramps / 8)
        looked_up = network.features(coordinates, slab=0)[0, 24:48, 0, 0].reshape(6, 4)[:, 0]
        expected = {"first": [0.3, 0.9, 0.3, -0.7, 0.3, -0.7], "second": [-0.7, -0.2, 0.9, -0.2, -0.2, 0.9]}[along]
        torch.testing.assert_close(looked_up, torch.tensor(expected), atol=1e-5, rtol=0)


def test_two_sides_get_a_slab_each_and_every_ray_goes_to_the_one_it_faces() -> None:
    eyes = torch.tensor([[0.0, -4.5, 0], [0.5, -4.5, 0], [0, 4.5, 0], [0.5, 4.5, 0.2]])
    around = pinhole(look_at(eyes, torch.zeros(4, 3)), torch.full((4,), 40.0), width=48, height=40)
    slabs = slabs_of(seen_surfaces(ToyField(), around, rays=2048), sides=2)
    assert float(slabs[0].axes[2] @ slabs[1].axes[2]) < -0.9
    network = LightSlab(slabs, "XS").eval()
    _, directions = cell_rays(around, 10, 12, cell=4)
    facing = network.facing(directions)
    assert torch.equal(facing.sum(1), torch.ones_like(facing.sum(1)))
    assert torch.equal(facing[:2, 0], ~facing[2:, 0])
    alone = [LightSlab([slab], "XS").eval() for slab in slabs]
    for slab, one in enumerate(alone):
        one.load_state_dict(one.state_dict() | {k: v for k, v in network.state_dict().items() if "decoder" in k})
        for i, planes in enumerate(one.feature_planes):
            with torch.no_grad():
                planes.copy_(network.feature_planes[2 * slab + i])
        views = facing[:, slab].flatten(1).all(1).nonzero()[:, 0]
        assert len(views) == 2
        torch.testing.assert_close(network(around[views], 40, 48), one(around[views], 40, 48))


def test_more_sides_than_there_are_and_rays_that_go_every_way_are_refused() -> None:
    with pytest.raises(LightFieldError, match="do not come from 7 sides; ask for fewer"):
        slabs_of(SEEN[torch.arange(3)], sides=7)
    opposite = SeenSurfaces(
        SEEN.origins.repeat(2, 1), torch.cat([SEEN.directions, -SEEN.directions]), SEEN.depth.repeat(2)
    )
    with pytest.raises(LightFieldError, match=r"no common direction .* ask for more sides"):
        slab_through(opposite)


@pytest.mark.row("S9")
@pytest.mark.parametrize("cell", [8, 4, 2])
@pytest.mark.parametrize("size", [(48, 40), (61, 43)])
def test_one_pass_gives_images_of_any_size(cell: int, size: tuple[int, int]) -> None:
    width, height = size
    network = student(cell=cell)
    assert isinstance(network, LightField)
    images = network(CAMERAS, height, width)
    assert images.shape == (6, height, width, 3)
    assert images.min() >= 0
    assert images.max() <= 1
    assert f"x{cell}" in network.architecture


def test_every_cell_is_drawn_for_itself() -> None:
    network = student()
    whole = network(CAMERAS, 40, 48)
    origins, directions = cell_rays(CAMERAS, 10, 12, cell=4)
    alone = network.from_rays(origins, directions[:, :, 1:2, 2:3]).permute(0, 2, 3, 1)
    torch.testing.assert_close(alone, whole[:, 4:8, 8:12])
    assert network.cells_are_independent


def test_the_seed_makes_the_weights() -> None:
    same, other = student(seed=0), student(seed=1)
    assert torch.equal(student()(CAMERAS, 40, 48), same(CAMERAS, 40, 48))
    assert not torch.equal(other(CAMERAS, 40, 48), same(CAMERAS, 40, 48))


@pytest.mark.parametrize("sides", [1, 2])
def test_the_graph_shows_what_the_network_shows(tmp_path: Path, sides: int) -> None:
    network = student(sides=sides)
    graph = export_onnx(network, tmp_path / "slab.onnx", width=61, height=43)
    types = op_types(graph)
    assert types["GridSample"] == 2 * sides
    assert not types["MatMul"] + types["Gemm"] + types["Einsum"]  # nothing a quantizer would spoil coordinates with
    assert types["Conv"] == 6  # the decoder's
    session = onnxruntime.InferenceSession(graph)
    for i in range(3):
        camera = CAMERAS[i : i + 1].resized(61, 43)
        feeds = {
            "camera_to_world": camera.camera_to_world[0].numpy(),
            "focal": camera.focal[0].numpy(),
            "centre": camera.centre[0].numpy(),
        }
        shown = network(camera, 43, 61).detach().numpy()
        np.testing.assert_allclose(np.asarray(session.run(None, feeds)[0]), shown, atol=2e-5)


def test_unknown_sizes_and_cells_are_refused_with_the_choice() -> None:
    with pytest.raises(LightFieldError, match="'L' is not known; choose one of XS, S, M"):
        LightSlab([SLAB], "L")
    with pytest.raises(LightFieldError, match="cells of 3 are not known; choose one of 8, 4, 2"):
        LightSlab([SLAB], cell=3)


@pytest.mark.parametrize("sides", [1, 2])
def test_a_saved_slab_comes_back_as_it_was(tmp_path: Path, sides: int) -> None:
    network = LightSlab(slabs_of(SEEN, sides=sides), "XS", cell=8, view_size=(64, 48), seed=3).eval()
    again = load_light_field(save_light_field(network, tmp_path / "slab.safetensors"))
    assert (again.architecture, again.view_size) == (network.architecture, (64, 48))
    assert torch.equal(again(CAMERAS, 40, 48), network(CAMERAS, 40, 48))


@pytest.mark.parametrize("change", [{"size": "S"}, {"cell": "3"}, {"view_size": "1"}])
def test_a_header_that_does_not_fit_the_slab_s_weights_is_refused(tmp_path: Path, change: dict[str, str]) -> None:
    path = save_light_field(student(), tmp_path / "slab.safetensors")
    tensors, header = read_tensors(path, kind=LIGHT_SLAB)
    write_tensors(path, tensors, kind=LIGHT_SLAB, header={k: v for k, v in header.items() if k != "format"} | change)
    with pytest.raises(LightFieldError, match=r"slab\.safetensors does not fit its own header"):
        load_light_field(path)


def test_a_slab_learns_what_the_teacher_shows() -> None:
    network = LightSlab([SLAB], "XS", view_size=(48, 40))
    result = distil(
        ToyField(), toy_scene(), student=network, steps=150, views=4, width=48, height=40, progress=False, threads=1
    )
    learned = [record.held_out_psnr or 0.0 for record in result.history]
    assert learned[-1] > 20
    assert learned[-1] > learned[0] + 8
    assert isinstance(result.student, LightSlab)
    before, after = network.feature_planes, result.student.feature_planes
    moved = [(a - b).detach().abs().max() for a, b in zip(before, after, strict=True)]
    assert all(float(8 * step) > 0.05 for step in moved)  # features move a gain's worth, though one rate serves all
