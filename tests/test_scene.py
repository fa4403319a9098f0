"""Scenes: what may be trained on and what is refused, shrinking, and the bounds that fit what the crowd sees."""

import math
from dataclasses import replace

import pytest
import torch

from crowdnerf_lab.cameras import look_at, pinhole
from crowdnerf_lab.scene import PosedScene, SceneError, area_resized, bounds_of, check_trainable, focus_point


def ring(count: int, *, radius: float = 10.0, target=(1.0, 2.0, 3.0)):
    azimuth = torch.linspace(0, math.pi, count)
    eyes = radius * torch.stack([azimuth.cos(), azimuth.sin(), torch.full_like(azimuth, 0.2)], dim=-1)
    poses = look_at(eyes, torch.tensor(target).expand(count, 3))
    return pinhole(poses, torch.full((count,), 20.0), width=12, height=8)


def scene(count: int = 6, *, masked: bool = False) -> PosedScene:
    cameras = ring(count)
    generator = torch.Generator().manual_seed(0)
    images = tuple(torch.randint(0, 255, (8, 12, 3), generator=generator, dtype=torch.uint8) for _ in range(count))
    return PosedScene(
        name="ring",
        image_names=tuple(f"{index}.png" for index in range(count)),
        cameras=cameras,
        images=images,
        masks=tuple(torch.ones(8, 12, dtype=torch.bool) for _ in range(count)) if masked else None,
        bounds=bounds_of(cameras),
        captures=("ring",),
        capture_of_image=torch.zeros(count, dtype=torch.int64),
        time_of_image=torch.zeros(count),
        train=torch.arange(1, count),
        held_out=torch.arange(min(1, count)),
        origin_wgs84=None,
    )


def test_a_sound_scene_may_be_trained_on():
    check_trainable(scene())
    assert len(scene()) == 6


def test_a_scene_without_photos_is_refused():
    with pytest.raises(SceneError, match=r"'ring' has no training photos; add photos"):
        check_trainable(scene().with_split([], [0]))


def test_two_photos_are_refused():
    with pytest.raises(SceneError, match=r"has 2 training photos; .* at least 3 views"):
        check_trainable(scene().with_split([1, 2], [0]))


@pytest.mark.parametrize("value", [math.nan, math.inf, 3.0])
def test_poses_that_are_none_are_refused_by_name(value):
    broken = scene()
    poses = broken.cameras.camera_to_world.clone()
    poses[4, 0, 0] = value
    with pytest.raises(SceneError, match=r"1 photos of scene 'ring' have poses .*\(4\.png\); calibrate them again"):
        check_trainable(replace(broken, cameras=replace(broken.cameras, camera_to_world=poses)))


def test_a_photo_of_another_size_than_its_camera_is_refused_by_name():
    broken = scene()
    images = (*broken.images[:2], torch.zeros(8, 11, 3, dtype=torch.uint8), *broken.images[3:])
    with pytest.raises(SceneError, match=r"2\.png is 11x8 but its camera says 12x8"):
        check_trainable(replace(broken, images=images))


def test_shrinking_averages_what_falls_together():
    image = torch.arange(4 * 6 * 3, dtype=torch.uint8).reshape(4, 6, 3)
    small = area_resized(image, 3, 2)
    assert small.shape == (2, 3, 3)
    expected = image[:2, :2].float().mean((0, 1)).round()
    assert small[0, 0].float().tolist() == expected.tolist()
    assert torch.equal(area_resized(image, 6, 4), image)


def test_a_shrunk_scene_fits_its_cameras_and_keeps_its_split():
    small = scene(masked=True).downscaled(2)
    check_trainable(small)
    assert small.images[0].shape == (4, 6, 3)
    assert small.masks is not None
    assert small.masks[0].shape == (4, 6)
    assert torch.equal(small.train, scene().train)
    assert scene().downscaled(1).images[0].shape == (8, 12, 3)


def test_a_mask_shrinks_to_what_is_free_everywhere():
    masked = scene(masked=True)
    mask = masked.masks[0].clone()
    mask[0, 0] = False
    small = replace(masked, masks=(mask, *masked.masks[1:])).downscaled(2)
    assert not small.masks[0][0, 0]
    assert int((~small.masks[0]).sum()) == 1


def test_shrinking_to_nothing_is_refused():
    with pytest.raises(SceneError, match="shrunk 9 times"):
        scene().downscaled(9)


def test_every_nth_photo_by_name_is_held_out_besides_those_that_were():
    whole = scene().with_split(range(len(scene())), [])
    apart = whole.holding_out(2)
    by_name = sorted(range(len(whole)), key=lambda row: whole.image_names[row])
    assert apart.held_out.tolist() == sorted(by_name[::2])
    assert sorted([*apart.train.tolist(), *apart.held_out.tolist()]) == list(range(len(whole)))
    assert torch.equal(apart.holding_out(0).train, apart.train)
    assert set(apart.held_out.tolist()) < set(apart.holding_out(2).held_out.tolist())


def test_photos_are_read_as_colour_from_0_to_1():
    image = scene().image(2)
    assert image.dtype == torch.float32
    assert torch.equal((image * 255).round().to(torch.uint8), scene().images[2])


def test_the_focus_is_where_the_crowd_looks():
    assert focus_point(ring(8)).tolist() == pytest.approx([1, 2, 3], abs=1e-2)


def test_parallel_cameras_have_a_focus_all_the_same():
    poses = look_at(
        torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]), torch.tensor([[0.0, 9, 0], [1, 9, 0], [2, 9, 0]])
    )
    assert torch.isfinite(focus_point(pinhole(poses, torch.full((3,), 10.0), width=4, height=4))).all()


def test_bounds_hold_the_focus_and_reach_towards_the_cameras():
    bounds = bounds_of(ring(12))
    assert bounds.centre.tolist() == pytest.approx([1, 2, 3], abs=1e-2)
    assert float(bounds.half_size.min()) > 3
    moved = ring(12).positions - bounds.centre
    assert float((moved.abs() <= bounds.half_size * 1.001).all(-1).float().mean()) > 0.6
