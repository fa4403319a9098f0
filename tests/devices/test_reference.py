"""What models are measured against: held-out views through ideal lenses, and the poses at which int8 is calibrated."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from crowdnerf_lab.devices.reference import calibration_feeds, reference_of, through_ideal_lens, write_probes
from crowdnerf_lab.metrics import psnr
from crowdnerf_lab.rendering import render_view
from tests.toy_artefacts import random_grid, small_scene
from tests.toy_field import ToyField


def test_reference_views_are_spread_over_the_held_out_ones() -> None:
    scene = small_scene().with_split([0, 1, 2], range(3, 12))
    reference = reference_of(random_grid(), scene, views=3)
    assert torch.equal(reference.cameras.positions, scene.cameras.positions[[3, 7, 11]])
    assert len(reference.photos) == len(reference.teacher) == 3


def test_photos_of_other_lenses_are_resampled_to_an_ideal_one() -> None:
    scene, field = small_scene(), ToyField()
    bent = torch.tensor([-0.15, 0.02, 0.004, -0.003]).expand(12, 4)
    through_lens = replace(scene.cameras, distortion=bent)
    for i in (0, 5):
        ideal, photo = render_view(field, scene.cameras, i).colour, render_view(field, through_lens, i).colour
        inner = (slice(4, -4), slice(4, -4))  # what the lens did not see cannot be restored
        resampled = through_ideal_lens(photo, through_lens, i)
        assert psnr(resampled[inner], ideal[inner]) > psnr(photo[inner], ideal[inner]) + 6
        assert torch.equal(through_ideal_lens(photo, scene.cameras, i), photo)


def test_calibration_sees_captured_poses_at_the_model_s_size() -> None:
    scene = small_scene()
    feeds = calibration_feeds(scene, width=96, height=80)
    assert len(feeds) == len(scene.train)
    assert feeds[0]["focal"].tolist() == pytest.approx((2 * scene.cameras.focal[0]).tolist())


def test_probes_are_held_out_views_as_the_teacher_shows_them(tmp_path: Path) -> None:
    scene = small_scene()
    probes = write_probes(random_grid(), scene, tmp_path, width=24, height=20)
    poses = torch.tensor([probe.camera_to_world for probe in probes])
    assert torch.allclose(poses, scene.cameras.camera_to_world[scene.held_out[: len(probes)]])
    with Image.open(tmp_path / probes[0].path) as picture:
        assert picture.size == (24, 20)
    unseen = write_probes(random_grid(), scene.with_split(range(12), []), tmp_path, width=24, height=20)
    assert torch.allclose(torch.tensor(unseen[0].camera_to_world), scene.cameras.camera_to_world[0])
