"""Rays of an image: one a pixel, of unit length, from the camera's centre, with what was asked for along them."""

import pytest
import torch

from crowdnerf_lab.cameras import concatenated, look_at, pinhole, project
from crowdnerf_lab.rays import image_rays, rays_through


def two_cameras():
    eyes = torch.tensor([[0.0, -10.0, 2.0], [4.0, -8.0, 1.0]])
    poses = look_at(eyes, torch.zeros(2, 3))
    first = pinhole(poses[:1], torch.tensor([20.0]), width=16, height=12)
    return concatenated([first, pinhole(poses[1:], torch.tensor([15.0]), width=12, height=16)])


def test_an_images_rays_have_its_shape_and_come_from_its_camera():
    cameras = two_cameras()
    rays = image_rays(cameras, 1, near=0.5, far=40.0, time=3.0)
    assert rays.batch_shape == (16, 12)
    assert torch.allclose(rays.directions.norm(dim=-1), torch.ones(16, 12))
    assert torch.equal(rays.origins, cameras.positions[1].expand(16, 12, 3))
    assert (rays.near.unique(), rays.far.unique(), rays.time.unique()) == (0.5, 40.0, 3.0)
    assert rays.camera_index.unique().tolist() == [1]


def test_rays_project_back_to_their_pixel_centres():
    cameras = two_cameras()
    rays = image_rays(cameras, 0)
    pixel, _ = project(cameras[0], rays.origins[3, 7] + 6 * rays.directions[3, 7])
    assert pixel.tolist() == pytest.approx([7.5, 3.5], abs=1e-4)


def test_each_pixel_takes_its_own_camera():
    cameras = two_cameras()
    index = torch.tensor([1, 0, 1])
    rays = rays_through(cameras, index, torch.tensor([[6.0, 8.0], [8.0, 6.0], [1.0, 1.0]]))
    assert torch.equal(rays.origins, cameras.positions[index])
    assert torch.allclose(rays.directions[:2], cameras.forward[index[:2]], atol=1e-6)
    assert float(rays.near.max()) == 0
    assert torch.isinf(rays.far).all()


def test_flattening_and_indexing_keep_the_order():
    rays = image_rays(two_cameras(), 0)
    flat = rays.flattened()
    assert flat.batch_shape == (12 * 16,)
    assert torch.equal(flat.directions[16 + 3], rays.directions[1, 3])
    some = flat[torch.tensor([5, 2])]
    assert torch.equal(some.directions, flat.directions[[5, 2]])
    assert torch.equal(some.camera_index, flat.camera_index[[5, 2]])
