"""Measuring: frames are counted and timed one by one, and quality is what the metrics say of the same pictures."""

import time

import numpy as np
import pytest
import torch

from crowdnerf_lab.catalogue.remeasurement import WARM_UP_FRAMES, machine
from crowdnerf_lab.devices.measure import (
    MOST_DB,
    as_colour,
    intrinsics,
    measure_latency,
    measure_quality,
    pictures_of,
)
from crowdnerf_lab.metrics import quality
from crowdnerf_lab.network.ue import LocalModel
from tests.toy_artefacts import small_scene

SCENE = small_scene()
CAMERAS = SCENE.cameras[SCENE.held_out]
PHOTOS = [SCENE.image(int(row)) for row in SCENE.held_out]


def model_of(draw) -> LocalModel:
    return LocalModel(width=24, height=20, threads=1, runtime="test 1", draw=draw)


def grey(pose, focal, centre):
    return np.full((20, 24, 3), 0.5, np.float32)


def test_latency_is_the_median_and_tail_of_the_frames_after_warm_up() -> None:
    calls = []

    def slow_at_first_and_at_times(pose, focal, centre):
        calls.append(tuple(focal))
        late = len(calls) <= WARM_UP_FRAMES or len(calls) == WARM_UP_FRAMES + 4
        time.sleep(0.08 if late else 0.005)
        return grey(pose, focal, centre)

    latency = measure_latency(model_of(slow_at_first_and_at_times), CAMERAS, frames=9)
    assert len(calls) == WARM_UP_FRAMES + 9
    assert 5 <= latency.median_ms < 60
    assert latency.p95_ms > latency.median_ms + 10
    assert (latency.frames, latency.threads, latency.runtime) == (9, 1, "test 1")
    assert latency.machine == machine()
    assert len(set(calls)) == 1  # at the model's own size: the toy cameras are alike
    assert calls[0] == pytest.approx((CAMERAS.focal[0] / 2).tolist())


def test_intrinsics_keep_the_field_of_view() -> None:
    _, focal, centre = intrinsics(CAMERAS, 0, width=2 * 48, height=40)
    assert focal == pytest.approx((2 * float(CAMERAS.focal[0, 0]), float(CAMERAS.focal[0, 1])))
    assert centre == (48.0, 20.0)


@pytest.mark.row("S42", "S46")
def test_quality_is_that_of_the_pictures_a_ue_shows() -> None:
    teacher = [photo * 0.5 for photo in PHOTOS]
    measured = measure_quality(model_of(grey), CAMERAS, photos=PHOTOS, teacher=teacher, psnr_before=20.0)
    shown = [as_colour(picture) for picture in pictures_of(model_of(grey), CAMERAS)]
    expected = quality(shown, PHOTOS)
    assert (measured.psnr, measured.ssim, measured.flip) == (expected.psnr, expected.ssim, expected.flip)
    assert measured.psnr_teacher == pytest.approx(quality(shown, teacher).psnr, abs=1e-4)
    assert (measured.psnr_before, measured.views) == (20.0, len(PHOTOS))


def test_pictures_have_the_photos_size_whatever_the_model_draws() -> None:
    assert {picture.shape for picture in pictures_of(model_of(grey), CAMERAS)} == {(40, 48, 3)}


def test_a_perfect_picture_is_written_down_as_a_number() -> None:
    photos = [torch.full((40, 48, 3), 128 / 255)] * len(CAMERAS)
    measured = measure_quality(model_of(grey), CAMERAS, photos=photos, teacher=photos)
    assert measured.psnr == measured.psnr_teacher == MOST_DB


def test_without_photos_nothing_is_claimed() -> None:
    measured = measure_quality(model_of(grey), CAMERAS, photos=[], teacher=[])
    assert measured.views == 0
    assert measured.psnr is None
