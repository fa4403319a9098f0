"""Robust weighting: who stands before one phone loses weight; detail that is only not learned yet keeps it."""

import math

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from crowdnerf_lab.robustness import OutlierMaps, RobustSettings, average_precision, doubt_map
from tests.toy_field import toy_scene

BLOCK = (slice(12, 30), slice(6, 22))
"""Rows and columns of the toy photos that a dark head covers."""


def textured(height: int = 40, width: int = 48, *, seed: int = 0) -> Float[Tensor, "h w 3"]:
    return 0.5 + 0.2 * (torch.rand(height, width, 3, generator=torch.Generator().manual_seed(seed)) - 0.5)


def with_head(picture: Float[Tensor, "h w 3"]) -> Float[Tensor, "h w 3"]:
    covered = picture.clone()
    covered[BLOCK] = 0.05
    return covered


def trained(maps: OutlierMaps, *, steps: int = 60, covered: int | None = 3, rays: int = 400) -> OutlierMaps:
    """Maps after steps in which photo `covered` shows a head and the field's detail is random everywhere."""
    scene = toy_scene()
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        photo = torch.randint(0, len(scene), (rays,), generator=generator)
        row, column = (torch.randint(0, size, (rays,), generator=generator) for size in (40, 48))
        pixel = torch.stack([column, row], dim=-1) + 0.5
        plane = (pixel - scene.cameras.centre[photo]) / scene.cameras.focal[photo]
        truth = 0.5 + 0.2 * (torch.rand(rays, 3, generator=generator) - 0.5)
        inside = (row >= 12) & (row < 30) & (column >= 6) & (column < 22)
        if covered is not None:
            truth[inside & (photo == covered)] = 0.05
        colour = 0.5 + 0.2 * (torch.rand(rays, 3, generator=generator) - 0.5)
        maps.weigh(photo, plane, colour=colour, truth=truth)
    return maps


@pytest.fixture(scope="module")
def maps() -> OutlierMaps:
    return trained(OutlierMaps.of(toy_scene(), RobustSettings(cells=12)))


def test_a_head_before_one_phone_loses_its_weight_and_only_there(maps: OutlierMaps):
    covered = maps.map_of(3)
    assert covered.shape == (40, 48)
    inside = torch.zeros(40, 48, dtype=torch.bool)
    inside[16:26, 10:18] = True
    outside = torch.ones(40, 48, dtype=torch.bool)
    outside[4:38, 0:30] = False
    assert float(covered[inside].max()) < 0.15
    assert float(covered.min()) >= 0.1
    assert float(covered[outside].min()) > 0.6
    assert float(maps.map_of(4).min()) > 0.6


def test_unlearned_detail_weighs_more_than_a_head_with_the_same_error(maps: OutlierMaps):
    """Two rays, equally wrong: one in the head's patch, one where errors swing around zero."""
    scene = toy_scene()
    copy = OutlierMaps.of(scene, maps.settings)
    copy.load_state_dict(maps.state_dict())
    photo = torch.tensor([3, 5])
    plane = (torch.tensor([[14.5, 20.5]]) - scene.cameras.centre[photo]) / scene.cameras.focal[photo]
    colour, truth = torch.full((2, 3), 0.5), torch.full((2, 3), 0.05)
    head, detail = copy.weigh(photo, plane, colour=colour, truth=truth).tolist()
    assert head < 0.2 * detail


def test_maps_are_taken_up_from_a_checkpoint_with_the_same_bits(maps: OutlierMaps):
    before = maps.map_of(3)
    once, again = (OutlierMaps.of(toy_scene(), maps.settings) for _ in range(2))
    for copy in (once, again):
        copy.load_state_dict(maps.state_dict())
    assert torch.equal(once.map_of(3), before)
    after = trained(once, steps=2, covered=None).map_of(3)
    assert not torch.equal(after, before)
    assert torch.equal(trained(again, steps=2, covered=None).map_of(3), after)
    assert torch.equal(maps.map_of(3), before), "the copies share memory with the original"


def test_untouched_maps_trust_everything():
    torch.testing.assert_close(OutlierMaps.of(toy_scene()).map_of(0), torch.ones(40, 48))


def test_doubt_is_a_patch_not_noise_nor_detail():
    field = textured()
    noisy = textured(seed=1)
    doubt = doubt_map(with_head(noisy), field, window=2.0)
    inside = torch.zeros(40, 48, dtype=torch.bool)
    inside[BLOCK] = True
    assert float(doubt[inside].median()) > 1
    assert float(doubt_map(noisy, field, window=2.0).max()) < 0.5
    assert average_precision(doubt, inside) > 0.95


def test_doubt_is_zero_where_photo_and_field_agree_and_needs_equal_sizes():
    field = textured()
    assert float(doubt_map(field, field).max()) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="differ in size"):
        doubt_map(field, field[:-1])


def test_average_precision_of_a_perfect_a_reversed_and_a_known_ranking():
    occluded = torch.tensor([True, False, True, False])
    assert average_precision(torch.tensor([4.0, 1.0, 3.0, 2.0]), occluded) == 1
    assert average_precision(torch.tensor([1.0, 4.0, 2.0, 3.0]), occluded) == pytest.approx((1 / 3 + 2 / 4) / 2)
    with pytest.raises(ValueError, match="no pixel is occluded"):
        average_precision(torch.rand(4), torch.zeros(4, dtype=torch.bool))
    assert math.isclose(average_precision(torch.zeros(4), torch.ones(4, dtype=torch.bool)), 1)
