"""The box of an object from its silhouettes: a ball is found where it is, and one bad cut-out does not matter."""

import math

import torch

from crowdnerf_lab.cameras import Cameras, look_at, pinhole
from crowdnerf_lab.captures.silhouettes import bounds_of_silhouettes
from crowdnerf_lab.rays import image_rays

CENTRE, RADIUS = torch.tensor([0.3, -0.2, 0.1]), 0.5


def ring(count: int) -> Cameras:
    """Cameras at a distance of 4, high and low, that look at the origin."""
    azimuth = 2 * math.pi * torch.arange(count) / count
    lift = torch.where(torch.arange(count) % 2 == 0, 0.2, 1.1)
    eyes = 4 * torch.stack([lift.cos() * azimuth.cos(), lift.cos() * azimuth.sin(), lift.sin()], dim=-1)
    return pinhole(look_at(eyes, torch.zeros(count, 3)), torch.full((count,), 56.0), width=40, height=40)


def silhouettes_of_the_ball(cameras: Cameras) -> list[torch.Tensor]:
    found = []
    for index in range(len(cameras)):
        rays = image_rays(cameras, index)
        towards = CENTRE - rays.origins
        along = (towards * rays.directions).sum(-1, keepdim=True)
        found.append(torch.linalg.vector_norm(towards - along * rays.directions, dim=-1) < RADIUS)
    return found


def test_a_ball_is_boxed_tightly() -> None:
    cameras = ring(16)
    bounds = bounds_of_silhouettes(cameras, silhouettes_of_the_ball(cameras))
    assert bounds is not None
    low, high = bounds.centre - bounds.half_size, bounds.centre + bounds.half_size
    assert (low < CENTRE - RADIUS + 0.02).all()
    assert (high > CENTRE + RADIUS - 0.02).all()
    assert (bounds.half_size < 1.35 * RADIUS).all()


def test_one_bad_cut_out_does_not_matter_and_none_that_agree_give_no_box() -> None:
    cameras = ring(24)
    masks = silhouettes_of_the_ball(cameras)
    whole = bounds_of_silhouettes(cameras, masks)
    masks[5] = torch.zeros_like(masks[5])
    spoiled = bounds_of_silhouettes(cameras, masks)
    assert whole is not None
    assert spoiled is not None
    torch.testing.assert_close(spoiled.half_size, whole.half_size, atol=0.1, rtol=0)
    assert bounds_of_silhouettes(cameras, [torch.zeros_like(mask) for mask in masks]) is None
