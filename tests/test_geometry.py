"""Meshes, points and depths: a sphere comes out where it is, files say the same to trimesh, errors are true."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

from crowdnerf_lab.cameras import look_at, pinhole, project
from crowdnerf_lab.captures.bundle import concert
from crowdnerf_lab.geometry import (
    GeometryError,
    Mesh,
    PointCloud,
    axial_depth,
    depth_error,
    depth_image,
    east_north_up_to_gltf,
    mesh_of,
    points_of,
    read_depth,
    write_depth,
    write_geometry,
)
from crowdnerf_lab.rays import Rays, image_rays
from crowdnerf_lab.rendering import Rendered, composite
from crowdnerf_lab.scene import Bounds

trimesh = pytest.importorskip("trimesh", reason='no trimesh (pip install "crowdnerf-lab[geometry]")')
pytest.importorskip("skimage", reason='no scikit-image (pip install "crowdnerf-lab[geometry]")')

CENTRE, RADIUS = torch.tensor([0.3, -0.2, 0.1]), 0.8
BOX = Bounds(centre=torch.zeros(3), half_size=torch.tensor([1.5, 1.2, 1.0]))


class Ball(nn.Module):
    """A ball that is red where it faces east and blue where it faces west, and a crumb beside it."""

    def density(self, positions: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n"]:
        ball = RADIUS - torch.linalg.vector_norm(positions - CENTRE, dim=-1)
        crumb = 0.08 - torch.linalg.vector_norm(positions - torch.tensor([-1.2, 0.9, 0.8]), dim=-1)
        return 60 * torch.sigmoid(50 * torch.maximum(ball, crumb))

    def forward(
        self, positions: Float[Tensor, "*n 3"], directions: Float[Tensor, "*n 3"]
    ) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n 3"]]:
        east = (positions[..., 0] > CENTRE[0]).float()
        return self.density(positions), torch.stack([east, torch.full_like(east, 0.5), 1 - east], dim=-1)

    def render(self, rays: Rays) -> Rendered:
        edges = torch.linspace(1.0, 6.0, 257).expand(*rays.batch_shape, 257)
        middle = (edges[..., 1:] + edges[..., :-1]) / 2
        positions = rays.origins[..., None, :] + middle[..., None] * rays.directions[..., None, :]
        density, colour = self(positions, positions)
        return composite(density, colour, edges, torch.zeros(3))


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return mesh_of(Ball(), region=BOX, cells=60, threshold=30.0, smallest_m=0.5)


def camera():
    return pinhole(look_at(torch.tensor([[0.0, -4.0, 0.5]]), CENTRE[None]), torch.tensor([40.0]), width=40, height=32)


def test_the_vertices_lie_on_the_sphere(mesh: Mesh):
    cell = 3.0 / 60
    away = torch.linalg.vector_norm(mesh.vertices - CENTRE, dim=-1)
    assert float((away - RADIUS).abs().max()) < 0.25 * cell


def test_the_mesh_is_closed_faces_outward_and_has_the_sphere_s_volume(mesh: Mesh):
    made = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)
    assert made.is_watertight
    assert made.volume == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=0.03)


def test_a_box_that_cuts_the_surface_is_closed_at_its_faces():
    half = Bounds(centre=CENTRE + torch.tensor([0.0, 0.0, 1.0]), half_size=torch.ones(3))
    cut = mesh_of(Ball(), region=half, cells=40, threshold=30.0)
    made = trimesh.Trimesh(cut.vertices.numpy(), cut.faces.numpy(), process=False)
    assert made.is_watertight
    assert made.volume == pytest.approx(2 / 3 * np.pi * RADIUS**3, rel=0.05)


def test_crumbs_are_dropped_by_their_size(mesh: Mesh):
    everything = mesh_of(Ball(), region=BOX, cells=60, threshold=30.0)
    assert len(everything.vertices) > len(mesh.vertices)
    assert float(mesh.vertices[:, 0].min()) > -0.6
    assert int(mesh.faces.max()) == len(mesh.vertices) - 1


def test_the_default_threshold_ends_half_the_light_in_a_cell():
    coarse, stated = (
        mesh_of(Ball(), region=BOX, cells=30, threshold=threshold) for threshold in (None, np.log(2) / (3.0 / 30))
    )
    torch.testing.assert_close(coarse.vertices, stated.vertices)


def test_colours_are_the_field_s(mesh: Mesh):
    east = mesh.vertices[:, 0] > CENTRE[0] + 0.01
    west = mesh.vertices[:, 0] < CENTRE[0] - 0.01
    assert mesh.colours[east].unique(dim=0).tolist() == [[255, 128, 0]]
    assert mesh.colours[west].unique(dim=0).tolist() == [[0, 128, 255]]


def test_a_box_of_nothing_is_refused():
    nowhere = Bounds(centre=torch.tensor([9.0, 9.0, 9.0]), half_size=torch.ones(3))
    with pytest.raises(GeometryError, match="choose another threshold or region"):
        mesh_of(Ball(), region=nowhere, cells=8)


def test_a_ply_file_keeps_places_faces_and_colours(mesh: Mesh, tmp_path: Path):
    again = trimesh.load(write_geometry(mesh, tmp_path / "ball.ply"), process=False)
    np.testing.assert_allclose(again.vertices, mesh.vertices.numpy(), atol=1e-6)
    np.testing.assert_array_equal(again.faces, mesh.faces.numpy())
    np.testing.assert_array_equal(again.visual.vertex_colors[:, :3], mesh.colours.numpy())


def test_a_glb_file_is_y_up_and_in_linear_colours(mesh: Mesh, tmp_path: Path):
    (again,) = trimesh.load(write_geometry(mesh, tmp_path / "ball.glb"), process=False).geometry.values()
    np.testing.assert_allclose(again.vertices, east_north_up_to_gltf(mesh.vertices).numpy(), atol=1e-6)
    assert again.volume > 0
    # sRGB 128 is 0.216 in linear light.
    assert set(again.visual.vertex_colors[:, 1].tolist()) == {55}


def test_up_is_y_in_gltf_and_the_axes_stay_right_handed():
    turned = east_north_up_to_gltf(torch.eye(3))
    assert turned[2].tolist() == [0, 1, 0]
    assert float(torch.linalg.det(turned)) == 1


@pytest.mark.parametrize("kind", ["ply", "glb"])
def test_point_clouds_come_back(kind: str, tmp_path: Path):
    cloud = PointCloud(
        points=torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), colours=torch.tensor([[255, 0, 0], [0, 255, 0]]).byte()
    )
    again = trimesh.load(write_geometry(cloud, tmp_path / f"cloud.{kind}"))
    found = again if kind == "ply" else next(iter(again.geometry.values()))
    expected = cloud.points if kind == "ply" else east_north_up_to_gltf(cloud.points)
    np.testing.assert_allclose(found.vertices, expected.numpy())
    np.testing.assert_array_equal(found.colors[:, :3], cloud.colours.numpy())


def test_points_lie_on_what_the_cameras_see():
    cloud = points_of(Ball(), camera(), every=1)
    assert len(cloud.points) > 100
    away = torch.linalg.vector_norm(cloud.points - CENTRE, dim=-1)
    assert float((away - RADIUS).abs().median()) < 0.04
    ball = cloud.points[away < 1]
    assert bool((ball[:, 1] < CENTRE[1] + 0.2).all())


def test_other_formats_are_refused(mesh: Mesh, tmp_path: Path):
    with pytest.raises(ValueError, match=r"neither \.ply nor \.glb"):
        write_geometry(mesh, tmp_path / "ball.obj")
    with pytest.raises(ValueError, match=r"neither \.png nor \.npy"):
        write_depth(torch.ones(2, 2), tmp_path / "depth.tiff")


def test_without_the_library_the_error_says_how_to_install_it(
    mesh: Mesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "trimesh", None)
    with pytest.raises(GeometryError, match=r'pip install "crowdnerf-lab\[geometry\]"'):
        write_geometry(mesh, tmp_path / "ball.ply")


def test_axial_depth_is_the_depth_that_projection_gives():
    one = camera()
    depth = torch.full((32, 40), 3.0)
    rays = image_rays(one, 0)
    points = (rays.origins + 3.0 * rays.directions).reshape(-1, 3)
    _, expected = project(one[torch.zeros(len(points), dtype=torch.int64)], points)
    torch.testing.assert_close(axial_depth(depth, one).flatten(), expected)


def test_the_depth_image_of_the_ball_is_that_of_the_sphere():
    one = camera()
    found = depth_image(Ball(), one)
    nearest = torch.linalg.vector_norm(one.positions[0] - CENTRE) - RADIUS
    assert float(found[found > 0].min()) == pytest.approx(float(nearest), abs=0.04)
    assert float(found[0, 0]) == 0


@pytest.mark.parametrize("suffix", ["png", "npy"])
def test_depth_files_come_back(suffix: str, tmp_path: Path):
    depth = torch.tensor([[0.0, 1.2344], [12.0, 65.5]])
    again = read_depth(write_depth(depth, tmp_path / f"depth.{suffix}"))
    torch.testing.assert_close(again, depth, atol=0.0006, rtol=0)


def test_depths_beyond_sixteen_bits_are_unknown_in_a_png(tmp_path: Path):
    again = read_depth(write_depth(torch.tensor([[70.0, -1.0]]), tmp_path / "depth.png"))
    assert again.tolist() == [[0.0, 0.0]]


def test_the_concert_s_true_depths_are_read_in_metres():
    captures = concert()
    view = next(view for view in captures.views if view.depth_file)
    depth = read_depth(captures.path_of(str(view.depth_file)))
    assert depth.shape == (view.height, view.width)
    assert 1 < float(depth[depth > 0].median()) < 60


def test_a_picture_is_no_depth(tmp_path: Path):
    from PIL import Image

    Image.new("RGB", (4, 4)).save(tmp_path / "picture.png")
    with pytest.raises(GeometryError, match="has mode RGB"):
        read_depth(tmp_path / "picture.png")


def test_depth_errors_are_pooled_over_the_pixels_that_both_know():
    truth = torch.tensor([[10.0, 20.0, 0.0, 5.0]])
    found = torch.tensor([[10.2, 22.0, 7.0, 0.0]])
    error = depth_error([found], [truth])
    assert error.median_m == pytest.approx(0.2, abs=1e-5)
    assert error.median_relative == pytest.approx(0.02, abs=1e-6)
    assert error.within_5_percent == 0.5
    assert error.known == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="nothing can be compared"):
        depth_error([torch.zeros(1, 4)], [truth])
