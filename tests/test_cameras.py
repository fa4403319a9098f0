"""Cameras: pixels to rays and back, lenses, sizes, axes; pycolmap as the oracle of projection."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crowdnerf_lab.cameras import (
    Cameras,
    concatenated,
    distorted,
    focal_from_35mm,
    focal_from_angle,
    horizontal_field_of_view,
    invalid_poses,
    look_at,
    pinhole,
    pixel_grid,
    plane_points,
    project,
    rotation_angle,
    undistorted,
)
from crowdnerf_lab.rays import rays_through

PHONE_LENS = (0.0578, -0.0805, -0.00098, 0.00016)
"""k1, k2, p1, p2 of a real phone's main camera."""


def camera(*, distortion=(0.0, 0.0, 0.0, 0.0), seed: int = 0) -> Cameras:
    generator = torch.Generator().manual_seed(seed)
    eye = 5 * torch.randn(1, 3, generator=generator, dtype=torch.float64)
    return Cameras(
        camera_to_world=look_at(eye, torch.randn(1, 3, generator=generator, dtype=torch.float64)),
        focal=torch.tensor([[210.0, 190.0]], dtype=torch.float64),
        centre=torch.tensor([[100.0, 70.0]], dtype=torch.float64),
        width=torch.tensor([200]),
        height=torch.tensor([150]),
        distortion=torch.tensor([distortion], dtype=torch.float64),
    )


pixels = st.tuples(st.floats(0, 200), st.floats(0, 150))


@given(pixels, st.floats(0.1, 50), st.integers(0, 5), st.sampled_from([(0.0,) * 4, PHONE_LENS]))
def test_a_point_on_a_pixels_ray_projects_onto_the_pixel(pixel, distance, seed, distortion):
    cameras = camera(distortion=distortion, seed=seed)
    pixel = torch.tensor([pixel], dtype=torch.float64)
    rays = rays_through(cameras, torch.zeros(1, dtype=torch.int64), pixel)
    found, depth = project(cameras, rays.origins + distance * rays.directions)
    assert torch.allclose(found, pixel, atol=1e-4)
    assert 0 < float(depth) <= distance * (1 + 1e-9)


@given(st.tuples(st.floats(-0.7, 0.7), st.floats(-0.7, 0.7)))
def test_undistortion_inverts_distortion(plane):
    plane = torch.tensor([plane], dtype=torch.float64)
    lens = torch.tensor([PHONE_LENS], dtype=torch.float64)
    assert torch.allclose(undistorted(distorted(plane, lens), lens), plane, atol=1e-6)
    assert torch.allclose(distorted(undistorted(plane, lens), lens), plane, atol=1e-6)


def test_an_ideal_lens_changes_nothing_and_the_axis_is_fixed():
    plane = torch.tensor([[0.3, -0.2]])
    assert torch.equal(distorted(plane, torch.zeros(1, 4)), plane)
    assert torch.equal(distorted(torch.zeros(1, 2), torch.tensor([PHONE_LENS])), torch.zeros(1, 2))


@pytest.mark.colmap
@given(st.integers(0, 20), st.tuples(st.floats(-0.6, 0.6), st.floats(-0.6, 0.6)), st.floats(0.5, 30))
def test_projection_agrees_with_pycolmap(seed, plane, depth):
    import pycolmap

    cameras = camera(distortion=PHONE_LENS, seed=seed)
    local = torch.tensor([plane[0] * depth, plane[1] * depth, depth], dtype=torch.float64)
    rotation, position = cameras.camera_to_world[0, :, :3], cameras.positions[0]
    point = rotation @ local + position
    oracle = pycolmap.Camera(model="OPENCV", width=200, height=150, params=[210, 190, 100, 70, *PHONE_LENS])
    from_world = pycolmap.Rigid3d(pycolmap.Rotation3d(rotation.T.numpy()), (-rotation.T @ position).numpy())
    expected = oracle.img_from_cam((from_world * point.numpy())[None])
    found, found_depth = project(cameras, point[None])
    assert torch.allclose(found, torch.from_numpy(expected), atol=1e-6)
    assert float(found_depth) == pytest.approx(depth)


