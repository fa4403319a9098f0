"""Fitting an arbitrary frame to the world: exact without noise, unmoved by a few wrong cameras, fair to noise."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crowdnerf_lab.cameras import Cameras, invalid_poses, look_at, pinhole, project, rotation_angle
from crowdnerf_lab.captures.poses.georegistration import (
    Similarity,
    georegistered,
    huber_weights,
    mean_rotation,
    nearest_rotation,
    similarity_between,
)
from crowdnerf_lab.captures.poses.structure_from_motion import Motion, MotionError


def rotation_about(axis: torch.Tensor, angle: float) -> torch.Tensor:
    x, y, z = torch.nn.functional.normalize(axis.double(), dim=0).tolist()
    skew = torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]], dtype=torch.float64)
    return torch.matrix_exp(angle * skew)


def crowd(count: int = 20) -> torch.Tensor:
    """Cameras on an arc of 120 degrees that look at its centre."""
    azimuth = torch.linspace(-math.pi / 3, math.pi / 3, count, dtype=torch.float64)
    eyes = torch.stack([12 * azimuth.sin(), -12 * azimuth.cos(), 1.7 + 0.3 * (5 * azimuth).cos()], dim=-1)
    return look_at(eyes, torch.zeros(count, 3, dtype=torch.float64))


def known_similarity(scale: float = 3.5, angle: float = 1.0) -> Similarity:
    rotation = rotation_about(torch.tensor([1.0, 2.0, -1.0]), angle)
    return Similarity(scale=scale, rotation=rotation, translation=torch.tensor([4.0, -2.0, 30.0], dtype=torch.float64))


@given(st.floats(0.01, 100), st.floats(-3, 3))
def test_without_noise_the_similarity_is_found_exactly(scale, angle):
    expected = known_similarity(scale, angle)
    model = crowd()
    found = similarity_between(model, expected.of_poses(model))
    assert found.scale == pytest.approx(scale, rel=1e-9)
    assert torch.allclose(found.rotation, expected.rotation, atol=1e-9)
    assert torch.allclose(found.translation, expected.translation, atol=1e-7 * max(1.0, scale))


def test_a_few_wrong_cameras_do_not_pull_the_world():
    model = crowd()
    expected = known_similarity()
    world = expected.of_poses(model)
    for wrong in (2, 9, 15):
        world[wrong, :, :3] = rotation_about(torch.tensor([0.0, 1.0, 0.3]), 2.5) @ world[wrong, :, :3]
        world[wrong, :, 3] += torch.tensor([40.0, -25.0, 10.0])
    found = similarity_between(model, world)
    assert float(rotation_angle(found.rotation, expected.rotation)) < math.radians(0.5)
    assert found.scale == pytest.approx(expected.scale, rel=0.01)
    assert float((found.of_points(model[..., 3]) - expected.of_poses(model)[..., 3]).norm(dim=-1).max()) < 0.5


def test_attitudes_settle_the_tilt_that_positions_on_an_arc_leave_open():
    generator = torch.Generator().manual_seed(0)
    model = crowd(16)
    expected = known_similarity()
    world = expected.of_poses(model)
    world[..., 3] += 3 * torch.randn(16, 3, generator=generator, dtype=torch.float64)
    for row in range(16):
        turn = math.radians(6) * float(torch.randn((), generator=generator))
        world[row, :, :3] = rotation_about(torch.tensor([0.0, 0.0, 1.0]), turn) @ world[row, :, :3]
    found = similarity_between(model, world)
    assert math.degrees(float(rotation_angle(found.rotation, expected.rotation))) < 4
    assert found.scale == pytest.approx(expected.scale, rel=0.25)


def test_moved_cameras_see_moved_points_where_they_saw_them():
    similarity, poses = known_similarity(), crowd(3)
    moved = similarity.of_poses(poses)
    assert not invalid_poses(moved).any()
    point = torch.tensor([0.3, 0.2, -0.1], dtype=torch.float64)
    focal = torch.full((3,), 50.0, dtype=torch.float64)
    before, depth = project(pinhole(poses, focal, width=64, height=48), point.expand(3, 3))
    moved_point = similarity.of_points(point[None]).expand(3, 3)
    after, moved_depth = project(pinhole(moved, focal, width=64, height=48), moved_point)
    assert torch.allclose(before, after, atol=1e-9)
    assert torch.allclose(moved_depth, similarity.scale * depth)


@given(st.floats(-math.pi, math.pi), st.floats(0.1, 9))
def test_the_nearest_rotation_to_a_scaled_rotation_is_the_rotation(angle, scale):
    rotation = rotation_about(torch.tensor([1.0, 0.0, 2.0]), angle)
    assert torch.allclose(nearest_rotation(scale * rotation), rotation, atol=1e-9)


def test_the_nearest_rotation_is_never_a_mirror():
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0]))
    assert float(torch.linalg.det(nearest_rotation(mirror))) == pytest.approx(1)


def test_the_mean_of_turns_to_either_side_lies_between_them():
    axis = torch.tensor([0.0, 0.0, 1.0])
    turns = torch.stack([rotation_about(axis, angle) for angle in (-0.3, -0.1, 0.1, 0.3)])
    assert torch.allclose(mean_rotation(turns), torch.eye(3, dtype=torch.float64), atol=1e-9)


def test_ordinary_residuals_count_whole_and_large_ones_by_their_sign():
    residuals = torch.tensor([1.0, 1.0, 1.0, 1.0, 1000.0], dtype=torch.float64)
    weights = huber_weights(residuals)
    assert weights[:4].tolist() == [1.0] * 4
    assert float(weights[4] * residuals[4]) == pytest.approx(3 * 1.4826)


def motion(poses: torch.Tensor) -> Motion:
    cameras: Cameras = pinhole(poses.float(), torch.full((len(poses),), 50.0), width=64, height=48)
    return Motion(
        rows=torch.arange(len(poses)),
        cameras=cameras,
        points=torch.zeros(1, 3),
        colours=torch.zeros(1, 3, dtype=torch.uint8),
        reprojection_px=0.5,
        errors_px=torch.full((len(poses),), 0.5),
        seen=torch.full((len(poses),), 100),
    )


def test_points_move_with_their_cameras():
    expected = known_similarity()
    model = crowd(5)
    targets = [*expected.of_poses(model)[:4].tolist(), None]
    moved = georegistered(motion(model), targets)
    assert torch.allclose(moved.cameras.positions.double(), expected.of_poses(model)[..., 3], atol=1e-3)
    assert torch.allclose(moved.points[0].double(), expected.translation, atol=1e-3)


def test_too_few_known_poses_are_refused():
    model = crowd(5)
    targets = [*model[:2].tolist(), None, None, None]
    with pytest.raises(MotionError, match="2 of 5 posed photos have a pose"):
        georegistered(motion(model), targets)


def test_poses_that_contradict_the_model_are_refused():
    model = crowd(5)
    mirrored = model.clone()
    mirrored[..., 3] = -mirrored[..., 3]
    with pytest.raises(MotionError, match="contradict"):
        georegistered(motion(model), mirrored.tolist())
