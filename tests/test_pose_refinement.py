"""Poses that follow the pictures: rotations as scipy makes them, a world that stays put, gradients that are true."""

import math
from dataclasses import replace

import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from crowdnerf_lab.cameras import Cameras, project
from crowdnerf_lab.captures.poses.georegistration import Similarity
from crowdnerf_lab.fields.grid_field import PackedSamples
from crowdnerf_lab.kernels import reference
from crowdnerf_lab.pixels import rays_of_pixels
from crowdnerf_lab.pose_refinement import (
    PoseRefinement,
    PoseSettings,
    perturbed,
    pose_errors,
    rotations_of,
    with_ray_gradients,
)
from crowdnerf_lab.rays import Rays
from crowdnerf_lab.rendering import render_view
from crowdnerf_lab.scene import Bounds, bounds_of
from tests.toy_field import ToyField, toy_cameras

PHOTOS = torch.tensor([0, 1, 2, 3, 5, 6, 7])


def refinement(cameras: Cameras, settings: PoseSettings | None = None) -> PoseRefinement:
    return PoseRefinement(cameras, PHOTOS, region=bounds_of(cameras), settings=settings)


def random_motion(refining: PoseRefinement, *, size: float, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        refining.whitened.copy_(size * torch.randn(refining.whitened.shape, generator=generator))


def pixels_of(cameras: Cameras, points: Tensor) -> Tensor:
    """Where each camera sees each point [cameras, points, 2]."""
    return torch.stack([project(cameras[torch.full((len(points),), i)], points)[0] for i in range(len(cameras))])


def moved_by(similarity: Similarity, cameras: Cameras) -> Cameras:
    return replace(cameras, camera_to_world=similarity.of_poses(cameras.camera_to_world))


@pytest.mark.parametrize("size", [0.0, 1e-5, 1e-3, 0.3, 3.0, 3.14159])
def test_rotation_vectors_become_the_matrices_that_scipy_gives(size: float):
    vectors = size * torch.nn.functional.normalize(
        torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=-1
    )
    expected = torch.from_numpy(Rotation.from_rotvec(vectors.numpy()).as_matrix())
    torch.testing.assert_close(rotations_of(vectors), expected, atol=1e-9, rtol=0)


def test_a_rotation_vector_of_zero_has_a_gradient():
    vectors = torch.zeros(1, 3, requires_grad=True)
    rotations_of(vectors)[0, 2, 1].backward()
    torch.testing.assert_close(vectors.grad, torch.tensor([[1.0, 0.0, 0.0]]))


def test_nothing_moves_before_the_first_step():
    cameras = toy_cameras(8)
    torch.testing.assert_close(refinement(cameras).cameras().camera_to_world, cameras.camera_to_world)


def test_only_the_named_photos_move_and_their_poses_stay_poses():
    cameras = toy_cameras(8)
    refining = refinement(cameras)
    random_motion(refining, size=0.05)
    moved = refining.cameras().camera_to_world.detach()
    assert torch.equal(moved[4], cameras.camera_to_world[4])
    assert bool(((moved - cameras.camera_to_world).abs().amax((1, 2)) > 1e-3)[PHOTOS].all())
    rotation = moved[:, :, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(8, 3, 3), atol=1e-5, rtol=0)


def test_a_step_of_one_milliradian_moves_the_picture_by_about_one_milliradian():
    cameras = toy_cameras(8)
    refining = refinement(cameras)
    points = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    seen = pixels_of(cameras[PHOTOS], points)
    for direction in range(6):
        with torch.no_grad():
            refining.whitened.zero_()
            # Alternating signs leave hardly anything in common, which the gauge would take out.
            refining.whitened[:, direction] = 1e-3 * torch.tensor([1.0, -1.0] * 4)[PHOTOS]
        now = pixels_of(refining.cameras()[PHOTOS], points).detach()
        motion = ((now - seen) / cameras.focal[0]).square().sum(-1).mean().sqrt()
        assert 1e-4 < motion < 2e-3, direction


def test_moves_that_all_cameras_make_together_are_taken_out():
    cameras = toy_cameras(8)
    refining = refinement(cameras)
    random_motion(refining, size=0.01)
    before = refining.twists().detach()
    centre = cameras.positions[PHOTOS].mean(0)
    turn, shift, growth = torch.tensor([0.003, -0.002, 0.004]), torch.tensor([0.05, 0.02, -0.03]), 0.02
    apart = cameras.positions[PHOTOS] - centre
    common = torch.cat(
        [turn.expand(7, 3), torch.cross(turn.expand(7, 3), apart, dim=-1) + shift + growth * apart], dim=-1
    )
    with torch.no_grad():
        refining.whitened += torch.linalg.solve(refining.unwhiten, common)
    torch.testing.assert_close(refining.twists().detach(), before, atol=1e-5, rtol=0)


def test_the_pull_grows_with_the_square_of_the_motion():
    refining = refinement(toy_cameras(8), PoseSettings(pull=1e-3))
    assert float(refining.pull().detach()) == 0
    random_motion(refining, size=0.01)
    small = float(refining.pull().detach())
    with torch.no_grad():
        refining.whitened *= 2
    assert float(refining.pull().detach()) == pytest.approx(4 * small, rel=1e-4)


def test_the_rate_is_zero_before_the_start_and_then_falls():
    refining = refinement(toy_cameras(8), PoseSettings(start=0.2, warm=0.1, rate=0.01, rate_end=0.1))
    assert refining.rate(0.1) == 0
    assert refining.rate(0.2) == 0
    assert 0 < refining.rate(0.25) < refining.rate(0.3)
    assert refining.rate(0.6) < refining.rate(0.4)
    assert refining.rate(1.0) == pytest.approx(0.001)


def test_gradients_of_the_samples_positions_are_those_of_finite_differences():
    cameras = toy_cameras(8)
    doubled = Cameras(
        camera_to_world=cameras.camera_to_world.double(),
        focal=cameras.focal.double(),
        centre=cameras.centre.double(),
        width=cameras.width,
        height=cameras.height,
        distortion=cameras.distortion.double(),
    )
    refining = refinement(cameras).double()
    refining.initial = doubled
    random_motion(refining, size=0.01)
    plane = 0.3 * torch.randn(20, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    photo = PHOTOS[torch.arange(20) % 7]
    samples = PackedSamples(
        positions=torch.zeros(60, 3),
        t_mid=torch.linspace(1.0, 9.0, 60),
        t_step=torch.ones(60),
        offsets=torch.arange(0, 61, 3),
    )
    box = Bounds(centre=torch.tensor([0.1, 0.0, -0.1]), half_size=torch.tensor([1.5, 2.0, 1.0]))

    def loss() -> Tensor:
        rays = rays_of_pixels(refining.cameras(), plane, photo, torch.zeros(8))
        placed = with_ray_gradients(samples, rays, centre=box.centre.double(), half_size=box.half_size.double())
        return torch.sin(7 * placed.positions).sum() + (rays.directions[:, 0] ** 2).sum()

    loss().backward()
    gradient = refining.whitened.grad
    assert gradient is not None
    for row, column in [(0, 0), (1, 2), (3, 3), (4, 5), (6, 1)]:
        values = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                refining.whitened[row, column] += step
                values.append(float(loss()))
                refining.whitened[row, column] -= step
        assert float(gradient[row, column]) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4, abs=1e-4)


def test_positions_with_gradients_are_those_that_were_marched():
    cameras = toy_cameras(8)
    bounds = bounds_of(cameras)
    rays = rays_of_pixels(cameras, torch.zeros(8, 2), torch.arange(8), torch.zeros(8))
    ratio = 1.2
    marched = reference.march(
        rays.origins,
        rays.directions,
        torch.full((8,), 0.5),
        torch.full((8,), 20.0),
        torch.full((8,), 0.5),
        ratio,
        20,
        bounds.centre,
        bounds.half_size,
        torch.ones(4, 4, 4, dtype=torch.bool),
        torch.ones(4, 4, 4),
        1.0,
        4,
        2,
    )
    samples = PackedSamples(*marched)
    placed = with_ray_gradients(samples, rays, centre=bounds.centre, half_size=bounds.half_size)
    torch.testing.assert_close(placed.positions, samples.positions)


@pytest.mark.row("S64")
def test_poses_follow_photos_of_a_field_that_is_known():
    """Photos were taken a degree away from where the phones say; the field pulls the cameras to where they stood."""
    field, cameras = ToyField(), toy_cameras(8, width=32, height=28)
    hidden = refinement(cameras)
    random_motion(hidden, size=0.006)
    stood = hidden.cameras()
    stood = replace(stood, camera_to_world=stood.camera_to_world.detach())
    photos = torch.stack([render_view(field, stood, index).colour for index in range(8)])
    before = pose_errors(cameras.camera_to_world[PHOTOS], stood.camera_to_world[PHOTOS])
    assert math.degrees(float(before.rotation.median())) > 0.4

    refining = refinement(cameras, PoseSettings(start=0.0, warm=0.0, rate=2e-3, rate_end=0.02, pull=0.0))
    optimizer, steps = refining.optimizer(), 150
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        drawn = torch.randint(0, 32 * 28, (7, 40), generator=generator)
        photo = PHOTOS[:, None].expand(-1, 40)
        pixels = torch.stack([drawn % 32 + 0.5, drawn // 32 + 0.5], dim=-1).flatten(0, 1)
        plane = (pixels - cameras.centre[0]) / cameras.focal[0]
        rays: Rays = rays_of_pixels(refining.cameras(), plane, photo.flatten(), torch.zeros(8))
        loss = (
            (field.render(rays).colour - photos[photo.flatten()].flatten(1, 2)[torch.arange(280), drawn.flatten()]) ** 2
        ).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = refining.rate(step / steps)
        optimizer.step()
    after = pose_errors(refining.cameras().camera_to_world.detach()[PHOTOS], stood.camera_to_world[PHOTOS])
    assert float(after.rotation.median()) < 0.2 * float(before.rotation.median())
    assert float(after.position.median()) < 0.3 * float(before.position.median())


def test_perturbed_cameras_are_as_far_off_as_was_asked():
    cameras = toy_cameras(8)
    off = perturbed(cameras, PHOTOS, turn=math.radians(1), shift=0.3, seed=1)
    errors = pose_errors(off.camera_to_world, cameras.camera_to_world)
    torch.testing.assert_close(errors.rotation[PHOTOS], torch.full((7,), math.radians(1)).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(errors.position[PHOTOS], torch.full((7,), 0.3).double(), atol=1e-4, rtol=0)
    assert torch.equal(off.camera_to_world[4], cameras.camera_to_world[4])


def test_aligned_errors_know_no_frame():
    cameras = toy_cameras(8)
    similarity = Similarity(
        scale=1.3, rotation=rotations_of(torch.tensor([[0.3, -0.2, 0.5]]))[0], translation=torch.tensor([1.0, 2.0, 3.0])
    )
    elsewhere = moved_by(similarity, cameras)
    assert float(pose_errors(elsewhere.camera_to_world, cameras.camera_to_world).position.median()) > 1
    aligned = pose_errors(elsewhere.camera_to_world, cameras.camera_to_world, aligned=True)
    assert float(aligned.position.max()) < 1e-4
    assert float(aligned.rotation.max()) < 1e-3