def test_axes_are_right_down_forward():
    pose = look_at(torch.tensor([[0.0, -10.0, 2.0]]), torch.tensor([[0.0, 0.0, 2.0]]))
    cameras = pinhole(pose, torch.tensor([100.0]), width=200, height=100)
    centre, depth = project(cameras, torch.tensor([[0.0, 0.0, 2.0]]))
    assert centre[0].tolist() == pytest.approx([100, 50])
    assert float(depth) == pytest.approx(10)
    east, _ = project(cameras, torch.tensor([[1.0, 0.0, 2.0]]))
    above, _ = project(cameras, torch.tensor([[0.0, 0.0, 3.0]]))
    assert float(east[0, 0]) == pytest.approx(110)
    assert float(above[0, 1]) == pytest.approx(40)
    assert cameras.forward[0].tolist() == pytest.approx([0, 1, 0])
    assert cameras.positions[0].tolist() == pytest.approx([0, -10, 2])
    _, behind = project(cameras, torch.tensor([[0.0, -20.0, 2.0]]))
    assert float(behind) < 0


@given(st.integers(0, 50))
def test_cameras_that_look_at_something_have_poses(seed):
    assert not invalid_poses(camera(seed=seed).camera_to_world).any()


def test_poses_that_are_none_are_told():
    good = look_at(torch.tensor([[1.0, 2.0, 3.0]]), torch.zeros(1, 3)).repeat(6, 1, 1)
    good[1, 0, 3] = math.nan
    good[2, 1, 1] = math.inf
    good[3, :, :3] *= 1.01
    good[4, :, 0] *= -1
    good[5, 0, 0] += 1e-5
    assert invalid_poses(good).tolist() == [False, True, True, True, True, False]


def test_resizing_keeps_the_field_of_view():
    cameras = camera(distortion=PHONE_LENS)
    small = cameras.resized(100, 50)
    assert torch.allclose(horizontal_field_of_view(small), horizontal_field_of_view(cameras))
    point = torch.tensor([[0.1, -0.3, 0.2]], dtype=torch.float64)
    scale = torch.tensor([100 / 200, 50 / 150], dtype=torch.float64)
    assert torch.allclose(project(small, point)[0], project(cameras, point)[0] * scale)


def test_shrinking_sizes_that_do_not_divide_keeps_the_field_of_view():
    small = camera().downscaled(7)
    assert (int(small.width), int(small.height)) == (28, 21)
    assert torch.allclose(horizontal_field_of_view(small), horizontal_field_of_view(camera()))
    assert torch.allclose(small.centre / torch.tensor([28, 21]), camera().centre / torch.tensor([200, 150]))


def test_batches_are_joined_and_taken_apart_in_order():
    joined = concatenated([camera(seed=seed) for seed in range(4)])
    assert len(joined) == 4
    assert torch.equal(joined[2].camera_to_world, camera(seed=2).camera_to_world[0])
    assert torch.equal(joined[1:3].camera_to_world[0], camera(seed=1).camera_to_world[0])
    assert torch.equal(joined[torch.tensor([3])].focal, camera().focal)


def test_pixel_centres_lie_at_half_steps():
    grid = pixel_grid(3, 2)
    assert grid[0, 0].tolist() == [0.5, 0.5]
    assert grid[1, 2].tolist() == [2.5, 1.5]
    cameras = pinhole(torch.eye(3, 4)[None], torch.tensor([10.0]), width=3, height=2)
    middle = plane_points(cameras, torch.zeros(1, dtype=torch.int64), torch.tensor([[1.5, 1.0]]))
    assert middle.tolist() == [[0, 0]]


def test_focal_lengths_from_what_phones_and_files_say():
    assert focal_from_35mm(36.0, 4000, 3000) == pytest.approx(4000)
    assert focal_from_35mm(27.0, 3000, 4000) == pytest.approx(3000)
    assert focal_from_angle(math.pi / 2, 800) == pytest.approx(400)
    cameras = pinhole(torch.eye(3, 4)[None], torch.tensor([focal_from_angle(1.2, 640)]), width=640, height=480)
    assert float(horizontal_field_of_view(cameras)) == pytest.approx(1.2)


@given(st.floats(0, math.pi))
def test_the_angle_between_rotations_is_the_turn(angle):
    turn = torch.tensor(
        [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]], dtype=torch.float64
    )
    assert float(rotation_angle(torch.eye(3, dtype=torch.float64), turn)) == pytest.approx(angle, abs=1e-7)
