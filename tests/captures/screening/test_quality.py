"""What the measurements of one photo must do: stops are stops, blur costs sharpness, exposure does not."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, uniform_filter1d

from crowdnerf_lab.captures.screening.quality import MEASURED_SIZE, measure_photo, sharpness_of
from crowdnerf_lab.fields.appearance import linear_to_srgb


def patches(*, size: int = 96, seed: int = 0) -> np.ndarray:
    """A grey picture of blocks with edges in both directions, in [0.2, 0.8]."""
    blocks = np.random.default_rng(seed).uniform(0.2, 0.8, (size // 8, size // 8))
    return np.kron(blocks, np.ones((8, 8)))


def as_photo(grey: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.repeat(np.rint(grey.clip(0, 1) * 255).astype(np.uint8)[..., None], 3, axis=2))


def sharpness(grey: np.ndarray) -> float:
    return sharpness_of(torch.from_numpy(grey).float())


@given(st.floats(0.02, 0.9))
def test_highlights_count_stops_of_linear_light(light):
    byte = float(linear_to_srgb(torch.tensor(light))) * 255
    photo = torch.full((4, 4, 3), round(byte), dtype=torch.uint8)
    assert measure_photo(photo).highlights == pytest.approx(math.log2(light), abs=0.25)


def test_half_the_light_is_one_stop():
    light = torch.linspace(0.05, 1, 64).expand(48, 64)
    bright, dark = (as_photo(linear_to_srgb(light * gain).numpy()) for gain in (1.0, 0.5))
    assert measure_photo(bright).highlights - measure_photo(dark).highlights == pytest.approx(1, abs=0.03)


def test_clipped_is_the_fraction_of_pixels_with_a_channel_at_its_end():
    photo = torch.full((10, 10, 3), 100, dtype=torch.uint8)
    photo[:3, :, 0] = 255
    assert measure_photo(photo).clipped == pytest.approx(0.3)


@pytest.mark.parametrize("axis", [0, 1])
def test_motion_blur_along_either_axis_costs_more_than_a_stop(axis):
    sharp = patches()
    blurred = uniform_filter1d(sharp, 13, axis=axis, mode="nearest")
    assert sharpness(blurred) < sharpness(sharp) - 1


def test_more_defocus_is_less_sharp():
    values = [sharpness(gaussian_filter(patches(), sigma)) for sigma in (0.0, 1.0, 2.0, 4.0)]
    assert values == sorted(values, reverse=True)


def test_exposure_and_contrast_do_not_count():
    sharp = patches()
    assert sharpness(0.4 * sharp + 0.1) == pytest.approx(sharpness(sharp), abs=1e-3)


def test_an_even_picture_has_no_sharpness():
    assert sharpness(np.full((20, 20), 0.5)) == pytest.approx(math.log2(1e-6))
    assert sharpness(np.full((1, 20), 0.5)) == pytest.approx(math.log2(1e-6))


def test_large_photos_are_measured_at_the_size_fields_see():
    small = patches(size=MEASURED_SIZE // 4)
    large = as_photo(np.kron(small, np.ones((8, 8))))
    at_size = as_photo(np.kron(small, np.ones((4, 4))))
    assert measure_photo(large).sharpness == pytest.approx(measure_photo(at_size).sharpness, abs=0.05)
