"""Planes across a scene: where rays meet them, and that they lie where there is something to see."""

from dataclasses import replace

import pytest
import torch

from crowdnerf_lab.light_fields.light_field import LightFieldError, cell_rays
from crowdnerf_lab.light_fields.planes import axes_in, meeting_points, planes_across, planes_through, windows_seen
from crowdnerf_lab.scene import bounds_of
from tests.toy_field import ToyField, toy_cameras

CAMERAS = toy_cameras(6)
BOUNDS = bounds_of(CAMERAS)
PLANES = planes_across(CAMERAS, BOUNDS)


def test_meeting_points_lie_on_the_planes_and_on_the_rays() -> None:
    origins, directions = cell_rays(CAMERAS, 5, 6, cell=8)
    met = meeting_points(PLANES, origins, directions)
    height = (met * PLANES.normal[:, None, None]).sum(2)
    torch.testing.assert_close(height, PLANES.offsets[:, None, None].expand_as(height), atol=1e-3, rtol=1e-4)
    from_camera = met + BOUNDS.centre[:, None, None] - origins[:, None]
    across = torch.linalg.cross(from_camera, directions[:, None].expand_as(met), dim=2)
    torch.testing.assert_close(across, torch.zeros_like(across), atol=2e-3, rtol=0)


def test_axes_lie_in_the_planes_at_right_angles() -> None:
    for normal in ([0.0, 1.0, 0.0], [0.6, 0.0, 0.8], [0.0, 0.0, 1.0], [0.0, 0.1, -0.995]):
        planes = replace(PLANES, normal=torch.nn.functional.normalize(torch.tensor(normal), dim=0))
        frame = torch.cat([axes_in(planes), planes.normal[None]])
        torch.testing.assert_close(frame @ frame.T, torch.eye(3), atol=1e-5, rtol=0)


def test_planes_through_a_teacher_lie_where_its_balls_are() -> None:
    """The balls reach about 2.1 m from the origin; the bounds reach further."""
    through = planes_through(ToyField(), CAMERAS, BOUNDS, points=5)
    height = through.offsets + through.bounds.centre @ through.normal
    assert height.diff().min() > 0.1
    torch.testing.assert_close(height.diff(), height.diff().mean().expand(4))
    assert height.abs().max() < 2.2
    assert PLANES.offsets.abs().max() > 1.3 * through.offsets.abs().max()


def test_a_teacher_that_shows_nothing_gets_planes_through_the_bounds() -> None:
    empty = ToyField()
    empty.radii.mul_(0.0).add_(1e-3)
    through = planes_through(empty, CAMERAS, BOUNDS)
    torch.testing.assert_close(through.offsets, PLANES.offsets)


def test_most_rays_meet_the_planes_within_the_windows_seen() -> None:
    windows = windows_seen(PLANES, CAMERAS)
    met = meeting_points(PLANES, *cell_rays(CAMERAS, 10, 12, cell=4))
    places = torch.einsum("nkxrc,ax->nkarc", met, axes_in(PLANES))
    inside = (places - windows[:, 0, :, None, None]).abs() <= windows[:, 1, :, None, None]
    assert 0.85 < inside.float().mean() < 0.99


def test_cameras_that_look_every_way_have_no_planes() -> None:
    around = toy_cameras(4)
    turned = around.camera_to_world.clone()
    turned[2:, :, :3] = turned[:2, :, :3] * torch.tensor([-1.0, 1.0, -1.0])
    with pytest.raises(LightFieldError, match="no common viewing direction"):
        planes_across(replace(around, camera_to_world=turned), BOUNDS)
