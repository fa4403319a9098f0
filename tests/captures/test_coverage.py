"""What photos show of a scene: matter hides what is behind it, and the view to ask for is from where nobody stood."""

import math
from dataclasses import replace

import pytest
import torch

from crowdnerf_lab.cameras import concatenated, look_at, pinhole
from crowdnerf_lab.captures.coverage import (
    Coverage,
    CoverageSettings,
    coverage,
    requests,
    shown_by,
    standpoints_of,
)
from crowdnerf_lab.scene import Bounds, PosedScene
from tests.toy_field import ToyField, toy_cameras, toy_scene

BOX = Bounds(centre=torch.zeros(3), half_size=torch.tensor([2.4, 1.8, 1.2]))


def scene_of(cameras) -> PosedScene:
    photos = len(cameras)
    return replace(
        toy_scene(8),
        cameras=cameras,
        image_names=tuple(str(i) for i in range(photos)),
        images=tuple(
            torch.zeros(int(h), int(w), 3, dtype=torch.uint8)
            for w, h in zip(cameras.width, cameras.height, strict=True)
        ),
        train=torch.arange(photos),
        held_out=torch.zeros(0, dtype=torch.int64),
    )


def ring(angles: list[float]):
    """Cameras 4.5 m from the middle, at these angles (radians) from the toy crowd's own middle."""
    turn = torch.tensor(angles)
    eyes = 4.5 * torch.stack([turn.sin(), -turn.cos(), torch.zeros_like(turn)], dim=-1)
    return pinhole(look_at(eyes, torch.zeros(len(angles), 3)), torch.full((len(angles),), 40.0), width=48, height=40)


def test_a_photo_shows_what_is_before_a_ball_and_not_what_is_behind_it_or_outside_the_picture():
    camera = ring([0.0])
    red = torch.tensor([-1.2, 0.0, 0.0])
    towards = torch.nn.functional.normalize(red - camera.positions[0], dim=0)
    points = torch.stack(
        [red - 1.5 * towards, red + 1.8 * towards, torch.tensor([40.0, 0.0, 0.0]), camera.positions[0] - towards]
    )
    assert shown_by(ToyField(), camera, points, slack=0.1).tolist() == [True, False, False, False]


def test_cells_before_the_balls_are_seen_by_all_and_cells_behind_them_by_fewer():
    scene = toy_scene(8)
    covered = coverage(ToyField(), scene, region=BOX, cells=16)
    assert covered.photos.shape == (16, 12, 8)
    front, back = covered.photos[:, :3].float().mean(), covered.photos[:, -3:].float().mean()
    assert front > 0.8 * len(scene.train)
    assert back < front - 1
    assert bool(covered.matter.any())
    assert covered.centres[0, 0, 0] == pytest.approx([-2.25, -1.65, -1.05])


def test_the_spread_is_the_angle_between_the_directions():
    apart = math.radians(20)
    covered = coverage(ToyField(), scene_of(ring([-apart / 2, apart / 2])), region=BOX, cells=16)
    middle = covered.spread[7, 2, 4]
    assert covered.photos[7, 2, 4] == 2
    # The RMS angle of two directions to their mean is half the angle between them, a little more for a cell nearer.
    assert math.radians(9) < float(middle) < math.radians(16)
    alone = coverage(ToyField(), scene_of(ring([0.0])), region=BOX, cells=16)
    assert float(alone.spread.max()) == 0


def test_need_falls_with_photos_and_with_their_spread():
    def need(photos: int, spread: float) -> float:
        return (
            Coverage(
                photos=torch.tensor([[[photos, 9]]]),
                spread=torch.tensor([[[spread, 1.0]]]),
                matter=torch.tensor([[[True, False]]]),
                low=torch.zeros(3),
                size=torch.ones(3),
                settings=CoverageSettings(photos=3, spread=0.1),
            )
            .need[0, 0, 0]
            .item()
        )

    values = [need(0, 0.0), need(1, 0.0), need(3, 0.01), need(3, 0.06), need(3, 0.1)]
    assert values == sorted(values, reverse=True)
    assert values[0] == 1
    assert values[-1] == 0


def test_the_first_photo_asked_for_is_from_where_nobody_stood_and_it_helps():
    field, scene = ToyField(), toy_scene(8)
    covered = coverage(field, scene, region=BOX, cells=14)
    around = ring([i * math.pi / 6 for i in range(12)])
    first, *_ = requests(field, scene, covered, count=2, standpoints=around.positions)
    assert first.position[1] > 1
    assert 0 < first.unseen <= first.gain
    assert f"{first.unseen:.1f} m3 that no photo shows" in first.why

    eye, target = torch.tensor([first.position]), torch.tensor([first.target])
    taken = pinhole(look_at(eye, target), torch.tensor([40.0]), width=48, height=36)
    more = scene_of(concatenated([scene.cameras[scene.train], taken]))
    assert coverage(field, more, region=BOX, cells=14).unseen.sum() < covered.unseen.sum()


def test_nothing_is_asked_for_when_all_is_seen():
    field, scene = ToyField(), toy_scene(8)
    covered = coverage(field, scene, region=BOX, cells=8)
    complete = replace(covered, photos=torch.full_like(covered.photos, 9), spread=torch.ones_like(covered.spread))
    assert requests(field, scene, complete, standpoints=toy_cameras(4).positions) == ()
    assert requests(field, scene, covered, standpoints=torch.zeros(0, 3)) == ()


def test_what_does_not_border_on_air_that_is_seen_is_no_gap():
    photos = torch.zeros(1, 1, 5, dtype=torch.int64)
    photos[..., 3:] = 9
    covered = Coverage(
        photos=photos,
        spread=torch.ones(1, 1, 5),
        matter=torch.tensor([[[False, True, True, False, False]]]),
        low=torch.zeros(3),
        size=torch.ones(3),
        settings=CoverageSettings(),
    )
    assert covered.need.flatten().tolist() == [0, 0, 1, 0, 0]


def test_standpoints_are_among_the_crowd():
    scene = toy_scene(12)
    standing = standpoints_of(scene, spacing=0.8)
    cameras = scene.cameras.positions[scene.train]
    assert len(standing) > 3
    assert float(torch.cdist(standing[:, :2], cameras[:, :2]).min(1).values.max()) <= 1.2 + 1e-5
    assert set(standing[:, 2].tolist()) <= set(cameras[:, 2].tolist())
